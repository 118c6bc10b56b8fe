"Measures of a space: against brute force, and what must not change them."
import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st
from scipy import stats
from scipy.linalg import sqrtm
from sklearn.metrics import roc_auc_score

from dacl_dr.cli.main import main
from dacl_dr.core.errors import DaclError
from dacl_dr.core.settings import EncoderSettings, SearchSettings
from dacl_dr.data.formats import read_passages
from dacl_dr.data.toy import toy_data
from dacl_dr.encoders.static import StaticEncoder, bag_texts, train_tokenizer
from dacl_dr.evaluation.representation import NO_MEASURE
from dacl_dr.hnsw.analysis import analyse
from dacl_dr.hnsw.difficulty import (
    query_difficulty, explain, in_degree, local_dimension, neighbour_spread, rank_correlation, relative_contrast,
)
from dacl_dr.search.exact import exact_search
from dacl_dr.search.graph import build_hnsw
from dacl_dr.representation.alignment_uniformity import alignment, uniformity
from dacl_dr.representation.pairs import pair_similarities, similarity_table
from dacl_dr.representation.spread import (
    effective_dimension, hubness, k_occurrence, mahalanobis, query_gap, span_of, without_itself,
)
from dacl_dr.representation.summary import geometry
from dacl_dr.metrics.ranking import overlap
from dacl_dr.representation.pairs import auc, kept_neighbours, margins, paraphrases
from dacl_dr.representation.spread import collapse
from dacl_dr.metrics.statistics import drawn_means, holm, query_draws, study_table

SEEDS = st.integers(0, 10_000)
@pytest.fixture(scope='module')
def toy_world(tmp_path_factory):
    "A small encoder and data of made-up words."
    home = tmp_path_factory.mktemp('toy')
    toy_data(home/'data', n=900)
    texts = [f'{p.title} {p.text}' for p in read_passages(home/'data'/'psgs.tsv')]
    tokenizer = train_tokenizer(texts, 300)
    (home/'encoder').mkdir()
    StaticEncoder.create(tokenizer, bag_texts(tokenizer, texts), EncoderSettings(dim=32), 0).save(home/'encoder')
    return home/'encoder', home/'data'


QUICK = settings(max_examples=25, deadline=None)


def space(seed, n=60, d=8, q=20):
    "Queries, passages and positives, float64, unit norm."
    rng = np.random.default_rng(seed)
    unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)
    passages = unit(rng.normal(size=(n, d)) + rng.normal(size=d))
    gold = rng.integers(0, n, q)
    return unit(passages[gold] + .3 * rng.normal(size=(q, d))), passages, gold


def turned(seed, d=8): return np.linalg.qr(np.random.default_rng(seed + 1).normal(size=(d, d)))[0]


@QUICK
@given(SEEDS)
def test_a_rotation_changes_nothing(seed):
    q, p, gold = space(seed)
    r = turned(seed)
    for name, v in geometry(q, p, gold).items():
        assert geometry(q @ r, p @ r, gold)[name] == pytest.approx(v, abs=1e-6), name
    near = np.argsort(-(q @ p.T), axis=1)[:, :15]
    for name, v in query_difficulty(q.astype('f4'), p.astype('f4'), near, 5, gold).items():
        np.testing.assert_allclose(
            query_difficulty((q @ r).astype('f4'), (p @ r).astype('f4'), near, 5, gold)[name], v, rtol=2e-3,
            err_msg=name)


@QUICK
@given(SEEDS)
def test_order_changes_nothing(seed):
    q, p, gold = space(seed)
    rng = np.random.default_rng(seed)
    some, rows = rng.permutation(len(q)), rng.permutation(len(p))
    place = np.argsort(rows)
    for name, v in geometry(q, p, gold).items():
        assert geometry(q[some], p[rows], place[gold[some]])[name] == pytest.approx(v, abs=1e-9), name


