"faiss's counters against an independent traversal of the same graph."
import heapq

import faiss
import numpy as np
import pytest

from dacl_dr.config import DaclError, SearchSettings
from dacl_dr.index import build_hnsw, exact_search
from dacl_dr.search import cost_at, ef_sweep, hnsw_search, matched_costs


def traverse(index, x, q, ef):
    "One search of the HNSW paper, in plain Python: the ids of level 0's result, and distance computations."
    h = index.hnsw
    neighbours, offsets, per_level = (faiss.vector_to_array(v).astype(np.int64) for v in (h.neighbors, h.offsets, h.cum_nneighbor_per_level))
    links = lambda node, level: [n for n in neighbours[offsets[node] + per_level[level]:offsets[node] + per_level[level + 1]] if n >= 0]
    far = lambda node: -float(x[node] @ q)
    here, computed = h.entry_point, 1
    best = far(here)
    for level in range(h.max_level, 0, -1):
        moved = True
        while moved:
            moved = False
            for n in links(here, level):
                computed += 1
                if far(n) < best: best, nearest, moved = far(n), n, True
            if moved: here = nearest
    seen, todo, found = {here}, [(best, here)], [(-best, here)]
    while todo:
        d, node = heapq.heappop(todo)
        if len(found) >= ef and d > -found[0][0]: break
        for n in links(node, 0):
            if n in seen: continue
            seen.add(n); computed += 1
            dn = far(n)
            if len(found) < ef or dn < -found[0][0]:
                heapq.heappush(todo, (dn, n)); heapq.heappush(found, (-dn, n))
                if len(found) > ef: heapq.heappop(found)
    return {n for _, n in sorted(found, reverse=True)[:10]}, computed


@pytest.fixture(scope='module')
def world():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2500, 24)).astype('f4'); x /= np.linalg.norm(x, axis=1, keepdims=True)
    q = x[:150] + .15 * rng.normal(size=(150, 24)).astype('f4'); q /= np.linalg.norm(q, axis=1, keepdims=True)
    return x, q, build_hnsw(x, 8, 60)


@pytest.mark.parametrize('ef', [10, 24, 80])
def test_visited_nodes_equal_an_independent_count(world, ef):
    x, q, index = world
    agree = 0
    for i in range(len(q)):
        rows, cost = hnsw_search(index, q[i:i + 1], 10, ef)
        ids, computed = traverse(index, x, q[i], ef)
        agree += ids == set(rows[0].tolist()) and abs(cost['visited'] - computed) < .5
    assert agree >= .97 * len(q) # the rest: float ties between faiss's kernels and numpy's


def test_sweep_rises_and_stops_when_the_targets_are_met(world):
    x, q, index = world
    exact = exact_search(q, x, 100)
    s = SearchSettings(ef_values=(400, 10, 20, 40, 80, 160))
    table = ef_sweep(index, q, exact, np.arange(150), s)
    assert [r['ef'] for r in table] == sorted(s.ef_values)[:len(table)]
    visited, recall = [r['visited'] for r in table], [r['ann_recall'] for r in table]
    assert visited == sorted(visited) and recall[-1] > recall[0]
    costs = matched_costs(table, 1., s)
    assert visited[0] < costs['visited at ANN recall 0.95'] < costs['visited at ANN recall 0.99'] <= visited[-1]


def test_cost_at_takes_the_first_crossing():
    assert cost_at(.5, [.4, .6, .45, .7], [10, 20, 30, 40]) == pytest.approx(15)
    assert np.isnan(cost_at(.9, [.4, .6], [10, 20])) and np.isnan(cost_at(.3, [.4, .6], [10, 20]))


def test_ef_below_k_is_refused(world):
    x, q, index = world
    with pytest.raises(DaclError, match='below k=10'): hnsw_search(index, q, 10, 9)
