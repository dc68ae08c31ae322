"""Bounds: their values, the means and variances of their gradients by quadrature and enumeration, and what each
gradient promises."""

import math

import numpy as np
import pytest

import scg
from scg import distributions as dist
from scg import objectives
from scg.core.backward import pull
from scg.errors import EstimatorError, NotDifferentiable, ScgTypeError, ScgValueError
from scg.objectives import GRADIENTS
from tests.support.oracle import expectation

X = 0.7
THETA = np.array([0.5, 0.1, -0.2, 0.3])  # A, b, log sd of the guide; mu of the model
BOUNDS = {"elbo": objectives.elbo, "iwae": objectives.iwae}


def guide(t):
    """q(z | x) = N(A x + b, sd^2)."""
    return dist.Normal(t[0] * X + t[1], np.exp(t[2]))


def model(t):
    """z ~ N(mu, 1), x | z ~ N(z, 1)."""
    return lambda z: dist.Normal(t[3], 1.0).log_prob(z) + dist.Normal(z, 1.0).log_prob(X)


def apart(t):
    """The same, as a prior and log p(x | z)."""
    return lambda z: (dist.Normal(t[3], 1.0), dist.Normal(z, 1.0).log_prob(X))


def gaussian(bound, gradient, samples=2):
    joint = apart if "generalized" in gradient else model
    return lambda t, rng: bound(joint(t), guide=guide(t), samples=samples, rng=rng, gradient=gradient)


def gradient_node(fn, theta=THETA):
    t = scg.parameter(theta)
    loss = scg.surrogate(fn(t, np.random.default_rng(0)))
    return pull([loss], [np.ones(())], [t], True)[0], t


def mean_gradient(fn, points, theta=THETA):
    return expectation(gradient_node(fn, theta)[0], points).value


def exact_gradient(fn, points, theta=THETA):
    t = scg.parameter(theta)
    return pull([expectation(fn(t, np.random.default_rng(0)), points)], [np.ones(())], [t])[0]


@pytest.mark.fast
@pytest.mark.parametrize("bound", BOUNDS.values())
@pytest.mark.parametrize("gradient", GRADIENTS)
def test_same_value_for_every_gradient(bound, gradient):
    def value(g):
        return scg.trace(gaussian(bound, g, 5), THETA, rng=np.random.default_rng(3)).cost.value

    z = guide(THETA).sample(np.random.default_rng(3), 5)
    log_w = model(THETA)(z) - guide(THETA).log_prob(z)
    expected = log_w.mean() if bound is objectives.elbo else math.log(np.mean(np.exp(log_w)))
    assert value(gradient) == value("pathwise")
    assert value(gradient) == pytest.approx(expected, rel=1e-13)


@pytest.mark.fast
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_of_log_weights_along_an_axis(axis):
    log_w = np.random.default_rng(0).normal(size=(4, 5)) * 300
    np.testing.assert_allclose(objectives.elbo(log_w, axis), log_w.mean(axis), rtol=1e-13)
    top = log_w.max(axis=axis, keepdims=True)
    expected = np.squeeze(top, axis) + np.log(np.mean(np.exp(log_w - top), axis=axis))
    np.testing.assert_allclose(objectives.iwae(log_w, axis=axis), expected, rtol=1e-13)
    assert objectives.iwae(log_w).shape == (5,)


