"""Data sets end to end: validation, BM25 by both engines, hard negatives. The last part runs on real data where
DACL_TEST_DATA, or a folder shared/data beside the project, has it."""
import json, os
from pathlib import Path

import numpy as np
import pytest
import pytrec_eval

from dacl_dr.data.answers import has_answer
from dacl_dr.search.bm25_disk import ENGLISH, searchable
from dacl_dr.curriculum.bm25 import bm25_negatives
from dacl_dr.evaluation.bm25 import bm25_eval
from dacl_dr.search.bm25 import Bm25Settings
from dacl_dr.cli.main import main
from dacl_dr.core.errors import DaclError
from dacl_dr.core.options import Bm25Eval, Bm25Negatives
from dacl_dr.core.settings import Reading
from dacl_dr.data.formats import Context, Passage, Question, read_questions, write_passages, write_questions
from dacl_dr.data.store import open_passages, open_questions
from dacl_dr.data.validation import errors, validate

REAL = Path(os.environ.get('DACL_TEST_DATA') or Path(__file__).resolve().parents[3]/'shared'/'data')
real = pytest.mark.skipif(not (REAL/'squad'/'psgs.tsv').exists(), reason='the real data is not here')
TOPICS = 'apollo moon rocket orbit crew acacia giraffe leaf savanna okapi river delta flood mud boat'.split()


@pytest.fixture
def toy(tmp_path):
    "A data set with answers, no hard negatives, some questions whose answer many passages hold."
    rng = np.random.default_rng(0)
    passages = [
        Passage(f'd{i}', ' '.join(rng.choice(TOPICS, 12)) + f' number {i}', f'title {i % 5}') for i in range(300)]
    ask = lambda i: Question(
        ' '.join(passages[i].text.split()[:4]) + f' {i}', (Context(passages[i].title, passages[i].text, f'd{i}'),),
        (passages[i].text.split()[5],))
    write_passages(tmp_path/'data'/'toy'/'psgs.tsv', passages)
    for split, rows in (('train', range(0, 100)), ('dev', range(100, 140))):
        write_questions(tmp_path/'data'/'toy'/f'toy-{split}.json', map(ask, rows))
    return tmp_path/'data'/'toy'


