"The tracer is faiss's own search: same ids, same counts, for every query."
import heapq

import faiss
import numpy as np
import pytest

from dacl_dr.core.errors import DaclError
from dacl_dr.search.exact import exact_search
from dacl_dr.search.graph import build_hnsw
from dacl_dr.hnsw.tracer import Tracer, faiss_counts, most_evaluations, new_scratch, new_seen


def unit(x): return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype('f4')


def graph(x, m, metric, ef_construction=40):
    index = faiss.IndexHNSWFlat(x.shape[1], m, metric)
    index.hnsw.efConstruction = ef_construction
    index.add(x)
    return index


def agree(index, queries, k, ef, **kwargs):
    ours, theirs = Tracer(index).search(queries, k, ef, **kwargs), faiss_counts(index, queries, k, ef)
    for name in ('ids', 'distances', 'evaluations', 'hops'):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name), name)
    return ours


@pytest.mark.parametrize('metric', [faiss.METRIC_INNER_PRODUCT, faiss.METRIC_L2], ids=['ip', 'l2'])
@pytest.mark.parametrize('d, m, n', [(7, 4, 3000), (33, 16, 3000), (128, 32, 2000), (768, 16, 1500)])
def test_parity_for_every_query(metric, d, m, n):
    rng = np.random.default_rng(d)
    x = unit(rng.normal(size=(n, d)))
    q = unit(x[:300] + .3 / d**.5 * rng.normal(size=(300, d)))
    index = graph(x, m, metric)
    for ef in (10, 33, 200): agree(index, q, 10, ef, threads=1 if ef == 33 else 2)
    agree(index, q, 1, 1)


@pytest.mark.parametrize('metric', [faiss.METRIC_INNER_PRODUCT, faiss.METRIC_L2], ids=['ip', 'l2'])
def test_parity_where_many_passages_are_equal(metric):
    rng = np.random.default_rng(0)
    x = unit(np.round(rng.normal(size=(2000, 24))[rng.integers(0, 2000, 6000)], 1))
    index = graph(x, 4, metric)
    for ef in (10, 64, 200): agree(index, x[:500], 10, ef)


@pytest.mark.parametrize('n', [1, 5])
def test_parity_on_graphs_of_a_few_nodes(n):
    x = unit(np.random.default_rng(0).normal(size=(n, 8)))
    agree(graph(x, 4, faiss.METRIC_INNER_PRODUCT), x, 1, 10)


def test_exact_768_dimensional_unit_vectors_in_clusters():
    rng = np.random.default_rng(1)
    x = unit(rng.normal(size=(40, 768))[rng.integers(0, 40, 4000)] + .8 * rng.normal(size=(4000, 768)))
    index = graph(x, 32, faiss.METRIC_INNER_PRODUCT, 100)
    for ef in (16, 64, 256): agree(index, unit(x[:200] + .02 * rng.normal(size=(200, 768))), 10, ef)


@pytest.fixture(scope='module')
def world():
    rng = np.random.default_rng(0)
    x = unit(rng.normal(size=(2500, 24)))
    return x, unit(x[:150] + .15 * rng.normal(size=(150, 24))), build_hnsw(x, 8, 60)


def traverse(index, x, q, ef, patience):
    """One search as the HNSW paper has it, in plain Python.

    Gives the ten nearest, the nodes it looks at, and how many of the lowest level it expands.
    Patience ends it after as many in a row that bring no new result.
    """
    h = index.hnsw
    arrays = h.neighbors, h.offsets, h.cum_nneighbor_per_level
    neighbours, offsets, widths = (faiss.vector_to_array(v).astype(np.int64) for v in arrays)
    def links(node, level):
        begin, end = offsets[node] + widths[level], offsets[node] + widths[level + 1]
        return [n for n in neighbours[begin:end] if n >= 0]
    far = lambda node: -float(x[node].astype('f8') @ q.astype('f8'))
    here, everything = h.entry_point, {h.entry_point}
    for level in range(h.max_level, 0, -1):
        while True:
            around = links(here, level)
            everything |= set(around)
            best = min([here, *around], key=far)
            if best == here: break
            here = best
    todo, kept = [(far(here), here)], [(-far(here), here)]
    seen, ten = {here}, [far(here)]
    hops = idle = 0
    while todo:
        d, node = heapq.heappop(todo)
        if len(kept) >= ef and d > -kept[0][0]: break
        hops, idle = hops + 1, idle + 1
        for n in links(node, 0):
            if n in seen: continue
            seen.add(n)
            if len(ten) < 10 or far(n) < ten[-1]:
                ten, idle = sorted([*ten, far(n)])[:10], 0
            if len(kept) < ef or far(n) < -kept[0][0]:
                heapq.heappush(todo, (far(n), n))
                heapq.heappush(kept, (-far(n), n))
                if len(kept) > ef: heapq.heappop(kept)
        if patience and idle >= patience: break
    return {n for _, n in sorted(kept, reverse=True)[:10]}, everything | seen, hops


