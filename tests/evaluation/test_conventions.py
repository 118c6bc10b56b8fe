"What a reader of a number takes for granted: questions stay apart, all words are read, nothing finds itself."
import json
import re
from pathlib import Path
from types import SimpleNamespace

import ir_measures
import numpy as np
import pytest
from urllib.parse import unquote

from dacl_dr.cli.main import main
from dacl_dr.core.errors import DaclError
from dacl_dr.core.options import Bm25Eval, Bm25Negatives
from dacl_dr.core.settings import EmbedSettings, EncoderSettings, IndexSettings, Reading, SearchSettings
from dacl_dr.curriculum.bm25 import bm25_negatives
from dacl_dr.curriculum.trainset import QuestionSource, training_set
from dacl_dr.data.answers import answer_rule
from dacl_dr.data.formats import Context, Passage, Question, read_questions, write_passages, write_questions
from dacl_dr.data.positives import own_passages
from dacl_dr.data.store import open_passages, open_questions
from dacl_dr.data.validation import validate
from dacl_dr.encoders.static import StaticEncoder, bag_texts, train_tokenizer
from dacl_dr.evaluation.bm25 import bm25_eval, metrics_table
from dacl_dr.evaluation.ef_sweep import sweep_index
from dacl_dr.evaluation.judging import OthersJudged, TaskJudge
from dacl_dr.hnsw.analysis import analyse
from dacl_dr.search.exact import InMemory, exact_search
from dacl_dr.search.indexing import build_index

TEXTS = ['the river nile flows north', 'mount everest is the tallest mountain', 'paris is the capital of france',
    'python is a programming language', 'cats are small carnivorous mammals', 'jupiter is the largest planet']
ASKED = ['where does the nile flow', 'zzz qqq', 'capital of france', 'xxx yyy', 'small carnivorous mammals', 'vvv www']


@pytest.fixture
def evaluated(tmp_path):
    "A function of passages and questions that gives BM25's results, as JSON and as text."
    def run(passages, questions, **options):
        corpus = write_passages(tmp_path/'psgs.tsv', passages) if isinstance(passages, list) else passages
        test = write_questions(tmp_path/'x-test.json', questions) if isinstance(questions, list) else questions
        path = bm25_eval(Bm25Eval(
            corpus_file=str(corpus), test_file=str(test), dataset_name='x', output_path=str(tmp_path/'out'),
            reading=Reading(tmp_path/'cache', show_progress=False), **options))
        return json.loads(path.read_text()), metrics_table(path)
    return run


def numbered(texts): return [Passage(str(i), t) for i, t in enumerate(texts)]
def ask(ids): return [Question(t, (Context(passage_id=str(n)),), id=ids[n]) for n, t in enumerate(ASKED)]


@pytest.mark.parametrize('ids, why', [
    (['art-0', 'art-0', 'art-1', 'art-1', 'art-2', 'art-2'], "questions 1 and 2 both have id 'art-0'"),
    (['q3', '', '', '', '', ''], 'question 2 has no id'),
    ([''] * 6, ''), (list('abcdef'), ''),
])
def test_questions_stay_apart(ids, why, evaluated, tmp_path):
    m, said = evaluated(numbered(TEXTS), ask(ids))
    assert m['metrics']['recall@1'] == .5 and m['questions']['recall@1'] == 6
    assert m['named_by_row'] == why and (f'{why}, so results name questions by row' in said) == bool(why)
    named = {line.split()[0] for line in (tmp_path/'out'/'x'/'x-test.run.trec').read_text().splitlines()}
    assert named == ({'q1', 'q3', 'q5'} if why or not ids[0] else {'a', 'c', 'e'})


def test_a_check_of_the_data_tells_of_ids(tmp_path):
    write_passages(tmp_path/'data'/'psgs.tsv', numbered(TEXTS))
    write_questions(tmp_path/'data'/'x-train.json', ask(['art-0', 'art-0', 'art-1', '', 'art-2', 'art-3']))
    two = [Question('a', (Context('', 'one text', '1'),)), Question('b', (Context('', 'another', '1'),))]
    write_questions(tmp_path/'data'/'x-dev.json', two)
    found = validate(tmp_path/'data', tmp_path/'out', Reading(tmp_path/'cache', show_progress=False))[0].findings
    counts = {f.check: f.count for f in found if f.level == 'warning'}
    assert (counts['repeated id'], counts['missing id'], counts['one id, two texts']) == (1, 1, 1)


