"""The switching state-space model: sums over all paths, the posterior as guide, costs-to-go by hand, and runs."""

import itertools
import json
import math

import numpy as np
import pytest

import scg
from examples import sequence as example
from scg import distributions as dist
from scg import nn
from scg.core.tree import leaves, map_leaves
from scg.special import log_softmax, logsumexp
from tests.support.examples import outcome, told

SMALL = ["--regimes", "3", "--state", "1", "--hidden", "5", "--batch", "20", "--replicates", "2", "--evaluate", "30"]


def run(data, out, *more):
    return example.main(["--data", data, "--out", str(out), *SMALL, *map(str, more)])


def small(steps=4, width=2, regimes=3, state=0, estimator="score", seed=0, rows=2):
    """A model with parameters in float64, off their beginning, and some sequences."""
    rng = np.random.default_rng(seed)
    model = example.Switching(width, regimes, state, 4, estimator)
    params = model.initial(rng.integers(20, 230, (9, steps * width), dtype=np.uint8), rng)
    params = map_leaves(lambda w: np.float64(w) + 0.5 * rng.standard_normal(w.shape), params)
    return model, params, rng.integers(0, 2, (rows, steps * width)).astype(float)


def paths(steps, regimes):
    return list(itertools.product(range(regimes), repeat=steps))


def log_guide(model, params, x, path):
    """log q(s | x) of a path, for each sequence."""
    h = nn.apply(params["encoder"]["network"], x).reshape(len(x), len(path), -1)
    total = 0
    for t, k in enumerate(path):
        total = total + log_softmax(h[:, t, : model.regimes] + (params["switch"][path[t - 1]] if t else 0), -1)[:, k]
    return total


def log_joint(params, table, path):
    """log p(x, s | ...) of a path by its table of local terms."""
    p = params["decoder"]
    first, transition = log_softmax(p["first"], -1), log_softmax(p["transition"], -1)
    return (
        first[path[0]]
        + sum(transition[a, b] for a, b in itertools.pairwise(path))
        + sum(table[:, t, k] for t, k in enumerate(path))
    )


def table_by_hand(params, x, width, regimes):
    p, rows = params["decoder"], x.reshape(len(x), -1, width)
    return np.stack([dist.Bernoulli(logits=p["emission"][k]).log_prob(rows).sum(-1) for k in range(regimes)], axis=-1)


# sums over paths


def test_the_forward_algorithm_is_the_sum_over_all_paths():
    model, params, x = small()
    table = table_by_hand(params, x, 2, 3)
    expected = logsumexp(np.stack([log_joint(params, table, path) for path in paths(4, 3)]), axis=0)
    np.testing.assert_allclose(model.marginal(params, x, None), expected, rtol=1e-12)


@pytest.mark.parametrize("state", [0, 1])
def test_regimes_that_are_summed_out_give_the_forward_algorithm_and_its_gradient(state):
    model, params, x = small(state=state, rows=3)
    with_gradient = lambda fn: scg.value_and_grad(lambda p: np.mean(fn(p, x, np.random.default_rng(0))))(params)
    (value, gradient), (expected, slope) = with_gradient(model.summed_out), with_gradient(model.marginal)
    assert value == pytest.approx(expected, rel=1e-12)
    for (path, g), (_, e) in zip(leaves(gradient), leaves(slope), strict=True):
        np.testing.assert_allclose(g, e, rtol=1e-10, atol=1e-10, err_msg=path)


def test_the_likelihood_is_a_distribution_over_sequences():
    model, params, _ = small(steps=2)
    x = np.array(list(itertools.product((0.0, 1.0), repeat=4)))
    assert np.exp(model.marginal(params, x, None)).sum() == pytest.approx(1, rel=1e-12)


def test_the_elbo_is_exact_by_enumeration_and_below_the_likelihood():
    """On a short sequence scg.exact agrees with the sum over all paths, of the bound and of its gradient."""
    model, params, x = small(steps=3)

    def summed(params):
        table = x.reshape(len(x), 3, 2) @ np.transpose(params["decoder"]["emission"])
        table = table - np.sum(scg.special.softplus(params["decoder"]["emission"]), axis=-1)
        total = 0
        for path in paths(3, 3):
            log_q = log_guide(model, params, x, path)
            total = total + np.exp(log_q) * (log_joint(params, table, path) - log_q)
        return -np.mean(total)

    graph = scg.trace(model.cost, params, x, rng=np.random.default_rng(0))
    value, gradient = scg.value_and_grad(summed)(params)
    assert list(graph.stochastic) == ["s1", "s2", "s3"]
    assert scg.exact.expectation(graph) == pytest.approx(float(value), rel=1e-10)
    found = scg.exact.gradient(graph)
    for (path, g), (_, e) in zip(leaves(found), leaves(gradient), strict=True):
        np.testing.assert_allclose(g, e, rtol=0, atol=1e-10, err_msg=path)
    assert -float(value) < np.mean(model.marginal(params, x, None)) - 0.01


