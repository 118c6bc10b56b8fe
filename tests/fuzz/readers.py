"Every reader of the package: what it reads, how it is called, and how its result is checked without it."
import ast, contextlib, gzip, html, io, json, math, re, shutil, struct
from pathlib import Path

import numpy as np

from mutations import packed, unpacked

ROOT = Path(__file__).resolve().parents[2]
READERS = {} # name → Reader

class Reader:
    """`make(home)` writes sound files, `read(home)` reads them, `judge(home, result, sound)` says what is wrong with an
    accepted result ('' for nothing); a refusal names the damaged file, or one of `settings`, which stand in several
    files and have defaults."""
    def __init__(self, name, files, make, read, judge, tried, settings):
        self.name, self.files, self.make, self.read, self.judge = name, files, make, read, judge
        self.tried, self.settings = tried, settings

def same(home, found, sound):
    "Files that are checksummed: the same result, or a refusal."
    return '' if equal(found, sound) else 'another result than the sound files give'

def equal(a, b):
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, (list, tuple)): return type(a) is type(b) and len(a) == len(b) and all(map(equal, a, b))
    if isinstance(a, dict): return isinstance(b, dict) and a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    return a == b or (a != a and b != b)

def reader(name, *files, make, judge=same, tried=300, settings=()):
    def add(read): READERS[name] = Reader(name, files, make, read, judge, tried, settings); return read
    return add

# --- counts by other means
def text_of(f, errors='strict'):
    data = unpacked(f)
    if b'\r' in data and b'\n' not in data: data = data.replace(b'\r', b'\n') # line ends of an old Mac
    return data.decode(errors=errors).removeprefix('\ufeff')

def simple_rows(text):
    "The rows of a TSV, character by character; None if a quote is out of place."
    rows, row, field, state = [], [], [], 'start'
    for c in text + '\n' if text and not text.endswith('\n') else text:
        if state == 'quoted' and c == '"': state = 'closing'; continue
        if state == 'quoted': field.append(c); continue
        if c == '"' and state == 'start': state = 'quoted'; continue
        if c == '"' and state == 'closing': state = 'quoted'; field.append(c); continue
        if c in '\t\n':
            row.append(''.join(field).removesuffix('\r') if c == '\n' and state != 'closing' else ''.join(field))
            field, state = [], 'start'
            if c == '\n': rows.append(row); row = []
        elif state == 'closing' and c != '\r': return None
        elif state == 'closing': pass
        else: field.append(c); state = 'plain'
    return None if state != 'start' or row else [r for r in rows if len(r) > 1 or r[0].strip()]

def tsv_judge(home, found, sound):
    rows = simple_rows(text_of(next(home.glob('psgs.tsv*'))))
    if rows is None: return 'quotes are broken'
    wanted = [(r[0], r[1], r[2]) for r in rows[1:]]
    return '' if found == wanted else f'{len(found)} passages read, {len(wanted)} are there, or they differ'

def strict(text):
    return json.loads(text)

def json_judge(home, found, sound):
    records = strict(text_of(next(home.glob('x-train.json*'))))
    wanted = [
        (r['question'], len(r['positive_ctxs']), len(r.get('answers', [])), len(r.get('hard_negative_ctxs', [])))
        for r in records]
    return '' if found == wanted else f'{len(found)} questions read, {len(wanted)} are there, or they differ'

def qa_judge(home, found, sound):
    rows = simple_rows(text_of(home/'x-test.csv'))
    if rows is None: return 'quotes are broken'
    wanted = [(r[0], tuple(ast.literal_eval(r[1].strip()))) for r in rows]
    if [f[:2] for f in found] != wanted: return f'{len(found)} questions read, {len(wanted)} are there, or they differ'
    gold = {
        (g['question'], str(g['passage_id'])) for g in strict(text_of(home/'x-test-gold.json'))
    } if (home/'x-test-gold.json').is_file() else set()
    return '' if all((q, p) in gold for q, _, ps in found for p in ps) and (
        not gold or sum(len(f[2]) for f in found) == sum(len(f[2]) for f in sound) or len(found) != len(sound)
        or wanted != [f[:2] for f in sound] or len(gold) != len({(q, p) for q, _, ps in sound for p in ps})
        or {q for q, _ in gold} != {q for q, *_ in sound}) else 'positives that the gold file does not have'

# fields that nobody reads may hold any bytes
def jsonl(f): return [json.loads(l) for l in text_of(f, 'surrogateescape').split('\n') if l.strip(' \t\r\n\v\f')]

# as others call it
def id_of(r):
    return str(next(r[k] for k in ('_id', 'id', 'docid', 'doc_id', 'query_id', 'qid') if r.get(k) is not None))
def beir_judge(home, found, sound):
    passages, questions = found
    texts = [(id_of(r), r['text']) for r in jsonl(next(home.glob('set/corpus.jsonl*')))]
    if passages != texts: return f'{len(passages)} passages read, {len(texts)} are there, or they differ'
    rows = simple_rows(text_of(home/'set'/'qrels'/'test.tsv'))
    judged = [
        (r[0], r[-2], int(float(r[-1]))) for r in (r if len(r) > 1 else r[0].split() for r in rows) if r[-1] != 'score']
    asked = [
        (r['text'], sorted({(p, float(s)) for q, p, s in judged if q == id_of(r) and s > 0}))
        for r in jsonl(home/'set'/'queries.jsonl') if id_of(r) in {q for q, *_ in judged}]
    return '' if questions == asked else f'{len(questions)} questions read, {len(asked)} are there, or they differ'

def leaves(tree, at=''):
    if isinstance(tree, dict):
        for k, v in tree.items(): yield from leaves(v, f'{at}.{k}')
    elif isinstance(tree, (list, tuple)):
        for i, v in enumerate(tree): yield from leaves(v, f'{at}.{i}')
    else: yield at, tree

def yaml_judge(home, found, sound):
    import yaml
    built, files = found
    have = dict(leaves(built))
    if bad := [k for k, v in have.items() if isinstance(v, float) and not math.isfinite(v)]:
        return f'{bad[0]} is {have[bad[0]]}'
    if bad := [k for k, v in have.items() if isinstance(v, int) and abs(v) > 2**53]:
        return f'{bad[0]} is {have[bad[0]]}'
    wanted = {}
    for f in files:
        wanted |= {
            k: v for k, v in leaves(yaml.safe_load(f.read_bytes().decode()) or {})
            if k not in ('.question', '.notebook', '.folder', '.source')}
    number = lambda v: float(v) if isinstance(v, str) and v.lower().lstrip('+-.').replace('_', '')[:1].isdigit() else v
    if wrong := [k for k, v in wanted.items() if k in have and have[k] != v and have[k] != number(v)]:
        return f'{wrong[0]} is {have[wrong[0]]!r}, the file says {wanted[wrong[0]]!r}'
    return '' if not (lost := [k for k in wanted if k not in have]) else f'{lost[0]} is not in the settings'

