"""The autoencoder family: formulas against their closed forms, limits and one another."""

import itertools
import math
import tracemalloc

import numpy as np
import pytest
import scipy.stats

import scg
from examples import autoencoder, digits, evaluation, iwae, plots, ppca, training, vae
from scg import distributions as dist
from scg import objectives
from scg.core.tree import leaves, map_leaves
from scg.stochastic.estimator import Estimator
from tests.support.examples import backward, forward

pytestmark = pytest.mark.usefixtures("figures")


def arrays(tree):
    return {path: np.asarray(x) for path, x in leaves(tree)}


def start(model, pixels, rng, spread=0.3):
    """Parameters in float64, off their symmetric beginning."""
    return map_leaves(
        lambda w: w + spread * rng.standard_normal(w.shape), map_leaves(np.float64, model.initial(pixels, rng))
    )


def gradient(model, params, x, seed):
    return scg.value_and_grad(model.cost)(params, x, rng=np.random.default_rng(seed))


def close(a, b, tolerance):
    a, b = arrays(a), arrays(b)
    assert a.keys() == b.keys()
    for path in a:
        np.testing.assert_allclose(
            a[path], b[path], rtol=0, atol=tolerance * max(1, np.abs(b[path]).max()), err_msg=path
        )


def means(model, params, x, seed, rows=400, blocks=30):
    """The mean gradient over draws, and its standard error: every block is the gradient at many copies of x."""
    tiled = np.tile(x, (rows // len(x), 1))
    found = [arrays(gradient(model, params, tiled, (seed, block))[1]) for block in range(blocks)]
    stacked = {path: np.stack([f[path] for f in found]) for path in found[0]}
    return {path: (v.mean(axis=0), v.std(axis=0, ddof=1) / math.sqrt(blocks)) for path, v in stacked.items()}


def apart(a, b, part=""):
    """The largest distance between two estimated gradients, in standard errors of it (Student's t with about 58
    degrees: above 7 once in 3e8)."""
    scores = [np.abs(a[p][0] - b[p][0]) / np.maximum(np.hypot(a[p][1], b[p][1]), 1e-9) for p in a if part in p]
    return max(float(score.max()) for score in scores)


# the deterministic autoencoder


def squared_error(params, x, penalty):
    """|x - decoder(encoder(x))|^2 / 2 + penalty |encoder(x)|^2 / 2, a mean over rows, and its gradient by the chain
    rule."""
    steps, z = forward(params["encoder"], x)
    inner, y = forward(params["decoder"], z)
    decoder, d = backward(params["decoder"], inner, (y - x) / len(x))
    encoder, _ = backward(params["encoder"], steps, d + penalty * z / len(x))
    return (((y - x) ** 2).sum() + penalty * (z**2).sum()) / 2 / len(x), {"encoder": encoder, "decoder": decoder}


@pytest.mark.fast
@pytest.mark.parametrize("prior, penalty", [("flat", 0), ("normal", 1)])
def test_with_a_point_for_q_the_vae_is_the_squared_error_autoencoder(prior, penalty):
    rng, model = np.random.default_rng(0), autoencoder.Autoencoder([6, 5], 3, prior)
    pixels = rng.integers(0, 256, (7, 9), dtype=np.uint8)
    params, x = start(model, pixels, rng), pixels / 255
    value, found = gradient(model, params, x, 1)
    expected, by_hand = squared_error(params, x, penalty)
    constants = 0.5 * math.log(2 * math.pi) * (9 + penalty * 3)
    assert abs(value - constants - expected) <= 1e-12 * abs(expected + constants)
    for (path, g), (_, e) in zip(leaves(found), leaves(by_hand), strict=True):
        np.testing.assert_allclose(g, e, rtol=0, atol=1e-12 * max(1, np.abs(e).max()), err_msg=path)
    assert autoencoder.Autoencoder.bound is vae.VAE.bound and autoencoder.Autoencoder.divergence is vae.VAE.divergence


# probabilistic PCA


def linear_images(n=300, seed=0):
    """Grey images of 4 x 3 pixels, from two latents of clearly different weight."""
    rng = np.random.default_rng(seed)
    weight = np.linalg.qr(np.random.default_rng(9).standard_normal((12, 2)))[0] * [60, 35]
    x = 128 + rng.standard_normal((n, 2)) @ weight.T + 8 * rng.standard_normal((n, 12))
    return np.clip(np.rint(x), 0, 255).astype(np.uint8)


@pytest.mark.fast
def test_the_likelihood_of_ppca_is_that_of_its_normal_distribution():
    rng = np.random.default_rng(1)
    model = ppca.Linear(rng.standard_normal((6, 2)), rng.standard_normal(6), 0.7)
    x = rng.standard_normal((5, 6))
    covariance = model.weight @ model.weight.T + 0.49 * np.eye(6)
    np.testing.assert_allclose(
        model.log_likelihood(x), scipy.stats.multivariate_normal(model.mean, covariance).logpdf(x), rtol=1e-12
    )


@pytest.mark.fast
def test_the_closed_form_is_the_maximum():
    x = linear_images() / 255
    best = ppca.closed_form(x, 2)
    top = best.log_likelihood(x).mean()

    def likelihood(weight, mean, scale):
        return ppca.Linear(weight, mean, scale).log_likelihood(x).mean()

    rng = np.random.default_rng(0)
    for _ in range(20):
        step = 1e-3 * rng.standard_normal(12 * 3 + 1)
        moved = (best.weight + step[:24].reshape(12, 2), best.mean + step[24:36], best.scale * math.exp(step[36]))
        back = (best.weight - step[:24].reshape(12, 2), best.mean - step[24:36], best.scale * math.exp(-step[36]))
        assert likelihood(*moved) < top and likelihood(*back) < top
        slope = (likelihood(*moved) - likelihood(*back)) / 2  # of third order in the step
        assert abs(slope) < 0.05 * (top - likelihood(*moved))


def test_the_angle_between_spaces_is_the_largest():
    a = np.eye(5)[:, :2]
    b = np.stack([np.eye(5)[0], [0, math.cos(0.3), math.sin(0.3), 0, 0]], axis=1)
    assert ppca.angle(a, b @ [[1.0, 2.0], [0.0, 3.0]]) == pytest.approx(math.degrees(0.3))
    assert ppca.angle(a, 2 * a) < 1e-6


def exact_posterior(best):
    """The parameters at the maximum of the likelihood: there the columns are orthogonal, and the posterior is
    diagonal."""
    precision = np.sum(best.weight**2, axis=0) + best.scale**2
    params = {
        "weight": best.weight,
        "mean": best.mean,
        "log_scale": np.array(math.log(best.scale)),
        "guide": best.weight / precision,
    }
    return {**params, "log_width": np.log(best.scale / np.sqrt(precision))}


def test_at_the_posterior_every_weight_is_the_likelihood():
    pixels = linear_images()
    x, rng, model = pixels / 255, np.random.default_rng(0), ppca.PPCA(2)
    model.initial(pixels, rng)
    params = exact_posterior(model.best)
    exact = model.best.log_likelihood(x)
    np.testing.assert_allclose(model.log_weights(params, x, rng), exact, rtol=0, atol=1e-9)
    expected = means(model, params, x, 0, rows=3000)
    # of the ELBO: it is at its maximum too
    assert all((np.abs(g) <= 7 * error + 1e-9).all() for g, error in expected.values())


def test_bounds_grow_with_the_samples_and_stay_below_the_likelihood():
    pixels = linear_images()
    x, rng, model = pixels / 255, np.random.default_rng(0), ppca.PPCA(2, widen=3.0)
    model.initial(pixels, rng)
    exact = float(model.best.log_likelihood(x).mean())
    bounds = [float(b.mean()) for b in model.bounds(exact_posterior(model.best), x, rng).values()]
    assert all(a < b for a, b in zip(bounds, [*bounds[1:], exact], strict=True))
    # KL(N(m, 9 v) || N(m, v)) = (9 - 1) / 2 - log 3 for each latent
    assert bounds[0] == pytest.approx(exact - 2 * (4 - math.log(3)), abs=0.05)
    assert exact - bounds[-1] < 0.05


def test_ppca_is_learned_from_its_elbo():
    pixels = linear_images(400).reshape(-1, 4, 3)
    images, model = digits.Images("linear", pixels, linear_images(200, 1).reshape(-1, 4, 3)), ppca.PPCA(2)
    trainer = training.Trainer(model, images, 0, 50, 0.02, 0.98, "none")
    for _ in range(60):
        entry = trainer.epoch()
    report = model.report(trainer.average.params, trainer.held, np.random.default_rng(0))
    assert entry["degrees"] < 2 and report["largest angle between the subspaces"].value < 2
    best, learned = (report[f"held-out log-likelihood, {name}"].value for name in ("closed form", "learned"))
    assert abs(learned - best) < 0.2 and 0 <= report["below it: ELBO"].value < 0.2


# the variational autoencoder


class Silent(Estimator):
    """An estimator that forgets what the draw contributes."""


SMALL = np.random.default_rng(5).integers(0, 256, (4, 5), dtype=np.uint8)


@pytest.fixture(scope="module")
def reference():
    """The mean gradient of a small VAE by the default estimator, with its parameters and rows."""
    rng, model = np.random.default_rng(0), vae.VAE([3], 2)
    params, x = start(model, SMALL, rng), np.float64(training.binarise(SMALL, rng))
    return params, x, means(model, params, x, 0)


@pytest.mark.parametrize(
    "estimator, kl",
    [
        ("pathwise", "sampled"),
        ("score", "analytic"),
        ("score", "sampled"),
        ("score+baseline", "analytic"),
        ("stl", "sampled"),
    ],
)
def test_every_estimator_has_the_same_mean(reference, estimator, kl):
    params, x, expected = reference
    assert apart(means(vae.VAE([3], 2, estimator=estimator, kl=kl), params, x, 1), expected) < 7


@pytest.mark.parametrize("estimator, name", [("pathwise", "pathwise"), ("stl", "sticking the landing")])
def test_the_sampled_gradients_are_those_of_the_package(reference, estimator, name):
    params, x, _ = reference
    model = vae.VAE([3], 2, estimator=estimator, kl="sampled")

    def cost(params, x, rng):
        def log_p(z):
            return np.sum(model.likelihood(params, z).log_prob(x), axis=-1) + np.sum(model.prior.log_prob(z), axis=-1)

        return -np.mean(
            objectives.elbo(log_p, guide=dist.Independent(model.posterior(params, x), 1), rng=rng, gradient=name)
        )

    close(gradient(model, params, x, 4)[1], scg.grad(cost)(params, x, rng=np.random.default_rng(4)), 1e-11)


def test_an_estimator_with_another_mean_is_noticed(reference, monkeypatch):
    params, x, expected = reference
    monkeypatch.setitem(vae.ESTIMATORS, "score", Silent())
    assert apart(means(vae.VAE([3], 2, estimator="score"), params, x, 1), expected, "encoder") > 20


@pytest.mark.fast
def test_gaussian_pixels_have_their_density():
    rng, model = np.random.default_rng(1), vae.VAE([4], 2, decoder="gaussian")
    params, x = start(model, SMALL, rng, 0.1), SMALL / 255
    z = rng.standard_normal((4, 2))
    distribution = model.likelihood(params, z)
    scale = 0.05 + np.exp(params["log_scale"])
    np.testing.assert_allclose(
        distribution.log_prob(x), scipy.stats.norm(distribution.mean, scale).logpdf(x), rtol=1e-12
    )
    assert np.abs(gradient(model, params, x, 0)[1]["log_scale"]).min() > 0
    held = model.log_weights(params, x, np.random.default_rng(3))
    assert held.shape == (4,) and np.isfinite(held).all()


@pytest.mark.parametrize(
    "main, argv, words",
    [
        (vae.main, ["--binarise", "none"], "black and white"),
        (vae.main, ["--estimator", "stl", "--kl", "analytic"], "--kl sampled"),
        (iwae.main, ["--binarise", "none"], "black and white"),
        (iwae.main, ["--latents", "4", "5"], "1 stochastic layers, got 4 5"),
        (iwae.main, ["--layers", "2", "--hidden", "4"], "2 stochastic layers, got 4"),
        (iwae.main, ["--gradient", "vimco", "--k", "1"], "--k 2 or more"),
        (iwae.main, ["--bound", "elbo", "--gradient", "dreg"], "pathwise, stl, score"),
        (ppca.main, ["--latents", "784"], "784"),
    ],
)
def test_what_cannot_be_is_told_in_a_line(main, argv, words, tmp_path, capsys):
    assert main([*argv, "--out", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and words in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


# the importance-weighted autoencoder


def layered(layers, gradient="pathwise", k=3, bound="iwae"):
    latents, hidden = (([2], [3]), ([3, 2], [4, 3]))[layers - 1]
    return iwae.IWAE(latents, hidden, k, gradient, bound)


def problem(layers, seed=0):
    rng, model = np.random.default_rng(seed), layered(layers)
    return start(model, SMALL, rng), np.float64(training.binarise(SMALL, rng))


NAMES = {
    "pathwise": "pathwise",
    "dreg": "doubly reparameterized",
    "stl": "sticking the landing",
    "score": "score function",
    "vimco": "VIMCO",
}


@pytest.mark.parametrize("name", NAMES)
def test_with_one_layer_the_gradients_are_those_of_the_package(name):
    params, x = problem(1)
    model = layered(1, name)

    def cost(params, x, rng):
        guide = dist.Independent(iwae.normal(params["encoder"][0], x), 1)
        return -np.mean(
            objectives.iwae(
                lambda z: model.log_p(params["decoder"], x, [z]), guide=guide, samples=3, rng=rng, gradient=NAMES[name]
            )
        )

    value, expected = scg.value_and_grad(cost)(params, x, rng=np.random.default_rng(4))
    found = gradient(model, params, x, 4)
    assert abs(found[0] - value) < 1e-12
    close(found[1], expected, 1e-11)


def test_reweighted_wake_sleep_has_the_gradients_of_its_two_phases():
    params, x = problem(1)

    def cost(params, x, rng):
        guide = dist.Independent(iwae.normal(params["encoder"][0], x), 1)
        z, model = guide.sample(rng, 3), layered(1)
        of_z = lambda z: model.log_p(params["decoder"], x, [z])
        return -np.mean(objectives.wake_theta(of_z, guide, z) + objectives.wake_phi(of_z, guide, z))

    close(gradient(layered(1, "rws"), params, x, 4)[1], scg.grad(cost)(params, x, rng=np.random.default_rng(4)), 1e-11)


def test_with_two_layers_the_unbiased_gradients_agree_and_the_others_do_not():
    params, x = problem(2)
    expected = means(layered(2), params, x, 0)
    for name in ("dreg", "score", "vimco"):
        assert apart(means(layered(2, name), params, x, 1), expected) < 7, name
    for name in ("stl", "rws"):
        found = means(layered(2, name), params, x, 1)
        assert apart(found, expected, "decoder") < 7 < 10 < apart(found, expected, "encoder"), name


def test_the_elbo_of_many_draws_has_the_mean_of_that_of_one():
    params, x = problem(2)
    assert apart(means(layered(2, k=4, bound="elbo"), params, x, 1), means(layered(2, k=1), params, x, 0)) < 7


def test_the_weights_of_two_layers_have_the_evidence_as_their_mean():
    rng, model = np.random.default_rng(2), iwae.IWAE([1, 1], [3, 3])
    params, x = start(model, SMALL, rng, 0.1), np.float64(training.binarise(SMALL, rng))
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    weights = weights / weights.sum()
    above = np.repeat(nodes, 60)[:, None]
    inner = iwae.normal(params["decoder"][1], above)
    below = inner.mean + inner.std * np.tile(nodes, 60)[:, None]
    likelihood = np.sum(model.likelihood(params["decoder"], below[:, None]).log_prob(x), axis=-1)
    evidence = np.outer(weights, weights).ravel() @ np.exp(likelihood)
    ratios = (
        np.stack(
            [np.exp(model.log_weights(params, np.tile(x, (500, 1)), rng)).reshape(500, -1) for _ in range(20)]
        ).reshape(-1, 4)
        / evidence
    )
    assert (np.abs(ratios.mean(axis=0) - 1) < 6 * ratios.std(axis=0) / math.sqrt(len(ratios))).all()


def test_posterior_means_of_the_upper_layer_are_over_the_lower_one():
    rng, model = np.random.default_rng(2), iwae.IWAE([1, 2], [3, 3])
    params, x = start(model, SMALL, rng), np.float64(training.binarise(SMALL, rng))
    lower = iwae.normal(params["encoder"][0], x)
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    upper = [iwae.normal(params["encoder"][1], lower.mean + lower.std * node).mean for node in nodes]
    exact = np.tensordot(weights / weights.sum(), np.stack(upper), 1)
    first, second = model.means(params, x, rng, 3000)
    np.testing.assert_allclose(first, lower.mean, rtol=1e-12)
    error = np.sqrt(np.tensordot(weights / weights.sum(), (np.stack(upper) - exact) ** 2, 1) / 3000)
    assert (np.abs(second - exact) <= 6 * error).all()


# what is said at the end


def test_the_streamed_bounds_are_the_whole_ones():
    rng = np.random.default_rng(0)
    table = rng.standard_normal((40, 7))
    passed = [iter(table[:, :3]), iter(table[:, 3:6]), iter(table[:, 6:])]
    x = np.arange(7)[:, None]
    elbo, bound = evaluation.bounds(lambda rows: next(passed[rows[0, 0] // 3]), x, 40, rows=3)
    np.testing.assert_allclose(elbo, table.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(bound, np.log(np.mean(np.exp(table), axis=0)), rtol=1e-12)


def test_a_long_evaluation_says_how_to_shorten_it_and_how_far_it_is(capsys, monkeypatch):
    clock = itertools.count(0.0, 0.01)  # seconds, a hundredth for each look at it
    monkeypatch.setattr(evaluation.time, "monotonic", lambda: next(clock))
    evaluation.results(lambda rows: np.zeros(len(rows)), np.zeros((320, 1)), 1500)
    first, *lines = capsys.readouterr().out.splitlines()
    assert first.startswith("1500 draws for each: --evaluate K")
    assert [line.split() for line in lines] == [
        ["evaluated", "52%", "0:09", "left"],
        ["evaluated", "85%", "0:03", "left"],
    ]
    done = []
    evaluation.bounds(lambda rows: np.zeros(len(rows)), np.zeros((7, 1)), 2, rows=3, tick=done.append)
    np.testing.assert_allclose(done, [1.5 / 7, 3 / 7, 4.5 / 7, 6 / 7, 6.5 / 7, 1])
    evaluation.results(lambda rows: np.zeros(len(rows)), np.zeros((3, 1)), 10)
    assert capsys.readouterr().out == ""


def test_the_learning_curve_of_few_epochs_shows_all_of_them():
    from matplotlib.figure import Figure

    figure = Figure()
    axes = figure.add_subplot()
    plots.curve(axes, [{"epoch": 1, "train": -500.0, "test": -210.0}, {"epoch": 2, "train": -180.0, "test": -179.9}])
    low, high = axes.get_ylim()
    assert low < -500 and high > -179.9 and all(tick == round(tick) for tick in axes.get_xticks())
    figure.canvas.draw()
    one, other = (text.get_window_extent() for text in axes.texts)
    assert not one.overlaps(other)


def test_the_memory_of_an_evaluation_does_not_grow_with_its_samples():
    def peak(samples):
        tracemalloc.start()
        evaluation.bounds(lambda rows: rng.standard_normal(len(rows)), np.zeros((1000, 1)), samples)
        try:
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    rng = np.random.default_rng(0)
    assert peak(400) < 1.5 * peak(4)


def test_active_units_are_those_whose_means_move():
    rng = np.random.default_rng(0)
    assert evaluation.active(rng.standard_normal((2000, 4)) * [1, 0.2, 0.05, 0]) == 2
