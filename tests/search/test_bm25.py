"BM25: both engines against each other, against bm25s's own index, and what can go wrong on disk."
import json, os, subprocess, sys, tempfile
from pathlib import Path
from types import SimpleNamespace

import bm25s
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from rank_bm25 import BM25Okapi

from dacl_dr.search.bm25 import Analyzer, Bm25Settings, RankBm25, best, bm25_index, bm25_search, words
from dacl_dr.search.bm25_disk import (
    Runs, TermIds, bm25_engine, bm25_open, build_bm25, open_bm25, write_index, write_runs,
)
from dacl_dr.core.errors import DaclError

ROOT = Path(__file__).resolve().parents[2]
FILES = [
    'data.csc.index.npy', 'indices.csc.index.npy', 'indptr.csc.index.npy', 'manifest.json', 'params.index.json',
    'settings.json', 'vocab.index.json']


def random_texts(rng, n, vocabulary=30, longest=40):
    "Passages of random words, some empty, and a last one that is not."
    return [
        ' '.join(f'w{i}' for i in rng.integers(0, vocabulary, rng.integers(0, longest))) for _ in range(n)
    ] + ['w0 once']


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_same_scores_as_rank_bm25(seed):
    rng = np.random.default_rng(seed)
    texts = [' '.join(f'w{i}' for i in rng.integers(0, 30, rng.integers(3, 40))) for _ in range(rng.integers(5, 60))]
    queries = [' '.join(f'w{i}' for i in rng.integers(0, 30, 4)) for _ in range(5)]
    docs = [words(t) for t in texts]
    reference = BM25Okapi(docs, k1=1.5, b=.75)
    df = {t: sum(t in d for d in docs) for d in docs for t in d}
    reference.idf = {t: np.log(1 + (len(docs) - n + .5) / (n + .5)) for t, n in df.items()}
    rows, scores = bm25_search(bm25_index(texts), queries, len(texts), show_progress=False)
    for q, row, score in zip(queries, rows, scores):
        expected = reference.get_scores(words(q)) / 2.5
        assert np.allclose(score, expected[row], atol=1e-4)
        assert sorted(row) == list(range(len(texts)))


def test_k_is_capped_and_unknown_words_score_nothing():
    rows, scores = bm25_search(bm25_index(['alpha beta', 'gamma delta']), ['epsilon'], 10, show_progress=False)
    assert rows.shape == (1, 2) and (scores == 0).all()


SETTINGS = st.builds(Bm25Settings, k1=st.sampled_from([.9, 1.5]), b=st.sampled_from([0., .4, .75, 1.]))

@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), k=st.integers(1, 80), bm25=SETTINGS)
def test_engines_agree(seed, k, bm25, tmp_path_factory):
    rng = np.random.default_rng(seed)
    texts = random_texts(rng, rng.integers(1, 60))
    queries = [*random_texts(rng, 5, 35, 6), '', 'unknown words only']
    n, batch = len(texts), int(rng.integers(1, 20))
    index = open_bm25(
        build_bm25((texts[i:i + batch] for i in range(0, n, batch)), tmp_path_factory.mktemp('bm25')/'index', bm25))
    rank = RankBm25(texts, bm25)
    (rows, scores), (rank_rows, rank_scores) = index.search(queries, k, False), rank.search(queries, k, False)
    assert rows.shape == scores.shape == (len(queries), k) and rows.dtype == np.int64 and scores.dtype == np.float32
    assert np.allclose(scores, rank_scores, atol=1e-4)
    assert ((rows < 0) == (rank_rows < 0)).all()
    assert (rows[-2:] == -1).all()
    for q, row, score in zip(queries, rows, scores):
        expected = rank.scores(words(q))
        kept = row[row >= 0]
        assert len(kept) == min(k, (expected > 0).sum()) == len(set(kept)) and (score[len(kept):] == 0).all()
        # the same ranking, but for sums that differ in rounding
        assert np.allclose(expected[kept], np.sort(expected)[::-1][:len(kept)], atol=1e-4)
        assert all(s > t or (s == t and i < j) for s, t, i, j in zip(score, score[1:], kept, kept[1:]))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=40), st.integers(1, 50))
def test_best_is_a_stable_sort(scores, k):
    scores = np.array(scores, np.float32)
    order = np.argsort(-scores, kind='stable')[:k]
    rows, found = best(scores, k)
    assert rows.tolist() == order[scores[order] > 0].tolist() and found.tolist() == scores[rows].tolist()


@pytest.mark.parametrize('engine', ['rank_bm25', 'bm25s'])
def test_ties_go_to_the_smaller_row(engine, tmp_path):
    texts = ['other thing'] + ['same text here'] * 50 + ['same text here indeed']
    rows, scores = bm25_open(engine, [texts], len(texts), tmp_path/'index').search(['same text'], 20, False)
    assert rows[0].tolist() == list(range(1, 21)) and len(set(scores[0].tolist())) == 1


