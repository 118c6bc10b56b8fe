"""Readers and writers of every format: what is written is read again, and each kind of bad input is one line that names
file, place and remedy."""
import gzip, json, os, random

import pytest
from hypothesis import given, settings, strategies as st

from dacl_dr.core.errors import DaclError
from dacl_dr.data.records import BadRecords, JsonArray, json_records
from dacl_dr.data.benchmarks import beir_rows, read_qrels, stream_beir_questions
from dacl_dr.data.formats import (
    Context, Passage, Question, passage_rows, read_passages, read_questions, stream_questions, stream_tsv_questions,
    write_passages, write_questions,
)

text = st.text(st.characters(exclude_categories=['Cs']), max_size=40)
context = st.builds(Context, text, text.filter(bool), text, st.floats(-1e6, 1e6))
questions = st.lists(
    st.builds(
        Question, text, st.lists(context, max_size=3).map(tuple), st.lists(text, max_size=3).map(tuple),
        st.lists(context, max_size=2).map(tuple), st.lists(context, max_size=2).map(tuple), text),
    max_size=4)
passages = st.lists(st.builds(Passage, text.filter(bool), text, text), max_size=6, unique_by=lambda p: p.id)


@settings(max_examples=150, deadline=None)
@given(passages)
def test_passage_tsv_round_trip(tmp_path_factory, ps):
    assert read_passages(write_passages(tmp_path_factory.mktemp('tsv')/'psgs.tsv', ps)) == ps


@settings(max_examples=150, deadline=None)
@given(questions, st.sampled_from([1, 2, 7, 64, 1 << 22]))
def test_biencoder_json_round_trip(tmp_path_factory, qs, chunk):
    f = write_questions(tmp_path_factory.mktemp('json')/'q.json', qs)
    whole, JsonArray.chunk = JsonArray.chunk, chunk # records and characters that straddle reads
    try: assert read_questions(f) == qs
    finally: JsonArray.chunk = whole
    assert len(json.loads(f.read_text(encoding='utf-8'))) == len(qs)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.dictionaries(
            text,
            st.recursive(
                st.none() | st.booleans() | st.integers() | text, lambda x: st.lists(x, max_size=3), max_leaves=5),
            min_size=1, max_size=3),
        max_size=5),
    st.sampled_from([None, 4]), st.booleans(), st.sampled_from([1, 3, 50]))
def test_json_records_reads_what_json_writes(tmp_path_factory, records, indent, ascii, chunk):
    (f := tmp_path_factory.mktemp('json')/'x.json').write_text(
        json.dumps(records, indent=indent, ensure_ascii=ascii), encoding='utf-8')
    whole, JsonArray.chunk = JsonArray.chunk, chunk
    try: assert [r for _, r in json_records(f)] == records
    finally: JsonArray.chunk = whole


def test_gzip_is_read_as_plain(tmp_path):
    ps, qs = [Passage('1', 'äöü "x"\n', 'T')] * 1, [Question('ä', (Context('t', 'x', '1'),))] * 3
    for f in (write_passages(tmp_path/'psgs.tsv', ps), write_questions(tmp_path/'q.json', qs)):
        f.with_name(f.name + '.gz').write_bytes(gzip.compress(f.read_bytes()))
    assert read_passages(tmp_path/'psgs.tsv.gz') == ps and read_questions(tmp_path/'q.json.gz') == qs


