"""Compiled functions: law 7 (what the plain one returns, from the same draws), the cache, guards, ownership, threads,
refusals."""

from dataclasses import dataclass

import numpy as np
import pytest

import scg
from scg import distributions as dist
from scg.errors import EstimatorError, PlanError
from tests.support.compiled import agree, both

pytestmark = pytest.mark.fast


def coin_cost(estimator):
    def cost(theta, rng):
        b = scg.sample(dist.Bernoulli(logits=theta), estimator, rng=rng, name="b")
        return np.mean((b - 0.499) ** 2) + np.sum(b) ** 2 / 9

    return cost


ESTIMATORS = {
    "score": scg.ScoreFunction(),
    "constant": scg.ScoreFunction(baseline=scg.Constant(0.3)),
    "leave-one-out": scg.ScoreFunction(samples=3, baseline=scg.LeaveOneOut()),
    "optimal": scg.ScoreFunction(samples=3, baseline=scg.Optimal()),
    "ARM": scg.ARM(),
    "DisARM": scg.DisARM(),
    "enumerate": scg.Enumerate(),
    "measure-valued": scg.MeasureValued(),
    "MuProp": scg.MuProp(),
    "REBAR": scg.REBAR(temperature=0.5),
    "unordered set": scg.UnorderedSet(2),
    "Gumbel": scg.GumbelSoftmax(0.7),
    "hard Gumbel": scg.GumbelSoftmax(0.7, hard=True),
    "straight through": scg.StraightThrough(),
    "ReinMax": scg.ReinMax(),
}


@pytest.mark.parametrize("name", ESTIMATORS)
def test_every_rule_draws_and_differentiates_as_it_does_plainly(name):
    plain = scg.value_and_grad(coin_cost(ESTIMATORS[name]))
    compiled = scg.compile(plain)
    both(plain, compiled, lambda seed: (np.linspace(-1, 1, 4) * seed,), seeds=range(1, 6))
    assert compiled.plainly == 0


