"mteb's own evaluation of a task of real text, exact and by HNSW: the same scores, counts of the tracer, lower cost."
import sys

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from transformers import set_seed

from dacl_dr.core.errors import DaclError
from dacl_dr.core.settings import CorpusSettings, EncoderSettings, Settings
from dacl_dr.data.codedocs import codedocs
from dacl_dr.hnsw.searcher import Stop
from dacl_dr.hnsw.tracer import Tracer
from dacl_dr.integrations import HnswBackend, lexical_seeds, local_task, with_backend
from dacl_dr.search.graph import build_hnsw
from dacl_dr.studies.task import Task

mteb = pytest.importorskip('mteb')


@pytest.fixture(scope='module')
def corpus(tmp_path_factory):
    "Functions and their documentation, in mteb's shape, and the tokenizer of the corpus."
    packages = CorpusSettings(packages=('joblib', 'traitlets', 'nbformat'), test_share=.5)
    folder = codedocs(tmp_path_factory.mktemp('codedocs'), packages, say=lambda _: None)
    task = Task(folder, Settings(encoder=EncoderSettings(vocab_size=2000)))
    texts = {f'p{i}': text for i, text in enumerate(task.texts)}
    queries = {f'q{i}': q.question for i, q in enumerate(task.test.questions)}
    return queries, texts, {f'q{i}': {f'p{g}'} for i, g in enumerate(task.test.gold)}, task.tokenizer

@pytest.fixture
def task(corpus): return local_task('CodeDocs', *corpus[:3])

def opened(corpus, score='cosine'):
    "A random vector a token, their mean."
    set_seed(0)
    return SentenceTransformer(
        modules=[StaticEmbedding(corpus[3], embedding_dim=128)], device='cpu', similarity_fn_name=score)

@pytest.fixture(scope='module')
def model(corpus): return opened(corpus)

def evaluated(model, task, cache=None, **encode):
    "mteb's scores of the only split."
    found = mteb.evaluate(
        model, task, cache=cache, show_progress_bar=False, encode_kwargs={'show_progress_bar': False} | encode)
    return found.task_results[0].scores['test'][0]

def unit(x): return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_a_wide_search_has_the_scores_of_mteb(model, corpus, task):
    "By this wrapper and by mteb's own."
    exact, wide = evaluated(model, task), Stop(ef=500)
    assert len(corpus[1]) > 300 and .2 < exact['ndcg_at_10'] < 1
    backends = [HnswBackend(stop=wide, exact=True) for _ in range(2)]
    plain = mteb.models.SearchEncoderWrapper(mteb.SentenceTransformerEncoderWrapper(model), index_backend=backends[1])
    for run, backend in zip((with_backend(model, backends[0]), plain), backends):
        found = evaluated(run, task)
        for name in ('ndcg_at_10', 'map_at_10', 'mrr_at_10', 'recall_at_100'):
            assert found[name] == pytest.approx(exact[name], abs=1e-5), name
        assert backend.costs()[0]['ann recall@10'] == 1 and backend.costs()[0]['passages'] == len(corpus[1])
    assert [b.costs()[0]['task'] for b in backends] == ['CodeDocs', '']

def test_counts_are_those_of_the_tracer(model, corpus, task):
    backend = HnswBackend(depth=10, stop=Stop(ef=40), m=8, ef_construction=60)
    evaluated(with_backend(model, backend), task)
    queries, texts = corpus[:2]
    q, x = (unit(model.encode(list(some.values()))) for some in (queries, texts))
    theirs, table = Tracer(build_hnsw(x, 8, 60)).search(q, 10, 40), backend.per_query()
    for name in ('evaluations', 'visited', 'hops'): assert table[name].tolist() == getattr(theirs, name).tolist(), name
    assert table['query'].tolist() == list(queries)
    assert backend.costs()[0]['visited'] == theirs.visited.mean()