@pytest.mark.parametrize('run_tokens, block', [(50, 1), (300, 40), (1 << 24, 1 << 23)])
@pytest.mark.parametrize('analyzer', [Analyzer(), Analyzer(stopwords='en', stemmer='english')])
def test_the_same_arrays_as_bm25s(analyzer, run_tokens, block, tmp_path):
    rng = np.random.default_rng(3)
    texts = [t + ' the readers reading' * (i % 3) for i, t in enumerate(random_texts(rng, 90, 60))]
    bm25 = Bm25Settings(k1=.9, b=.4, analyzer=analyzer)
    runs, ids = Runs(tmp_path), TermIds(analyzer)
    write_index(
        tmp_path, runs, write_runs([texts[:33], texts[33:]], runs, ids, run_tokens=run_tokens), len(ids.terms), bm25,
        block)
    theirs = bm25s.BM25(method='lucene', k1=.9, b=.4)
    theirs.index([analyzer(t) for t in texts], show_progress=False)
    assert len(runs.ends) > 2 or run_tokens > 1000
    assert ids.terms.keys() | {''} == theirs.vocab_dict.keys()
    ours = {name: np.load(tmp_path/f'{name}.csc.index.npy') for name in ('data', 'indices', 'indptr')}
    for name in ours:
        assert ours[name].dtype == theirs.scores[name].dtype and len(ours[name]) == len(theirs.scores[name])
    for term, i in ids.terms.items():
        j = theirs.vocab_dict[term]
        a, b = (slice(*s['indptr'][n:n + 2]) for s, n in ((ours, i), (theirs.scores, j)))
        assert ours['indices'][a].tolist() == theirs.scores['indices'][b].tolist()
        assert np.abs(ours['data'][a] - theirs.scores['data'][b]).max() <= 1e-7


def test_bm25s_itself_opens_the_folder(tmp_path):
    texts = random_texts(np.random.default_rng(0), 40)
    folder = build_bm25([texts], tmp_path/'index')
    assert sorted(f.name for f in folder.iterdir()) == FILES
    theirs = bm25s.BM25.load(folder, mmap=True, load_corpus=False)
    queries = ['w1 w2 w3', 'w4']
    scores = theirs.retrieve([words(q) for q in queries], k=10, show_progress=False).scores
    assert np.allclose(scores, open_bm25(folder).search(queries, 10, False)[1], atol=1e-6)