# --- text data
def opened(home, path, questions):
    from dacl_dr.core.settings import Reading
    from dacl_dr.data.store import open_passages, open_questions
    read = open_questions if questions else open_passages
    return read(home/path, Reading(home/'cache', show_progress=False))

def passages(n=8):
    from dacl_dr.data.formats import Passage
    return [
        Passage(
            f'p{i}', f'a text "{i}" with ünicode\nand two lines' if i % 3 == 0 else f'plain text {i}, and more',
            f'title {i}' if i % 2 else '')
        for i in range(n)]

def make_tsv(home, name='psgs.tsv'):
    from dacl_dr.data.formats import write_passages
    write_passages(home/'psgs.tsv', passages())
    if name != 'psgs.tsv':
        (home/name).write_bytes(packed((home/'psgs.tsv').read_bytes(), Path(name).suffix)); (home/'psgs.tsv').unlink()
    else: # one row as DPR has it: unquoted
        with open(home/name, 'a') as f: f.write('p9\tunquoted text\tTitle\n')

def make_json(home, gz=False):
    from dacl_dr.data.formats import Context, Question, write_questions
    ps = passages()
    c = lambda i: Context(ps[i].title, ps[i].text, ps[i].id, .5 * i)
    f = write_questions(
        home/'x-train.json',
        [Question(f'question {i}?', (c(i),), ('answer "x"',) * (i % 2), (), (c(i + 1), c(i + 2))) for i in range(6)])
    if gz: (home/'x-train.json.gz').write_bytes(gzip.compress(f.read_bytes())); f.unlink()

def make_qa(home):
    (home/'x-test.csv').write_text(
        ''.join(f'question {i}\t["it\'s {i}", \'ü\']\n' for i in range(6)) + '"quoted ""question"""\t[\'a\']\n')
    (home/'x-test-gold.json').write_text(
        json.dumps([{'question': f'question {i}', 'passage_id': f'p{i}' if i % 2 else i} for i in range(6)], indent=1))

def make_beir(home):
    (home/'set'/'qrels').mkdir(parents=True)
    (home/'set'/'corpus.jsonl').write_text(
        ''.join(
            json.dumps({'_id': f'd{i}' if i % 2 else i, 'title': f't{i}', 'text': f'text {i} ü', 'metadata': {}}) + '\n'
            for i in range(8)))
    (home/'set'/'queries.jsonl').write_text(
        ''.join(
            json.dumps({'_id': f'q{i}', 'text': f'question {i}', 'metadata': {'url': 'x'}}) + '\n' for i in range(5)))
    (home/'set'/'qrels'/'test.tsv').write_text(
        'query-id\tcorpus-id\tscore\n' + ''.join(f'q{i}\td{i}\t1\nq{i}\td{i + 2}\t{i % 2 * 2}\n' for i in range(4)))

def rows_of(t): return [(p.id, p.text, p.title) for p in t]
def asked(t): return [(q.question, len(q.positive_ctxs), len(q.answers), len(q.hard_negative_ctxs)) for q in t]

@reader('passage TSV', 'psgs.tsv', make=make_tsv, judge=tsv_judge, tried=1400)
def _(home): return rows_of(opened(home, 'psgs.tsv', False))
@reader(
    'passage TSV, gzipped', 'psgs.tsv.gz', make=lambda home: make_tsv(home, 'psgs.tsv.gz'), judge=tsv_judge, tried=300)
def _(home): return rows_of(opened(home, 'psgs.tsv.gz', False))
@reader(
    'passage TSV, bzip2', 'psgs.tsv.bz2', make=lambda home: make_tsv(home, 'psgs.tsv.bz2'), judge=tsv_judge, tried=300)
def _(home): return rows_of(opened(home, 'psgs.tsv.bz2', False))
@reader(
    'passage TSV, Zstandard', 'psgs.tsv.zst', make=lambda home: make_tsv(home, 'psgs.tsv.zst'), judge=tsv_judge,
    tried=300)
def _(home): return rows_of(opened(home, 'psgs.tsv.zst', False))
@reader('passage TSV, small', 'psgs.tsv', make=make_tsv, judge=tsv_judge, tried=300)
def _(home):
    from dacl_dr.data.formats import read_passages
    return rows_of(read_passages(home/'psgs.tsv'))
@reader('biencoder JSON', 'x-train.json', make=make_json, judge=json_judge, tried=1600)
def _(home): return asked(opened(home, 'x-train.json', True))
@reader(
    'biencoder JSON, gzipped', 'x-train.json.gz', make=lambda home: make_json(home, True), judge=json_judge, tried=300)
def _(home): return asked(opened(home, 'x-train.json.gz', True))
@reader('question TSV with gold file', 'x-test.csv', 'x-test-gold.json', make=make_qa, judge=qa_judge, tried=700)
def _(home):
    return [
        (q.question, q.answers, tuple(c.passage_id for c in q.positive_ctxs)) for q in opened(home, 'x-test.csv', True)]
@reader(
    'BEIR folder', 'set/corpus.jsonl', 'set/queries.jsonl', 'set/qrels/test.tsv', make=make_beir, judge=beir_judge,
    tried=1600)
def _(home):
    return [(p.id, p.text) for p in opened(home, 'set', False)], [
        (q.question, sorted((c.passage_id, c.score) for c in q.positive_ctxs))
        for q in opened(home, 'set/qrels/test.tsv', True)]

# --- the formats of benchmarks
PAIRS = [(f'd{i}', f'text {i} ü "quoted') for i in range(8)]
def differ(found, wanted, what):
    return '' if found == wanted else f'{len(found)} {what} read, {len(wanted)} are there, or they differ'
def plain_rows(f):
    return [tuple(l.removesuffix('\r').split('\t')) for l in text_of(f).split('\n') if l.strip(' \t\r\n\v\f')]

def make_collection(home): (home/'collection.tsv').write_text(''.join(f'{i}\t{t}\n' for i, t in PAIRS))
def collection_judge(home, found, sound): return differ(found, plain_rows(home/'collection.tsv'), 'passages')
@reader('collection.tsv', 'collection.tsv', make=make_collection, judge=collection_judge, tried=300)
def _(home): return [(p.id, p.text) for p in opened(home, 'collection.tsv', False)]

