"One exact search behind two names: in one piece or in blocks, with ties, and on a GPU where faiss has one."
import faiss
import numpy as np
import pytest

from dacl_dr.search.exact import GPU_MOST, InMemory, exact_search, top_k


def draw(seed, n, ties):
    rng = np.random.default_rng(seed)
    return (rng.integers(-2, 3, (n, 6)) if ties else rng.normal(size=(n, 6))).astype('f4')


@pytest.mark.parametrize('ties', [False, True])
@pytest.mark.parametrize('queries', [3, 50]) # below 20 faiss does without BLAS
@pytest.mark.parametrize('k', [1, 30, 150, 700])
def test_in_one_piece_it_is_faiss_knn(ties, queries, k):
    q, x = draw(1, queries, ties), draw(2, 700, ties)
    scores, rows = faiss.knn(q, x, k, metric=faiss.METRIC_INNER_PRODUCT)
    np.testing.assert_array_equal(exact_search(q, x, k), rows)
    for found, expected in zip(top_k(q, [(0, x)], k), (scores, rows)): np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize('size', [1, 64, 699, 700])
def test_both_names_give_the_same(size):
    q, x = draw(1, 25, True), draw(2, 700, True)
    np.testing.assert_array_equal(
        exact_search(q, InMemory(x), 40, block=size), top_k(q, InMemory(x).blocks(size), 40)[1])


def test_k_above_the_pool():
    q, x = draw(1, 4, False), draw(2, 5, False)
    assert exact_search(q, x, 9).shape == (4, 5)
    assert (top_k(q, [(0, x)], 9)[1][:, 5:] == -1).all()


@pytest.fixture
def gpu(monkeypatch):
    "A faiss that says it has a GPU; its searches are noted."
    asked = []
    def knn_gpu(resources, queries, vectors, k, metric):
        assert resources == 'gpu' and queries.dtype == vectors.dtype == np.float32
        asked.append((len(vectors), k))
        return faiss.knn(queries, vectors, k, metric=metric)
    monkeypatch.setattr(faiss, 'get_num_gpus', lambda: 1, raising=False)
    monkeypatch.setattr(faiss, 'StandardGpuResources', lambda: 'gpu', raising=False)
    monkeypatch.setattr(faiss, 'knn_gpu', knn_gpu, raising=False)
    return asked


def test_both_search_on_a_gpu_where_faiss_has_one(gpu):
    q, x = draw(1, 4, False), draw(2, 500, False)
    expected = faiss.knn(q, x, 7, metric=faiss.METRIC_INNER_PRODUCT)[1]
    np.testing.assert_array_equal(top_k(q, [(0, x)], 7)[1], expected)
    np.testing.assert_array_equal(exact_search(q.astype('f8'), x.astype('f8'), 7, block=300), expected)
    assert gpu == [(500, 7), (300, 7), (200, 7)]


def test_more_neighbours_than_a_gpu_keeps_are_searched_without_it(gpu):
    q, x = draw(1, 2, False), draw(2, GPU_MOST + 2, False)
    assert exact_search(q, x, GPU_MOST + 1).shape == (2, GPU_MOST + 1)
    assert gpu == []
