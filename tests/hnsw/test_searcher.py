"The searcher against a plain one in Python, and against faiss: ids, distances and counts."
import heapq

import faiss
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from dacl_dr.core.errors import DaclError
from dacl_dr.hnsw.kernels import read_graph
from dacl_dr.hnsw.searcher import Searcher, Stop, faiss_from, links_of
from dacl_dr.hnsw.tracer import most_evaluations

QUICK = settings(max_examples=40, deadline=None)


def whole_vectors(rng, n, d):
    "Vectors of small whole numbers, whose distances are exact in any order of the sum; some are copies."
    x = rng.integers(-3, 4, size=(n, d)).astype('f4')
    x[rng.integers(0, n, n // 10)] = x[0]
    return x


def graph_of(x, metric, m=4):
    index = faiss.IndexHNSWFlat(x.shape[1], m, metric)
    index.hnsw.efConstruction = 20
    index.add(x)
    return index


class Plain:
    "A search as the rules are worded, node by node."
    def __init__(self, index, x, edges=()):
        self.graph, self.x, self.similar = read_graph(index), x, index.metric_type == faiss.METRIC_INNER_PRODUCT
        self.beside = {}
        for a, b in sorted(set(edges)):
            if a != b: self.beside.setdefault(a, []).append(b)

    def links(self, node, level):
        g = self.graph
        found = g.neighbours[g.offsets[node] + g.widths[level]:g.offsets[node] + g.widths[level + 1]]
        return [int(v) for v in found[:np.argmax(found < 0) if (found < 0).any() else None]]

    def distance(self, q, node):
        return float(-(self.x[node] @ q)) if self.similar else float(((self.x[node] - q)**2).sum())

    def order(self, d, node): return d, -node if self.similar else node # of equals faiss prefers one end

    def within(self, d, kth, gamma):
        if kth == float('inf'): return True
        return d <= ((1 + gamma) * (1 + kth) - 1 if self.similar else (1 + gamma)**2 * kth)

    def search(self, q, k, gamma, patience=0, entries=(), descend=True):
        seen, lowest, evaluations, hops = set(), set(), 0, 0
        results, queue = [], [] # results: (distance, order, node), nearest first

        def kth(): return results[k - 1][0] if len(results) >= k else float('inf')
        def offer(d, node):
            better = d < kth()
            if better:
                results.append((*self.order(d, node), node))
                results.sort()
                del results[k:]
            if self.within(d, kth(), gamma): heapq.heappush(queue, (*self.order(d, node), node))
            return better

        if descend:
            here = self.graph.entry
            best, evaluations = self.distance(q, here), 1
            seen.add(here)
            for level in range(self.graph.top, 0, -1):
                while True:
                    start = here
                    hops += 1
                    for v in self.links(start, level):
                        evaluations += 1
                        seen.add(v)
                        if self.distance(q, v) < best: best, here = self.distance(q, v), v
                    if here == start: break
            lowest.add(here)
            offer(best, here)
        for node in entries:
            if node < 0 or node in lowest: continue
            lowest.add(node)
            seen.add(node)
            evaluations += 1
            offer(self.distance(q, node), node)
        idle = 0
        while queue:
            d, _, node = heapq.heappop(queue)
            if not self.within(d, kth(), gamma): break
            hops += 1
            idle += 1
            for links in (self.links(node, 0), self.beside.get(node, [])):
                for v in [v for v in links if v not in lowest]:
                    lowest.add(v)
                    seen.add(v)
                    evaluations += 1
                    if offer(self.distance(q, v), v): idle = 0
            if patience and idle >= patience: break
        return [r[-1] for r in results], [r[0] for r in results], evaluations, len(seen), hops


@given(st.integers(0, 10_000), st.sampled_from([faiss.METRIC_L2, faiss.METRIC_INNER_PRODUCT]),
       st.sampled_from([0., .1, .5, 2.]), st.sampled_from([0, 1, 3]), st.booleans(), st.booleans(), st.booleans())
@QUICK
def test_the_distance_adaptive_rule_equals_a_plain_search(seed, metric, gamma, patience, seeded, descends, linked):
    rng = np.random.default_rng(seed)
    n, k = int(rng.integers(30, 200)), int(rng.integers(1, 8))
    x = whole_vectors(rng, n, 6)
    if metric == faiss.METRIC_INNER_PRODUCT: x /= 4 # exact too
    q = whole_vectors(rng, 5, 6) / 4
    index = graph_of(x, metric)
    edges = [tuple(map(int, e)) for e in rng.integers(0, n, size=(n if linked else 0, 2))]
    entries = rng.integers(-1, n, size=(5, 3)) if seeded else np.full((5, 0), -1)
    found = Searcher(index, links_of(edges, n)).find(
        q, k, Stop(gamma=gamma, patience=patience), entries, descends, threads=2)
    plain = Plain(index, x, edges)
    for i in range(5):
        below = descends or (entries[i] < 0).all()
        ids, distances, evaluations, visited, hops = plain.search(q[i], k, gamma, patience, entries[i], below)
        assert found.ids[i][:len(ids)].tolist() == ids and (found.ids[i][len(ids):] == -1).all()
        assert found.distances[i][:len(ids)].tolist() == distances
        assert (found.evaluations[i], found.visited[i], found.hops[i]) == (evaluations, visited, hops)


@given(st.integers(0, 10_000), st.sampled_from([10, 25, 60]), st.sampled_from([0, 2]))
@QUICK
def test_by_efsearch_alone_it_is_the_tracer(seed, ef, patience):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(300, 8)).astype('f4')
    searcher = Searcher(graph_of(x, faiss.METRIC_L2))
    q = rng.normal(size=(7, 8)).astype('f4')
    a, b = searcher.find(q, 10, Stop(ef=ef, patience=patience)), searcher.search(q, 10, ef, patience)
    for name in ('ids', 'distances', 'evaluations', 'visited', 'hops', 'upper_evaluations', 'upper_hops'):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


@pytest.mark.parametrize('metric', [faiss.METRIC_L2, faiss.METRIC_INNER_PRODUCT])
def test_from_given_nodes_it_is_faiss_from_level_0(metric):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(500, 12)).astype('f4')
    if metric == faiss.METRIC_INNER_PRODUCT: x /= np.linalg.norm(x, axis=1, keepdims=True)
    index, q = graph_of(x, metric, 8), x[:40] + .1 * rng.normal(size=(40, 12)).astype('f4')
    entries = np.stack([rng.choice(500, 4, replace=False) for _ in q])
    ours = Searcher(index).find(q, 10, Stop(ef=20), entries)
    np.testing.assert_array_equal(faiss_from(index, q, entries, 10, 20)[0], ours.ids)