def judged_in(f):
    "Query → its passages of a grade above 0, from a file of three or of four columns."
    rows = simple_rows(text_of(f))
    rows = [r if len(r) > 1 else r[0].split() for r in rows if r[-1].split()[-1:] != ['score']]
    out = {}
    for r in rows: out.setdefault(r[0], set()).update([r[-2]] if float(r[-1]) > 0 else [])
    return out

def asked_judge(found, queries, judged):
    "`queries` are pairs of id and text."
    wanted = [(i, t, len(judged[i])) for i, t in queries if i in judged]
    return differ(found, wanted, 'questions')

def make_marco(home):
    (home/'queries.dev.tsv').write_text(''.join(f'{i}\tquestion {i} ü\n' for i in range(6)))
    (home/'qrels.dev.tsv').write_text(''.join(f'{i}\t0\td{i}\t1\n' for i in range(5)))
@reader('MS MARCO queries and qrels', 'queries.dev.tsv', 'qrels.dev.tsv', make=make_marco, tried=400,
    judge=lambda home, found, sound: asked_judge(
        found, plain_rows(home/'queries.dev.tsv'), judged_in(home/'qrels.dev.tsv')))
def _(home): return [(q.id, q.question, len(q.positive_ctxs)) for q in opened(home, 'qrels.dev.tsv', True)]

def make_trec(home):
    (home/'qrels.txt').write_text(''.join(f'{i} 0 d{i} 1.0\n' for i in range(5)))
    (home/'topics.txt').write_text(
        ''.join(
            f'<top>\n<num> Number: {i}\n<title> question {i} &amp; more\n<desc> Description:\nx\n</top>\n'
            for i in range(5)))
def trec_judge(home, found, sound):
    queries = []
    text = re.sub('</?[a-z]+', lambda m: m[0].lower(), text_of(home/'topics.txt').replace('\r\n', '\n'), flags=re.I)
    for part in re.split('<top[^>]*>', text)[1:]:
        body, end, _ = part.partition('</top')
        if not end: return 'a topic is not closed'
        title = body.split('<title>', 1)[1].split('<')[0].strip().removeprefix('Topic:')
        queries.append((
            body.split('<num>', 1)[1].replace('Number:', '', 1).split('<')[0].split()[0],
            ' '.join(html.unescape(title).split())))
    return asked_judge(found, queries, judged_in(home/'qrels.txt'))
@reader('TREC topics and qrels', 'qrels.txt', 'topics.txt', make=make_trec, judge=trec_judge, tried=400)
def _(home): return [(q.id, q.question, len(q.positive_ctxs)) for q in opened(home, 'qrels.txt', True)]

def make_pyserini(home):
    (home/'docs.jsonl').write_text(''.join(json.dumps({'id': i, 'contents': t}) + '\n' for i, t in PAIRS))
def pyserini_judge(home, found, sound): # other fields may stand for these two, and are read where a change names one
    text = lambda r: next((r[k] for k in ('text', 'contents', 'content') if r.get(k) is not None), None)
    return differ(found, [(str(r['id']), text(r)) for r in jsonl(home/'docs.jsonl')], 'passages')
@reader('Pyserini', 'docs.jsonl', make=make_pyserini, judge=pyserini_judge, tried=300)
def _(home): return [(p.id, p.text) for p in opened(home, 'docs.jsonl', False)]

def make_tevatron(home):
    (home/'train.jsonl').write_text(
        ''.join(
            json.dumps({
                'query_id': i, 'query': f'question {i}',
                'positive_passages': [{'docid': f'd{i}', 'title': 't', 'text': 'x'}], 'negative_passages': []})
            + '\n'
            for i in range(6)))
def tevatron_judge(home, found, sound):
    name = lambda r: '' if r.get('query_id') is None else str(r['query_id'])
    return differ(
        found, [(name(r), r['query'], len(r['positive_passages'])) for r in jsonl(home/'train.jsonl')], 'questions')
@reader('Tevatron', 'train.jsonl', make=make_tevatron, judge=tevatron_judge, tried=300)
def _(home): return [(q.id, q.question, len(q.positive_ctxs)) for q in opened(home, 'train.jsonl', True)]

def make_squad(home):
    qas = lambda i: [{'id': f'q{i}', 'question': f'question {i}', 'answers': [{'text': 'x', 'answer_start': 0}]}]
    (home/'x-dev.json').write_text(
        json.dumps({
            'data': [{'title': 't', 'paragraphs': [{'context': f'text {i} ü', 'qas': qas(i)} for i in range(6)]}]}))
def squad_judge(home, found, sound):
    data = strict(text_of(home/'x-dev.json'))['data']
    paragraphs = [p for d in data for p in d['paragraphs']]
    asked = [
        (q['question'], tuple(dict.fromkeys(a['text'] for a in q.get('answers', [])))[:1]) for p in paragraphs
        for q in p.get('qas', [])]
    texts = list(dict.fromkeys(p['context'] for p in paragraphs))
    impossible = any(q.get('is_impossible') for p in paragraphs for q in p.get('qas', []))
    return differ(found[0], texts, 'passages') or ('' if impossible else differ(found[1], asked, 'questions'))
@reader('SQuAD', 'x-dev.json', make=make_squad, judge=squad_judge, tried=400)
def _(home):
    return [p.text for p in opened(home, 'x-dev.json', False)], [
        (q.question, q.answers[:1]) for q in opened(home, 'x-dev.json', True)]

def make_parquet(home):
    import pyarrow as pa, pyarrow.parquet as pq
    pq.write_table(pa.table({'_id': [i for i, _ in PAIRS], 'text': [t for _, t in PAIRS]}), home/'c.parquet')
    pq.write_table(pa.table({'query': [t for _, t in PAIRS]}), home/'queries.parquet')
def parquet_judge(home, found, sound): # pages have no checksums: what the format's library reads whole is what is there
    import pyarrow.parquet as pq
    columns = lambda name: [c.to_pylist() for c in pq.read_table(home/name).columns]
    ids, texts = columns('c.parquet')
    return differ(
        found[0], list(zip(map(str, ids), texts)), 'passages'
    ) or differ(found[1], columns('queries.parquet')[0], 'queries')
@reader('Parquet', 'c.parquet', 'queries.parquet', make=make_parquet, judge=parquet_judge, tried=400)
def _(home):
    return [(p.id, p.text) for p in opened(home, 'c.parquet', False)], [
        q.question for q in opened(home, 'queries.parquet', True)]