def test_another_process_finds_the_same(tmp_path):
    texts = random_texts(np.random.default_rng(1), 40)
    index = open_bm25(
        build_bm25([texts], tmp_path/'index', Bm25Settings(analyzer=Analyzer(stemmer='english', stopwords='en'))))
    code = (
        'import json, sys\nfrom dacl_dr.search.bm25_disk import open_bm25\n'
        'print(json.dumps([x.tolist() for x in open_bm25(sys.argv[1]).search(["w1 w2", "the"], 7, False)]))')
    out = subprocess.run(
        [sys.executable, '-c', code, tmp_path/'index'], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert json.loads(out) == [x.tolist() for x in index.search(['w1 w2', 'the'], 7, False)]
    assert isinstance(index.model.scores['data'].base, np.memmap)


def one_line(error, *parts):
    assert len(str(error.value).splitlines()) == 1
    for p in parts: assert p in str(error.value)


@pytest.mark.parametrize('name', FILES)
@pytest.mark.parametrize('damage', ['missing', 'empty', 'head', 'cut', 'junk', 'list', 'object'])
def test_damaged_index(name, damage, tmp_path):
    folder = build_bm25([random_texts(np.random.default_rng(2), 40)], tmp_path/'index')
    f = folder/name
    if damage == 'missing': f.unlink()
    else:
        f.write_bytes(
            {
                'empty': b'', 'head': f.read_bytes()[:-1][:128], 'cut': f.read_bytes()[:-20],
                'junk': b'\x80\x04junk' * 100, 'list': b'[1]', 'object': b'{"a": 1}'}[damage])
    with pytest.raises(DaclError) as e: open_bm25(folder)
    one_line(e, str(folder), 'not a whole BM25 index', 'build it again')


def test_no_folder(tmp_path):
    with pytest.raises(DaclError) as e: open_bm25(tmp_path/'none')
    one_line(e, 'none', 'No such file or directory')


def test_files_of_two_indexes_do_not_fit(tmp_path):
    a, b = (build_bm25([random_texts(np.random.default_rng(s), 40)], tmp_path/str(s)) for s in (1, 2))
    os.replace(a/'indices.csc.index.npy', b/'indices.csc.index.npy')
    with pytest.raises(DaclError) as e: open_bm25(b)
    one_line(e, 'indices.csc.index.npy is not what was written')


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path):
    code = (
        'import resource, sys\nfrom dacl_dr.search.bm25_disk import build_bm25\n'
        'from dacl_dr.core.errors import DaclError\n'
        'resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))\n'
        'try: build_bm25([[f"w{i} x" for i in range(1000)]], sys.argv[1])\n'
        'except DaclError as e: print(e)')
    out = subprocess.run(
        [sys.executable, '-c', code, tmp_path/'index'], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert 'cannot write the BM25 index' in out and len(out.splitlines()) == 1 and not list(tmp_path.iterdir())


def test_too_little_room_is_said_before_the_second_pass(tmp_path, monkeypatch):
    monkeypatch.setattr('shutil.disk_usage', lambda path: SimpleNamespace(free=10))
    with pytest.raises(DaclError) as e: build_bm25([['a b', 'c']], tmp_path/'index')
    one_line(e, 'GB are free', 'choose another folder')
    assert not list(tmp_path.iterdir())


def test_a_broken_source_leaves_nothing(tmp_path):
    def batches():
        yield ['a b']
        raise DaclError('psgs.tsv line 7: broken')
    with pytest.raises(DaclError, match='line 7'): build_bm25(batches(), tmp_path/'index')
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('k', [0, -1])
def test_k_must_be_positive(k):
    with pytest.raises(DaclError) as e: RankBm25(['a']).search(['a'], k)
    one_line(e, 'ask for at least 1')


@pytest.mark.parametrize('engine', ['rank_bm25', 'bm25s'])
@pytest.mark.parametrize('texts', [[], [''], ['?!', '']])
def test_nothing_to_index(engine, texts, tmp_path):
    with pytest.raises(DaclError) as e: bm25_open(engine, [texts], len(texts), tmp_path/'index')
    one_line(e, 'no passage holds a word')


def test_built_once_and_only_reused_for_the_same(tmp_path):
    texts = ['alpha beta', 'gamma']
    bm25_open('bm25s', [texts], 2, tmp_path/'index')
    def never():
        raise AssertionError('read again')
        yield
    assert bm25_open('bm25s', never(), 2, tmp_path/'index').search(['gamma'], 1, False)[0].tolist() == [[1]]
    for n, bm25 in ((3, Bm25Settings()), (2, Bm25Settings(analyzer=Analyzer(stopwords='en')))):
        with pytest.raises(DaclError) as e: bm25_open('bm25s', never(), n, tmp_path/'index', bm25)
        one_line(e, 'holds a BM25 index of 2 passages')
    bm25_open('auto', [texts], 2, tmp_path/'small')
    assert not (tmp_path/'small').exists()


def test_engine():
    assert [
        bm25_engine(name, n) for name, n in (('auto', 10), ('auto', 21_015_324), ('rank_bm25', 10**9), ('bm25s', 1))
    ] == ['rank_bm25', 'bm25s', 'rank_bm25', 'bm25s']
    with pytest.raises(DaclError) as e: bm25_engine('rank-bm25', 1)
    one_line(e, "unknown BM25 engine 'rank-bm25'. Did you mean 'rank_bm25'?")


@pytest.mark.parametrize(
    'kwargs, parts',
    [
        ({'stemmer': 'klingon'}, ["unknown stemmer 'klingon'", 'english']),
        ({'stopwords': 'frensh'}, ["unknown stop words 'frensh'", "'french'"])])
def test_unknown_analyzer(kwargs, parts):
    with pytest.raises(DaclError) as e: Analyzer(**kwargs)
    one_line(e, *parts)


@pytest.mark.parametrize('engine', ['rank_bm25', 'bm25s'])
def test_queries_and_passages_are_analysed_alike(engine, tmp_path):
    texts = ['The readers of maxValue', 'a reading', 'nothing']
    def found(query, **kwargs):
        rows = bm25_open(
            engine, [texts], 3, tmp_path/str(kwargs), Bm25Settings(analyzer=Analyzer(**kwargs))
        ).search([query], 3, False)[0][0]
        return sorted(rows[rows >= 0].tolist())
    assert found('reader reads') == [] and found('reader reads', stemmer='english') == [0, 1]
    assert found('the a') == [0, 1] and found('the a', stopwords='en') == []
    assert found('value') == [0] and found('value', identifiers=False) == []


@given(st.text())
@settings(deadline=None)
def test_default_analyzer_is_words(text): assert Analyzer()(text) == words(text)


@settings(deadline=None)
@given(st.lists(st.text(), min_size=1, max_size=8))
def test_any_text_can_be_indexed(texts):
    "Words of every script survive the vocabulary file."
    if not any(map(words, texts)): return
    with tempfile.TemporaryDirectory() as d:
        index = open_bm25(build_bm25([texts], Path(d)/'index'))
        assert np.allclose(
            index.search(texts, len(texts), False)[1], RankBm25(texts).search(texts, len(texts), False)[1], atol=1e-4)
