"Settings for other engines: those in Python are run, the others are read; what an engine lacks is named and left out."
import ast, importlib.util, json, re, subprocess, sys, textwrap

import numpy as np
import pytest
from msgspec.structs import replace

from dacl_dr.core.errors import DaclError
from dacl_dr.tuning.engines import LIBRARIES, SERVERS, paste, pastes
from dacl_dr.tuning.tuned import Tuned, levers_of, told_of

ENGINES = {e.name: e for e in (*LIBRARIES, *SERVERS)}
PLAIN = Tuned(dim=64, m=12, ef_construction=90, ef=60, k=10)
SHORT = replace(PLAIN, dims=32, rerank=60)
TUNED = {
    'plain': PLAIN,
    'float16': replace(PLAIN, storage='float16'),
    'sq8': replace(PLAIN, storage='sq8', rerank=20),
    'rabitq': replace(PLAIN, storage='rabitq', ef=150, rerank=150),
    'short': SHORT,
    'shorter alone': replace(PLAIN, dims=48),
    'short sq8': replace(SHORT, storage='sq8'),
    'pca': replace(SHORT, pca=True),
    'seeds': replace(PLAIN, seeds='run', n_seeds=6, ef=30, plain_ef=60),
    'seeds sq8': replace(PLAIN, seeds='bm25', n_seeds=6, ef=30, plain_ef=60, storage='sq8', rerank=30),
    'seeds short': replace(SHORT, seeds='bm25', n_seeds=6, plain_ef=60),
    'seeds pca': replace(SHORT, seeds='bm25', n_seeds=6, plain_ef=60, pca=True),
    'seeds rabitq': replace(PLAIN, seeds='bm25', n_seeds=6, plain_ef=60, storage='rabitq', rerank=150),
    'everything': replace(
        SHORT, gamma=.1, patience=9, seeds='run', n_seeds=6, links=700, storage='sq8', ef=40, plain_ef=90),
}

DRIVER = '''
import inspect, json, numpy as np
rng = np.random.default_rng(0)
spread = .93**np.arange(64) # later dimensions matter less, as Matryoshka has them
passages = rng.normal(size=(2000, 64)) * spread
passages = np.float32(passages / np.linalg.norm(passages, axis=1, keepdims=True))
gold = rng.choice(2000, 60, replace=False)
queries = passages[gold] + .25 * rng.normal(size=(60, 64)) * spread / np.linalg.norm(spread)
queries = np.float32(queries / np.linalg.norm(queries, axis=1, keepdims=True))
truth = np.argsort(-(queries @ passages.T), 1)
seeds = truth[:, 40:100:10] # near, but none of the ten
index = build(passages.copy())
given = {'seeds': seeds, 'passages': passages}
wanted = list(inspect.signature(search).parameters)[2:]
ids = search(index, queries, *(given[name] for name in wanted))
assert ids.shape == (60, 10), ids.shape
print(json.dumps(float(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(ids, truth[:, :10])]))))
'''