def make_saved(home):
    import pyarrow as pa
    for name, table in (
        ('saved', {'_id': [i for i, _ in PAIRS], 'text': [t for _, t in PAIRS]}),
        ('asked', {'query': [t for _, t in PAIRS]})
    ):
        (home/name).mkdir()
        with pa.ipc.new_stream(str(home/name/'data.arrow'), (table := pa.table(table)).schema) as out:
            out.write_table(table)
        (home/name/'state.json').write_text('{"_data_files": [{"filename": "data.arrow"}]}')
        (home/name/'dataset_info.json').write_text('{}')
def saved_judge(home, found, sound): # streams have no checksums: what the format's library reads is what is there
    import pyarrow as pa
    def columns(name):
        with pa.ipc.open_stream(str(home/name/'data.arrow')) as f: return [c.to_pylist() for c in f.read_all().columns]
    ids, texts = columns('saved')
    return differ(
        found[0], list(zip(map(str, ids), texts)), 'passages') or differ(found[1], columns('asked')[0], 'queries')
@reader(
    'datasets on disk', 'saved/*.arrow', 'saved/state.json', 'asked/*.arrow', make=make_saved, judge=saved_judge,
    tried=400)
def _(home):
    return [(p.id, p.text) for p in opened(home, 'saved', False)], [q.question for q in opened(home, 'asked', True)]

TABLE = np.arange(12, dtype=np.float32).reshape(4, 3) + 1
TABLES = 'npz', 'fvecs', 'ivecs', 'bvecs', 'fbin', 'ibin', 'safetensors', 'parquet'
def make_tables_of_numbers(home):
    import pyarrow as pa, pyarrow.parquet as pq
    from safetensors.numpy import save_file
    np.savez(home/'x.npz', embeddings=TABLE, ids=np.arange(4))
    for kind, dtype in (('fvecs', '<f4'), ('ivecs', '<i4'), ('bvecs', 'u1')):
        (home/f'x.{kind}').write_bytes(b''.join(struct.pack('<i', 3) + row.astype(dtype).tobytes() for row in TABLE))
    for kind, dtype in (('fbin', '<f4'), ('ibin', '<i4')):
        (home/f'x.{kind}').write_bytes(struct.pack('<II', 4, 3) + TABLE.astype(dtype).tobytes())
    save_file({'vectors': TABLE}, home/'x.safetensors')
    pq.write_table(pa.table({'vector': TABLE.tolist()}), home/'x.parquet')

def table_there(f):
    "The numbers of a file, by other means than the package's."
    data, kind = f.read_bytes(), f.suffix[1:]
    if kind == 'npz':
        from zipfile import ZipFile
        with ZipFile(f) as z: data = z.read('embeddings.npy')
        return np.lib.format.read_array(io.BytesIO(data))
    if kind == 'safetensors':
        n = struct.unpack('<Q', data[:8])[0]
        tensors = {k: t for k, t in json.loads(data[8:8 + n]).items() if k != '__metadata__'}
        t = tensors.get('vectors') or next(iter(tensors.values()))
        dtype = {
            'F32': '<f4', 'F64': '<f8', 'F16': '<f2', 'I32': '<i4', 'I64': '<i8', 'U8': 'u1', 'I8': 'i1', 'I16': '<i2'
        }[t['dtype']]
        return np.frombuffer(data[8 + n:][slice(*t['data_offsets'])], dtype).reshape(t['shape'])
    if kind == 'parquet':
        import pyarrow.parquet as pq
        return np.array(pq.read_table(f).column(0).to_pylist(), np.float64)
    dtype = np.dtype({'f': '<f4', 'i': '<i4', 'b': 'u1'}[kind[0]])
    if kind.endswith('bin'):
        n, dim = struct.unpack('<II', data[:8])
        return np.frombuffer(data[8:], dtype).reshape(n, dim)
    dim, = struct.unpack('<i', data[:4])
    return np.array([
        np.frombuffer(data[i + 4:i + 4 + dim * dtype.itemsize], dtype)
        for i in range(0, len(data), 4 + dim * dtype.itemsize)])

def tables_of_numbers_judge(home, found, sound):
    for kind, x in zip(TABLES, found):
        if not np.array_equal(x.astype(float), table_there(home/f'x.{kind}').astype(float), equal_nan=True):
            return f'{kind}: other numbers than are there'
    return ''
@reader(
    'vector files', *(f'x.{kind}' for kind in TABLES), make=make_tables_of_numbers, judge=tables_of_numbers_judge,
    tried=1400)
def _(home):
    from dacl_dr.data.vector_files import open_vectors
    return [np.array(open_vectors(home/f'x.{kind}')) for kind in TABLES]

# --- judgements of plain vectors
QUERIES, ROWS = 5, 9
def make_row_judgements(home):
    np.save(home/'judged.npy', np.array([[i, i + 2 if i % 2 else -1] for i in range(QUERIES)]))
def row_judgements_judge(home, found, sound):
    rows = np.load(home/'judged.npy').reshape(QUERIES, -1)
    return '' if found == [{int(r): 1 for r in row if r >= 0} for row in rows] else 'other judgements than numpy reads'
@reader('judgements by row (.npy)', 'judged.npy', make=make_row_judgements, judge=row_judgements_judge, tried=300)
def _(home):
    from dacl_dr.evaluation.row_judgements import row_judgements
    return row_judgements(home/'judged.npy', QUERIES, ROWS)

def make_named_judgements(home):
    (home/'qrels.txt').write_text(''.join(f'q{i} 0 p{i} {i % 3}\n' for i in range(QUERIES)))
    (home/'q.ids').write_text(''.join(f'q{i}\n' for i in range(QUERIES)))
    (home/'p.ids').write_text(''.join(f'p{i} ü\n' if i > 6 else f'p{i}\n' for i in range(ROWS)))
def ids_in(f): return [l.strip() for l in text_of(f).rstrip().split('\n')]
def named_judge(home, found, sound):
    ask, answer, judged = ids_in(home/'q.ids'), ids_in(home/'p.ids'), judged_in(home/'qrels.txt')
    known = [sorted(answer.index(p) for p in judged.get(q, ()) if p in answer) for q in ask]
    lost = [sum(p not in answer for p in judged.get(q, ())) for q in ask]
    return '' if [
        sorted(r for r in row if r >= 0) for row in found
    ] == known and [sum(r < 0 for r in row) for row in found] == lost else 'other judgements than are there'