def test_an_id_of_two_texts_is_two_passages():
    article = lambda text: (Context('', text, 'art-0'),)
    data = training_set(
        QuestionSource([Question('q', article('one')), Question('r', article('two'))]), 0, show_progress=False)
    assert data.pool.texts(data.positives) == ['one', 'two']


@pytest.mark.parametrize('texts, asked', [
    (
        [f'le {w} bleu' for w in ('e\u0301cole', 'e\u0301te\u0301', 'fore\u0302t', 'ho\u0302tel')],
        ['école', 'été', 'forêt', 'hôtel']),
    (['北京是中华人民共和国的首都。', '上海是中国最大的城市，位于长江口。', '黄河是中国第二长的河流。'],
        ['中华人民共和国的首都是哪里', '中国最大的城市', '第二长的河流']),
    (['भारत की राजधानी दिल्ली है', 'गंगा एक नदी है', 'हिमालय पर्वत है'], ['राजधानी', 'नदी', 'पर्वत']),
    (['กรุงเทพเป็นเมืองหลวง', 'แม่น้ำเจ้าพระยา', 'ภูเขาสูงที่สุด'], ['เมืองหลวง', 'แม่น้ำ', 'ภูเขา']),
    (['ＴＯＫＹＯ tower', 'ｵｰｻｶ castle', 'ﬁre'], ['tokyo', 'オーサカ', 'fire']),
])
@pytest.mark.parametrize('engine', ['rank_bm25', 'bm25s'])
def test_words_of_every_script_are_found(texts, asked, engine, evaluated):
    questions = [Question(t, (Context(passage_id=str(n)),)) for n, t in enumerate(asked)]
    m, _ = evaluated(numbered(texts), questions, engine=engine, stopwords='none')
    assert m['metrics']['recall@1'] == 1 and m['questions_without_result'] == 0


def test_what_is_not_read_is_told(evaluated, capsys):
    m, said = evaluated(
        numbered(TEXTS), [Question('👍👍👍 ?!', (Context(passage_id='1'),)), Question('nile', (Context(passage_id='0'),))])
    assert m['questions_mostly_unread'] == m['questions_without_result'] == 1
    assert '1 questions found nothing' in said
    assert "warning: 1 of 2 questions, such as '👍👍👍 ?!', consist mostly of signs" in capsys.readouterr().err


def test_answers_in_a_script_without_spaces_are_told_apart(evaluated):
    questions = [Question('首都', (), ('北京',)), Question('nile', (), ('north',))]
    m, said = evaluated(numbered(['中国的首都是北京。', 'the nile flows north']), questions)
    assert m['metrics']['answer accuracy@1'] == 1 and m['answers_matched_by_characters'] == 1
    assert '1 questions have an answer in a script without spaces' in said


def toy_vectors(x):
    "What `build_index` takes of an array."
    found = InMemory(x)
    found.folder, found.about = Path('vectors'), SimpleNamespace(encoder='e', corpus='c', settings=EmbedSettings())
    return found


@pytest.fixture
def arguments(tmp_path):
    "As in ArguAna: queries are passages, and each one's counter-argument shares half of its words."
    rng = np.random.default_rng(0)
    word = lambda: f'w{rng.integers(400)}'
    shared, own = [[word() for _ in range(8)] for _ in range(60)], lambda: [word() for _ in range(10)]
    texts = {f'arg-{i}{side}': ' '.join(s + own()) for i, s in enumerate(shared) for side in 'ab'}
    home = tmp_path/'arguments'
    (home/'qrels').mkdir(parents=True)
    line = lambda **r: json.dumps(r) + '\n'
    (home/'corpus.jsonl').write_text(''.join(line(_id=i, title='', text=t) for i, t in texts.items()))
    (home/'queries.jsonl').write_text(''.join(line(_id=i, text=t) for i, t in texts.items() if i.endswith('a')))
    (home/'qrels'/'test.tsv').write_text(''.join(f'arg-{i}a\targ-{i}b\t1\n' for i in range(60)))
    return home


