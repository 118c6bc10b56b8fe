"Many rules in one pass find and count what each finds and counts alone, copies and ties among the vectors or not."
import faiss
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from dacl_dr.core.errors import DaclError
from dacl_dr.hnsw.passes import Passes, find_each, pass_some, swept_field
from dacl_dr.hnsw.searcher import Searcher, Stop, links_of
from test_searcher import graph_of, whole_vectors

KINDS = {
    'ef': lambda rng, k, n: [Stop(ef=int(e)) for e in np.sort(rng.integers(k, n + 20, 12))],
    'patience': lambda rng, k, n: [Stop(ef=max(30, k), patience=int(p)) for p in np.sort(rng.integers(1, 12, 8))],
    'gamma': lambda rng, k, n: [Stop(gamma=float(g)) for g in np.sort(rng.random(10) * 3)],
}


def same(a, b):
    one, other = (msgspec.structs.astuple(t)[:7] for t in (a, b))
    exact = all(np.array_equal(x, y) for i, (x, y) in enumerate(zip(one, other)) if i != 1)
    return exact and np.allclose(a.distances, b.distances, rtol=1e-6, atol=1e-6) # faiss rounds four at once otherwise


@given(st.integers(0, 10**6), st.sampled_from([faiss.METRIC_L2, faiss.METRIC_INNER_PRODUCT]), st.sampled_from([*KINDS]),
       st.integers(2, 6), st.booleans(), st.booleans(), st.sampled_from([None, True]))
@settings(max_examples=150, deadline=None)
def test_a_pass_equals_a_search_for_each_rule(seed, metric, kind, dims, seeded, linked, descends):
    rng = np.random.default_rng(seed)
    n, k = int(rng.integers(30, 400)), int(rng.integers(1, 8))
    x, q = whole_vectors(rng, n, dims) / 4, whole_vectors(rng, 8, dims) / 4 # few values, so that most are ties
    edges = [tuple(map(int, e)) for e in rng.integers(0, n, size=(n if linked else 0, 2))]
    searcher, stops = Searcher(graph_of(x, metric), links_of(edges, n)), KINDS[kind](rng, k, n)
    entries = rng.integers(-1, n, size=(8, 3)) if seeded else None
    together = find_each(searcher, q, k, stops, entries, descends, threads=2)
    for stop, found in zip(stops, together): assert same(found, searcher.find(q, k, stop, entries, descends)), stop


def test_without_ties_no_query_is_asked_again():
    rng = np.random.default_rng(0)
    x, q = rng.normal(size=(500, 8)).astype('f4'), rng.normal(size=(40, 8)).astype('f4')
    searcher, none = Searcher(graph_of(x, faiss.METRIC_L2)), np.full((40, 0), -1, np.int64)
    for kind in KINDS.values():
        assert pass_some(searcher, q, none, kind(rng, 5, 500), 5, True, 1).sure.all()


def test_results_that_rise_with_the_value_go_in_passes_of_their_own():
    rng = np.random.default_rng(0)
    x, q = rng.normal(size=(300, 6)).astype('f4'), rng.normal(size=(5, 6)).astype('f4')
    searcher = Searcher(graph_of(x, faiss.METRIC_L2))
    found = list(Passes(searcher, q, lambda ef: min(ef, 7)).many([5, 6, 9, 20]))
    assert [t.ids.shape for t in found] == [(5, 5), (5, 6), (5, 7), (5, 7)]
    for ef, t in zip([5, 6, 9, 20], found): assert same(t, searcher.find(q, min(ef, 7), Stop(ef=ef)))


@pytest.mark.parametrize('stops', [
    [Stop(ef=9), Stop(ef=8)], [Stop(ef=9), Stop(gamma=.1)], [Stop(gamma=.1, patience=1), Stop(gamma=.2, patience=1)],
    [Stop(ef=9, patience=1), Stop(ef=10, patience=2)]])
def test_rules_that_differ_otherwise_are_searched_one_by_one(stops):
    rng = np.random.default_rng(0)
    x, q = rng.normal(size=(300, 6)).astype('f4'), rng.normal(size=(5, 6)).astype('f4')
    searcher = Searcher(graph_of(x, faiss.METRIC_L2))
    assert swept_field(stops) is None
    for stop, t in zip(stops, find_each(searcher, q, 3, stops)): assert same(t, searcher.find(q, 3, stop))


def test_a_rule_that_cannot_be_searched_is_refused_before_the_pass():
    x = np.random.default_rng(0).normal(size=(50, 4)).astype('f4')
    with pytest.raises(DaclError, match='efSearch 2 is below k = 3'):
        find_each(Searcher(graph_of(x, faiss.METRIC_L2)), x[:2], 3, [Stop(ef=2), Stop(ef=5)])
