"""Is the effect one library's, and does it add to what an index can do by itself?

A finished quickstart, searched three ways.

    python benchmarks/cross_checks.py --run_dir runs/quickstart --output cross-checks.csv

Sweeps every trained encoder of the run through faiss, through usearch (another HNSW), and through faiss with early
termination by patience in place of efSearch, over the same questions. Prints the evaluations at matched ANN recall,
and the change against recipe A with a 95% interval from drawing questions and seeds again.
"""
import argparse
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from dacl_dr.core.rows import spaced
from dacl_dr.core.settings import SearchSettings
from dacl_dr.hnsw.curves import sweep
from dacl_dr.hnsw.cost import compare
from dacl_dr.hnsw.engines import Usearch, patience_search
from dacl_dr.studies.tables import read_tables
from dacl_dr.search.exact import InMemory, exact_search
from dacl_dr.search.graph import load_index
from dacl_dr.studies.task import Task
from dacl_dr.encoders.static import load_encoder
from dacl_dr.hnsw.passes import Passes
from dacl_dr.hnsw.searcher import Searcher


COLUMNS = ['engine', 'question', 'model', 'value', 'low', 'high', 'change', 'change low', 'change high']


def searches(queries, passages, index, k, search):
    "Engine → a function of what is swept."
    searcher, other = Searcher(index), Usearch(InMemory(passages), search.m, search.ef_construction)
    return {
        'faiss': Passes(searcher, queries, k),
        'usearch': lambda ef: other.search(queries, k, ef),
        'patience': patience_search(searcher, queries, k),
    }


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--run_dir', type=Path, required=True)
    p.add_argument('--data_dir', type=Path, default='data_set')
    p.add_argument('--questions', type=int, default=1000, help='evenly spaced among the test questions')
    p.add_argument('--output', type=Path)
    a = p.parse_args()
    settings = read_tables(a.run_dir).settings
    task, s, recipes = Task(a.data_dir/'codedocs', settings), SearchSettings(targets=(.95,)), sorted(settings.recipes)
    found = {engine: {r: [] for r in recipes} for engine in ('faiss', 'usearch', 'patience')}
    picked = spaced(len(task.test.questions), a.questions)
    for recipe, seed in tqdm([(r, x) for r in recipes for x in settings.seeds], unit='model'):
        home = a.run_dir/f'{recipe}-seed{seed}'
        encoder = load_encoder(home/'train'/'encoder')
        queries, passages = task.encode(encoder, 'test', picked), task.encode(encoder, 'all')
        exact, index = exact_search(queries, passages, s.k), load_index(home/'search'/'index.faiss')
        for engine, search in searches(queries, passages, index, s.k, settings.search).items():
            found[engine][recipe].append(sweep(search, exact, lambda ids: {}, s, None))
    compared = [compare(m, s, None, 'evaluations', draws=400).assign(engine=e) for e, m in found.items()]
    table = pd.concat(compared)[COLUMNS]
    print(table.round(3).to_string(index=False))
    if a.output: table.to_csv(a.output, index=False, float_format='%.6g')


if __name__ == '__main__': main()
