"An adapter from texts to a folder that sentence-transformers opens alone; what is refused; stopped and started again."
import json, re, subprocess, sys
from pathlib import Path

import numpy as np, pytest, torch
from safetensors.numpy import load_file

from dacl_dr.adapting.adapt import adapt, adapt_lines
from dacl_dr.adapting.gain import found_metrics
from dacl_dr.adapting.task import adapt_task, split_groups
from dacl_dr.core.errors import DaclError
from dacl_dr.core.cure_options import Adapt, Tune
from dacl_dr.core.options import BuildIndex
from dacl_dr.encoders.adapted import adapt_queries
from dacl_dr.encoders.static import load_encoder
from dacl_dr.encoders.transformer import tiny_bert
from dacl_dr.evaluation.index_sample import index_sample
from dacl_dr.evaluation.judging import OthersJudged
from dacl_dr.evaluation.sample import vector_sample
from dacl_dr.metrics.ranking import Judgements
from dacl_dr.training.adapter import AdapterRun, QueryAdapter, dev_recall, load_run, query_pairs, train_adapter
from dacl_dr.core.settings import AdapterSettings, IndexSettings, Prefixes, Stage
from dacl_dr.search.indexing import make_index
from dacl_dr.tuning.inputs import material_of
from hostile import IMAGE, SCRIPT, shows_only


def unit(x): return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype('f4')

def quiet(o): return o.but(reading=o.reading.but(show_progress=False))


@pytest.fixture(scope='module')
def texts(tmp_path_factory):
    "A corpus whose questions use other words than its passages: a translation that a matrix can learn."
    home, rng = tmp_path_factory.mktemp('texts'), np.random.default_rng(0)
    said, asked = ([f'{kind}{i}' for i in range(40)] for kind in 'pq')
    picked = np.array([rng.choice(40, 3, replace=False) for _ in range(900)])
    rows = [f'{i}\t{" ".join(said[w] for w in p)}\tt{i % 90}' for i, p in enumerate(picked)]
    (home/'psgs.tsv').write_text('id\ttext\ttitle\n' + '\n'.join(rows) + '\n')
    of = lambda i: {'passage_id': str(i), 'title': f't{i % 90}', 'text': ' '.join(said[w] for w in picked[i])}
    questions = [
        {'question': ' '.join(asked[w] for w in p), 'answers': [], 'positive_ctxs': [of(i)], 'negative_ctxs': [],
         'hard_negative_ctxs': []} for i, p in enumerate(picked)]
    (home/'train.json').write_text(json.dumps(questions))
    tiny_bert(home/'bert', [*said, *asked, *(f't{i}' for i in range(90))], dim=64)
    return home

def from_texts(home, out, **more):
    o = quiet(Adapt(
        encoder=(str(home/'bert'),), corpus=str(home/'psgs.tsv'), queries=str(home/'train.json'), output_path=str(out),
        groups='title', held=.4, fields='text'))
    return o.but(adapter=o.adapter.but(batch_size=64, random_passages=400, learning_rate=.01), **more)


def test_the_folder_opens_without_this_package(texts, tmp_path):
    path = adapt(from_texts(texts, tmp_path/'out', anyway=True))
    assert json.loads(path.read_text())['saved']
    script = (
        'import sys; sys.modules["dacl_dr"] = None\n'
        'from sentence_transformers import SentenceTransformer\nimport numpy as np\n'
        'm = SentenceTransformer(sys.argv[1], device="cpu")\n'
        'np.savez(sys.argv[2], q=m.encode_query(["q1 q2 q3"]), d=m.encode_document(["p1 p2 p3"]))\n')
    subprocess.run([sys.executable, '-c', script, path.with_name('encoder'), tmp_path/'theirs.npz'], check=True)
    theirs, base, arrays = np.load(tmp_path/'theirs.npz'), load_encoder(texts/'bert'), load_file(
        path.with_name('adapter.safetensors'))
    q = adapt_queries(unit(base.encode(['q1 q2 q3'], 'query')), arrays['W'], arrays['b'])
    assert abs(theirs['q'] - q).max() < 1e-5
    assert abs(theirs['d'] - unit(base.encode(['p1 p2 p3'], 'passage'))).max() < 1e-5
    mine = load_encoder(path.with_name('encoder'))
    assert abs(mine.encode(['q1 q2 q3'], 'query') - q).max() < 1e-5

