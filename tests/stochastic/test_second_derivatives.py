"""An estimator that says it has no second derivative: first ones are as they were, second ones are refused."""

import numpy as np
import pytest

import scg
from scg import distributions as dist
from scg.core.backward import pull
from scg.errors import NotDifferentiable
from scg.extend import Estimator

pytestmark = pytest.mark.fast


class Difference(Estimator):
    """d/dt E[f(b)] = dp/dt E[f(1) - f(0)] for each coin."""

    requires = (dist.Bernoulli,)

    def expand(self, down):
        f0, f1 = down.one_by_one(np.reshape([0.0, 1.0], (2,) + (1,) * down.node.ndim))
        p = down.distribution.p
        return np.sum((p - scg.stop_gradient(p)) * (f1 - f0))


class Once(Difference):
    second_derivatives = False


def cost(estimator):
    def of(theta, rng):
        return np.sum(scg.sample(dist.Bernoulli(logits=theta), estimator, rng=rng, name="b")) ** 2

    return of


def rng():
    return np.random.default_rng(0)


def test_first_derivatives_are_those_without_the_claim():
    one, other = (scg.trace(cost(kind()), np.array([0.3, -1.0]), rng=rng()) for kind in (Difference, Once))
    np.testing.assert_array_equal(one.gradients(), other.gradients())
    np.testing.assert_array_equal(*[g.gradients(rng=rng(), replicates=5) for g in (one, other)])
    assert scg.testing.judge(other, rng=rng()).status == "unbiased"


def test_second_derivatives_are_refused_with_estimators_that_have_them():
    assert np.shape(scg.hessian(cost(Difference()))(np.zeros(2), rng=rng())) == (2, 2)
    with pytest.raises(NotDifferentiable, match="none of higher order.*ScoreFunction"):
        scg.hessian(cost(Once()))(np.zeros(2), rng=rng())


def test_a_surrogate_of_first_order_says_which_one_has_second_derivatives():
    t = scg.parameter(np.zeros(2))
    loss = scg.surrogate(cost(scg.ScoreFunction())(t, rng()), 1, graph=True)
    (gradient,) = pull([loss], [np.ones(())], [t], True)
    with pytest.raises(NotDifferentiable, match="surrogate with order=2"):
        pull([np.sum(gradient)], [np.ones(())], [t])
