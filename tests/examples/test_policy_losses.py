"""Policy losses: their exact moments against plain sums over ordered groups, what each is the gradient of on drawn
problems, and the command."""

import doctest
import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import scg
from examples.policy_losses import __main__ as command
from examples.policy_losses import derivations
from examples.policy_losses.losses import ROWS, Group, Row
from examples.policy_losses.measure import found, found_in_torch
from examples.policy_losses.problem import Problem, Sequences, log_softmax, problem, steady
from tests.support.drawn import drawn

pytestmark = pytest.mark.usefixtures("figures")

BY_LABEL = {row.label: row for row in ROWS}


@st.composite
def problems(draw, tokens=3):
    """Tables of logits and rewards of a few short sequences, with samples from an older policy."""
    sequences = Sequences.all(tokens, draw(st.integers(1, 2)), draw(st.booleans()))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    policy, old, reference = rng.standard_normal((3, int(sequences.states.max()) + 1, tokens))
    return Problem("drawn", sequences, policy, policy + 0.5 * old, reference, rng.uniform(-1, 1, sequences.count))


def log_probs(table, sequences):
    """log p of each token of each sequence, by a loop."""
    z = table - np.log(np.sum(np.exp(table), axis=-1, keepdims=True))
    rows = zip(sequences.states, sequences.tokens, sequences.mask, strict=True)
    return np.array([[z[s, y] if m else 0.0 for s, y, m in zip(*row, strict=True)] for row in rows])


def by_ordered_groups(loss, here, size):
    """Mean and variance of the gradient of ``loss``: each ordered group by itself, weighed by what wrote it."""
    sequences = here.sequences
    old, drawn, ref = (log_probs(table, sequences) for table in (here.old, here.sampler(), here.reference))
    probs = np.exp(drawn.sum(-1))
    gradients, weights = [], []
    for members in itertools.product(np.flatnonzero(probs > 1e-100), repeat=size):
        y = list(members)

        def one(logits, y=y):
            logp = log_softmax(logits)[sequences.states[y], sequences.tokens[y]] * sequences.mask[y]
            data = (old[y], drawn[y], ref[y], sequences.mask[y], here.rewards[y], sequences.tokens.shape[1])
            return loss(Group(logp, *data))

        gradients.append(scg.grad(one)(here.policy))
        weights.append(np.prod(probs[y]))
    gradients, weights = np.array(gradients), np.array(weights)
    mean = np.tensordot(weights, gradients, 1)
    return mean, np.tensordot(weights, (gradients - mean) ** 2, 1)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.label)