def test_a_question_is_no_result_of_its_own(arguments, evaluated, tmp_path):
    m, said = evaluated(arguments, arguments/'qrels'/'test.tsv', k=10)
    assert m['metrics']['ndcg@10'] == 1
    assert m['own_passages_left_out'] == 60
    assert '60 questions stand in the corpus' in said
    lines = (tmp_path/'out'/'x'/'test.run.trec').read_text().splitlines()
    assert not any(line.split()[0] == line.split()[2] for line in lines)
    kept, said = evaluated(arguments, arguments/'qrels'/'test.tsv', keep_self=True)
    assert kept['metrics']['recall@1'] == 0 and kept['own_passages_left_out'] == 0 and 'stand in the corpus' not in said


def test_the_same_as_ir_measures_on_a_run_without_itself(arguments, evaluated, tmp_path):
    evaluated(arguments, arguments/'qrels'/'test.tsv', keep_self=True)
    run = [d for d in ir_measures.read_trec_run(str(tmp_path/'out'/'x'/'test.run.trec')) if d.query_id != d.doc_id]
    qrels = {f'arg-{i}a': {f'arg-{i}b': 1} for i in range(60)}
    theirs = ir_measures.calc_aggregate([ir_measures.nDCG@10], qrels, run)
    ours, _ = evaluated(arguments, arguments/'qrels'/'test.tsv')
    assert ours['metrics']['ndcg@10'] == pytest.approx(theirs[ir_measures.nDCG@10])


def test_the_same_number_by_chance_is_a_stranger(evaluated):
    "Ids of passages and of questions are both numbers: nothing may be left out."
    m, _ = evaluated(numbered(TEXTS), [Question(t, (Context(passage_id='5'),), id=str(n)) for n, t in enumerate(ASKED)])
    assert m['own_passages_left_out'] == 0


def test_a_question_is_no_negative_of_its_own(arguments, tmp_path):
    corpus = {json.loads(line)['_id']: json.loads(line)['text'] for line in open(arguments/'corpus.jsonl')}
    asked = [Question(t, (Context(passage_id=f'{i[:-1]}b'),), id=i) for i, t in corpus.items() if i.endswith('a')]
    train, quiet = write_questions(tmp_path/'x-train.json', asked), Reading(tmp_path/'cache', show_progress=False)
    mined = {}
    for keep in (False, True):
        o = Bm25Negatives(
            corpus_file=str(arguments), train_file=str(train), output_path=str(tmp_path/'o.json'), keep_self=keep,
            reading=quiet)
        assert bm25_negatives(o).get('in the corpus themselves, no negative of their own', 0) == 60 * (not keep)
        mined[keep] = [q.id in {c.passage_id for c in q.hard_negative_ctxs} for q in read_questions(tmp_path/'o.json')]
    assert not any(mined[False]) and all(mined[True])
    passages, questions = open_passages(arguments, quiet), open_questions(train, quiet)
    own = passages.rows([q.id for q in asked])
    data = training_set(QuestionSource(questions, corpus=passages), 0, whole_corpus=True, show_progress=False)
    assert all(data.numbers[row] in known for row, known in zip(own, data.known))
    kept = open_questions(tmp_path/'o.json', quiet) # mined with themselves
    data = training_set(QuestionSource(kept, corpus=passages), 5, show_progress=False)
    assert set(data.questions) <= set(data.pool.all_texts()) # each is in the pool
    for question, rows in zip(data.questions, data.bm25): assert question not in data.pool.texts(rows[rows >= 0])


@pytest.fixture
def argued(arguments, tmp_path):
    """A function that runs a command on queries that stand in the corpus, with an encoder of random vectors and its
    index."""
    texts = [json.loads(line)['text'] for line in open(arguments/'corpus.jsonl')]
    tokenizer = train_tokenizer(texts, 500)
    encoder, index = tmp_path/'encoder', tmp_path/'index'
    encoder.mkdir()
    StaticEncoder.create(tokenizer, bag_texts(tokenizer, texts), EncoderSettings(dim=32), 0).save(encoder)
    build = ['build-index', '--encoder', encoder, '--corpus', arguments, '--output', index]
    assert main([*map(str, build), '--hnsw_m', '8', '--cache_dir', str(tmp_path/'cache')]) == 0
    one = ['--encoder', encoder, '--index', index, '--output', tmp_path/'out']
    given = {
        'run-evaluation': [*one, '--queries', arguments/'qrels'/'test.tsv', '--k_values', 1, 10],
        'run-ef-sweep': [*one, '--queries', arguments/'qrels'/'test.tsv', '--rounds', 0, '--draws', 20],
        'run-ablation': [
            '--encoders', f'A={encoder}', '--indexes', f'A={index}', '--queries', arguments/'qrels'/'test.tsv',
            '--rounds', 0, '--draws', 20, '--dataset_name', 'x', '--output', tmp_path/'out'],
        'diagnose': [
            '--encoder', encoder, '--corpus', arguments, '--queries', arguments/'qrels'/'test.tsv', '--output',
            tmp_path/'out'],
    }
    def run(command, *more):
        return main([command, *map(str, [*given[command], *more]), '--cache_dir', str(tmp_path/'cache')])
    return run


