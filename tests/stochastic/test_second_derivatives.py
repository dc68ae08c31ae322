"""Whether an estimate may be differentiated again is said beside its formula: else first derivatives are as they are,
and second ones refused."""

import numpy as np
import pytest

import scg
from scg import distributions as dist
from scg.core.backward import pull
from scg.errors import EstimatorError, NotDifferentiable
from scg.extend import Estimator, box, score

pytestmark = pytest.mark.fast

T = np.array([0.3, -1.0])


class Difference(Estimator):
    """d/dt E[f(b)] = dp/dt E[f(1) - f(0)] for each coin."""

    requires, second_derivatives = (dist.Bernoulli,), True

    def expand(self, down):
        f0, f1 = down.one_by_one(np.reshape([0.0, 1.0], (2,) + (1,) * down.node.ndim))
        p = down.distribution.p
        return np.sum((p - scg.stop_gradient(p)) * (f1 - f0))


class Once(Difference):
    second_derivatives = False


class Boxed(Estimator):
    """The score function of all coins together, with a box."""

    second_derivatives = True

    def expand(self, down):
        return (box(np.sum(score(down.node))) - 1) * down.cost


class Numbers(Difference):
    """The same estimate as by ``Difference``, of which the costs are plain numbers: it has overridden the formula that
    claims more."""

    def expand(self, down):
        f0, f1 = down.one_by_one(np.reshape([0.0, 1.0], (2,) + (1,) * down.node.ndim))
        p, f = down.distribution.p, getattr(f1, "value", f1) - getattr(f0, "value", f0)
        return np.sum((p - scg.stop_gradient(p)) * f)


class NoBox(Boxed):
    """Of nodes throughout, though log p - stop_gradient(log p) lacks the square of the score."""

    def expand(self, down):
        s = np.sum(score(down.node))
        return (s - scg.stop_gradient(s)) * down.cost


class Formula:
    def expand(self, down):
        return Numbers.expand(self, down)


class Mixed(Formula, Difference):
    pass


class Later(Mixed):
    """What has no formula of its own has no claim of its own."""


CLAIMED, SILENT = [Difference, Boxed], {Numbers: Difference, Mixed: Difference, Later: Difference, NoBox: Boxed}


def cost(estimator):
    def of(theta, rng):
        b = scg.sample(dist.Bernoulli(logits=theta), estimator, rng=rng, name="b")
        return np.sum(np.exp(theta)) * np.sum((b - 0.4) * theta) ** 2 + np.sum(theta**3)

    return of


def rng():
    return np.random.default_rng(0)


def test_first_derivatives_are_those_without_the_claim():
    one, other = (scg.trace(cost(kind()), T, rng=rng()) for kind in (Difference, Once))
    np.testing.assert_array_equal(one.gradients(), other.gradients())
    np.testing.assert_array_equal(*[g.gradients(rng=rng(), replicates=5) for g in (one, other)])
    assert scg.testing.judge(other, rng=rng()).status == "unbiased"


@pytest.mark.parametrize("kind", SILENT)
def test_first_derivatives_are_right_whatever_is_claimed(kind):
    found, right = (scg.grad(cost(k()))(T, rng=rng()) for k in (kind, SILENT[kind]))
    np.testing.assert_allclose(found, right, rtol=1e-12)
    np.testing.assert_allclose(
        scg.exact.moments(cost(SILENT[kind]()), T).mean, scg.exact.gradient(cost(scg.ScoreFunction()), T), rtol=1e-12
    )


@pytest.mark.parametrize("kind", CLAIMED)
def test_the_mean_of_a_second_derivative_that_is_claimed_is_right(kind):
    v = np.array([1.0, -0.5])
    product = lambda t, rng: np.sum(scg.grad(cost(kind()))(t, rng=rng) * v)
    exact = scg.exact.hessian(cost(scg.ScoreFunction()), T) @ v
    np.testing.assert_allclose(scg.exact.moments(product, T).mean, exact, rtol=1e-12)