@pytest.mark.parametrize("gradient", GRADIENTS)
@pytest.mark.parametrize("name", BOUNDS)
def test_mean_of_the_gradient(name, gradient):
    """Against the derivative of the mean of the bound itself, z ~ q summed by importance; by a Gauss rule in both
    draws."""
    exact = exact_gradient(gaussian(BOUNDS[name], "score function"), 40)
    found = mean_gradient(gaussian(BOUNDS[name], gradient), 40)
    if (name, gradient) == ("iwae", "sticking the landing"):
        assert np.max(np.abs(found - exact)) > 0.01  # biased, as its docstring says
    else:
        np.testing.assert_allclose(found, exact, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("gradient", ["pathwise", "sticking the landing", "score function"])
def test_second_derivatives_of_the_elbo(gradient):
    v = np.array([1.0, -0.5, 2.0, 0.3])

    def second(fn, of):
        g, t = of(fn)
        h = pull([g], [v], [t], True)[0]
        return expectation(h, 8).value

    def exact(fn):
        t = scg.parameter(THETA)
        return pull([expectation(fn(t, np.random.default_rng(0)), 8)], [np.ones(())], [t], True)[0], t

    found = second(gaussian(objectives.elbo, gradient), gradient_node)
    np.testing.assert_allclose(
        found, second(gaussian(objectives.elbo, "score function"), exact), rtol=1e-10, atol=1e-11
    )


@pytest.mark.fast
@pytest.mark.parametrize("gradient", ["doubly reparameterized", "VIMCO"])
def test_gradients_of_first_order_refuse_a_second(gradient):
    with pytest.raises(NotDifferentiable, match="differentiated again"):
        scg.hvp(gaussian(objectives.iwae, gradient))(THETA, THETA, rng=np.random.default_rng(0))


@pytest.mark.fast
@pytest.mark.parametrize("seed", range(5))
def test_sticking_the_landing_is_zero_at_the_posterior(seed):
    """p(z | x) = N((x + mu) / 2, 1/2): there the gradient of the guide vanishes draw by draw; the pathwise one only in
    the mean."""
    theta = np.array([0.5, 0.15, -0.5 * math.log(2), 0.3])
    for gradient in ("sticking the landing", "doubly reparameterized"):
        for bound in BOUNDS.values():
            g = scg.grad(gaussian(bound, gradient, 3))(theta, rng=np.random.default_rng(seed))
            assert np.max(np.abs(g[:3])) < 1e-14
    assert (
        np.max(np.abs(scg.grad(gaussian(objectives.elbo, "pathwise", 3))(theta, rng=np.random.default_rng(seed))[:3]))
        > 1e-3
    )


def test_bound_grows_with_the_number_of_draws():
    """L_1 <= L_2 <= L_3 <= log p(x) = log N(x; mu, 2), and L_1 is the mean of the ELBO."""

    def mean(samples, points):
        t = scg.parameter(THETA)
        return float(
            expectation(
                gaussian(objectives.iwae, "pathwise", samples)(t, np.random.default_rng(0)), points, 10**6
            ).value
        )

    bounds = [mean(k, points) for k, points in ((1, 60), (2, 60), (3, 40))]
    evidence = dist.Normal(THETA[3], math.sqrt(2)).log_prob(X)
    assert np.all(np.diff([*bounds, evidence]) > 1e-4)
    sd, location = math.exp(THETA[2]), THETA[0] * X + THETA[1]
    divergence = math.log(math.sqrt(0.5) / sd) + (sd**2 + (location - (X + THETA[3]) / 2) ** 2) - 0.5
    assert bounds[0] == pytest.approx(evidence - divergence, rel=1e-12)


def test_gap_at_the_optimum_of_a_guide_of_the_wrong_width():
    """A = I/2, b = mu/2, variance 2/3, D = 20: the ELBO lies 10 (1/3 - ln 4/3) below log p(x); in each dimension a
    twentieth."""
    theta = np.array([0.5, 0.15, 0.5 * math.log(2 / 3), 0.3])
    t = scg.parameter(theta)
    elbo = expectation(gaussian(objectives.elbo, "pathwise", 1)(t, np.random.default_rng(0)), 20).value
    gap = dist.Normal(theta[3], math.sqrt(2)).log_prob(X) - elbo
    assert 20 * gap == pytest.approx(10 * (1 / 3 - math.log(4 / 3)), rel=1e-12)
    assert 20 * gap == pytest.approx(0.456513, abs=5e-7)


def test_the_doubly_reparameterized_gradient_varies_less():
    """Exact variances for the guide's parameters, near the optimum with a guide of the wrong width."""
    theta = np.array([0.5, 0.15, 0.5 * math.log(2 / 3), 0.3]) + 0.01

    def variance(gradient):
        g, _ = gradient_node(gaussian(objectives.iwae, gradient), theta)
        mean, square = expectation(g, 40).value, expectation(g * g, 40).value
        return (square - mean**2)[:3]

    assert np.all(variance("doubly reparameterized") < variance("pathwise"))


def ratios(gradient, samples, replicates=10_000):
    """Signal-to-noise ratios |mean| / sd for (b, mu), near the optimum, each with a standard error of about 1/100 of
    max(1, ratio)."""
    theta = np.array([0.5 + 0.01, 0.15 - 0.05, 0.5 * math.log(2 / 3), 0.3])
    graph = scg.trace(gaussian(objectives.iwae, gradient, samples), theta, rng=np.random.default_rng(0))
    g = graph.gradients(rng=np.random.default_rng(samples), replicates=replicates)[:, [1, 3]]
    return np.abs(g.mean(axis=0)) / g.std(axis=0)


def test_signal_to_noise_as_draws_grow():
    """Rainforth et al. (2018), Tucker et al. (2019): log-log slope +1/2 for mu; for the guide down with the pathwise
    gradient, up with the other."""
    (_, mu_few), (b_many, mu_many) = ratios("pathwise", 8), ratios("pathwise", 128)
    assert math.log(mu_many / mu_few) / math.log(16) == pytest.approx(0.5, abs=0.05)
    few, many = ratios("doubly reparameterized", 8), ratios("doubly reparameterized", 128)
    assert math.log(many[0] / few[0]) / math.log(16) > 0.3
    assert b_many < 0.05 < 0.1 * many[0]


# --- discrete latents ---

LOGITS = np.array([0.3, -0.6, 0.9])
CODE = np.array([[1.0, -0.5], [0.4, 1.5]])


def coins(bound, gradient, samples):
    """Two coins behind two visible numbers; the first parameters are the guide's logits, the last scales the
    decoder."""

    def cost(t, rng):
        prior = dist.Independent(dist.Bernoulli(probs=np.array([0.3, 0.6])), 1)
        q = dist.Independent(dist.Bernoulli(logits=t[:2]), 1)

        def joint(z):
            return prior.log_prob(z) + dist.Independent(dist.Normal(t[2] * (z @ CODE), 1.0), 1).log_prob(
                np.array([0.2, -1.0])
            )

        return bound(joint, guide=q, samples=samples, rng=rng, gradient=gradient)

    return cost


@pytest.mark.fast
@pytest.mark.parametrize("gradient", ["score function", "VIMCO"])
@pytest.mark.parametrize("name", BOUNDS)
def test_unbiased_by_enumeration(name, gradient):
    exact = exact_gradient(coins(BOUNDS[name], "score function", 3), 1, LOGITS)
    np.testing.assert_allclose(
        mean_gradient(coins(BOUNDS[name], gradient, 3), 1, LOGITS), exact, rtol=1e-10, atol=1e-12
    )


@pytest.mark.fast
def test_vimco_is_the_formula():
    """sum_k (L - L_without_k) d log q(z_k) + d L at fixed draws, by hand, in a batch and a scaled sum."""
    theta = np.array([0.3, -0.6])
    p_z, lik = np.array([0.4, 0.7]), np.array([1.5, -0.8])

    def cost(t, rng):
        q = dist.Bernoulli(logits=t)
        bound = objectives.iwae(
            lambda z: dist.Bernoulli(probs=p_z).log_prob(z) + z * lik,
            guide=q,
            samples=4,
            rng=rng,
            gradient="VIMCO",
            name="z",
        )
        return 3 * np.mean(bound)

    graph = scg.trace(cost, theta, rng=np.random.default_rng(5))
    z = graph.stochastic["z"].value
    q = 1 / (1 + np.exp(-theta))
    log_q = np.where(z == 1, np.log(q), np.log(1 - q))
    log_w = np.where(z == 1, np.log(p_z), np.log(1 - p_z)) + z * lik - log_q
    bound = np.log(np.mean(np.exp(log_w), axis=0))
    score = z - q
    g = -np.sum(np.exp(log_w) * score, axis=0) / np.sum(np.exp(log_w), axis=0)
    for k in range(4):
        others = np.delete(log_w, k, axis=0)
        without = np.log((np.exp(others).sum(axis=0) + np.exp(others.mean(axis=0))) / 4)
        g = g + (bound - without) * score[k]
    np.testing.assert_allclose(graph.gradients(), 3 * g / 2, rtol=1e-12)
    many = graph.gradients(rng=np.random.default_rng(0), replicates=4)
    assert many.shape == (4, 2)


def test_vimco_varies_less_than_the_score_function():
    def variance(gradient):
        g, _ = gradient_node(coins(objectives.iwae, gradient, 3), LOGITS)
        mean, square = expectation(g, 1).value, expectation(g * g, 1).value
        return np.sum((square - mean**2)[:2])

    assert variance("VIMCO") < 0.5 * variance("score function")


# --- reweighted wake-sleep ---


def held(t, rng, samples=3):
    return objectives.hold(guide(t), samples=samples, rng=rng, name="z")


@pytest.mark.fast
def test_wake_gradients_are_the_formulas():
    """sum_k W_k d log p(x, z_k) for the model and sum_k W_k d log q(z_k) for the guide, and neither for the other."""

    def theta_cost(t, rng):
        return objectives.wake_theta(model(t), guide(t), held(t, rng))

    def phi_cost(t, rng):
        return objectives.wake_phi(model(t), guide(t), held(t, rng))

    z = guide(THETA).sample(np.random.default_rng(2), 3)
    log_w = model(THETA)(z) - guide(THETA).log_prob(z)
    W = np.exp(log_w) / np.exp(log_w).sum()
    sd, location = math.exp(THETA[2]), THETA[0] * X + THETA[1]
    e = (z - location) / sd
    value, g = scg.value_and_grad(theta_cost)(THETA, rng=np.random.default_rng(2))
    np.testing.assert_allclose(g, [0, 0, 0, W @ (z - THETA[3])], rtol=1e-12, atol=1e-15)
    assert value == pytest.approx(math.log(np.mean(np.exp(log_w))), rel=1e-13)
    _, g = scg.value_and_grad(phi_cost)(THETA, rng=np.random.default_rng(2))
    np.testing.assert_allclose(g, [W @ e / sd * X, W @ e / sd, W @ (e * e - 1), 0], rtol=1e-12, atol=1e-15)


def test_wake_theta_has_the_mean_of_the_bound_s_gradient():
    exact = exact_gradient(gaussian(objectives.iwae, "score function"), 40)
    found = mean_gradient(lambda t, rng: objectives.wake_theta(model(t), guide(t), held(t, rng, 2)), 40)
    np.testing.assert_allclose(found[3], exact[3], rtol=1e-10)


@pytest.mark.fast
def test_sleep_phi():
    """At dreams (z, x) of the model: the gradient vanishes in the mean where the guide is the posterior; by the formula
    for given dreams."""

    def cost(t, rng):
        z = objectives.hold(dist.Normal(0.3, 1.0), samples=4, rng=rng)
        x = objectives.hold(dist.Normal(z, 1.0), samples=1, rng=rng)[0]
        return objectives.sleep_phi(dist.Normal(t[0] * x + t[1], np.exp(t[2])), z)

    rng = np.random.default_rng(1)
    z = dist.Normal(0.3, 1.0).sample(rng, 4)
    x = dist.Normal(z, 1.0).sample(rng, 1)[0]
    sd = math.exp(THETA[2])
    e = (z - THETA[0] * x - THETA[1]) / sd
    g = scg.grad(cost)(THETA[:3], rng=np.random.default_rng(1))
    np.testing.assert_allclose(g, [np.mean(e * x) / sd, np.mean(e) / sd, np.mean(e * e - 1)], rtol=1e-12)
    graph = scg.trace(cost, np.array([0.5, 0.15, -0.5 * math.log(2)]), rng=rng)
    many = graph.gradients(rng=rng, replicates=5000)
    assert np.all(np.abs(many.mean(axis=0)) < 5 * many.std(axis=0) / math.sqrt(5000))


def test_held_draws_of_a_model_carry_nothing_to_it():
    def cost(t, rng):
        z = objectives.hold(dist.Normal(t[3], 1.0), samples=4, rng=rng)
        return objectives.sleep_phi(guide(t), z)

    assert scg.grad(cost)(THETA, rng=np.random.default_rng(0))[3] == 0


# --- refusals ---


@pytest.mark.fast
@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda r: objectives.iwae(lambda z: z), ScgTypeError, "needs a guide"),
        (lambda r: objectives.iwae(np.zeros(3), gradient="VIMCO"), ScgTypeError, "give a model and a guide"),
        (
            lambda r: objectives.elbo(np.zeros(3), guide=guide(THETA), rng=r),
            ScgTypeError,
            "first argument is the model",
        ),
        (
            lambda r: objectives.elbo(model(THETA), guide=guide(THETA), rng=r, gradient="stl"),
            ScgValueError,
            "one of 'pathwise'.*got 'stl'",
        ),
        (
            lambda r: objectives.iwae(model(THETA), guide=guide(THETA), rng=r, gradient="VIMCO"),
            ScgValueError,
            "at least 2, got 1",
        ),
        (lambda r: objectives.iwae(model(THETA), guide=guide(THETA), rng=r, samples=0), ScgValueError, "at least 1"),
        (lambda r: objectives.iwae(model(THETA), guide=guide(THETA)), ScgTypeError, "rng"),
        (
            lambda r: objectives.iwae(lambda z: z, guide=dist.Bernoulli(logits=THETA), rng=r),
            EstimatorError,
            "Reparameterized needs",
        ),
        (
            lambda r: objectives.elbo(lambda z: np.sum(z, axis=-1), guide=dist.Normal(THETA, 1.0), rng=r),
            ScgValueError,
            "Independent",
        ),
    ],
)
def test_refusals(call, error, message):
    with pytest.raises(error, match=message):
        call(None if message == "rng" else np.random.default_rng(0))