def test_groups_are_held_out_whole(texts, tmp_path):
    path = adapt(from_texts(texts, tmp_path/'out'))
    m = json.loads(path.read_text())
    assert {g['queries'] for g in m['groups']} == {10} # a title has ten questions, all of them held out
    assert 'pairs' in adapt_lines(path)
    assert m['saved'] == (m['gains'][0]['change']['low'] > 0)
    assert m['saved'] == path.with_name('encoder').exists()


@pytest.fixture(scope='module')
def vectors(tmp_path_factory):
    home, rng = tmp_path_factory.mktemp('vectors'), np.random.default_rng(0)
    passages = unit(rng.normal(size=(600, 16)))
    gold = rng.integers(0, 600, 600)
    for name, x in (('p', passages), ('q', unit(passages[gold] + .05 * rng.normal(size=(600, 16)))), ('gold', gold)):
        np.save(home/f'{name}.npy', x)
    return home

def from_vectors(home, out, **more):
    o = quiet(Adapt(vectors=str(home/'p.npy'), query_vectors=str(home/'q.npy'), qrels=str(home/'gold.npy'),
        output_path=str(out)))
    return o.but(
        adapter=o.adapter.but(batch_size=64, random_passages=200, stages=(o.adapter.stages[0].but(epochs=2),)), **more)

def test_no_better_nothing_saved(vectors, tmp_path):
    path = adapt(from_vectors(vectors, tmp_path/'out'))
    assert not json.loads(path.read_text())['saved']
    assert 'does not help here' in adapt_lines(path)
    assert not path.with_name('adapter.safetensors').exists()
    path = adapt(from_vectors(vectors, tmp_path/'told', anyway=True))
    assert path.with_name('adapter.safetensors').exists() and '--anyway was given' in adapt_lines(path)

def test_what_an_earlier_run_saved_is_removed(vectors, tmp_path):
    path = adapt(from_vectors(vectors, tmp_path/'out', anyway=True))
    assert path.with_name('adapter.safetensors').exists()
    path = adapt(from_vectors(vectors, tmp_path/'out'))
    assert not json.loads(path.read_text())['saved'] and not path.with_name('adapter.safetensors').exists()

def test_an_index_is_adapted_as_its_vectors(vectors, tmp_path):
    import faiss
    index = faiss.IndexHNSWFlat(16, 8, faiss.METRIC_INNER_PRODUCT)
    index.add(np.load(vectors/'p.npy'))
    faiss.write_index(index, str(tmp_path/'mine.faiss'))
    o = from_vectors(vectors, tmp_path/'out')
    by_index = json.loads(adapt(o.but(vectors=None, index=str(tmp_path/'mine.faiss'))).read_text())
    by_vectors = json.loads(adapt(o.but(output_path=str(tmp_path/'other'))).read_text())
    assert by_index['gains'] == by_vectors['gains'] and by_index['history'][1:] == by_vectors['history'][1:]

@pytest.mark.parametrize('order', [None, 3])
def test_the_folder_of_an_index_is_adapted_with_its_texts(texts, tmp_path, order):
    o = from_texts(texts, tmp_path/'out', anyway=True)
    made = make_index(BuildIndex(
        encoder_path=o.encoder[0], corpus_path=o.corpus, output_path=str(tmp_path/'index'), fields='text',
        reading=o.reading,
        prefixes=Prefixes(normalize=True),
        index=IndexSettings(order=order, m=8)))
    assert (order is None) == np.array_equal(made.rows, np.arange(900))
    by_texts = json.loads(adapt(o).read_text())
    of_index = o.but(corpus=None, index=str(tmp_path/'index'), output_path=str(tmp_path/'other'))
    by_index = json.loads(adapt(of_index).read_text())
    assert by_index['corpus'] == 'psgs.tsv' and by_index['encoder'] == o.encoder[0]
    assert by_index['gains'][0]['before'] == by_texts['gains'][0]['before'] # the drawn negatives are others
    if order is None: assert by_index['gains'] == by_texts['gains']
    with pytest.raises(DaclError, match='another encoder'):
        adapt(of_index.but(encoder=(str(tmp_path/'out'/'encoder'),), output_path=str(tmp_path/'wrong')))
    with pytest.raises(DaclError, match='was built with --passage_prefix'):
        adapt(of_index.but(prefixes=Prefixes(passage_prefix='p: '), output_path=str(tmp_path/'wrong')))

