"""Converting and reading data at full size, beside json.load and pandas.read_csv.

    python benchmarks/data.py                      # 2 GB of biencoder JSON, 2,000,000 passages; about 10 minutes, 9 GB of disk
    python benchmarks/data.py --gb .2 --passages 100000

Each measurement runs in a process of its own, so that peak memory is its own, and is repeated; medians are shown.
The generated files have the shape of DPR's: records of 130 passages of 100 words, indented JSON, quoted TSV.
"""
import argparse, csv, json, os, statistics, subprocess, sys, tempfile, time
from pathlib import Path

import numpy as np

NQ_TRAIN, WIKIPEDIA = 7.5e9, (21_015_324, 12_827_215_492) # bytes; passages and bytes


def texts(n, rng):
    "n texts of 100 words whose frequencies follow Zipf's law."
    words = np.array([f'word{i:x}' if i % 17 else f'"wörd{i:x}"' for i in range(50_000)])
    return [' '.join(words[np.minimum(rng.zipf(1.2, 100), 50_000) - 1]) for _ in range(n)]


def write_data(folder, gb, passages):
    "questions.json, sample.json (a tenth, 200 MB at most) and psgs.tsv."
    rng = np.random.default_rng(0)
    pool = texts(20_000, rng)
    context = lambda i: {'title': f'title {i}', 'text': pool[i], 'score': float(i), 'title_score': 0, 'passage_id': str(i)}
    for name, size in (('questions.json', gb * 1e9), ('sample.json', min(gb * 1e8, 2e8))):
        with open(folder/name, 'w') as f:
            f.write('[\n')
            while f.tell() < size:
                rows = rng.integers(0, len(pool), 131).tolist()
                record = {'dataset': 'made', 'question': pool[rows[0]][:60], 'answers': ['an answer'], 'positive_ctxs': [context(rows[1])],
                          'negative_ctxs': [context(i) for i in rows[2:101]], 'hard_negative_ctxs': [context(i) for i in rows[101:]]}
                f.write((',\n' if f.tell() > 2 else '') + json.dumps(record, indent=4))
            f.write('\n]\n')
    with open(folder/'psgs.tsv', 'w', newline='') as f:
        out = csv.writer(f, delimiter='\t', lineterminator='\n')
        out.writerow(['id', 'text', 'title'])
        for i, j in enumerate(rng.integers(0, len(pool), passages), 1): out.writerow([i, pool[j], f'title {j}'])


MEASURES = { # run in a process of their own; each prints the seconds it took, or several named numbers
    'convert': 'store = {open}(path, cache, show_progress=False); n = len(store)',
    'json.load': 'n = len(json.load(open(path)))',
    'pandas.read_csv': 'n = len(pandas.read_csv(path, sep="\\t", dtype=str))',
    'reopen': 'store = {open}(path, cache, show_progress=False); n = len(store)',
    'rows': 'store = {open}(path, cache, show_progress=False); rows = np.random.default_rng(1).integers(0, len(store), {n}).tolist(); start = time.perf_counter()\nfor r in rows: store[r]\nn = len(rows)',
    'batched rows': 'store = {open}(path, cache, show_progress=False); rows = np.random.default_rng(1).integers(0, len(store), {n}); start = time.perf_counter()\nstore.column("text", rows); n = len(rows)',
    'ids': 'store = {open}(path, cache, show_progress=False); ids = store.column("id", np.random.default_rng(1).integers(0, len(store), {n})); start = time.perf_counter()\nassert (store.rows(ids) >= 0).all(); n = len(ids)',
}
FRAME = '''import json, resource, sys, time
import numpy as np{imports}
path, cache = sys.argv[1:]
start = time.perf_counter()
{body}
print(json.dumps({{"s": time.perf_counter() - start, "n": n, "rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}}))
'''


