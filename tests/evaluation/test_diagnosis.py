"""Diagnosis of any vectors: numbers against brute force, every fault one line, and a page that holds nothing of the
user's but text."""
import json, os, re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st
from scipy import stats

from dacl_dr.core.errors import DaclError
from dacl_dr.core.options import Diagnose
from dacl_dr.core.settings import EncoderSettings, Reading, SearchSettings
from dacl_dr.hnsw.curves import Sweep
from dacl_dr.data.formats import read_passages, read_questions
from dacl_dr.data.toy import toy_data
from dacl_dr.encoders.static import StaticEncoder, bag_texts, train_tokenizer
from dacl_dr.evaluation.facts import TARGETS, costs_at, diagnose_vectors, passage_facts, search_times
from dacl_dr.evaluation.advice import THRESHOLDS, notes_of, suggestions
from dacl_dr.evaluation.diagnosis_page import cost_map, dearest, times_line
from dacl_dr.evaluation.diagnosis import diagnose, diagnosis_lines
from dacl_dr.core.rows import sample_rows
from dacl_dr.data.positives import positives_in
from dacl_dr.data.texts import Lines, open_queries
from dacl_dr.evaluation.sample import open_vectors, read_vectors, text_sample, unit_rows, vector_sample
from dacl_dr.data.store import open_passages, open_questions

SEEDS, SMALL = st.integers(0, 10_000), SearchSettings(m=8, ef_construction=40)
QUICK = settings(max_examples=25, deadline=None)
QUIET = Reading(show_progress=False)
FILES = {'diagnosis.json', 'diagnosis.html', 'sweep.csv', 'costs.csv', 'explains.csv', 'queries.parquet'}


def unit(x): return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype('f4')


