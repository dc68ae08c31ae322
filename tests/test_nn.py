"""Perceptrons: the formula, Glorot's variance, derivatives, refusals."""

import math

import numpy as np
import pytest

import scg
from scg import nn
from scg.core.tree import leaves, map_leaves
from scg.errors import ScgTypeError, ScgValueError

pytestmark = pytest.mark.fast


@pytest.mark.parametrize("activation", [np.tanh, np.sin])
def test_apply_is_affine_maps_with_activations_between(activation):
    rng = np.random.default_rng(0)
    params = [nn.Layer(rng.standard_normal((i, o)), rng.standard_normal(o)) for i, o in ((3, 5), (5, 4), (4, 2))]
    x = rng.standard_normal((2, 7, 3))
    a, b, c = params
    expected = activation(activation(x @ a[0] + a[1]) @ b[0] + b[1]) @ c[0] + c[1]
    np.testing.assert_allclose(nn.apply(params, x, activation), expected, rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(
        nn.apply([tuple(layer) for layer in params], x[0, 0], activation), expected[0, 0], rtol=1e-13, atol=1e-13
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_initial_weights_have_glorots_distribution(dtype):
    sizes = [80, 120, 40]
    params = nn.mlp(sizes, np.random.default_rng(1), dtype)
    for layer, inputs, outputs in zip(params, sizes[:-1], sizes[1:], strict=True):
        assert layer.weight.shape == (inputs, outputs) and layer.weight.dtype == layer.bias.dtype == dtype
        assert not layer.bias.any()
        limit = math.sqrt(6 / (inputs + outputs))
        u = np.float64(layer.weight).ravel() / limit
        assert np.abs(u).max() <= 1
        # u is uniform on (-1, 1): u^k has mean and variance known, and |z| > 5 has probability 6e-7
        for k, mean, variance in ((1, 0, 1 / 3), (2, 1 / 3, 1 / 5 - 1 / 9), (3, 0, 1 / 7)):
            assert abs(np.mean(u**k) - mean) < 5 * math.sqrt(variance / u.size)


def test_equal_generators_give_equal_parameters():
    a, b = (nn.mlp([3, 4, 2], np.random.default_rng(5)) for _ in range(2))
    assert all(np.array_equal(x, y) for (_, x), (_, y) in zip(leaves(a), leaves(b), strict=True))


def test_the_gradient_has_the_structure_and_dtype_of_the_parameters_and_is_right():
    rng = np.random.default_rng(2)
    params, x = nn.mlp([3, 4, 2], rng), rng.standard_normal((6, 3)).astype(np.float32)
    gradient = scg.grad(lambda p: np.sum(nn.apply(p, x) ** 2))(params)
    assert [(p, g.dtype) for p, g in leaves(gradient)] == [(p, np.dtype(np.float32)) for p, _ in leaves(params)]
    wide = map_leaves(np.float64, params)
    for k, (_, g) in enumerate(leaves(gradient)):  # complex step: exact to rounding for an analytic function
        for index in np.ndindex(g.shape):
            moved = map_leaves(lambda w: w.astype(complex), wide)
            [w for _, w in leaves(moved)][k][index] += 1e-30j
            expected = np.sum(nn.apply(moved, x) ** 2).imag / 1e-30
            assert abs(g[index] - expected) < 1e-4 * max(1, abs(expected))


@pytest.mark.parametrize("sizes", [[], [3], [3, 0], [3, -1, 2], [3, 2.5]])
def test_sizes_that_make_no_network_are_refused(sizes):
    with pytest.raises(ScgValueError, match="sizes"):
        nn.mlp(sizes, np.random.default_rng(0))


def test_other_arguments_that_do_not_fit_are_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(ScgTypeError, match="default_rng"):
        nn.mlp([1, 2], 0)
    with pytest.raises(ScgTypeError, match="int"):
        nn.mlp([1, 2], rng, int)
    with pytest.raises(ScgValueError, match=r"layer 0 takes 3 inputs.*\(2, 4\)"):
        nn.apply(nn.mlp([3, 2], rng), np.ones((2, 4)))
