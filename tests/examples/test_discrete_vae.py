"""The discrete variational autoencoder: its formulas by enumeration, every estimator by name, what learns, and what is
refused."""

import copy
import itertools
import json
import math

import numpy as np
import pytest

import scg
from examples import discrete_vae as example
from examples import training
from scg import checkpoint
from scg import distributions as dist
from scg.core.tree import leaves, map_leaves
from scg.stochastic.estimator import Estimator
from tests.support.examples import outcome, told

SMALL = ["--latents", "4", "--hidden", "5", "--batch", "20", "--replicates", "3", "--evaluate", "200"]
RELAXED = {"gumbel", "gumbel+hard", "gumbel+rao-blackwell", "st", "st+gap", "st+decoupled", "reinmax"}


def run(data, out, *more):
    return example.main(["--data", data, "--out", str(out), *SMALL, *map(str, more)])


def small(estimator="score", latents=3, pixels=4, seed=0, **more):
    """A model with parameters in float64, off their beginning, and three images."""
    rng = np.random.default_rng(seed)
    model = example.DiscreteVAE(latents, estimator, batch=3, **more)
    params = model.initial(rng.integers(20, 230, (9, pixels), dtype=np.uint8), rng)
    params = map_leaves(lambda w: np.float64(w) + 0.7 * rng.standard_normal(w.shape), params)
    return model, params, rng.integers(0, 2, (3, pixels)).astype(float)


def every(n):
    return np.array(list(itertools.product((0.0, 1.0), repeat=n)))


def by_hand(model, params, x):
    """(log p(z), log q(z | x), log p(x | z)) for all z, of shapes (2^n,), (rows, 2^n) and (rows, 2^n)."""
    z = every(model.latents)
    prior = dist.Bernoulli(logits=params["prior"]).log_prob(z).sum(-1)
    q = model.posterior(params, x[:, None])
    return prior, q.log_prob(z).sum(-1), model.likelihood(params, z).log_prob(x[:, None]).sum(-1)


# the model


def test_the_evidence_is_a_distribution_over_images():
    model, params, _ = small()
    assert np.exp(model.log_evidence(params, every(4))).sum() == pytest.approx(1, rel=1e-12)


def test_the_exact_bound_is_the_mean_over_all_latents_and_below_the_evidence():
    model, params, x = small("exact")
    prior, log_q, likelihood = by_hand(model, params, x)
    expected = np.sum(np.exp(log_q) * (prior + likelihood - log_q), axis=-1)
    np.testing.assert_allclose(model.exact_elbo(params, x), expected, rtol=1e-12)
    assert (expected < model.log_evidence(params, x)).all()
    np.testing.assert_allclose(model.log_evidence(params, x), np.log(np.exp(prior + likelihood).sum(-1)), rtol=1e-12)


def test_the_sampled_bound_has_the_exact_mean_and_gradient():
    model, params, x = small("score")
    graph = scg.trace(model.cost, params, x, rng=np.random.default_rng(0))
    exact, _, _ = small("exact")
    value, gradient = scg.value_and_grad(exact.cost)(params, x, np.random.default_rng(0))
    assert scg.exact.expectation(graph) == pytest.approx(float(value), rel=1e-10)
    for (path, g), (_, e) in zip(leaves(scg.exact.gradient(graph)), leaves(gradient), strict=True):
        np.testing.assert_allclose(g, e, rtol=0, atol=1e-10, err_msg=path)


def test_vimco_raises_the_bound_of_several_draws():
    model, params, x = small("vimco", latents=2, k=2)
    prior, log_q, likelihood = by_hand(model, params, x)
    log_w = prior + likelihood - log_q
    pairs = np.logaddexp(log_w[:, :, None], log_w[:, None, :]) - math.log(2)
    expected = np.sum(np.exp(log_q[:, :, None] + log_q[:, None, :]) * pairs)
    graph = scg.trace(lambda p, rng: np.sum(model.bound(p, x, rng)), params, rng=np.random.default_rng(0))
    assert scg.exact.expectation(graph) == pytest.approx(expected, rel=1e-10)
    step = 1e-6
    moments = scg.exact.moments(graph).mean["prior"]
    for i in range(2):
        ends = []
        for sign in (1, -1):
            moved = {**params, "prior": params["prior"] + sign * step * np.eye(2)[i]}
            p, q, l = by_hand(model, moved, x)
            w = p + l - q
            ends.append(
                np.sum(
                    np.exp(q[:, :, None] + q[:, None, :]) * (np.logaddexp(w[:, :, None], w[:, None, :]) - math.log(2))
                )
            )
        assert moments[i] == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-6, abs=1e-8)


# the estimators


