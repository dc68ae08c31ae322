"""Libraries that are written for arrays of any kind take nodes, and derivatives pass them."""

import einops.array_api
import numpy as np
import opt_einsum
import pytest
from hypothesis import given
from hypothesis import strategies as st

import scg
from scg.core.node import Node

pytestmark = pytest.mark.fast

A, B, C = (np.random.default_rng(k).normal(size=shape) for k, shape in enumerate([(2, 3, 4), (4, 5), (5, 2)]))


def agrees(fn, like, *args):
    """``fn`` of nodes is the node of ``like`` of arrays, and so is its gradient."""
    nodes = [scg.parameter(a) for a in args]
    found, right = fn(*nodes), like(*nodes)
    assert type(found) is Node
    np.testing.assert_allclose(found.value, like(*args), rtol=1e-13)
    weights = np.cos(np.arange(found.size)).reshape(found.shape)
    for g, h in zip(
        scg.gradients(np.sum(found * weights), nodes), scg.gradients(np.sum(right * weights), nodes), strict=True
    ):
        np.testing.assert_allclose(g, h, rtol=1e-12, atol=1e-12)


EINOPS = {
    "rearrange": (
        lambda a: einops.array_api.rearrange(a, "i j k -> (i k) j"),
        lambda a: np.reshape(np.transpose(a, (0, 2, 1)), (8, 3)),
    ),
    "split": (
        lambda a: einops.array_api.rearrange(a, "i j (k l) -> i l (j k)", l=2),
        lambda a: np.reshape(np.transpose(np.reshape(a, (2, 3, 2, 2)), (0, 3, 1, 2)), (2, 2, 6)),
    ),
    "mean": (lambda a: einops.array_api.reduce(a, "i j k -> j", "mean"), lambda a: np.mean(a, axis=(0, 2))),
    "max": (lambda a: einops.array_api.reduce(a, "i j k -> i k", "max"), lambda a: np.max(a, axis=1)),
    "repeat": (lambda a: einops.array_api.repeat(a, "i j k -> i (j r) k", r=2), lambda a: np.repeat(a, 2, axis=1)),
    "list": (
        lambda a: einops.array_api.rearrange([a, 2 * a], "n i j k -> i n j k"),
        lambda a: np.stack([a, 2 * a], axis=1),
    ),
    "pack": (
        lambda a: einops.array_api.pack([a, a[..., 0]], "i j *")[0],
        lambda a: np.concatenate([a, a[..., :1]], axis=2),
    ),
    "unpack": (lambda a: einops.array_api.unpack(a, [(1,), (3,)], "i j *")[1], lambda a: a[..., 1:]),
}


@pytest.mark.parametrize("name", EINOPS)
def test_einops_on_nodes(name):
    agrees(*EINOPS[name], A)


@pytest.mark.parametrize("equation", ["ijk,kl->il", "ijk,kl->", "ijk,kl->ljk"])
def test_opt_einsum_on_nodes(equation):
    agrees(lambda a, b: opt_einsum.contract(equation, a, b), lambda a, b: np.einsum(equation, a, b), A, B)


def test_opt_einsum_contracts_three_and_takes_arrays_beside_nodes():
    agrees(
        lambda a, b: opt_einsum.contract("ijk,kl,lm->im", a, b, C),
        lambda a, b: np.einsum("ijk,kl,lm->im", a, b, C),
        A,
        B,
    )
    expression = opt_einsum.contract_expression("ijk,kl->ijl", A.shape, B.shape)
    agrees(expression, lambda a, b: a @ b, A, B)


letters = st.lists(st.sampled_from("abcd"), min_size=1, max_size=3, unique=True)


@given(st.lists(letters, min_size=1, max_size=4), st.data())
def test_any_contraction_is_einsums(terms, data):
    sizes = dict(zip("abcd", (2, 3, 1, 2), strict=True))
    out = data.draw(st.lists(st.sampled_from(sorted({x for term in terms for x in term})), unique=True))
    equation = ",".join(map("".join, terms)) + "->" + "".join(out)
    arrays = [np.cos(np.arange(np.prod([sizes[x] for x in term]))).reshape([sizes[x] for x in term]) for term in terms]
    agrees(lambda *x: opt_einsum.contract(equation, *x), lambda *x: np.einsum(equation, *x), *arrays)
