"""BM25's quality on two data sets in DPR's format, by judgements and by answer match, for both engines and several ways to cut words.

    python benchmarks/bm25_quality.py --data_dir DIR     # DIR holds squad/ and tldr/

Writes nbs/experiments/results/bm25.csv, which nbs/experiments/bm25.ipynb shows. About a minute on two cores.
"""
import argparse, json, tempfile
from pathlib import Path

import pandas as pd

from dacl_dr.core.settings import Reading
from dacl_dr.evaluation.bm25 import bm25_eval
from dacl_dr.search.bm25 import Analyzer, Bm25Settings
from dacl_dr.data.folders import data_set

WORDS = {'all': Analyzer(), 'without stop words': Analyzer(stopwords='en'), 'stemmed, without stop words': Analyzer(stopwords='en', stemmer='english')}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--data_dir', required=True)
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as d:
        for name, engines in (('squad', ('rank_bm25', 'bm25s')), ('tldr', ('bm25s',))):
            data = data_set(name, args.data_dir)
            for words, analyzer in WORDS.items():
                for engine in engines:
                    m = json.loads(bm25_eval(data.corpus, data.splits['test'], d, name, engine, Bm25Settings(analyzer=analyzer), reading=Reading(d)).read_text())
                    for metric, value in m['metrics'].items():
                        family, k = metric.split('@')
                        if family in ('recall', 'answer accuracy'): rows.append({'data': name, 'words': words, 'engine': engine, 'metric': family, 'k': int(k), 'value': round(value, 4), 'half_width': round(m['half_width'][metric], 4)})
    table = pd.DataFrame(rows)
    table.to_csv(Path(__file__).parents[1]/'nbs'/'experiments'/'results'/'bm25.csv', index=False)
    print(table.pivot_table(index=['data', 'metric', 'words', 'engine'], columns='k', values='value').round(3).to_string())


if __name__ == '__main__': main()