def test_with_the_posterior_as_guide_every_draw_gives_the_exact_likelihood():
    """log p(x_t, ..., x_T | s_t) as features, and the model's transitions: then q(s | x) = p(s | x), and log w = log
    p(x) whatever is drawn."""
    model, params, x = small(steps=6, regimes=4, rows=5)
    p, table = params["decoder"], table_by_hand(params, x, 2, 4)
    transition, back = log_softmax(p["transition"], -1), [table[:, -1]]
    for t in reversed(range(5)):
        back.append(table[:, t] + logsumexp(transition + back[-1][:, None], axis=-1))
    h = np.stack(back[::-1], axis=1)
    h[:, 0] += log_softmax(p["first"], -1)
    (_, _), (last, _) = params["encoder"]["network"]
    network = [
        nn.Layer(np.zeros((x.shape[1], len(last))), np.zeros(len(last))),
        nn.Layer(np.zeros_like(last), np.zeros(24)),
    ]
    exact = model.marginal(params, x, None)
    for row in range(5):
        guide = {"network": [network[0], network[1]._replace(bias=h[row].ravel())]}
        for seed in range(3):
            found = model.log_weights(
                {**params, "encoder": guide, "switch": transition}, x[row : row + 1], np.random.default_rng(seed)
            )
            assert found[0] == pytest.approx(exact[row], rel=1e-12)


# states


def test_local_terms_are_the_densities_of_rows_and_states(monkeypatch):
    model, params, x = small(state=2, rows=3)
    seen, real = [], scg.sample
    monkeypatch.setattr(example.scg, "sample", lambda *args, **more: seen.append(real(*args, **more)) or seen[-1])
    _, table, log_q = model.states(params["decoder"], params["encoder"], x, np.random.default_rng(0))
    z = np.stack([node.value if type(node) is scg.Node else node for node in seen])  # (T, rows, d)
    p, q = params["decoder"], params["encoder"]
    h = nn.apply(q["network"], x).reshape(3, 4, -1)
    for t in range(4):
        before = z[t - 1] if t else np.zeros_like(z[0])
        for k in range(3):
            row = (
                dist.Bernoulli(logits=p["emission"][k] + z[t] @ p["loading"]).log_prob(x[:, 2 * t : 2 * t + 2]).sum(-1)
            )
            move = (
                dist.Normal(before @ p["dynamics"][k] + p["shift"][k], np.exp(p["log_scale"][k])).log_prob(z[t]).sum(-1)
            )
            np.testing.assert_allclose(getattr(table, "value", table)[:, t, k], row + move, rtol=1e-10)
        distribution = dist.Normal(h[:, t, 3:5] + before @ q["carry"], np.exp(h[:, t, 5:]))
        log_q = log_q - distribution.log_prob(z[t]).sum(-1)
    np.testing.assert_allclose(getattr(log_q, "value", log_q), 0, atol=1e-10)


def test_summing_the_regimes_out_raises_the_bound_for_each_draw_of_the_states():
    model, params, x = small(state=1, rows=1)
    summed = model.marginal_weights(params, x, np.random.default_rng(3))  # the states are drawn first: the same ones
    single = np.array([model.log_weights(params, x, rng)[0] for rng in fixed_states(model, params, x, 3, 400)])
    assert single.mean() + 4 * single.std(ddof=1) / 20 < summed[0]  # Jensen
    ratios = np.exp(single - summed[0])
    assert abs(ratios.mean() - 1) < 5 * ratios.std(ddof=1) / 20  # and the weights have it as their mean


def fixed_states(model, params, x, seed, number):
    """Generators that give the states of one seed and regimes of their own."""
    used = np.random.default_rng(seed)
    model.states(params["decoder"], params["encoder"], x, used)

    class Two(np.random.Generator):
        def __init__(self, other):
            super().__init__(np.random.PCG64(seed))
            self.other = np.random.default_rng(other)

        def random(self, *args, **more):
            return self.other.random(*args, **more)

    return [Two(1000 + i) for i in range(number)]


# the cost-to-go


