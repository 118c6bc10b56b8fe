"""Commands from text to costs: what they write is checked against other programs, what does not fit is refused in a
line."""
import errno, json, os, shutil

import numpy as np
import pandas as pd
import pytest
import pytrec_eval

import dacl_dr.hnsw.cost as cost
import dacl_dr.hnsw.latency as latency
from dacl_dr.cli.main import main
from dacl_dr.core.errors import DaclError
from dacl_dr.core.options import BuildIndex, RunEvaluation
from dacl_dr.core.settings import EncoderSettings, IndexSettings, Reading, SearchSettings
from dacl_dr.hnsw.curves import Sweep, curve, sweep
from dacl_dr.hnsw.cost import answers, compare, cost_at, questions_of
from dacl_dr.data.formats import question_json, read_questions, write_questions
from dacl_dr.search.indexing import make_index, trained_fields
from dacl_dr.evaluation.ef_sweep import engine_search
from dacl_dr.evaluation.judging import TaskJudge
from dacl_dr.evaluation.evaluate import run_evaluation, search_with_counts
from dacl_dr.search.exact import exact_search
from dacl_dr.search.graph import build_hnsw
from dacl_dr.metrics.ranking import ann_recall
from dacl_dr.data.toy import toy_data
from dacl_dr.search.retriever import Retriever
from dacl_dr.core.files import write_manifest
from dacl_dr.encoders.static import StaticEncoder, bag_texts, train_tokenizer
from dacl_dr.metrics.statistics import query_draws
from dacl_dr.data.store import open_passages, open_questions
from dacl_dr.hnsw.tracer import Tracer


@pytest.fixture(scope='module')
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp('evaluation')
    toy_data(home/'data', n=900)
    passages = open_passages(home/'data'/'psgs.tsv', reading=Reading(home/'cache', show_progress=False))
    texts = [f'{p.title} {p.text}' for p in passages]
    tokenizer = train_tokenizer(texts, 300)
    for name, seed in (('encoder', 0), ('other', 1)):
        (home/name).mkdir()
        StaticEncoder.create(tokenizer, bag_texts(tokenizer, texts), EncoderSettings(dim=32), seed).save(home/name)
    args = [
        '--encoder_path', home/'encoder', '--corpus_path', home/'data'/'psgs.tsv', '--hnsw_m', 8,
        '--hnsw_ef_construction', 40, '--cache_dir', home/'cache']
    for kind in ('hnsw', 'flat'):
        assert dacl(
            'build-index', *args, '--output_path', home/kind, '--index_type', kind, '--embeddings_path', home/'vectors'
        ) == 0
    return home


def dacl(*args): return main([str(a) for a in args])


def common(home, kind='hnsw'):
    return [
        '--encoder_path', home/'encoder', '--index_path', home/kind, '--test_file', home/'data'/'toy-dev.json',
        '--cache_dir', home/'cache']


def retriever(home, kind='hnsw'):
    return Retriever.open(home/'encoder', home/kind, reading=Reading(home/'cache', show_progress=False))


@pytest.mark.parametrize('kind', ['hnsw', 'flat'])
def test_run_evaluation(home, tmp_path, capsys, kind):
    assert dacl(
        'run-evaluation', *common(home, kind), '--output_path', tmp_path, '--k_values', 1, 5, 20, '--hnsw_ef_search',
        60, '--experiment_name', 'x') == 0
    assert 'recall@20' in capsys.readouterr().out
    m = json.loads((tmp_path/'x.metrics.json').read_text())
    with open(tmp_path/'x.run.trec') as f: run = pytrec_eval.parse_run(f)
    qrels = {
        f'q{n}': {q.positive_ctxs[0].passage_id: 1} for n, q in enumerate(read_questions(home/'data'/'toy-dev.json'), 1)
    }
    theirs = pytrec_eval.RelevanceEvaluator(qrels, {'recall.1,5,20', 'ndcg_cut.10'}).evaluate(run)
    for mine, name in (
        ('recall@1', 'recall_1'), ('recall@5', 'recall_5'), ('recall@20', 'recall_20'), ('ndcg@10', 'ndcg_cut_10')
    ):
        assert m['metrics'][mine] == pytest.approx(np.mean([v[name] for v in theirs.values()]), abs=1e-9)
    per_query = pd.read_parquet(tmp_path/'x.queries.parquet').pivot(index='query', columns='metric', values='value')
    assert per_query['recall@5'].mean() == pytest.approx(m['metrics']['recall@5'])
    assert m['questions']['answer accuracy@5'] < m['questions']['recall@5']
    assert ('visited' in m['metrics']) == (kind == 'hnsw') and (m['ef_search'] is None) == (kind == 'flat')
    if kind == 'hnsw':
        assert m['metrics']['hops'] < m['metrics']['visited'] <= m['metrics']['evaluations']
        assert m['metrics']['ANN recall@20'] > .8


