"""Search and index building beside faiss: the same work, in turns, in one run.

    python benchmarks/search.py
    python benchmarks/search.py --parts passes --rows 20000 --dim 256 --table nbs/experiments/results/performance.csv

Prints medians of the ratios of paired runs, with the smallest and the largest. Parts:
  tracer     the tracer on one thread against faiss on one thread, whose search it repeats while it keeps the books
  batched    both on all cores
  searcher   the searcher on one thread against faiss on one thread: by efSearch, whose search it repeats, and by the
             distance-adaptive rule at the ANN recall of that efSearch
  build      an index of this project against faiss's own add(): time, and peak memory beside the size of the index
  passes     a sweep over 19 efSearch values in one pass against one search after another, on one thread; same results
"""
import argparse, json, os, time
from statistics import median

from measuring import OURS, apart, in_turns, peak_bytes, rows_of, save, show
from scale import synthetic

from dacl_dr.core.settings import IndexSettings

EFS = (16, 64, 256)


def ratios(ours, theirs):
    r = [a / b for a, b in zip(ours, theirs)]
    return f'x{median(r):.3f} ({min(r):.3f} to {max(r):.3f})'


def pairs_of(ours, theirs, rounds):
    "Times of both, a pair a round."
    found = in_turns({'ours': ours, 'theirs': theirs}, rounds)
    return list(zip(found['ours'], found['theirs']))


def search_part(a, threads):
    import faiss
    from dacl_dr.search.graph import build_hnsw
    from dacl_dr.hnsw.tracer import Tracer
    x, q = synthetic(a.rows, a.dim, 1), synthetic(2000, a.dim, 0)
    faiss.omp_set_num_threads(os.cpu_count())
    index = build_hnsw(x, 32, 200)
    tracer = Tracer(index)
    faiss.omp_set_num_threads(threads)
    part = 'tracer' if threads == 1 else 'batched'
    print(
        f'\n{part}: {a.rows:,} x {a.dim}, M=32, 2,000 queries, k=10, {threads} thread(s); '
        'time of the tracer over time of faiss')
    for ef in EFS:
        index.hnsw.efSearch = ef
        search = lambda: index.search(q, 10)
        trace = lambda: tracer.search(q, 10, ef, threads=threads)
        same = (search()[1] == trace().ids).all()
        pairs = pairs_of(trace, search, a.repeats)
        rate = 2000 / median(theirs for _, theirs in pairs)
        print(
            f'  ef {ef:>3}: {ratios(*zip(*pairs))}, faiss {rate:,.0f} queries/s, '
            f'ids equal for every query: {bool(same)}, {trace().evaluations.mean():,.0f} evaluations')


def gamma_for(searcher, q, exact, recall):
    "The smallest gamma, in steps of a hundredth, that finds as much."
    from dacl_dr.hnsw.searcher import Stop
    from dacl_dr.metrics.ranking import ann_recall
    for step in range(200):
        stop = Stop(gamma=step / 100)
        if ann_recall(searcher.find(q, 10, stop).ids, exact).mean() >= recall: return stop
    raise SystemExit('no gamma reaches the recall')


def searcher_part(a):
    import faiss
    from dacl_dr.hnsw.searcher import Searcher, Stop
    from dacl_dr.metrics.ranking import ann_recall
    from dacl_dr.search.exact import exact_search
    from dacl_dr.search.graph import build_hnsw
    x, q = synthetic(a.rows, a.dim, 1), synthetic(2000, a.dim, 0)
    faiss.omp_set_num_threads(os.cpu_count())
    index, exact = build_hnsw(x, 32, 200), exact_search(q, x, 10)
    searcher = Searcher(index)
    faiss.omp_set_num_threads(1)
    print(
        f'\nsearcher: {a.rows:,} x {a.dim}, M=32, 2,000 queries, k=10, 1 thread; time of a distance computation over '
        "faiss's by efSearch; time of a query by gamma over faiss's at the same ANN recall")
    for ef in EFS:
        index.hnsw.efSearch = ef
        by_ef = searcher.find(q, 10, Stop(ef=ef))
        stop = gamma_for(searcher, q, exact, ann_recall(by_ef.ids, exact).mean())
        search = lambda: index.search(q, 10)
        plain = pairs_of(lambda: searcher.find(q, 10, Stop(ef=ef), threads=1), search, a.repeats)
        gamma = pairs_of(lambda: searcher.find(q, 10, stop, threads=1), search, a.repeats)
        print(
            f'  ef {ef:>3}: {ratios(*zip(*plain))} a computation, ids equal: {bool((search()[1] == by_ef.ids).all())}; '
            f'gamma {stop.gamma:.2f}: {ratios(*zip(*gamma))} a query, '
            f'{searcher.find(q, 10, stop).evaluations.mean() / by_ef.evaluations.mean():.2f} of the computations')