@pytest.mark.parametrize("kind", SILENT)
def test_without_a_claim_a_second_derivative_is_refused(kind):
    """It would be wrong, as is seen once it claims it."""
    says = "does not say that its formula may be differentiated twice.*second_derivatives = True.*ScoreFunction"
    with pytest.raises(NotDifferentiable, match=f"{kind.__name__}.*b ~ Bernoulli.*{says}"):
        scg.hessian(cost(kind()))(T, rng=rng())
    claims = type("Claims", (kind,), {"second_derivatives": True})
    found, right = (scg.hessian(cost(k()))(T, rng=rng()) for k in (claims, SILENT[kind]))
    assert np.max(np.abs(found - right)) > 0.01 * np.max(np.abs(right))


@pytest.mark.parametrize("kind", [Once, NoBox, Numbers])
def test_without_a_claim_an_estimate_is_still_a_value_in_a_cost(kind):
    """Its samples have scores there. A formula of plain numbers is refused."""
    of = lambda k: lambda t, rng: np.sum(scg.grad(cost(k()))(t, rng=rng) * T)
    if kind is Numbers:
        with pytest.raises(EstimatorError, match="node.value, at .*in expand"):
            scg.exact.moments(of(kind), T)
        return
    exact = scg.exact.hessian(cost(scg.ScoreFunction()), T) @ T
    np.testing.assert_allclose(scg.exact.moments(of(kind), T).mean, exact, rtol=1e-12)


def test_what_overrides_no_formula_keeps_the_claim():
    class Smooth(scg.Reparameterized):
        def objection(self, distribution):
            return ""

    class Named(Difference):
        pass

    assert Smooth.second_derivatives and Named.second_derivatives and not Once.second_derivatives


def test_second_derivatives_are_refused_with_estimators_that_have_them():
    with pytest.raises(NotDifferentiable, match="none of higher order.*ScoreFunction"):
        scg.hessian(cost(Once()))(T, rng=rng())


def test_a_surrogate_of_first_order_says_which_one_has_second_derivatives():
    t = scg.parameter(np.zeros(2))
    loss = scg.surrogate(cost(scg.ScoreFunction())(t, rng()), 1, graph=True)
    (gradient,) = pull([loss], [np.ones(())], [t], True)
    with pytest.raises(NotDifferentiable, match="surrogate with order=2"):
        pull([np.sum(gradient)], [np.ones(())], [t])


WAYS = {
    "hvp": lambda cost, t, rng: scg.hvp(lambda x: cost(x, rng))(t, t),
    "hessian": lambda cost, t, rng: scg.hessian(cost)(t, rng),
    "plan": lambda cost, t, rng: scg.compile(lambda x, r: scg.hvp(lambda y: cost(y, r))(x, x))(t, rng),
}
FIRST = {
    "ARM": scg.ARM,
    "CoupledPairs": scg.CoupledPairs,
    "DisARM": scg.DisARM,
    "DoubleControlVariate": scg.DoubleControlVariate,
    "MeasureValued": scg.MeasureValued,
    "MuProp": scg.MuProp,
    "REBAR": scg.REBAR,
    "RELAX": lambda: scg.RELAX(lambda phi, z: phi * np.tanh(z), np.array(0.1)),
    "RODEO": scg.RODEO,
    "StochasticDerivative": lambda: scg.StochasticDerivative(prune="program"),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", FIRST)
def test_estimators_of_first_derivatives_name_those_that_have_second_ones(name, way):
    def cost(t, rng):
        z = scg.sample(dist.Bernoulli(logits=t), FIRST[name](), rng=rng, name="b")
        return np.sum(z * np.array([1.0, 2.0])) ** 2

    t = np.array([0.3, -0.2])
    with pytest.raises(scg.ScgError, match=rf"{name}\(\) of b.*for second derivatives use ScoreFunction\(\) or Enum"):
        WAYS[way](cost, t, np.random.default_rng(0))
