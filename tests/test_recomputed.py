"""Numbers by a second path: other libraries and plain formulas, from what the program wrote.

Published tables are recomputed from the sweeps and results beside them; a small run's results from its own encoder,
with numpy's exact search, ir_measures, faiss's counters, scikit-learn's isotonic regression and another bootstrap.
"""
from pathlib import Path

import faiss
import ir_measures
import numpy as np
import pandas as pd
import pytest
from ir_measures import RR, R, nDCG
from sklearn.isotonic import isotonic_regression

from dacl_dr.core.settings import SearchSettings
from dacl_dr.data.formats import positive_rows, read_passages, read_questions
from dacl_dr.encoders.static import load_encoder

PUBLISHED = Path(__file__).resolve().parents[1]/'nbs'/'experiments'/'results'
STUDIES = sorted(p.parent for p in PUBLISHED.glob('*/*/study.csv'))
SHARES = np.array(SearchSettings().own_shares)


def reached(quality, cost, target):
    "The cost at which a levelled curve passes a target, and infinity beyond it; the first point's where all do."
    level = isotonic_regression(np.asarray(quality, float))
    if level[-1] < target: return np.inf
    i = int(np.argmax(level >= target))
    if i == 0: return cost[0]
    part = (target - level[i - 1]) / (level[i] - level[i - 1])
    return cost[i - 1] + part * (cost[i] - cost[i - 1])


def asked_of(metric):
    "What a cost asks for: function of a sweep and the exact recall@10 that gives nodes; None for other metrics."
    if metric.startswith('visited at ANN recall '):
        target = float(metric.split()[-1])
        return lambda s, own: reached(s['ann recall'], s.visited.values, target)
    if metric == 'visited at 99% of own exact recall@10':
        return lambda s, own: reached(s['recall@10'], s.visited.values, .99 * own)
    if metric == 'visited at 95% to 99.5% of own exact recall@10':
        least = lambda s, own: [reached(s['recall@10'], s.visited.values, share * own) for share in SHARES]
        return lambda s, own: np.exp(np.mean(np.log(least(s, own))))
    return None


@pytest.mark.parametrize('folder', STUDIES, ids=lambda p: f'{p.parent.name}-{p.name}')
def test_published_quality_is_the_mean_of_the_seeds(folder):
    study, results = pd.read_csv(folder/'study.csv'), pd.read_csv(folder/'results.csv')
    seeds = results.set_index(['metric', 'model', 'seed']).value.sort_index()
    rows = study[study.metric.str.match(r'(recall|mrr|ndcg)@\d+$')]
    assert len(rows) > 10
    for r in rows.itertuples():
        own = seeds[r.metric, r.model]
        assert r.value == pytest.approx(own.mean(), rel=1e-4), (r.metric, r.model)
        if r.model in ('A', 'BM25') or np.isnan(r.change): continue
        assert r.change == pytest.approx((own - seeds[r.metric, 'A']).mean(), abs=3e-5), (r.metric, r.model)


@pytest.mark.parametrize('folder', STUDIES, ids=lambda p: f'{p.parent.name}-{p.name}')
def test_published_costs_follow_from_the_published_sweeps(folder):
    study, results = pd.read_csv(folder/'study.csv'), pd.read_csv(folder/'results.csv')
    sweeps = {key: s.sort_values('ef') for key, s in pd.read_csv(folder/'sweeps.csv').groupby(['model', 'seed'])}
    exact = results[results.metric == 'recall@10'].set_index(['model', 'seed']).value.sort_index()
    checked = 0
    for metric in study.metric.unique():
        if (ask := asked_of(metric)) is None: continue
        costs = pd.Series({key: ask(s, exact[key]) for key, s in sweeps.items()})
        for r in study[study.metric == metric].itertuples():
            if np.isnan(r.value): continue
            own, base = costs[r.model], costs['A']
            if not np.isfinite(own).all() or not np.isfinite(base).all(): continue
            assert r.value == pytest.approx(own.mean(), rel=2e-3), (metric, r.model)
            if r.model != 'A': assert r.change == pytest.approx((own / base - 1).mean(), abs=4e-3), (metric, r.model)
            checked += 1
    assert checked > 5


