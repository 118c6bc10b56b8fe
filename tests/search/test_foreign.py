"Index files of other programs: what they hold, their graphs link by link, and those that are refused."
import importlib.util, struct
from pathlib import Path

import faiss
import numpy as np
import pytest
from usearch.index import Index as Usearch

from dacl_dr.core.errors import DaclError
from dacl_dr.search.foreign import open_index
from dacl_dr.search.foreign_faiss import stored_vectors

HNSWLIB = importlib.util.find_spec('hnswlib') # it has no wheels; pip install '.[hnswlib]' compiles it
needs_hnswlib = pytest.mark.skipif(not HNSWLIB, reason="hnswlib is not installed: pip install '.[hnswlib]'")
MADE = Path(__file__).with_name('hnswlib.bin') # by hnswlib 0.8.0, of the vectors of `made_vectors`

N, D = 600, 12
RNG = np.random.default_rng(5)
RAW = RNG.normal(size=(N, D)).astype('f4')
X = RAW / np.linalg.norm(RAW, axis=1, keepdims=True)
Q = RNG.normal(size=(40, D)).astype('f4')
Q /= np.linalg.norm(Q, axis=1, keepdims=True)
LONG = X * RNG.uniform(.5, 3, (N, 1)).astype('f4')


def made_vectors():
    "Vectors of whole numbers, the same on every machine."
    return ((np.arange(120 * 4).reshape(120, 4) * 7919 + 13) % 101 % 17).astype('f4')


def built(text='HNSW8,Flat', x=X, metric=faiss.METRIC_INNER_PRODUCT):
    index = faiss.index_factory(D, text, metric)
    index.train(x)
    index.add(x)
    return index


@pytest.fixture
def opened(tmp_path):
    "Write an index of faiss and open it."
    def of(index, dim=None):
        faiss.write_index(index, str(tmp_path/'x'))
        return open_index(tmp_path/'x', dim)
    return of


@pytest.fixture
def refused(tmp_path):
    "The one line that a file is refused with."
    def of(index_or_bytes, dim=None):
        if isinstance(index_or_bytes, bytes): (tmp_path/'x').write_bytes(index_or_bytes)
        else: faiss.write_index(index_or_bytes, str(tmp_path/'x'))
        with pytest.raises(DaclError) as e: open_index(tmp_path/'x', dim)
        assert str(tmp_path/'x') in str(e.value) and '\n' not in str(e.value)
        return str(e.value)
    return of


def same_search(found, index, ef=30, k=10):
    "Does faiss find the same in what was opened?"
    (found.index.hnsw.efSearch, index.hnsw.efSearch) = ef, ef
    ids = found.ids[found.index.search(Q, k)[1]]
    return np.array_equal(ids, index.search(Q, k)[1])


def graph(hnsw):
    return [faiss.vector_to_array(a) for a in (hnsw.neighbors, hnsw.offsets, hnsw.levels)] + [hnsw.entry_point]


@pytest.mark.parametrize('metric', [faiss.METRIC_INNER_PRODUCT, faiss.METRIC_L2])
def test_a_plain_graph_of_faiss_is_what_it_was(opened, metric):
    index = built(metric=metric)
    found = opened(index, D)
    assert (found.maker, found.m, found.ef_construction, found.again, found.told) == ('faiss', 8, 40, False, ())
    assert found.metric == ('l2' if metric == faiss.METRIC_L2 else 'ip')
    for a, b in zip(graph(found.index.hnsw), graph(index.hnsw)): assert np.array_equal(a, b)
    assert np.array_equal(stored_vectors(faiss.downcast_index(found.index.storage)), X)
    assert np.array_equal(found.ids, np.arange(N)) and same_search(found, index)


@pytest.mark.parametrize('kind', [faiss.IndexIDMap, faiss.IndexIDMap2])
def test_labels_become_ids(opened, kind):
    outer = kind(faiss.IndexHNSWFlat(D, 8))
    outer.add_with_ids(LONG, np.arange(N)[::-1] * 5)
    found = opened(outer)
    assert np.array_equal(found.ids, np.arange(N)[::-1] * 5) and found.metric == 'l2' and not found.again
    assert np.array_equal(found.ids[found.index.search(Q, 5)[1]], outer.search(Q, 5)[1])