def test_every_estimator_of_the_package_that_takes_a_coin_is_there():
    start = example.Start(np.full(6, 0.4), 3, 2, 5, np.random.default_rng(0))
    made = [make(start) for make in example.ESTIMATORS.values()]
    known = {type(estimator) for estimator in made}
    baselines = {type(estimator.baseline) for estimator in made if isinstance(estimator, scg.ScoreFunction)} | {
        type(estimator) for estimator in made if isinstance(estimator, scg.Learned)
    }
    exported = [getattr(scg.estimators, name) for name in scg.estimators.__all__]
    with pytest.raises(scg.ScgError):
        scg.Reparameterized().check(dist.Bernoulli(logits=0.0), "b")  # the one that takes none
    assert {cls for cls in exported if issubclass(cls, Estimator)} - known == {scg.Reparameterized}
    assert {cls for cls in exported if issubclass(cls, scg.Baseline)} - {scg.Baseline} == baselines - {type(None)}
    assert {
        name for name, estimator in zip(example.ESTIMATORS, made, strict=True) if getattr(estimator, "state", {})
    } == set(example.LEARNING)


@pytest.mark.parametrize("name", [name for name in example.ESTIMATORS if name not in RELAXED])
def test_unbiased_estimators_agree_with_the_sum_over_all_latents(name):
    """Many copies of the same images: each row is a replicate. Student's t with 39 degrees: above 7 once in 5e7
    coordinates."""
    model, params, x = small(name, k=2)
    truth = small("exact")[0]
    if name == "vimco":
        params = {**params, "encoder": map_leaves(np.zeros_like, params["encoder"])}

        def cost(p, x, rng):  # the mean over pairs of draws
            prior, _, likelihood = (truth.every(p, x)[1], None, truth.every(p, x)[2])
            logits = scg.nn.apply(p["encoder"], x)
            z = every(3)
            log_q = logits @ z.T - np.sum(scg.special.softplus(logits), axis=-1, keepdims=True)
            w = prior + likelihood - log_q
            pairs = np.logaddexp(w[:, :, None], w[:, None, :]) - math.log(2)
            return -np.mean(np.sum(np.exp(log_q[:, :, None] + log_q[:, None, :]) * pairs, axis=(1, 2)))

    else:
        cost = truth.cost
    expected = dict(leaves(scg.grad(cost)(params, x, np.random.default_rng(0))))
    tiled, rng = np.tile(x, (60, 1)), np.random.default_rng(1)
    gradient = scg.grad(model.cost)
    found = [dict(leaves(gradient(params, tiled, rng))) for _ in range(40)]
    for path, e in expected.items():
        g = np.stack([f[path] for f in found])
        error = g.std(axis=0, ddof=1) / math.sqrt(len(g))
        assert (np.abs(g.mean(axis=0) - e) < 7 * error + 1e-9).all(), (name, path)


@pytest.mark.parametrize("name", example.ESTIMATORS)
def test_every_estimator_trains_by_name(name, data, tmp_path):
    assert run(data, tmp_path, "--epochs", 3, "--estimator", name, "--learning-rate", 0.02) == 0
    history = outcome(tmp_path)[0]
    assert history[-1]["test"] > history[0]["test"] - 0.2
    assert (history[0]["gradient variance"] > 0) == (name not in ("exact", "marginalize"))
    result = json.loads((tmp_path / "result.json").read_text())
    elbo, bound, exact = (
        result[f"held-out {part}"]["value"] for part in ("ELBO", "200-sample bound", "log-likelihood, exact")
    )
    assert elbo < bound < exact + 0.1  # 2,400 weights, whose logarithms deviate by half a nat


@pytest.mark.parametrize("name", ["score", "exact", "gumbel"])
def test_figures_are_drawn(name, data, tmp_path, figures):
    assert run(data, tmp_path, "--epochs", 1, "--estimator", name) == 0
    assert list(tmp_path.glob("*.png"))


@pytest.mark.parametrize("name", example.LEARNING)
def test_what_an_estimator_has_learned_comes_back_bit_for_bit(name, data, tmp_path):
    assert run(data, tmp_path / "whole", "--epochs", 4, "--estimator", name) == 0
    for epochs in (1, 3, 4):
        assert run(data, tmp_path / "parts", "--epochs", epochs, "--estimator", name, "--resume") == 0
    assert outcome(tmp_path / "parts") == outcome(tmp_path / "whole")
    assert leaves(checkpoint.load(tmp_path / "whole" / "checkpoint.npz")["model"])


def test_a_relaxed_model_is_tested_with_coins():
    relaxed, params, x = small("gumbel")
    assert relaxed.test(params, x, np.random.default_rng(5)) == small("disarm")[0].test(
        params, x, np.random.default_rng(5)
    )
    z = []
    likelihood = relaxed.likelihood
    relaxed.likelihood = lambda p, value: z.append(value) or likelihood(p, value)
    relaxed.test(params, x, np.random.default_rng(5))
    assert set(np.unique(z[0].value if type(z[0]) is scg.Node else z[0])) <= {0.0, 1.0}


