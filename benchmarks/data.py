"""Converting and reading data at full size, beside json.load, pandas and datasets.

    python benchmarks/data.py                      # 2 GB of biencoder JSON, 2,000,000 passages
    python benchmarks/data.py --gb .2 --passages 100000 --table nbs/experiments/results/performance.csv

Each measurement runs in a process of its own, so that peak memory is its own; the ways take turns. json.load and
datasets get a sample of the JSON. The generated files have the shape of DPR's: records of 130 passages of 100 words,
indented JSON, quoted TSV.
"""
import argparse, csv, json, os, tempfile, time
from pathlib import Path

import numpy as np, pandas as pd

from measuring import OURS, apart, in_turns, peak_bytes, rows_of, save, show

NQ_TRAIN, WIKIPEDIA = 7.5e9, (21_015_324, 12_827_215_492) # bytes; passages and bytes


def texts(n, rng):
    "n texts of 100 words whose frequencies follow Zipf's law."
    words = np.array([f'word{i:x}' if i % 17 else f'"wörd{i:x}"' for i in range(50_000)])
    return [' '.join(words[np.minimum(rng.zipf(1.2, 100), 50_000) - 1]) for _ in range(n)]


def write_questions(path, size, pool, rng):
    "Records of one positive and 129 negatives, until the file is as large."
    def context(i):
        return {'title': f'title {i}', 'text': pool[i], 'score': float(i), 'title_score': 0, 'passage_id': str(i)}
    with open(path, 'w') as f:
        f.write('[\n')
        while f.tell() < size:
            rows = rng.integers(0, len(pool), 131).tolist()
            record = {
                'dataset': 'made', 'question': pool[rows[0]][:60], 'answers': ['an answer'],
                'positive_ctxs': [context(rows[1])], 'negative_ctxs': [context(i) for i in rows[2:101]],
                'hard_negative_ctxs': [context(i) for i in rows[101:]]}
            f.write((',\n' if f.tell() > 2 else '') + json.dumps(record, indent=4))
        f.write('\n]\n')


def write_data(folder, gb, passages):
    "questions.json, sample.json (a tenth, 200 MB at most) and psgs.tsv."
    rng = np.random.default_rng(0)
    pool = texts(20_000, rng)
    write_questions(folder/'questions.json', gb * 1e9, pool, rng)
    write_questions(folder/'sample.json', min(gb * 1e8, 2e8), pool, rng)
    with open(folder/'psgs.tsv', 'w', newline='') as f:
        out = csv.writer(f, delimiter='\t', lineterminator='\n')
        out.writerow(['id', 'text', 'title'])
        for i, j in enumerate(rng.integers(0, len(pool), passages), 1): out.writerow([i, pool[j], f'title {j}'])


def opened(kind, path, cache):
    "A store of this project, converted if the cache has it not."
    from dacl_dr.core.settings import Reading
    from dacl_dr.data.store import open_passages, open_questions
    return {'passages': open_passages, 'questions': open_questions}[kind](path, Reading(cache, show_progress=False))


def read_pandas(kind, path, cache): return len(pd.read_csv(path, sep='\t', dtype=str))

def read_json(kind, path, cache): return len(json.loads(Path(path).read_text()))

def read_datasets(kind, path, cache):
    from datasets import load_dataset
    options = {'sep': '\t'} if kind == 'passages' else {}
    of = 'csv' if kind == 'passages' else 'json'
    return len(load_dataset(of, data_files=str(path), cache_dir=cache, split='train', **options))

def convert(kind, path, cache): return len(opened(kind, path, cache))


def rows_at_random(kind, path, cache, n):
    "Seconds that n rows, n texts at once, and looking up n ids take."
    store, rng = opened(kind, path, cache), np.random.default_rng(1)
    rows, found = rng.integers(0, len(store), n), {}
    start = time.perf_counter()
    for r in rows.tolist(): store[r]
    found['one by one'] = time.perf_counter() - start
    if kind == 'questions': return found
    start = time.perf_counter()
    store.column('text', rows)
    found['at once'] = time.perf_counter() - start
    ids = store.column('id', rows)
    start = time.perf_counter()
    assert (store.rows(ids) >= 0).all()
    return found | {'by id': time.perf_counter() - start}