good = '{"question": "q%d", "positive_ctxs": [{"text": "t", "title": "", "passage_id": "%d"}], "answers": ["a"]}'
array = lambda *items: '[' + ',\n'.join(items) + ']'
# name: (file, content, reader, what the line must say, records that --skip_bad 1 leaves; None: it can't be passed over)
BAD = {
    'truncated JSON': (
        'q.json', array(good % (1, 1), good % (2, 2))[:-30], stream_questions,
        ['record 2 (line 2)', 'truncated', 'download or copy it again'], 1),
    'object instead of array': (
        'q.json', good % (1, 1), stream_questions, ['line 1', 'a JSON object where an array'], None),
    'no positive_ctxs': (
        'q.json', array(good % (1, 1), '{"question": "q"}', good % (3, 3)), stream_questions,
        ['record 2 (line 2)', 'positive_ctxs'], 2),
    'wrong type': (
        'q.json', array(good % (1, 1), good.replace('"t"', '7') % (2, 2)), stream_questions,
        ['record 2 (line 2)', 'Expected str, got int', 'text'], 1),
    'record is a list': (
        'q.json', array('[1]', good % (1, 1)), stream_questions, ['record 1 (line 1)', 'list where an object'], 1),
    'missing comma': (
        'q.json', '[' + good % (1, 1) + '\n' + good % (2, 2) + ',' + good % (3, 3) + ']', stream_questions,
        ['after record 1 (line 2)', 'no comma'], 3),
    'broken JSON': (
        'q.json', array(good % (1, 1), '{"question": oops, "positive_ctxs": []}', good % (3, 3)), stream_questions,
        ['record 2 (line 2)', 'is not JSON'], 2),
    'not UTF-8 in JSON': (
        'q.json', array(good % (1, 1), '{"question": "\udcff", "positive_ctxs": []}', good % (3, 3)), stream_questions,
        ['record 2 (line 2)', 'not UTF-8'], 2),
    'nested too deeply': (
        'q.json', array(good % (1, 1), '{"question": ' + '[' * 100_000, good % (3, 3)), stream_questions,
        ['record 2 (line 2)', 'nested too deeply'], 2),
    'two arrays': (
        'q.json', array(good % (1, 1)) * 2, stream_questions, ['line 1', 'after the end of the array'], None),
    'not JSON at all': ('q.json', 'question\tanswer\n', stream_questions, ['line 1', 'no JSON where an array'], None),
    'too few columns': (
        'psgs.tsv', 'id\ttext\ttitle\n1\ta\tb\n2\tx\n3\tc\td\n', passage_rows, ['line 3', '2 columns instead of 3'], 2),
    'too many columns': (
        'psgs.tsv', 'id\ttext\ttitle\n1\ta\tb\n2\tx\ty\tz\n3\tc\td\n', passage_rows,
        ['line 3', '4 columns instead of 3'], 2),
    'no header': ('psgs.tsv', '1\ta\tb\n', passage_rows, ['line 1', 'expected the header'], None),
    'unbalanced quote': (
        'psgs.tsv', 'id\ttext\ttitle\n1\ta\tb\n2\t"open\tb\n3\t"c"\td\n4\te\tf\n', passage_rows,
        ['lines 3-4', 'quotes balance'], 3),
    'unbalanced quote to the end': (
        'psgs.tsv', 'id\ttext\ttitle\n1\ta\tb\n2\t"open\tb\n3\tc\td\n', passage_rows, ['lines 3-4', 'quotes balance'], 2
    ),
    'not UTF-8 in TSV': (
        'psgs.tsv', 'id\ttext\ttitle\n1\ta\tb\n2\t\udcff\tb\n3\tc\td\n', passage_rows, ['line 3', 'not UTF-8'], 2),
    'empty id': ('psgs.tsv', 'id\ttext\ttitle\n\ta\tb\n2\tc\tb\n', passage_rows, ['line 2', 'id is empty'], 1),
    'answers are no list': (
        'q.csv', "who\t['Ann']\nwhere\tParis\nwhen\t['x']\n", stream_tsv_questions,
        ['line 2', 'not a list of strings', "['first', 'second']"], 2),
    'answers are a call': (
        'q.csv', "who\t['Ann']\nwhere\topen('/etc/passwd')\n", stream_tsv_questions,
        ['line 2', 'not a list of strings'], 1),
    'answers are numbers': (
        'q.csv', "who\t['Ann']\nwhere\t[1]\n", stream_tsv_questions, ['line 2', 'not a list of strings'], 1),
    'question without answers': ('q.csv', "who\n", stream_tsv_questions, ['line 1', '1 columns instead of 2'], 0),
    'bad JSON line': (
        'corpus.jsonl', '{"_id": "1", "text": "a"}\n{"_id": "2"\n', beir_rows, ['line 2', 'truncated'], 1),
    'JSON line without text': (
        'corpus.jsonl', '{"_id": "1", "text": "a"}\n{"_id": "2"}\n', beir_rows, ['line 2', 'required field text'], 1),
    'JSON line not UTF-8': ('corpus.jsonl', '{"_id": "1", "text": "\udcff"}\n', beir_rows, ['line 1'], 0),
    'empty file': ('psgs.tsv', '', passage_rows, ['is empty'], None),
    'empty JSON': ('q.json', '', stream_questions, ['is empty'], None),
}


@pytest.mark.parametrize('name', BAD)
def test_bad_input(tmp_path, name):
    file, content, reader, said, left = BAD[name]
    (f := tmp_path/file).write_bytes(content.encode(errors='surrogateescape'))
    with pytest.raises(DaclError) as e: list(reader(f))
    line = str(e.value)
    assert '\n' not in line and line.startswith(str(f))
    for part in said: assert part in line, line
    if left is None:
        with pytest.raises(DaclError): list(reader(f, BadRecords(f, 9)))
    else:
        assert len(list(reader(f, bad := BadRecords(f, 1)))) == left and bad.count == 1
        assert '--skip_bad 1' in line