@pytest.mark.parametrize("bound", BOUNDS.values())
def test_a_guide_whose_support_moves_keeps_its_score(bound):
    """d/dt of E over (0, t) has what the cost is at t; the mean of the score is not zero: only the pathwise gradient is
    right, and the others are refused. Where nothing moves they are not."""

    def cost(t, rng, gradient, low=0.0):
        q = dist.Uniform(low, t)
        return bound(lambda z: dist.Normal(0.0, 1.0).log_prob(z), guide=q, samples=2, rng=rng, gradient=gradient)

    t = np.array(1.5)
    graph = scg.trace(cost, t, rng=np.random.default_rng(0), gradient="pathwise")
    assert abs(scg.exact.moments(graph).mean - scg.exact.gradient(graph)) < 1e-9
    for gradient in ("sticking the landing", "doubly reparameterized"):
        with pytest.raises(EstimatorError, match="support must not move.*gradient='pathwise'"):
            scg.trace(cost, t, rng=np.random.default_rng(0), gradient=gradient)
        still = bound(
            lambda z: z, guide=dist.Uniform(0.0, 1.0), samples=2, rng=np.random.default_rng(0), gradient=gradient
        )
        assert np.isfinite(still.value)


@pytest.mark.fast
@pytest.mark.parametrize("gradient", ["sticking the landing", "doubly reparameterized"])
def test_the_turn_of_an_angle_may_move_where_the_score_stands_alone(gradient):
    def cost(t, rng, bound, axes=0, of=gradient):
        q = dist.VonMises(np.reshape(t, (1,) * axes), 1.5)
        q = dist.Independent(q, axes) if axes else q
        model = lambda z: np.sum(z * z, axis=tuple(range(1, z.ndim)))
        return bound(model, guide=q, samples=1, rng=rng, gradient=of, name="z")

    t = np.array(0.4)
    graph = scg.trace(cost, t, rng=np.random.default_rng(0), bound=objectives.elbo)
    plain = scg.trace(cost, t, rng=np.random.default_rng(0), bound=objectives.elbo, of="pathwise")
    z = graph.stochastic["z"].value[0]  # what is left out is 1.5 sin(z - t), whose mean is zero
    assert plain.gradients() - graph.gradients() == pytest.approx(-1.5 * np.sin(z - t), rel=1e-9)
    scg.trace(cost, t, rng=np.random.default_rng(0), bound=objectives.elbo, axes=1)
    with pytest.raises(EstimatorError, match="low=-np.pi"):
        scg.trace(cost, t, rng=np.random.default_rng(0), bound=objectives.iwae)