def test_run_ef_sweep(home, tmp_path, capsys):
    assert dacl(
        'run-ef-sweep', *common(home), '--output_path', tmp_path, '--ef_values', 10, 20, 40, 80, 160, '--rounds', 1,
        '--draws', 50, '--experiment_name', 'x') == 0
    assert 'visited at ANN recall 0.95' in capsys.readouterr().out
    table, costs = pd.read_csv(tmp_path/'x.sweep.csv'), pd.read_csv(tmp_path/'x.costs.csv').set_index('question')
    assert table.visited.is_monotonic_increasing
    assert (table.evaluations >= table.visited).all()
    assert (table['visited p99'] >= table['visited p50']).all()
    assert (table['latency ms'] > 0).all()
    per_query = pd.read_parquet(tmp_path/'x.queries.parquet')
    for _, row in table.iterrows():
        here = per_query[(per_query.ef == row.ef) & (per_query.metric == 'visited')].value
        assert row.visited == pytest.approx(here.mean())
        assert row['visited p95'] == pytest.approx(np.percentile(here, 95))
        assert len(here) == 225
    tracer, index = Tracer(retriever(home).index.faiss), retriever(home).index
    vectors = retriever(home).encode([q.question for q in read_questions(home/'data'/'toy-dev.json')])
    ids = exact_search(vectors, index.faiss.storage.reconstruct_n(0, 900), 10)
    for t in (.9, .95, .99):
        every = {ef: tracer.search(vectors, 10, ef) for ef in range(10, 161)}
        first = next(ef for ef, r in every.items() if ann_recall(r.ids, ids).mean() >= t)
        row = costs.loc[f'visited at ANN recall {t}']
        assert every[first - 1].visited.mean() * .98 <= row.value <= every[first].visited.mean() * 1.02
        assert row.low <= row.value <= row.high
    assert 'drawChart("chart-' in (tmp_path/'x.curve.html').read_text()[-20_000:]
    assert json.loads((tmp_path/'x.sweep.json').read_text())['task'] == 'recall@10'


def test_an_index_that_keeps_less_than_float32_is_swept_by_faiss_counters(home, tmp_path):
    assert dacl(
        'build-index', '--encoder_path', home/'encoder', '--corpus_path', home/'data'/'psgs.tsv', '--output_path',
        tmp_path/'sq8', '--storage', 'sq8', '--hnsw_m', 4, '--embeddings_path', home/'vectors', '--cache_dir',
        home/'cache') == 0
    args = [
        '--encoder_path', home/'encoder', '--index_path', tmp_path/'sq8', '--test_file', home/'data'/'toy-dev.json',
        '--cache_dir', home/'cache', '--output_path', tmp_path]
    assert dacl('run-ef-sweep', *args, '--ef_values', 10, 40, 160, '--rounds', 0, '--draws', 20, '--targets', .8) == 0
    costs = pd.read_csv(tmp_path/'sweep.costs.csv')
    assert costs.question.tolist()[0] == 'evaluations at ANN recall 0.8'