@pytest.mark.parametrize('command', ['run-evaluation', 'run-ef-sweep', 'run-ablation', 'diagnose'])
def test_every_command_says_that_questions_are_left_out(argued, command, capsys):
    for keep in ([], ['--keep_self']):
        assert argued(command, *keep) == 0
        assert ("60 q" in (said := capsys.readouterr().out) and 'stand in the corpus themselves' in said) == (not keep)


def test_a_sweep_leaves_a_question_out_too(arguments, tmp_path):
    quiet = Reading(tmp_path/'cache', show_progress=False)
    passages, questions = open_passages(arguments, quiet), open_questions(arguments/'qrels'/'test.tsv', quiet)
    own = own_passages(passages, questions)
    rows = np.stack([own, own + 1], axis=1) # itself first, then what is sought
    values = {
        keep: TaskJudge(questions, passages, True, 2, None if keep else own)(rows)['ndcg@2'].mean()
        for keep in (False, True)}
    assert values[False] == 1 and values[True] == pytest.approx(1 / np.log2(3))


@pytest.mark.parametrize('engine', ['faiss', 'patience', 'usearch'])
def test_a_sweep_judges_k_results_beside_the_question_itself(arguments, tmp_path, engine):
    "What is sought stands in the eleventh place, and the question itself before it: it is the tenth result."
    quiet = Reading(tmp_path/'cache', show_progress=False)
    passages, questions = open_passages(arguments, quiet), open_questions(arguments/'qrels'/'test.tsv', quiet)
    own = own_passages(passages, questions)
    rng = np.random.default_rng(0)
    unit = lambda x: (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype('f4')
    x = unit(rng.normal(size=(len(passages), 16)))
    ranked = exact_search(x[own], x, 11)
    assert (ranked[:, 0] == own).all()
    index = build_index(
        toy_vectors(x), passages, tmp_path/'index', IndexSettings(m=16, ef_construction=100), show_progress=False)
    retriever = SimpleNamespace(index=index, passages=passages, encode=lambda *_: x[own])
    judge = TaskJudge(questions, passages, True, 10, own)
    judge.judged.relevant = [{int(rows[10]): 1} for rows in ranked]
    s = SearchSettings(ef_values=(10, 40, 120), targets=(.9,))
    found = sweep_index(retriever, questions, s, engine=engine, show_progress=False, judge=judge).sweep
    assert found.exact['recall@10'].mean() == 1 and found.values['recall@10'][-1].mean() > .95
    # efSearch 10 finds ten, one of which is itself
    if engine != 'patience': assert found.values['recall@10'][0].mean() < .1
    assert found.values['ann recall'].max() <= 1


def test_a_diagnosis_judges_k_results_beside_the_query_itself():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 16)).astype('f4')
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    own = np.arange(40)
    ranked = exact_search(x[own], x, 101)
    for place in (10, 100):
        a = analyse(
            x[own], x, OthersJudged([{int(row): 1} for row in ranked[:, place]], own),
            s=SearchSettings(m=8, ef_construction=80))
        assert a.facts[f'recall@{place}'] == 1 and a.facts['recall@5'] == 0 and (a.ranks == place).all()
        if place == 10: assert a.sweep.exact['recall@10'].mean() == 1 and a.sweep.values['recall@10'].max(0).mean() > .9