def test_rule_and_seeds_cost_less_for_the_same(model, corpus, task, tmp_path):
    "Seeds by id, from BM25 and from a run's file."
    exact, seeds = evaluated(model, task), lexical_seeds(*corpus[:2], 5)
    run = tmp_path/'bm25.run'
    run.write_text(''.join(f'{q} Q0 {p} {i} {-i} bm25\n' for q, found in seeds.items() for i, p in enumerate(found)))
    gamma = {'depth': 10, 'stop': Stop(gamma=.2), 'n_seeds': 3}
    ways = {'plain': HnswBackend(depth=10, stop=Stop(ef=100), exact=True), 'gamma': HnswBackend(**gamma, exact=True),
        'seeds': HnswBackend(seeds=seeds, **gamma, exact=True), 'run': HnswBackend(seeds=str(run), **gamma)}
    scores = {name: evaluated(with_backend(model, backend), task)['ndcg_at_10'] for name, backend in ways.items()}
    costs = {name: backend.costs()[0] for name, backend in ways.items()}
    for name in ('plain', 'gamma', 'seeds'):
        assert costs[name]['ann recall@10'] > .97 and scores[name] == pytest.approx(exact['ndcg_at_10'], abs=.01), name
    assert costs['seeds']['evaluations'] < costs['gamma']['evaluations'] < costs['plain']['evaluations']
    assert costs['seeds']['seeded'] == sum(map(bool, seeds.values())) > costs['gamma']['seeded'] == 0
    assert ways['run'].per_query()['visited'].tolist() == ways['seeds'].per_query()['visited'].tolist()

def test_a_reranking_task_is_scored_exactly(model, corpus):
    "Every candidate of a run, as mteb scores them."
    candidates = lexical_seeds(*corpus[:2], 15)
    top = {q: found or ['p0'] for q, found in candidates.items()}
    backend = HnswBackend(depth=5)
    scores = [evaluated(run, local_task('Reranked', *corpus[:3], top)) for run in (model, with_backend(model, backend))]
    for name in ('ndcg_at_10', 'recall_at_20', 'map_at_100'):
        assert scores[1][name] == pytest.approx(scores[0][name], abs=1e-5), name
    with pytest.raises(DaclError, match='a reranking task searches no graph'): backend.costs()

def test_models_by_another_score_are_refused(corpus, task):
    "Unless their vectors have norm 1; afterwards the backend holds nothing."
    by_dot = opened(corpus, 'dot')
    backend = HnswBackend(depth=10, stop=Stop(ef=300))
    with pytest.raises(DaclError, match='scores a passage with itself .*normalize_embeddings'):
        evaluated(with_backend(by_dot, backend), task)
    assert not backend.held.ids
    scores = [
        evaluated(run, task, normalize_embeddings=True)['ndcg_at_10'] for run in (by_dot, with_backend(by_dot, backend))
    ]
    assert scores[1] == pytest.approx(scores[0], abs=1e-5) and len(backend.costs()) == 1
    for other in ('euclidean', 'manhattan'):
        with pytest.raises(DaclError, match='not the cosine'):
            evaluated(with_backend(opened(corpus, other), HnswBackend()), task)

def test_seeds_need_the_ids_of_the_queries(model, corpus, task):
    wrapped = mteb.SentenceTransformerEncoderWrapper(model)
    plain = mteb.models.SearchEncoderWrapper(wrapped, index_backend=HnswBackend(seeds=lexical_seeds(*corpus[:2])))
    with pytest.raises(DaclError, match='evaluate with_backend'): evaluated(plain, task)
    with pytest.raises(DaclError, match='seeds: has no result for any'):
        evaluated(with_backend(model, HnswBackend(seeds={'7': ['p1']})), task)
    with pytest.raises(DaclError, match='seeds: none of its passages'):
        evaluated(with_backend(model, HnswBackend(seeds={'q1': ['x']})), task)

def test_the_cache_keeps_runs_apart(model, corpus, task, tmp_path):
    "A second run of the same is read from it, and counts nothing; several tasks are a row each."
    cache = mteb.ResultCache(tmp_path)
    exact, narrow = evaluated(model, task, cache), HnswBackend(depth=1)
    found = evaluated(with_backend(model, narrow), task, cache)
    again = HnswBackend(depth=1)
    scores = [
        run['ndcg_at_10']
        for run in (exact, evaluated(model, task, cache), found, evaluated(with_backend(model, again), task, cache))]
    assert scores[0] == scores[1] > scores[2] == scores[3]
    with pytest.raises(DaclError, match='cache=None'): again.costs()
    few = dict(list(corpus[1].items())[:200])
    mteb.evaluate(
        with_backend(model, narrow), local_task('Few', corpus[0], few, corpus[2]), cache=None, show_progress_bar=False)
    assert [(row['task'], row['passages']) for row in narrow.costs()] == [('CodeDocs', len(corpus[1])), ('Few', 200)]

def test_a_missing_mteb_is_said_in_a_line(monkeypatch, model):
    "That the package imports without it, tests/test_layers.py tells."
    monkeypatch.setitem(sys.modules, 'mteb', None)
    for needs in (lambda: with_backend(model, HnswBackend()), lambda: local_task('x', {}, {}, {})):
        with pytest.raises(DaclError, match="pip install 'mteb>=2.26,<3'"): needs()
