"""An estimator that is refused names others: each of them takes the distribution, is unbiased, and runs."""

import re

import numpy as np
import pytest

import scg
from scg import distributions as dist
from scg.errors import EstimatorError, GuardError, ScgError
from scg.stochastic.estimator import Estimator, accepting

T = np.array(0.4)
DISTRIBUTIONS = {
    "Bernoulli": lambda t: dist.Bernoulli(logits=t),
    "Categorical": lambda t: dist.Categorical(logits=t * np.arange(3.0)),
    "OneHotCategorical": lambda t: dist.OneHotCategorical(logits=t * np.arange(3.0)),
    "Poisson": lambda t: dist.Poisson(t),
    "Geometric": lambda t: dist.Geometric(probs=t),
    "Binomial": lambda t: dist.Binomial(4, probs=t),
    "Normal": lambda t: dist.Normal(t, 1.0),
    "Gamma": lambda t: dist.Gamma(2.0, t),
    "Uniform": lambda t: dist.Uniform(0.0, t),
    "VonMises": lambda t: dist.VonMises(t, 1.0),
}
REFUSED = [
    scg.Reparameterized(),
    scg.ScoreFunction(),
    scg.Enumerate(),
    scg.DisARM(),
    scg.ARM(),
    scg.REBAR(),
    scg.MuProp(),
    scg.MeasureValued(),
    scg.UnorderedSet(2),
    scg.StraightThrough(),
    scg.ReinMax(),
    scg.GumbelSoftmax(0.5),
]


def gradient_with(distribution, estimator):
    def cost(t, rng):
        return np.sum(scg.sample(distribution(t), estimator, rng=rng, name="z") * 1.0) ** 2

    return scg.grad(cost)(T, rng=np.random.default_rng(0))


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("refused", REFUSED, ids=repr)
def test_estimators_that_are_named_take_the_distribution(distribution, refused):
    try:
        gradient_with(DISTRIBUTIONS[distribution], refused)
    except EstimatorError as error:
        message = str(error)
    else:
        return
    ways = re.findall(r"(\w+)\(\)", message.rpartition("; use ")[2])
    assert ways and type(refused).__name__ not in ways, message
    for way in ways:
        estimator = getattr(scg, way)()
        assert estimator.unbiased
        assert np.isfinite(gradient_with(DISTRIBUTIONS[distribution], estimator))


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_there_is_always_an_estimator_to_name(distribution):
    found = accepting(DISTRIBUTIONS[distribution](scg.parameter(T)))
    assert found and all(e.unbiased for e in found)
    assert [e.offered for e in found] == sorted(e.offered for e in found)


def test_only_what_says_so_of_itself_is_named():
    """A subclass, such as a broken estimator made for a test, does not take the place of its base."""

    class Imposter(scg.DisARM.__mro__[1]):
        offered = 0

    class Heir(Imposter):
        pass

    names = [type(e).__name__ for e in accepting(dist.Poisson(2.0))]
    assert names[0] == "Imposter" and "Heir" not in names
    Imposter.offered = None
    assert "Imposter" not in [type(e).__name__ for e in accepting(dist.Poisson(2.0))]


def test_an_estimator_from_outside_objects_in_one_method():
    class Picky(Estimator):
        def objection(self, distribution):
            return "" if isinstance(distribution, dist.Normal) else f"needs a Normal, got {distribution!r}"

    Picky().check(dist.Normal(0.0, 1.0), "z")
    with pytest.raises(EstimatorError, match=r"z: Picky needs a Normal, got Poisson.*use ScoreFunction\(\) or Meas"):
        Picky().check(dist.Poisson(2.0), "z")


# an if


def chooses(estimator):
    def cost(t, rng):
        if scg.sample(dist.Bernoulli(logits=t), estimator, rng=rng, name="b") > 0:
            return 2.0 * t + 0 * scg.sample(dist.Normal(t, 1.0), scg.ScoreFunction(), rng=rng, name="up")
        return t * t + 0 * scg.sample(dist.Normal(t, 1.0), scg.ScoreFunction(), rng=rng, name="down")

    return cost


def test_an_estimator_that_takes_slopes_elsewhere_names_the_one_that_does_not():
    """s (2t - t^2) (1 - s) + 2 s + 2 t (1 - s), s the chance of the first branch."""
    with pytest.raises(GuardError, match=r"scg\.ScoreFunction\(\)"):
        scg.grad(chooses(scg.MuProp()))(T, rng=np.random.default_rng(0))
    rng, s = np.random.default_rng(1), 1 / (1 + np.exp(-T))
    found = np.array([scg.grad(chooses(scg.ScoreFunction()))(T, rng=rng) for _ in range(1500)])
    right = s * (1 - s) * (2 * T - T * T) + 2 * s + 2 * T * (1 - s)
    assert abs(found.mean() - right) < 5 * found.std() / len(found) ** 0.5


