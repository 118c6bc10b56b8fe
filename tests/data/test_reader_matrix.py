"Every format that is read, from files made here: the same records whatever the format. `pytest -s` prints the matrix."
import bz2, gzip, json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file

from dacl_dr.core.errors import DaclError
from dacl_dr.core.settings import Reading
from dacl_dr.data.folders import find_data_sets
from dacl_dr.data.formats import Context, Passage, Question, write_passages, write_questions
from dacl_dr.data.store import open_passages, open_questions
from dacl_dr.data.vector_files import open_vectors
from dacl_dr.data.texts import Lines, open_queries

TEXTS = [
    'the nile flows north', 'mount everest is tall', 'le été à Paris', '北京是首都', 'python “code”', 'cats are mammals']
ASKED = ['where does the nile flow', 'how tall is everest', 'quand est l’été', '首都']
IDS = [f'd{i}' for i in range(6)]
VECTORS = np.arange(12, dtype=np.float32).reshape(4, 3) + 1


def jsonl(path, rows):
    path.write_text(''.join(json.dumps(r, ensure_ascii=False) + '\n' for r in rows), encoding='utf-8')
def tsv(path, rows, head=''):
    path.write_text(head + ''.join('\t'.join(map(str, r)) + '\n' for r in rows), encoding='utf-8')
def dpr_tsv(path): write_passages(path, [Passage(i, t) for i, t in zip(IDS, TEXTS)])
def collection(path): tsv(path, zip(IDS, TEXTS))
def parquet(path, names, columns): pq.write_table(pa.table(dict(zip(names, columns))), path)


def packed(make, how):
    def write(path):
        plain = path.with_name(path.name.rpartition('.')[0])
        make(plain)
        path.write_bytes(how(plain.read_bytes()))
        plain.unlink()
    return write


def zstd(data):
    out = pa.BufferOutputStream()
    with pa.CompressedOutputStream(out, 'zstd') as f: f.write(data)
    return out.getvalue().to_pybytes()


def with_ends(make, end):
    def write(path):
        make(path)
        path.write_bytes(path.read_bytes().replace(b'\n', end))
    return write


def with_blank_lines(make):
    def write(path):
        make(path)
        path.write_bytes(path.read_bytes() + b'\n  \n')
    return write


def after_blank_lines(make):
    def write(path):
        make(path)
        path.write_bytes(b'\n \n' + path.read_bytes())
    return write


def saved(columns):
    "What `save_to_disk` of datasets writes, in two files; the library itself: tests/data/test_named.py."
    def write(folder):
        folder.mkdir()
        table, names = pa.table(columns), ['data-00000-of-00002.arrow', 'data-00001-of-00002.arrow']
        for name, part in zip(names, (table[:3], table[3:])):
            with pa.ipc.new_stream(str(folder/name), part.schema) as out: out.write_table(part)
        (folder/'state.json').write_text(json.dumps({'_data_files': [{'filename': name} for name in names]}))
        (folder/'dataset_info.json').write_text('{}')
    return write


