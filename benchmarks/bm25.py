"""What BM25 over a large corpus costs: `build_bm25` beside bm25s's own `index`, then opening and searching the result.

    .venv/bin/python benchmarks/bm25.py --passages 200000 1000000

Passages are 100 words drawn from a Zipf-Mandelbrot law whose commonest word (7.5%) and number of distinct words (22,800 in
260,000) are those of Wikipedia paragraphs; of 2.1 billion words it makes 11.6 million distinct ones.
Every measurement runs in its own process and reports its peak resident memory. The last line extrapolates to the
21,015,324 passages of Wikipedia, in proportion. Measured with --passages 21015324 --plain_up_to 0 on two cores: build 20 min and
2.9 GB (11.6 million distinct words, .7 GB of it mapped files), 11.3 GB of disk, 25 s to open from a cold disk, 6.5 queries/s.
"""
import argparse, json, subprocess, sys, tempfile, time
from itertools import islice
from pathlib import Path

import bm25s
import numpy as np

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
    with open(path, 'w') as f:
        for start in range(0, n, 10_000):
            ranks = zipf(rng, (min(10_000, n - start), n_words))
            f.writelines(' '.join([common[r] if r < len(common) else f'{r:x}' for r in row]) + '\n' for row in ranks.tolist())


def read_texts(path):
    "Batches of passages."
    with open(path) as f:
        while batch := list(islice(f, 10_000)): yield batch


def measure(what, folder, n):
    "One measurement in this process, printed as JSON."
    start, result = time.perf_counter(), {}
    if what == 'build': build_bm25(read_texts(folder/'texts'), folder/'ours', n=n)
    elif what == 'bm25s':
        index = bm25_index([t for batch in read_texts(folder/'texts') for t in batch])
        index.save(folder/'theirs')
    elif what == 'load': bm25s.BM25.load(folder/'ours', mmap=True)
    else:
        index = open_bm25(folder/'ours')
        result['opened'] = time.perf_counter() - start
        queries = (folder/'queries').read_text().splitlines()
        index.search(queries[:2], 100, show_progress=False) # compiles
        start = time.perf_counter()
        index.search(queries, 100, show_progress=False)
        result['queries_per_s'] = len(queries) / (time.perf_counter() - start)
    result['seconds'] = time.perf_counter() - start
    status = dict(line.split(':', 1) for line in Path('/proc/self/status').read_text().splitlines())
    print(json.dumps(result | {'peak_gb': int(status['VmHWM'].split()[0]) * 1024 / 1e9}))


def measured(what, folder, n):
    "The same in a process of its own."
    out = subprocess.run([sys.executable, __file__, '--measure', what, '--folder', folder, '--passages', str(n)], capture_output=True, text=True)
    if out.returncode: sys.exit(out.stderr)
    return json.loads(out.stdout)


def compare(folder, n, plain):
    "Print what n passages cost."
    write_texts(folder/'texts', n); write_texts(folder/'queries', 200, 10, seed=1)
    ours, theirs = measured('build', folder, n), measured('bm25s', folder, n) if plain else None
    search, load = measured('search', folder, n), measured('load', folder, n)
    size = sum(f.stat().st_size for f in (folder/'ours').iterdir())
    words = len(np.load(folder/'ours'/'indptr.csc.index.npy', mmap_mode='r')) - 1
    print(f'{n:,} passages of {WORDS} words, {words:,} distinct words')
    print(f"  build_bm25     {ours['seconds']:8.1f} s   peak {ours['peak_gb']:6.2f} GB   {size / n:6.0f} bytes a passage")
    if theirs:
        time_ratio, memory_ratio = (theirs[x] / ours[x] for x in ('seconds', 'peak_gb'))
        print(f"  bm25s.index    {theirs['seconds']:8.1f} s   peak {theirs['peak_gb']:6.2f} GB   ratio: time x{time_ratio:.2f}, memory x{memory_ratio:.1f}")
    print(f"  open_bm25      {search['opened']:8.2f} s   bm25s's load {load['seconds']:.2f} s, {load['peak_gb']:.2f} GB")
    print(f"  search         {search['queries_per_s']:8.1f} queries/s of 10 words, k=100   peak {search['peak_gb']:.2f} GB with the mapped postings", flush=True)
    return ours['seconds'] / n, size / n, 1 / search['queries_per_s'] / n


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--passages', type=int, nargs='+', default=[200_000, 1_000_000])
    parser.add_argument('--plain_up_to', type=int, default=1_000_000, help="largest corpus that bm25s's own index is given")
    parser.add_argument('--folder', type=Path, help='where to work; default: a temporary folder')
    parser.add_argument('--measure', choices=['build', 'bm25s', 'load', 'search'], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure: return measure(args.measure, args.folder, args.passages[0])
    for n in args.passages:
        with tempfile.TemporaryDirectory(dir=args.folder) as d: build, size, query = compare(Path(d), n, n <= args.plain_up_to)
    print(f'{WIKIPEDIA:,} passages, extrapolated from {n:,}: build {build * WIKIPEDIA / 60:.0f} min, {size * WIKIPEDIA / 1e9:.1f} GB, {1 / (query * WIKIPEDIA):.1f} queries/s')


if __name__ == '__main__': main()