def test_a_draw_of_the_other_branch_is_bound_where_it_is_drawn():
    graph = scg.trace(chooses(scg.ScoreFunction()), T, rng=np.random.default_rng(0))
    (taken,) = {"up", "down"} & set(graph.stochastic)
    (other,) = {"up", "down"} - {taken}
    with pytest.raises(ScgError, match=rf"'{other}'.*`if` at .*test_advice\.py.*scg\.sample"):
        graph.bind({other: scg.Reparameterized()})
    plain = scg.trace(lambda t, rng: np.sum(scg.sample(dist.Normal(t, 1.0), scg.ScoreFunction(), rng=rng, name="z")), T,
                      rng=np.random.default_rng(0))  # fmt: skip
    with pytest.raises(ScgError, match="there are 'z'") as caught:
        plain.bind(y=scg.Reparameterized())
    assert "`if`" not in str(caught.value)


def test_a_second_derivative_in_a_shape_names_the_estimator_that_has_it():
    def cost(t, rng, estimator):
        return scg.sample(dist.Gamma(t, 1.0), estimator, rng=rng) ** 2

    with pytest.raises(ScgError, match=r"scg\.ScoreFunction\(\) \(.*test_advice"):
        scg.hessian(cost)(np.array(2.0), rng=np.random.default_rng(0), estimator=scg.Reparameterized())
    graph = scg.trace(cost, np.array(2.0), rng=np.random.default_rng(0), estimator=scg.ScoreFunction())
    np.testing.assert_allclose(scg.exact.hessian(graph), 2.0, rtol=1e-6)  # E = t + t^2


@pytest.mark.parametrize("law", ["Normal", "Gamma in its shape"])
def test_a_step_names_estimators_that_take_the_distribution_and_no_slope(law):
    """MeasureValued knows a Normal, and a Gamma but for its shape."""

    def cost(t, rng, estimator):
        distribution = dist.Normal(t, 1.0) if law == "Normal" else dist.Gamma(t, 1.0)
        return np.where(scg.sample(distribution, estimator, rng=rng, name="z") > 1, 1.0, 0.0)

    with pytest.raises(EstimatorError) as caught:
        scg.grad(cost)(np.array(1.5), rng=np.random.default_rng(0), estimator=scg.Reparameterized())
    ways = re.findall(r"(\w+)\(\)", str(caught.value).rpartition("use ")[2])
    assert ways == (["ScoreFunction", "MeasureValued"] if law == "Normal" else ["ScoreFunction"])
    for way in ways:
        assert np.isfinite(scg.grad(cost)(np.array(1.5), rng=np.random.default_rng(0), estimator=getattr(scg, way)()))


MOVING = {
    "Uniform": lambda t: dist.Uniform(0.0, t + 1),
    "Pareto": lambda t: dist.Pareto(t, 2.0),
    "truncated": lambda t: dist.TruncatedNormal(0.0, 1.0, -t, 2.0),
    "VonMises": lambda t: dist.VonMises(t, 1.0),
}


@pytest.mark.parametrize("law", MOVING)
@pytest.mark.parametrize("is_pure", [True, False])
def test_a_step_where_the_support_moves_is_told_what_to_write(law, is_pure):
    """P(z > c): by 1 - cdf(c), which is differentiated; of a circle by the score on a turn that stays."""
    c = 0.8

    def cost(t, rng):
        z = scg.sample(MOVING[law](t), scg.Reparameterized(), rng=rng, name="z")
        return np.where(z > c, 1.0, 0.0) + (0.0 if is_pure else 0.1 * z)

    with pytest.raises(EstimatorError) as error:
        scg.grad(cost)(T, rng=np.random.default_rng(0))
    assert "looks at values" not in str(error.value)
    h = 1e-5
    truth = -(MOVING[law](T + h).cdf(c) - MOVING[law](T - h).cdf(c)) / (2 * h)
    if law == "VonMises":
        assert "ScoreFunction()" in str(error.value) and "low=-np.pi" in str(error.value)
        graph = scg.trace(
            lambda t, rng: np.where(
                scg.sample(dist.VonMises(t, 1.0, low=-np.pi), scg.ScoreFunction(), rng=rng) > c, 1.0, 0
            ),
            T,
            rng=np.random.default_rng(0),
        )
        found = graph.gradients(rng=np.random.default_rng(1), replicates=20_000)
        low = dist.VonMises(T + h, 1.0, low=-np.pi).cdf(c) - dist.VonMises(T - h, 1.0, low=-np.pi).cdf(c)
        assert abs(found.mean() + low / (2 * h)) < 5 * found.std() / 20_000**0.5
    else:
        assert "1 - distribution.cdf(c) for z > c" in str(error.value)
        assert scg.grad(lambda t: 1 - MOVING[law](t).cdf(c))(T) == pytest.approx(truth, rel=1e-6)
