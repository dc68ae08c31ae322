"""The gallery: estimated gradients against exact ones, exact ones against formulas, and what a person sees."""

import xml.etree.ElementTree

import numpy as np
import pytest

import scg
from examples import gallery
from scg import distributions as dist

pytestmark = pytest.mark.fast

Z = 6.0  # a normal variable is further out once in 5e8 times


def agree(exact, mean, error):
    """Whether an estimate is within Z standard errors of the exact gradient; rounding is all that an exact estimator
    has."""
    return (np.abs(mean - exact) <= Z * error + 1e-12 * np.max(np.abs(exact))).all()


@pytest.mark.parametrize("name", gallery.ENTRIES)
def test_estimates_agree_with_the_exact_gradient(name):
    entry, rng = gallery.ENTRIES[name], np.random.default_rng(1)
    exact = entry.exact()
    assert exact.shape == entry.theta.shape and np.max(np.abs(exact)) > 0.01
    for estimator, (mean, error) in gallery.estimates(entry.graph(rng), entry.bindings, rng, 4000).items():
        assert agree(exact, mean, error), (estimator, mean, error, exact)
        assert (error < np.max(np.abs(exact))).all(), estimator  # else anything would agree
        assert not agree(exact + 1.5, mean, error), estimator


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def slope(x):
    return sigmoid(x) * sigmoid(-x)


def chain(t):
    """The derivative of E[(x1 - .2)^2 + 3 (x2 - .6)^2] for x1 ~ sigmoid(t/2), x2 ~ sigmoid(t + x1 - 1/2)."""
    f1, f2 = 0.8**2 - 0.2**2, 3 * (0.4**2 - 0.6**2)
    p, high, low = sigmoid(t / 2), sigmoid(t + 0.5), sigmoid(t - 0.5)
    return slope(t / 2) / 2 * (f1 + f2 * (high - low)) + f2 * (p * slope(t + 0.5) + (1 - p) * slope(t - 0.5))


BY_HAND = {
    "schulman-1": lambda t: slope(np.sin(t)) * np.cos(t) * (0.7**2 - 0.3**2),
    "schulman-2": lambda t: slope(t) * ((np.e - 2) ** 2 - 1),
    "schulman-3": lambda t: slope(t) * (sigmoid(1) - sigmoid(-1)) * (0.7**2 - 0.3**2),
    "schulman-4": lambda t: slope(t) * t**2 + 2 * t * (sigmoid(t) + np.cos(t**2)),
    "schulman-5": chain,
    "sum": lambda t: 2 * np.sum(t - gallery.DATA),
    "integral": lambda t: 2 * t * 1.25 - 2 * 0.5,
    "both": lambda t: np.sum(2 * t * 1.25 - 2 * 0.5 * gallery.DATA),
    "density": lambda t: 2 * (t - 1),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_exact_gradients_are_those_of_the_formula(name):
    entry = gallery.ENTRIES[name]
    np.testing.assert_allclose(entry.exact(), BY_HAND[name](entry.theta), rtol=1e-12)


def expected_cost(t):
    """Minus the expected return by dynamic programming over the steps that are left."""
    worth = np.zeros(gallery.STATES)
    p = np.exp(t) / np.exp(t).sum(axis=1, keepdims=True)
    for _ in range(gallery.HORIZON):
        worth = np.sum(p * (gallery.REWARD + gallery.MOVE @ worth), axis=1)
    return -worth[0]


def test_the_exact_policy_gradient_is_that_of_dynamic_programming():
    entry, h = gallery.ENTRIES["policy"], 1e-5
    steps = h * np.eye(entry.theta.size).reshape(-1, *entry.theta.shape)
    differences = [(expected_cost(entry.theta + d) - expected_cost(entry.theta - d)) / (2 * h) for d in steps]
    np.testing.assert_allclose(entry.exact().ravel(), differences, rtol=0, atol=1e-9)  # h^2 and eps / h
    assert np.allclose(gallery.MOVE.sum(axis=-1), 1)


def test_an_action_meets_the_later_costs_of_its_own_episode_only():
    entry = gallery.ENTRIES["policy"]
    graph = entry.graph(np.random.default_rng(5))
    draw = {name: node.value for name, node in graph.stochastic.items()}
    start = np.tile(np.eye(gallery.STATES)[0], (8, 1))
    states = [start, *[draw[f"state_{k}"] for k in range(1, gallery.HORIZON)]]
    actions = [draw[f"action_{k}"] for k in range(gallery.HORIZON)]
    costs = np.array(
        [
            -np.sum((s.T[:, None] * a.T[None]) * gallery.REWARD[..., None], axis=(0, 1)) / 8
            for s, a in zip(states, actions, strict=True)
        ]
    )
    expected = np.zeros_like(entry.theta)
    for k, (s, a) in enumerate(zip(states, actions, strict=True)):
        logits = s @ entry.theta
        score = a - np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        expected += s.T @ (score * costs[k:].sum(axis=0)[:, None])
    np.testing.assert_allclose(graph.gradients(), expected, rtol=1e-12, atol=1e-14)


def test_only_single_draws_are_enumerated():
    def two(t, rng):
        return np.sum(scg.sample(dist.Bernoulli(logits=t), scg.ScoreFunction(), rng=rng))

    with pytest.raises(ValueError, match="single draws"):
        gallery.exact_gradient(scg.trace(two, np.zeros(2), rng=np.random.default_rng(0)))


def test_every_graph_is_printed_and_drawn(tmp_path, capsys):
    assert gallery.main(["--out", str(tmp_path / "a"), "--replicates", "20"]) == 0
    shown = capsys.readouterr().out
    for name, entry in gallery.ENTRIES.items():
        assert f"{name}: {entry.title}\n" in shown and entry.formula in shown
        assert xml.etree.ElementTree.parse(tmp_path / "a" / f"{name}.svg").getroot().tag.endswith("svg")
        assert (tmp_path / "a" / f"{name}.dot").read_text().startswith("digraph {")
    assert shown.count("d/dt[") == 6 and "○ action_3 ~ OneHotCategorical" in shown


def test_the_same_seed_shows_the_same_figures(tmp_path, capsys):
    runs = []
    for seed in ("3", "3", "4"):
        assert (
            gallery.main(["schulman-5", "density", "--out", str(tmp_path), "--replicates", "50", "--seed", seed]) == 0
        )
        runs.append(capsys.readouterr().out)
    assert runs[0] == runs[1] != runs[2] and "policy" not in runs[0]


@pytest.mark.parametrize(
    "options, told",
    [(["nothing"], "schulman-1"), (["--replicates", "1"], "at least 2"), (["--seed", "-1"], "at least 0")],
)
def test_bad_options_are_told(options, told, capsys):
    with pytest.raises(SystemExit) as caught:
        gallery.main(options)
    assert caught.value.code == 2 and told in capsys.readouterr().err


def test_an_output_directory_that_cannot_be_made_is_told(tmp_path, capsys):
    (tmp_path / "file").write_text("x")
    assert gallery.main(["sum", "--out", str(tmp_path / "file")]) == 1
    assert capsys.readouterr().err.startswith("error: ")


def test_help_names_every_graph(capsys):
    with pytest.raises(SystemExit) as caught:
        gallery.main(["--help"])
    text = capsys.readouterr().out
    assert caught.value.code == 0 and all(
        name in text
        for name in ("schulman-1", "integral", "policy", "--replicates", "(default: 20000)", "(default: runs/gallery)")
    )
