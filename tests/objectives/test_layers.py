"""Guides and models of several layers: means and variances of the gradients by quadrature, and what is refused."""

import mpmath
import numpy as np
import pytest

import scg
from scg import distributions as dist
from scg import objectives
from scg.core.backward import pull
from scg.errors import EstimatorError, NotDifferentiable, ScgTypeError, ScgValueError
from scg.objectives import GRADIENTS
from tests.support.drawn import first
from tests.support.oracle import expectation, moments

X = 0.7
GENERALIZED = "generalized doubly reparameterized"
# of the guides of z2 and z1, 0 to 5; of the priors, 6 to 10; of x given z1
THETA = np.array([0.4, 0.1, -0.2, 0.6, 0.2, -0.3, 0.3, 0.1, 0.8, -0.2, 0.05, 0.1])
NARROW = np.array([0.0, 0.3, -0.75, 0.3, -0.28, -0.85, 0.3, -0.8, 0.3, -0.2, -0.9, 1.0])  # x tells little
BOUNDS = {"elbo": objectives.elbo, "iwae": objectives.iwae}


def rng(seed=0):
    return np.random.default_rng(seed)


def layers(t):
    """q(z2) = N(a x + b, s2^2), q(z1 | z2) = N(c z2 + d x, s1^2)."""
    return [dist.Normal(t[0] * X + t[1], np.exp(t[2])), lambda z2: dist.Normal(t[3] * z2 + t[4] * X, np.exp(t[5]))]


def priors(t, z2):
    """z2 ~ N(mu, tau2^2), z1 ~ N(w z2 + v, tau1^2)."""
    return [dist.Normal(t[6], np.exp(t[7])), dist.Normal(t[8] * z2 + t[9], np.exp(t[10]))]


def two(t, rng, bound, gradient, samples=1, pair=True):
    """x ~ N(z1, r^2), as priors and a likelihood or as log p(x, z)."""

    def model(z2, z1):
        p, likelihood = priors(t, z2), dist.Normal(z1, np.exp(t[11])).log_prob(X)
        return (p, likelihood) if pair else p[0].log_prob(z2) + p[1].log_prob(z1) + likelihood

    return bound(model, guide=layers(t), samples=samples, rng=rng, gradient=gradient)


def exact(bound, samples, points, theta=THETA):
    """The derivative of the mean of the bound itself, by a Gauss rule along the paths."""
    t = scg.parameter(theta)
    return pull([expectation(two(t, rng(), bound, "pathwise", samples), points)], [np.ones(())], [t])[0]


def of(bound, gradient, samples=1, points=20, theta=THETA, **how):
    """Mean and variance of a gradient."""
    return moments(lambda t, r: two(t, r, bound, gradient, samples, **how), theta, points=points)[:2]


@pytest.mark.parametrize("samples", first(1, [2, 1]))
@pytest.mark.parametrize("gradient", GRADIENTS)
@pytest.mark.parametrize("name", BOUNDS)
def test_gradients_of_two_layers_have_the_mean_of_the_bound(name, gradient, samples):
    """For the guide, the priors, and the likelihood; but sticking the landing, which is biased for K > 1."""
    if gradient in ("VIMCO", "OVIS") and samples == 1:
        return
    points = 24 // samples
    found = of(BOUNDS[name], gradient, samples, points)[0]
    truth = exact(BOUNDS[name], samples, points)
    if (name, gradient, samples) == ("iwae", "sticking the landing", 2):
        assert np.max(np.abs(found - truth)) > 0.05
    else:
        close = 1e-5 if gradient in GRADIENTS[4:] else 1e-7  # the rule follows the paths
        np.testing.assert_allclose(found, truth, rtol=0, atol=close)


def test_the_doubly_reparameterized_ones_have_less_variance():
    """By quadrature: for the guide with both; for the parameters of the priors with the generalized one, where these
    are narrower than what else is known of the samples; where they are wider, more."""
    plain, doubly, generalized = (of(objectives.iwae, g, 2, 12)[1] for g in ("pathwise", GRADIENTS[2], GENERALIZED))
    assert np.all(doubly[:6] < 0.1 * plain[:6])
    np.testing.assert_allclose(generalized[:6], doubly[:6], rtol=1e-9)
    np.testing.assert_allclose(doubly[6:], plain[6:], rtol=1e-9)
    assert generalized[6] > 1.3 * plain[6] and generalized[10] < 0.7 * plain[10]
    plain, generalized = (of(objectives.iwae, g, 2, 12, NARROW)[1] for g in ("pathwise", GENERALIZED))
    assert np.all(generalized[6:11] < 0.3 * plain[6:11])
    np.testing.assert_allclose(generalized[11], plain[11], rtol=1e-9)


def test_a_pair_is_the_sum_of_its_parts():
    for gradient in GRADIENTS[:3]:
        for bound in BOUNDS.values():
            runs = [scg.value_and_grad(two)(THETA, rng(3), bound, gradient, 4, pair) for pair in (True, False)]
            assert runs[0][0] == pytest.approx(runs[1][0], rel=1e-14)
            np.testing.assert_allclose(runs[0][1], runs[1][1], rtol=1e-12, atol=1e-14)