def test_the_folder_of_an_index_knows_ids(texts, tmp_path):
    o = from_texts(texts, tmp_path/'out')
    made = make_index(BuildIndex(
        encoder_path=o.encoder[0], corpus_path=o.corpus, output_path=str(tmp_path/'index'), fields='text',
        reading=o.reading,
        prefixes=Prefixes(normalize=True),
        index=IndexSettings(order=1, m=8)))
    # passages as they stand
    np.save(tmp_path/'q.npy', np.asarray(made.faiss.reconstruct_n(0, 900))[np.argsort(made.rows)])
    (tmp_path/'qrels.tsv').write_text(''.join(f'{i} 0 {(i + 5) % 900} 1\n' for i in range(900)))
    np.save(tmp_path/'qrels.npy', (np.arange(900) + 5) % 900)
    by = [
        index_sample(
            quiet(Tune(index=str(tmp_path/'index'), query_vectors=str(tmp_path/'q.npy'), qrels=str(tmp_path/name))))
        for name in ('qrels.tsv', 'qrels.npy')]
    (sample, there), (rows, _) = by
    assert sample.judged.relevant == rows.judged.relevant
    node = next(iter(sample.judged.relevant[7]))
    assert there.ids[node] == 12 and np.allclose(sample.passages[node], sample.q[12])
    (tmp_path/'bm25.run').write_text('7 Q0 31 1 2.5 x\n') # a passage's id, which is a row of the corpus and not a node
    o = quiet(Tune(index=str(tmp_path/'index'), query_vectors=str(tmp_path/'q.npy'), run=str(tmp_path/'bm25.run')))
    seeds = material_of(o, sample, there).lexical['run'].rows
    assert there.ids[seeds[7, 0]] == 31 and (np.delete(seeds, 7, 0) < 0).all()

def test_another_data_set_is_told(vectors, tmp_path):
    "Its numbers are of its own vectors, the queries as they are and adapted."
    rng = np.random.default_rng(1)
    passages, gold = unit(rng.normal(size=(300, 16))), rng.integers(0, 300, 80)
    q = unit(passages[gold] + .3 * rng.normal(size=(80, 16)))
    for name, x in (('p', passages), ('q', q), ('gold', gold)): np.save(tmp_path/f'{name}.npy', x)
    p_file, q_file, qrels = (str(tmp_path/f'{name}.npy') for name in ('p', 'q', 'gold'))
    o = from_vectors(vectors, tmp_path/'out', anyway=True)
    path = adapt(o.but(other_vectors=p_file, other_query_vectors=q_file, other_qrels=qrels))
    m, arrays = json.loads(path.read_text()), load_file(path.with_name('adapter.safetensors'))
    def recall(x): return np.mean([g in near for g, near in zip(gold, np.argsort(-x @ passages.T, 1)[:, :10])])
    told = m['other'][0]
    assert told['metric'] == 'recall@10' and told['before'] == pytest.approx(recall(q)) and .3 < told['before'] < 1
    assert told['after'] == pytest.approx(recall(adapt_queries(q, arrays['W'], arrays['b'])), abs=.013) # a near tie
    assert told['before'] != m['gains'][0]['before']

@pytest.mark.parametrize('more, said', [
    ({'held': .05}, 'can be held out by group'),
    ({'groups': 'none.txt'}, 'none.txt: cannot be read'),
    ({'index': 'i.faiss'}, 'index and vectors are given'),
])
def test_bad_input_is_told_in_a_line(vectors, tmp_path, more, said):
    with pytest.raises(DaclError) as e: adapt(from_vectors(vectors, tmp_path/'out', **more))
    assert said in str(e.value) and '\n' not in str(e.value)


def test_a_group_is_on_one_side():
    groups = np.random.default_rng(0).integers(0, 300, 2000)
    split = split_groups(groups, .3, 1)
    sides = [set(groups[rows]) for rows in split]
    assert not sides[0] & sides[1] and not sides[0] & sides[2] and not sides[1] & sides[2]
    assert sum(map(len, split)) == 2000 and abs(len(split.held) - 300) < 20 > abs(len(split.dev) - 300)

