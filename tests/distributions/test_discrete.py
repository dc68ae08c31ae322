"""Distributions on integers and one-hot vectors, and their relaxations."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import scg
from scg import distributions as dist
from scg.core.ancestry import ancestors
from scg.errors import NotDifferentiable, ScgTypeError, ScgValueError
from scg.stochastic.surrogate import Downstream
from scg.testing import check_distribution

pytestmark = pytest.mark.fast

LOGITS = np.array([[0.3, -1.2, 0.5], [2.0, 0.1, -0.4]])
PROBS = np.exp(LOGITS) / np.exp(LOGITS).sum(-1, keepdims=True)
DISTRIBUTIONS = {
    "bernoulli": (lambda: dist.Bernoulli([0.3, 0.95]), stats.bernoulli([0.3, 0.95])),
    "bernoulli logits": (lambda: dist.Bernoulli(logits=[-3.0, 0.4]), stats.bernoulli(1 / (1 + np.exp([3.0, -0.4])))),
    "categorical": (lambda: dist.Categorical(PROBS), None),
    "categorical logits": (lambda: dist.Categorical(logits=LOGITS), None),
    "one-hot": (lambda: dist.OneHotCategorical(PROBS), None),
    "one-hot logits": (lambda: dist.OneHotCategorical(logits=LOGITS), None),
    "one-hot scipy": (lambda: dist.OneHotCategorical(PROBS[0]), stats.multinomial(1, PROBS[0])),
    "binomial": (lambda: dist.Binomial(10, [0.3, 0.9]), stats.binom(10, [0.3, 0.9])),
    "binomial of several n": (lambda: dist.Binomial([3, 60], logits=0.3), stats.binom([3, 60], 1 / (1 + np.exp(-0.3)))),
    "geometric": (lambda: dist.Geometric([0.3, 0.9]), stats.geom([0.3, 0.9])),
    "geometric logits": (lambda: dist.Geometric(logits=-2.0), stats.geom(1 / (1 + np.exp(2.0)))),
    "poisson": (lambda: dist.Poisson([0.3, 40.0]), stats.poisson([0.3, 40.0])),
    "negative binomial": (lambda: dist.NegativeBinomial([0.5, 7.0], 0.4), stats.nbinom([0.5, 7.0], 0.4)),
    "negative binomial logits": (
        lambda: dist.NegativeBinomial(2.0, logits=[0.4, -1.0]),
        stats.nbinom(2, 1 / (1 + np.exp([-0.4, 1.0]))),
    ),
    "multinomial": (lambda: dist.Multinomial(4, PROBS[0]), stats.multinomial(4, PROBS[0])),
    "multinomial logits": (lambda: dist.Multinomial(3, logits=LOGITS), None),
    "subset": (lambda: dist.UniformSubset(5, 2), None),
    "concrete of 2": (lambda: dist.Concrete(0.7, logits=[0.3, -0.2]), None),
    "concrete of 3": (lambda: dist.Concrete([0.8, 1.3], PROBS), None),
    "concrete of 5": (lambda: dist.Concrete(0.6, logits=np.linspace(-1, 1, 5)), None),
    "relaxed bernoulli": (lambda: dist.RelaxedBernoulli([0.6, 1.5], 0.3), None),
    "relaxed bernoulli logits": (lambda: dist.RelaxedBernoulli(0.8, logits=[0.3, -1.0]), None),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_distribution(name):
    make, reference = DISTRIBUTIONS[name]
    check_distribution(make(), rng=np.random.default_rng(1), reference=reference)


PAIRS = [
    (dist.Bernoulli([0.0, 0.3, 1.0]), dist.Bernoulli(logits=[0.5, -1.0, 2.0])),
    (dist.Categorical([0.0, 0.4, 0.6]), dist.Categorical(logits=[1.0, 0.0, 0.5])),
    (dist.OneHotCategorical([0.0, 0.4, 0.6]), dist.OneHotCategorical([0.2, 0.3, 0.5])),
    (dist.Binomial(7, 0.3), dist.Binomial(7, logits=1.0)),
    (dist.Geometric(0.3), dist.Geometric(logits=1.0)),
    (dist.Poisson(3.0), dist.Poisson(1.5)),
    (dist.NegativeBinomial(2.5, 0.4), dist.NegativeBinomial(2.5, 0.6)),
    (dist.Multinomial(4, [0.0, 0.4, 0.6]), dist.Multinomial(4, [0.2, 0.3, 0.5])),
]


@pytest.mark.parametrize("p, q", PAIRS, ids=lambda d: type(d).__name__)
def test_divergence_and_entropy_are_sums(p, q):
    atoms = p.atoms() if hasattr(p, "atoms") else np.arange(p.support.low, 400.0)
    log_p, log_q = p.log_prob(atoms), q.log_prob(atoms)
    weight = np.exp(log_p)
    assert np.allclose(weight.sum(axis=0), 1, rtol=0, atol=1e-12)
    terms = np.where(weight == 0, 0, weight * (np.where(weight == 0, 0, log_p) - log_q))
    assert np.allclose(dist.kl_divergence(p, q), terms.sum(axis=0), rtol=1e-11, atol=1e-13)
    assert np.allclose(
        p.entropy(),
        -np.where(weight == 0, 0, weight * np.where(weight == 0, 0, log_p)).sum(axis=0),
        rtol=1e-11,
        atol=1e-13,
    )


def test_divergence_is_infinite_or_unknown():
    assert dist.kl_divergence(dist.Bernoulli(0.5), dist.Bernoulli(1.0)) == np.inf
    assert dist.kl_divergence(dist.Poisson(0.0), dist.Poisson(2.0)) == 2
    for p, q in (
        (dist.Binomial(3, 0.5), dist.Binomial(4, 0.5)),
        (dist.NegativeBinomial(1.0, 0.5), dist.NegativeBinomial(2.0, 0.5)),
    ):
        with pytest.raises(ScgValueError, match="no closed form"):
            dist.kl_divergence(p, q)


def test_kin():
    """One trial, one draw, two categories: different distributions that must agree."""
    k, z = np.array([0.0, 1.0]), np.array([0.001, 0.3, 0.98])
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)
    close(dist.Binomial(1, 0.3).log_prob(k), dist.Bernoulli(0.3).log_prob(k))
    close(dist.Multinomial(1, PROBS).log_prob(np.eye(3)[1]), dist.OneHotCategorical(PROBS).log_prob(np.eye(3)[1]))
    close(
        dist.OneHotCategorical(PROBS).log_prob(np.eye(3)[:, None]),
        dist.Categorical(PROBS).log_prob(np.arange(3)[:, None]),
    )
    close(dist.Multinomial(5, logits=[0.7, 0.0]).log_prob([2.0, 3.0]), dist.Binomial(5, logits=0.7).log_prob(2))
    close(dist.NegativeBinomial(1.0, 0.3).log_prob(np.arange(30)), dist.Geometric(0.3).log_prob(np.arange(1, 31)))
    close(dist.Categorical(logits=LOGITS).log_prob([2, 0]), dist.Categorical(PROBS).log_prob([2, 0]))
    close(
        dist.Concrete(0.4, logits=[0.7, 0.0]).log_prob(np.stack([z, 1 - z], -1)),
        dist.RelaxedBernoulli(0.4, logits=0.7).log_prob(z),
    )
    close(dist.Concrete(0.4, logits=LOGITS + 3).log_prob(PROBS), dist.Concrete(0.4, PROBS).log_prob(PROBS))


@given(st.floats(-1e300, 1e300))
def test_logits_in_the_tails(logit):
    """log p is -softplus(-l) and -softplus(l): never log(0), and within rounding of l."""
    distribution = dist.Bernoulli(logits=np.array(logit))
    exact = -np.logaddexp(0, [logit, -logit])
    np.testing.assert_allclose(distribution.log_prob([0.0, 1.0]), exact, rtol=4e-16, atol=4e-16 * abs(logit))
    table = dist.Categorical(logits=np.array([0.0, logit])).log_prob(np.array([0, 1]))
    np.testing.assert_allclose(table, exact, rtol=4e-16, atol=4e-16 * abs(logit))


def test_certainty():
    """Probabilities 0 and 1: log p is 0 or -inf, the entropy 0, and nothing is drawn that cannot be."""
    rng = np.random.default_rng(0)
    with np.errstate(all="raise"):
        for distribution in (dist.Bernoulli([0.0, 1.0]), dist.Bernoulli(logits=[-np.inf, np.inf])):
            assert np.array_equal(distribution.log_prob([[0.0], [1.0]]), [[0, -np.inf], [-np.inf, 0]])
            assert np.array_equal(distribution.entropy(), [0, 0])
            assert np.array_equal(distribution.sample(rng, 100), np.tile([0.0, 1.0], (100, 1)))
        for distribution in (
            dist.Categorical([0.0, 0.25, 0.75, 0.0]),
            dist.Categorical(logits=[-np.inf, 0, np.log(3), -np.inf]),
        ):
            assert np.array_equal(distribution.log_prob([0, 3]), [-np.inf, -np.inf]) and set(
                distribution.sample(rng, 1000)
            ) == {1, 2}
        one_hot = dist.OneHotCategorical(logits=[-np.inf, 0.0])
        assert np.array_equal(one_hot.log_prob(np.eye(2)), [-np.inf, 0])
        assert dist.Geometric(1.0).log_prob(1) == 0 and dist.Poisson(0.0).log_prob(0) == 0
        assert dist.NegativeBinomial(2.0, 1.0).log_prob(0) == 0 and dist.Binomial(0, 0.5).log_prob(0) == 0


def test_gradients_at_certainty():
    """By the conventions of xlogy: d log p(b) / d probs is b / p - (1 - b) / (1 - p), without its term of weight
    zero."""
    g = scg.grad(lambda p: np.sum(dist.Bernoulli(p).log_prob(np.array([0.0, 1.0]))))(np.array([0.0, 1.0]))
    assert np.array_equal(g, [-1, 1])
    g = scg.grad(lambda p: np.sum(dist.OneHotCategorical(p).log_prob(np.array([0.0, 1.0]))))(np.array([0.0, 1.0]))
    assert np.array_equal(g, [0, 1])


OUTSIDE = [
    (lambda t: dist.Bernoulli(logits=t), [0.5, -1.0, 2.0, 1e-300, np.inf]),
    (lambda t: dist.Bernoulli(scg.special.sigmoid(t)), [0.5, -1.0, 2.0, np.inf]),
    (lambda t: dist.Poisson(np.exp(t)), [3.7, -1.0, np.inf]),
    (lambda t: dist.Binomial(4, logits=t), [5.0, -1.0, 2.5]),
    (lambda t: dist.Geometric(logits=t), [0.0, 1.5, np.inf]),
    (lambda t: dist.NegativeBinomial(np.exp(t), 0.3), [-2.0, 1.5, np.inf]),
    (lambda t: dist.Categorical(logits=np.array([1.0, 2.0]) * t), [-1, 2, 0.5, np.inf]),
    (
        lambda t: dist.OneHotCategorical(logits=np.array([1.0, 2.0]) * t),
        [[0.0, 0.0], [1.0, 1.0], [0.5, 0.5], [2.0, -1.0]],
    ),
    (lambda t: dist.Multinomial(3, logits=np.array([1.0, 2.0]) * t), [[1.0, 1.0], [4.0, -1.0], [1.5, 1.5]]),
    (lambda t: dist.Concrete(1.0, logits=np.array([1.0, 2.0]) * t), [[0.5, 0.6], [1.5, -0.5]]),
    (lambda t: dist.RelaxedBernoulli(1.0, logits=t), [-0.1, 1.1]),
]


@pytest.mark.parametrize("make, values", OUTSIDE)
def test_outside_the_support(make, values):
    values = np.array(values)
    assert np.all(make(0.3).log_prob(values) == -np.inf)
    found = scg.grad(lambda t: np.sum(make(t).log_prob(values)))(np.array(0.3))
    assert found == 0
    if values.dtype.kind == "f":
        assert np.isnan(make(0.3).log_prob(np.full(values.shape[1:], np.nan)))


@pytest.mark.parametrize("make", [dist.Bernoulli, dist.OneHotCategorical])
@pytest.mark.parametrize("by", ["probs", "logits"])
def test_replay_at_a_relaxed_value_is_linear(make, by):
    """Recorded at a draw, replayed between: log p is the linear interpolation of its values at the atoms."""
    rng = np.random.default_rng(2)
    distribution = make(**{by: scg.parameter({"probs": PROBS, "logits": LOGITS}[by])})
    z = scg.sample(distribution, scg.ScoreFunction(), rng=rng)
    soft = rng.dirichlet(np.ones(3), 2)
    found = scg.replay(distribution.log_prob(z), {z: soft})
    plain = distribution.detached()
    if make is dist.OneHotCategorical:
        expected = np.sum(soft * plain.log_prob(np.eye(3)[:, None]).T, axis=-1)
    else:
        expected = soft * plain.log_prob(np.ones((2, 3))) + (1 - soft) * plain.log_prob(np.zeros((2, 3)))
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize(
    "distribution", [dist.Categorical(logits=LOGITS), dist.Categorical(PROBS), dist.Categorical(PROBS[0])]
)
def test_costs_of_a_gather_stay_with_their_batch_element(distribution):
    node = scg.parameter(LOGITS)
    z = scg.sample(dist.Categorical(logits=node), scg.ScoreFunction(), rng=np.random.default_rng(3), shape=(5,))
    cost = distribution.log_prob(z)
    to_go = Downstream(z, np.sum(cost), 1).now()
    assert to_go.shape == (5, 2) and np.array_equal(to_go, cost.value)
    other = np.array(
        [
            distribution.sample(np.random.default_rng(seed), (5,) if distribution.batch_shape else (5, 2))
            for seed in range(4)
        ]
    )
    assert np.array_equal(scg.replay(cost, {z: other}, batched=[z]), distribution.log_prob(other))


@pytest.mark.parametrize("estimator", [scg.Enumerate(), scg.ScoreFunction()])
def test_expected_cost_of_a_categorical_node(estimator):
    """d/dl_k sum_z p_z f_z = p_k (f_k - E f), exactly by enumeration and within seven standard errors by score
    function."""
    f = np.array([1.0, -2.0, 4.0])
    exact = PROBS * (f - np.sum(PROBS * f, -1, keepdims=True))
    for make, values in (
        (dist.Categorical, lambda z: np.take_along_axis(f[None, None], z[..., None], -1)),
        (dist.OneHotCategorical, lambda z: z @ f),
    ):
        cost = lambda l, rng: np.sum(values(scg.sample(make(logits=l), estimator, rng=rng, shape=(4000,)))) / 4000
        found = scg.grad(cost)(LOGITS, rng=np.random.default_rng(4))
        assert np.all(
            np.abs(found - exact) <= (1e-12 if isinstance(estimator, scg.Enumerate) else 7 * 4 / np.sqrt(4000))
        )


def test_thinning():
    """A Poisson number of trials: E[x] = p rate, though the support of x moves with the draw before it."""

    def cost(t, rng):
        n = scg.sample(dist.Poisson(np.exp(t)), scg.ScoreFunction(), rng=rng)
        return np.sum(scg.sample(dist.Binomial(n, 0.3), scg.ScoreFunction(), rng=rng)) / t.size

    found = scg.grad(cost)(np.full(20_000, 0.5), rng=np.random.default_rng(5)) * 20_000
    assert abs(found.mean() - 0.3 * np.exp(0.5)) < 6 * found.std() / np.sqrt(20_000)


def test_number_of_trials_has_no_derivative():
    with pytest.raises(NotDifferentiable, match="number of trials"):
        scg.grad(lambda n: np.sum(dist.Binomial(n, 0.3).log_prob(1.0)))(np.array([2.0, 3.0]))
    with pytest.raises(ScgValueError, match="cannot be listed"):
        dist.Binomial(scg.parameter(np.array(3.0)), 0.3).atoms()


BAD = [
    (lambda: dist.Bernoulli(), ScgTypeError, "one of the two"),
    (lambda: dist.Categorical(PROBS, LOGITS), ScgTypeError, "one of the two"),
    (lambda: dist.Bernoulli([0.1, 1.2]), ScgValueError, r"probs must be in \[0.0, 1.0\], got 1.2 at index \(1,\)"),
    (lambda: dist.Bernoulli(logits=np.nan), ScgValueError, "logits"),
    (lambda: dist.Categorical([0.5, 0.6]), ScgValueError, "probs must be non-negative and sum to 1"),
    (lambda: dist.Categorical([1.5, -0.5]), ScgValueError, "probs"),
    (lambda: dist.Categorical(0.5), ScgValueError, "probs needs at least 1 axes"),
    (lambda: dist.OneHotCategorical(logits=[np.inf, 0]), ScgValueError, "logits"),
    (lambda: dist.OneHotCategorical(logits=[-np.inf, -np.inf]), ScgValueError, "logits"),
    (lambda: dist.Binomial(2.5, 0.5), ScgValueError, "n must be integers"),
    (lambda: dist.Binomial(-1, 0.5), ScgValueError, "n must be integers"),
    (lambda: dist.Binomial([1, 2], [0.5, 0.5, 0.5]), ScgValueError, "do not broadcast"),
    (lambda: dist.Geometric(0.0), ScgValueError, "probs"),
    (lambda: dist.Geometric(logits=-np.inf), ScgValueError, "logits"),
    (lambda: dist.Poisson(-1.0), ScgValueError, "rate"),
    (lambda: dist.Poisson(np.nan), ScgValueError, "rate"),
    (lambda: dist.NegativeBinomial(0.0, 0.5), ScgValueError, "n must be positive"),
    (lambda: dist.Multinomial(2.5, PROBS), ScgValueError, "n must be an integer"),
    (lambda: dist.Concrete(0.0, PROBS), ScgValueError, "temperature"),
    (lambda: dist.Concrete(1.0, [0.0, 1.0]), ScgValueError, "probs must be positive"),
    (lambda: dist.RelaxedBernoulli(1.0, 1.0), ScgValueError, "probs"),
    (lambda: dist.RelaxedBernoulli(1.0, logits=np.inf), ScgValueError, "logits"),
]


@pytest.mark.parametrize("make, error, message", BAD)
def test_bad_parameters(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_relaxations_approach_what_they_relax():
    """At temperature t, P(argmax z = k) = p_k for every t, and z is within a few t of one-hot."""
    z = dist.Concrete(1e-3, np.tile(PROBS[0], (4000, 1))).sample(np.random.default_rng(6))
    counts = np.bincount(np.argmax(z, -1), minlength=3)
    assert all(stats.binomtest(int(n), 4000, p).pvalue > 1e-9 for n, p in zip(counts, PROBS[0], strict=True))
    assert np.mean(z.max(-1) > 1 - 1e-6) > 0.9
    assert np.isfinite(
        dist.Concrete(0.05, logits=LOGITS.astype(np.float32)).log_prob(np.array([[1, 0, 0], [0, 0, 1]], np.float32))
    ).all()
    assert np.isfinite(
        dist.RelaxedBernoulli(np.float32(0.1), logits=np.float32(0.3)).log_prob(np.array([0, 1], np.float32))
    ).all()


def test_quantiles_of_nodes_are_replayed():
    rate = scg.parameter(np.array([1.0, 2.0]))
    q = dist.Poisson(rate).icdf(np.array([0.3, 0.999]))
    rates = np.array([[5.0, 6.0], [700.0, 8e4]])
    assert np.array_equal(q.value, stats.poisson([1, 2]).ppf([0.3, 0.999]))
    assert np.array_equal(scg.replay(q, {rate: rates}, batched=[rate]), stats.poisson(rates).ppf([0.3, 0.999]))
    assert np.array_equal(dist.Binomial(9, 0.5).icdf([0.0, 1.0]), [0, 9]) and dist.Poisson(3.0).icdf(1.0) == np.inf
    assert np.isnan(dist.Geometric(0.5).icdf([-0.1, 1.1])).all()


def test_validation_of_a_large_draw_is_one_cheap_node():
    """At draws, log p records the formula and no choice."""
    distribution = dist.Bernoulli(logits=scg.parameter(LOGITS))
    names = {
        n.primitive.name
        for n in ancestors([distribution.log_prob(distribution.sample(np.random.default_rng(0)))])
        if n.operands
    }
    assert names == {"multiply", "subtract", "softplus"}


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_the_variance_of_one_of_many_keeps_its_digits_where_one_is_almost_certain(dtype):
    """p (1 - p), with 1 - p the sum of the others; derivatives (1 - 2p) dp; and the same for two halves."""
    logits = np.array([[40.0, 0.0, -40.0], [0.0, 0.0, -200.0], [-1.0, 0.5, 0.0]])
    e = np.exp(logits)
    p, q = e / e.sum(-1, keepdims=True), (e.sum(-1, keepdims=True) - e) / e.sum(-1, keepdims=True)
    q[0, 0] = e[0, 1:].sum() / e[0].sum()
    slope = (1 - 2 * p)[0, 0] * p[0, 0] * q[0, 0]  # of the first variance, by the first logit
    for distribution, n in (
        (lambda x: dist.OneHotCategorical(logits=x), 1),
        (lambda x: dist.Multinomial(3, logits=x), 3),
    ):
        x = logits.astype(dtype)
        np.testing.assert_allclose(distribution(x).variance, n * p * q, rtol=16 * np.finfo(dtype).eps, atol=1e-37)
        found = scg.grad(lambda x, distribution=distribution: distribution(x).variance[0, 0])(x)
        np.testing.assert_allclose(found[0, 0], n * slope, rtol=16 * np.finfo(dtype).eps)


def test_poisson_draws_of_rates_beyond_the_integers_have_their_mean_and_variance():
    rate = np.array([2.0, 3e18, 1e19, 1e25])
    z = (dist.Poisson(rate).sample(np.random.default_rng(0), 20_000) - rate) / np.sqrt(rate)
    # 6 deviations of the mean, and about 6 of the mean square
    assert np.abs(np.mean(z, axis=0)).max() < 6 / np.sqrt(20_000)
    assert np.abs(np.mean(z * z, axis=0) - 1).max() < 6 * np.sqrt(2.5 / 20_000)


def test_masses_are_probabilities():
    table = np.random.default_rng(0).dirichlet(np.ones(4), (2, 3))
    for distribution in (
        dist.Categorical(probs=table),
        dist.OneHotCategorical(probs=table),
        dist.Bernoulli(probs=table),
        dist.Categorical(logits=table),
        dist.Binomial(3, probs=table),
        dist.Independent(dist.Bernoulli(probs=table), 1),
    ):
        atoms = distribution.atoms()
        np.testing.assert_allclose(distribution.masses(atoms), np.exp(distribution.log_prob(atoms)), rtol=1e-13)


def test_what_is_no_subset_has_no_probability():
    found = dist.UniformSubset(4, 2).log_prob(np.array([[1, 1], [0, 9], [-1, 0], [3, 0], [0, 3]]))
    np.testing.assert_allclose(found, [-np.inf] * 4 + [-np.log(6)])


@pytest.mark.parametrize("p", [1e-12, 2e-17, 1e-18, 3e-19, 1e-25, 1e-300])
def test_geometric_draws_beyond_the_integers(p):
    """p k is exponential to p: at its quantiles, shares within 5.3 standard errors; none is the greatest integer."""
    n, shares = 40_000, np.array([0.1, 0.5, 0.9, 0.9999])
    z = dist.Geometric(np.array([p, 0.5])).sample(np.random.default_rng(0), n)
    below = np.mean(z[:, :1] * p <= -np.log1p(-shares), axis=0)
    assert (
        np.all(np.abs(below - shares) <= 5.3 * np.sqrt(shares * (1 - shares) / n))
        and np.all(z == np.floor(z))
        and z.min() >= 1
    )
    assert abs(z[:, 1].mean() - 2) <= 5.3 * np.sqrt(2 / n) and np.sum(z == 2.0**63) <= 1
    for distribution in (dist.Geometric(np.array(1e-38, np.float32)), dist.Geometric(logits=-800.0)):
        with pytest.raises(ScgValueError, match="Geometric.*greater than any number of float"):
            distribution.sample(np.random.default_rng(0), 1000)


@pytest.mark.parametrize("logit", [-800.0, -40.0, -0.3, 0.0, 5.0, 40.0, 800.0, np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_score_of_a_coin_that_was_drawn_is_that_of_its_log_probability(logit, dtype):
    l = scg.parameter(np.array([logit, 0.25], dtype))
    coin = dist.Bernoulli(logits=l)
    for b in ([0, 0], [1, 1]):
        b = scg.parameter(np.array(b, dtype)) if np.isfinite(logit) else np.ones(2, dtype)
        pairs = []
        for log_p in (coin.log_prob_drawn(b), coin.log_prob(b)):
            first = scg.gradients(np.sum(log_p * np.array([2.0, -3.0], dtype)), [l], create_graph=True)[0]
            second = scg.gradients(np.sum(first), [l])[0] if isinstance(first, scg.Node) else np.zeros(2, dtype)
            pairs.append([log_p.value, first.value if isinstance(first, scg.Node) else first, second])
        for found, right in zip(*pairs, strict=True):
            assert found.dtype == dtype
            np.testing.assert_allclose(found, right, rtol=4 * np.finfo(dtype).eps, atol=8 * np.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize(
    "make", [lambda d: dist.Bernoulli(np.linspace(0, 1, 3).astype(d)), lambda d: dist.Normal(d(0), d(1))]
)
def test_samples_are_the_same_numbers_where_they_are_written_into_an_array(make, dtype):
    d, out = make(dtype), np.full((4, 3) if make(dtype).batch_shape else (4,), 7, dtype)
    d.sample_into(np.random.default_rng(3), (4,), out)
    np.testing.assert_array_equal(out, d.sample(np.random.default_rng(3), (4,)))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_uniform_samples_lie_between_the_ends_where_the_generator_gives_its_least_and_its_most(dtype):
    class Ends(np.random.Generator):
        def random(self, size=None, dtype=np.float64, out=None):
            return np.resize(np.array([0, 1 - np.finfo(dtype).epsneg], dtype), size)

    u = dist.Uniform().sample_as(Ends(np.random.PCG64()), (4,), np.dtype(dtype))
    assert u.dtype == dtype and (u > 0).all() and (u < 1).all()