WORK = {OURS: convert, 'reopen': convert, 'json.load': read_json, 'pandas': read_pandas, 'datasets': read_datasets}


def measure(what, kind, path, cache, n):
    "One measurement in this process, printed as JSON."
    start = time.perf_counter()
    found = {'rows': rows_at_random(kind, path, cache, n)} if what == 'rows' else {'n': WORK[what](kind, path, cache)}
    print(json.dumps(found | {'s': time.perf_counter() - start, 'peak': peak_bytes() / 1e9}))


class Runs:
    "Measurements in processes of their own, each conversion in a cache of its own."
    def __init__(self, folder): self.folder, self.n = folder, 0
    def __call__(self, what, kind, path, cache=None, n=0):
        self.n += 1
        return apart(__file__, ['--what', what, kind, path, cache or self.folder/f'cache-{self.n}', n])


def beside(run, kind, path, ways, rounds, name):
    "Table rows of reading a file in several ways."
    found = in_turns({w: (lambda w=w: run(w, kind, path)) for w in ways}, rounds, lambda work: work())
    size = path.stat().st_size
    of = lambda f: {way: [f(r) for r in runs] for way, runs in found.items()}
    case = f'{kind}, {name}'
    rows = [
        rows_of('data', case, 'MB/s', of(lambda r: size / r['s'] / 1e6), bigger_is_better=True),
        rows_of('data', case, 'GB at most', of(lambda r: r['peak']))]
    for r in rows: show(r)
    return rows, np.median([r['s'] for r in found[OURS]]), np.median([r['peak'] for r in found[OURS]])


def tell_opening(run, kind, path, folder, n):
    "Print what opening again and random rows take."
    cache = folder/f'kept-{kind}'
    run(OURS, kind, path, cache)
    taken = run('rows', kind, path, cache, n)['rows']
    again = run('reopen', kind, path, cache)
    rates = ', '.join(f'{how} {n / s:,.0f} a second' for how, s in taken.items())
    print(f"{kind}: opened again in {again['s'] * 1e3:.0f} ms with all imports; rows {rates}", flush=True)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--gb', type=float, default=2, help='size of the biencoder JSON')
    p.add_argument('--passages', type=int, default=2_000_000)
    p.add_argument('--rounds', type=int, default=3)
    p.add_argument('--table', help='CSV whose part data is replaced')
    p.add_argument('--what', nargs=5, help=argparse.SUPPRESS)
    a = p.parse_args()
    if a.what: return measure(*a.what[:4], int(a.what[4]))
    with tempfile.TemporaryDirectory() as d:
        d = Path(d)
        write_data(d, a.gb, a.passages)
        run, (questions, sample, corpus) = Runs(d), (d/f for f in ('questions.json', 'sample.json', 'psgs.tsv'))
        name = lambda f: f'{f.stat().st_size / 1e9:.2f} GB'
        print(f'{os.cpu_count()} cores; JSON {name(questions)}, sample of it {name(sample)}, passages {name(corpus)}')
        rows, q_s, _ = beside(run, 'questions', questions, [OURS], a.rounds, name(questions))
        tell_opening(run, 'questions', questions, d, 2000)
        more, _, _ = beside(run, 'questions', sample, [OURS, 'json.load', 'datasets'], a.rounds, name(sample))
        last, c_s, c_peak = beside(run, 'passages', corpus, [OURS, 'pandas', 'datasets'], a.rounds, name(corpus))
        tell_opening(run, 'passages', corpus, d, 100_000)
        q_size, c_size = questions.stat().st_size, corpus.stat().st_size
    memory = c_peak + 28e-9 * (WIKIPEDIA[0] - a.passages)
    print(
        f'estimated, not run: NQ-train ({NQ_TRAIN / 1e9:.1f} GB) {NQ_TRAIN / q_size * q_s / 60:.1f} minutes; '
        f'{WIKIPEDIA[0]:,} passages {WIKIPEDIA[1] / c_size * c_s / 60:.1f} minutes and {memory:.2f} GB '
        '(28 bytes a passage while ids are sorted)')
    if a.table: save(a.table, pd.concat([*rows, *more, *last]), ['pandas', 'datasets', 'pyarrow'])


if __name__ == '__main__': main()
