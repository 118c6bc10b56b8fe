"""How the cost of a search grows with the number of passages, at the same ANN recall, and what follows for 21 million.

    python benchmarks/growth.py --table nbs/experiments/results/growth.csv # a million vectors: half an hour, two cores

One graph grows: at each size 2,000 queries are searched with every efSearch and every γ of a grid, and computations at
ANN recall .95 and .99 are read off between the points, with 95% intervals over queries. Vectors are made
(`scale.synthetic`), so what is told is how an algorithm grows, not what an encoder costs. Printed is the power of the
number of passages that the line through the last four sizes has, and what it says of Wikipedia's 21 million.
"""
import argparse, time
from pathlib import Path

import faiss, numpy as np, pandas as pd

from scale import PASSAGES, synthetic

from dacl_dr.core.files import atomic_file
from dacl_dr.core.settings import SearchSettings
from dacl_dr.evaluation.facts import costs_for
from dacl_dr.evaluation.standing import Cost95, forecasts
from dacl_dr.hnsw.curves import Sweep
from dacl_dr.hnsw.passes import Passes
from dacl_dr.hnsw.searcher import Searcher, Stop
from dacl_dr.metrics.ranking import ann_recall
from dacl_dr.search.exact import exact_search

K, TARGETS = 10, (.95, .99)
EFS = (10, 13, 16, 20, 25, 32, 40, 50, 64, 80, 100, 128, 160, 200, 256, 320, 400, 512, 640, 800)
GAMMAS = (0, 20, 40, 60, 80, 100, 125, 150, 175, 200, 240, 280, 320, 380, 450) # thousandths
RULES = {'efSearch': (EFS, lambda ef: Stop(ef=int(ef))), 'γ': (GAMMAS, lambda g: Stop(gamma=g / 1000))}


def costs(searcher, q, exact, n):
    "Table rows of one size: computations at each ANN recall, by each rule."
    rows = []
    for rule, (grid, stop) in RULES.items():
        traces = list(Passes(searcher, q, K, stop).many(grid))
        values = {
            'visited': np.stack([t.evaluations for t in traces]).astype(float),
            'ann recall': np.stack([ann_recall(t.ids, exact) for t in traces])}
        found = Sweep(np.array(grid), values, {})
        told = costs_for(found, SearchSettings(targets=TARGETS), draws=300)
        rows.append(told.assign(passages=n, rule=rule, knob=told.pop('ef')))
    return pd.concat(rows)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sizes = [20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000]
    p.add_argument('--sizes', type=int, nargs='+', default=sizes)
    p.add_argument('--dim', type=int, default=256)
    p.add_argument('--m', type=int, default=16)
    p.add_argument('--ef_construction', type=int, default=100)
    p.add_argument('--queries', type=int, default=2000)
    p.add_argument('--table', type=Path, help='CSV that is written after each size')
    a = p.parse_args()
    x, q = synthetic(a.sizes[-1], a.dim, 1), synthetic(a.queries, a.dim, 0)
    index = faiss.IndexHNSWFlat(a.dim, a.m, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = a.ef_construction
    tables, seconds = [], 0.
    for n in a.sizes:
        start = time.perf_counter()
        index.add(x[index.ntotal:n])
        seconds += time.perf_counter() - start
        exact = exact_search(q, x[:n], K)
        tables.append(costs(Searcher(index), q, exact, n).assign(**{'build seconds': seconds}))
        print(tables[-1].to_string(index=False), flush=True)
        if not a.table: continue
        with atomic_file(a.table) as tmp: pd.concat(tables).to_csv(tmp, index=False, float_format='%.5g')
    for (rule, target), rows in pd.concat(tables).groupby(['rule', 'target']):
        points = [Cost95(r.passages, r.value, r.low, r.high, r.bound) for r in rows.tail(4).itertuples()]
        said, slope = forecasts(points, (PASSAGES / a.sizes[-1],))
        for f in said:
            print(f'{rule}, ANN recall {target}: grows with the power {slope:.3f}; for {PASSAGES:,} passages '
                  f'{f.value:,.0f} ({f.low:,.0f} to {f.high:,.0f}) computations, not measured')


if __name__ == '__main__': main()
