"""A sample made again from the randomness that another one was made from: the marginal distribution is kept."""

import numpy as np
import pytest

import scg
from scg import distributions as dist
from scg.core.leaves import parameter
from scg.distributions.coupling import ByQuantile, Coupled, Turned

pytestmark = pytest.mark.fast

PAIRS = {
    "coins": (dist.Bernoulli(logits=[0.3, -2.0, 0.0]), dist.Bernoulli(logits=[-1.0, -1.5, 0.0])),
    "sure coins": (dist.Bernoulli(probs=[0.0, 1.0, 0.4]), dist.Bernoulli(probs=[0.3, 0.0, 1.0])),
    "categories": (dist.Categorical(probs=[0.2, 0.5, 0.3]), dist.Categorical(probs=[0.3, 0.1, 0.6])),
    "one-hot": (dist.OneHotCategorical(logits=[0.2, 0.5, -0.3]), dist.OneHotCategorical(logits=[0.3, -np.inf, 1.6])),
    "binomial": (dist.Binomial(5, probs=[0.2, 0.7]), dist.Binomial(5, probs=[0.25, 0.1])),
    "geometric": (dist.Geometric(probs=0.4), dist.Geometric(probs=0.8)),
    "poisson": (dist.Poisson([0.5, 4.0]), dist.Poisson([3.0, 3.5])),
    "negative binomial": (dist.NegativeBinomial(3.0, probs=0.5), dist.NegativeBinomial(3.0, probs=0.6)),
}


def values_of(distribution):
    """All values, or those up to a negligible tail, along a leading axis that broadcasts."""
    if hasattr(distribution, "atoms"):
        return distribution.atoms()
    return np.arange(90.0).reshape(-1, *[1] * len(distribution.batch_shape))


def joint(before, after, change=lambda p: p):
    """p(z) p(z'|z), (z, z', batch), and q(z')."""
    z = values_of(before)
    table = np.stack(
        [before.masses(one) * change(after.coupled(before, np.broadcast_to(one, z[0].shape)).masses(z)) for one in z]
    )
    return table, np.broadcast_to(after.masses(z), table.shape[1:])


@pytest.mark.parametrize("name", PAIRS)
def test_what_is_made_again_has_its_own_distribution_and_the_recorded_one_keeps_its(name):
    before, after = PAIRS[name]
    table, expected = joint(before, after)
    z = values_of(before)
    np.testing.assert_allclose(table.sum(axis=0), expected, atol=2e-15)
    np.testing.assert_allclose(table.sum(axis=1), np.broadcast_to(before.masses(z), expected.shape), atol=2e-15)


def test_likely_values_alone_would_not_have_it():
    before, after = PAIRS["binomial"]
    wrong, expected = joint(before, after, lambda p: p * (p > 0.2) / np.sum(p * (p > 0.2), axis=0))
    assert np.max(abs(wrong.sum(axis=0) - expected)) > 1e-3


@pytest.mark.parametrize("name", PAIRS)
def test_under_the_same_parameters_it_is_the_same_sample(name):
    before, _ = PAIRS[name]
    z = before.sample(np.random.default_rng(0), 200)
    np.testing.assert_array_equal(before.coupled(before, z).sample(np.random.default_rng(1)), z)


@pytest.mark.parametrize("name", [n for n in PAIRS if n not in ("one-hot", "categories")])
def test_of_numbers_the_coupling_keeps_the_order_of_their_quantiles(name):
    """p(z'|z) p(z) = P(u in both intervals), by the definition."""
    before, after = PAIRS[name]
    table, _ = joint(before, after)
    z = values_of(before)
    for i, one in enumerate(z):
        common = np.minimum(before.cdf(one), after.cdf(z)) - np.maximum(before.cdf(one - 1), after.cdf(z - 1))
        np.testing.assert_allclose(table[i], np.broadcast_to(np.maximum(common, 0), table[i].shape), atol=1e-14)