@pytest.mark.parametrize('stop', [Stop(ef=40), Stop(gamma=9.)], ids=['ef', 'gamma'])
def test_a_path_has_room_for_all_that_a_search_looks_at(stop):
    rng = np.random.default_rng(0)
    for n in (1, 2, 3, 5, 30):
        x, q = rng.normal(size=(n, 4)).astype('f4'), rng.normal(size=(5, 4)).astype('f4')
        everything = links_of([(a, b) for a in range(n) for b in range(n)], n)
        searcher = Searcher(graph_of(x, faiss.METRIC_L2, 2), everything)
        entries = np.tile(np.arange(n), (5, 1))
        evaluations = searcher.find(q, 1, stop, entries, descend=True).evaluations
        assert evaluations.max() <= most_evaluations(searcher.graph)
        for query, all_nodes, e in zip(q, entries, evaluations):
            path = searcher.path(query, 1, stop, all_nodes, descend=True)
            assert len(path) == e and set(path[:, 0]) == set(range(n))


def test_a_path_is_refused_as_a_search_is():
    searcher = Searcher(graph_of(np.eye(5, dtype='f4'), faiss.METRIC_L2))
    with pytest.raises(DaclError, match='do not fit an index of 5 dimensions'): searcher.path(np.ones(4, 'f4'), 1)
    with pytest.raises(DaclError, match='the largest 5'): searcher.path(np.ones(5, 'f4'), 1, entries=[5])


def test_a_wider_gamma_looks_at_more_and_a_huge_one_at_all_that_can_be_reached():
    rng = np.random.default_rng(2)
    x, q = rng.normal(size=(400, 8)).astype('f4'), rng.normal(size=(20, 8)).astype('f4')
    searcher = Searcher(graph_of(x, faiss.METRIC_L2))
    visited = [searcher.find(q, 10, Stop(gamma=g)).visited for g in (0., .1, .3, 1., 100.)]
    assert all((a <= b).all() for a, b in zip(visited, visited[1:])) and (visited[-1] >= 395).all()


def test_threads_change_nothing():
    rng = np.random.default_rng(3)
    x, q = rng.normal(size=(400, 8)).astype('f4'), rng.normal(size=(31, 8)).astype('f4')
    searcher, entries = Searcher(graph_of(x, faiss.METRIC_L2)), rng.integers(-1, 400, size=(31, 2))
    one, three = (searcher.find(q, 5, Stop(gamma=.2), entries, threads=t) for t in (1, 3))
    for name in ('ids', 'evaluations', 'visited', 'hops'):
        np.testing.assert_array_equal(getattr(one, name), getattr(three, name))


@pytest.mark.parametrize('stop, k, said', [
    (Stop(ef=4), 5, 'efSearch 4 is below k = 5'), (Stop(gamma=-1.), 5, 'gamma -1.0 is below 0'),
    (Stop(gamma=float('nan')), 5, 'gamma nan is below 0'), (Stop(patience=-1), 5, 'patience -1 is below 0'),
    (Stop(ef=64), 51, 'k = 51 of a graph of 50 nodes'),
])
def test_a_rule_that_cannot_find_k_is_told(stop, k, said):
    x = np.eye(50, 8, dtype='f4')
    with pytest.raises(DaclError, match=said): Searcher(graph_of(x, faiss.METRIC_L2)).find(x[:2], k, stop)
