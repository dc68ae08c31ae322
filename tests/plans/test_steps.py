"""Whole training steps compiled: optimizers, what is refused, large arrays in blocks."""

import copy
import functools

import numpy as np
import pytest

import scg
from scg import optim
from scg.core.tree import leaves
from scg.errors import NonFiniteError, PlanError
from tests.support.compiled import agree, autoencoder

pytestmark = pytest.mark.fast


@pytest.mark.parametrize("samples", [0, 7])
@pytest.mark.parametrize("make", [optim.Adam, functools.partial(optim.SGD, learning_rate=1e-2, momentum=0.9)])
def test_a_training_step_with_its_optimizer(samples, make):
    params, loss, data = autoencoder([16], 4, 9, samples)
    runs = []
    for compile in (lambda f: f, scg.compile):
        p = copy.deepcopy(params)
        optimizer, rng, gradient = make(p), np.random.default_rng(5), scg.value_and_grad(loss)
        average = optim.Average(p, 0.9)

        def step(params, x, rng, gradient=gradient, optimizer=optimizer, average=average):
            value, g = gradient(params, x, rng=rng)
            optimizer.step(g)
            average.step(params)
            return value

        run = compile(step)
        values = [run(p, data(k), rng=rng) for k in range(8)]
        runs.append((values, p, average.params, optimizer.state))
        assert compile is not scg.compile or run.recorded == 1 and run.plainly == 0
    # Adam divides by the root of a mean square: what is nearly zero there moves by as much as all else
    for (path, a), (_, b) in zip(leaves(runs[1][:3]), leaves(runs[0][:3]), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-4, err_msg=path)
    assert runs[0][3]["steps"] == runs[1][3]["steps"] == 8


def test_a_step_that_is_not_finite_changes_nothing_and_says_so():
    params = {"w": np.ones(3)}
    optimizer = optim.Adam(params)
    gradient = scg.value_and_grad(lambda p, x: np.sum(np.exp(p["w"] * x)))

    def step(params, x):
        value, g = gradient(params, x)
        optimizer.step(g)
        return value

    compiled = scg.compile(step)
    compiled(params, np.ones(3))
    before = params["w"].copy()
    with pytest.raises(NonFiniteError, match="not finite"), np.errstate(all="ignore"):
        compiled(params, np.array([1.0, 1000.0, 1.0]))
    np.testing.assert_array_equal(params["w"], before)
    assert optimizer.steps == 1
    compiled(params, np.ones(3))
    assert optimizer.steps == 2


def test_parameters_after_the_step_are_refused():
    params = {"w": np.ones(3)}
    optimizer = optim.SGD(params, 0.1)

    def step(params):
        value, g = scg.value_and_grad(lambda p: np.sum(p["w"] ** 2))(params)
        optimizer.step(g)
        return value, np.sum(params["w"])

    with pytest.raises(PlanError, match="after the optimizer's step"):
        scg.compile(step)(params)
    assert optimizer.steps == 0
    value, total = scg.compile(step, fallback=True)(params)
    assert (value, total) == (3.0, pytest.approx(2.4)) and optimizer.steps == 1


def test_large_arrays_in_blocks():
    def cost(w, x, y):
        h = np.tanh(x @ w + 1.0)
        return np.sum(scg.special.softplus(h) * y - h * y[:, :1]) / len(x) + np.sum(np.sum(h * y, axis=-1) ** 2)

    rng = np.random.default_rng(0)
    plain = scg.value_and_grad(cost, (0, 1))
    compiled = scg.compile(plain)
    for _ in range(3):
        args = rng.standard_normal((40, 300)), rng.standard_normal((700, 40)), rng.random((700, 300))
        agree(compiled(*args), plain(*args), "blocks")
    text = compiled.explain(*args)
    assert "region" in text and "blocks" in text and compiled.recorded == 1


def _two(compile, average=False):
    """A function that takes two steps, or a step and an average, its two sets of parameters, and what has a state."""
    params = {"a": np.ones(3), "b": np.full(2, 2.0)}
    first = optim.Adam({"a": params["a"]}, 0.1)
    second = optim.Average(params, 0.5) if average else optim.SGD({"b": params["b"]}, 0.1, momentum=0.5)

    def step(params, x):
        value, g = scg.value_and_grad(lambda p: np.sum(p["a"] ** 2) * x + np.sum(p["b"] ** 3))(params)
        first.step({"a": g["a"]})
        second.step(params if average else {"b": g["b"]})
        return value

    return compile(step), params, first, second


@pytest.mark.parametrize("fault", ["rate", "read-only", "average"])
@pytest.mark.parametrize("earlier", [0, 2])
def test_an_error_of_the_second_leaves_what_a_plain_call_leaves(fault, earlier):
    """The first has then stepped once, and not again in a second attempt."""
    ends = []
    for compile in (lambda f: f, scg.compile):
        step, params, first, second = _two(compile, fault == "average")
        for _ in range(earlier):
            step(params, 1.0 * np.ones(()))
        if fault == "rate":
            second.learning_rate = np.nan
        elif fault == "read-only":
            params["b"].flags.writeable = False
        else:
            params["b"][0] = np.inf
            second.params["b"][0] = 0.0
        with pytest.raises(Exception) as raised, np.errstate(all="ignore"):
            step(params, np.ones(()))
        ends.append((type(raised.value), params, first.steps, getattr(second, "params", None)))
    (kind, _, steps, _), (expected, _, expected_steps, _) = ends[1], ends[0]
    assert kind is expected and steps == expected_steps
    agree(ends[1][1], ends[0][1], "parameters")
    agree(ends[1][3] or (), ends[0][3] or (), "averages")


def test_two_optimizers_and_two_steps_of_one_are_those_of_a_plain_call():
    ends = []
    for compile in (lambda f: f, scg.compile):
        step, params, first, second = _two(compile)
        values = [step(params, np.float64(k)) for k in range(4)]
        p = {"w": np.arange(3.0)}
        twice = optim.SGD(p, 0.1, momentum=0.9)

        def both_steps(x, twice=twice):
            twice.step({"w": x})
            twice.step({"w": 2 * x})
            return np.sum(x)

        run = compile(both_steps)
        for k in range(3):
            run(np.arange(3.0) + k)
        ends.append((values, params, first.state, second.state, p, twice.state))
        assert compile is not scg.compile or run.planned == 3 and step.planned == 4
    agree(ends[1], ends[0], "two steps")