DISTRIBUTIONS = {
    "normal": lambda a: (dist.Normal(a, np.exp(a)), scg.Reparameterized()),
    "gamma": lambda a: (dist.Gamma(np.exp(a), 2.0), scg.Reparameterized()),
    "beta": lambda a: (dist.Beta(np.exp(a), 1.5), scg.Reparameterized()),
    "student": lambda a: (dist.StudentT(4.0, a, 1.0), scg.Reparameterized()),
    "uniform": lambda a: (dist.Uniform(a, a + 1), scg.Reparameterized()),
    "laplace": lambda a: (dist.Laplace(a, 1.0), scg.Reparameterized()),
    "mixture": lambda a: (
        dist.Mixture(dist.Normal(np.stack([a, -a], -1), 1.0), np.array([0.3, 0.7])),
        scg.ScoreFunction(),
    ),
    "poisson": lambda a: (dist.Poisson(np.exp(a)), scg.ScoreFunction()),
    "categorical": lambda a: (dist.Categorical(logits=np.stack([a, -a, 2 * a], -1)), scg.ScoreFunction()),
    "normal by score": lambda a: (dist.Normal(a, 1.0), scg.ScoreFunction()),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_distributions_of_all_kinds(name):
    def cost(a, rng):
        distribution, estimator = DISTRIBUTIONS[name](a)
        z = scg.sample(distribution, estimator, rng=rng, shape=(3,), name="z")
        return np.sum(z * z * 0.1) + np.sum(distribution.log_prob(z))

    plain = scg.value_and_grad(cost)
    compiled = scg.compile(plain)
    both(plain, compiled, lambda seed: (np.array([0.3, -0.2]) / seed,), seeds=range(1, 5))


def test_draws_depend_on_draws():
    def cost(theta, rng):
        a = scg.sample(dist.Bernoulli(logits=theta), scg.ScoreFunction(), rng=rng, name="a")
        b = scg.sample(dist.Normal(a * theta, 1.0), scg.Reparameterized(), rng=rng, name="b")
        c = scg.sample(dist.Bernoulli(logits=b), scg.DisARM(), rng=rng, name="c")
        return np.sum(a * b) + np.sum(c * theta)

    plain = scg.value_and_grad(cost)
    both(plain, scg.compile(plain), (np.array([0.2, -0.4, 1.0]),), seeds=range(6))


def test_numbers_that_the_function_draws_itself():
    def cost(theta, rng):
        noise = rng.standard_normal(3) + rng.uniform(-1, 1, size=3)
        rows = rng.integers(0, 3, size=2)
        return np.sum(np.tanh(theta * noise)) + np.sum(theta[rows]) * rng.random()

    plain = scg.value_and_grad(cost)
    both(plain, scg.compile(plain), (np.array([0.2, -0.4, 1.0]),))


@dataclass
class Weights:
    w: np.ndarray
    b: np.ndarray


KINDS = {
    "float32 by a Python number": lambda x, rng: x * rng.random(),
    "by one computed of it": lambda x, rng: x * (1 - 2 * rng.random()) ** 2 + rng.standard_normal() // 1,
    "by a scalar that NumPy computed of it": lambda x, rng: x * np.exp(rng.random()),
    "by an integer": lambda x, rng: x * rng.poisson(3.0) - rng.integers(7),
    "by an array without axes": lambda x, rng: x * rng.normal(0.0, 1.0, ()),
    "chosen": lambda x, rng: np.where(x > 1.5, x, rng.random()),
    "clipped": lambda x, rng: np.clip(x, 0.0, 1 + rng.random()),
    "the number": lambda x, rng: (rng.random(), rng.poisson(2.0), rng.random() * 2),
    "an if on it": lambda x, rng: x if rng.random() < 0.5 else x * 2,
    "a draw after it": lambda x, rng: (x * rng.random(), rng.standard_normal(2, np.float32)),
    "a loss": lambda x, rng: scg.value_and_grad(lambda x: np.mean((x * rng.random() - rng.random()) ** 2))(x),
    "a distribution": lambda x, rng: dist.Normal(x, 1 + rng.random(())).log_prob(x),
    **{
        fn.__name__: (lambda fn: lambda x, rng: fn(x))(fn)
        for fn in (
            np.sum,
            np.mean,
            np.max,
            np.median,
            np.var,
            np.argmax,
            np.any,
            np.prod,
            np.linalg.norm,
            np.ptp,
            np.average,
            np.nanmean,
        )
    },
    "count_nonzero": lambda x, rng: np.count_nonzero(x) + np.intp(0),  # NumPy 2.0 returns a number of Python
    "products": lambda x, rng: (
        x @ x,
        x.dot(x),
        np.dot(x, x),
        np.inner(x, x),
        np.vdot(x, x),
        np.tensordot(x, x, 1),
        np.einsum("i,i", x, x),
        np.vecdot(x, x),
    ),
    "elements": lambda x, rng: (
        x[0],
        x[..., 0],
        x[np.argmax(x)],
        np.take(x, 0),
        x[:1].reshape(()),
        np.squeeze(x[:1]),
        np.cumsum(x)[-1],
    ),
    "copies": lambda x, rng: (
        np.copy(x[0]),
        np.broadcast_to(x[0], ()),
        np.where(x[0] > 0, x[0], x[1]),
        np.reshape(np.sum(x), ()),
    ),
    "statistics": lambda x, rng: (
        np.quantile(x, 0.5),
        np.percentile(x, 30.0),
        np.interp(x[0], [0.0, 3.0], [0.0, 1.0]),
        np.round(x[0]),
        np.trace(np.outer(x, x)),
    ),
    "matrices": lambda x, rng: (
        np.linalg.det(np.outer(x, x)),
        np.linalg.slogdet(np.outer(x, x) + np.eye(3, dtype=np.float32)),
        x[:1].reshape(()) * 2,
    ),
}


@pytest.mark.parametrize("name", KINDS)
def test_results_have_the_types_of_the_plain_call(name):
    """Arrays, scalars of NumPy and numbers of Python, of the same dtype, so that draws that follow are of the same
    stream."""
    fn = KINDS[name]
    for dtype in (np.float32, np.float64):
        compiled = scg.compile(fn)
        for seed in range(4):
            x, first, second = (
                np.array([1.1, 2.2, 3.3], dtype) + seed,
                np.random.default_rng(seed),
                np.random.default_rng(seed),
            )
            found, expected = compiled(x, rng=second), fn(x, rng=first)
            agree(found, expected, name)
            for (path, a), (_, b) in zip(scg.tree.leaves(found), scg.tree.leaves(expected), strict=True):
                assert type(a) is type(b), f"{name}{path}: {type(a)}, expected {type(b)}"
                if "by" in name.split():  # maps: to the last bit
                    np.testing.assert_array_equal(a, b)
            assert first.bit_generator.state == second.bit_generator.state
        assert compiled.plainly == 0 and 1 <= compiled.recorded <= 3


def test_a_python_number_of_a_generator_as_a_parameter_is_refused_with_a_way_out():
    with pytest.raises(PlanError, match=r"scale of Normal is a Python number .*rng.random\(\(\)\)"):
        scg.compile(lambda x, rng: dist.Normal(x, 1 + rng.random()).log_prob(x))(np.ones(3), np.random.default_rng(0))


def test_structures_and_kinds_of_results():
    def fn(p, *, scale, rng):
        z = p["layer"].w * scale + p["layer"].b
        return {
            "z": z,
            "pair": (np.sum(z), np.mean(z, axis=0)),
            "same": p["other"],
            "constant": 3,
            "none": None,
            "mask": z > 0,
            "rng": rng.standard_normal(),
        }

    p = {"layer": Weights(np.ones((2, 3)), np.arange(3.0)), "other": np.float32(2)}
    compiled = scg.compile(fn)
    both(fn, compiled, (p,), {"scale": np.float64(0.5)})
    assert compiled(p, scale=np.float64(2), rng=np.random.default_rng(0))["same"] == 2
    assert type(compiled(p, scale=np.float64(2), rng=np.random.default_rng(0))["pair"][0]) is np.float64


def test_derivatives_of_all_kinds():
    def f(x):
        return np.sum(np.tanh(x) ** 2 * x)

    a, b, v = np.linspace(-1, 1, 4), np.linspace(0, 2, 4), np.arange(4.0)
    for make in (
        scg.grad,
        scg.hessian,
        lambda f: scg.grad(lambda x: np.sum(scg.grad(f)(x) ** 3)),
        lambda f: scg.jacobian(scg.grad(f)),
    ):
        plain = make(f)
        compiled = scg.compile(plain)
        for x in (a, b, a + b):
            agree(compiled(x), plain(x), str(make))
    plain = scg.hvp(f)
    compiled = scg.compile(plain)
    for x in (a, b, a + b):
        agree(compiled(x, v), plain(x, v), "hvp")
    plain = scg.compile(lambda x, v: scg.vjp(np.tanh)(x)[1](v))
    for x in (a, b):
        agree(plain(x, v), scg.vjp(np.tanh)(x)[1](v), "vjp")


def test_inside_a_derivative_it_runs_plainly():
    inner = scg.compile(lambda x: np.sum(np.exp(x)))
    agree(scg.grad(lambda x: inner(x) ** 2)(np.zeros(3)), np.full(3, 6.0), "nested")
    agree(scg.compile(scg.grad(lambda x: inner(x) ** 2))(np.zeros(3)), np.full(3, 6.0), "compiled within compiled")


def test_replicates_of_a_graph():
    graph = scg.trace(
        coin_cost(scg.ScoreFunction(samples=2, baseline=scg.LeaveOneOut())),
        np.linspace(-1, 1, 5),
        rng=np.random.default_rng(0),
    )
    compiled = scg.compile(lambda rng: graph.gradients(rng=rng, replicates=40))
    for seed in range(3):
        expected = graph.gradients(rng=np.random.default_rng(seed), replicates=40)
        agree(compiled(np.random.default_rng(seed)), expected, "replicates")
    assert compiled.recorded == 1 and compiled.plainly == 0


def tangents(e):
    def cost(theta, rng):
        z = scg.sample(scg.distributions.Normal(theta, 1.0), e, rng=rng)
        return np.sum(np.tanh(z) * theta**2)

    return cost


@pytest.mark.parametrize("e", [scg.ScoreFunction(), scg.Reparameterized()], ids=repr)
@pytest.mark.parametrize(
    "of",
    [
        lambda graph, theta, rng: graph.gradients(),
        lambda graph, theta, rng: graph.gradients(rng=rng),
        lambda graph, theta, rng: graph.gradients(rng=rng, replicates=3),
        lambda graph, theta, rng: graph.run(rng=rng).gradients(),
        lambda graph, theta, rng: graph.run(parameters=theta + 1, rng=rng).gradients(),
        lambda graph, theta, rng: graph.run(rng=rng).cost,
        lambda graph, theta, rng: graph.run(parameters=theta + 1, rng=rng, replicates=3).cost,
    ],
    ids=["gradients", "new samples", "replicates", "run", "elsewhere", "cost", "costs"],
)
def test_a_graph_that_is_traced_within_a_plan_has_the_parameters_of_each_call(of, e):
    plain = lambda theta, rng: of(scg.trace(tangents(e), theta, rng=rng), theta, rng)
    compiled = scg.compile(plain)
    for seed in range(3):
        theta = np.random.default_rng(seed).normal(size=2)
        right = plain(theta, np.random.default_rng(seed))
        agree(compiled(theta, np.random.default_rng(seed)), getattr(right, "value", right), "gradients")
    assert compiled.recorded == 1 and compiled.plainly == 0


@pytest.mark.parametrize("e", [scg.DisARM(), scg.Enumerate(), scg.MeasureValued()], ids=repr)
def test_a_graph_that_is_bound_within_a_plan_to_another_estimator_has_new_samples(e):
    def cost(theta, rng):
        b = scg.sample(scg.distributions.Bernoulli(logits=theta), scg.ScoreFunction(), rng=rng, name="b")
        return np.sum((b - 0.4) ** 2 * theta)

    plain = lambda theta, rng: scg.trace(cost, theta, rng=rng).bind({"b": e}).gradients(rng=rng)
    compiled = scg.compile(plain)
    for seed in range(4):
        theta = np.random.default_rng(seed).normal(size=2)
        agree(compiled(theta, np.random.default_rng(seed)), plain(theta, np.random.default_rng(seed)), "gradients")
    assert compiled.recorded == 1 and compiled.plainly == 0


def test_replays_inside_a_compiled_function():
    def fn(x, y):
        z = np.exp(x) * y
        return scg.replay(np.sum(z), {z: np.ones((2, 3))}, batched=[z]) + scg.replay(z * x, {z: np.ones(3)})[0]

    compiled = scg.compile(fn)
    for k in (1.0, 2.0):
        np.testing.assert_allclose(compiled(np.full(3, k), np.ones(3)), [3 + k, 3 + k])


def test_enumeration_through_where_compiles():
    def cost(t, rng):
        b = scg.sample(dist.Bernoulli(logits=t), scg.Enumerate(), rng=rng)
        return np.sum(np.where(b > 0.5, t, b)) * np.sum(b * t)

    t = np.array([0.3, -0.4, 0.9])
    step = scg.compile(scg.value_and_grad(cost))
    for seed in range(4):
        value, gradient = step(t, rng=np.random.default_rng(seed))
        expected = scg.value_and_grad(cost)(t, rng=np.random.default_rng(seed))
        assert value == pytest.approx(expected[0], rel=1e-14)
        np.testing.assert_allclose(gradient, expected[1], rtol=1e-13)


def test_a_plan_draws_nothing_for_rules_on_distributions_of_arguments_that_nobody_differentiates_by():
    def cost(t, k, rng):
        a = scg.sample(dist.Bernoulli(logits=2 * k), scg.DisARM(), rng=rng, name="a")
        b = scg.sample(dist.Bernoulli(logits=t), scg.ScoreFunction(samples=2), rng=rng, name="b")
        return np.sum(a) + np.sum(b)

    t, k, plain = np.linspace(-1, 1, 4), np.zeros(4), scg.value_and_grad(cost)
    step = scg.compile(plain)
    for seed in range(3):
        one, other = np.random.default_rng(seed), np.random.default_rng(seed)
        np.testing.assert_allclose(step(t, k, rng=one)[1], plain(t, k, rng=other)[1], rtol=1e-12)
        assert one.bit_generator.state == other.bit_generator.state


@pytest.mark.fast
@pytest.mark.parametrize("kind", ["where", "if"])
def test_a_step_that_moves_with_the_parameters_is_refused_in_a_plan_as_in_a_plain_run(kind):
    """E'[1[z > 0]] = phi(t) / sigma is a flux, which no path has."""

    def cost(t, rng):
        z = scg.sample(dist.Normal(t, 1.0), scg.Reparameterized(), rng=rng)
        if kind == "if":
            return 0.5 * z + 1 if z > 0 else z
        return np.where(z > 0, 0.5 * z + 1, z)

    for step in (scg.grad(cost), scg.compile(scg.grad(cost))):
        with pytest.raises(EstimatorError, match="a step that moves with the parameters"):
            step(np.array(-0.5), np.random.default_rng(0))


def test_a_step_at_which_both_sides_agree_is_none_in_a_plan_either():
    def cost(t, rng):
        z = scg.sample(dist.Normal(t, 1.0), scg.Reparameterized(), rng=rng, shape=3)
        return np.sum(np.where(z > 0, z, 0.1 * z) * np.maximum(z - t, 0))

    step = scg.compile(scg.value_and_grad(cost))
    for seed in range(4):
        expected = scg.value_and_grad(cost)(np.array(-0.5), np.random.default_rng(seed))
        np.testing.assert_allclose(step(np.array(-0.5), np.random.default_rng(seed)), expected, rtol=1e-13)
    assert step.planned and not step.plainly


@pytest.mark.parametrize("cost", [lambda x: np.where(x > 0, 2 * x, x), lambda x: 2 * x + 1, lambda x: np.abs(x) * x])
def test_values_are_scalars_and_gradients_arrays_as_in_a_plain_call(cost):
    plain, x = scg.value_and_grad(cost), np.array(0.5)
    for found in (plain(x), scg.compile(plain)(x)):
        assert [type(y) for y in found] == [np.float64, np.ndarray]


def test_an_estimator_that_is_valid_for_the_recorded_parameters_alone_is_refused_for_others():
    """Of Beta(1.5, b) few samples are rounded to one for b = 1, many for b = 0.01."""

    def cost(b, rng):
        return np.sum(scg.sample(dist.Beta(1.5, b), scg.ScoreFunction(), rng=rng, shape=3) ** 2)

    plain = scg.value_and_grad(cost)
    step = scg.compile(plain)
    both(plain, step, (np.array(1.0),))
    for fn in (plain, step):
        with pytest.raises(EstimatorError, match="tells from an end of their support"):
            fn(np.array(0.01), rng=np.random.default_rng(0))
