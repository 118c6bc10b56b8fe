"""Uniformity of 10,000 × 768 vectors beside its authors' formula (torch.pdist), and the whole record of a space.

    python benchmarks/representation.py

Prints medians of several rounds, taken in turns, and peak memory above the vectors', each in a process of its own.
"""
import argparse
import multiprocessing
import resource
import statistics
import time

import numpy as np


def vectors(n, dim):
    x = np.random.default_rng(0).normal(size=(n, dim)).astype('f4')
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def ours(x):
    from dacl_dr.representation.alignment_uniformity import uniformity
    return uniformity(x)


def authors(x): # https://github.com/ssnl/align_uniform
    import torch
    return torch.pdist(torch.from_numpy(x), p=2).pow(2).mul(-2).exp().mean().log().item()


def record(x):
    from dacl_dr.representation.summary import geometry
    return geometry(x, x[::-1].copy(), np.arange(len(x)))['uniformity queries']


WAYS = {'dacl_dr uniformity': ours, 'torch.pdist uniformity': authors, 'dacl_dr geometry (all numbers)': record}


def measure(name, n, dim, rounds, out):
    x, way = vectors(n, dim), WAYS[name]
    way(x[:100])
    before, times = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, []
    for _ in range(rounds):
        start = time.perf_counter(); value = way(x); times.append(time.perf_counter() - start)
    out.put((value, times, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--rows', type=int, default=10_000)
    p.add_argument('--dim', type=int, default=768)
    p.add_argument('--rounds', type=int, default=3)
    a = p.parse_args()
    context, found = multiprocessing.get_context('spawn'), {name: [] for name in WAYS}
    for _ in range(a.rounds):
        for name in WAYS:
            out = context.Queue()
            child = context.Process(target=measure, args=(name, a.rows, a.dim, 1, out)); child.start()
            found[name].append(out.get()); child.join()
    base = statistics.median(t[0] for _, t, _ in found['torch.pdist uniformity'])
    print(f'{a.rows:,} × {a.dim}\n{"":<32}{"value":>10}{"seconds":>10}{"of pdist":>10}{"peak MB above":>15}')
    for name, rows in found.items():
        seconds = statistics.median(t[0] for _, t, _ in rows)
        memory = statistics.median(m for *_, m in rows)
        print(f'{name:<32}{rows[0][0]:>10.5f}{seconds:>10.2f}{seconds / base:>10.2f}{memory:>15.0f}')


if __name__ == '__main__': main()
