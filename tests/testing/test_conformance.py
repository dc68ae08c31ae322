"""The conformance run of estimators from outside: verdicts, ratios, exit statuses, what a person sees."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import scg
from scg.bridge import Samples
from scg.errors import ScgTypeError
from scg.testing.conformance import conformance, line, load, main

ROOT = Path(scg.__file__).parents[1]
COINS = ("coin", "coin, p = 0.3", "coins together")
OTHERS = [name for name in (problem.name for problem in scg.testing.problems()) if name not in COINS]


def rows(estimator, skip=OTHERS, **more):
    return {row.problem: row for row in conformance(estimator, skip=skip, **more)}


def leave_one_out(problem):
    """Two samples of the coins, written in NumPy; exact moments are known."""
    logits = problem.parameters["logits"]
    p = 1 / (1 + np.exp(-logits))

    def draw(n, rng):
        b = (rng.random((2, n, *logits.shape)) < p) * 1.0
        f = problem.cost(b.reshape(-1, *logits.shape)).reshape(2, n, *[1] * logits.ndim)
        return {"logits": np.sum((f - f[::-1]) * (b - p), axis=0) / 2}

    return Samples(draw, evaluations=2)


def self_inclusive(problem):
    """The same with the mean of both as baseline: half the gradient."""
    right = leave_one_out(problem)
    return Samples(lambda n, rng: {"logits": right.take(n, rng)["logits"] / 2}, evaluations=2)


def test_a_right_estimator_is_unbiased_and_its_variance_is_that_of_the_known_one():
    found = rows(leave_one_out)
    assert {found[name].verdict for name in COINS} == {"unbiased"}
    for name in COINS:
        # some 20,000 draws: the ratio of a sampled variance to the exact one
        assert found[name].to_leave_one_out == pytest.approx(1, abs=0.15)
        assert found[name].low < 0 < found[name].high
    assert all(row.verdict == "skipped" for name, row in found.items() if name not in COINS)


def test_a_baseline_with_its_own_sample_is_biased_wherever_there_is_a_gradient():
    found = rows(self_inclusive)
    assert {found[name].verdict for name in COINS} == {"biased"}


def test_what_fails_or_does_not_apply_is_a_row():
    def broken(problem):
        if problem.name == "coin":
            return None
        if problem.name == "coins together":
            return 3.0
        raise RuntimeError("no GPU")

    found = rows(broken)
    assert found["coin"].verdict == "not applicable"
    assert found["coin, p = 0.3"].reason == "RuntimeError: no GPU"
    assert "returns scg.bridge.Samples" in found["coins together"].reason
    assert "no GPU" in line(found["coin, p = 0.3"])


@pytest.mark.parametrize(
    "name, words", [("json", "module:function"), ("json:nothing", "is not there"), ("json:__doc__", "no function")]
)
def test_what_is_no_estimator_is_told(name, words, capsys):
    with pytest.raises(ScgTypeError, match=words):
        load(name)
    with pytest.raises(SystemExit) as caught:
        main([name])
    assert caught.value.code == 2 and words in capsys.readouterr().err


def test_the_command_prints_a_table_and_its_status_tells_bias(capsys, monkeypatch):
    here = f"{__name__}:"
    skip = [word for name in OTHERS for word in ("--skip", name)]
    assert main([f"{here}leave_one_out", *skip]) == 0
    text = capsys.readouterr().out
    assert text.splitlines()[0].split()[:3] == ["problem", "verdict", "bias"]
    assert "3 unbiased" in text and "DisARM" in text
    assert main([f"{here}self_inclusive", *skip, "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert [row["verdict"] for row in told if row["problem"] in COINS] == ["biased"] * 3
    assert all(row["best"] for row in told if row["problem"] in COINS)


def test_the_table_is_a_function_of_the_seed():
    one, two, other = (rows(leave_one_out, seed=seed)["coins together"] for seed in (1, 1, 2))
    assert one == two != other


def test_a_pattern_skips_what_it_matches():
    found = rows(leave_one_out, skip=["[!c]*", "ca*", "coins*"])
    assert {name for name, row in found.items() if row.verdict != "skipped"} == {"coin", "coin, p = 0.3"}


@pytest.mark.parametrize(
    "name, framework, verdicts",
    [
        ("in_numpy:disarm", None, {"unbiased", "inconclusive"}),
        ("in_numpy:straight_through", None, {"biased", "unbiased"}),
        ("in_torch:leave_one_out", "torch", {"unbiased"}),
        ("in_jax:pathwise", "jax", {"unbiased"}),
    ],
)
def test_the_examples_of_each_framework_run(name, framework, verdicts):
    if framework:
        pytest.importorskip(framework)
    estimator = load(f"examples.estimators.{name}")
    chosen = (*COINS[:2], "gaussian, square", "category")
    skip = [problem.name for problem in scg.testing.problems() if problem.name not in chosen]
    found = {row.verdict for row in conformance(estimator, skip=skip)} - {"skipped", "not applicable"}
    assert found == verdicts or found and found < verdicts


def test_help_reads_well():
    told = subprocess.run(
        [sys.executable, "-m", "scg.testing.conformance", "--help"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    assert "module:estimator" in told.stdout and "Exit status" in told.stdout