def build_one(a, whose):
    import faiss
    from dacl_dr.search.exact import InMemory
    from dacl_dr.search.graph import fill_index
    x = synthetic(a.build_rows, a.dim, 1)
    start = time.perf_counter()
    if whose == 'ours':
        index = fill_index(InMemory(x), IndexSettings(chunk_rows=len(x)))
    else:
        index = faiss.IndexHNSWFlat(a.dim, 32, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = 200
        index.add(x)
    seconds = time.perf_counter() - start
    print(json.dumps({'s': seconds, 'peak': peak_bytes(), 'bytes': len(faiss.serialize_index(index))}))


def build_part(a):
    print(
        f'\nbuild: {a.build_rows:,} x {a.dim}, M=32, efConstruction=200, one add(), {os.cpu_count()} threads; '
        'each in its own process, the vectors in memory')
    runs = {w: [] for w in ('ours', 'faiss')}
    for _ in range(3):
        for whose, found in runs.items():
            found.append(apart(__file__, ['--parts', whose, '--dim', a.dim, '--build_rows', a.build_rows]))
    seconds = {whose: [r['s'] for r in found] for whose, found in runs.items()}
    peak = {whose: median(r['peak'] for r in found) / 1e6 for whose, found in runs.items()}
    size = {whose: found[0]['bytes'] for whose, found in runs.items()}
    print(f"  time over faiss's {ratios(seconds['ours'], seconds['faiss'])}, faiss {median(seconds['faiss']):.1f} s")
    print(
        f"  peak memory {peak['ours']:,.0f} MB, faiss {peak['faiss']:,.0f} MB; "
        f"index {size['ours'] / 1e6:,.0f} MB, as many bytes as faiss's: {size['ours'] == size['faiss']}")


SWEPT = (10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 256) # efSearch


def passes_part(a):
    import msgspec, numpy as np
    from dacl_dr.hnsw.passes import Passes
    from dacl_dr.hnsw.searcher import Searcher
    from dacl_dr.search.graph import build_hnsw
    x, q = synthetic(a.rows, a.dim, 1), synthetic(2000, a.dim, 0)
    searcher = Searcher(build_hnsw(x, 32, 200))
    search = Passes(searcher, q, 10, threads=1)
    one_by_one = lambda: [searcher.search(q, 10, ef, threads=1) for ef in SWEPT]
    together = lambda: list(search.many(SWEPT, len(SWEPT)))
    same = all(
        np.array_equal(u, v) for s, t in zip(one_by_one(), together())
        for u, v in zip(msgspec.structs.astuple(s)[:7], msgspec.structs.astuple(t)))
    found = in_turns({OURS: together, 'one search after another': one_by_one}, a.repeats)
    case = f'sweep of {len(SWEPT)} efSearch, {a.rows:,} × {a.dim}, 2,000 queries, 1 thread'
    rows = rows_of('sweep', case, 's', found)
    show(rows)
    print(f'  ids, distances and counts equal for every query: {same}')
    if a.table: save(a.table, rows, ['faiss-cpu', 'numba', 'numpy'])


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = ['tracer', 'batched', 'searcher', 'passes', 'build']
    p.add_argument('--parts', nargs='+', default=parts, help='which (default: all)')
    p.add_argument('--rows', type=int, default=50_000)
    p.add_argument('--build_rows', type=int, default=20_000)
    p.add_argument('--dim', type=int, default=768)
    p.add_argument('--repeats', type=int, default=7)
    p.add_argument('--table', help='CSV whose part sweep is replaced')
    a = p.parse_args()
    for part in a.parts:
        if part in ('ours', 'faiss'): build_one(a, part)
        elif part == 'tracer': search_part(a, 1)
        elif part == 'batched': search_part(a, os.cpu_count())
        elif part == 'searcher': searcher_part(a)
        elif part == 'passes': passes_part(a)
        else: build_part(a)


if __name__ == '__main__': main()