KINDS = {
    "vectors": (
        lambda t: dist.Independent(dist.Normal(t[:2], np.exp(t[2:4])), 1),
        lambda t: dist.Independent(dist.Normal(t[4:6], np.exp(t[6:8])), 1),
        lambda z: -np.sum((z - 0.3) ** 2, axis=-1),
    ),
    "correlated": (
        lambda t: dist.MultivariateNormal(t[:2], np.eye(2)),
        lambda t: dist.MultivariateNormal(t[4:6], np.eye(2) * np.exp(t[6]) + np.array([[0, 0], [1, 0]]) * t[7]),
        lambda z: -np.sum((z - 0.3) ** 2, axis=-1) + z[..., 0] * z[..., 1] / 2,
    ),
    "positive": (
        lambda t: dist.Gamma(np.exp(t[0]) + 2, np.exp(t[1])),
        lambda t: dist.Gamma(np.exp(t[4]) + 1, np.exp(t[5])),
        lambda z: -z - 1 / (1 + z),
    ),
    "of a normal": (
        lambda t: dist.LogNormal(t[0], np.exp(t[1])),
        lambda t: dist.LogNormal(t[4], np.exp(t[5])),
        lambda z: -z,
    ),
    "shares": (
        lambda t: dist.Beta(np.exp(t[0]) + 1, 2.0),
        lambda t: dist.Kumaraswamy(np.exp(t[4]) + 1, np.exp(t[5]) + 1),
        lambda z: np.sin(3 * z),
    ),
    "mixed": (
        lambda t: dist.Normal(t[0], np.exp(t[1])),
        lambda t: dist.Mixture(dist.Normal(t[4:6], np.exp(t[6])), logits=np.stack([t[7], 0 * t[7]])),
        lambda z: -z * z / 4,
    ),
    "stretched": (
        lambda t: dist.Logistic(t[0], np.exp(t[1])),
        lambda t: dist.Logistic(t[4], np.exp(t[5])),
        lambda z: -np.log1p(z * z),
    ),
}
AT = np.array([0.2, -0.1, -0.4, 0.1, -0.3, 0.4, -0.2, 0.3])


@pytest.mark.parametrize("kind", KINDS)
def test_priors_of_many_kinds_by_their_paths(kind):
    """The mean of the difference to the doubly reparameterized gradient is zero, to 5 standard errors of 20,000 runs of
    three samples; for the guide there is none."""
    guide, prior, likelihood = KINDS[kind]

    def cost(t, rng, gradient):
        return objectives.iwae(
            lambda z: (prior(t), likelihood(z)), guide=guide(t), samples=3, rng=rng, gradient=gradient
        )

    g = [
        scg.trace(cost, AT, rng=rng(), gradient=name).gradients(rng=rng(1), replicates=20_000)
        for name in ("doubly reparameterized", GENERALIZED)
    ]
    difference = g[1] - g[0]
    np.testing.assert_allclose(difference[:, :4], 0, atol=1e-9)
    moved = np.std(difference, axis=0)[4:]
    assert np.any(moved > 0.01)
    assert np.all(np.abs(np.mean(difference, axis=0))[4:] <= 5 * moved / np.sqrt(len(difference)))


def test_tails_of_a_prior_keep_their_slope():
    """With one sample the gradient is (d log q / dz - d log r / dz) dT, dT = -dF / r: also where the probability of
    more is exp(-150), and where that of less is."""
    rates = np.array([1.0, 0.02, 0.004])

    def cost(t, rng, prior):
        bound = objectives.iwae(
            lambda z: (prior(t), 0 * z),
            guide=dist.Gamma(2.0, rates),
            samples=1,
            rng=rng,
            gradient=GENERALIZED,
            name="z",
        )
        return np.sum(bound)

    def run(prior, t):
        graph = scg.trace(cost, t, rng=rng(1), prior=prior)
        z = graph.stochastic["z"].value[0]
        assert z[2] > 150
        return z, 1 / z - rates, graph.gradients()

    at = np.full(3, 1.1)
    z, slope, found = run(lambda t: dist.Gamma(2.0, t), at)
    np.testing.assert_allclose(found, -(slope - (1 / z - 1.1)) * z / 1.1, rtol=1e-8)
    z, slope, found = run(lambda t: dist.Gamma(t, 1.3), at)
    h = 1e-4
    with mpmath.workdps(60):
        less = lambda a, x: mpmath.gammainc(a, 1.3 * x, mpmath.inf, regularized=True)
        change = [(less(1.1 + h, x) - less(1.1 - h, x)) / (2 * h) for x in z]
        paths = np.array([float(c) for c in change]) / np.exp(dist.Gamma(1.1, 1.3).log_prob(z))
    np.testing.assert_allclose(found, (slope - (0.1 / z - 1.3)) * paths, rtol=1e-5)


