"""Gradients inside a cost: whatever is made of them, the mean of its gradient is the derivative of its mean. By
enumeration, and differences of numbers."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, reject

import scg
from scg import distributions as dist
from scg.core.backward import pull
from scg.core.node import Node
from scg.core.tree import leaves, map_leaves
from scg.errors import NotDifferentiable
from scg.extend import Estimator, first_order, score
from scg.testing import graphs
from scg.testing.strategies.bindings import candidates
from tests.support.drawn import covering, drawn
from tests.support.oracle import TooMany, mean

STEP = 1e-3
ESTIMATORS = {
    "score": scg.ScoreFunction,
    "constant": lambda: scg.ScoreFunction(scg.Constant(0.4)),
    "leave one out": lambda: scg.ScoreFunction(scg.LeaveOneOut(), samples=2),
    "enumerated": scg.Enumerate,
    "set": lambda: scg.UnorderedSet(2),
    "disarm": scg.DisARM,
    "measure": scg.MeasureValued,
    "muprop": scg.MuProp,
}
# noise of their own, and partners that some values of a categorical draw cannot have: not for this oracle
SMOOTH = ("REBAR", "RELAX", "DisARM")
TEXTS = tuple([text for text in candidates(True) if not any(name in text for name in SMOOTH)])


def expected(cost):
    """The mean over all that can happen, as a number: no derivative is believed."""
    (found,) = mean([cost])
    return float(found.value if isinstance(found, Node) else found)


def slope(at):
    """The derivative of at(h) for h = 0, and a bound of its error: the change of a formula of fourth order as its step
    is doubled, and rounding."""
    values = {k: at(k * STEP) for k in (1, -1, 2, -2, 4, -4)}
    fine, coarse = ((8 * (values[k] - values[-k]) - (values[2 * k] - values[-2 * k])) / (12 * k * STEP) for k in (1, 2))
    return fine, abs(fine - coarse) + 1e-13 / STEP * max(map(abs, values.values())) + 1e-12


def estimated(cost, targets, directions, order=1):
    """The mean of the estimate along directions; and that the surrogate has the value of the cost."""
    loss = scg.surrogate(cost, order, graph=True)
    assert loss.value == cost.value
    pulled = pull([loss], [np.ones((), loss.dtype)], targets, True)
    return sum(
        [float(np.sum(np.asarray(getattr(g, "value", g)) * d)) for g, d in zip(mean(pulled), directions, strict=True)]
    )


# --- drawn graphs
# -------------------------------------------------------------------------------------------------------------------


def is_right(graph):
    """Laws 1 and 2."""
    (structure,) = graph.program.args
    targets = [leaf for _, leaf in leaves(graph.parameters)]
    directions = [np.linspace(1, 2, t.size).reshape(t.shape) for t in targets]

    def at(h):
        moved = iter(directions)
        moved = map_leaves(lambda x: x + h * next(moved), structure)
        return expected(dataclasses.replace(graph.program, arguments={"theta": moved}).graph().cost)

    try:
        found, (right, error) = estimated(graph.cost, targets, directions), slope(at)
    except TooMany:
        return
    except NotDifferentiable as error:
        assert "is certain there" in str(error)  # partners at even odds
        reject()
    assert abs(found - right) <= error, (found, right, error)


@drawn(100)
@given(
    graphs(
        estimators=("scg.ScoreFunction()", "scg.Enumerate()", "scg.ScoreFunction(baseline=scg.Constant(0.5))"),
        nested=True,
        outcomes=16,
        nodes=2,
    )
)
def test_the_laws_hold_where_a_cost_is_made_of_gradients(graph):
    is_right(graph)


@drawn(40)
@given(graphs(estimators=TEXTS, nested=True, outcomes=4, nodes=2))
def test_the_laws_hold_for_gradients_by_any_estimator(graph):
    is_right(graph)


# --- programs that people write
# -----------------------------------------------------------------------------------------------------


def coin(t, rng, estimator, name=None):
    return scg.sample(dist.Bernoulli(logits=t), ESTIMATORS[estimator](), rng=rng, name=name)


def one(t, rng, estimator):
    return (coin(t, rng, estimator) - 0.3) ** 2 * np.exp(0.3 * t)


def chain(t, rng, estimator):
    a = coin(t, rng, estimator)
    return (a - 0.3) ** 2 * t + np.sin(coin(t * (a - 0.4), rng, "score") + a)


def penalty(loss, t, rng, estimator):
    value, g = scg.value_and_grad(loss)(t, rng, estimator)
    return value + 0.5 * g**2


def product(loss, t, rng, estimator):
    return scg.grad(loss)(t, rng, estimator) * scg.grad(loss)(1.5 * t, rng, "score")


def weighed_by_a_draw(loss, t, rng, estimator):
    b = coin(t, rng, "enumerated")
    return (b - 0.4) * scg.grad(loss)(t, rng, estimator) + b * t


def adapted(loss, t, rng, estimator):
    """MAML with an inner step by an estimate."""
    return loss(t - 2.0 * scg.grad(loss)(t, rng, estimator), rng, "score")


def adapted_twice(loss, t, rng, estimator):
    t = t - 0.7 * scg.grad(one)(t, rng, estimator)
    return t + scg.grad(one)(t, rng, "score")


def augmented(loss, t, rng, estimator):
    """A bilevel step: the draw depends on the outer parameter alone."""
    w = scg.parameter(np.array(0.2))
    return (w - 0.4 * scg.grad(lambda w: (w - 2 * loss(t, rng, estimator)) ** 2)(w) - 1.0) ** 2


def drawn_from_it(loss, t, rng, estimator):
    g = scg.grad(loss)(t, rng, estimator)
    return (coin(g, rng, "enumerated") - 0.3) * t + g


def of_a_gradient(loss, t, rng, estimator):
    return scg.grad(lambda s: scg.grad(one)(s, rng, estimator) ** 2)(t) + t**2


def curvature(loss, t, rng, estimator):
    return np.sin(scg.hvp(lambda s: loss(s, rng, estimator))(t, 1.3 * t)) + np.tanh(
        scg.hessian(lambda s: loss(s, rng, estimator))(t)
    )


def pulled_back(loss, t, rng, estimator):
    value, back = scg.vjp(lambda s: loss(s, rng, estimator))(t)
    return value + back(1.5) ** 2


def surrogates(loss, t, rng, estimator):
    b = coin(t, rng, estimator)
    return scg.surrogate(3 * b) + 5 * b + scg.surrogate(b * t) ** 2


PROGRAMS = [
    penalty,
    product,
    weighed_by_a_draw,
    adapted,
    adapted_twice,
    augmented,
    drawn_from_it,
    of_a_gradient,
    curvature,
    pulled_back,
    surrogates,
]


class Stopped(Estimator):
    """The score function; the cost by ``scg.stop_gradient``, as one would write it."""

    second_derivatives = False

    def expand(self, down):
        return np.sum(first_order(score(down.node), scg.stop_gradient(down.now())))


class ByHand(Estimator):
    """The same, without the tools."""

    second_derivatives = False

    def expand(self, down):
        s = score(down.node)
        return np.sum((s - scg.stop_gradient(s)) * scg.stop_gradient(down.now()))


class Frozen(Estimator):
    """Both values of a coin, weighed by the ratio of its probabilities to those of a distribution that is held."""

    second_derivatives = False

    def expand(self, down):
        frozen, z = down.distribution.stop_gradient().log_prob, np.array([0.0, 1.0])
        f = np.stack(down.one_by_one(np.reshape(z, (2,) + (1,) * down.node.ndim)))
        return np.sum(np.exp(frozen(z)) * (np.exp(down.distribution.log_prob(z) - frozen(z)) - 1) * f)


class Compared(Estimator):
    """The score function, less the cost at another sample of a distribution that is held."""

    second_derivatives = False

    def expand(self, down):
        other = down.constant(down.noise(down.distribution.stop_gradient()))
        return np.sum(first_order(score(down.node), down.now() - down.at(other[None])[0]))


@pytest.mark.parametrize("foreign", [Stopped, ByHand, Frozen, Compared])
@pytest.mark.parametrize("program", [penalty, product, weighed_by_a_draw, adapted, drawn_from_it, pulled_back])
def test_what_an_estimator_from_outside_holds_by_stop_gradient_is_its_own(program, foreign, monkeypatch):
    monkeypatch.setitem(ESTIMATORS, "foreign", foreign)
    t = scg.parameter(np.array(0.4))

    def cost(t):
        return program(one, t, np.random.default_rng(3), "foreign")

    right, error = slope(lambda h: expected(cost(scg.parameter(0.4 + h))))
    assert abs(estimated(cost(t), [t], [1.0]) - right) <= error


@pytest.mark.parametrize(("program", "estimator"), covering(PROGRAMS, [*ESTIMATORS], times=3))
def test_the_mean_of_the_gradient_is_the_derivative_of_the_mean(program, estimator):
    t = scg.parameter(np.array(0.4))
    for loss in (one, chain):

        def cost(t, loss=loss):
            return program(loss, t, np.random.default_rng(3), estimator)

        try:
            right, error = slope(lambda h, cost=cost: expected(cost(scg.parameter(0.4 + h))))
            found = [estimated(cost(t), [t], [1.0], order) for order in (1, None)]
        except TooMany:
            continue
        except scg.errors.NotDifferentiable as error:  # by a formula that has no second derivative
            assert (
                program is curvature
                and estimator in ("disarm", "measure", "muprop")
                and "use ScoreFunction() or Enumerate()" in str(error)
            )
            return
        np.testing.assert_allclose(found, right, 0, error)


def test_an_estimate_of_a_second_derivative_is_one_whether_it_nests_or_not():
    """The gradient of a gradient has the terms of the Hessian, draw by draw."""
    t, v = np.array([0.4, -0.3]), np.array([1.0, 2.0])

    def loss(t, rng):
        a = scg.sample(dist.Bernoulli(logits=t), scg.ScoreFunction(), rng=rng)
        return np.sum((a - t) ** 2 * np.array([1.0, 3.0]))

    for seed in range(5):
        hessian = scg.hessian(lambda t, seed=seed: loss(t, np.random.default_rng(seed)))(t)
        again = scg.grad(lambda t, seed=seed: np.sum(scg.grad(loss)(t, rng=np.random.default_rng(seed)) * v))(t)
        rows = scg.jacobian(lambda t, seed=seed: scg.grad(loss)(t, rng=np.random.default_rng(seed)))(t)
        np.testing.assert_allclose(again, hessian @ v, rtol=1e-12)
        np.testing.assert_allclose(rows, hessian, rtol=1e-12)
        assert hessian[0, 1] == 0  # each draw meets its own cost


@pytest.mark.parametrize("program", [penalty, adapted, drawn_from_it])
@pytest.mark.parametrize("estimator", ["score", "leave one out", "enumerated", "measure"])
def test_exact_values_replicates_and_the_verdict_agree(program, estimator):
    graph = scg.trace(lambda t, rng: program(one, t, rng, estimator), np.array(0.4), rng=np.random.default_rng(0))
    right, error = slope(lambda h: expected(program(one, scg.parameter(0.4 + h), np.random.default_rng(3), estimator)))
    np.testing.assert_allclose([scg.exact.gradient(graph), scg.exact.moments(graph).mean], right, 0, error)
    assert scg.testing.assert_unbiased(graph, rng=np.random.default_rng(0)).method == "exact"
    found = graph.gradients(rng=np.random.default_rng(1), replicates=20_000)
    assert abs(found.mean() - right) < 5 * found.std() / np.sqrt(len(found))


@pytest.mark.parametrize("order", [1, 2, None])
@pytest.mark.parametrize("estimator", ["score", "disarm", "enumerated"])
def test_the_gradient_of_a_surrogate_is_the_gradient_once(estimator, order):
    graph = scg.trace(
        lambda t, rng: np.mean((coin(t, rng, estimator, "b") - 0.499) ** 2),
        np.array([0.2, -0.3]),
        rng=np.random.default_rng(0),
    )
    # which draws a partner for each gradient
    again = graph.bind(b=scg.ScoreFunction()) if estimator == "disarm" else graph
    np.testing.assert_allclose(scg.gradients(again.surrogate(order), graph.parameters), again.gradients(), rtol=1e-12)


@pytest.mark.parametrize(
    "order, kind",
    [("a", scg.errors.ScgTypeError), (1.5, scg.errors.ScgTypeError), (True, scg.errors.ScgTypeError)]
    + [(0, scg.errors.ScgValueError), (-1, scg.errors.ScgValueError)],
)
def test_an_order_is_an_integer_of_at_least_one(order, kind):
    graph = scg.trace(lambda t, rng: coin(t, rng, "score"), np.array(0.2), rng=np.random.default_rng(0))
    with pytest.raises(kind, match=r"surrogate: order must be .* got"):
        graph.surrogate(order)


def test_a_compiled_step_returns_what_the_plain_one_does():
    plain = scg.value_and_grad(lambda t, rng: penalty(chain, t, rng, "score") + adapted(one, t, rng, "disarm"))
    compiled = scg.compile(plain)
    for seed in range(4):
        expected_pair = plain(np.array(0.4), rng=np.random.default_rng(seed))
        np.testing.assert_allclose(compiled(np.array(0.4), rng=np.random.default_rng(seed)), expected_pair, rtol=1e-12)


@pytest.mark.parametrize(
    "made",
    [
        lambda g, t: g,
        lambda g, t: g + t**2,
        lambda g, t: t * g,
        lambda g, t: g**2 + g,
        lambda g, t: t**2 + np.sin(g) * t,
    ],
)
def test_a_draw_that_chooses_a_branch_chooses_what_is_made_of_the_gradient_there(made):
    """E = p h(2 t + t^2 (1 - p), t) + (1 - p) h(0.3 - 0.3 t p, t), p = sigmoid(t), where the loss is t^2 or 0.3 t."""

    def loss(t, rng):
        b = coin(t, rng, "score", "b")
        return t * t if b > 0 else 0.3 * t

    def exact(t):
        p = 1 / (1 + np.exp(-t))
        return p * made(2 * t + t * t * (1 - p), t) + (1 - p) * made(0.3 - 0.3 * t * p, t)

    p, found = 1 / (1 + np.exp(-0.4)), {}
    for seed in range(20):
        graph = scg.trace(
            lambda t, rng: made(scg.grad(loss)(t, rng=rng), t), np.array(0.4), rng=np.random.default_rng(seed)
        )
        found[int(graph.stochastic["b"].value)] = graph.gradients()
    right, error = slope(lambda h: exact(0.4 + h))
    np.testing.assert_allclose(p * found[1] + (1 - p) * found[0], right, 0, error)


def test_exact_values_of_a_gradient_along_a_path_are_those_of_its_noise():
    """g = 3 z^2 dz/dt at z = t + e: E[g^2] = 9 E[z^4] = 9 (t^4 + 6 t^2 + 3), of derivative 36 t^3 + 108 t; the scale's
    gradient is 3 z^2 e."""

    def cost(t, rng):
        def cube(loc, scale):
            return scg.sample(dist.Normal(loc, scale), scg.Reparameterized(), rng=rng) ** 3

        along, across = scg.grad(cube, argnums=(0, 1))(t, 1.0 + 0.0 * t)
        return along**2 + across

    graph = scg.trace(cost, np.array(0.4), rng=np.random.default_rng(0))
    right = 36 * 0.4**3 + 108 * 0.4 + 6  # E[3 (t + e)^2 e] = 6 t
    np.testing.assert_allclose([scg.exact.gradient(graph), scg.exact.moments(graph).mean], right, rtol=1e-9)
    assert scg.testing.assert_unbiased(graph, rng=np.random.default_rng(0))


CHAINED = {
    "score": scg.ScoreFunction,
    "DisARM": scg.DisARM,
    "Enumerate": scg.Enumerate,
    "set": lambda: scg.UnorderedSet(2),
}


@pytest.mark.parametrize(
    "first, second, known",
    [
        ("DisARM", "score", True),
        ("DisARM", "Enumerate", True),
        ("Enumerate", "DisARM", True),
        ("score", "DisARM", True),
        ("DisARM", "DisARM", False),
        ("set", "DisARM", False),
    ],
)
def test_the_square_of_a_gradient_through_two_coins_is_right_or_refused(first, second, known):
    """d/dt E[g(t)^2], g an estimate of d/dt E[b (1 + c)], c drawn given b: by differences of the exact mean."""

    def inner(t, rng):
        b = scg.sample(dist.Bernoulli(logits=t), CHAINED[first](), rng=rng, name="b")
        c = scg.sample(dist.Bernoulli(logits=t * b - 0.2), CHAINED[second](), rng=rng, name="c")
        return b * (1 + c)

    def cost(t, rng):
        return scg.grad(inner)(t, rng=rng) ** 2

    if not known:
        with pytest.raises(scg.errors.NotDifferentiable, match=r"use ScoreFunction\(\), Enumerate\(\)"):
            scg.grad(cost)(np.array(0.4), rng=np.random.default_rng(0))
        return
    low, high = [float(scg.exact.expectation(cost, np.array(0.4 + h))) for h in (-1e-4, 1e-4)]
    assert abs(float(scg.exact.moments(cost, np.array(0.4)).mean) - (high - low) / 2e-4) < 1e-6


TIED = {
    **ESTIMATORS,
    "arm": scg.ARM,
    "rebar": scg.REBAR,
    "pairs": lambda: scg.CoupledPairs(2),
    "double": scg.DoubleControlVariate,
    "derivative": scg.StochasticDerivative,
    "rodeo": scg.RODEO,
}
COINS = (lambda t: dist.Bernoulli(logits=t), lambda t: dist.Bernoulli(probs=1 / (1 + np.exp(-t))))
FACES = (lambda t: dist.OneHotCategorical(logits=t), lambda t: dist.Categorical(logits=t))


@pytest.mark.parametrize("distribution", [*COINS, *FACES], ids=["logits", "probs", "one of K", "a number"])
@pytest.mark.parametrize("estimator", TIED)
def test_at_even_odds_the_mean_is_the_derivative_of_the_mean_or_refused(estimator, distribution):
    """The partner of a fair coin is certain, and of another one is not: |logit| has a kink there. What is used of the
    gradients is linear, so that all estimators have one mean, which is that by enumeration."""
    theta, w = np.zeros(3), np.array([1.0, -2.0, 0.4])
    if TIED[estimator]().objection(distribution(theta)) or estimator == "rebar" and distribution in FACES:
        return

    def cost(t, rng, made):
        def inner(t, rng):
            b = scg.sample(distribution(t), made(), rng=rng)
            return np.sum(b * w) ** 2 * (1 + t[0]) + np.sum((b - 0.3) ** 2)

        value, gradient = scg.value_and_grad(inner)(t, rng=rng)
        return value + np.sum(gradient * w)

    right = scg.exact.gradient(lambda t, rng: cost(t, rng, scg.Enumerate), theta)
    rng = np.random.default_rng(0)
    try:
        graph = scg.trace(lambda t, rng: cost(t, rng, TIED[estimator]), theta, rng=rng)
        found = graph.gradients(rng=rng, replicates=4000)
    except scg.errors.NotDifferentiable as error:
        assert estimator in ("arm", "disarm", "pairs") and "logits of exactly 0" in str(error)
        with pytest.raises(scg.errors.ScgValueError, match="logits of exactly 0.*use ScoreFunction.*Enumerate"):
            scg.exact.gradient(graph)
        return
    spread = np.std(found, axis=0) / np.sqrt(len(found))
    assert np.all(np.abs(np.mean(found, axis=0) - right) < 5.3 * spread + 1e-9)  # two tails of 1e-7 each