PASSAGES = {
    "DPR's TSV": ('psgs.tsv', dpr_tsv),
    "DPR's TSV, gzip": ('psgs.tsv.gz', packed(dpr_tsv, gzip.compress)),
    "DPR's TSV, bzip2": ('psgs.tsv.bz2', packed(dpr_tsv, bz2.compress)),
    "DPR's TSV, Zstandard": ('psgs.tsv.zst', packed(dpr_tsv, zstd)),
    "DPR's TSV, line ends of Windows": ('psgs.tsv', with_ends(dpr_tsv, b'\r\n')),
    "DPR's TSV, line ends of an old Mac": ('psgs.tsv', with_ends(dpr_tsv, b'\r')),
    "DPR's TSV, blank lines at its end": ('psgs.tsv', with_blank_lines(dpr_tsv)),
    "BEIR's corpus.jsonl": (
        'corpus.jsonl', lambda f: jsonl(f, [{'_id': i, 'title': '', 'text': t} for i, t in zip(IDS, TEXTS)])),
    'Pyserini': ('docs.jsonl', lambda f: jsonl(f, [{'id': i, 'contents': t} for i, t in zip(IDS, TEXTS)])),
    'Tevatron': (
        'tevatron.jsonl', lambda f: jsonl(f, [{'docid': i, 'title': None, 'text': t} for i, t in zip(IDS, TEXTS)])),
    'JSON lines, blank at the end, bzip2': (
        'c.jsonl.bz2',
        packed(with_blank_lines(lambda f: jsonl(f, [{'id': i, 'text': t} for i, t in zip(IDS, TEXTS)])), bz2.compress)),
    "MS MARCO's collection.tsv": ('collection.tsv', collection),
    'collection.tsv, line ends of an old Mac': ('collection.tsv', with_ends(collection, b'\r')),
    'collection.tsv, blank lines before it': ('collection.tsv', after_blank_lines(collection)),
    'Parquet': ('corpus.parquet', lambda f: parquet(f, ('_id', 'text'), (IDS, TEXTS))),
    'Parquet, other names': ('c.parquet', lambda f: parquet(f, ('docid', 'contents', 'n'), (IDS, TEXTS, range(6)))),
    'a folder of datasets': ('saved', saved({'docid': IDS, 'contents': TEXTS})),
}


def squad(path):
    qas = [
        [{'id': f'q{n}', 'question': ASKED[n], 'answers': [{'text': 'x', 'answer_start': 0}]}] if n < 4 else []
        for n in range(6)]
    paragraphs = [{'context': t, 'qas': q} for t, q in zip(TEXTS, qas)]
    path.write_text(json.dumps({'version': '1.1', 'data': [{'title': 'T', 'paragraphs': paragraphs}]}))


def beir(path, qrels='q{n}\td{n}\t1\n', head='query-id\tcorpus-id\tscore\n'):
    path.parent.mkdir(exist_ok=True)
    home = path.parent.parent if path.parent.name == 'qrels' else path.parent
    jsonl(home/'queries.jsonl', [{'_id': f'q{n}', 'text': t} for n, t in enumerate(ASKED)])
    path.write_text(head + ''.join(qrels.format(n=n) for n in range(4)))


def marco(path):
    beir(path, 'q{n}\t0\td{n}\t1\n', '')
    (path.parent/'queries.jsonl').unlink()
    tsv(path.parent/path.name.replace('qrels', 'queries'), [(f'q{n}', t) for n, t in enumerate(ASKED)])


def topics(path):
    beir(path, 'q{n} 0 d{n} 1.0\n', '')
    (path.parent/'queries.jsonl').unlink()
    text = ''.join(
        f'<top>\n<num> Number: q{n}\n<title> {t}\n<desc> Description:\nmore\n</top>\n' for n, t in enumerate(ASKED))
    (path.parent/path.name.replace('qrels', 'topics')).write_text(text)


def dpr_json(path):
    write_questions(
        path, [Question(t, (Context('', TEXTS[n], f'd{n}'),), ('x',), id=f'q{n}') for n, t in enumerate(ASKED)])


def tevatron(path):
    positive = lambda n: [{'docid': f'd{n}', 'title': '', 'text': TEXTS[n]}]
    jsonl(
        path,
        [
            {'query_id': f'q{n}', 'query': t, 'positive_passages': positive(n), 'negative_passages': []}
            for n, t in enumerate(ASKED)])


def dpr_csv(path):
    tsv(path, [(t, "['x']") for t in ASKED])
    gold = [{'question': t, 'passage_id': f'd{n}'} for n, t in enumerate(ASKED)]
    path.with_name('x-test-gold.json').write_text(json.dumps(gold))


