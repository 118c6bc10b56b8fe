"""What `dacl tune` saves on a data set, over several seeds of the halves and of the insertion order.

    python benchmarks/tune.py --name tldr-minilm --encoder MODEL --corpus psgs.tsv.gz --queries tldr-test.json.gz \\
        --train_queries tldr-train.json.gz --table nbs/experiments/results/tune.csv
    python benchmarks/tune.py ... --adapters out-0 out-1 out-2 # folders of dacl adapt, one a seed, as one more lever

Embeds once into --work, then tunes once a seed; the rows of a name are replaced in the table. Rows are measured on the
half of the queries that chose nothing. Columns: name, seed, way, words, computations and share of exact search's
recall@10 kept with 95% intervals over queries, change against efSearch at the best M at equal quality, milliseconds of
one query on one thread (median, 95th percentile), those of faiss itself for plain efSearch, BM25's milliseconds and
postings, megabytes read and held. `ms ratio`: milliseconds at the smallest knob that reaches the goal on the reporting
half, over those of faiss's own HNSW search at the smallest efSearch that does, timed in turns; its interval is over
queries. Rows of seed `all` hold the change of the mean cost over seeds; each seed's queries are drawn for its
interval.
"""
import argparse
from pathlib import Path

import numpy as np, pandas as pd

from dacl_dr.core.files import atomic_file, make_folder
from dacl_dr.core.rows import spaced
from dacl_dr.encoders.adapted import adapt_queries, read_adapter
from dacl_dr.encoders.encoder import on_device
from dacl_dr.encoders.static import load_encoder
from dacl_dr.evaluation.judging import is_graded, judgements_of
from dacl_dr.data.texts import open_corpus, open_queries, texts_at
from dacl_dr.metrics.ranking import Judgements
from dacl_dr.metrics.statistics import drawn_means, query_draws
from dacl_dr.search.exact import exact_search
from dacl_dr.search.vectors import embed_texts
from dacl_dr.tuning.choosing import choose_ways
from dacl_dr.tuning.inputs import JOINED
from dacl_dr.tuning.material import Aim, Material
from dacl_dr.tuning.outcome import DRAWS, change_of, costs_at_goal, of_draws, outcome_rows
from dacl_dr.tuning.seeds import bm25_seeds
from dacl_dr.tuning.timing import FAISS, InFaiss, faiss_round, time_rows, turn_of
from dacl_dr.tuning.trials import Bench, chosen_knob
from dacl_dr.tuning.ways import Way
from measuring import put_into # benchmarks/measuring.py


def embedded(model, work, name, texts, kind):
    "Vectors of texts, computed once."
    path = work/f'{name}.npy'
    if not path.exists():
        vectors = embed_texts(model, texts, kind, f'encoding {name}')[0]
        with atomic_file(path) as tmp, open(tmp, 'wb') as f: np.save(f, vectors)
    return np.load(path)


def material(a, work):
    "Passages, queries, judgements, BM25's results and training queries."
    passages, asked, trained = open_corpus(a.corpus), open_queries(a.queries), open_queries(a.train_queries)
    model = on_device(load_encoder(a.encoder))
    stores = {'p': passages, 'q': asked, 'train': trained}
    texts = {name: texts_at(t, np.arange(len(t)), 'title+text') for name, t in stores.items()}
    kinds = {'p': 'passage', 'q': 'query', 'train': 'query'}
    x = {name: embedded(model, work, name, texts[name], kinds[name]) for name in texts}
    judged = Judgements(judgements_of(asked, passages, is_graded(a.queries)).relevant)
    return Material(
        passages=x['p'], q=x['q'], judged=judged, lexical={'bm25': bm25_seeds(texts['p'], texts['q'])},
        joined=exact_search(x['train'], x['p'], JOINED))