MASKS = {
    "of its own": lambda t, z: 0.3,
    "of the guide and the model": lambda t, z: 1 / (1 + np.exp(-t[1] - t[3])),
    "of the draws": lambda t, z: 1 / (1 + np.exp(-z)),
}


SETTLING = [
    (g, m)
    for g in GRADIENTS
    for m in MASKS
    if "generalized" not in g and (m != "of the draws" or g in ("score function", "VIMCO"))
]
"""Others settle too slowly for a test."""


@pytest.mark.parametrize(
    ("bound", "gradient", "mask"),
    [
        pytest.param(b, g, m, marks=() if m == "of the guide and the model" and (i + k) % 2 == 0 else pytest.mark.long)
        for i, b in enumerate(BOUNDS)
        for k, g in enumerate(GRADIENTS)
        for m in MASKS
        if (g, m) in SETTLING
    ],
)
def test_a_model_that_draws_itself_has_the_same_mean_gradient(bound, gradient, mask):
    """The exact mean over z, and over the coins that the model throws, is the exact gradient of the exact bound,
    whichever of the gradients it is."""

    def cost(t, rng):
        def thinned(z):
            m = scg.sample(dist.Bernoulli(probs=MASKS[mask](t, z)), scg.ScoreFunction(), rng=rng)
            return dist.Normal(t[3], 1.0).log_prob(z) + dist.Normal(z * (1 + m), 1.5).log_prob(X)

        return BOUNDS[bound](thinned, guide=guide(t), samples=2, rng=rng, gradient=gradient)

    graph = scg.trace(cost, THETA, rng=np.random.default_rng(0))
    same = np.allclose(
        scg.exact.moments(graph, rtol=1e-3).mean, scg.exact.gradient(graph, rtol=1e-5), rtol=0, atol=1e-2
    )
    assert same == ((bound, gradient) != ("iwae", "sticking the landing"))