QUESTIONS = {
    "DPR's JSON": ('x-test.json', dpr_json),
    "DPR's JSON, Zstandard": ('x-test.json.zst', packed(dpr_json, zstd)),
    "DPR's JSON, blank lines at its end": ('x-test.json', with_blank_lines(dpr_json)),
    "DPR's TSV with gold file": ('x-test.csv', dpr_csv),
    "DPR's TSV, line ends of an old Mac": ('x-test.csv', with_ends(dpr_csv, b'\r')),
    "DPR's records on lines": ('x-train.jsonl', lambda f: jsonl(f, [
        {'id': f'q{n}', 'question': t, 'positive_ctxs': [{'passage_id': f'd{n}', 'text': TEXTS[n]}]}
        for n, t in enumerate(ASKED)])),
    "BEIR's qrels": ('qrels/test.tsv', beir),
    "BEIR's qrels, blank lines at their end": ('qrels/test.tsv', with_blank_lines(beir)),
    'TREC qrels, tabs': ('qrels/test.tsv', lambda f: beir(f, 'q{n}\t0\td{n}\t1\n', '')),
    'TREC qrels, spaces and 1.0': ('test.qrels', lambda f: beir(f, 'q{n} 0 d{n} 1.0\n', '')),
    'MS MARCO: qrels and queries.tsv': ('qrels.dev.small.tsv', marco),
    'TREC topics and qrels': ('qrels.robust.txt', topics),
    'Tevatron': ('train.jsonl', tevatron),
    'Tevatron, blank lines before it': ('train.jsonl', after_blank_lines(tevatron)),
    'SQuAD': ('x-dev.json', squad),
    'SQuAD, gzip': ('x-dev.json.gz', packed(squad, gzip.compress)),
}

QUERIES = {
    'queries.tsv': ('queries.tsv', lambda f: tsv(f, enumerate(ASKED))),
    'queries.jsonl': ('queries.jsonl', lambda f: jsonl(f, [{'_id': str(n), 'text': t} for n, t in enumerate(ASKED)])),
    'TREC topics in XML': ('topics.xml', lambda f: f.write_text(
        '<topics>' + ''.join(f'<topic number="{n}"><query>{t}</query></topic>\n' for n, t in enumerate(ASKED))
        + '</topics>')),
    'Parquet': ('queries.parquet', lambda f: parquet(f, ('query',), (ASKED,))),
    'a folder of datasets': ('saved', saved({'query': ASKED})),
    'plain lines, a blank one at the end': ('q.txt', lambda f: f.write_text('\n'.join(ASKED) + '\n\n')),
}


def vecs(path): np.hstack([np.full((4, 1), 3, np.int32), VECTORS.view(np.int32)]).tofile(path)
def ivecs(path): np.hstack([np.full((4, 1), 3, np.int32), VECTORS.astype(np.int32)]).tofile(path)
def fbin(path): path.write_bytes(np.array([4, 3], np.uint32).tobytes() + VECTORS.tobytes())


TABLES = {
    'numpy .npy': ('x.npy', lambda f: np.save(f, VECTORS)),
    'numpy .npz': ('x.npz', lambda f: np.savez(f, embeddings=VECTORS, ids=np.arange(4))),
    'TEXMEX .fvecs': ('x.fvecs', vecs),
    'TEXMEX .ivecs': ('x.ivecs', ivecs),
    'big-ann .fbin': ('x.fbin', fbin),
    'safetensors': ('x.safetensors', lambda f: save_file({'vectors': VECTORS}, f)),
    'Parquet, lists': (
        'x.parquet', lambda f: pq.write_table(pa.table({'id': range(4), 'embedding': VECTORS.tolist()}), f)),
    'Parquet, lists of one size': (
        'y.parquet',
        lambda f: pq.write_table(pa.table({'v': pa.FixedSizeListArray.from_arrays(VECTORS.reshape(-1), 3)}), f)),
}


def told(kind, name, n): print(f'\n{kind:<12}{name:<42}{n:>3} records   ok', end='')


@pytest.fixture
def reading(tmp_path): return Reading(tmp_path/'cache', show_progress=False)


@pytest.mark.parametrize('name', PASSAGES)
def test_passages(name, tmp_path, reading):
    file, make = PASSAGES[name]
    make(tmp_path/file)
    found = open_passages(tmp_path/file, reading)
    assert [(p.id, p.text) for p in found] == list(zip(IDS, TEXTS))
    told('passages', name, len(found))