@pytest.mark.parametrize("name", ["categories", "one-hot"])
def test_of_categories_as_many_are_kept_as_can_be(name):
    before, after = PAIRS[name]
    table, _ = joint(before, after)
    kept = np.trace(table) if table.ndim == 2 else np.einsum("kk...->...", table)
    z = values_of(before)
    np.testing.assert_allclose(kept, np.sum(np.minimum(before.masses(z), after.masses(z)), axis=0), rtol=1e-14)


@pytest.mark.parametrize("name", PAIRS)
def test_samples_have_the_conditional_probabilities(name):
    """Each frequency of 20,000 within five standard errors: 200 of them, once in 10^4 for normal ones."""
    before, after = PAIRS[name]
    z = before.sample(np.random.default_rng(2))
    coupled, n = after.coupled(before, z), 20_000
    assert isinstance(coupled, Coupled)
    found = coupled.sample(np.random.default_rng(3), n)
    assert found.dtype == after.dtype
    event = tuple(range(-len(after.event_shape), 0))
    for value in values_of(after):
        p = coupled.masses(value)
        same = np.all(found == value, axis=event) if event else found == value
        assert np.all(abs(same.mean(axis=0) - p) <= 5 * np.sqrt(p * (1 - p) / n) + 1e-12)


@pytest.mark.parametrize("name", PAIRS)
def test_samples_one_at_a_time_have_them_too(name):
    """400 of one element, each in a call of its own: kept or moved, within five standard errors."""
    before, after = (d if d.batch_shape == () else _first(d) for d in PAIRS[name])
    z = before.sample(np.random.default_rng(2))
    coupled, rng = after.coupled(before, z), np.random.default_rng(3)
    found = [coupled.sample(rng) for _ in range(400)]
    assert {(np.shape(x), x.dtype) for x in found} == {(after.event_shape, after.dtype)}
    p = coupled.masses(z)
    assert abs(np.mean([np.all(x == z) for x in found]) - p) <= 5 * np.sqrt(p * (1 - p) / 400) + 1e-12


def _first(distribution):
    """The first element of a batch, without an axis."""
    elements = {k: p.raw if type(p) is scg.Node else p for k, p in distribution.parameters.items()}
    return distribution.replaced(**{k: p[0] for k, p in elements.items() if np.ndim(p)})


def test_float32_stays_and_rounding_far_out_gives_numbers():
    low, high = (dist.Poisson(np.array([0.5, 3.0], np.float32) * k) for k in (1, 2))
    far = ByQuantile(low, high, np.array([60.0, 80.0], np.float32))
    found = far.sample(np.random.default_rng(0), 100)
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    coins = dist.Bernoulli(logits=np.zeros(3, np.float32)), dist.Bernoulli(logits=np.ones(3, np.float32))
    assert Turned(*coins, np.ones(3, np.float32)).sample(np.random.default_rng(0)).dtype == np.float32


# --- continuous ones

SHIFTED = {
    "beta": lambda s: dist.Beta(2.0 + s, 1.5 - s),
    "cauchy": lambda s: dist.Cauchy(s, 1 + s),
    "chi-square": lambda s: dist.Chi2(3.0 + 2 * s),
    "erlang": lambda s: dist.Erlang(3, 1 + s),
    "exponential": lambda s: dist.Exponential(1 + s),
    "gamma": lambda s: dist.Gamma(1.2 + s, 2 - s),
    "gamma, rate": lambda s: dist.Gamma(1.2, 2 - s),
    "gompertz": lambda s: dist.Gompertz(0.5 + s, 1 + s),
    "gumbel": lambda s: dist.Gumbel(s, 1 + s),
    "half-normal": lambda s: dist.HalfNormal(1 + s),
    "image": lambda s: dist.Transformed(dist.Normal(s, 1.0), dist.Softplus()),
    "image, falling": lambda s: dist.Transformed(dist.Gumbel(0.0, 1.0), dist.Affine(s, -1 - s)),
    "inverse gamma": lambda s: dist.InverseGamma(2.5 + s, 1 - s),
    "kumaraswamy": lambda s: dist.Kumaraswamy(1 + s, 1.5),
    "laplace": lambda s: dist.Laplace(s, 1 + s),
    "logistic": lambda s: dist.Logistic(s, 1 + s),
    "logit-normal": lambda s: dist.LogitNormal(s, 1 + s),
    "log-normal": lambda s: dist.LogNormal(s, 1 + s),
    "normal": lambda s: dist.Normal(s, 1 + s),
    "pareto": lambda s: dist.Pareto(1.0, 2 + s),
    "student": lambda s: dist.StudentT(4.0, s, 1 + s),
    "student, df": lambda s: dist.StudentT(4.0 + s, s, 1.0),
    "truncated": lambda s: dist.TruncatedNormal(s, 1 + s, -1.0, 2.0),
    "weibull": lambda s: dist.Weibull(1 + s, 2 - s),
}
APART = np.array([0.4, -0.3])