@pytest.mark.parametrize('damage', [lambda b: b[:-7], lambda b: b'', lambda b: b.replace(b'"key"', b'"kex"')])
def test_a_damaged_state_is_begun_anew(vectors, tmp_path, damage):
    task = adapt_task(from_vectors(vectors, tmp_path), vector_sample(from_vectors(vectors, tmp_path)))
    s = AdapterSettings(batch_size=64, random_passages=100)
    first = train_adapter(task.train, task.passages, task.dev.q, task.dev.judged, s, tmp_path)
    state = tmp_path/'adapter.state'
    state.write_bytes(damage(state.read_bytes()))
    again = train_adapter(task.train, task.passages, task.dev.q, task.dev.judged, s, tmp_path)
    assert torch.equal(first.adapter.matrix(), again.adapter.matrix())

def test_only_missing_epochs_are_trained(vectors, tmp_path, monkeypatch):
    from dacl_dr.training import adapter
    task, compute, trained = adapt_task(
        from_vectors(vectors, tmp_path), vector_sample(from_vectors(vectors, tmp_path))), adapter.train_epoch, []
    s = AdapterSettings(batch_size=64, random_passages=100, patience=0, stages=(Stage('joint', 4),))
    def counted(run, epoch, bar=None):
        if len(trained) == 2 and not trained[-1] == 'stopped':
            trained.append('stopped')
            raise KeyboardInterrupt
        trained.append(epoch)
        return compute(run, epoch, bar)
    monkeypatch.setattr(adapter, 'train_epoch', counted)
    def train(): return train_adapter(task.train, task.passages, task.dev.q, task.dev.judged, s, tmp_path)
    with pytest.raises(KeyboardInterrupt): train()
    whole = train()
    assert trained == [0, 1, 'stopped', 2, 3] and len(whole.history) == 5
    assert train().history == whole.history and len(trained) == 5 # nothing is left to train
    other = Judgements.of(np.roll(task.dev.judged.best, 1))
    # its best epoch may be another
    assert not load_run(AdapterRun(task.train, task.passages, task.dev.q, other, s, tmp_path))

def test_a_query_that_stands_in_the_corpus_has_ten_results_besides():
    angles = .01 * np.arange(12)
    passages = np.stack([np.cos(angles), np.sin(angles)], 1).astype('f4')
    judged = OthersJudged([{10: 1}], np.array([0])) # the tenth besides the query itself
    assert dev_recall(QueryAdapter(2), passages[:1], judged, passages) == 1
    assert found_metrics(judged, passages[:1], passages)['recall@10'] == 1

def test_known_positives_are_never_pushed_away():
    "With every passage known to every query, nothing is a negative: InfoNCE is 0."
    from dacl_dr.training.adapter import Pairs, step_losses
    rng = np.random.default_rng(0)
    passages, q = unit(rng.normal(size=(6, 8))), unit(rng.normal(size=(3, 8)))
    known = np.array([[i, *(j for j in range(6) if j != i)] for i in range(3)])
    loss = step_losses(
        QueryAdapter(8), Pairs(q, known), passages, np.array([0, 3, 4, 5]), np.array([[4], [5], [3]]), .05, 0.)
    assert loss.infonce < 1e-6
    alone = step_losses(
        QueryAdapter(8), Pairs(q, known[:, :1]), passages, np.array([0, 3, 4, 5]), np.array([[4], [5], [3]]), .05, 0.)
    assert alone.infonce > 1 # the same passages, of which nothing is known


def test_texts_and_groups_are_shown_and_not_run(texts, tmp_path):
    for name in ('psgs.tsv', 'train.json'):
        whole = (texts/name).read_text()
        evil = json.dumps(SCRIPT)[1:-1] if name == 'train.json' else SCRIPT
        changed = re.sub(r'\bt(\d)\b', f'{IMAGE}\\1', whole).replace('q1 ', f'{evil} q1 ')
        (tmp_path/name).write_text(changed)
    (tmp_path/'bert').symlink_to(texts/'bert')
    path = adapt(from_texts(tmp_path, tmp_path/'out', anyway=True))
    shows_only(path.with_name('adapter.html'), IMAGE)