@QUICK
@given(SEEDS)
def test_duplicates_change_no_mean(seed):
    "Everything twice: alignment, gaps and dimensions stay."
    q, p, gold = space(seed)
    once, twice = geometry(q, p, gold), geometry(np.tile(q, (2, 1)), np.tile(p, (2, 1)), np.tile(gold, 2))
    for name in (
        'alignment', 'pos mean', 'pos var', 'centroid gap', 'covariance gap', 'mahalanobis', 'effective dimension',
        'mean cosine', 'outside span'
    ):
        assert twice[name] == pytest.approx(once[name], abs=1e-6), name
    assert twice['uniformity passages'] > once['uniformity passages'] # coinciding pairs are as near as can be


@QUICK
@given(SEEDS)
def test_formulas_by_brute_force(seed):
    q, p, gold = space(seed)
    assert alignment(q, p[gold]) == pytest.approx(np.mean([np.linalg.norm(a - p[g])**2 for a, g in zip(q, gold)]))
    pairs = [np.exp(-2 * np.linalg.norm(p[i] - p[j])**2) for i in range(len(p)) for j in range(i)]
    assert uniformity(p, block=7) == pytest.approx(np.log(np.mean(pairs)))
    cq, cp = np.cov(q.T, bias=True), np.cov(p.T, bias=True)
    gap = query_gap(q, p)
    assert gap['covariance gap']**2 == pytest.approx(
        np.trace(cq + cp - 2 * np.real(sqrtm(sqrtm(cp) @ cq @ sqrtm(cp)))), abs=1e-6)
    assert gap['centroid gap'] == pytest.approx(np.linalg.norm(q.mean(0) - p.mean(0)))
    inverse = np.linalg.inv(cp)
    np.testing.assert_allclose(
        mahalanobis(span_of(p, 1.), q), [np.sqrt((x - p.mean(0)) @ inverse @ (x - p.mean(0))) for x in q], rtol=1e-6)
    values = np.linalg.eigvalsh(cp)
    assert effective_dimension(p) == pytest.approx(values.sum()**2 / (values**2).sum())
    near = np.argsort(-(q @ p.T), axis=1)[:, :6]
    far = np.linalg.norm(q[:, None] - p[near], axis=2)
    np.testing.assert_allclose(local_dimension(far), [1 / np.mean([np.log(r[-1] / x) for x in r[:-1]]) for r in far])
    np.testing.assert_allclose(
        neighbour_spread(p, near, block=3),
        [np.mean([1 - p[a] @ p[b] for i, a in enumerate(r) for b in r[:i]]) for r in near])
    every = np.linalg.norm(q[:, None] - p[None], axis=2)
    np.testing.assert_allclose(relative_contrast(q, p, every.min(1), block=6), every.mean(1) / every.min(1))
    counts = k_occurrence(near, len(p))
    assert counts.tolist() == [sum(i in r for r in near.tolist()) for i in range(len(p))]
    m = counts - counts.mean()
    assert hubness(counts) == pytest.approx((m**3).mean() / (m**2).mean()**1.5)
    assert collapse(p)['mean cosine'] == pytest.approx(np.mean(p @ p.T))


def test_a_copy_does_not_make_a_passage_its_own_neighbour():
    """Each of twenty passages stands there three times; its neighbours are the two copies, never itself, whichever copy
    exact search puts first."""
    x = np.repeat(np.linalg.qr(np.random.default_rng(0).normal(size=(20, 20)))[0], 3, 0).astype('f4')
    near = exact_search(x, x, 3)
    assert (near[:, 0] != np.arange(60)).any() # itself is not always first
    assert (k_occurrence(without_itself(near, np.arange(60)), 60) == 2).all()
    sought = np.arange(0, 60, 3)[:, None]
    found = query_difficulty(x[::3], x, np.hstack([sought, sought + 1]), k=2)
    assert (found.hubness == 2).all()


