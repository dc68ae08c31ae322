"""Strategies of parameters: valid for every distribution, with the edges and the ties that the distributions have."""

from dataclasses import dataclass
from typing import Any, final

import numpy as np
import pytest
from hypothesis import find, given, settings
from hypothesis import strategies as st

import scg
from scg import distributions as dist
from scg.distributions.base import Distribution, FixedSupport
from scg.distributions.constraints import Interval, positive
from scg.errors import ScgTypeError, ScgValueError
from scg.testing import parameters_of
from scg.testing.strategies.parameters import arrays_in, distributions, exported
from tests.support.drawn import drawn

DISTRIBUTIONS = exported()
SEEDS = st.integers(0, 2**32 - 1)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS, ids=lambda c: c.__name__)
@drawn(40)
@given(data=st.data(), seed=SEEDS, dtype=st.sampled_from([np.float64, np.float32]))
def test_a_distribution_of_drawn_parameters_is_drawn_from_and_has_a_density_there(distribution, data, seed, dtype):
    parameters = data.draw(parameters_of(distribution, dtype=dtype))
    made = distribution(**parameters)
    if distribution is dist.Flat:  # improper: there is nothing to draw
        assert made.log_prob(np.zeros(made.event_shape)) == 0
        return
    z = made.sample(np.random.default_rng(seed), (2,))
    assert z.shape == (2, *made.batch_shape, *made.event_shape)
    assert np.all(np.isfinite(made.log_prob(z)))
    assert z.dtype == dtype or z.dtype.kind == "i" or distribution in (dist.Independent, dist.Transformed)
    for p in made.parameters.values():
        assert np.shape(p) == () or p.dtype == dtype


@given(parameters_of(dist.Normal, shape=(2, 3)), parameters_of(dist.Dirichlet, shape=(4,), size=5))
def test_shapes_are_those_asked_for(normal, dirichlet):
    assert dist.Normal(**normal).batch_shape == (2, 3)
    distribution = dist.Dirichlet(**dirichlet)
    assert (distribution.batch_shape, distribution.event_shape) == ((4,), (5,))


def some(distribution, condition, **how):
    """The simplest parameters that meet a condition, which must come up."""
    return find(
        parameters_of(distribution, **how),
        condition,
        settings=settings(max_examples=2000, derandomize=True, database=None),
    )


def test_edges_come_up():
    assert some(dist.Bernoulli, lambda p: "probs" in p and np.any(p["probs"] == 0))["probs"].shape == ()
    assert np.isposinf(some(dist.Bernoulli, lambda p: "logits" in p and np.any(p["logits"] == np.inf))["logits"])
    assert np.isneginf(some(dist.Categorical, lambda p: "logits" in p and np.isinf(p["logits"]).any())["logits"]).any()
    assert some(dist.Poisson, lambda p: np.any(p["rate"] == 0))["rate"] == 0
    some(dist.TruncatedNormal, lambda p: np.any(np.isinf(p["low"])) and np.all(np.isfinite(p["high"])))


@given(
    st.one_of(
        [parameters_of(c, edges=False) for c in (dist.Bernoulli, dist.Categorical, dist.TruncatedNormal, dist.Poisson)]
    )
)
def test_edges_can_be_left_out(parameters):
    for name, p in parameters.items():
        assert np.all(np.isfinite(p))
        assert not np.any(p == 0) or name not in ("probs", "rate")


def test_parameters_broadcast_and_each_form_comes_up():
    assert some(dist.Normal, lambda p: p["loc"].shape != p["scale"].shape and p["scale"].ndim, shape=(2, 3))
    for names in ({"loc", "scale_tril"}, {"loc", "cov_factor", "cov_diag"}):
        assert set(some(dist.MultivariateNormal, lambda p: set(p) == names)) == names
    for kind in (dist.Normal, dist.Gumbel, dist.Logistic):
        assert some(dist.Mixture, lambda p: isinstance(p["component"], kind) and "weights" in p)


def test_what_is_found_is_the_simplest():
    assert str(some(dist.Uniform, lambda p: True)) == "{'low': array(0.), 'high': array(1.)}"
    assert str(some(dist.Gamma, lambda p: True, shape=())) == "{'concentration': array(1.), 'rate': array(1.)}"


@final
@dataclass(frozen=True, eq=False, repr=False)
class Ramp(Distribution, FixedSupport):
    """p(z) = 2 (z - low) / (high - low)^2 from low to high, which are in (0, 1), and ``high`` comes first."""

    high: Any
    low: Any
    steep: Any = None
    constraints = {"high": (unit := Interval(0.0, 1.0, "neither")), "low": unit, "steep": positive}

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(self.low < self.high, "low < high")

    def sample(self, rng, shape=()):
        return self.low + (self.high - self.low) * np.sqrt(rng.random(self.full_shape(shape)))

    def log_prob(self, value):
        return np.log(2 * (value - self.low)) - 2 * np.log(self.high - self.low)


@given(distributions(Ramp), SEEDS)
def test_a_distribution_from_elsewhere(distribution, seed):
    assert np.all(distribution.low < distribution.high)
    assert np.all(np.isfinite(distribution.log_prob(distribution.sample(np.random.default_rng(seed), (3,)))))


def test_what_is_no_distribution_is_refused():
    with pytest.raises(ScgTypeError, match="needs a class of distributions"):
        parameters_of(dist.Normal(0.0, 1.0))
    with pytest.raises(ScgTypeError, match="floating-point"):
        parameters_of(dist.Normal, dtype=int)

    @dataclass(frozen=True, eq=False, repr=False)
    class Never(Ramp.__mro__[1]):
        loc: Any
        constraints = {"loc": positive}

        def __post_init__(self):
            super().__post_init__()
            self._require(False, "never")

        sample = log_prob = None

    with pytest.raises(ScgValueError, match="no parameters that Never accepts"):
        parameters_of(Never)


SETS = "real finite positive simplex lower_cholesky one_hot boolean nonnegative open_unit_interval".split()


@pytest.mark.parametrize("name", [*SETS, "Circle"])
@given(data=st.data())
def test_arrays_lie_in_their_set(name, data):
    constraint = getattr(scg.distributions.constraints, name)
    constraint = constraint() if isinstance(constraint, type) else constraint
    x = data.draw(arrays_in(constraint, (2,)))
    assert np.all(constraint.contains(x)) and x.shape == (2,) + (3,) * constraint.event_ndim


def test_a_component_of_weight_zero_is_no_warning():
    distribution = dist.Mixture(dist.Normal([0.0, 5.0], [1.0, 1.0]), weights=[1.0, 0.0])
    assert distribution.log_prob(np.array(0.3)) == pytest.approx(dist.Normal(0.0, 1.0).log_prob(0.3), abs=1e-14)


def test_a_joint_distribution_of_coins_is_no_coin():
    distribution = dist.Independent(dist.Bernoulli(logits=scg.parameter(np.zeros(2))))
    assert distribution.has(dist.FiniteSupport) and not distribution.has(dist.Bernoulli)
    with pytest.raises(scg.errors.EstimatorError, match="ARM needs a bernoulli distribution"):
        scg.sample(distribution, scg.ARM(), rng=np.random.default_rng(0))
