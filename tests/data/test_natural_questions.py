"Raw Natural Questions into DPR's formats."
import gzip, json

import pytest

from dacl_dr.data.answers import has_answer
from dacl_dr.cli.main import main
from dacl_dr.core.errors import DaclError
from dacl_dr.core.options import PreprocessNq
from dacl_dr.core.settings import Reading
from dacl_dr.data.formats import read_passages, read_questions
from dacl_dr.data.natural_questions import DROPPED, preprocess_nq
from dacl_dr.core.steps import read_manifest


def line(question, title, page, marks, top=True, **kw):
    "A raw line; `marks` are the short answers of each annotator, as (start, end) or as words to be found."
    tokens = page.split(' ')
    opens = [i for i, t in enumerate(tokens) if t in ('<P>', '<Table>', '<Ul>')]
    cands = [
        {'start_token': i, 'end_token': tokens.index(tokens[i].replace('<', '</'), i) + 1, 'top_level': top}
        for i in opens]
    def span(m):
        if isinstance(m, str):
            n = len(m.split(' '))
            s = next(i for i in range(len(tokens)) if tokens[i:i + n] == m.split(' '))
            m = (s, s + n)
        return {'start_token': m[0], 'end_token': m[1]}
    return json.dumps(
        {
            'question_text': question, 'document_text': page,
            'document_url': f'https://en.wikipedia.org//w/index.php?title={title}&amp;oldid=1',
            'long_answer_candidates': cands,
            'annotations': [
                {
                    'yes_no_answer': 'NONE',
                    'long_answer': {'start_token': -1, 'end_token': -1, 'candidate_index': -1},
                    'short_answers': [span(m) for m in ms]}
                for ms in marks],
            **kw})


def page(i):
    return (
        f'<H1> Page {i} </H1> <P> Animal {i} lives in <B> place {i} </B> near the river . </P> '
        f'<P> It eats food {i} daily . </P> <Table> weight {i} kg </Table>')


many = [line(f'where does animal {i} live', f'Page_{i}', page(i), [[f'place {i}']]) for i in range(60)]


def preprocess(source, folder, say=lambda line: None, skip_bad=0, dev_share=.3):
    reading = Reading(skip_bad=skip_bad, show_progress=False)
    o = PreprocessNq(input_file=source, output_dir=folder, dev_share=dev_share, reading=reading)
    return preprocess_nq(o, say)


def run(tmp_path, lines):
    "The passages, the questions of each split, and the counts."
    f = tmp_path/'simplified-nq-train.jsonl'
    f.write_text('\n'.join(lines) + '\n')
    out = preprocess(f, tmp_path/'out')
    questions = {s: read_questions(out/f'nq-{s}.json') for s in ('train', 'dev')}
    return read_passages(out/'psgs.tsv'), questions, read_manifest(out)['facts']


def test_every_positive_is_a_passage_that_holds_an_answer(tmp_path):
    extra = [line('what does animal 3 eat', 'Page_3', page(3), [[], ['food 3'], ['place 3', 'food 3']])]
    passages, qs, facts = run(tmp_path, many + extra)
    by_id = {p.id: p for p in passages}
    # the page that comes twice is written once
    assert len(passages) == 120 == facts['passages'] and facts['train'] + facts['dev'] == 61 and facts['dev'] > 5
    for q in qs['train'] + qs['dev']:
        for c in q.positive_ctxs:
            assert (by_id[c.passage_id].text, by_id[c.passage_id].title) == (c.text, c.title)
            assert has_answer(q.answers, c.text)
    assert not any('<' in p.text or 'weight' in p.text for p in passages)
    # no page on both sides
    assert not {q.positive_ctxs[0].title for q in qs['train']} & {q.positive_ctxs[0].title for q in qs['dev']}
    [several] = [q for q in qs['train'] + qs['dev'] if q.question.startswith('what')]
    assert several.answers == ('food 3', 'place 3') and len(several.positive_ctxs) == 2


