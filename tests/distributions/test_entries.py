"""What the methods and constructors of distributions do with arguments that make no sense: an error of scg's, and never
one of Python's or NumPy's."""

import math

import numpy as np
import pytest

import scg
from scg import distributions as dist
from scg.errors import ScgError, ScgTypeError, ScgValueError
from tests.support.distributions import ALL, BAD_VALUES

pytestmark = pytest.mark.fast

A = np.array


@pytest.mark.parametrize("distribution", ALL, ids=repr)
def test_methods_answer_bad_arguments_with_an_error_of_scg(distribution):
    rng = np.random.default_rng(0)
    calls = [
        lambda bad=bad: distribution.sample(bad)
        for bad in (None, 0, np.random, np.random.RandomState(0), "rng", np.random.default_rng)
    ]
    calls += [
        lambda bad=bad: distribution.sample(rng, bad)
        for bad in (1.5, -1, b"x", "2", None, (2, -1), (2, 0.5), {"a": 1}, A([1.5]), object())
    ]
    for call in calls:
        with pytest.raises(ScgError):
            call()
    for method in ("log_prob", "prob", "cdf", "icdf"):
        for bad in BAD_VALUES:
            with pytest.raises(ScgError):
                getattr(distribution, method)(bad)
        for odd in (
            np.longdouble(0.5),
            True,
            10**400,
            A([]),
            A([0.5, 0.5], ">f8"),
            np.float16(0.5),
            np.zeros((3, 1, 5, 2)),
        ):
            try:
                with np.errstate(all="ignore"):
                    getattr(distribution, method)(odd)
            except ScgError:
                pass
    for other in (None, 1.0, "normal", dist.Normal):
        for p, q in ((distribution, other), (other, distribution)):
            with pytest.raises(ScgTypeError):
                dist.kl_divergence(p, q)


@pytest.mark.parametrize("distribution", ALL, ids=repr)
def test_a_parameter_that_is_no_number_is_refused_with_its_name_when_the_distribution_is_made(distribution):
    given = {
        name: getattr(distribution, name)
        for name in distribution.constraints
        if getattr(distribution, name) is not None
    }
    rest = {
        name: getattr(distribution, name)
        for name in type(distribution).__dataclass_fields__
        if getattr(distribution, name) is not None
    }
    for name in given:
        optional = getattr(type(distribution), name, 0) is None
        for bad in ([None] if not optional else []) + [
            "a",
            b"a",
            1j,
            object(),
            dist.Normal,
            dist.Normal(0.0, 1.0),
            [1.0, "a"],
            {"a": 1.0},
        ]:
            with pytest.raises(ScgTypeError, match=name):
                type(distribution)(**{**rest, name: bad})


def test_the_errors_say_the_distribution_what_came_and_the_way_out():
    normal = dist.Normal(0.0, 1.0)
    with pytest.raises(ScgTypeError, match=r"Normal\(loc=0.0, scale=1.0\).*default_rng\(seed\), got RandomState"):
        normal.sample(np.random.RandomState(0))
    with pytest.raises(ScgTypeError, match=r"Normal.*log_prob needs real numbers, got 'a'.*test_entries"):
        normal.log_prob("a")
    with pytest.raises(ScgValueError, match=r"Normal.*shape must not be negative, got \(2, -1\)"):
        normal.sample(np.random.default_rng(0), (2, -1))
    for make in (lambda: dist.Flat("ab"), lambda: dist.TrilAffine(np.zeros(3), np.eye(2))):
        with pytest.raises(ScgError):
            make()


@pytest.mark.parametrize(
    "cost",
    [
        lambda x, d: x * d,
        lambda x, d: d * x,
        lambda x, d: d - x,
        lambda x, d: np.maximum(x, d),
        lambda x, d: np.maximum(d, x),
        lambda x, d: np.where(x > 0, x, d),
        lambda x, d: np.stack([x[0], d]),
        lambda x, d: x @ d,
        lambda x, d: np.exp(x) ** d,
        lambda x, d: scg.special.softmax(d) * x,
    ],
)
@pytest.mark.parametrize("drawn", [dist.Normal(0.0, 1.0), dist.Categorical(logits=np.zeros(3)), dist.Poisson])
def test_a_distribution_in_arithmetic_with_a_node_says_to_draw_from_it(cost, drawn):
    with pytest.raises(ScgTypeError) as caught:
        scg.grad(lambda x: np.sum(cost(x, drawn)))(np.ones(3))
    assert isinstance(drawn, type) or "scg.sample(distribution, estimator, rng=rng)" in str(caught.value)