@pytest.mark.parametrize('engine', ['patience', 'usearch'])
def test_other_engines_find_the_same_neighbours_at_their_own_cost(home, tmp_path, engine):
    assert dacl(
        'run-ef-sweep', *common(home), '--output_path', tmp_path, '--engine', engine, '--draws', 20, '--targets', .9
    ) == 0
    table, about = pd.read_csv(tmp_path/'sweep.sweep.csv'), json.loads((tmp_path/'sweep.sweep.json').read_text())
    assert about['engine'] == engine and about['rounds'] == 0 and table['ann recall'].max() > .9
    assert table.evaluations.is_monotonic_increasing and (table.hops > 10).all()
    assert pd.read_csv(tmp_path/'sweep.costs.csv').question[0] == {
        'patience': 'visited', 'usearch': 'evaluations'}[engine] + ' at ANN recall 0.9'
    r = retriever(home)
    asked = r.encode([q.question for q in read_questions(home/'data'/'toy-dev.json')])
    theirs, ours = (engine_search(r.index, asked, 10, e, False)(800).ids for e in (engine, 'faiss'))
    assert ann_recall(theirs, ours).mean() > .99 # with so wide a search


def one_line(capsys, code, *parts):
    lines = capsys.readouterr().err.strip().splitlines()
    assert code == 2 and lines[-1].startswith('dacl: '), lines
    for p in parts: assert p in lines[-1], lines[-1]


@pytest.mark.parametrize('command, flags, parts', [
    ('run-evaluation', ['--k_values', 901], ['k=901 is out of range', '900 passages']),
    ('run-evaluation', ['--k_values', 50, '--hnsw_ef_search', 40], ['efSearch 40 is below k=50']),
    ('run-evaluation', ['--k_values', 0], ['--k_values']),
    ('run-evaluation', ['--k_values', 5, '--hnsw_ef_search', 2000000], ['out of range']),
    ('run-evaluation', ['--experiment_name', '../x'], ['experiment_name']),
    ('run-ef-sweep', ['--ef_values', 5, 20], ['efSearch 5 is below k=10']),
    ('run-ef-sweep', ['--k', 5], ['--k', '>= 10']),
    ('run-ef-sweep', ['--targets', 1.5], ['--targets', '< 1']),
    ('run-ef-sweep', ['--corpus_path', '/nowhere/psgs.tsv'], ['/nowhere/psgs.tsv', 'cannot be read']),
])
def test_what_does_not_fit_is_refused(home, tmp_path, capsys, command, flags, parts):
    one_line(capsys, dacl(command, *common(home), '--output_path', tmp_path/'out', *flags), *parts)
    assert not (tmp_path/'out').exists() or not [f for f in (tmp_path/'out').iterdir()]


def test_other_encoder_other_index_other_questions(home, tmp_path, capsys):
    swap = lambda flag, value: [value if i and common(home)[i - 1] == flag else a for i, a in enumerate(common(home))]
    one_line(
        capsys,
        dacl('run-evaluation', *swap('--encoder_path', home/'other'), '--output_path', tmp_path, '--k_values', 1),
        'another encoder')
    one_line(
        capsys, dacl('run-ef-sweep', *swap('--index_path', tmp_path), '--output_path', tmp_path), 'no finished index')
    one_line(capsys, dacl('run-ef-sweep', *common(home, 'flat'), '--output_path', tmp_path), 'exact index')
    toy_data(tmp_path/'b', n=50, seed=5)
    one_line(
        capsys,
        dacl(
            'run-evaluation', *common(home), '--corpus_path', tmp_path/'b'/'psgs.tsv', '--output_path', tmp_path,
            '--k_values', 1),
        'another corpus')
    questions = list(read_questions(home/'data'/'toy-dev.json'))
    import msgspec
    moved = [
        msgspec.structs.replace(
            q, positive_ctxs=tuple(msgspec.structs.replace(c, passage_id='z' + c.passage_id) for c in q.positive_ctxs))
        for q in questions]
    write_questions(tmp_path/'moved-dev.json', moved)
    one_line(
        capsys,
        dacl(
            'run-evaluation', *swap('--test_file', tmp_path/'moved-dev.json'), '--output_path', tmp_path, '--k_values',
            1),
        'none of its 225 positives')
    write_questions(tmp_path/'empty-dev.json', [msgspec.structs.replace(questions[0], question='  '), *questions[1:]])
    one_line(
        capsys,
        dacl(
            'run-evaluation', *swap('--test_file', tmp_path/'empty-dev.json'), '--output_path', tmp_path, '--k_values',
            1),
        'empty')
    one_line(
        capsys,
        dacl(
            'build-index', '--encoder_path', home/'encoder', '--corpus_path', home/'data'/'psgs.tsv', '--output_path',
            home/'hnsw', '--embeddings_path', home/'vectors', '--cache_dir', home/'cache'),
        'hnsw: holds another index: m is 8 there and 32 here, ef_construction is 40 there and 200 here; choose another '
        '--output, or delete this one')
    one_line(
        capsys,
        dacl(
            'build-index', '--encoder_path', home/'encoder', '--corpus_path', home/'data'/'psgs.tsv', '--output_path',
            tmp_path/'i', '--hnsw_m', 1),
        '--hnsw_m', '>= 2')