@reader('judgements by id', 'qrels.txt', 'q.ids', 'p.ids', make=make_named_judgements, judge=named_judge, tried=400)
def _(home):
    from dacl_dr.evaluation.row_judgements import row_judgements
    return row_judgements(home/'qrels.txt', QUERIES, ROWS, home/'q.ids', home/'p.ids')

def make_rawnq(home):
    words = lambda i: (
        f'<H1> Page {i} </H1> <P> the answer is {i} of many words here </P> <P> other words of page {i} </P>')
    rows = [
        {
            'question_text': f'what {i}', 'document_text': words(i),
            'document_url': f'https://x/w/index.php?title=Page_{i}&amp;oldid=1',
            'long_answer_candidates': [
                {'start_token': 4, 'end_token': 14, 'top_level': True},
                {'start_token': 14, 'end_token': 21, 'top_level': True}],
            'annotations': [{'short_answers': [{'start_token': 5, 'end_token': 7}]}],
            'example_id': i} for i in range(12)]
    (home/'nq.jsonl').write_text(''.join(json.dumps(r) + '\n' for r in rows))

def rawnq_judge(home, found, sound):
    lines = text_of(home/'nq.jsonl').split('\n')
    n = sum(bool(l.strip()) for l in lines)
    return '' if found['questions read'] == n == found['train'] + found['dev'] + sum(
        v for k, v in found.items() if k.startswith('dropped')
    ) and found['passages'] == found['there'] else f'{found} of {n} lines'

@reader('raw Natural Questions', 'nq.jsonl', make=make_rawnq, judge=rawnq_judge, tried=400)
def _(home):
    from dacl_dr.data.natural_questions import preprocess_nq
    from dacl_dr.core.options import PreprocessNq
    from dacl_dr.core.settings import Reading
    from dacl_dr.core.steps import read_manifest
    o = PreprocessNq(
        input_file=home/'nq.jsonl', output_dir=home/'out', dev_share=.5, reading=Reading(show_progress=False),
    )
    folder = preprocess_nq(o, say=lambda m: None)
    return read_manifest(folder)['facts'] | {'there': len(simple_rows((folder/'psgs.tsv').read_text())) - 1}

def make_lines(home): (home/'texts.txt').write_text(''.join(f'line {i} ü\n' for i in range(9)))
def lines_judge(home, found, sound):
    wanted = [l.strip() for l in text_of(home/'texts.txt').rstrip().split('\n')]
    return '' if found == wanted else f'{len(found)} lines read, {len(wanted)} are there, or they differ'
@reader('plain texts', 'texts.txt', make=make_lines, judge=lines_judge, tried=200)
def _(home):
    from dacl_dr.data.texts import Lines
    return list((ls := Lines(home/'texts.txt')).take(np.arange(len(ls))))

def make_source(home): shutil.copy(ROOT/'dacl_dr'/'curriculum'/'stages.py', home/'code.py')
def code_lines(f, lines):
    "How many lines of a function are not blank and of no docstring: of its head, of what follows its own docstring."
    documented = [
        n for n in ast.walk(f)
        if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and ast.get_docstring(n, False)]
    docs = {i for n in documented for i in range(n.body[0].lineno, n.body[0].end_lineno + 1)}
    there = [i for i in range(f.lineno, f.end_lineno + 1) if lines[i - 1].strip() and i not in docs]
    return sum(i < f.body[0].lineno for i in there), sum(i > f.body[0].end_lineno for i in there)

def source_judge(home, found, sound):
    "Line, first sentence and length of every documented function that is long enough."
    try: tree = ast.parse(text := (home/'code.py').read_text(encoding='utf-8'))
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return 'pairs of what is not Python' if found else ''
    wanted = []
    for f in ast.walk(tree):
        if not isinstance(
            f, (ast.FunctionDef, ast.AsyncFunctionDef)
        ) or len(f.body) < 2 or not (doc := ast.get_docstring(f)):
            continue
        sentence = re.split('(?<=.[.!?]) ', ' '.join(re.split(r'\n\s*\n', doc.strip())[0].split()))[0]
        head, body = code_lines(f, text.split('\n'))
        if len(re.findall(r'[^\W\d_]+', sentence)) >= 3 and body >= 3:
            wanted.append((f.lineno, f.name, sentence, head + body))
    have = [(p.line, p.name.split('.')[-1], p.query, len(p.code.split('\n'))) for p in found]
    return differ(sorted(have), sorted(wanted), 'pairs')
@reader('Python source', 'code.py', make=make_source, judge=source_judge, tried=200)
def _(home):
    from dacl_dr.data.codedocs import read_pairs
    from dacl_dr.core.settings import CorpusSettings
    return read_pairs(home/'code.py', 'code.py', CorpusSettings())

# --- settings
FULL = '''recipe: D
seed: 1
model: {name: x, query_length: 32, passage_length: 128}
data: {max_questions: 512, fields: text}
training:
  w: 0.4
  batch_size: 32
  hard_negatives: 3
  learning_rate: 2.0e-5
  stages:
  - {name: warm-up, epochs: 1, weight: [0, 0]}
  - {name: distance, epochs: 1, weight: [0, 1], negatives: bm25}
mining: {depth: 50}
machine: {grad_cache: true}
run: {eval_questions: 500, report_to: []}
'''
def make_recipe(home): (home/'recipe.yaml').write_text(FULL)
@reader('settings of a training', 'recipe.yaml', make=make_recipe, judge=yaml_judge, tried=1600)
def _(home):
    import msgspec
    from dacl_dr.core.settings import RecipeSettings
    from dacl_dr.core.yaml import load_settings
    return msgspec.to_builtins(load_settings(home/'recipe.yaml', cls=RecipeSettings)), [home/'recipe.yaml']

def make_layers(home):
    for kind, name in (('datasets', 'squad'), ('encoders', 'minilm'), ('studies', 'weights')):
        shutil.copy(ROOT/'nbs'/'experiments'/'settings'/kind/f'{name}.yaml', home/f'{kind}.yaml')
    with open(home/'studies.yaml', 'a') as f:
        f.write('curricula:\n  short:\n  - {name: one, epochs: 2}\nsearch: {m: 16, targets: [0.9]}\nfields: text\n')
def layers_judge(home, found, sound):
    return yaml_judge(home, found, sound)
@reader(
    'layers of a study', 'datasets.yaml', 'encoders.yaml', 'studies.yaml', make=make_layers, judge=layers_judge,
    tried=600)