def test_more_networks_on_both_sides():
    options = example.parser().parse_args(["--encoder", "nonlinear", "--hidden", "7"])
    model = example.make(options)
    params = model.initial(np.full((4, 6), 90, np.uint8), np.random.default_rng(0))
    assert options.decoder == "nonlinear" and [w.shape for w, _ in params["encoder"]] == [(6, 7), (7, 7), (7, 200)]
    assert [w.shape for w, _ in params["decoder"]] == [(200, 7), (7, 7), (7, 6)]
    mixed = example.make(example.parser().parse_args(["--encoder", "nonlinear", "--decoder", "linear"]))
    assert len(mixed.initial(np.full((4, 6), 90, np.uint8), np.random.default_rng(0))["decoder"]) == 1


# the variance


def test_the_variance_is_that_of_the_gradients_on_the_way():
    model, params, x = small("disarm")
    found, rng, same = (
        example.gradient_variance(model, params, x, np.random.default_rng(7), 4),
        np.random.default_rng(7),
        [],
    )
    for _ in range(4):
        gradient = scg.grad(lambda encoder: model.cost({**params, "encoder": encoder}, x, rng))(params["encoder"])
        same.append(np.concatenate([g.ravel() for _, g in leaves(gradient)]))
    assert found == pytest.approx(np.var(same, axis=0, ddof=1).mean(), rel=1e-10)


@pytest.mark.parametrize("name", ["score", "score+constant"])
def test_the_variance_is_the_exact_one_on_average(name):
    model, params, x = small(name, latents=2, pixels=3)
    graph = scg.trace(
        lambda encoder, rng: model.cost({**params, "encoder": encoder}, x, rng),
        params["encoder"],
        rng=np.random.default_rng(0),
    )
    variances = np.concatenate([v.ravel() for _, v in leaves(scg.exact.moments(graph).variance)])
    found = np.array(
        [example.gradient_variance(model, params, x, np.random.default_rng(seed), 5) for seed in range(40)]
    )
    assert abs(found.mean() - variances.mean()) < 5 * found.std(ddof=1) / math.sqrt(len(found))  # once in 2e6


def test_what_is_measured_teaches_nothing():
    for name in example.LEARNING:
        model, params, x = small(name)
        for seed in range(3):
            scg.grad(model.cost)(params, x, np.random.default_rng(seed))
        before = dict(leaves(model.state))
        before = {path: np.array(value) for path, value in before.items()}
        assert example.gradient_variance(model, params, x, np.random.default_rng(0), 4) > 0
        after = dict(leaves(model.state))
        assert all(np.array_equal(before[path], after[path]) for path in before), name


# what learns has a state


@pytest.mark.parametrize("name", example.LEARNING)
def test_a_state_goes_on_as_its_owner_does_and_reading_it_changes_nothing(name):
    def estimates(model, seeds):
        return [
            np.concatenate(
                [g.ravel() for _, g in leaves(scg.grad(model.cost)(params, x, np.random.default_rng(seed)))]
            ).tobytes()
            for seed in seeds
        ]

    one, params, x = small(name)
    unread, _, _ = small(name)
    first = estimates(one, range(3))
    state = copy.deepcopy(one.state)
    other = small(name, seed=0)[0]
    other.state = state
    later = estimates(one, range(3, 6))
    assert first == estimates(unread, range(3)) and later == estimates(unread, range(3, 6))
    assert later == estimates(other, range(3, 6)) != estimates(small(name)[0], range(3, 6))


def test_another_state_is_refused():
    for baseline in (scg.MovingAverage(), scg.Optimal()):
        with pytest.raises(scg.ScgError, match=f"state of {type(baseline).__name__} has the entries"):
            baseline.state = {"other": 1.0}
    assert scg.ScoreFunction().state == {} == scg.DisARM().state == scg.Constant(1.0).state == scg.REBAR().state


# refusals


@pytest.mark.parametrize(
    "more, words",
    [
        (["--estimator", "exact", "--latents", 13], ["--latents up to 12", "13", "disarm"]),
        (
            ["--estimator", "enumerate", "--latents", 200, "--batch", 100],
            ["40000", "--latents 81", "--batch 40", "disarm"],
        ),
        (["--estimator", "vimco", "--k", 1], ["--k 2 or more", "1"]),
        (["--estimator", "score+loo", "--k", 1], ["--k 2 or more"]),
        (["--estimator", "relax", "--workers", 2], ["--workers", "relax"]),
        (["--binarise", "none"], ["black and white", "dynamic"]),
    ],
)
def test_what_is_not_feasible_is_told(more, words, data, tmp_path, capsys):
    told(capsys, run(data, tmp_path / "out", *more), *words)
    assert not (tmp_path / "out").exists()


def test_an_unknown_estimator_is_told_with_all_names(capsys):
    with pytest.raises(SystemExit):
        example.main(["--estimator", "reinforce"])
    err = capsys.readouterr().err
    assert "reinforce" in err and all(name in err for name in example.ESTIMATORS)


def test_the_enumeration_that_is_let_through_is_the_largest():
    assert (
        example.make(example.parser().parse_args(["--estimator", "enumerate", "--latents", "81"])).estimator
        == "enumerate"
    )
    assert training.Model in example.DiscreteVAE.__mro__