@QUICK
@given(SEEDS)
def test_pairs_by_brute_force(seed):
    q, p, gold = space(seed)
    hard = np.random.default_rng(seed).integers(-1, len(p), (len(q), 4))
    s = pair_similarities(q, p, gold, hard)
    # never the positive itself
    assert s['random'].shape == (len(q), 5)
    assert not np.isclose(s['random'], s['positive'][:, None], rtol=0, atol=1e-12).any()
    for i in range(len(q)):
        kept = [float(q[i] @ p[j]) for j in hard[i] if j >= 0]
        if not kept: assert np.isnan(margins(s)[i]) and np.isnan(auc(s)[i]); continue
        assert margins(s)[i] == pytest.approx(q[i] @ p[gold[i]] - max(kept))
        own = s['positive'][i]
        # the positive drawn as its own negative: the same number but for its last bit
        tied = [own if abs(k - own) < 1e-6 else k for k in kept]
        assert auc(s)[i] == pytest.approx(roc_auc_score([1] + [0] * len(kept), [own, *tied]))
    table = similarity_table(s, 20)
    assert table.groupby('kind').share.sum().tolist() == pytest.approx([1, 1, 1])


@QUICK
@given(SEEDS)
def test_semantics_by_brute_force(seed):
    q, p, gold = space(seed, q=30)
    gold = gold % 9 # several questions a passage
    near = np.argsort(-(q @ p.T), axis=1)[:, :5]
    found = paraphrases(q, near, gold, seed)
    order = sorted(range(30), key=lambda i: (gold[i], i))
    pairs = [(a, b) for a, b in zip(order, order[1:]) if gold[a] == gold[b]]
    assert found['paraphrase overlap'] == pytest.approx(
        np.mean([len(set(near[a]) & set(near[b])) / 5 for a, b in pairs]))
    # of two passages
    apart = [q[a] @ q[b] for a, b in enumerate(np.random.default_rng(seed).permutation(30)) if gold[a] != gold[b]]
    assert found['paraphrase excess cosine'] == pytest.approx(np.mean([q[a] @ q[b] for a, b in pairs]) - np.mean(apart))
    kept = kept_neighbours(
        (q.astype('f4'), p.astype('f4')), ((q @ turned(seed)).astype('f4'), (p @ turned(seed)).astype('f4')), 5)
    assert kept['kept neighbours'].mean() > .97 and kept['kept order'].mean() > .99
    assert (overlap(near, near[:, ::-1]) == 1).all()


def test_in_degree_counts_links():
    q, p, gold = space(3, 400)
    index = build_hnsw(p.astype('f4'), 4, 20)
    import faiss
    h = index.hnsw
    links, offsets = faiss.vector_to_array(h.neighbors), faiss.vector_to_array(h.offsets)
    count = np.zeros(400, int)
    for i in range(400):
        for j in links[offsets[i]:offsets[i] + 8]: count[j] += j >= 0
    np.testing.assert_array_equal(in_degree(index), count)


@QUICK
@given(SEEDS, st.integers(4, 60))
def test_rank_correlation_is_spearmans(seed, n):
    rng = np.random.default_rng(seed)
    x, y = rng.integers(0, 9, n).astype(float), rng.normal(size=n)
    rho, low, high = rank_correlation(x, y)
    assert np.isnan(rho) if np.ptp(x) == 0 else rho == pytest.approx(
        stats.spearmanr(x, y).statistic) and low <= rho <= high
    assert rank_correlation(x, np.append(y[:-1], np.nan))[0] == pytest.approx(
        rank_correlation(x[:-1], y[:-1])[0], nan_ok=True)


@QUICK
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_is_the_stepwise_rule(p):
    order, adjusted, worst = np.argsort(p, kind='stable'), [0.] * len(p), 0.
    for step, i in enumerate(order): worst = max(worst, min(1, p[i] * (len(p) - step))); adjusted[i] = worst
    assert holm(p) == pytest.approx(adjusted)


@QUICK
@given(SEEDS)
def test_a_study_of_equal_models_sees_nothing_and_a_large_saving_is_seen(seed):
    rng = np.random.default_rng(seed)
    easy, draws = np.exp(.5 * rng.normal(size=200)), query_draws(200, 100)
    model = lambda share: share * easy * np.exp(.01 * rng.normal(size=(3, 1)))
    a = model(1.)
    table = study_table(
        'visited', {n: (v.mean(1), drawn_means(v, draws)) for n, v in {'A': a, 'same': a, 'half': model(.5)}.items()},
        words=('fewer', 'more'))
    assert table.verdict.tolist()[1:] == ['no difference seen', 'fewer']
    assert table.change[2] == pytest.approx(-.5, abs=.05)