def _(home):
    import msgspec
    from dacl_dr.core.options import RunStudy
    from dacl_dr.studies.plan import study_plan
    places = [home/f'{k}.yaml' for k in ('datasets', 'encoders', 'studies')]
    dataset, encoder, study = map(str, places)
    o = RunStudy(study=study, dataset=dataset, encoder=encoder, data_dir=str(home))
    return msgspec.to_builtins(study_plan(o).settings), places

# --- vectors, stores, indexes
N, D = 40, 8
def unit(n=N, seed=0):
    x = np.random.default_rng(seed).normal(size=(n, D))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype('f4')

def make_vectors(home): np.save(home/'v.npy', unit()); np.save(home/'q.npy', unit(6, 1))
def vectors_judge(home, found, sound):
    try: x, q = (np.load(home/n) for n in ('v.npy', 'q.npy'))
    except Exception as e: return f'numpy refuses it: {e}'
    for a, b in ((x, found[0]), (q, found[1])):
        a = a.astype(float)
        with np.errstate(all='ignore'):
            a = a / np.linalg.norm(
                a / np.abs(a).max(1, keepdims=True), axis=1, keepdims=True) / np.abs(a).max(1, keepdims=True)
        if a.shape != b.shape or not np.allclose(a, b, atol=2e-3) or not np.isfinite(b).all():
            return 'other vectors than numpy reads'
    return ''
@reader('vectors (.npy)', 'v.npy', 'q.npy', make=make_vectors, judge=vectors_judge, tried=500)
def _(home):
    from dacl_dr.core.options import Diagnose
    from dacl_dr.evaluation.sample import vector_sample
    s = vector_sample(Diagnose(vectors=home/'v.npy', query_vectors=home/'q.npy'))
    return s.passages, s.q

def make_store(home):
    make_tsv(home); make_json(home)
    opened(home, 'psgs.tsv', False); opened(home, 'x-train.json', True)
    for f in list((home/'cache').glob('*.lock')): f.unlink()

@reader('converted corpus', 'cache/psgs-*/*', 'cache/x-*/*', make=make_store, tried=500)
def _(home):
    import os
    from dacl_dr.core.stamps import stamp
    for source in ('psgs.tsv', 'x-train.json'): # a cache is named after where its source stands
        there = next(
            (f for f in (home/'cache').glob(f"{source.split('.')[0]}-*") if not f.name.endswith('.lock')), None)
        wanted = home/'cache'/f"{source.split('.')[0]}-{stamp([str((home/source).resolve())])}"
        if there and there != wanted: os.replace(there, wanted)
    p, q = opened(home, 'psgs.tsv', False), opened(home, 'x-train.json', True)
    return [rows_of(p), p.rows([f'p{i}' for i in range(9)]), asked(q)]

class Corpus:
    "Ids of rows, as `Passages` gives them."
    def column(self, name, rows): return [f'p{r}' for r in rows]

class About: encoder, corpus = 'e', 'c'

def small_index():
    from dacl_dr.core.settings import IndexSettings
    return IndexSettings(m=4, ef_construction=20, chunk_rows=10, order=3)

def toy(x):
    from dacl_dr.core.settings import EmbedSettings
    from dacl_dr.search.exact import InMemory
    toy = InMemory(x)
    toy.folder, toy.about = Path('vectors'), About()
    toy.about.settings = EmbedSettings()
    return toy

def make_index(home):
    from dacl_dr.search.indexing import build_index
    build_index(toy(unit()), Corpus(), home/'index', small_index(), show_progress=False)

@reader('index', 'index/index.faiss', 'index/ids.arrow', 'index/manifest.json', make=make_index, tried=500)
def _(home):
    from dacl_dr.search.indexing import Index
    i = Index(home/'index')
    i.faiss.hnsw.efSearch = 20
    return [
        i.rows[i.faiss.search(unit(5, 1), 3)[1]], i.about.encoder, i.about.corpus, i.about.fields, i.about.embeddings]

def make_links(home):
    from dacl_dr.search import graph, indexing
    class Stop(Exception): pass
    one = graph.add_rows
    def two(i, x, levels):
        if i.ntotal >= 30: raise Stop
        one(i, x, levels)
    graph.add_rows = two
    try: indexing.build_index(toy(unit()), Corpus(), home/'index', small_index(), save_every_s=0, show_progress=False)
    except Stop: pass
    finally: graph.add_rows = one

@reader('links of an unfinished index', 'index/*.links', make=make_links, tried=300)
def _(home):
    from dacl_dr.search.indexing import build_index
    return [build_index(toy(unit()), Corpus(), home/'index', small_index(), show_progress=False).about.digest]

def make_exact(home):
    from dacl_dr.evaluation.evaluate import true_neighbours
    from dacl_dr.search.indexing import Index
    make_index(home)
    true_neighbours(Index(home/'index'), unit(5, 1), 3, False)

@reader('exact neighbours of an index', 'index/exact/*', make=make_exact, tried=200)
def _(home):
    from dacl_dr.evaluation.evaluate import true_neighbours
    from dacl_dr.search.indexing import Index
    return [true_neighbours(Index(home/'index'), unit(5, 1), 3, False)]

def make_shards(home):
    from dacl_dr.core.settings import EmbedSettings
    from dacl_dr.search.vectors import Embedding, Shard, digest
    from dacl_dr.core.files import write_manifest
    (home/'vectors').mkdir()
    shards = []
    for i in range(2):
        np.save(home/'vectors'/f'{i:05}.npy', x := unit(20, i))
        shards.append(Shard(20, digest(x), .1))
    write_manifest(
        home/'vectors'/'manifest.json',
        Embedding(
            encoder='e', corpus='c', rows=40, dim=D, max_tokens=None, settings=EmbedSettings(shard_rows=20),
            shards=tuple(shards)))

@reader('embedding shards', 'vectors/*.npy', 'vectors/manifest.json', make=make_shards, tried=500)
def _(home):
    from dacl_dr.search.vectors import Vectors
    from dacl_dr.search.exact import exact_search
    v = Vectors(home/'vectors')
    return [
        len(v), v.about.encoder, v.about.corpus, exact_search(unit(4, 9), v, 3), v.take(np.arange(len(v)), check=True)]

def make_bm25(home):
    from dacl_dr.search.bm25_disk import build_bm25
    build_bm25([[p.text for p in passages()]], home/'bm25')

@reader('BM25 index', 'bm25/*', make=make_bm25, tried=400)
def _(home):
    from dacl_dr.search.bm25_disk import open_bm25
    m = open_bm25(home/'bm25')
    return list(m.search(['plain text 4', 'two lines'], 4, show_progress=False))

# --- training
def words(): return [p.text for p in passages()] + ['question']