def test_metrics_are_kept_whatever_the_ids(evaluated, tmp_path):
    passages = [Passage(f'chapter {i}/sec 2.txt', t) for i, t in enumerate(TEXTS)]
    questions = [Question(t, (Context(passage_id=passages[n].id),), id=f'q {n}%') for n, t in enumerate(ASKED)]
    m, said = evaluated(passages, questions)
    assert m['metrics']['recall@1'] == .5 and m['ids_quoted'] and 'percent-quoted' in said
    lines = [line.split() for line in (tmp_path/'out'/'x'/'x-test.run.trec').read_text().splitlines()]
    assert all(len(line) == 6 for line in lines)
    assert [unquote(x) for x in lines[0][::2][:2]] == ['q 0%', 'chapter 0/sec 2.txt']


def test_answers_that_are_patterns(tmp_path, evaluated):
    (tmp_path/'x-test.csv').write_text(
        "when was he born\t['18(79|80)']\nhow long is the bridge\t['2,?737 (metres|m)']\n")
    passages = numbered(['he was born in 1879 in ulm', 'the bridge is 2,737 metres long'])
    test = tmp_path/'x-test.csv'
    assert evaluated(passages, test, regex_answers=True)[0]['metrics']['answer accuracy@1'] == 1
    assert evaluated(passages, test)[0]['metrics']['answer accuracy@1'] == 0
    test.write_text("when was he born\t['18(79']\n")
    with pytest.raises(DaclError, match=re.escape("x-test.csv: question 1: answer '18(79' is no regular expression")):
        evaluated(passages, test, regex_answers=True)


def test_patterns_match_as_dpr_matches_them():
    rule = answer_rule(True)
    def dpr(text, pattern): # qa_validation.py's has_answer with match_type 'regex'
        import unicodedata
        normal = lambda x: unicodedata.normalize('NFD', x)
        return re.compile(
            normal(pattern), flags=re.IGNORECASE + re.UNICODE + re.MULTILINE).search(normal(text)) is not None
    texts = ['Born in 1879.\nÉcole', 'the U.S. of A', 'a\nb', '', 'Zoë']
    for pattern in ('^École$', r'18\d\d', 'u.s.', '^b', r'\bZoe', 'zoë', '.*', 'x|y'):
        for text in texts:
            assert rule.holds(rule.answers([pattern]), rule.text(text)) == dpr(text, pattern), (pattern, text)


def test_nothing_found_for_most_questions_is_an_error(tmp_path):
    corpus = write_passages(tmp_path/'psgs.tsv', numbered(TEXTS))
    train = write_questions(
        tmp_path/'x-train.json', [Question(t, (Context(passage_id='1'),)) for t in ('Ποιος;', 'Πού;', 'nile')])
    o = Bm25Negatives(
        corpus_file=str(corpus), train_file=str(train), output_path=str(tmp_path/'o.json'),
        reading=Reading(tmp_path/'cache', show_progress=False))
    with pytest.raises(DaclError, match='BM25 finds nothing for 2 of 3 questions'): bm25_negatives(o)
    assert not (tmp_path/'o.json').exists()


@pytest.mark.parametrize('read', ['x-train.json', './x-train.json', 'psgs.json'])
def test_negatives_are_not_written_over_what_is_read(tmp_path, read, monkeypatch):
    monkeypatch.chdir(tmp_path)
    corpus = write_passages(tmp_path/'psgs.json', numbered(TEXTS)) # a corpus of an odd name
    train = write_questions(tmp_path/'x-train.json', ask([''] * 6))
    before = {f: f.read_bytes() for f in (corpus, train)}
    with pytest.raises(DaclError, match='is read from, and would be written over; give another --output'):
        bm25_negatives(
            Bm25Negatives(
                corpus_file=str(corpus), train_file=str(train), output_path=read,
                reading=Reading(tmp_path/'cache', show_progress=False)))
    assert {f: f.read_bytes() for f in before} == before


def test_repeat_takes_the_folder_with_the_results(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv('DACL_CACHE', str(tmp_path/'cache'))
    corpus, test = write_passages(tmp_path/'psgs.tsv', numbered(TEXTS)), write_questions(
        tmp_path/'x-test.json', ask([''] * 6))
    for name in ('one', 'two'):
        assert main([
            'bm25-eval', '--corpus_file', str(corpus), '--test_file', str(test), '--output_path', str(tmp_path/'out'),
            '--dataset_name', name]) == 0
    assert main(['repeat', str(tmp_path/'out'/'two'), '--output_dir', str(tmp_path/'again')]) == 0
    assert 'all the same' in capsys.readouterr().out and (tmp_path/'again'/'two'/'x-test.metrics.json').is_file()
