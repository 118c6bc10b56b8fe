"""Build and sweep an HNSW index of a million synthetic vectors: time and peak memory, and what follows for 21 million.

    python benchmarks/scale.py --folder scale-run # 1,000,000 x 768: some 6 GB of disk, half an hour on two cores
    python benchmarks/scale.py --folder small-run --rows 20000
    python benchmarks/scale.py --folder tune-run --dim 384 --m 16 --ef_construction 40 --tune # and `dacl tune` of it

The vectors lie in clusters on a 64-dimensional subspace with a little noise, so that their neighbours are as hard
to find as those of real encoders, not as hard as those of random vectors. Each phase runs in a process of its own,
whose peak resident memory is reported.
"""
import argparse, json, resource, subprocess, sys, time
from pathlib import Path

import numpy as np

from dacl_dr.core.settings import EmbedSettings, IndexSettings

PASSAGES = 21_015_324 # DPR's Wikipedia


class Ids:
    "Stands for the corpus, of which an index needs only the ids."
    def column(self, name, rows): return [str(r + 1) for r in rows]


def synthetic(rows, dim, seed, centres=10_000, rank=64):
    "Unit vectors: a random cluster each, spread inside a subspace that all seeds share."
    shared, rng = np.random.default_rng(0), np.random.default_rng(seed)
    centre = shared.normal(size=(centres, rank)).astype('f4')
    basis = shared.normal(size=(rank, dim)).astype('f4')
    picked = centre[rng.integers(0, centres, rows)]
    x = (picked + .7 * rng.normal(size=(rows, rank)).astype('f4')) @ basis
    x += .5 * rng.normal(size=x.shape).astype('f4')
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def make_vectors(folder, rows, dim):
    "The folder that `embed_corpus` would have made."
    from dacl_dr.search.vectors import Embedding, Shard, digest, shard_paths
    from dacl_dr.core.files import make_folder, write_manifest
    s, shards = EmbedSettings(), []
    make_folder(folder)
    for i in range(-(-rows // s.shard_rows)):
        x = synthetic(min(s.shard_rows, rows - i * s.shard_rows), dim, i + 1)
        np.save(shard_paths(folder, i)[0], x)
        shards.append(Shard(len(x), digest(x), 0.))
    about = Embedding(
        encoder='synthetic', corpus='synthetic', rows=rows, dim=dim, max_tokens=None, settings=s,
        shards=tuple(shards))
    write_manifest(folder/'manifest.json', about)


def settings_of(args): return IndexSettings(m=args.m, ef_construction=args.ef_construction, storage=args.storage)


def build(folder, args):
    from dacl_dr.search.vectors import Vectors
    from dacl_dr.search.indexing import build_index
    index = build_index(Vectors(folder/'vectors'), Ids(), folder/'index', settings_of(args))
    m = index.about
    return {'build_s': m.build_s, 'index_bytes': m.bytes['index.faiss'], 'levels': m.degrees, 'threads': m.threads}


def sweep(folder, args):
    from dacl_dr.search.vectors import Vectors
    from dacl_dr.search.exact import exact_search
    from dacl_dr.search.indexing import Index
    from dacl_dr.metrics.ranking import ann_recall
    from dacl_dr.hnsw.tracer import Tracer, faiss_counts
    index, queries = Index(folder/'index'), synthetic(1000, args.dim, 0)
    start = time.perf_counter()
    exact = exact_search(queries, Vectors(folder/'vectors'), 10)
    rows, exact_s = [], time.perf_counter() - start
    search = Tracer(index.faiss).search if args.storage == 'float32' else lambda *a: faiss_counts(index.faiss, *a)
    for ef in (16, 32, 64, 128, 256, 512):
        start = time.perf_counter()
        t = search(queries, 10, ef)
        seconds = time.perf_counter() - start
        recall = float(ann_recall(t.ids, exact).mean())
        rows.append({
            'ef': ef,
            'ANN recall@10': round(recall, 4),
            'evaluations': float(t.evaluations.mean()),
            'hops': float(t.hops.mean()),
            'queries/s': round(1000 / seconds),
        })
    return {'exact_s': round(exact_s, 1), 'sweep': rows}


def tune(folder, args):
    "As `dacl tune --index index.faiss --query_vectors queries.npy`, with all that is default."
    from dacl_dr.core.cure_options import Tune
    from dacl_dr.tuning.tuner import tune, tuned_lines
    np.save(folder/'queries.npy', synthetic(2000, args.dim, 0))
    start = time.perf_counter()
    path = tune(Tune(
        index=str(folder/'index'/'index.faiss'), query_vectors=str(folder/'queries.npy'),
        output_path=str(folder/'tuned')))
    print(tuned_lines(path))
    return {'tune_s': time.perf_counter() - start}


def run_phase(args):
    "One phase in this process; what it found goes to a file of its name."
    if args.phase == 'vectors': return make_vectors(args.folder/'vectors', args.rows, args.dim)
    found = {'build': build, 'sweep': sweep, 'tune': tune}[args.phase](args.folder, args)
    found['peak_bytes'] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    (args.folder/f'{args.phase}.json').write_text(json.dumps(found, indent=1))


def write_measured(path, args, b, s, t):
    "The table of what was measured."
    measured = {
        'rows': args.rows,
        'dim': args.dim,
        'index bytes': b['index_bytes'],
        'build seconds': b['build_s'],
        'build threads': b['threads'],
        'build peak bytes': b['peak_bytes'],
        'sweep peak bytes': s['peak_bytes'],
    }
    if t: measured |= {'tune seconds': t['tune_s'], 'tune peak bytes': t['peak_bytes']}
    for row in s['sweep']:
        for k in ('ANN recall@10', 'evaluations'): measured[f"{k} at ef {row['ef']}"] = row[k]
    path.write_text('measure,value\n' + ''.join(f'{k},{v}\n' for k, v in measured.items()))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--folder', type=Path, required=True)
    p.add_argument('--rows', type=int, default=1_000_000)
    p.add_argument('--dim', type=int, default=768)
    p.add_argument('--storage', default='float32')
    p.add_argument('--m', type=int, default=IndexSettings().m)
    p.add_argument('--ef_construction', type=int, default=IndexSettings().ef_construction)
    p.add_argument('--tune', action='store_true', help='tune a search of it, too')
    p.add_argument('--output', type=Path, help='table (CSV) of what was measured')
    phases = ('vectors', 'build', 'sweep', 'tune')
    p.add_argument('--phase', choices=phases, help='run one phase only; what the others call')
    args = p.parse_args()
    if args.phase: return run_phase(args)
    done = (args.folder/'vectors'/'manifest.json').exists()
    for phase in phases:
        if phase == 'vectors' and done or phase == 'tune' and not args.tune: continue
        subprocess.run([sys.executable, __file__, *sys.argv[1:], '--phase', phase], check=True)
    b, s, t = (args.folder/f'{phase}.json' for phase in ('build', 'sweep', 'tune'))
    b, s, t = json.loads(b.read_text()), json.loads(s.read_text()), json.loads(t.read_text()) if args.tune else None
    size, n = b['index_bytes'], args.rows
    print(
        f'{n:,} x {args.dim}, {args.storage}: index {size / 1e9:.2f} GB, '
        f"built in {b['build_s'] / 60:.1f} minutes on {b['threads']} threads")
    print(
        f"peak memory: build {b['peak_bytes'] / 1e9:.2f} GB = {b['peak_bytes'] / size:.3f} of the index, "
        f"sweep {s['peak_bytes'] / 1e9:.2f} GB = {s['peak_bytes'] / size:.3f}")
    if t:
        peak = t['peak_bytes']
        print(f"tuned in {t['tune_s']:.0f} s with {peak / 1e9:.2f} GB at most, {peak / size:.2f} of the index")
    for row in b['levels']: print(row)
    for row in s['sweep']: print(row)
    if args.output: write_measured(args.output, args, b, s, t)
    hours = b['build_s'] * b['threads'] / 3600 * PASSAGES / n * np.log(PASSAGES) / np.log(n)
    print(
        f'for {PASSAGES:,} passages, in proportion (times the growth of log n for building): '
        f'index {size / n * PASSAGES / 1e9:.0f} GB, {hours:.0f} core hours, {hours / 32:.1f} hours on 32 cores')


if __name__ == '__main__': main()