def test_a_draw_of_the_model_that_depends_on_the_guides_is_refused_by_the_doubly_reparameterized_gradient():
    def cost(t, rng):
        def thinned(z):
            m = scg.sample(dist.Bernoulli(logits=z), scg.ScoreFunction(), rng=rng)
            return dist.Normal(z * (1 + m), 1.5).log_prob(X)

        return objectives.iwae(thinned, guide=guide(t), samples=2, rng=rng, gradient="doubly reparameterized")

    with pytest.raises(EstimatorError, match="depends on the guide's samples.*gradient='pathwise'"):
        scg.grad(cost)(THETA, np.random.default_rng(0))


def test_the_doubly_reparameterized_gradient_meets_one_draw_of_the_model():
    """z, m = f(z, e) by its path: log p is evaluated at one e, so that the value and the gradient belong together."""

    def cost(t, rng, gradient):
        def noisy(z):
            m = scg.sample(dist.Normal(z * t[3], 1.0), scg.Reparameterized(), rng=rng)
            return dist.Normal(m + rng.normal(), 1.0).log_prob(X) + dist.Normal(0.0, 1.0).log_prob(z)

        return objectives.iwae(noisy, guide=guide(t), samples=3, rng=rng, gradient=gradient)

    runs = {
        g: [scg.grad(cost)(THETA, np.random.default_rng(s), g) for s in range(500)]
        for g in ("pathwise", "doubly reparameterized")
    }
    difference = np.subtract(*runs.values())
    assert np.all(np.abs(difference.mean(0)) < 6 * difference.std(0) / math.sqrt(len(difference)))
    np.testing.assert_allclose(difference[:, 3], 0, atol=1e-12)  # the model's own gradient is the same, draw by draw