@pytest.mark.parametrize('ef, patience', [(10, 0), (40, 0), (100, 1), (100, 7)])
def test_distinct_nodes_equal_an_independent_traversal(world, ef, patience):
    x, q, index = world
    t = Tracer(index).search(q, 10, ef, patience)
    same = 0
    for i in range(len(q)):
        ids, visited, hops = traverse(index, x, q[i], ef, patience)
        counts = t.visited[i], t.hops[i] - t.upper_hops[i]
        same += ids == set(t.ids[i].tolist()) and (len(visited), hops) == counts
    assert same >= .97 * len(q) # the rest: distances that are equal in float32 and not in float64


def test_route_holds_every_distance_computation(world):
    x, q, index = world
    tracer = Tracer(index)
    truth = exact_search(q, x, 10)
    t = tracer.search(q, 10, 40, truth=truth)
    for i in range(0, 150, 10):
        route = tracer.route(q[i], 10, 40)
        assert len(route) == t.evaluations[i] and len(np.unique(route[:, 0])) == t.visited[i]
        assert (route[:, 1] > 0).sum() == t.upper_evaluations[i]
        for node, step in zip(truth[i], t.steps[i]):
            at = np.flatnonzero(route[:, 0] == node)
            assert step == (at[0] + 1 if len(at) else 0)
        assert set(t.ids[i]) <= set(route[:, 0]) # nothing is returned that was not looked at


@pytest.mark.parametrize('m', [2, 3])
def test_a_route_has_room_for_all_that_a_small_graph_of_many_levels_looks_at(m):
    rng, most = np.random.default_rng(0), []
    for n in range(1, 40):
        x = rng.normal(size=(n, 4)).astype('f4')
        tracer, q = Tracer(graph(x, m, faiss.METRIC_L2)), rng.normal(size=(10, 4)).astype('f4')
        t = tracer.search(q, 1, n, truth=np.zeros((10, 1), int))
        rows = most_evaluations(tracer.graph)
        assert t.evaluations.max() <= rows and len(tracer.route(q[0], 1, n)) == t.evaluations[0]
        most.append(t.evaluations.max() / n)
    assert m > 2 or max(most) > 2 # nodes are looked at on each level, so two rows a node are too few


def test_upper_levels_that_are_wider_than_the_lowest_have_room():
    rng = np.random.default_rng(0)
    index = faiss.IndexHNSWFlat(8, 32, faiss.METRIC_L2)
    index.hnsw.set_nb_neighbors(0, 8)
    index.add(rng.normal(size=(3000, 8)).astype('f4'))
    g = Tracer(index).graph
    widest = np.diff(g.widths).max()
    assert widest == 32 > g.widths[1] and len(new_scratch(g, new_seen(3000), 10).todo) >= widest
    agree(index, rng.normal(size=(50, 8)).astype('f4'), 10, 20, threads=1)


def test_marks_begin_anew_before_they_overflow(world):
    _, q, index = world
    tracer = Tracer(index)
    first = tracer.search(q, 10, 20, threads=1)
    tracer.tables[0].turn[0] = 2**31 - 50
    again = tracer.search(q, 10, 20, threads=1)
    np.testing.assert_array_equal(first.evaluations, again.evaluations)


def test_patience_stops_early_and_never_changes_what_was_seen_before(world):
    _, q, index = world
    tracer = Tracer(index)
    counts = [tracer.search(q, 10, 200, patience=p).evaluations for p in (5, 20, 60, 0)]
    for a, b in zip(counts, counts[1:]): assert (a <= b).all()
    assert counts[0].mean() < .5 * counts[-1].mean()
    for query in q[::10]:
        whole, early = tracer.route(query, 10, 200), tracer.route(query, 10, 200, 5)
        np.testing.assert_array_equal(whole[:len(early)], early)


def test_what_cannot_be_searched_is_refused(world):
    x, q, index = world
    tracer = Tracer(index)
    refused = (
        ((q, 10, 9), 'below k=10'),
        ((q, 2501, 4000), 'ask for 1 to 2,500'),
        ((q, 0, 10), 'k=0'),
        ((q[:, :5], 10, 20), 'do not fit'),
        ((q, 10, 1 << 21), 'out of range'),
    )
    for args, word in refused:
        with pytest.raises(DaclError, match=word): tracer.search(*args)
    scalar = faiss.IndexHNSWSQ(24, faiss.ScalarQuantizer.QT_fp16, 8, faiss.METRIC_INNER_PRODUCT)
    with pytest.raises(DaclError, match='float32'): Tracer(scalar)
    with pytest.raises(DaclError, match='empty'): Tracer(faiss.IndexHNSWFlat(24, 8))
