"""An HNSW graph of this project beside hnswlib, usearch and faiss: queries a second at equal ANN recall, and building.

    pip install -r benchmarks/requirements.txt
    python benchmarks/libraries.py --sizes 20000x256 100000x256 --table nbs/experiments/results/performance.csv

Vectors are made: in clusters, of low rank, unit norm (`scale.synthetic`). All libraries get the same vectors, M and
efConstruction. A library's efSearch is the smallest that reaches the ANN recall, of a grid whose steps are a tenth or
less; this project's searcher is asked by the distance-adaptive rule, with the smallest γ that does, in steps of .005.
Times are of one search over all queries, in turns; `--threads` for the numbers of threads.
"""
import argparse, os

import numpy as np, pandas as pd

from measuring import OURS, in_turns, rows_of, save, show
from scale import synthetic

from dacl_dr.core.settings import IndexSettings
from dacl_dr.hnsw.passes import find_each
from dacl_dr.hnsw.searcher import Searcher, Stop
from dacl_dr.metrics.ranking import ann_recall
from dacl_dr.search.exact import InMemory, exact_search
from dacl_dr.search.graph import fill_index

EFS = sorted({round(10 * 1.09**i) for i in range(60)})
GAMMAS = [round(i / 200, 3) for i in range(160)]
K, QUERIES = 10, 2000


class Ours:
    "This project: faiss's graph, its own searcher."
    def build(self, x, m, ef_construction, threads):
        import faiss
        faiss.omp_set_num_threads(threads)
        self.index = fill_index(InMemory(x), IndexSettings(m=m, ef_construction=ef_construction, chunk_rows=len(x)))
        self.searcher = Searcher(self.index)
    def settings(self, q, exact, recall):
        for i in range(0, len(GAMMAS), 8):
            stops = [Stop(gamma=g) for g in GAMMAS[i:i + 8]]
            for stop, t in zip(stops, find_each(self.searcher, q, K, stops)):
                if ann_recall(t.ids, exact).mean() >= recall: return stop
        return None
    def search(self, q, stop, threads): return self.searcher.find(q, K, stop, threads=threads).ids


class WithEf:
    "A library that is asked with efSearch."
    def settings(self, q, exact, recall):
        enough = lambda ef: ann_recall(self.search(q, ef, os.cpu_count()), exact).mean() >= recall
        lo, hi = 0, len(EFS) - 1
        if not enough(EFS[hi]): return None
        while lo < hi:
            middle = (lo + hi) // 2
            lo, hi = (lo, middle) if enough(EFS[middle]) else (middle + 1, hi)
        return EFS[lo]


class Faiss(WithEf):
    def build(self, x, m, ef_construction, threads):
        import faiss
        faiss.omp_set_num_threads(threads)
        self.faiss, self.index = faiss, faiss.IndexHNSWFlat(x.shape[1], m, faiss.METRIC_INNER_PRODUCT)
        self.index.hnsw.efConstruction = ef_construction
        self.index.add(x)
    def search(self, q, ef, threads):
        self.faiss.omp_set_num_threads(threads)
        self.index.hnsw.efSearch = ef
        return self.index.search(q, K)[1]


class Hnswlib(WithEf):
    def build(self, x, m, ef_construction, threads):
        import hnswlib
        self.index = hnswlib.Index('ip', x.shape[1])
        self.index.init_index(len(x), ef_construction, m)
        self.index.add_items(x, num_threads=threads)
    def search(self, q, ef, threads):
        self.index.set_ef(ef)
        return self.index.knn_query(q, K, num_threads=threads)[0].astype(np.int64)


class Usearch(WithEf):
    def build(self, x, m, ef_construction, threads):
        from usearch.index import Index
        self.index = Index(ndim=x.shape[1], metric='ip', dtype='f32', connectivity=m, expansion_add=ef_construction)
        self.index.add(np.arange(len(x)), x, threads=threads)
    def search(self, q, ef, threads):
        self.index.expansion_search = ef
        return self.index.search(q, K, threads=threads).keys.astype(np.int64)


LIBRARIES = {OURS: Ours, 'faiss': Faiss, 'hnswlib': Hnswlib, 'usearch': Usearch}


def measured(a, rows, dim):
    "Rows of one size: building, and searches at each recall."
    x, q = synthetic(rows, dim, 1), synthetic(QUERIES, dim, 0)
    exact, size, out = exact_search(q, x, K), f'{rows:,} × {dim}', []
    made = {name: LIBRARIES[name]() for name in a.libraries}
    cores = max(a.threads)
    build = {n: (lambda lib=lib: lib.build(x, a.m, a.ef_construction, cores)) for n, lib in made.items()}
    found = in_turns(build, 1 if rows >= 500_000 else a.builds)
    out.append(rows_of('build', f'{size}, {cores} threads', 's', found))
    for recall in a.recalls:
        known = {n: lib.settings(q, exact, recall) for n, lib in made.items()}
        for threads in a.threads:
            ask = {n: (lambda n=n: made[n].search(q, known[n], threads)) for n in made if known[n] is not None}
            for work in ask.values(): work() # warms up
            case = f'{size}, ANN recall {recall:g}, {threads} thread' + 's' * (threads > 1)
            taken = {n: [QUERIES / s for s in v] for n, v in in_turns(ask, a.rounds).items()}
            out.append(rows_of('search', case, 'queries/s', taken, bigger_is_better=True))
            show(out[-1])
        print({n: str(v) for n, v in known.items()})
        print({n: round(float(ann_recall(made[n].search(q, known[n], cores), exact).mean()), 4) for n in ask})
    show(out[0])
    return out


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--sizes', nargs='+', default=['20000x256', '100000x256', '20000x1024'])
    p.add_argument('--libraries', nargs='+', default=[*LIBRARIES])
    p.add_argument('--recalls', nargs='+', type=float, default=[.95, .99])
    p.add_argument('--threads', nargs='+', type=int, default=[1, os.cpu_count()])
    p.add_argument('--m', type=int, default=16)
    p.add_argument('--ef_construction', type=int, default=200)
    p.add_argument('--rounds', type=int, default=7)
    p.add_argument('--builds', type=int, default=3)
    p.add_argument('--table', help='CSV whose parts build and search are replaced')
    a = p.parse_args()
    parts = [part for size in a.sizes for part in measured(a, *map(int, size.split('x')))]
    if a.table: save(a.table, pd.concat(parts), ['faiss-cpu', 'hnswlib', 'usearch', 'numba', 'numpy'])


if __name__ == '__main__': main()
