"""What an estimator's formula returns, what is written in the place of an array, and options of exact results."""

import numpy as np
import pytest

import scg
from scg import distributions as dist
from scg.errors import EstimatorError, NotDifferentiable, ScgError, ScgTypeError
from scg.extend import Estimator

pytestmark = pytest.mark.fast

T = np.array([0.3, -0.8, 0.1])


class Returning(Estimator):
    """The difference of a coin's two costs, and ``form`` of it."""

    requires, second_derivatives = (dist.Bernoulli,), True

    def __init__(self, form):
        self.form = form

    def expand(self, down):
        f0, f1 = down.one_by_one(np.reshape([0.0, 1.0], (2,) + (1,) * down.node.ndim))
        return self.form(down.distribution.p, f1 - f0)


def zero(p, f):
    return np.sum((p - scg.stop_gradient(p)) * f)


def cost(t, rng, form):
    return np.sum(scg.sample(dist.Bernoulli(logits=t), Returning(form), rng=rng, name="b") - 0.4) ** 2


@pytest.mark.parametrize(
    "form", [lambda p, f: np.ones(3), lambda p, f: 0.0, lambda p, f: "a", lambda p, f: (p - scg.stop_gradient(p)) * f]
)
def test_a_formula_is_a_scalar_node_or_refused(form):
    for call in (scg.grad(cost), scg.hessian(cost)):
        with pytest.raises(EstimatorError, match="b ~ .*expand of Returning must return None, or a scalar node.*got"):
            call(T, rng=np.random.default_rng(0), form=form)


@pytest.mark.parametrize("form", [lambda p, f: np.sum(p * f), lambda p, f: np.sum((p - 0.2) * f) + 7])
def test_a_formula_that_is_not_zero_counts_by_its_derivative_alone(form):
    one, other = (scg.trace(cost, T, rng=np.random.default_rng(0), form=f) for f in (zero, form))
    assert scg.surrogate(other.cost).value == other.cost.value
    np.testing.assert_allclose(one.gradients(), other.gradients(), rtol=1e-12)
    np.testing.assert_allclose(*[scg.exact.moments(g).mean for g in (one, other)], rtol=1e-12)


def filled(p):
    buffer = np.zeros(3)
    for i in range(3):
        buffer[i] = p[i]
    return np.sum(buffer)


@pytest.mark.parametrize("call", [filled, lambda p: filled(2 * p)])
@pytest.mark.parametrize("transform", [scg.grad, scg.hessian, scg.value_and_grad, scg.trace])
def test_a_node_that_is_written_into_an_array_is_named_with_the_way_out(call, transform):
    with pytest.raises(NotDifferentiable, match="would detach <.*use np.stack to fill an array.*in filled"):
        scg.trace(call, T) if transform is scg.trace else transform(call)(T)


def test_another_error_of_the_function_is_its_own():
    def raises(p):
        raise ValueError("mine") from RuntimeError("theirs")

    with pytest.raises(ValueError, match="mine") as error:
        scg.grad(raises)(T)
    assert not isinstance(error.value, ScgError) and isinstance(error.value.__cause__, RuntimeError)


@pytest.mark.parametrize("f", [np.mean, np.std, np.sum, np.dot, np.stack])
def test_a_distribution_in_the_place_of_an_array_is_told_to_be_drawn(f):
    def of(p):
        law = dist.Normal(p, 1.0)
        return np.sum(f(law, p) if f is np.dot else f([law, p]) if f is np.stack else f(law))

    with pytest.raises(ScgTypeError, match=r"draw from a distribution by scg.sample\(distribution, estimator, rng=rng"):
        scg.grad(of)(T)


@pytest.mark.parametrize("name", ["expectation", "gradient", "hessian", "moments", "log_evidence"])
@pytest.mark.parametrize(
    "option", [{"budget": -1}, {"budget": "a"}, {"rtol": -1e-6}, {"rtol": None}, {"rtol": np.nan}, {"time_limit": "a"}]
)
def test_options_of_exact_results_out_of_range_are_refused(name, option):
    with pytest.raises(ScgError, match=f"^{next(iter(option))} must "):
        getattr(scg.exact, name)(cost, T, form=zero, **option)