def test_more_bad_records_than_allowed(tmp_path):
    (f := tmp_path/'psgs.tsv').write_text('id\ttext\ttitle\n' + 'x\n' * 5 + '1\ta\tb\n')
    with pytest.raises(DaclError, match=r'line 5: 1 columns .*; this is bad record 4 and --skip_bad allows 3'):
        list(passage_rows(f, BadRecords(f, 3)))
    assert len(list(passage_rows(f, BadRecords(f, 5)))) == 1


@pytest.mark.parametrize('seed', range(30))
def test_damage_anywhere_costs_few_records(tmp_path, seed):
    """Bytes are changed at random; readers never fail otherwise than with `DaclError`, and what is far from the damage
    survives."""
    rng = random.Random(seed)
    qs, ps = [
        Question(f'question {i}', (Context('T', 'words ' * 9, str(i)),), (f'a{i}',)) for i in range(60)
    ], [Passage(str(i), f'text "{i}"\t' * 4, 'T') for i in range(60)]
    for f, read, n in (
        (write_questions(tmp_path/'q.json', qs), stream_questions, 60),
        (write_passages(tmp_path/'p.tsv', ps), passage_rows, 60)
    ):
        data = bytearray(f.read_bytes())
        for at in rng.sample(range(200, len(data) - 10), 2): data[at] = rng.choice(b'"\\{}[],\n\t\xff\x00a')
        f.write_bytes(data)
        assert len(list(read(f, BadRecords(f, 50)))) >= n - 4


def test_a_folder_a_missing_file_and_cut_gzip(tmp_path):
    for read in (passage_rows, stream_questions, stream_tsv_questions, beir_rows):
        with pytest.raises(DaclError, match='is a directory'): list(read(tmp_path))
        with pytest.raises(DaclError, match='No such file'): list(read(tmp_path/'nowhere.tsv'))
    full = gzip.compress(b'id\ttext\ttitle\n' + os.urandom(4000).hex().encode())
    for data in (full[:-4], full[:len(full) // 2], b'no gzip', full + b'rubbish'):
        (tmp_path/'psgs.tsv.gz').write_bytes(data)
        with pytest.raises(DaclError, match='cut short or damaged'):
            list(passage_rows(tmp_path/'psgs.tsv.gz', BadRecords('x', 1 << 40)))


def test_ids_of_all_writers(tmp_path):
    ctx = lambda **kw: {'text': 't', 'title': 'T', **kw}
    (f := tmp_path/'q.json').write_text(
        json.dumps([{
            'question': 'q', 'positive_ctxs': [ctx(passage_id='1'), ctx(psg_id=2), ctx(id='3'), ctx(passage_id=0)],
            'extra': {'is': ['ignored']}}]))
    assert [c.passage_id for c in read_questions(f)[0].positive_ctxs] == ['1', '2', '3', '0']


def test_gold_passages_in_order_and_by_question(tmp_path):
    (f := tmp_path/'x-test.csv').write_text("same\t['a']\nother\t['b']\nsame\t['c']\n")
    gold = [('same', '1'), ('other', '2'), ('same', '3')]
    put = lambda pairs: (tmp_path/'x-test-gold.json').write_text(
        json.dumps([{'question': q, 'passage_id': p} for q, p in pairs]))
    ids = lambda: [[c.passage_id for c in q.positive_ctxs] for q in stream_tsv_questions(f)]
    put(gold); assert ids() == [['1'], ['2'], ['3']]
    put(gold[1:]); assert ids() == [['3'], ['2'], ['3']] # out of step: by question
    (tmp_path/'x-test-gold.json').write_text('[{"question": "same"}]')
    with pytest.raises(DaclError, match='needs a question and a passage_id'): ids()


def test_beir_grades_and_missing_query(tmp_path):
    (tmp_path/'qrels').mkdir()
    (tmp_path/'queries.jsonl').write_text('{"_id": 7, "text": "seven"}\n\n{"_id": "8", "text": "eight"}\n')
    (f := tmp_path/'qrels'/'dev.tsv').write_text('query-id\tcorpus-id\tscore\n7\ta\t2\n7\tb\t0\n7\tc\t-1\n8\ta\t1\n')
    assert read_qrels(f) == {'7': {'a': 2}, '8': {'a': 1}}
    assert [
        (q.id, q.question, [(c.passage_id, c.score) for c in q.positive_ctxs]) for q in stream_beir_questions(f)
    ] == [('7', 'seven', [('a', 2)]), ('8', 'eight', [('a', 1)])]
    with open(f, 'a') as out: out.write('9\ta\t1\n')
    with pytest.raises(DaclError, match="query '9' is not in queries.jsonl"): list(stream_beir_questions(f))
    f.write_text('7\ta\tmuch\n')
    with pytest.raises(DaclError, match='line 1: expected a query id'): list(stream_beir_questions(f))