def test_an_analysis_needs_no_judgements_and_refuses_too_little():
    q, p, gold = (x.astype('f4') if x.dtype == float else x for x in space(5, 500, 16, 80))
    s = SearchSettings(m=8, ef_construction=40)
    with_gold, without = analyse(q, p, gold, s=s), analyse(q, p, s=s)
    assert {'alignment', 'recall@10', 'margin'} - set(with_gold.facts) == {'margin'} # there are no hard negatives
    assert not {'alignment', 'pos mean', 'recall@10'} & set(without.facts) and without.ranks is None
    assert without.facts['effective dimension'] == with_gold.facts['effective dimension']
    assert set(explain(without.measures, without.costs).cost) == {'visited', 'to find all'}
    with pytest.raises(DaclError, match='too few'): analyse(q, p[:8], s=s)


def test_the_command_writes_numbers_tables_and_a_page(tmp_path, toy_world):
    encoder, data = toy_world
    assert main([
        'run-representation-eval', '--encoder_path', str(encoder), '--dev_file', str(data/'toy-dev.json'),
        '--output_path', str(tmp_path/'out'), '--num_samples', '60', '--cache_dir', str(tmp_path/'cache')]) == 0
    found = json.loads((tmp_path/'out'/'representation.json').read_text())
    assert found['questions'] == 60
    assert found['numbers']['alignment'] == pytest.approx(2 - 2 * found['numbers']['pos mean'], abs=1e-4)
    queries = pd.read_parquet(tmp_path/'out'/'queries.parquet')
    assert len(queries) == 60 and (queries['rank'] == 1).mean() == pytest.approx(found['numbers']['recall@1'])
    page = (tmp_path/'out'/'representation.html').read_text()
    # each of the 60 passages is visited by every search, so no measure is said to order the queries
    assert page.count('drawChart("chart-') == 2 and 'orders queries best' not in page and NO_MEASURE in page
    written = {f.name for f in (tmp_path/'out').iterdir() if not f.name.endswith('.command.json')} - {'.lock'}
    assert written == {
        'representation.json', 'representation.html', 'similarities.csv', 'explains.csv', 'sweep.csv',
        'queries.parquet', 'map.parquet'}


def test_the_command_refuses_questions_without_positives(tmp_path, toy_world, capsys):
    (tmp_path/'bare.json').write_text(
        '[{"question": "who?", "answers": ["me"], "positive_ctxs": [], "negative_ctxs": [], "hard_negative_ctxs": []}]')
    assert main([
        'run-representation-eval', '--encoder_path', str(toy_world[0]), '--dev_file', str(tmp_path/'bare.json'),
        '--output_path', str(tmp_path/'out'), '--cache_dir', str(tmp_path/'cache')]) == 2
    assert 'bare.json: no question has a positive' in capsys.readouterr().err and not (tmp_path/'out').exists()


def test_twelve_figures_from_any_run_and_one_line_for_a_folder_without(tmp_path, tiny_run, capsys):
    data, run, *_ = tiny_run
    words = [
        'generate-figures', '--results_dir', str(run), '--output_dir', str(tmp_path), '--format', 'svg', '--lang', 'zh']
    assert main(words) == 0
    assert 'not drawn' not in capsys.readouterr().out
    drawn = sorted(tmp_path.glob('*.svg'))
    assert [f.name[:2] for f in drawn] == [f'{n:02d}' for n in range(1, 13)]
    assert '访问节点数' in (tmp_path/'08-visited.svg').read_text()
    assert main(['generate-figures', '--results_dir', str(tmp_path), '--output_dir', str(tmp_path)]) == 2
    assert 'has no finished run' in capsys.readouterr().err