def test_labels_around_inverted_lists(opened):
    outer = faiss.IndexIDMap2(faiss.index_factory(D, 'IVF4,Flat'))
    outer.train(X)
    outer.add_with_ids(X, np.arange(N) + 100)
    found = opened(outer)
    assert found.again and np.array_equal(found.ids, np.arange(N) + 100)
    assert np.array_equal(stored_vectors(faiss.downcast_index(found.index.storage)), X)


@pytest.mark.parametrize('text, exact', [('HNSW8,SQfp16', False), ('HNSW8,SQbf16', False), ('HNSW8,SQ8,RFlat', True)])
def test_vectors_are_taken_where_they_are(opened, text, exact):
    index = built(text)
    found = opened(index)
    x = stored_vectors(faiss.downcast_index(found.index.storage))
    assert not found.again and len(found.told) == 1 and x.shape == X.shape
    assert np.array_equal(x, X) if exact else np.abs(x - X).max() < 4e-3
    if not exact: assert same_search(found, index)
    else: assert (found.index.search(X[:50], 1)[1][:, 0] == np.arange(50)).mean() > .9


def test_normalising_alone_changes_nothing(opened):
    found = opened(built('L2norm,HNSW8,Flat', LONG))
    assert np.allclose(stored_vectors(faiss.downcast_index(found.index.storage)), X, atol=1e-6)


@pytest.mark.parametrize('text', ['Flat', 'IVF8,Flat', 'NSG8,Flat', 'SQfp16'])
def test_vectors_without_a_graph_are_indexed_again(opened, text):
    found = opened(built(text, metric=faiss.METRIC_L2))
    assert found.again and (found.m, found.ef_construction) == (32, 200)
    assert 'its 600 vectors were indexed again, M 32, efConstruction 200' in found.told[-1]
    assert np.abs(stored_vectors(faiss.downcast_index(found.index.storage)) - X).max() < 1e-3
    truth = faiss.knn(Q, X, 1)[1]
    assert np.array_equal(found.index.search(Q, 1)[1], truth)


def test_ids_given_to_inverted_lists_are_kept(opened):
    index = faiss.index_factory(D, 'IVF8,Flat')
    index.train(X)
    index.add_with_ids(X, np.arange(N)[::-1] * 3)
    found = opened(index)
    assert np.array_equal(found.ids, np.arange(N) * 3)
    assert np.array_equal(stored_vectors(faiss.downcast_index(found.index.storage)), X[::-1])


@pytest.mark.parametrize('text, said', [
    ('HNSW8,SQ8', 'IndexHNSWSQ holds codes of 8 bits a dimension, not float vectors'),
    ('HNSW8,PQ4x4', 'IndexHNSWPQ holds codes of 1.33 bits'),
    ('PQ4x4', 'IndexPQ holds codes'),
    ('IVF4,PQ4x4', 'IndexIVFPQ holds codes'),
    ('HNSW8,SQ8,Refine(SQ8)', 'holds codes of 8 bits'),
])
def test_codes_are_no_vectors(refused, text, said):
    message = refused(built(text, X))
    assert said in message and 'give the vectors with --vectors' in message


def test_a_transformation_is_refused(refused):
    assert 'turns 12 dimensions into 6 before it searches (PCAMatrix)' in refused(built('PCA6,HNSW8,Flat'))


def test_inner_products_of_long_vectors_are_refused(refused):
    assert 'not of norm 1), where a graph loses its way' in refused(built(x=LONG))
    assert 'not of norm 1), where a graph loses its way' in refused(built('Flat', LONG))


def test_other_metrics_are_refused(refused):
    assert 'compares by metric 2 of faiss' in refused(built('Flat', metric=faiss.METRIC_L1))


def test_what_is_not_finite_is_refused(refused):
    x = X.copy()
    x[7, 3] = np.nan
    assert 'vector 7 is not finite' in refused(built('Flat', x, faiss.METRIC_L2))


def test_an_empty_index(refused):
    assert 'holds no vectors' in refused(faiss.IndexHNSWFlat(D, 8))
    assert 'holds no vectors' in refused(faiss.IndexIDMap2(faiss.IndexHNSWFlat(D, 8)))