def test_every_regime_meets_its_own_and_later_terms_only():
    """The engine's gradient is the one with sums from t on written out, from the same draws; with the total cost it is
    another."""
    model, params, x = small(steps=5, state=1, rows=3)
    total, _, _ = small(steps=5, state=1, rows=3, estimator="total")

    def by_hand(params, rng):
        p = params["decoder"]
        h, table, log_q_z = model.states(p, params["encoder"], x, rng)
        first, transition, s, own, scores = log_softmax(p["first"], -1), log_softmax(p["transition"], -1), None, [], []
        for t in range(5):
            distribution = dist.OneHotCategorical(logits=h[:, t, :3] + (0 if s is None else s @ params["switch"]))
            arrival = first if s is None else s @ transition
            s = distribution.stop_gradient().sample(rng)
            scores.append(np.sum(s * distribution.log_p, axis=-1))
            own.append(np.sum(s * (arrival + table[:, t]), axis=-1) - scores[-1])
        value = sum(own) - log_q_z
        for t, score in enumerate(scores):
            value = value + scg.stop_gradient(sum(own[t:])) * (score - scg.stop_gradient(score))
        return -np.mean(value)

    value, expected = scg.value_and_grad(by_hand)(params, np.random.default_rng(4))
    same, found = scg.value_and_grad(model.cost)(params, x, np.random.default_rng(4))
    also, other = scg.value_and_grad(total.cost)(params, x, np.random.default_rng(4))
    assert float(same) == pytest.approx(float(value), rel=1e-12) and float(also) == pytest.approx(
        float(value), rel=1e-12
    )
    for (path, g), (_, e) in zip(leaves(found), leaves(expected), strict=True):
        np.testing.assert_allclose(g, e, rtol=0, atol=1e-10, err_msg=path)
    assert not np.allclose(other["switch"], expected["switch"], rtol=0.01)


def test_the_total_cost_has_the_same_mean_and_more_variance():
    """A row of costs that do not matter any more is only noise: for the last regime all but its own."""
    found = {}
    for name in ("score", "total"):
        model, params, x = small(steps=6, estimator=name, rows=1)
        gradient = scg.grad(
            lambda switch, rng, model=model, params=params, x=x: model.cost(
                {**params, "switch": switch}, np.tile(x, (200, 1)), rng
            )
        )
        found[name] = np.stack([gradient(params["switch"], np.random.default_rng(seed)) for seed in range(60)])
    difference = found["score"].mean(0) - found["total"].mean(0)
    error = np.sqrt(sum(g.var(0, ddof=1) / 60 for g in found.values()))
    assert (np.abs(difference) < 6 * error).all()  # nine coordinates, Student's t: once in a million
    ratio = found["total"].var(0).sum() / found["score"].var(0).sum()
    assert ratio > 1.5  # measured: 3; the ratio of two variances with 59 degrees deviates by a fifth at most


@pytest.mark.parametrize(
    "name", [name for name in example.ESTIMATORS if name not in ("gumbel", "st", "reinmax", "total", "marginal")]
)
def test_unbiased_estimators_agree_with_enumeration(name):
    model, params, x = small(steps=3, regimes=2, estimator=name, rows=1)
    exact = scg.exact.gradient(
        scg.trace(small(steps=3, regimes=2, rows=1)[0].cost, params, x, rng=np.random.default_rng(0))
    )
    gradient, rng, tiled = scg.grad(model.cost), np.random.default_rng(1), np.tile(x, (150, 1))
    found = [dict(leaves(gradient(params, tiled, rng))) for _ in range(30)]
    for path, e in leaves(exact):
        g = np.stack([f[path] for f in found])
        # Student's t: once in 1e8
        assert (np.abs(g.mean(axis=0) - e) < 8 * g.std(axis=0, ddof=1) / math.sqrt(30) + 1e-9).all(), path


# runs


@pytest.mark.parametrize("name", example.ESTIMATORS)
def test_every_estimator_trains_by_name(name, data, tmp_path):
    state = int(name in ("score", "marginal", "st"))
    assert run(data, tmp_path, "--epochs", 2, "--estimator", name, "--state", state) == 0
    history = outcome(tmp_path)[0]
    assert history[-1]["test"] > history[0]["test"] - 1 and ("gradient variance" in history[0]) == (
        name != "marginal" or state == 1
    )
    result = {
        key: part["value"]
        for key, part in json.loads((tmp_path / "result.json").read_text()).items()
        if key != "epochs"
    }
    top = result["held-out 30-sample bound, regimes summed out" if state else "held-out log-likelihood, exact"]
    if name == "marginal":  # the regimes' guide is not trained, and nothing is said of it
        assert set(result) == {f"held-out {what}, regimes summed out" for what in ("ELBO", "30-sample bound")}
        assert history[-1]["test"] < top + 1e-6 + 2  # the bound that is trained, of one draw for each image
        return
    assert result["held-out ELBO"] < result["held-out 30-sample bound"] < top + 0.5  # of twelve images, by 30 draws
    assert result["variance with the cost-to-go"] > 0 and result["variance with the total cost"] > 0


