"Terms besides the distance loss, against loops in float64 and against the measures of the space that they aim at."
import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from dacl_dr.hnsw.difficulty import local_dimension, neighbour_spread
from dacl_dr.losses.terms import (
    Objective, Routes, contrast_loss, dimension_loss, recipe_loss, route_loss, spread_loss, term_of,
)


def unit(rng, *shape):
    x = rng.normal(size=shape)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def both(seed, b=12, p=30, dim=8):
    rng = np.random.default_rng(seed)
    return unit(rng, b, dim), unit(rng, p, dim)


def tensors(*arrays): return [torch.from_numpy(x) for x in arrays]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(3, 20))
def test_spread_and_dimension_are_the_measures_of_a_space(seed, k):
    q, d = both(seed)
    nearest = np.argsort(-(q @ d.T), axis=1)[:, :k]
    assert spread_loss(*tensors(q, d), k).item() == pytest.approx(neighbour_spread(d, nearest).mean(), rel=1e-9)
    far = np.linalg.norm(q[:, None] - d[nearest], axis=-1)
    assert dimension_loss(*tensors(q, d), k).item() == pytest.approx(
        np.log(local_dimension(far)).mean(), rel=1e-2, abs=1e-2)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.booleans(), st.floats(.05, .9))
def test_contrast_by_loops(seed, masked, margin):
    q, d = both(seed)
    mask = np.random.default_rng(seed).random((12, 30)) < .2 if masked else np.zeros((12, 30), bool)
    mask[np.arange(12), np.arange(12)] = False
    far = np.sort(np.linalg.norm(q[:, None] - d, axis=-1), axis=1)[:, :20]
    dimension = local_dimension(far)
    hinges = []
    for i in np.flatnonzero(dimension >= np.quantile(dimension, .75) * (1 - 1e-6)):
        others = sorted((q[i] @ d[j] for j in range(30) if j != i and not mask[i, j]), reverse=True)[:10]
        hinges.append(max(0., margin - (q[i] @ d[i] - np.mean(others))))
    found = contrast_loss(*tensors(q, d, mask), margin=margin).item()
    assert found == pytest.approx(np.mean(hinges), rel=1e-6, abs=1e-9)


def test_route_raises_what_lies_behind_the_edge_and_nothing_else():
    q, d = both(0, 3, 3)
    q, d = (x.requires_grad_() for x in tensors(q, d))
    cosine = (q * d).sum(1).detach()
    routes = Routes(d, cosine + torch.tensor([.3, -.3, .3], dtype=torch.float64), torch.tensor([True, True, False]))
    loss = route_loss(q, routes, margin=.02)
    assert loss.item() == pytest.approx(.32 / 3)
    loss.backward()
    moved = d.grad.abs().sum(1) > 0
    assert moved.tolist() == [True, False, False] and (d.grad[0] * q[0]).sum() < 0 # towards the query


@pytest.mark.parametrize('term', ['spread', 'dimension', 'contrast'])
def test_gradients(term):
    q, d = (x.requires_grad_() for x in tensors(*both(3, 6, 24)))
    k = {'spread': 5, 'dimension': 6}.get(term)
    def loss(q, d):
        unit = [x / x.norm(dim=1, keepdim=True) for x in (q, d)]
        return {
            'spread': spread_loss, 'dimension': dimension_loss
        }[term](*unit, k) if k else contrast_loss(*unit, margin=.9)
    assert torch.autograd.gradcheck(loss, (q, d), eps=1e-7, atol=1e-4)


def test_weight_and_prefix():
    q, d = tensors(*both(5))
    for term in ('distance', 'spread', 'dimension', 'contrast'):
        out = recipe_loss(q, d, 2., Objective(.1, term=term))
        assert out.total.item() == pytest.approx(out.infonce.item() + 2 * term_of(term, q, d).item())
        assert out.distance.item() == pytest.approx(np.mean([1 - float(q[i] @ d[i]) for i in range(12)]))
    routed = recipe_loss(q, d, 2., Objective(.1, term='route'))
    assert routed.total == routed.infonce # none were mined
    cut = [x[:, :4] / x[:, :4].norm(dim=1, keepdim=True) for x in (q, d)]
    whole, part, prefix = recipe_loss(q, d, 0., Objective(.1)), recipe_loss(*cut, 0., Objective(.1)), recipe_loss(
        q, d, .7, Objective(.1, prefix=4))
    assert prefix.infonce.item() == pytest.approx((whole.infonce + part.infonce).item() / 2)
    assert prefix.total.item() == pytest.approx((prefix.infonce + .7 * part.distance).item())