def test_moments_are_those_of_all_ordered_groups(row):
    """One token, whose groups can be listed in order; and two, where older samples are cut by top-p."""
    two = Sequences.all(2, 2, True)
    rng = np.random.default_rng(5)
    small = Problem("small", two, *rng.standard_normal((3, 2, 2)), rng.uniform(0, 1, two.count))
    for here, size in ((problem("bandit"), 2), (small, 3), (problem("bandit").truncated(0.8), 2)):
        mean, variances = by_ordered_groups(row.loss, here, size)
        result = found(row, here, size)
        np.testing.assert_allclose(result.mean, mean, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(result.variances, variances, rtol=1e-9, atol=1e-12)


@given(problems())
@drawn(20)
def test_targets_are_derivatives_of_sums_over_sequences(here):
    """Central differences of the three sums, in float64: their error is of order h^2 and eps / h."""
    q = log_probs(here.reference, here.sequences).sum(-1)

    def sums(table):
        p = log_probs(table, here.sequences).sum(-1)
        return np.exp(p) @ here.rewards, np.exp(p) @ (p - q), np.exp(q) @ (q - p)

    h = 1e-5
    for k, name in enumerate(("reward", "reverse KL", "forward KL")):
        gradient = here.targets()[name]
        for index in np.ndindex(here.policy.shape):
            step = np.zeros_like(here.policy)
            step[index] = h
            slope = (sums(here.policy + step)[k] - sums(here.policy - step)[k]) / (2 * h)
            assert abs(gradient[index] - slope) < 1e-7


@given(problems(), st.integers(2, 3))
@drawn(15)
def test_what_is_known_of_each_loss_holds_on_drawn_problems(here, size):
    """On policy and off policy, any tables, rewards and group sizes."""
    on = here.on_policy()
    shrunk = (size - 1) / size
    known = [
        (on, {"REINFORCE": (-1, "reward"), "RLOO": (-1, "reward"), "constant baseline": (-1, "reward")}),
        (on, {"group mean": (-shrunk, "reward"), "Dr. GRPO": (-shrunk / here.sequences.tokens.shape[1], "reward")}),
        (on, {"k1 as loss": (0, "reward"), "k2 as loss": (1, "reverse KL"), "k3 as loss": (1, "forward KL")}),
        (on, {"PPO clip": (-1, "reward"), "CISPO": (-1, "reward"), "k1 in reward": (1, "reverse KL")}),
        (here, {"sequence ratio": (-1, "reward"), "weighted RLOO": (-1, "reward")}),
        (here, {"k1, live weights": (1, "reverse KL"), "k3, live weights": (1, "reverse KL")}),
        (here, {"k1, held weights": (0, "reward"), "k2, held weights": (1, "reverse KL")}),
        (here, {"k3, held weights": (1, "forward KL"), "k1 in reward, weights": (1, "reverse KL")}),
    ]
    for where, rows in known:
        targets = where.targets()
        for label, (factor, name) in rows.items():
            mean = found(BY_LABEL[label], where, size).mean
            np.testing.assert_allclose(mean, factor * targets[name], rtol=1e-9, atol=1e-11, err_msg=label)


@given(problems(), st.floats(0.2, 0.95))
@drawn(15)
def test_top_p_keeps_the_likeliest_tokens_and_no_more(here, top_p):
    probs = np.exp(log_probs(here.sampler(), here.sequences).sum(-1))
    np.testing.assert_allclose(probs.sum(), 1, rtol=1e-12)
    full = np.exp(here.old - np.log(np.sum(np.exp(here.old), axis=-1, keepdims=True)))
    kept = here.truncated(top_p).sampler() > -1e2
    for p, k in zip(full, kept, strict=True):
        assert p[k].sum() >= top_p - 1e-12 and p[k].sum() - p[k].min() < top_p
        assert not k.all() or p.min() > 0 and np.all(p[k].min() >= p[~k].max(initial=0))
    cut = here.truncated(top_p)
    result = found(BY_LABEL["ratio to what was drawn"], cut, 2)
    targets = cut.targets()
    np.testing.assert_allclose(result.mean, -targets.get("kept reward", targets["reward"]), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "tokens, length, ends, count", [(3, 2, False, 9), (3, 3, True, 1 + 2 + 4 * 3), (5, 1, True, 5)]
)
def test_every_sequence_stands_once(tokens, length, ends, count):
    sequences = Sequences.all(tokens, length, ends)
    assert sequences.count == count == len({tuple(row) for row in sequences.tokens})
    states = int(sequences.states.max()) + 1
    table = np.random.default_rng(0).standard_normal((states, tokens))
    np.testing.assert_allclose(np.exp(log_probs(table, sequences).sum(-1)).sum(), 1, rtol=1e-12)
    np.testing.assert_allclose(sequences.log_prob(table), log_probs(table, sequences), rtol=1e-12)
    groups, weights = replace(problem("bandit"), sequences=sequences, old=table).groups(2)
    assert len(groups) == count * (count + 1) // 2
    np.testing.assert_allclose(weights.sum(), 1, rtol=1e-12)


def test_the_steady_policy_does_not_see_what_came_before():
    here = steady(3)
    assert np.ptp(here.policy, axis=0).max() == 0 and here.rewards.max() == 1
    marginal = np.exp(log_softmax(here.policy[0]))
    want = marginal @ [0, 0.5, 1]
    np.testing.assert_allclose(np.exp(log_probs(here.policy, here.sequences).sum(-1)) @ here.rewards, want, rtol=1e-12)


def test_the_derivations_run():
    outcome = doctest.testmod(derivations)
    assert outcome.attempted > 25 and outcome.failed == 0


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One run of the command, with a loss of one's own."""
    out = tmp_path_factory.mktemp("policy")
    given = ["pair", "--group", "2", "--out", str(out), "--json", str(out / "all.json")]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(out)
        (out / "mine.py").write_text(
            "import numpy as np\n\n\ndef loss(g):\n    return -np.mean(g.logp) * g.reward[0]\n"
        )
        assert command.main([*given, "--loss", "mine:loss", "--claim", "reward"]) == 0
    return out


def test_the_command_draws_its_figures_and_prints_each_row(run, capsys):
    for name in ("matrix", "distance", "variance"):
        assert (run / f"{name}.png").stat().st_size > 20_000
        assert (run / f"{name}.svg").read_text().startswith("<?xml")
    results = [found(row, problem("pair").on_policy(), 2) for row in ROWS]
    text = command.printed("pair", results)
    assert all(row.label in text for row in ROWS) and "-0.5 reward" in text


def test_the_written_numbers_can_be_recomputed_from_the_written_arrays(run):
    """From nothing but the file: RLOO by the score function, in loops."""
    records = json.loads((run / "all.json").read_text())
    assert [record["setting"] for record in records] == ["on policy", "off policy", "top-p 0.8"]
    for record in records:
        arrays = {k: np.array(record[k]) for k in ("tokens", "states", "mask", "policy", "sampler", "rewards")}
        sequences = Sequences(arrays["tokens"], arrays["states"], arrays["mask"])
        probs = np.exp(log_probs(arrays["sampler"], sequences).sum(-1))
        p = np.exp(arrays["policy"] - np.log(np.exp(arrays["policy"]).sum(-1, keepdims=True)))
        scores = np.zeros((sequences.count, *p.shape))
        for i, (states, tokens, mask) in enumerate(
            zip(sequences.states, sequences.tokens, sequences.mask, strict=True)
        ):
            for s, y, m in zip(states, tokens, mask, strict=True):
                scores[i, s] += m * ((np.arange(p.shape[1]) == y) - p[s])
        r = arrays["rewards"]
        terms = -(scores[:, None] - scores[None, :]) * (r[:, None] - r[None, :])[..., None, None] / 2
        weights = probs[:, None] * probs[None, :]
        mean = np.tensordot(weights, terms, 2)
        row = next(row for row in record["rows"] if row["loss"] == "RLOO")
        np.testing.assert_allclose(row["mean"], mean, rtol=1e-9, atol=1e-13)
        np.testing.assert_allclose(
            row["variances"], np.tensordot(weights, (terms - mean) ** 2, 2), rtol=1e-9, atol=1e-13
        )
        gap = np.linalg.norm(np.array(row["mean"]) - row["gradient"]) / np.linalg.norm(row["gradient"])
        np.testing.assert_allclose(row["bias"], gap, rtol=1e-9, atol=1e-12)
        assert any(own["loss"] == "loss" for own in record["rows"])


def torch_rloo(g):
    """Leave-one-out as training code in PyTorch has it."""
    others = (g.reward.sum() - g.reward) / (g.reward.shape[0] - 1)
    return -(g.logp.sum(-1) * (g.reward - others).detach()).mean()


def torch_sequence_ratio(g):
    ratio = (g.logp - g.old).sum(-1).exp()
    return -(ratio * (g.reward - (g.reward.sum() - g.reward) / (g.reward.shape[0] - 1))).mean()


@pytest.mark.parametrize("loss, label", [(torch_rloo, "RLOO"), (torch_sequence_ratio, "sequence ratio")])
@pytest.mark.parametrize("setting", ["on policy", "off policy", "top-p 0.8"])
def test_a_loss_in_pytorch_comes_to_the_row_of_the_same_loss_in_numpy(loss, label, setting):
    pytest.importorskip("torch")
    here = command.settings("pair")[setting]
    foreign, own = (
        measure(Row(label, each), here, 2) for measure, each in ((found_in_torch, loss), (found, BY_LABEL[label].loss))
    )
    np.testing.assert_allclose(foreign.mean, own.mean, rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(foreign.variances, own.variances, rtol=1e-9, atol=1e-13)
    assert foreign.of == own.of


@pytest.mark.parametrize(
    "argv, words",
    [
        (["--group", "1"], "at least 2"),
        (["casino"], "bandit, pair, ending, long"),
        (["--loss", "examples.policy_losses.losses"], "module:function"),
        (["--loss", "examples.policy_losses.losses:nothing"], "nothing"),
    ],
)
def test_bad_options_are_refused_before_work_begins(argv, words, capsys):
    with pytest.raises(SystemExit):
        command.main(argv)
    assert words in capsys.readouterr().err


def test_too_many_groups_are_refused_with_their_number(tmp_path, capsys):
    assert command.main(["ending", "--group", "8", "--out", str(tmp_path)]) == 1
    assert "319,770 groups of 8" in capsys.readouterr().err
