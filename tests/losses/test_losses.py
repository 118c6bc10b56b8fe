"Losses against float64 references that share no code with them."
import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from dacl_dr.core.settings import CURRICULUM, Stage, TrainSettings
from dacl_dr.curriculum.stages import RecipeStage, recipe_stages, weight_at
from dacl_dr.losses.infonce import infonce_loss, known_mask
from dacl_dr.losses.distance import combined_loss, distance_loss


def unit(rng, *shape):
    x = rng.normal(size=shape)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def reference(q, d, tau, w, mask=None):
    "InfoNCE and distance by loops in float64."
    nce, dis = [], []
    for i in range(len(q)):
        s = [float(q[i] @ d[j]) / tau for j in range(len(d)) if mask is None or not mask[i][j]]
        own = float(q[i] @ d[i]) / tau
        top = max(s)
        nce.append(top + np.log(sum(np.exp(x - top) for x in s)) - own)
        dis.append(1 - float(q[i] @ d[i]))
    return np.mean(nce) + w * np.mean(dis), np.mean(nce), np.mean(dis)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 6), st.integers(0, 8), st.integers(2, 16), st.floats(.02, 2), st.floats(0, 3), st.integers(0, 10**6))
def test_equals_float64_reference(b, extra, dim, tau, w, seed):
    rng = np.random.default_rng(seed)
    q, d = unit(rng, b, dim), unit(rng, b + extra, dim)
    out = combined_loss(torch.from_numpy(q), torch.from_numpy(d), tau, w)
    # float64 in, float64 throughout
    assert np.allclose([x.item() for x in out], reference(q, d, tau, w), rtol=1e-12, atol=1e-12)
    single = combined_loss(torch.from_numpy(q).float(), torch.from_numpy(d).float(), tau, w)
    assert np.allclose([x.item() for x in single], reference(q, d, tau, w), rtol=2e-5, atol=1e-4)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 6), st.integers(0, 6), st.integers(0, 10**6))
def test_symmetric_is_the_mean_of_both_directions(b, extra, seed):
    rng = np.random.default_rng(seed)
    q, d = unit(rng, b, 8), unit(rng, b + extra, 8)
    both = (reference(q, d, .05, 0)[1] + reference(d[:b], q, .05, 0)[1]) / 2
    assert np.isclose(infonce_loss(torch.from_numpy(q), torch.from_numpy(d), .05, symmetric=True).item(), both)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_autocast_changes_nothing(dtype):
    "Loss and gradients under autocast are those of float32."
    rng = np.random.default_rng(0)
    q, d = (torch.from_numpy(unit(rng, n, 64)).float() for n in (16, 48))
    def grads(context):
        a, b = q.clone().requires_grad_(), d.clone().requires_grad_()
        with context: out = combined_loss(a, b, .02, .6, symmetric=True)
        out.total.backward()
        return out.total, a.grad, b.grad
    import contextlib
    for x, y in zip(grads(contextlib.nullcontext()), grads(torch.autocast('cpu', dtype))): assert torch.equal(x, y)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 6), st.integers(0, 6), st.integers(0, 10**6))
def test_masked_passages_do_not_count(b, extra, seed):
    rng = np.random.default_rng(seed)
    q, d = unit(rng, b, 8), unit(rng, b + extra, 8)
    mask = rng.random((b, b + extra)) < .4
    mask[np.arange(b), np.arange(b)] = False
    out = infonce_loss(torch.from_numpy(q), torch.from_numpy(d), .1, torch.from_numpy(mask))
    assert np.isclose(out.item(), reference(q, d, .1, 0, mask)[1], atol=1e-4)


def test_gradient_against_finite_differences():
    torch.manual_seed(0)
    q, d = torch.randn(3, 5, dtype=torch.float64), torch.randn(5, 5, dtype=torch.float64)
    def f(q, d): # double precision throughout, same formula
        logits = q @ d.T / .5
        return torch.nn.functional.cross_entropy(logits, torch.arange(3)) + .6 * (
            1 - (q * d[:3]).sum(-1) / q.norm(dim=-1) / d[:3].norm(dim=-1)).mean()
    leaf = q.clone().float().requires_grad_()
    combined_loss(leaf, d.float(), .5, .6).total.backward()
    for i, j in np.ndindex(3, 5):
        step = torch.zeros_like(q); step[i, j] = 1e-6
        assert abs((f(q + step, d) - f(q - step, d)).item() / 2e-6 - leaf.grad[i, j].item()) < 1e-4


def test_half_precision_inputs_do_not_overflow():
    "At temperature 0.01 a logit of 100 has no exponential in half precision."
    rng = np.random.default_rng(0)
    q = torch.from_numpy(unit(rng, 4, 16)).half()
    out = combined_loss(q, torch.cat([q, -q]), .01, .6)
    assert out.total.dtype == torch.float32 and torch.isfinite(out.total)


def test_distance_by_hand():
    q = torch.tensor([[1., 0.], [0., 1.], [.6, .8]])
    d = torch.tensor([[1., 0.], [1., 0.], [.8, .6]])
    assert distance_loss(q, d).item() == pytest.approx((0 + 1 + (1 - .96)) / 3)


def test_infonce_by_hand():
    "Cosines 1 and 0 at temperature 1: each query's probability is e / (e + 1)."
    eye = torch.eye(2)
    assert infonce_loss(eye, eye, 1.).item() == pytest.approx(-np.log(np.e / (np.e + 1)))


def test_known_positives_are_masked_but_for_the_one_trained_on():
    m = known_mask(torch.tensor([[1], [1], [2]]), torch.tensor([1, 1, 2, 1, 3]))
    assert m.int().tolist() == [[0, 1, 0, 1, 0], [1, 0, 0, 1, 0], [0, 0, 0, 0, 0]]


def test_weight_schedule_of_recipe_d_by_hand():
    "Two epochs of each stage, three steps an epoch: w is 0, then climbs by fifths, then stays."
    stages = recipe_stages(
        'D', TrainSettings(w=.5, stages=tuple(Stage(s.name, 2, s.weight, s.negatives) for s in CURRICULUM)))
    w = [weight_at(s, i, 6) for s in stages for i in range(6)]
    assert w == pytest.approx([0] * 6 + [0, .1, .2, .3, .4, .5] + [.5] * 6)


def test_weights_of_the_other_recipes():
    s = TrainSettings(w=.5)
    assert {r: {w for st in recipe_stages(r, s) for w in st.w} for r in 'ABC'} == {'A': {0}, 'B': {.5}, 'C': {0}}
    assert weight_at(RecipeStage('distance', 1, (0, .5), 'bm25'), 0, 1) == 0 # one step: no division by zero