def make_encoder(home):
    from dacl_dr.encoders.transformer import TransformerEncoder, tiny_bert
    tiny_bert(home/'bert', words())
    TransformerEncoder.open(home/'bert').save(home/'model')
    shutil.rmtree(home/'bert')

def encodes(folder):
    "The key, and what is read and given under it."
    from dacl_dr.search.vectors import encoder_key
    from dacl_dr.encoders.static import load_encoder
    e = load_encoder(folder)
    return [encoder_key(e), e.dim, e.encode(['plain text', 'more lines'], 'query'), e.encode(['plain text'], 'passage')]

def encoder_judge(home, found, sound):
    "A folder without checksums, of which a changed weight makes another encoder with another key."
    if found[0] != sound[0]: return ''
    return '' if equal(found, sound) else 'another result under the same key'

@reader('encoder', 'model/**/*', make=make_encoder, judge=encoder_judge, tried=120)
def _(home): return encodes(home/'model')

def static():
    from dacl_dr.core.settings import EncoderSettings
    from dacl_dr.encoders.static import StaticEncoder, bag_texts, train_tokenizer
    tok = train_tokenizer(words(), 200)
    return StaticEncoder.create(tok, bag_texts(tok, words()), EncoderSettings(vocab_size=200, dim=8), 0)

def make_static(home): static().save(home/'model')
@reader('static encoder', 'model/**/*', make=make_static, judge=encoder_judge, tried=300)
def _(home): return encodes(home/'model')

def make_checkpoints(home):
    import torch
    from dacl_dr.training.checkpoints import TrainingState, save_checkpoint
    e = static()
    opt = torch.optim.AdamW(e.parameters(), lr=.01)
    sum(p.sum() for p in e.parameters()).backward(); opt.step()
    schedule = torch.optim.lr_scheduler.LambdaLR(opt, lambda s: 1.)
    facts = lambda step: {
        'step': step, 'best_step': 1, 'settings': {'recipe': 'A', 'seed': 0, 'training': {}, 'mining': {}},
        'processes': 1, 'data': 'd'}
    for step in (1, 2):
        save_checkpoint(home/'checkpoints'/f'step-{step:06d}', TrainingState(
            e, opt.state_dict(), schedule.state_dict(), np.arange(20, dtype=np.uint8)[None], facts(step),
            json.dumps({'global_step': step}), negatives=np.arange(6).reshape(2, 3)))

def checkpoint_judge(home, found, sound):
    "The last whole checkpoint, or the one before it."
    return '' if equal(found, sound) or equal(found, sound[:1]) else same(home, found, sound)

@reader('checkpoints', 'checkpoints/step-000002/**/*', make=make_checkpoints, judge=checkpoint_judge, tried=300)
def _(home):
    from dacl_dr.training.checkpoints import checkpoints, read_checkpoint
    from dacl_dr.encoders.static import load_encoder
    out = []
    for f in checkpoints(home/'checkpoints'):
        facts, optimizer, arrays = read_checkpoint(f)
        out.append([
            facts['step'], facts['settings']['recipe'], facts['data'],
            {f'{i}.{k}': v.numpy() for i, s in optimizer['state'].items() for k, v in s.items() if hasattr(v, 'numpy')},
            arrays, {k: v.numpy() for k, v in load_encoder(f).state_dict().items()},
            (f/'trainer_state.json').read_text()])
    return out

def make_claim(home):
    from dacl_dr.core.settings import RecipeSettings
    from dacl_dr.training.recipe import claim_folder
    claim_folder(home/'run', RecipeSettings(), {'train': 'abc'})
    (home/'run'/'checkpoints').mkdir()

@reader('recipe of a run', 'run/recipe.json', make=make_claim, tried=200)
def _(home):
    from dacl_dr.core.settings import RecipeSettings
    from dacl_dr.search.indexing import trained_fields
    from dacl_dr.training.recipe import claim_folder
    claim_folder(home/'run', RecipeSettings(), {'train': 'abc'})
    return [trained_fields(home/'run'/'final_model') in ('title+text', None)]

# --- runs and studies
def make_step(home):
    from dacl_dr.core.steps import step
    step(home/'step', {'a': 1}, lambda f: (f/'x.txt').write_text('x') and {'n': 3}, lambda m: None)

@reader('manifest of a step', 'step/manifest.json', make=make_step, tried=300)
def _(home):
    from dacl_dr.core.steps import read_manifest, step
    step(home/'step', {'a': 1}, lambda f: (f/'x.txt').write_text('x') and {'n': 3}, lambda m: None)
    return [read_manifest(home/'step')['key']]

def make_study(home):
    from dacl_dr.core.files import write_manifest
    from dacl_dr.core.options import RunStudy
    from dacl_dr.studies.plan import study_plan
    plan = study_plan(RunStudy(study='weights'))
    write_manifest(home/'study'/'study.json', {'plan': plan, 'corpus': str(home/'data')})

@reader('plan of a study', 'study/study.json', make=make_study, tried=200) # sealed
def _(home):
    import msgspec
    from dacl_dr.studies.workers import read_study
    plan, corpus = read_study(home/'study')
    return [plan.name, str(corpus), msgspec.to_builtins(plan.settings)]

PUBLISHED = ROOT/'nbs'/'experiments'/'results'/'weights'/'tldr'
def make_published(home):
    shutil.copytree(PUBLISHED, home/'run')
    for f in (home/'run').glob('*.csv'):
        rows = f.read_text().splitlines(keepends=True)
        f.write_text(''.join(rows[:1] + [r for r in rows[1:] if f.stem in ('study', 'results') or hash_of(r) < 40]))
    tell(home/'run', json.loads((home/'run'/'run.json').read_text()))
def tell(run, about):
    "What the tables that stand there are about."
    from dacl_dr.studies.tables import write_about
    write_about(
        run, {k: v for k, v in about.items() if k not in ('digests', 'seal')},
        sorted(f for f in run.iterdir() if f.name != 'run.json'))
def hash_of(row): return sum(row.encode()) % 400

def make_tables(home):
    import pandas as pd
    from dacl_dr.studies.tables import TABLES, read_tables, table_file
    make_published(home)
    t = read_tables(home/'run')
    run = json.loads((home/'run'/'run.json').read_text()); del run['published']
    for f in (home/'run').iterdir(): f.unlink()
    ranks = pd.DataFrame({
        'rank': [1, 0], 'question': [0, 1], 'dataset': 'tldr', 'model': 'A', 'recipe': 'A', 'w': 0., 'temperature': .05,
        'curriculum': '', 'seed': 0})
    for n in TABLES:
        table = t.tables.get(n, ranks)
        (table.to_csv if (f := table_file(home/'run', n)).suffix == '.csv' else table.to_parquet)(f, index=False)
    tell(home/'run', run)

