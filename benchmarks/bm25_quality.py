"""BM25's quality on two data sets in DPR's format, by judgements and by answer match, for both engines and several
ways to cut words.

    python benchmarks/bm25_quality.py --data_dir DIR     # DIR holds squad/ and tldr/

Writes nbs/experiments/results/bm25.csv, which nbs/experiments/bm25.ipynb shows. About a minute on two cores.
"""
import argparse, json, tempfile
from pathlib import Path

import pandas as pd

from dacl_dr.core.options import Bm25Eval
from dacl_dr.core.settings import Reading
from dacl_dr.evaluation.bm25 import bm25_eval
from dacl_dr.data.folders import data_set

WORDS = {
    'all': {'stopwords': 'none'},
    'without stop words': {'stopwords': 'en'},
    'stemmed, without stop words': {'stopwords': 'en', 'stemmer': 'english'},
}


def measured(m):
    "Recall and answer accuracy of a metrics file, a row each."
    for metric, value in m['metrics'].items():
        family, k = metric.split('@')
        if family not in ('recall', 'answer accuracy'): continue
        half_width = round(m['half_width'][metric], 4)
        yield {'metric': family, 'k': int(k), 'value': round(value, 4), 'half_width': half_width}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--data_dir', required=True)
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as d:
        for name, engines in (('squad', ('rank_bm25', 'bm25s')), ('tldr', ('bm25s',))):
            data = data_set(name, args.data_dir)
            for words, cut in WORDS.items():
                for engine in engines:
                    path = bm25_eval(Bm25Eval(
                        corpus_file=data.corpus, test_file=data.splits['test'], output_path=d, dataset_name=name,
                        engine=engine, reading=Reading(d), **cut,
                    ))
                    about = {'data': name, 'words': words, 'engine': engine}
                    rows += [about | row for row in measured(json.loads(path.read_text()))]
    table = pd.DataFrame(rows)
    table.to_csv(Path(__file__).parents[1]/'nbs'/'experiments'/'results'/'bm25.csv', index=False)
    wide = table.pivot_table(index=['data', 'metric', 'words', 'engine'], columns='k', values='value')
    print(wide.round(3).to_string())


if __name__ == '__main__': main()
