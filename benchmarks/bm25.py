"""What BM25 over a large corpus costs: `build_bm25` beside bm25s's own `index`, then opening and searching the result.

    python benchmarks/bm25.py --passages 200000 1000000 --table nbs/experiments/results/performance.csv

Passages are 100 words drawn from a Zipf-Mandelbrot law whose commonest word (7.5%) and number of distinct words (22,800
in 260,000) are those of Wikipedia paragraphs; of 2.1 billion words it makes 11.6 million distinct ones. Every
measurement runs in its own process and reports its peak resident memory. Searches are of 10 words, k = 100. The last
line extrapolates to the 21,015,324 passages of Wikipedia, in proportion. Measured with --passages 21015324
--plain_up_to 0 on two cores: build 20 min and 2.9 GB (11.6 million distinct words, .7 GB of it mapped files), 11.3 GB
of disk, 25 s to open from a cold disk, 6.5 queries/s.
"""
import argparse, json, tempfile, time
from itertools import islice
from pathlib import Path

import bm25s
import numpy as np, pandas as pd

from measuring import OURS, apart, peak_bytes, rows_of, save, show

from dacl_dr.search.bm25 import bm25_index
from dacl_dr.search.bm25_disk import build_bm25, open_bm25

WIKIPEDIA = 21_015_324
WORDS, DISTINCT = 100, 50_000_000 # a passage, the language


def zipf(rng, n, exponent=1.35, shift=4.):
    "n ranks from 0 by the Zipf-Mandelbrot law, by inverting its distribution function."
    top = (DISTINCT / shift + 1)**(1 - exponent)
    return (((1 - rng.random(n) * (1 - top))**(1 / (1 - exponent)) - 1) * shift).astype(np.int64)


def write_texts(path, n, n_words=WORDS, seed=0):
    "One passage a line."
    rng, common = np.random.default_rng(seed), [f'{i:x}' for i in range(1 << 18)]
    word = lambda r: common[r] if r < len(common) else f'{r:x}'
    with open(path, 'w') as f:
        for start in range(0, n, 10_000):
            ranks = zipf(rng, (min(10_000, n - start), n_words))
            f.writelines(' '.join(map(word, row)) + '\n' for row in ranks.tolist())


def read_texts(path):
    "Batches of passages."
    with open(path) as f:
        while batch := list(islice(f, 10_000)): yield batch


def search_ours(folder, queries):
    "Seconds to open an index, and to search it."
    start = time.perf_counter()
    index = open_bm25(folder/'ours')
    opened = time.perf_counter() - start
    index.search(queries[:2], 100, show_progress=False) # compiles
    start = time.perf_counter()
    index.search(queries, 100, show_progress=False)
    return {'opened': opened, 'queries_per_s': len(queries) / (time.perf_counter() - start)}


def search_theirs(folder, queries):
    "The same with bm25s and its own index, in memory."
    start = time.perf_counter()
    index = bm25s.BM25.load(folder/'theirs')
    opened = time.perf_counter() - start
    index.backend = 'numba'
    ask = lambda some: index.retrieve([q.split() for q in some], k=100, show_progress=False, n_threads=-1)
    ask(queries[:2]) # compiles
    start = time.perf_counter()
    ask(queries)
    return {'opened': opened, 'queries_per_s': len(queries) / (time.perf_counter() - start)}


def measure(what, folder, n):
    "One measurement in this process, printed as JSON."
    start, result = time.perf_counter(), {}
    if what == 'build': build_bm25(read_texts(folder/'texts'), folder/'ours', n=n)
    elif what == 'bm25s':
        bm25_index([t for batch in read_texts(folder/'texts') for t in batch]).save(folder/'theirs')
    else:
        queries = (folder/'queries').read_text().splitlines()
        result = {'search': search_ours, 'search bm25s': search_theirs}[what](folder, queries)
    print(json.dumps(result | {'seconds': time.perf_counter() - start, 'peak_gb': peak_bytes() / 1e9}))


def compare(a, folder, n):
    "Table rows of n passages."
    write_texts(folder/'texts', n)
    write_texts(folder/'queries', 200, 10, seed=1)
    plain, rows = n <= a.plain_up_to, []
    ask = lambda what: apart(__file__, ['--measure', what, '--folder', folder, '--passages', n])
    built, asked = {OURS: []} | ({'bm25s': []} if plain else {}), {OURS: []} | ({'bm25s': []} if plain else {})
    for _ in range(a.rounds):
        for way, what in ((OURS, 'build'), ('bm25s', 'bm25s'))[:1 + plain]: built[way].append(ask(what))
        for way, what in ((OURS, 'search'), ('bm25s', 'search bm25s'))[:1 + plain]: asked[way].append(ask(what))
    of = lambda found, key: {way: [r[key] for r in runs] for way, runs in found.items()}
    words = len(np.load(folder/'ours'/'indptr.csc.index.npy', mmap_mode='r')) - 1
    print(f'{n:,} passages of {WORDS} words, {words:,} distinct words')
    case = f'{n:,} passages'
    rows = [
        rows_of('BM25', f'{case}, build', 's', of(built, 'seconds')),
        rows_of('BM25', f'{case}, build', 'GB at most', of(built, 'peak_gb')),
        rows_of('BM25', f'{case}, open', 's', of(asked, 'opened')),
        rows_of('BM25', f'{case}, search', 'queries/s', of(asked, 'queries_per_s'), bigger_is_better=True),
        rows_of('BM25', f'{case}, search', 'GB at most', of(asked, 'peak_gb')),
    ]
    for r in rows: show(r)
    size = sum(f.stat().st_size for f in (folder/'ours').iterdir())
    mid = lambda found, key: float(np.median(of(found, key)[OURS]))
    return rows, (mid(built, 'seconds') / n, size / n, 1 / mid(asked, 'queries_per_s') / n)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--passages', type=int, nargs='+', default=[200_000, 1_000_000])
    p.add_argument('--plain_up_to', type=int, default=1_000_000, help="largest corpus that bm25s's own index is given")
    p.add_argument('--rounds', type=int, default=3)
    p.add_argument('--folder', type=Path, help='where to work; default: a temporary folder')
    p.add_argument('--table', help='CSV whose part BM25 is replaced')
    p.add_argument('--measure', choices=['build', 'bm25s', 'search', 'search bm25s'], help=argparse.SUPPRESS)
    a = p.parse_args()
    if a.measure: return measure(a.measure, a.folder, a.passages[0])
    table = []
    for n in a.passages:
        with tempfile.TemporaryDirectory(dir=a.folder) as d: rows, (build, size, query) = compare(a, Path(d), n)
        table += rows
    print(
        f'{WIKIPEDIA:,} passages, extrapolated from {n:,}: build {build * WIKIPEDIA / 60:.0f} min, '
        f'{size * WIKIPEDIA / 1e9:.1f} GB, {1 / (query * WIKIPEDIA):.1f} queries/s')
    if a.table: save(a.table, pd.concat(table), ['bm25s', 'numba', 'numpy'])


if __name__ == '__main__': main()