def cloud(seed=0, n=600, d=16, q=60):
    "Passages in clumps, queries near some of them."
    rng = np.random.default_rng(seed)
    passages = unit(np.repeat(rng.normal(size=(n // 20, d)), 20, 0) + .4 * rng.normal(size=(n, d)))
    gold = rng.choice(n, q, replace=False)
    return passages, unit(passages[gold] + .2 * rng.normal(size=(q, d))), gold


@pytest.fixture(scope='module')
def toy(tmp_path_factory):
    "An encoder, data of made-up words, and the same texts as a BEIR folder and as lines."
    home = tmp_path_factory.mktemp('toy')
    toy_data(home, n=400)
    passages, questions = read_passages(home/'psgs.tsv'), read_questions(home/'toy-dev.json')
    texts = [p.text for p in passages]
    tokenizer = train_tokenizer(texts, 300)
    (home/'encoder').mkdir()
    StaticEncoder.create(tokenizer, bag_texts(tokenizer, texts), EncoderSettings(dim=16), 0).save(home/'encoder')
    beir = home/'beir'
    (beir/'qrels').mkdir(parents=True)
    lines = lambda rows: ''.join(json.dumps(r) + '\n' for r in rows)
    (beir/'corpus.jsonl').write_text(lines({'_id': p.id, 'title': p.title, 'text': p.text} for p in passages))
    (beir/'queries.jsonl').write_text(lines({'_id': f'q{i}', 'text': q.question} for i, q in enumerate(questions)))
    (beir/'qrels'/'test.tsv').write_text(
        'query-id\tcorpus-id\tscore\n'
        + ''.join(f'q{i}\t{q.positive_ctxs[0].passage_id}\t1\n' for i, q in enumerate(questions)))
    (home/'passages.txt').write_text('\n'.join(texts))
    (home/'queries.txt').write_text('\n'.join(q.question for q in questions) + '\n')
    return home


def texts_of(toy, corpus='psgs.tsv', queries='toy-dev.json', **more):
    "A look at the encoder's vectors of these files, which stand beside it."
    return Diagnose(**{
        'encoder': toy/'encoder', 'corpus': toy/corpus, 'queries': toy/queries, 'fields': 'text', 'search': SMALL,
        'reading': Reading(toy/'cache', show_progress=False), **more,
    })


def vectors_of(vectors, query_vectors=None, **more):
    return Diagnose(vectors=vectors, query_vectors=query_vectors, search=SMALL, reading=QUIET, **more)


def run(toy, out, corpus='psgs.tsv', queries='toy-dev.json', **more):
    return json.loads(diagnose(texts_of(toy, corpus, queries, output_path=out, **more)).read_text())


# vectors from a file

@QUICK
@given(SEEDS, st.sampled_from(['f2', 'f4', 'f8', '>f4', 'i1', 'u1']))
def test_rows_become_unit_whatever_they_were(seed, dtype):
    x = (np.random.default_rng(seed).normal(size=(30, 5)) * 20 + 40).astype(dtype)
    found, changed = unit_rows(x)
    np.testing.assert_allclose(found, x.astype('f8') / np.linalg.norm(x.astype('f8'), axis=1, keepdims=True), rtol=1e-6)
    assert changed and found.dtype == np.float32
    again, changed = unit_rows(found)
    assert not changed and (again == found).all()


def test_rows_are_read_from_the_file_in_any_order_of_memory(tmp_path):
    x = unit(np.random.default_rng(0).normal(size=(50, 6)))
    np.save(tmp_path/'x.npy', np.asfortranarray(x))
    rows = np.array([3, 7, 49])
    found, changed = read_vectors(tmp_path/'x.npy', rows)
    assert (found == x[rows]).all() and not changed and (read_vectors(tmp_path/'x.npy')[0] == x).all()


@pytest.mark.parametrize(
    'fault, said',
    [
        ('nan', r'x\.npy: row 3, counted from 0, is not finite; look for'),
        ('inf', 'row 3, counted from 0, is not finite; '),
        ('zero', 'row 3, counted from 0, is all zeros and points nowhere; '), ('flat', r'has shape \(20,\); '),
        ('cube', r'has shape \(5, 2, 2\); '),
        ('empty', r'has shape \(0, 4\); '), ('objects', 'no whole .npy file of numbers .*; write it with numpy.save'),
        ('text', 'not real numbers; '), ('complex', 'not real numbers; '), ('cut', 'no whole .npy'),
        ('pickle', 'no whole .npy'), ('nothing', 'no whole .npy'), ('npz', 'an .npz archive.; write it'),
        ('missing', 'cannot be read .*; check'), ('folder', 'cannot be read .*; check')])
def test_each_fault_of_a_file_is_one_line(tmp_path, fault, said):
    path, x = tmp_path/'x.npy', np.random.default_rng(0).normal(size=(5, 4))
    if fault in ('nan', 'inf', 'zero'):
        x[3, slice(None) if fault == 'zero' else 1] = {'nan': np.nan, 'inf': np.inf, 'zero': 0}[fault]
    x = {
        'flat': x.ravel(), 'cube': x.reshape(5, 2, 2), 'empty': x[:0], 'text': np.array([['a']]), 'complex': x + 1j
    }.get(fault, x)
    if fault == 'objects': x = np.array([[None]], dtype=object)
    if fault == 'npz': np.savez(tmp_path/'y.npz', x); os.rename(tmp_path/'y.npz', path)
    elif fault == 'pickle': path.write_bytes(b'\x80\x04\x95' + bytes(40))
    elif fault == 'nothing': path.write_bytes(b'')
    elif fault == 'folder': path.mkdir()
    elif fault != 'missing':
        np.save(path, x)
        if fault == 'cut': path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(DaclError, match=said) as e: read_vectors(path)
    assert str(path) in str(e.value) and '\n' not in str(e.value) and ';' in str(e.value)


@settings(max_examples=150, deadline=None)
@given(SEEDS, st.integers(1, 12))
def test_a_damaged_header_never_breaks_out(tmp_path_factory, seed, flips):
    path, rng = tmp_path_factory.getbasetemp()/'damaged.npy', np.random.default_rng(seed)
    np.save(path, np.ones((4, 3)))
    data = bytearray(path.read_bytes())
    for i in rng.integers(0, 128, flips): data[i] = rng.integers(256)
    path.write_bytes(data)
    try: assert open_vectors(path).ndim == 2
    except DaclError as e: assert '\n' not in str(e)


def test_an_error_names_the_row_of_the_file_and_not_of_the_sample(tmp_path):
    x = np.ones((100, 3)); x[66] = np.nan
    np.save(tmp_path/'x.npy', x)
    with pytest.raises(DaclError, match='row 66,'): read_vectors(tmp_path/'x.npy', np.array([2, 66]))
    read_vectors(tmp_path/'x.npy', np.array([2, 65])) # rows that are not used are not read


def test_vectors_that_do_not_fit_are_refused_before_anything_is_written(tmp_path):
    p, q, _ = cloud()
    np.save(tmp_path/'p.npy', p); np.save(tmp_path/'q.npy', q[:, :8]); np.save(tmp_path/'few.npy', p[:12])
    go = lambda **kw: diagnose(Diagnose(**{'output_path': tmp_path/'out', 'search': SMALL, 'reading': QUIET} | kw))
    for said, kw in (
        (
            r'q\.npy: its rows have 8 dimensions, those of .*p\.npy 16; ',
            dict(vectors=tmp_path/'p.npy', query_vectors=tmp_path/'q.npy')),
        ('each of which would find itself; ', dict(vectors=tmp_path/'p.npy', query_vectors=tmp_path/'p.npy')),
        (
            'too few for the 700 nearest; ',
            dict(vectors=tmp_path/'p.npy', search=SearchSettings(k=700, ef_values=(700,)))),
        ('too few', dict(vectors=tmp_path/'few.npy')),
        ('must be at least 1', dict(vectors=tmp_path/'p.npy', max_queries=0)),
        ('encoder, corpus, queries are not given', {}), ('corpus is not given', dict(encoder='a', queries='b')),
        ('without vectors', dict(encoder='a', corpus='c', queries='b', query_vectors=tmp_path/'q.npy')),
        ('either vectors, or', dict(vectors=tmp_path/'p.npy', encoder='a'))):
        with pytest.raises(DaclError, match=said): go(**kw)
    assert not (tmp_path/'out').exists()
    for bad in ((p, q[:, :8]), (p[0], q), (p, q[:0])):
        with pytest.raises(DaclError, match='give tables of as many columns'): diagnose_vectors(*bad, s=SMALL)


# samples

@QUICK
@given(st.integers(1, 300), st.integers(1, 300), SEEDS)
def test_a_sample_keeps_what_it_must(n, most, seed):
    keep = np.random.default_rng(seed).integers(0, n, 5)
    if len(set(keep.tolist())) > most:
        with pytest.raises(DaclError, match='raise it, or lower max_queries'): sample_rows(n, most, keep)
        return
    rows = sample_rows(n, most, keep)
    assert set(keep.tolist()) <= set(rows.tolist())
    assert len(rows) == min(n, most)
    assert (np.diff(rows) > 0).all()
    assert 0 <= rows[0]
    assert rows[-1] < n
    assert (sample_rows(n, n) == np.arange(n)).all()


def test_positives_stay_in_a_small_sample(toy):
    s = text_sample(texts_of(toy, max_passages=50, max_queries=30))
    questions = read_questions(toy/'toy-dev.json')
    assert s.passages.shape == (50, 16) and len(s.q) == 30 and s.about['all_passages'] == 400
    for i, row in enumerate(s.rows):
        assert s.asked[i] == questions[row].question
        assert s.texts[s.judged.best[i]] == questions[row].positive_ctxs[0].text
    said = ' '.join(notes_of(s.about | {'passages': 50, 'queries': 30}))
    assert '50 of 400 passages' in said and 'all positives' in said and '30 of 100 queries' in said
    with pytest.raises(DaclError, match='max_passages 20: the queries alone have 30 positives'):
        text_sample(texts_of(toy, max_passages=20, max_queries=30))


def test_positives_in_is_a_lookup_by_id(toy):
    reading = Reading(toy/'cache', show_progress=False)
    passages, questions = (
        open_passages(toy/'psgs.tsv', reading=reading), open_questions(toy/'toy-dev.json', reading=reading))
    place = {p.id: i for i, p in enumerate(passages)}
    assert [r.tolist() for r in positives_in(passages, questions)] == [
        [place[c.passage_id] for c in q.positive_ctxs] for q in questions]


def test_without_query_vectors_some_passages_stand_for_them_and_leave_the_graph(tmp_path):
    p, *_ = cloud()
    np.save(tmp_path/'p.npy', 3 * p)
    s = vector_sample(Diagnose(vectors=tmp_path/'p.npy', max_passages=200, max_queries=40))
    assert s.q.shape == (40, 16)
    assert s.passages.shape == (200, 16)
    assert s.about['all_passages'] == 560
    assert s.judged is None
    np.testing.assert_allclose(s.q, p[s.rows], atol=1e-6)
    assert not {x.tobytes() for x in s.q} & {x.tobytes() for x in s.passages}
    d = json.loads(diagnose(vectors_of(tmp_path/'p.npy', output_path=tmp_path/'out')).read_text())
    assert d['in_distribution'] and d['normalised'] and (d['queries'], d['passages']) == (60, 540)
    page = (tmp_path/'out'/'diagnosis.html').read_text()
    assert all(
        t in said for said in (page, diagnosis_lines(tmp_path/'out'/'diagnosis.json'))
        for t in ('in distribution, so the costs are optimistic', 'were normalised'))
    assert not any('out of the passages' in t for t in d['suggestions']) and page.count('drawChart("chart-') == 4
    queries = pd.read_parquet(tmp_path/'out'/'queries.parquet')
    dearest = queries.sort_values('visited', ascending=False, kind='stable')['row'].iloc[0]
    assert f'row {dearest}</td>' in page


def test_lines_are_texts(tmp_path):
    (tmp_path/'a.txt').write_bytes('\ufeffeins\r\nzwei\n drei '.encode())
    assert len(Lines(tmp_path/'a.txt')) == 3 and Lines(tmp_path/'a.txt').take([0, 2]) == ['eins', 'drei']
    (tmp_path/'b.txt').write_bytes(b'a\n\xff\n')
    with pytest.raises(DaclError, match='b.txt: line 2 is not UTF-8; '): Lines(tmp_path/'b.txt')
    (tmp_path/'c.txt').write_text('a\n\nb\n')
    with pytest.raises(DaclError, match='c.txt: line 2 is empty; '): Lines(tmp_path/'c.txt')
    with pytest.raises(DaclError, match='cannot be read'): Lines(tmp_path/'none.txt')
    with pytest.raises(DaclError, match='no qrels/SPLIT.tsv; name the file'): open_queries(tmp_path)
    (tmp_path/'qrels').mkdir()
    for f in ('train.tsv', 'dev.tsv'): (tmp_path/'qrels'/f).touch()
    with pytest.raises(DaclError, match='several splits, dev.tsv, train.tsv; '): open_queries(tmp_path)


# numbers

@QUICK
@given(SEEDS)
def test_facts_of_passages_are_those_of_brute_force(seed):
    p, q, _ = cloud(seed, 100, 8, 12)
    p[7] = p[3]
    exact = np.argsort(-(q @ p.T), axis=1, kind='stable')[:, :10]
    found = passage_facts(q, p, exact, 5)
    assert found['repeated passages'] == pytest.approx(.01)
    cos = p @ p.T
    np.fill_diagonal(cos, -9)
    times = np.zeros(100)
    for row in cos: times[np.argsort(-row, kind='stable')[:5]] += 1
    assert found['hubness skew'] == pytest.approx(stats.skew(times), abs=.08) # equal distances may be broken either way
    u = np.linalg.svd(p.astype('f8'), full_matrices=False)[2][:2]
    short = np.argsort(-(q @ u.T @ (p @ u.T).T), axis=1)[:, :5]
    assert found['kept at a quarter of the axes'] == pytest.approx(
        np.mean([len(set(a) & set(b)) / 5 for a, b in zip(exact[:, :5].tolist(), short.tolist())]), abs=.04)
    values = np.linalg.svd(p - p.mean(0).astype('f8'), compute_uv=False)**2
    assert found['first axis'] == pytest.approx(values[0] / values.sum(), rel=1e-4)


def test_held_out_passages_show_what_few_passages_do_to_mahalanobis():
    rng = np.random.default_rng(0)
    p, q = unit(rng.normal(size=(300, 100))), unit(rng.normal(size=(300, 100))) # one distribution
    f = diagnose_vectors(p, q, s=SMALL).facts
    assert f['mahalanobis'] > 1.15 and f['mahalanobis of held-out passages'] == pytest.approx(f['mahalanobis'], rel=.15)
    assert not any(
        'out of the passages' in t
        for t in suggestions(
            f, pd.DataFrame({'cost': [], 'rho': []}), Sweep(np.array([10]), {'ann recall': np.full((1, 3), .97)}, {}),
            100, 300))


def test_costs_are_read_off_the_sweep_between_its_points():
    rng = np.random.default_rng(0)
    recall, visited = np.repeat(
        [[.8], [.92], [.96]], 50, 1), np.array([[100.], [200.], [300.]]) + rng.normal(size=(1, 50))
    t = costs_at(Sweep(np.array([10, 20, 30]), {'ann recall': recall, 'visited': visited}, {}), draws=200)
    mean = visited.mean(1)
    assert t.target.tolist() == list(TARGETS)
    assert t.bound.tolist() == ['', '', 'not reached']
    assert t.ef.tolist()[:2] == [20, 30]
    assert np.isnan(t.value[2])
    assert t.value[0] == pytest.approx(mean[0] + (.9 - .8) / .12 * 100)
    assert t.value[1] == pytest.approx(mean[1] + (.95 - .92) / .04 * 100)
    assert (t.low[:2] <= t.value[:2]).all() and (t.value[:2] <= t.high[:2]).all()
    easy = costs_at(Sweep(np.array([10, 20]), {'ann recall': recall[1:] + .035, 'visited': visited[:2]}, {}))
    assert easy.bound.tolist() == ['at most', 'at most', '']
    assert easy.value[0] == pytest.approx(mean[0])
    assert np.isnan(easy.low[0])


@pytest.fixture(scope='module')
def whole():
    p, q, gold = cloud(1, 800)
    return p, q, diagnose_vectors(p, q, gold, SMALL)


def test_noise_visits_much_of_the_graph_and_clumps_do_not():
    noise = unit(np.random.default_rng(0).normal(size=(2300, 64)))
    none = pd.DataFrame({'cost': [], 'rho': []})
    found = lambda p, q: suggestions(
        (a := diagnose_vectors(p, q, s=SearchSettings())).facts, none, a.sweep, p.shape[1], len(p))
    assert 'of the graph' in found(noise[100:], noise[:100])[0]
    assert not any('of the graph' in t for t in found(noise[100:700], noise[:100]))
    p, q, _ = cloud(n=2400)
    assert not any('of the graph' in t for t in found(p, q))


def test_both_times_are_of_the_same_vectors(whole):
    p, q, a = whole
    t = search_times(a, q, sample=10)
    assert t['ef'] in a.sweep.ef
    assert a.sweep.mean('ann recall')[list(a.sweep.ef).index(t['ef'])] >= .95
    assert min(t['graph'], t['exact']) > 0
    assert times_line(t).endswith('ms by exact search.') and a.index.hnsw.efSearch == t['ef']


def test_the_dearest_queries_and_their_percentiles(whole):
    _, _, a = whole
    t = dearest(a, {}, 5)
    assert t.visited.tolist() == sorted(a.costs.visited, reverse=True)[:5]
    assert (t.nearest.to_numpy() == a.exact[t['query'], 0]).all()
    for r in t.itertuples():
        every = {m: (stats.rankdata(v) / len(v) * 100)[r.query] for m, v in a.measures.items()}
        assert r.percentile == pytest.approx(every[r.measure])
        assert abs(r.percentile - 50) == pytest.approx(max(abs(v - 50) for v in every.values()))


def test_gold_adds_retrieval_and_changes_no_cost(whole):
    p, q, a = whole
    without = diagnose_vectors(p, q, s=SMALL)
    assert without.costs.visited.tolist() == a.costs.visited.tolist()
    assert 'recall@10' in a.facts
    assert 'recall@10' not in without.facts
    assert 'hubness skew' in without.facts


BASE = {
    'mahalanobis': 1., 'mahalanobis of held-out passages': 1.1, 'centroid gap': .1, 'mean cosine': .05,
    'effective dimension': 20., 'kept at a quarter of the axes': .5, 'hubness skew': .4, 'repeated passages': 0.,
    'visited, p95 over median': 1.2, 'visited at ANN recall 0.95': 300., 'local dimension of queries': 9.}


def said(explains=None, recall=(.8, .97), dim=24, n=2000, **facts):
    explains = pd.DataFrame({
        'cost': ['visited'], 'measure': ['spread'], 'rho': [np.nan], 'low': [np.nan], 'high': [np.nan]
    }) if explains is None else explains
    return suggestions(
        BASE | {k.replace('_', ' '): v for k, v in facts.items()}, explains,
        Sweep(np.array([10, 20]), {'ann recall': np.array([[r] * 4 for r in recall])}, {}), dim, n)


def test_a_suggestion_appears_at_its_threshold_and_names_its_number():
    assert said() == ['Nothing unusual: no number passes its threshold.']
    assert "out of the passages' distribution: mahalanobis is 1.70, 1.5 times the 1.10" in said(mahalanobis=1.7)[0]
    assert said(mahalanobis=1.6) == said()
    assert 'centroid gap is 0.60' in said(centroid_gap=.6)[0] and 'OOD-DiskANN' in said(centroid_gap=.6)[0]
    both = said(centroid_gap=.6, mahalanobis=2.)
    assert len(both) == 1 and 'mahalanobis' in both[0] and 'centroid gap' in both[0]
    assert 'crowd into a cone' in said(mean_cosine=.6)[0] and 'all but collapsed' in said(mean_cosine=.95)[0]
    assert 'is 3 of 24' in said(effective_dimension=3.)[0]
    assert 'rank again' in said(effective_dimension=3.)[0]
    assert 'PCA' in said(effective_dimension=3., kept_at_a_quarter_of_the_axes=.95)[0]
    assert said(effective_dimension=3., n=20) == said() # too few passages to tell
    assert 'hubness skew is 2.5' in said(hubness_skew=2.5)[0] and '5.0%' in said(repeated_passages=.05)[0]
    assert 'at efSearch 10 already' in said(recall=(.96, .99))[0]
    assert 'only 0.900 at efSearch 20' in said(recall=(.8, .9))[0]
    assert 'at least 2.5 times' in said(**{'visited, p95 over median': 2.5})[0]
    share = lambda visited, n: said(**{'visited at ANN recall 0.95': visited}, n=n)
    # a tiny graph is visited whole by any search
    assert 'visits 900 of 2,000 passages, 45% of the graph' in share(900., 2000)[0]
    assert share(900., 1999) == said() == share(np.nan, 2000) == share(400., 2000)
    row = lambda rho, low, high: pd.DataFrame({
        'cost': ['to find all', 'visited'], 'measure': ['hubness', 'spread'], 'rho': [.9, rho], 'low': [.8, low],
        'high': [.95, high]})
    assert 'spread goes best' in said(row(-.5, -.7, -.2))[1]
    assert 'a small one' in said(row(-.5, -.7, -.2))[1]
    assert 'not a cause' in said(row(-.5, -.7, -.2))[1]
    assert len(said(row(.4, -.1, .7))) == len(said(row(.2, .1, .3))) == 1


# the whole

@pytest.fixture(scope='module')
def diagnosed(toy, tmp_path_factory):
    out = tmp_path_factory.mktemp('diagnosed')
    return out, run(toy, out, max_passages=300)


def test_all_files_are_written_and_agree(diagnosed):
    out, d = diagnosed
    assert {f.name for f in out.iterdir()} == FILES
    queries, explains, costs = pd.read_parquet(
        out/'queries.parquet'), pd.read_csv(out/'explains.csv'), pd.read_csv(out/'costs.csv')
    assert len(queries) == d['queries'] == 100
    assert (queries['rank'] == 1).mean() == pytest.approx(d['numbers']['recall@1'])
    best = explains[explains.cost == 'visited'].iloc[0]
    assert best.rho == pytest.approx(stats.spearmanr(queries[best.measure], queries.visited).statistic)
    assert costs.target.tolist() == list(TARGETS) == [c['target'] for c in d['costs']] and d['thresholds'] == THRESHOLDS
    assert d['numbers']['visited, p95 over median'] == pytest.approx(
        queries.visited.quantile(.95) / queries.visited.median())
    lines = diagnosis_lines(out/'diagnosis.json')
    assert '300 of 400 passages' in lines
    assert all(s in lines for s in d['suggestions'])
    assert str(out) not in (out/'diagnosis.html').read_text()


def test_the_page_holds_its_charts_and_sections(diagnosed):
    page = (diagnosed[0]/'diagnosis.html').read_text()
    assert [f'drawChart("chart-{i}"' in page for i in range(1, 6)] == [True] * 4 + [False]
    assert page.count('<div class="chart"') == 4
    for title in (
        'What the measures suggest', 'Recall against cost', 'Cost at matched recall',
        'What goes with the cost of a query', 'The 10 costliest queries', 'Map', 'Numbers'
    ):
        assert f'<h2>{title}</h2>' in page
    assert 'evenly spaced, and all positives' in page and 'effective dimension' in page and 'percentile' in page


def test_costs_are_told_before_the_rest_is_made(toy, tmp_path):
    out, told = tmp_path/'out', []
    def tell(lines):
        assert not (out/'diagnosis.json').exists()
        told.append(lines)
    path = diagnose(texts_of(toy, 'passages.txt', 'queries.txt', output_path=out), tell)
    assert len(told) == 1 and told[0].count('visited nodes at ANN recall') == len(TARGETS)
    assert diagnosis_lines(path) == told[0] + '\n' + diagnosis_lines(path, told=True)


def test_text_and_vectors_of_one_data_set_agree(toy, tmp_path):
    s = text_sample(texts_of(toy, 'passages.txt', 'queries.txt'))
    assert s.judged is None and len(s.passages) == 400 and len(s.q) == 100
    np.save(tmp_path/'p.npy', s.passages); np.save(tmp_path/'q.npy', s.q)
    text = run(toy, tmp_path/'text', 'passages.txt', 'queries.txt')
    found = diagnose(vectors_of(tmp_path/'p.npy', tmp_path/'q.npy', output_path=tmp_path/'vectors'))
    vectors = json.loads(found.read_text())
    assert text['numbers'] == vectors['numbers']
    assert text['costs'] == vectors['costs']
    assert text['suggestions'] == vectors['suggestions']
    assert not vectors['in_distribution']
    a, b = (pd.read_parquet(tmp_path/n/'queries.parquet') for n in ('text', 'vectors'))
    pd.testing.assert_frame_equal(a.drop(columns='query'), b)
    assert a['query'].tolist() == (toy/'queries.txt').read_text().splitlines()


def test_dpr_beir_and_lines_are_one_data_set(toy):
    read = lambda c, q: text_sample(texts_of(toy, c, q))
    dpr, lines = read('psgs.tsv', 'toy-dev.json'), read('passages.txt', 'queries.txt')
    for c, q, known in (
        ('beir', 'beir', True), ('beir/corpus.jsonl', 'beir/qrels/test.tsv', True),
        ('beir', 'beir/queries.jsonl', False)
    ):
        s = read(c, q)
        assert (s.judged is not None) == known
        assert (s.passages == dpr.passages).all()
        assert (s.q == dpr.q).all()
        assert s.asked == lines.asked
        if known: assert (s.judged.best == dpr.judged.best).all()
    with pytest.raises(DaclError, match="fields: 'txt' is not known. Did you mean 'text'"):
        text_sample(texts_of(toy, fields='txt'))


def test_an_encoder_of_other_norms_is_normalised_and_said_so(toy, monkeypatch):
    import dacl_dr.evaluation.sample as module
    class Long(StaticEncoder):
        normalized = False
        def encode(self, *args, **kw): return 5 * super().encode(*args, **kw)
    def load(path):
        encoder = real(path)
        encoder.__class__ = Long
        return encoder
    read = lambda: text_sample(texts_of(toy, max_passages=200, max_queries=40))
    plain, real = read(), module.load_encoder
    monkeypatch.setattr(module, 'load_encoder', load)
    s = read()
    np.testing.assert_allclose(s.passages, plain.passages, atol=1e-6)
    assert s.about['normalised']
    assert not plain.about['normalised']
    assert 'normalised' in notes_of(s.about | {'passages': 200, 'queries': 40})[-1]


def test_text_of_users_is_escaped(toy, tmp_path):
    evil = '<script>alert(1)</script> <!--<script> bamon & "kedil"'
    asked = (toy/'queries.txt').read_text().splitlines()[:20]
    (tmp_path/'q<b>.txt').write_text('\n'.join(f'{evil} {a}' for a in asked))
    (tmp_path/'p.txt').write_text(
        '\n'.join(f'<img src=x onerror=alert(2)> {t}' for t in (toy/'passages.txt').read_text().splitlines()))
    diagnose(
        texts_of(toy, output_path=tmp_path/'out', corpus=tmp_path/'p.txt', queries=tmp_path/'q<b>.txt', fields=None))
    page = (tmp_path/'out'/'diagnosis.html').read_text()
    body = page[page.index('<body>'):]
    assert '&lt;script&gt;alert(1)&lt;/script&gt;' in body and '&lt;img src=x' in body and 'q&lt;b&gt;.txt' in body
    assert '<script>' not in body and '<img' not in body and '<b>.txt' not in page and '<!--' not in body
    assert set(re.findall(r'<script[^>]*>', body)) == {'<script type="module">'}
    assert pd.read_parquet(tmp_path/'out'/'queries.parquet')['query'].str.startswith(evil).all()


def test_a_handful_of_queries_still_gives_a_page(tmp_path):
    p, q, _ = cloud()
    np.save(tmp_path/'p.npy', p[:40]); np.save(tmp_path/'q.npy', q[:2])
    d = json.loads(diagnose(vectors_of(tmp_path/'p.npy', tmp_path/'q.npy', output_path=tmp_path/'out')).read_text())
    assert d['queries'] == 2
    assert 'Not told by this data: too few queries' in (tmp_path/'out'/'diagnosis.html').read_text()
    assert cost_map(
        vector_sample(Diagnose(vectors=tmp_path/'p.npy', query_vectors=tmp_path/'q.npy', max_passages=6)), np.ones(2)
    ) is None