@pytest.mark.parametrize(("name", "state"), [("score", 0), ("score", 1), ("marginal", 1)])
def test_figures_are_drawn(name, state, data, tmp_path, figures):
    assert run(data, tmp_path, "--epochs", 1, "--estimator", name, "--state", state) == 0
    assert list(tmp_path.glob("*.png"))


def test_baselines_of_all_rows_come_back_bit_for_bit(data, tmp_path):
    assert run(data, tmp_path / "whole", "--epochs", 3) == 0
    for epochs in (1, 3):
        assert run(data, tmp_path / "parts", "--epochs", epochs, "--resume") == 0
    assert outcome(tmp_path / "parts") == outcome(tmp_path / "whole")


def test_dreams_have_the_distribution_of_the_model():
    model, params, _ = small(steps=2)
    rows, regimes = model.dream(params, 20_000, 2, np.random.default_rng(0))
    p = params["decoder"]
    first, transition = np.exp(log_softmax(p["first"], -1)), np.exp(log_softmax(p["transition"], -1))
    joint = np.array([[np.mean((regimes == (a, b)).all(axis=1)) for b in range(3)] for a in range(3)])
    expected = first[:, None] * transition
    assert (np.abs(joint - expected) < 5 * np.sqrt(expected * (1 - expected) / 20_000)).all()
    np.testing.assert_allclose(rows[:, 2:], 1 / (1 + np.exp(-p["emission"][regimes[:, 1]])), rtol=1e-12)


def test_paths_are_draws_of_the_posterior_where_regimes_are_summed_out():
    """Against all paths, by the forward sum's own terms."""
    model, params, x = small(steps=3, regimes=2, estimator="marginal", rows=1)
    found = model.paths(params, np.tile(x, (5000, 1)), np.random.default_rng(0))
    p, table = params["decoder"], model.states(params["decoder"], params["encoder"], x, None)[1][0]
    first, move = log_softmax(p["first"], -1), log_softmax(p["transition"], -1)
    logs = {
        path: first[path[0]] + sum(move[a, b] for a, b in itertools.pairwise(path)) + sum(table[range(3), path])
        for path in itertools.product(range(2), repeat=3)
    }
    total = sum(math.exp(v) for v in logs.values())
    for path, log in logs.items():
        q = math.exp(log) / total
        seen = np.mean((found == path).all(axis=1))
        assert abs(seen - q) < 5 * math.sqrt(q * (1 - q) / 5000) + 1e-9


def test_paths_are_draws_of_the_guide():
    model, params, x = small(steps=3, regimes=2, rows=1)
    found = model.paths(params, np.tile(x, (5000, 1)), np.random.default_rng(0))
    for path in paths(3, 2):
        p = math.exp(log_guide(model, params, x, path)[0])
        assert abs(np.mean((found == path).all(axis=1)) - p) < 5 * math.sqrt(p * (1 - p) / 5000)


@pytest.mark.parametrize(
    "more, words",
    [
        (["--width", 7], ["--width 7", "6 x 5 = 30", "use 5"]),
        (["--regimes", 1], ["--regimes 2"]),
        (["--workers", 2], ["--workers", "score+moving"]),
        (["--binarise", "none"], ["black and white"]),
    ],
)
def test_what_does_not_fit_is_told(more, words, data, tmp_path, capsys):
    told(capsys, run(data, tmp_path / "out", *more), *words)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("state", [0, 1])
def test_particles_have_the_evidence_as_their_mean(state):
    """That of Z-hat is p(x), and so is that of the weights of which regimes are summed out."""
    model, params, x = small(steps=3, state=state, rows=2)
    rng = np.random.default_rng(1)
    z = np.exp([model.filtered(params, x, rng, 8).value for _ in range(600)])
    exact = np.exp([np.broadcast_to(model.marginal_weights(params, x, rng), 2) for _ in range(600 if state else 1)])
    error = np.hypot(np.std(z, axis=0) / np.sqrt(len(z)), np.std(exact, axis=0) / np.sqrt(len(exact)))
    assert np.all(np.abs(np.mean(z, axis=0) - np.mean(exact, axis=0)) < 5 * error)


def test_a_filter_of_particles_is_trained(tmp_path, data, capsys):
    assert run(data, tmp_path / "a", "--objective", "fivo", "--particles", 3, "--epochs", 2) == 0
    assert "held-out bound of 3 particles" in capsys.readouterr().out
    assert run(data, tmp_path / "b", "--objective", "fivo", "--estimator", "marginal", "--epochs", 1) != 0
    assert "has no --estimator marginal" in capsys.readouterr().err