@pytest.fixture(scope='module')
def recomputed(tiny_run):
    "Vectors, gold and numpy's ranking of a model of the small run, and what the run says of it."
    data, run, _, _ = tiny_run
    folder = data/'codedocs'
    passages, asked = read_passages(folder/'psgs.tsv'), read_questions(folder/'codedocs-test.json')
    encoder = load_encoder(run/'B-seed0'/'train'/'encoder')
    x = encoder.encode([p.text for p in passages], 'passage').astype(float)
    q = encoder.encode([a.question for a in asked], 'query').astype(float)
    told = pd.read_csv(run/'results.csv').query('model == "B" and seed == 0').set_index('metric').value
    order = np.argsort(-(q @ x.T), axis=1, kind='stable')
    return run/'B-seed0'/'search', q, x, np.array(positive_rows(asked, passages)), order, told


def test_a_runs_quality_by_ir_measures(recomputed):
    _, q, x, gold, order, told = recomputed
    qrels = [ir_measures.Qrel(str(i), str(g), 1) for i, g in enumerate(gold)]
    doc = lambda i, rank, d: ir_measures.ScoredDoc(str(i), str(d), -float(rank))
    ranked = [doc(i, rank, d) for i, row in enumerate(order) for rank, d in enumerate(row[:100])]
    found = ir_measures.calc_aggregate([R@10, RR@10, nDCG@10], qrels, ranked)
    for measure, name in ((R@10, 'recall@10'), (RR@10, 'mrr@10'), (nDCG@10, 'ndcg@10')):
        assert told[name] == pytest.approx(found[measure], abs=5e-4), name


def test_a_runs_geometry_by_the_formulas_of_the_paper(recomputed):
    _, q, x, gold, _, told = recomputed
    assert told['alignment'] == pytest.approx(((q - x[gold])**2).sum(1).mean(), rel=1e-4)
    for name, v in (('queries', q), ('passages', x)):
        apart = 2 - 2 * (v @ v.T)[np.triu_indices(len(v), 1)]
        assert told[f'uniformity {name}'] == pytest.approx(np.log(np.exp(-2 * apart).mean()), abs=1e-3), name


def test_a_runs_sweep_by_faiss(recomputed):
    folder, q, x, gold, order, _ = recomputed
    index, sweep = faiss.read_index(str(folder/'index.faiss')), pd.read_parquet(folder/'sweep.parquet').set_index('ef')
    stats, queries = faiss.cvar.hnsw_stats, q.astype('f4')
    for ef in sweep.index[::4]:
        index.hnsw.efSearch = int(ef)
        stats.reset()
        ids = index.search(queries, 10)[1]
        ann = np.mean([len(np.intersect1d(a, b)) / 10 for a, b in zip(ids, order[:, :10])])
        assert sweep.loc[ef, 'ann recall'] == pytest.approx(ann, abs=.01) # copies may stand for each other
        assert sweep.loc[ef, 'recall@10'] == pytest.approx((ids == gold[:, None]).any(1).mean(), abs=1e-6)
        assert sweep.loc[ef, 'evaluations'] == pytest.approx(stats.ndis / len(q) + 1)
        assert sweep.loc[ef, 'hops'] == pytest.approx(stats.nhops / len(q))


def test_a_runs_interval_by_a_bootstrap_of_its_own(tiny_run):
    _, run, _, _ = tiny_run
    rng, metric, costs = np.random.default_rng(1), 'visited at ANN recall 0.95', {}
    for model in 'AB':
        table = pd.read_parquet(run/f'{model}-seed0'/'search'/'queries.parquet')
        efs = sorted({int(c.split()[0]) for c in table.columns[1:]})
        values = {n: np.stack([table[f'{ef} {n}'] for ef in efs]).astype(float) for n in ('visited', 'ann recall')}
        costs[model] = lambda rows, v=values: reached(*(v[n][:, rows].mean(1) for n in ('ann recall', 'visited')), .95)
    n = len(table)
    whole = np.arange(n)
    change = costs['B'](whole) / costs['A'](whole) - 1
    draws = [rng.integers(0, n, n) for _ in range(1000)]
    drawn = np.array([costs['B'](rows) / costs['A'](rows) - 1 for rows in draws])
    told = pd.read_csv(run/'study.csv').query(f'metric == "{metric}" and model == "B"').iloc[0]
    assert told.change == pytest.approx(change, abs=1e-4)
    half = 1.96 * drawn[np.isfinite(drawn)].std(ddof=1) # one seed: queries alone
    assert (told['change high'] - told['change low']) / 2 == pytest.approx(half, rel=.15)