@pytest.mark.parametrize('name', QUESTIONS)
def test_questions(name, tmp_path, reading):
    file, make = QUESTIONS[name]
    make(tmp_path/file)
    found = open_questions(tmp_path/file, reading)
    assert [q.question for q in found] == ASKED
    if 'SQuAD' in name:
        corpus = open_passages(tmp_path/file, reading)
        assert [p.text for p in corpus] == TEXTS and all(q.answers == ('x',) for q in found)
        positives = [corpus.column('text', corpus.rows([c.passage_id for c in q.positive_ctxs])) for q in found]
        assert positives == [[t] for t in TEXTS[:4]]
    else: assert [[c.passage_id for c in q.positive_ctxs] for q in found] == [[f'd{n}'] for n in range(4)]
    told('questions', name, len(found))


@pytest.mark.parametrize('name', QUERIES)
def test_queries_alone(name, tmp_path, reading):
    file, make = QUERIES[name]
    make(tmp_path/file)
    found = open_queries(tmp_path/file, reading)
    column = 'text' if file.endswith('.jsonl') else 'question'
    assert (found.take(np.arange(4)) if isinstance(found, Lines) else found.column(column)) == ASKED
    told('queries', name, len(found))


@pytest.mark.parametrize('name', TABLES)
def test_vectors(name, tmp_path):
    file, make = TABLES[name]
    make(tmp_path/file)
    assert np.array_equal(open_vectors(tmp_path/file), VECTORS)
    told('vectors', name, 4)


REPEATED = {
    'psgs.tsv': ('id\ttext\ttitle\na\tx\t\nb\ty\t\na\tz\t\n', 'line 4', 'line 2'),
    'corpus.jsonl': ('{"_id": "a", "text": "x"}\n{"_id": "a", "text": "y"}\n', 'line 2', 'line 1'),
    'collection.tsv': ('a\tx\na\ty\n', 'line 2', 'line 1'),
}


@pytest.mark.parametrize('name', REPEATED)
def test_a_passage_id_stands_for_one_passage(name, tmp_path, reading):
    content, here, before = REPEATED[name]
    (tmp_path/name).write_text(content)
    with pytest.raises(DaclError, match=f"{name} {here}: passage id 'a' is repeated .it stands on {before} already."):
        open_passages(tmp_path/name, reading)


@pytest.mark.parametrize('name, content', [
    ('queries.tsv', 'q\tx\nq\ty\n'), ('queries.jsonl', '{"_id": "q", "text": "x"}\n{"_id": "q", "text": "y"}\n')])
def test_a_query_id_stands_for_one_query(name, content, tmp_path, reading):
    (tmp_path/name).write_text(content)
    (tmp_path/'qrels').mkdir()
    (tmp_path/'qrels'/'test.tsv').write_text('q\td\t1\n')
    with pytest.raises(DaclError, match=f"{name} line 2: query id 'q' is repeated .it stands on line 1 already."):
        open_questions(tmp_path/'qrels'/'test.tsv', reading)


def test_a_parquet_id_stands_for_one_passage(tmp_path, reading):
    parquet(tmp_path/'c.parquet', ('id', 'text'), (['a', 'b', 'a'], ['x', 'y', 'z']))
    with pytest.raises(DaclError, match="c.parquet row 2: passage id 'a' is repeated .it stands on row 0 already."):
        open_passages(tmp_path/'c.parquet', reading)


def test_squad_is_a_data_set(tmp_path, reading):
    (home := tmp_path/'data'/'zoo').mkdir(parents=True)
    for name in ('train-v1.1.json', 'dev-v1.1.json'): squad(home/name)
    data = find_data_sets(tmp_path/'data')['zoo']
    assert list(data.splits) == ['train', 'dev'] and [p.text for p in open_passages(data.corpus, reading)] == TEXTS


def test_judgements_are_no_data_set(tmp_path):
    (tmp_path/'set').mkdir()
    beir(tmp_path/'set'/'qrels'/'test.tsv')
    jsonl(tmp_path/'set'/'corpus.jsonl', [{'_id': 'd0', 'text': 'x'}])
    assert list(find_data_sets(tmp_path/'set')) == ['set']


def test_answers_are_not_taken_for_passages(tmp_path, reading):
    dpr_csv(tmp_path/'x-test.csv')
    with pytest.raises(DaclError, match='expected the header id, text, title'):
        open_passages(tmp_path/'x-test.csv', reading)