def test_float32_is_kept_and_plans_run():
    t32 = THETA.astype(np.float32)

    def cost(t, rng):
        return two(t, rng, objectives.iwae, GENERALIZED, 5)

    value, gradient = scg.value_and_grad(cost)(THETA, rng(2))
    compiled = scg.compile(scg.value_and_grad(cost))
    for seed in (1, 2):
        again = compiled(THETA, rng(seed))
    assert again[0] == pytest.approx(value, rel=1e-12)
    np.testing.assert_allclose(again[1], gradient, rtol=1e-10)
    assert scg.grad(cost)(t32, rng(2)).dtype == np.float32
    with pytest.raises(NotDifferentiable, match="differentiated again"):
        scg.hvp(cost)(THETA, THETA, rng=rng())


def refused(model, guide, gradient=GENERALIZED):
    return objectives.iwae(model, guide=guide, samples=2, rng=rng(), gradient=gradient)


@pytest.mark.fast
def test_what_does_not_apply_is_refused():
    t = scg.parameter(np.array([0.3, 0.2]))
    q, coins = dist.Normal(t[0], 1.0), dist.Bernoulli(logits=t[0])
    positive, shares = dist.Gamma(2.0, np.exp(t[0])), dist.Dirichlet([1.0, 2.0])
    for model, guide, kind, message in (
        (lambda z: -z * z, q, EstimatorError, r"return \(prior, log p\(x \| z\)\).*'doubly reparameterized'"),
        (lambda z: (q, -z, 0), q, ScgTypeError, "got 3 values"),
        (lambda z: (3.0, -z), q, ScgTypeError, "a distribution, for each of the 1 layers of the guide, got float"),
        (lambda z: ([q, q], -z), q, ScgTypeError, "each of the 1 layers of the guide, got Normal, Normal"),
        (lambda z: (dist.Uniform(0.0, t[1]), -z), positive, EstimatorError, "support that does not move"),
        (lambda z: (dist.Normal(t[1], 1.0), -z), positive, EstimatorError, "the support of the guide, Gamma"),
        (
            lambda z: (dist.Dirichlet(np.exp(t)), z[..., 0]),
            dist.Dirichlet([1.0, 2.0]),
            EstimatorError,
            "path.*known at",
        ),
        (lambda z: (coins, z), coins, EstimatorError, "Reparameterized needs"),
        (
            lambda a, b: ([q, q], b),
            [q, dist.Independent(dist.Normal(t, 1.0), 0)],
            ScgValueError,
            "layer 2 of the guide",
        ),
        (lambda a, b: ([q, q], b), [q, lambda a: dist.Normal(np.zeros(3), 1.0)], ScgValueError, "layer 2 of the guide"),
    ):
        with pytest.raises(kind, match=message):
            refused(model, guide)
    refused(lambda z: (shares, z[..., 0]), shares)  # it has no parameters


def test_a_layer_may_draw_of_itself():
    """Noise inside a layer of the guide, and a sample of the model by its path: log q and log p are those of one
    run."""

    def cost(t, rng, gradient):
        mask = rng.normal(size=())

        def model(z2, z1):
            m = scg.sample(dist.Normal(z1 * t[8], 1.0), scg.Reparameterized(), rng=rng)
            return priors(t, z2), dist.Normal(m + rng.normal(), 1.0).log_prob(X)

        guide = [layers(t)[0], lambda z2: dist.Normal(t[3] * z2 + t[4] * mask, np.exp(t[5]))]
        return objectives.iwae(model, guide=guide, samples=3, rng=rng, gradient=gradient)

    runs = {g: [scg.grad(cost)(THETA, rng(s), g) for s in range(400)] for g in ("pathwise", GENERALIZED)}
    difference = np.subtract(*runs.values())
    assert np.all(np.abs(difference.mean(0)) <= 6 * difference.std(0) / np.sqrt(len(difference)))


def test_three_layers_and_a_batch():
    """Of shape (K, batch), against the same as three single data."""
    x = np.array([0.3, -1.0, 0.8])

    def cost(t, rng, x, batch=True):
        shape = x.shape
        guide = [
            dist.Normal(t[0] * x, 1.0),
            lambda a: dist.Normal(t[1] * a, 0.8),
            lambda a, b: dist.Normal(t[2] * b + t[3] * a, 0.7),
        ]

        def model(a, b, c):
            return [dist.Normal(t[4], 1.1), dist.Normal(a, np.exp(t[5])), dist.Normal(b, 0.5)], dist.Normal(
                c, 1.0
            ).log_prob(x)

        found = objectives.iwae(model, guide=guide, samples=4, rng=rng, gradient=GENERALIZED)
        assert found.shape == shape
        return np.sum(found)

    t = np.linspace(-0.5, 0.7, 6)
    whole = scg.trace(cost, t, rng=rng(), x=x).gradients(rng=rng(1), replicates=4000)
    parts = [scg.trace(cost, t, rng=rng(), x=x[i : i + 1]).gradients(rng=rng(2 + i), replicates=4000) for i in range(3)]
    gap = whole.mean(0) - np.sum([p.mean(0) for p in parts], axis=0)
    error = np.sqrt((whole.var(0) + np.sum([p.var(0) for p in parts], axis=0)) / 4000)
    assert np.all(np.abs(gap) < 5 * error)