def test_fields_are_those_of_the_training(tmp_path):
    assert trained_fields(tmp_path/'final_model') is None
    write_manifest(tmp_path/'recipe.json', {'settings': {'data': {'fields': 'text'}}})
    assert trained_fields(tmp_path/'final_model') == 'text'


def test_answers_judge_a_sweep_where_there_are_no_positives(home):
    import msgspec
    questions = [
        msgspec.structs.replace(q, positive_ctxs=()) for q in read_questions(home/'data'/'toy-dev.json') if q.answers]
    write_questions(home/'answers-dev.json', questions)
    judge = TaskJudge(
        open_questions(home/'answers-dev.json', reading=Reading(home/'cache', show_progress=False)),
        retriever(home).passages)
    assert judge.task == 'answer accuracy@10' and judge.names == []
    rows = np.array([
        [r]
        for r in retriever(home).passages.rows([
            q.positive_ctxs[0].passage_id for q in read_questions(home/'data'/'toy-dev.json') if q.answers])])
    assert judge(rows)['answer accuracy@10'].tolist() == [1.] * len(questions)


def unit(x): return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype('f4')


@pytest.fixture(scope='module')
def swept():
    rng = np.random.default_rng(3)
    x = unit(rng.normal(size=(6000, 48)))
    q = unit(x[:400] + .12 * rng.normal(size=(400, 48)))
    tracer, truth = Tracer(build_hnsw(x, 8, 40)), exact_search(q, x, 10)
    judge = lambda ids: {'recall@10': (ids == np.arange(400)[:, None]).any(1).astype(float)}
    return tracer, q, truth, sweep(lambda ef: tracer.search(q, 10, ef), truth, judge)


def test_interpolated_costs_are_within_two_percent_of_brute_force(swept):
    tracer, q, truth, s = swept
    for t in (.9, .95, .99):
        ef = int(s.ef[np.searchsorted(s.mean('ann recall'), t)]) - 12
        while ann_recall((r := tracer.search(q, 10, ef)).ids, truth).mean() < t: ef += 1
        for name in ('visited', 'evaluations', 'hops'):
            assert cost_at(
                t, s.mean('ann recall'), s.mean(name)) == pytest.approx(getattr(r, name).mean(), rel=.02), (t, name, ef)


def test_bootstrap_intervals_cover_the_truth_and_shrink_with_more_queries():
    rng = np.random.default_rng(0)
    efs = np.array([10, 20, 40, 80, 160])
    def drawn(n, factor=1.): # quality rises with ef by a known law, cost varies between queries
        p = 1 - 1.2 / efs**.9
        hits = (rng.random((5, n)) < p[:, None]).astype(float)
        spread = rng.lognormal(0, .5, n)
        return Sweep(
            efs, {'ann recall': hits, 'visited': factor * efs[:, None] * 10 * spread, 'recall@10': hits},
            {'recall@10': np.ones(n)})
    question = cost.CostQuestion('x', 'ann recall', .95)
    truth = cost_at(.95, 1 - 1.2 / efs**.9, efs * 10 * np.exp(.125))
    inside, widths = 0, []
    for i in range(40):
        draws = answers(question, drawn(2000), query_draws(2000, 200, i))
        low, high = np.quantile(draws, [.025, .975])
        inside += low <= truth <= high; widths.append(high - low)
    assert inside >= 33 # 38 expected; fewer than 33 of 40 would be a chance of 1 in 1,000
    assert np.mean([
        np.ptp(np.quantile(answers(question, drawn(20_000), query_draws(20_000, 100, i)), [.025, .975]))
        for i in range(3)]) < .6 * np.mean(widths)