def recall_of(text, tmp_path):
    "Run a text on 2,000 vectors: its recall@10."
    (tmp_path/'run.py').write_text(text + DRIVER)
    done = subprocess.run([sys.executable, '-I', str(tmp_path/'run.py')], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


AT_LEAST = {
    'plain': .98, 'float16': .98, 'sq8': .98, 'rabitq': .85, 'short': .95, 'shorter alone': .8, 'short sq8': .95,
    'pca': .95, 'seeds': .95, 'seeds sq8': .95, 'seeds short': .95, 'seeds pca': .95, 'seeds rabitq': .85,
    'everything': .95}

def running(engine):
    needs = [pytest.mark.skipif(importlib.util.find_spec(engine) is None, reason=f"pip install '.[{engine}]'")]
    return [pytest.param(engine, name, id=f'{engine}-{name}', marks=needs) for name in TUNED]


@pytest.mark.parametrize('engine, name', [c for e in LIBRARIES for c in running(e.name)])
def test_a_text_in_python_runs_and_finds(engine, name, tmp_path):
    t = TUNED[name]
    recall = recall_of(paste(t, ENGINES[engine]).text, tmp_path)
    assert recall >= AT_LEAST[name], recall


@pytest.mark.parametrize('engine', ENGINES)
@pytest.mark.parametrize('name', TUNED)
def test_what_is_lacking_is_what_is_not_offered(engine, name):
    t, e = TUNED[name], ENGINES[engine]
    p = paste(t, e)
    assert p.lacks == tuple(told_of(lever, t) for lever in levers_of(t) if lever not in e.offers)
    assert p.link.startswith('https://') and p.checked and p.language in ('python', 'json', 'sql', 'java')
    assert 'None' not in p.text.replace('q[:, None]', '')
    assert 'gamma' not in p.text and 'patience' not in p.text.lower().replace('patienceknn', '')


@pytest.mark.parametrize('name', TUNED)
def test_texts_are_whole(name):
    for p in pastes(TUNED[name]):
        if p.language == 'json': assert all(re.match(r'(PUT|POST|GET) /', line) for line in json.loads(p.text))
        if p.language == 'python': ast.parse(p.text)
        if p.language == 'java': assert all(line.split(' //')[0].endswith(';') for line in p.text.splitlines())
        if p.language == 'sql': assert p.text.count('(') == p.text.count(')') and p.text.rstrip().endswith(';')


def body(name, engine, start):
    requests = json.loads(paste(TUNED[name], ENGINES[engine]).text)
    return next(b for line, b in requests.items() if line.startswith(start))


def test_qdrant():
    assert body('plain', 'Qdrant', 'PUT')['vectors'] == {
        'size': 64, 'distance': 'Dot', 'hnsw_config': {'m': 12, 'ef_construct': 90}}
    assert body('plain', 'Qdrant', 'POST')['params'] == {'hnsw_ef': 60}
    assert body('float16', 'Qdrant', 'PUT')['vectors']['datatype'] == 'float16'
    assert body('sq8', 'Qdrant', 'POST')['params']['quantization'] == {'rescore': True, 'oversampling': 2.0}
    short = body('short', 'Qdrant', 'POST')
    assert (short['using'], short['prefetch']['using'], short['prefetch']['limit']) == ('full', 'short', 60)
    assert body('short', 'Qdrant', 'PUT')['vectors']['short']['size'] == 32


def test_opensearch():
    made = body('float16', 'OpenSearch', 'PUT')['mappings']['properties']['vector']
    assert made['method']['parameters'] == {
        'm': 12, 'ef_construction': 90, 'encoder': {'name': 'sq', 'parameters': {'bits': 16, 'type': 'fp16'}}}
    asked = body('plain', 'OpenSearch', 'GET')['query']['knn']['vector']
    assert asked['method_parameters'] == {'ef_search': 60} and asked['k'] == 10


def test_elasticsearch():
    made = body('sq8', 'Elasticsearch', 'PUT')['mappings']['properties']['vector']
    assert made['index_options'] == {'type': 'int8_hnsw', 'm': 12, 'ef_construction': 90}
    asked = body('sq8', 'Elasticsearch', 'POST')['knn']
    assert (asked['num_candidates'], asked['k'], asked['rescore_vector']) == (60, 10, {'oversample': 2.0})
    assert any('turned off but not set' in note for note in paste(PLAIN, ENGINES['Elasticsearch']).notes)


def test_weaviate():
    made = body('sq8', 'Weaviate', 'POST')['vectorIndexConfig']
    assert (made['maxConnections'], made['efConstruction'], made['ef']) == (12, 90, 60)
    assert made['sq'] == {'enabled': True, 'rescoreLimit': 20}


def test_milvus():
    text = paste(TUNED['sq8'], ENGINES['Milvus']).text
    assert "'sq_type': 'SQ8', 'refine': True, 'refine_type': 'FP32'" in text and "'refine_k': 2.0" in text
    assert "index_type='HNSW'," in paste(PLAIN, ENGINES['Milvus']).text


def test_lucene():
    text = paste(replace(TUNED['seeds'], patience=7), ENGINES['Lucene']).text
    assert 'Lucene99HnswVectorsFormat(12, 90)' in text and 'KnnFloatVectorQuery("vector", vector, 30)' in text
    assert 'SeededKnnVectorQuery.fromFloatQuery(knn, lexical)' in text
    assert 'PatienceKnnVectorQuery.fromSeededQuery(seeded, 1.0, 7)' in text
    assert 'PatienceKnnVectorQuery.fromFloatQuery(knn, 1.0, 7)' in paste(
        replace(PLAIN, patience=7), ENGINES['Lucene']).text


def test_pgvector():
    text = paste(SHORT, ENGINES['pgvector']).text
    assert 'WITH (m = 12, ef_construction = 90)' in text and 'SET hnsw.ef_search = 60;' in text
    assert 'subvector(embedding, 1, 32)::vector(32)) vector_cosine_ops' in text
    assert text.endswith('ORDER BY embedding <#> $1 LIMIT 10;\n')
    half = paste(TUNED['float16'], ENGINES['pgvector']).text
    assert '((embedding::halfvec(64)) halfvec_ip_ops)' in half
    large = paste(replace(PLAIN, m=200, ef=2000), ENGINES['pgvector'])
    assert 'm = 100, ef_construction = 200' in large.text and 'ef_search = 1000' in large.text and large.notes


def test_an_engine_that_lacks_a_way_of_searching_gets_the_efsearch_found_without_it():
    t = TUNED['seeds']
    assert 'efSearch = 30' in paste(t, ENGINES['faiss']).text
    assert body('seeds', 'Qdrant', 'POST')['params'] == {'hnsw_ef': 60}
    with pytest.raises(DaclError, match='neither ef nor plain_ef'): pastes(replace(PLAIN, ef=None, gamma=.2))