def measure(what, path, cache, repeats, opener='open_passages', n=0):
    "Medians of seconds, items and peak memory."
    imports = {'json.load': '', 'pandas.read_csv': '\nimport pandas'}.get(what, f'\nfrom dacl_dr.store import {opener}')
    code, runs = FRAME.format(imports=imports, body=MEASURES[what].format(open=opener, n=n)), []
    for i in range(repeats):
        where = f'{cache}/{i}' if what == 'convert' else f'{cache}/0'
        r = subprocess.run([sys.executable, '-c', code, str(path), where], capture_output=True, text=True)
        if r.returncode: raise SystemExit(f'{what} {path.name}: {r.stderr}')
        runs.append(json.loads(r.stdout))
    return {k: statistics.median(r[k] for r in runs) for k in runs[0]}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--gb', type=float, default=2, help='size of the biencoder JSON'); p.add_argument('--passages', type=int, default=2_000_000)
    p.add_argument('--repeats', type=int, default=3)
    args = p.parse_args()
    with tempfile.TemporaryDirectory() as d:
        d = Path(d)
        start = time.perf_counter()
        write_data(d, args.gb, args.passages)
        questions, sample, corpus = (d/f for f in ('questions.json', 'sample.json', 'psgs.tsv'))
        size = {f: f.stat().st_size for f in (questions, sample, corpus)}
        print(f'{os.cpu_count()} cores; data written in {time.perf_counter() - start:.0f} s: JSON {size[questions] / 1e9:.2f} GB, sample of it {size[sample] / 1e9:.2f} GB, {args.passages:,} passages {size[corpus] / 1e9:.2f} GB\n')
        row = lambda name, m, extra='': print(f"{name:<44}{m['s']:9.2f} s {m['n']:>12,.0f} rows {m['rss'] / 1e9:7.2f} GB peak   {extra}", flush=True)
        rate = lambda f, m: f"{size[f] / m['s'] / 1e6:.0f} MB/s"
        q = measure('convert', questions, d/'q', args.repeats, 'open_questions'); row('convert questions', q, rate(questions, q))
        row('  reopen', measure('reopen', questions, d/'q', args.repeats, 'open_questions'))
        m = measure('rows', questions, d/'q', args.repeats, 'open_questions', 2000); row('  random questions', m, f"{m['n'] / m['s']:,.0f} rows/s, of 130 passages each")
        c = measure('convert', corpus, d/'c', args.repeats); row('convert passages', c, rate(corpus, c))
        row('  reopen', measure('reopen', corpus, d/'c', args.repeats))
        for what in ('rows', 'batched rows', 'ids'): m = measure(what, corpus, d/'c', args.repeats, n=100_000); row(f'  random {what}', m, f"{m['n'] / m['s']:,.0f} rows/s")
        print('\nbeside the peers, on what they can hold in memory')
        s, j = measure('convert', sample, d/'s', args.repeats, 'open_questions'), measure('json.load', sample, d/'s', args.repeats)
        row('json.load', j, rate(sample, j)); row('convert the same file', s, f"{rate(sample, s)}; time × {s['s'] / j['s']:.2f}, memory × {s['rss'] / j['rss']:.2f}")
        m = measure('pandas.read_csv', corpus, d/'c', args.repeats)
        row('pandas.read_csv', m, rate(corpus, m)); row('convert the same file', c, f"{rate(corpus, c)}; time × {c['s'] / m['s']:.2f}, memory × {c['rss'] / m['rss']:.2f}")
        print(f"\nestimate for NQ-train ({NQ_TRAIN / 1e9:.1f} GB): {NQ_TRAIN / size[questions] * q['s'] / 60:.1f} minutes; for {WIKIPEDIA[0]:,} passages ({WIKIPEDIA[1] / 1e9:.1f} GB): {WIKIPEDIA[1] / size[corpus] * c['s'] / 60:.1f} minutes,\n"
              f"memory {(c['rss'] + 28 * (WIKIPEDIA[0] - args.passages)) / 1e9:.2f} GB (28 bytes a passage while ids are sorted); both not run, scaled from the above")


if __name__ == '__main__': main()