@pytest.mark.parametrize("name", SHIFTED)
def test_a_number_keeps_its_quantile(name):
    """G(z') = F(z), at the middle and in both tails; the digits that 1 - F loses are lost in z'."""
    before, after = SHIFTED[name](0 * APART), SHIFTED[name](APART)
    z = before.icdf(np.array([1e-6, 0.01, 0.3, 0.5, 0.9, 0.999, 1 - 1e-9])[:, None])
    found = after.coupled(before, z)
    np.testing.assert_allclose(after.cdf(found), before.cdf(z), rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(before.coupled(before, z), z, rtol=1e-9)


@pytest.mark.parametrize("name", SHIFTED)
def test_as_nodes_and_in_float32_it_is_the_same_number(name):
    before, after = SHIFTED[name](0 * APART), SHIFTED[name](APART)
    z = before.sample(np.random.default_rng(0), 5)
    expected = after.coupled(before, z)

    s = parameter(APART)
    np.testing.assert_allclose(SHIFTED[name](s).coupled(SHIFTED[name](0 * s), z).raw, expected, rtol=1e-9)
    single = APART.astype(np.float32)
    low = SHIFTED[name](0 * single)
    found = SHIFTED[name](single).coupled(low, z.astype(np.float32))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_vectors_keep_their_standard_normal_noise():
    rng = np.random.default_rng(0)
    e = rng.normal(size=(4, 3))
    factors = [np.tril(rng.normal(size=(3, 3)), -1) + np.diag([1.0, 0.5, 2.0]) for _ in range(2)]
    wide, narrow = [dist.MultivariateNormal(rng.normal(size=3), factor) for factor in factors]
    np.testing.assert_allclose(wide.coupled(narrow, narrow.transport(e)), wide.transport(e), rtol=1e-12)
    low_rank = [dist.MultivariateNormal(loc, cov_factor=factors[0][:, :1], cov_diag=np.ones(3)) for loc in (e[0], e[1])]
    np.testing.assert_allclose(low_rank[0].coupled(low_rank[1], e[2]), e[2] - e[1] + e[0])


def test_elements_of_one_event_are_coupled_each():
    before, after = (dist.Independent(dist.Normal(loc, 1.0), 1) for loc in (np.zeros(3), np.arange(3.0)))
    z = before.sample(np.random.default_rng(0))
    np.testing.assert_allclose(after.coupled(before, z), z + np.arange(3.0))
    p, q = (dist.Independent(dist.Bernoulli(probs=np.array([a, 0.5])), 1) for a in (0.2, 0.6))
    for one in p.atoms():
        coupled = q.coupled(p, one)
        assert coupled.marginal.event_shape == (2,)
        expected = [np.prod(q.base.coupled(p.base, one).masses(other)) for other in q.atoms()]
        np.testing.assert_allclose(coupled.masses(q.atoms()), expected)


def test_counts_along_categories_are_drawn_anew():
    p, q = (dist.Multinomial(3, probs=np.array(a)) for a in ([0.2, 0.8], [0.5, 0.5]))
    assert q.coupled(p, np.array([1.0, 2.0])) is None