def tables_read(home):
    import msgspec
    from dacl_dr.studies.tables import read_tables
    from dacl_dr.studies.findings import findings, summary
    from dacl_dr.studies.drawing import collect
    t = read_tables(home/'run')
    summary(t.study), findings(t)
    collect(home)
    return [{n: x.to_csv(index=False) for n, x in t.tables.items()}, t.dataset, msgspec.to_builtins(t.settings)]

@reader('result tables, published', 'run/*', make=make_published, tried=250)
def _(home): return tables_read(home)
@reader('result tables of a run', 'run/*', make=make_tables, tried=250)
def _(home): return tables_read(home)

def make_sweep(home):
    from dacl_dr.hnsw.curves import Sweep
    from dacl_dr.studies.measures import KEPT, save_sweep
    (home/'search').mkdir()
    save_sweep(
        Sweep(np.array([10, 20]), {n: np.arange(8.).reshape(2, 4) for n in KEPT}, {'recall@10': np.arange(4.)}),
        home/'search'/'queries.parquet')
def sweep_judge(home, found, sound): # pages have no checksums: what the format's library reads whole is what is there
    import pyarrow.parquet as pq
    columns = pq.read_table(home/'search'/'queries.parquet').to_pydict()
    efs, values, exact = found
    wanted = {'exact recall@10': exact} | {f'{ef} {n}': v for n, rows in values.items() for ef, v in zip(efs, rows)}
    return '' if wanted.keys() <= columns.keys() and all(
        np.array_equal(v, np.array(columns[c], float), equal_nan=True) for c, v in wanted.items()
    ) else 'other numbers than are there'
@reader('sweep of a run', 'search/queries.parquet', make=make_sweep, tried=100, judge=sweep_judge)
def _(home):
    from dacl_dr.studies.measures import read_sweep
    s = read_sweep(home/'search'/'queries.parquet')
    return [s.ef.tolist(), s.values, s.exact['recall@10']]

# --- the program
def program(argv):
    "(exit code, what stdout said); what stderr said with code 2 is raised as the program's one line."
    from dacl_dr.cli.main import main
    from dacl_dr.core.errors import DaclError
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err): code = main([str(a) for a in argv])
    (out.getvalue() + err.getvalue()).encode()
    if code == 2:
        said = [l for l in re.split(r'[\r\n]', err.getvalue()) if l.startswith('dacl: ')] # after a progress bar
        if len(said) != 1: raise RuntimeError(f'stderr: {err.getvalue()[:300]!r}')
        raise DaclError(said[0].removeprefix('dacl: '))
    return code, out.getvalue()

def make_data(home):
    (home/'data').mkdir()
    make_tsv(home/'data'); make_json(home/'data')
def there_are(home):
    "What stands in the files, each count only asked for where its file can be read: passages, and counts of questions."
    records = lambda: strict(text_of(home/'data'/'x-train.json'))
    passages = lambda: len(simple_rows(text_of(home/'data'/'psgs.tsv'))) - 1
    all_of = lambda name: sum(len(r.get(name) or ()) for r in records())
    return passages, {
        'questions': lambda: len(records()), 'positives': lambda: all_of('positive_ctxs'),
        'hard_negatives': lambda: all_of('hard_negative_ctxs')}

def checked_judge(home, found, sound):
    "The exit code by the report's errors, and its counts of each file that it could read whole."
    report = json.loads((home/'out'/'report.json').read_text())
    data, = report['data_sets']
    if found[0] != bool(report['errors']): return f"exit code {found[0]} for {report['errors']} errors"
    if not found[0] and 'cannot be read' in found[1]: return 'exit code 0, and a file cannot be read'
    broken = {Path(f['file']).name for f in data['findings'] if f['check'] in ('unreadable', 'bad record')}
    passages, questions = there_are(home)
    if data['corpus'] and 'psgs.tsv' not in broken and (n := data['corpus']['passages']) != passages():
        return f'{n} passages counted, {passages()} are there'
    for split in () if 'x-train.json' in broken else data['splits'].values():
        if wrong := [n for n, count in questions.items() if split[n] != count()]:
            return f'{split[wrong[0]]} {wrong[0]} counted, {questions[wrong[0]]()} are there'
    return ''
@reader('dacl preprocess-dpr', 'data/*', make=make_data, tried=250, judge=checked_judge)
def _(home):
    return program([
        'preprocess-dpr', '--data_dir', home/'data', '--output_path', home/'out', '--cache_dir', home/'cache'])

def bm25_judge(home, found, sound):
    if found[0]: return f'exit code {found[0]}'
    said = re.search('([0-9,]+) questions, ([0-9,]+) passages', found[1])
    passages, questions = there_are(home)
    asked, searched = (int(n.replace(',', '')) for n in said.groups())
    return '' if (asked, searched) == (
        questions['questions'](), passages()
    ) else f'{said[0]} told, {questions["questions"]()} and {passages()} are there'
@reader('dacl bm25-eval', 'data/*', make=make_data, tried=200, judge=bm25_judge)
def _(home):
    return program([
        'bm25-eval', '--corpus_file', home/'data'/'psgs.tsv', '--test_file', home/'data'/'x-train.json',
        '--output_path', home/'out', '--dataset_name', 'x', '--cache_dir', home/'cache'])

def make_study_files(home): # a dry run looks at data and encoder too
    from dacl_dr.data.toy import toy_data
    make_layers(home)
    (home/'encoders.yaml').write_text('encoder: {dim: 64, vocab_size: 2000}\ntraining: {batch_size: 64}\n')
    toy_data(home/'squad', 600)
def dry_judge(home, found, sound): # the settings are checked by 'layers of a study'
    if found[0]: return f'exit code {found[0]}'
    told, names = re.search('^([0-9,]+) runs?: (.+)$', found[1], re.M).groups()
    return '' if int(told.replace(',', '')) == len(set(names.split(', '))) else f'{told} runs told, other names'
@reader(
    'dacl run-study --dry_run', 'datasets.yaml', 'encoders.yaml', 'studies.yaml', make=make_study_files, tried=150,
    settings=['training.batch_size'], judge=dry_judge)
def _(home):
    return program([
        'run-study', home/'studies.yaml', '--dataset', home/'datasets.yaml', '--encoder', home/'encoders.yaml',
        '--data_dir', home, '--dry_run'])