def ms_ratio(bench, plain, trial, rounds=5):
    "Milliseconds of a way over those of faiss's own search at equal quality; None: one of them does not reach it."
    knobs = [chosen_knob(t.report, bench.aim) for t in (trial, plain)]
    if None in knobs or not (turn := turn_of(bench.runner(trial.way), knobs[0])): return None
    rows = bench.report.rows[spaced(len(bench.report.rows), 1000)]
    theirs, taken = InFaiss(bench.runner(plain.way)), ([], [])
    for _ in range(rounds + 1):
        taken[0].append(turn[0](*turn[1:], rows)[0])
        taken[1].append(faiss_round(theirs, knobs[1], rows)[0])
    mine, faiss_s = (np.median(ms[1:], axis=0) for ms in taken) # the first round warms up
    drawn = drawn_means(np.stack([mine, faiss_s]), query_draws(len(rows), 1000))
    return of_draws(mine.mean() / faiss_s.mean(), drawn[:, 0] / drawn[:, 1])


def rows_of(a, bench, seed):
    "A table of one seed, and for each way the cost at equal quality, with draws of queries."
    choice = choose_ways(bench, Way(m=32, ef_construction=40), desc=f'{a.name}, seed {seed}')
    found = outcome_rows(bench, choice, 16)
    times = time_rows(bench, found)
    table = []
    for r in found:
        row = {'name': a.name, 'seed': seed, 'way': r.name, 'words': r.words}
        told = {'computations': r.evaluations, 'kept': r.kept, 'quality': r.quality, 'change': r.change}
        for column, e in told.items():
            if e is not None: row |= {column: e.value, f'{column} low': e.low, f'{column} high': e.high}
        ms = times.get(r.name)
        row |= {'ms': ms and ms.median, 'ms mean': ms and ms.mean, 'ms p95': ms and ms.p95, 'queries/s': ms and ms.rate}
        trial = choice.named(r.name).trial
        ratio = ms_ratio(bench, choice.named('plain').trial, trial) if r.name != 'have' else None
        if ratio is not None: row |= {'ms ratio': ratio.value, 'ms ratio low': ratio.low, 'ms ratio high': ratio.high}
        if r.name == 'plain': row |= {'faiss ms': times[FAISS].median, 'faiss ms mean': times[FAISS].mean}
        row |= {'bm25 ms': r.lexical_ms, 'postings': r.postings, 'MB read': r.megabytes_read, 'MB': r.megabytes}
        table.append(row)
    draws = query_draws(len(bench.report.q), DRAWS)
    return pd.DataFrame(table), {f.name: costs_at_goal(f.trial.report, bench.aim, draws) for f in choice.found}


def over_seeds(a, costs): # costs: from `rows_of`, of each seed
    "The change of every way that all seeds have."
    means = {}
    for name in set.intersection(*map(set, costs)):
        values, drawn = zip(*(c[name] for c in costs))
        means[name] = np.mean(values), np.mean(drawn, axis=0)
    table = []
    for name in [n for n in costs[0] if n in means and n not in ('have', 'plain')]:
        e = change_of(means[name], means['plain'])
        if e is None: continue
        table.append({
            'name': a.name, 'seed': 'all', 'way': name, 'change': e.value, 'change low': e.low, 'change high': e.high})
    return pd.DataFrame(table)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ('name', 'encoder', 'corpus', 'queries', 'train_queries', 'table'):
        p.add_argument(f'--{name}', required=True)
    p.add_argument('--work', default='runs/tune', help='gets vectors and what was tried')
    p.add_argument('--seeds', type=int, default=3)
    p.add_argument('--adapters', nargs='+', default=(), help='folders of dacl adapt, one a seed')
    a = p.parse_args()
    if a.adapters and len(a.adapters) != a.seeds:
        p.error(f'{len(a.adapters)} adapters for {a.seeds} seeds; give one a seed')
    work = make_folder(Path(a.work)/a.name)
    m, tables, costs = material(a, work), [], []
    for seed in range(a.seeds):
        m.seed, m.order = seed, seed or None
        if a.adapters: m.adapted = adapt_queries(m.q, *read_adapter(a.adapters[seed]))
        table, spent = rows_of(a, Bench(m, Aim(), work/'tried'), seed)
        tables.append(table)
        costs.append(spent)
        shown = ['way', 'words', 'computations', 'kept', 'change', 'change low', 'change high', 'ms ratio']
        print(tables[-1][shown].to_string())
    tables.append(over_seeds(a, costs))
    print(tables[-1].to_string())
    put_into(a.table, a.name, pd.concat(tables))


if __name__ == '__main__': main()