def test_command_line(toy, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv('DACL_CACHE', str(tmp_path/'cache'))
    assert main(['preprocess-dpr', '--data_dir', str(toy.parent), '--output_path', str(tmp_path/'checked')]) == 0
    assert 'no errors' in capsys.readouterr().out
    assert json.loads((tmp_path/'checked'/'report.json').read_text())['errors'] == 0
    corpus, dev = str(toy/'psgs.tsv'), str(toy/'toy-dev.json')
    assert main([
        'bm25-eval', '--corpus_file', corpus, '--test_file', dev, '--output_path', str(tmp_path/'bm25'),
        '--dataset_name', 'toy', '--k', '20']) == 0
    metrics = json.loads((tmp_path/'bm25'/'toy'/'toy-dev.metrics.json').read_text())
    with open(tmp_path/'bm25'/'toy'/'toy-dev.run.trec') as f: run = pytrec_eval.parse_run(f)
    qrels = {f'q{n}': {q.positive_ctxs[0].passage_id: 1} for n, q in enumerate(read_questions(dev), 1)}
    again = pytrec_eval.RelevanceEvaluator(qrels, {'recall.1,20'}).evaluate(run)
    for k in (1, 20):
        assert metrics['metrics'][f'recall@{k}'] == pytest.approx(np.mean([v[f'recall_{k}'] for v in again.values()]))
    texts = {p.id: p.text for p in open_passages(corpus)}
    match = [
        any(has_answer(q.answers, texts[d]) for d in list(run[f'q{n}'])[:1])
        for n, q in enumerate(read_questions(dev), 1)]
    assert metrics['metrics']['answer accuracy@1'] == pytest.approx(np.mean(match))
    assert 'recall@50' not in metrics['metrics']
    assert main([
        'bm25-negatives', '--corpus_file', corpus, '--train_file', str(toy/'toy-train.json'), '--output_path',
        str(tmp_path/'train.json'), '--hard_negatives', '3']) == 0
    assert '100 questions, ' in capsys.readouterr().out


def test_hard_negatives_are_none_of_the_relevant(toy, tmp_path):
    o = Bm25Negatives(
        corpus_file=toy/'psgs.tsv', train_file=toy/'toy-train.json', output_path=tmp_path/'out.json',
        hard_negatives=4, depth=300, reading=Reading(tmp_path, show_progress=False))
    bm25_negatives(o)
    before, after = read_questions(toy/'toy-train.json'), read_questions(tmp_path/'out.json')
    for b, a in zip(before, after, strict=True):
        assert (a.question, a.positive_ctxs, a.answers) == (b.question, b.positive_ctxs, b.answers)
        assert not any(has_answer(a.answers, c.text) or c.text == a.positive_ctxs[0].text for c in a.hard_negative_ctxs)
        scores = [c.score for c in a.hard_negative_ctxs]
        assert scores == sorted(scores, reverse=True)
        assert len({c.passage_id for c in a.hard_negative_ctxs}) == len(scores) <= 4
    assert np.mean([len(a.hard_negative_ctxs) for a in after]) > 3
    more = o.but(train_file=tmp_path/'out.json', output_path=tmp_path/'again.json', hard_negatives=7, depth=100)
    again = bm25_negatives(more)
    assert [
        q.hard_negative_ctxs for q in read_questions(tmp_path/'again.json') if q.hard_negative_ctxs
    ][:50] == [q.hard_negative_ctxs for q in after if q.hard_negative_ctxs][:50]
    assert again['questions'] == 100


def test_a_copy_of_the_positive_is_no_negative(tmp_path):
    ps = [
        Passage('1', 'the okapi eats leaves'), Passage('2', 'the  okapi eats leaves'), Passage('3', 'the okapi sleeps')]
    f, q = write_passages(tmp_path/'psgs.tsv', ps), write_questions(
        tmp_path/'q.json',
        [Question('okapi leaves', (Context(passage_id='1'),)), Question('okapi leaves', (Context(text=ps[0].text),))])
    bm25_negatives(Bm25Negatives(
        corpus_file=f, train_file=q, output_path=tmp_path/'o.json', reading=Reading(tmp_path, show_progress=False)))
    assert [[c.passage_id for c in x.hard_negative_ctxs] for x in read_questions(tmp_path/'o.json')] == [['3'], ['3']]


def test_refusals(toy, tmp_path):
    corpus, reading = toy/'psgs.tsv', Reading(tmp_path, show_progress=False)
    o = Bm25Eval(
        corpus_file=corpus, test_file=toy/'toy-dev.json', output_path=tmp_path/'out', dataset_name='toy',
        reading=reading,
    )
    for change, said in (
        ({'engine': 'bm25'}, "unknown BM25 engine 'bm25'"),
        ({'fields': 'titles'}, "unknown fields 'titles'"),
        ({'dataset_name': 'a/b'}, "dataset_name 'a/b'"),
        ({'stemmer': 'englsh'}, "unknown stemmer 'englsh'"),
        ({'test_file': write_questions(tmp_path/'bare.json', [Question('q', ())])}, 'neither answers nor positives'),
        ({'corpus_file': toy}, 'is a directory; name the passage file'),
    ):
        with pytest.raises(DaclError, match=said): bm25_eval(o.but(**change))
    ask = [Question('okapi', (Context(passage_id=i),)) for i in ('d1', 'nowhere')]
    with pytest.raises(DaclError, match="none of its 1 positives, such as 'nowhere', is in the corpus"):
        bm25_eval(o.but(test_file=write_questions(tmp_path/'none.json', ask[1:])))
    half = bm25_eval(o.but(test_file=write_questions(tmp_path/'half.json', ask), output_path=tmp_path/'half'))
    assert json.loads(half.read_text())['positives_not_in_corpus'] == 1
    n = Bm25Negatives(corpus_file=corpus, train_file=toy/'toy-train.json', output_path=tmp_path, reading=reading)
    with pytest.raises(DaclError, match='give the name of the .json file'): bm25_negatives(n)
    with pytest.raises(DaclError, match='at most depth 5'):
        bm25_negatives(n.but(output_path=tmp_path/'o.json', depth=5))
    assert not (tmp_path/'out').exists()


def test_validation_exit_code_and_unreadable_files(toy, tmp_path, capsys):
    (toy/'toy-test.json').write_text('{"question": "an object"}')
    write_questions(
        toy/'toy-dev.json',
        [
            Question('q', (Context('t', 'x', 'd1'),)), Question('', (Context('t', 'x', 'nowhere'),)),
            Question('r', (Context('t', 'no id'),)), Question('s', ())])
    reports = validate(toy.parent, tmp_path/'out', reading=Reading(tmp_path/'cache', show_progress=False))
    found = {(Path(f.file).name, f.check): f.count for f in reports[0].findings if f.level != 'note'}
    assert found == {
        ('toy-test.json', 'unreadable'): 1, ('toy-dev.json', 'empty question'): 1,
        ('toy-dev.json', 'positive not in corpus'): 1, ('toy-dev.json', 'no positive'): 1,
        ('toy-dev.json', 'positive without id'): 1,
        ('toy-dev.json', 'positive differs'): 1} and errors(reports) == 4
    assert main([
        'preprocess-dpr', '--data_dir', str(toy.parent), '--output_path', str(tmp_path/'out'), '--cache_dir',
        str(tmp_path/'cache')]) == 1
    assert 'nowhere' in (tmp_path/'out'/'report.txt').read_text() and '4 errors' in capsys.readouterr().out
    assert main(['preprocess-dpr', '--data_dir', str(tmp_path/'absent')]) == 2
    assert 'no such folder' in capsys.readouterr().err


@real
def test_real_data_loads_completely(tmp_path):
    count = lambda f, *p: len(f(REAL.joinpath(*p), Reading(tmp_path, show_progress=False)))
    assert [
        count(open_passages, 'squad', 'psgs.tsv'),
        *(count(open_questions, 'squad', f) for f in ('squad-train.json.gz', 'squad-dev.json', 'squad-test.csv'))
    ] == [2067, 7182, 2017, 1371]
    assert count(open_questions, 'nq', 'nq-test.csv') == 3610
    assert [
        count(open_passages, 'tldr', 'psgs.tsv.gz'),
        *(count(open_questions, 'tldr', f'tldr-{s}.json.gz') for s in ('train', 'dev', 'test'))
    ] == [28387, 19199, 2707, 3337]


@real
def test_real_data_has_no_errors(tmp_path):
    reports = validate(REAL, tmp_path/'out', reading=Reading(tmp_path/'cache', show_progress=False))
    assert [r.name for r in reports] == ['nq', 'squad', 'tldr'] and errors(reports) == 0
    assert reports[1].splits['test']['answer_in_positive'] == 1371


@real
def test_engines_agree_on_real_text(tmp_path):
    corpus, test, reading = REAL/'squad'/'psgs.tsv', REAL/'squad'/'squad-test.csv', Reading(
        tmp_path, show_progress=False)
    passages, questions = open_passages(corpus, reading), open_questions(test, reading)
    asked = questions.column('question', range(0, 1371, 7))
    for settings, fields in ((ENGLISH, 'title+text'), (Bm25Settings(.9, .4), 'text')):
        engines = [searchable(passages, e, settings, fields, reading=reading) for e in ('rank_bm25', 'bm25s')]
        (rows, scores), (rows2, scores2) = (e.search(asked, 100, show_progress=False) for e in engines)
        assert np.abs(scores - scores2).max() < 1e-4
        assert (rows == rows2).mean() > .999 # what differs are scores equal to float precision
    path = bm25_eval(Bm25Eval(
        corpus_file=corpus, test_file=test, output_path=tmp_path/'out', dataset_name='squad', engine='bm25s',
        reading=reading,
    ))
    assert path == tmp_path/'out'/'squad'/'squad-test.metrics.json'
    metrics = json.loads(path.read_text())['metrics']
    assert metrics['recall@1'] == pytest.approx(.808, abs=.003)
    assert metrics['answer accuracy@20'] == pytest.approx(.985, abs=.003)