def test_queries_of_another_dimension(refused):
    assert 'have 12 dimensions and the queries 16' in refused(built(), 16)


@pytest.mark.parametrize('content, said', [
    (b'', 'is empty'), (b'x', 'is no index of faiss, hnswlib or usearch'), (b'Identity of a text\n' * 9, 'is no index'),
    (b'IHNf', 'is damaged (it is cut)'), (b'\x93NUMPY' + bytes(200), 'is no index'), (bytes(300), 'is no index'),
])
def test_what_is_no_index(refused, content, said):
    assert said in refused(content)


def whole_files(tmp_path):
    "One file of each program."
    faiss.write_index(built(), str(tmp_path/'faiss'))
    index = Usearch(ndim=D, metric='cos', dtype='f32', connectivity=8)
    index.add(np.arange(N), X, threads=1)
    index.save(str(tmp_path/'usearch'))
    return {
        'faiss': (tmp_path/'faiss').read_bytes(), 'usearch': (tmp_path/'usearch').read_bytes(),
        'hnswlib': MADE.read_bytes()}


def test_a_file_that_is_cut(refused, tmp_path):
    for name, whole in whole_files(tmp_path).items():
        for share in (.02, .2, .5, .8, .99):
            message = refused(whole[:int(share * len(whole))])
            assert 'is damaged' in message or (name == 'usearch' and 'is no index' in message), name
        if name != 'faiss': assert 'is damaged' in refused(whole + b'abcd') # faiss takes what follows for another's


def test_damage_never_leads_out_of_the_index(tmp_path):
    "Bytes changed at random: either one line, or an index that can be searched."
    rng, kept = np.random.default_rng(3), 0
    for name, whole in whole_files(tmp_path).items():
        for _ in range(120):
            spoiled = np.frombuffer(whole, np.uint8).copy()
            spoiled[rng.integers(0, len(spoiled) if rng.random() < .7 else 200, 4)] = rng.integers(0, 256, 4)
            (tmp_path/'x').write_bytes(spoiled.tobytes())
            try: found = open_index(tmp_path/'x')
            except DaclError as e: assert '\n' not in str(e)
            else:
                kept += 1
                found.index.search(np.zeros((2, found.index.d), 'f4'), 3)
    assert kept > 20


# usearch

def usearch_file(path, x=X, metric='cos', dtype='f32', removed=()):
    index = Usearch(ndim=D, metric=metric, dtype=dtype, connectivity=8, expansion_add=60)
    index.add(np.arange(len(x)) * 2 + 1, x, threads=1)
    for key in removed: index.remove(key)
    index.save(str(path))
    return index


@pytest.mark.parametrize('metric', ['ip', 'cos', 'l2sq'])
@pytest.mark.parametrize('ef', [10, 25, 80])
def test_the_graph_of_usearch_finds_the_same(tmp_path, metric, ef):
    x = X if metric == 'ip' else LONG
    index = usearch_file(tmp_path/'x', x, metric)
    index.expansion_search = ef
    found = open_index(tmp_path/'x', D)
    found.index.hnsw.efSearch = ef
    assert (found.maker, found.m, found.ef_construction, found.again) == ('usearch', 8, None, False)
    assert found.metric == ('l2' if metric == 'l2sq' else 'ip')
    assert np.array_equal(found.ids[found.index.search(Q, 10)[1]], index.search(Q, 10).keys)


@pytest.mark.parametrize('dtype, close', [('f16', 1e-3), ('bf16', 1e-2), ('f64', 1e-7)])
def test_other_floats_of_usearch(tmp_path, dtype, close):
    usearch_file(tmp_path/'x', X, 'cos', dtype)
    found = open_index(tmp_path/'x')
    assert np.allclose(stored_vectors(faiss.downcast_index(found.index.storage)), X, atol=close)
    assert 'read as float32' in found.told[0]


def test_removed_ones_of_usearch_are_left_out(tmp_path):
    usearch_file(tmp_path/'x', removed=(1, 21))
    found = open_index(tmp_path/'x')
    assert found.again and len(found.ids) == N - 2 and not {1, 21} & set(found.ids.tolist())
    assert '2 of 600 nodes are removed' in found.told[0] and 'M 8' in found.told[0]