def test_what_is_dropped_and_why(tmp_path):
    long = '<P> ' + ' '.join(f'w{i}' for i in range(250)) + ' </P>'
    lines = many + [
        line('yes or no', 'X', page(900), [[]]), line('weight', 'X', page(901), [['901 kg']]),
        line('long', 'X', long, [[(10, 16)]]), line('across', 'X', long, [[(100, 102)]]),
        line('edge', 'X', long, [[(101, 102)]]), line('nested', 'X', page(902), [['place 902']], top=False),
        line('one of two', 'X', long, [[(10, 16)], [(20, 22)]])]
    passages, qs, facts = run(tmp_path, lines)
    kept = {q.question: q for q in qs['train'] + qs['dev']}
    assert [facts[f'dropped: {d}'] for d in DROPPED] == [1, 1, 3]
    assert {'edge', 'one of two'} <= kept.keys()
    assert not {'across', 'nested', 'weight'} & kept.keys()
    assert kept['edge'].positive_ctxs[0].text.startswith('w100 ') and kept['one of two'].answers == ('w19 w20',)
    assert [len(p.text.split()) for p in passages if p.text.startswith(('w0 ', 'w100 ', 'w200 '))] == [100, 100, 50]


def test_gzip_gives_the_same_and_a_second_run_nothing_new(tmp_path):
    plain = run(tmp_path, many)
    said = []
    with gzip.open(tmp_path/'x.jsonl.gz', 'wt') as f: f.write('\n'.join(many))
    for _ in range(2): preprocess(tmp_path/'x.jsonl.gz', tmp_path/'gz', said.append)
    assert read_passages(tmp_path/'gz'/'psgs.tsv') == plain[0] and 'reused' in said[1] and 'reused' not in said[0]


@pytest.mark.parametrize('bad, said', [
    ('{"question_text": ', 'line 31: Input data was truncated'),
    ('{"question_text": "q", "document_text": "a b", "annotations": []}', 'line 31: .*long_answer_candidates'),
    (
        json.dumps(json.loads(many[0]) | {'document_text': 'short'}),
        r'line 31: a span lies outside the page of 1 tokens'),
    ('"\udcff"', 'line 31: '),
])
def test_bad_lines(tmp_path, bad, said):
    (f := tmp_path/'raw.jsonl').write_bytes('\n'.join(many[:30] + [bad] + many[30:]).encode(errors='surrogateescape'))
    go = lambda **kw: preprocess(f, tmp_path/'out', **kw)
    with pytest.raises(DaclError, match=f'raw.jsonl {said}.*--skip_bad 1'): go()
    assert [p.name for p in tmp_path.iterdir() if p.suffix != '.lock'] == ['raw.jsonl']
    assert read_manifest(go(skip_bad=1))['facts']['bad lines passed over'] == 1


def test_refusals(tmp_path, capsys):
    (f := tmp_path/'raw.jsonl').write_text(json.dumps({'document_tokens': []}) + '\n')
    with pytest.raises(DaclError, match='line 1: is the full format .* give simplified-nq-train.jsonl'):
        preprocess(f, tmp_path/'out')
    f.write_text(many[0] + '\n')
    with pytest.raises(DaclError, match='gives . training and . dev questions of 1'): preprocess(f, tmp_path/'out')
    with pytest.raises(DaclError, match='dev_share 1.0 must be between'): preprocess(f, tmp_path/'out', dev_share=1.)
    f.write_text('\n'.join(many)); (tmp_path/'out').mkdir(); (tmp_path/'out'/'thesis.txt').touch()
    with pytest.raises(DaclError, match='is not a finished step'): preprocess(f, tmp_path/'out')
    assert main(['preprocess-nq', '--input_file', str(f), '--output_dir', str(tmp_path/'nq'), '--dev_share', '.3']) == 0
    assert 'passages: 120' in capsys.readouterr().out
    assert main([
        'preprocess-dpr', '--data_dir', str(tmp_path), '--output_path', str(tmp_path/'checked'), '--cache_dir',
        str(tmp_path/'cache')]) == 0
    assert main(['preprocess-nq', '--input_file', str(tmp_path/'absent')]) == 2
    assert 'No such file' in capsys.readouterr().err
