"bm25s against rank_bm25 on random corpora."
import numpy as np
from hypothesis import given, settings, strategies as st
from rank_bm25 import BM25Okapi

from dacl_dr.bm25 import bm25_index, bm25_search, words


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