@pytest.mark.parametrize("distribution", [d for d in ALL if not d.event_shape and type(d) is not dist.Flat], ids=repr)
def test_numbers_and_integers_of_any_size_are_values_and_probabilities_of_the_dtype_of_the_distribution(distribution):
    value = A([0, 1, 2, 3])
    for dtype in (np.uint8, np.int8, np.uint64, np.int32):
        np.testing.assert_allclose(
            distribution.log_prob(value.astype(dtype)[:, None]),
            distribution.log_prob(value.astype(float)[:, None]),
            rtol=1e-5,
        )
    assert np.result_type(distribution.log_prob(1)) == np.result_type(distribution.log_prob(1.0)) == np.float64
    try:
        ends = distribution.icdf(A([0.0, 1.0])[:, None])
    except ScgValueError as error:
        assert "closed form" in str(error)
        return
    for dtype in (bool, np.uint8, np.int64):
        np.testing.assert_array_equal(distribution.icdf(A([0, 1], dtype)[:, None]), ends)
    for bad in (-0.5, 1.5, math.nan, math.inf, -math.inf, -1e-300, 2):
        assert np.isnan(distribution.icdf(bad)).all(), bad
        assert np.isnan(distribution.icdf(A([0.5, bad])[:, None])[1]).all()
    assert np.isnan(distribution.cdf(math.nan)).all()
    np.testing.assert_allclose(distribution.cdf(math.inf) - distribution.cdf(-math.inf), 1, rtol=1e-14)


@pytest.mark.parametrize(
    "p, q",
    [
        (dist.Categorical(np.ones(3) / 3), dist.Categorical(np.ones(1))),
        (dist.Categorical(np.ones(3) / 3), dist.Categorical(np.ones(2) / 2)),
        (dist.Multinomial(3, np.ones(3) / 3), dist.Multinomial(3, np.ones(1))),
        (dist.Dirichlet(np.ones(3)), dist.Dirichlet(np.ones(1))),
        (dist.MultivariateNormal(np.zeros(3), np.eye(3)), dist.MultivariateNormal(np.zeros(1), np.eye(1))),
    ],
)
def test_divergences_of_distributions_of_other_shapes_are_refused(p, q):
    with pytest.raises(ScgValueError, match="values of one shape"):
        dist.kl_divergence(p, q)


@pytest.mark.parametrize(
    "distribution",
    [
        dist.OneHotCategorical(np.ones(3) / 3),
        dist.Multinomial(3, np.ones(3) / 3),
        dist.Dirichlet(np.ones(3)),
        dist.Concrete(1.0, logits=np.zeros(3)),
        dist.MultivariateNormal(np.zeros(3), np.eye(3)),
        dist.UniformSubset(5, 3),
    ],
    ids=lambda distribution: type(distribution).__name__,
)
@pytest.mark.parametrize("shape", [(), (1,), (2,), (3, 1)])
def test_values_of_another_event_shape_are_refused(distribution, shape):
    with pytest.raises(ScgValueError, match=r"a value has the shape \(3,\) along its last axes"):
        distribution.log_prob(np.ones(shape))


def test_parameters_that_are_none_are_refused():
    for make in (
        lambda: dist.Mixture(dist.Normal(np.zeros(2), 1.0), logits=np.array([np.inf, 0.0])),
        lambda: dist.Binomial(np.inf, 0.5),
    ):
        with pytest.raises(ScgValueError):
            make()
    np.testing.assert_array_equal(dist.Categorical([0.5, 0.5]).icdf([-1, 2, np.nan, 0.7]), [np.nan, np.nan, np.nan, 1])
