"""How long people wait: from a command to a refusal, to its first number, to its page.

    python benchmarks/waiting.py --table nbs/experiments/results/performance.csv

Vectors are made (`scale.synthetic`): 30,000 of 384 dimensions, and fewer of 4,096. Each command runs in a process of
its own and writes into a new folder; before it is counted it has run once, so that what numba compiles is kept. The
first number is the first line that tells of visited nodes, or of the search that one has; the end is that of the
process, when its page is written. `import dacl_dr`, `dacl --help` and refusals are told beside it.
"""
import argparse, os, re, subprocess, sys, tempfile, time
from pathlib import Path

import numpy as np, pandas as pd

from measuring import OURS, rows_of, save, show
from scale import synthetic

DACL = [Path(sys.executable).with_name('dacl')]
NUMBER = re.compile('visited nodes at ANN recall|what you have:')


def waited(command, folder, refused=False):
    "Seconds from the start of a command to its first number and to its end."
    start, first = time.perf_counter(), None
    process = subprocess.Popen(
        [*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.PIPE if refused else subprocess.DEVNULL,
        text=True, cwd=folder, env=os.environ | {'PYTHONUNBUFFERED': '1'})
    for line in process.stdout:
        if first is None and NUMBER.search(line): first = time.perf_counter() - start
    error = process.stderr.read() if refused else ''
    ended = process.wait()
    if ended != (2 if refused else 0): raise SystemExit(f'{command}: ended with {ended} {error}')
    return {'first': first, 'end': time.perf_counter() - start}


def write_vectors(folder, rows, queries, dim):
    "Files of passages and of queries, and what a command is told of them."
    paths = [folder/f'{name}-{rows}-{dim}.npy' for name in ('passages', 'queries')]
    for path, n, seed in zip(paths, (rows, queries), (1, 0)): np.save(path, synthetic(n, dim, seed))
    return ['--vectors', paths[0], '--query_vectors', paths[1]]


def measured(case, command, folder, rounds, refused=False, writes=False):
    "Table rows of one command."
    runs = []
    for i in range(rounds + 1): # the first compiles
        output = ['--output', folder/f'{case}-{i}'] if writes else []
        runs.append(waited([*command, *output], folder, refused))
    rows = [rows_of('waiting', f'{case}: {name}', 's', {OURS: [r[key] for r in runs[1:]]})
            for key, name in (('first', 'first number'), ('end', 'end')) if runs[1][key] is not None]
    for r in rows: show(r)
    return rows


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--sizes', nargs='+', default=['30000x384', '5000x4096'])
    p.add_argument('--queries', type=int, default=3000)
    p.add_argument('--commands', nargs='+', choices=['diagnose', 'tune'], default=['diagnose', 'tune'])
    p.add_argument('--rounds', type=int, default=3)
    p.add_argument('--table', help='CSV whose part waiting is replaced')
    a = p.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as d:
        d = Path(d)
        (d/'bad.npy').write_bytes(b'not vectors')
        rows += measured('import dacl_dr', [sys.executable, '-c', 'import dacl_dr'], d, a.rounds)
        rows += measured('dacl --help', [*DACL, '--help'], d, a.rounds)
        for name in ('diagnose', 'tune'):
            bad = [*DACL, name, '--vectors', 'bad.npy']
            rows += measured(f'dacl {name} refuses a damaged file', bad, d, a.rounds, refused=True)
        for size in a.sizes:
            n, dim = map(int, size.split('x'))
            files = write_vectors(d, n, a.queries, dim)
            for name in a.commands:
                rows += measured(f'dacl {name}, {n:,} × {dim}', [*DACL, name, *files], d, a.rounds, writes=True)
    if a.table: save(a.table, pd.concat(rows), ['faiss-cpu', 'numba', 'numpy', 'umap-learn'])


if __name__ == '__main__': main()