def test_what_is_refused_of_usearch(refused, tmp_path):
    usearch_file(tmp_path/'y', dtype='i8')
    assert 'holds codes of 8 bits' in refused((tmp_path/'y').read_bytes())
    usearch_file(tmp_path/'y', LONG, 'ip')
    assert 'where a graph loses its way' in refused((tmp_path/'y').read_bytes())
    Usearch(ndim=D, metric='cos', dtype='f32').save(str(tmp_path/'y'))
    assert 'holds no vectors' in refused((tmp_path/'y').read_bytes())


# hnswlib

def test_a_file_of_hnswlib_needs_no_hnswlib(tmp_path):
    found = open_index(MADE, 4)
    assert (found.maker, found.metric, found.m, found.ef_construction, found.again) == ('hnswlib', 'l2', 5, 50, False)
    x = made_vectors()
    assert np.array_equal(found.ids, np.arange(120) + 1000)
    assert np.array_equal(stored_vectors(faiss.downcast_index(found.index.storage)), x)
    found.index.hnsw.efSearch = 60
    d, ids = found.index.search(x[:30], 5)
    assert np.array_equal(d, faiss.knn(x[:30], x, 5)[0])


def hnswlib_file(path, x, space, m=8):
    import hnswlib
    index = hnswlib.Index(space, D)
    index.init_index(len(x) + 50, m, 60)
    index.add_items(x, np.arange(len(x)) * 2 + 1, num_threads=1)
    index.save_index(str(path))
    return index


@needs_hnswlib
@pytest.mark.parametrize('space', ['l2', 'ip', 'cosine'])
@pytest.mark.parametrize('ef', [10, 25, 80])
def test_the_graph_of_hnswlib_finds_the_same(tmp_path, space, ef):
    x = X if space == 'ip' else LONG
    index = hnswlib_file(tmp_path/'x', x, space)
    index.set_ef(ef)
    found = open_index(tmp_path/'x', D)
    found.index.hnsw.efSearch = ef
    assert (found.maker, found.m, found.ef_construction, found.again) == ('hnswlib', 8, 60, False)
    assert found.metric == ('l2' if space == 'l2' else 'ip')
    labels, distances = index.knn_query(Q, 10, num_threads=1)
    assert np.array_equal(found.ids[found.index.search(Q, 10)[1]], labels)


@needs_hnswlib
def test_the_file_that_is_kept_is_hnswlibs(tmp_path):
    import hnswlib
    index = hnswlib.Index('l2', 4)
    index.init_index(150, 5, 50)
    index.add_items(made_vectors(), np.arange(120) + 1000, num_threads=1)
    index.save_index(str(tmp_path/'x'))
    found, kept = open_index(tmp_path/'x'), open_index(MADE)
    for a, b in zip(graph(found.index.hnsw), graph(kept.index.hnsw)): assert np.array_equal(a, b)


@needs_hnswlib
def test_the_space_of_long_vectors_is_seen_in_the_links(refused, tmp_path):
    hnswlib_file(tmp_path/'y', LONG, 'ip', 16)
    assert 'where a graph loses its way' in refused((tmp_path/'y').read_bytes())
    hnswlib_file(tmp_path/'y', LONG, 'l2', 16)
    assert 'so it is l2' in open_index(tmp_path/'y').told[0]


@needs_hnswlib
def test_deleted_ones_of_hnswlib_are_left_out(tmp_path):
    index = hnswlib_file(tmp_path/'x', X, 'cosine')
    index.mark_deleted(1)
    index.save_index(str(tmp_path/'x'))
    found = open_index(tmp_path/'x')
    assert found.again and len(found.ids) == N - 1 and '1 of 600 nodes are deleted' in found.told[-1]


def test_an_empty_file_of_hnswlib(refused):
    head = struct.pack('<6QiI3QdQ', 0, 10, 0, 4 + 64 + 48 + 8, 4 + 64 + 48, 4 + 64, -1, 2**32 - 1, 8, 16, 8, .48, 60)
    assert 'holds no vectors' in refused(head)