def test_pairing_sees_a_small_difference_that_single_intervals_hide(swept):
    *_, s = swept
    dearer = Sweep(s.ef, s.values | {'visited': s.values['visited'] * 1.02}, s.exact)
    table = compare({'a': [s], 'b': [dearer]}, SearchSettings(targets=(.95,)), draws=100)
    b, a = (table[(table.model == m) & table.question.str.contains('ANN recall 0.95')].iloc[0] for m in 'ba')
    assert a.low < b.value < a.high # alone, not to be told apart
    assert b['change low'] == pytest.approx(.02) and b['change high'] == pytest.approx(.02)


def test_sweeps_over_other_queries_are_not_compared(swept):
    *_, s = swept
    fewer = Sweep(s.ef, {n: v[:, :300] for n, v in s.values.items()}, {n: v[:300] for n, v in s.exact.items()})
    with pytest.raises(DaclError, match='same ones'): compare({'a': [s], 'b': [fewer]}, draws=10)


def test_latency_takes_turns_and_leaves_the_threads_as_they_were(swept, monkeypatch):
    import faiss
    tracer, q, _, s = swept
    before, turns, real = faiss.omp_get_max_threads(), [], latency.time_round
    other, few = build_hnsw(q, 8, 40), Sweep(s.ef[:2], {n: v[:2] for n, v in s.values.items()}, s.exact)
    def noted(index, ef, *more):
        turns.append(('b' if index is other else 'a', ef))
        return real(index, ef, *more)
    monkeypatch.setattr(latency, 'time_round', noted)
    latency.time_searches({'a': (tracer.index, q, s), 'b': (other, q, few)}, rounds=2, sample=20)
    assert turns == [(name, ef) for i, ef in enumerate(s.ef) for _ in range(3) for name in ('ab' if i < 2 else 'a')]
    assert faiss.omp_get_max_threads() == before
    assert (~np.isnan(s.values['latency ms'])).sum(1).tolist() == [20] * len(s.ef)
    assert curve(s)['latency ms p99'].min() > 0 and len(questions_of([s], SearchSettings(), cost='latency ms')) == 6


def test_search_gives_texts_and_corpus_ids(home):
    r = retriever(home)
    p = r.passages[123]
    hits = r.search(f'{p.title} {p.text}', 3, ef=200)
    assert hits[0].id == p.id and hits[0].text == p.text and hits[0].score >= hits[1].score
    assert r.search([p.text], 3, ef=200)[0] == r.search(p.text, 3, ef=200)
    with pytest.raises(DaclError, match='query 1 of 1 is empty'): r.search('')


def evaluated(home, out, name, kind='hnsw', **changes):
    return run_evaluation(RunEvaluation(
        encoder_path=home/'encoder', index_path=home/kind, test_file=home/'data'/'toy-dev.json', output_path=out,
        k_values=(10,), hnsw_ef_search=50, experiment_name=name, reading=Reading(home/'cache', show_progress=False),
    ).but(**changes))


def test_exact_neighbours_are_kept_and_damage_to_them_is_repaired(home, tmp_path):
    evaluated(home, tmp_path, 'a')
    kept = list((home/'hnsw'/'exact').glob('*-10-*.npy'))
    good = kept[0].read_bytes()
    kept[0].write_bytes(good[:100])
    evaluated(home, tmp_path, 'b')
    assert kept[0].read_bytes() == good
    a, b = (json.loads((tmp_path/f'{n}.metrics.json').read_text())['metrics'] for n in 'ab')
    assert a == b


def fails(*_, **__): raise OSError(errno.EROFS, 'Read-only file system')


@pytest.mark.parametrize('broken', ['folder', 'file', 'disk'])
def test_an_index_that_can_only_be_read_is_evaluated(home, tmp_path, monkeypatch, broken):
    "Permissions do not bind root, so what a read-only disk refuses fails here: to make a folder, or to write in it."
    index = tmp_path/'hnsw'
    shutil.copytree(home/'hnsw', index)
    shutil.rmtree(index/'exact', ignore_errors=True)
    right = json.loads(evaluated(home, tmp_path/'out', 'right').read_text())
    if broken == 'folder': (index/'exact').write_text('no folder')
    if broken == 'file': monkeypatch.setattr('dacl_dr.evaluation.evaluate.np.save', fails)
    if broken == 'disk': index.chmod(0o500)
    before = {f.relative_to(index) for f in index.rglob('*')}
    found = json.loads(evaluated(home, tmp_path/'out', 'found', index_path=index).read_text())
    index.chmod(0o700)
    assert found['metrics'] == right['metrics'] and found['metrics']['ANN recall@10'] > .8
    if broken != 'disk' or os.geteuid(): assert not list(index.rglob('*.npy')) and not list(index.rglob('*.partial'))
    if broken == 'folder': assert {f.relative_to(index) for f in index.rglob('*')} == before


def test_more_queries_than_a_chart_of_altair_has_rows(home, tmp_path):
    "Altair refuses tables of more than 5,000 rows unless it is told otherwise."
    (tmp_path/'many-dev.json').write_text('[' + ','.join(many_questions(home, 6000)) + ']')
    args = ['--encoder_path', home/'encoder', '--cache_dir', home/'cache', '--output_path']
    assert dacl(
        'run-ef-sweep', '--index_path', home/'hnsw', '--test_file', tmp_path/'many-dev.json', *args, tmp_path/'sweep',
        '--ef_values', 10, 40, '--rounds', 0, '--draws', 20, '--targets', .8) == 0
    assert dacl('run-representation-eval', '--dev_file', tmp_path/'many-dev.json', *args, tmp_path/'space') == 0
    told = json.loads((tmp_path/'space'/'representation.json').read_text())
    assert told['questions'] == 6000 == len(pd.read_parquet(tmp_path/'sweep'/'sweep.queries.parquet')['query'].unique())
    for page in ('sweep/sweep.curve.html', 'space/representation.html'):
        assert 'drawChart("chart-' in (tmp_path/page).read_text()


def many_questions(home, n):
    "The questions of a file again and again, as records of JSON."
    import msgspec
    asked = list(read_questions(home/'data'/'toy-dev.json'))
    records = (
        msgspec.structs.replace(asked[i % len(asked)], question=f'{asked[i % len(asked)].question} {i}', id=f'q{i}')
        for i in range(n))
    return [question_json(q).decode() for q in records]


def test_a_diagnosis_of_more_queries_than_a_chart_of_altair_has_rows(tmp_path):
    rng = np.random.default_rng(0)
    for name, n in (('v', 600), ('q', 6000)): np.save(tmp_path/f'{name}.npy', unit(rng.normal(size=(n, 16))))
    args = [
        '--vectors', tmp_path/'v.npy', '--query_vectors', tmp_path/'q.npy', '--max_queries', 6000, '--output_path',
        tmp_path/'out']
    assert dacl('diagnose', *args) == 0
    assert json.loads((tmp_path/'out'/'diagnosis.json').read_text())['queries'] == 6000
    assert 'drawChart("chart-' in (tmp_path/'out'/'diagnosis.html').read_text()


@pytest.mark.parametrize('storage', ['float32', 'float16', 'sq8'])
def test_one_search_gives_ids_and_scores_of_faiss_and_counts(home, tmp_path, storage):
    index = make_index(BuildIndex(
        encoder_path=home/'encoder', corpus_path=home/'data'/'psgs.tsv', output_path=tmp_path/storage,
        embeddings_path=home/'vectors', index=IndexSettings(m=4, ef_construction=20, storage=storage, order=3),
        reading=Reading(home/'cache', show_progress=False),
    ))
    r = Retriever.open(home/'encoder', index.folder, reading=Reading(home/'cache', show_progress=False))
    vectors = r.encode([q.question for q in read_questions(home/'data'/'toy-dev.json')])
    for k, ef in ((1, 10), (20, 20), (100, 300)):
        found, (rows, scores) = search_with_counts(r, vectors, k, ef), r.rows(vectors, k, ef)
        assert (found.rows == rows).all()
        assert (found.scores == scores)[rows >= 0].all() # to the last bit
        assert (found.trace.evaluations > 0).all()
