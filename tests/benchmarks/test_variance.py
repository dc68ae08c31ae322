"""The benchmarks of variance: their closed forms against enumeration, quick versions against what is exact, and runs
that are stopped."""

import csv
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import scg
from benchmarks.peers import coins as peers
from benchmarks.variance import (
    EXPERIMENTS,
    bounds,
    coins,
    command,
    costs,
    digits,
    estimates,
    gaussian,
    orders,
    parts,
    problems,
    walks,
)
from tests.support.drawn import covering

ROOT = Path(__file__).parents[2]
RNG = np.random.default_rng


@pytest.mark.parametrize("point", gaussian.points(True), ids=lambda p: f"{p['row']}-{p.get('k', p.get('p'))}")
def test_gaussian_and_coin_closed_forms_are_exact_and_within_the_estimated_interval(point):
    """Intervals of 95%, twice as wide: once in 10^4 for a normal one."""
    for entry in gaussian.measure(point, RNG(3)).values():
        assert entry["exact"] == pytest.approx(entry["closed"], rel=1e-8, abs=1e-16)
        if entry["reliable"]:
            half = (entry["high"] - entry["low"]) / 2
            assert abs(entry["variance"] - entry["exact"]) <= 2 * half + 1e-16


@pytest.mark.fast
def test_the_help_tells_what_each_experiment_is():
    assert [name for name in EXPERIMENTS if f"\n    {name} " in command.__doc__] == list(EXPERIMENTS)


@pytest.mark.parametrize(("cost", "leaf"), covering([*costs.COSTS], ["mu", "sigma"]))
def test_quadrature_of_the_costs_is_scg_exact(cost, leaf):
    f, ks = costs.COSTS[cost]
    k = float(ks[4])

    def model(t, rng):
        distribution = scg.distributions.Normal(t if leaf == "mu" else 1.0, t if leaf == "sigma" else 1.0)
        return f(scg.sample(distribution, scg.ScoreFunction(), rng=rng, name="x"), k)

    graph = scg.trace(model, np.array(1.0), rng=RNG(0))
    mean, variances = costs.exact(cost, k, leaf)
    for name, estimator in costs.ESTIMATORS.items():
        found = scg.exact.moments(graph.bind(x=estimator))
        assert found.mean == pytest.approx(mean, rel=1e-8)
        assert found.variance == pytest.approx(variances[name], rel=1e-7), name


def test_costs_measured_are_within_their_intervals():
    point = {"cost": "cos(k x)", "k": 1.0, "replicates": 4000}
    for of_estimator in costs.measure(point, RNG(1)).values():
        for entry in of_estimator.values():
            half = (entry["high"] - entry["low"]) / 2
            assert abs(entry["variance"] - entry["exact"]) <= 2.5 * half
            assert entry["by scg.exact"] == pytest.approx(entry["exact"], rel=1e-7)


@pytest.mark.parametrize("theta", [-1.3, 0.0, 2.0])
@pytest.mark.parametrize("name", coins.HIDDEN)
def test_what_the_costs_of_other_coins_add_is_exact(name, theta, monkeypatch):
    """Three coins, whose joint configurations can all be enumerated."""
    monkeypatch.setattr(coins, "SIZE", 3)
    t, estimator = 0.45, coins.estimators()[name]
    own, mixed = (scg.trace(f, np.full(3, theta), t, rng=RNG(0)).bind(b=estimator) for f in (coins.cost, coins.mixing))
    of_own = scg.exact.moments(own).variance
    np.testing.assert_allclose(coins.of_one(estimator, theta, t), of_own, rtol=1e-9, atol=1e-18)
    expected = coins.of_total(name, theta, t, float(of_own[0]), 3)
    np.testing.assert_allclose(scg.exact.moments(mixed).variance, expected, rtol=1e-9)
    assert (expected > of_own * 1.01).all()  # the mixing cost does hide which coin it comes from


@pytest.mark.long  # the exact variances of the rows with noise take most of a minute
def test_coins_measured_are_within_their_intervals_and_training_lowers_the_variance():
    found = coins.measure({"t": 0.45, "theta": 1.0, "replicates": 400, "steps": 60}, RNG(2))
    for name, entry in found.items():
        half = (entry["high"] - entry["low"]) / 2
        assert abs(entry["variance"] - entry["exact"]) <= 2.5 * half + 1e-9 * entry["exact"], name
    assert found["RELAX, trained"]["exact"] < 0.1 * found["score function"]["exact"]
    assert found["REBAR, trained"]["exact"] < found["REBAR, as it is"]["exact"]
    assert found["DisARM"]["exact"] < found["ARM"]["exact"] < found["leave-one-out, 2 samples"]["exact"]


@pytest.mark.parametrize("point", walks.points(True), ids=lambda p: f"{p['cost']}-{p['n']}")
def test_walks_measured_are_within_their_intervals_and_coupling_has_its_closed_form(point):
    """Intervals of 95%, twice as wide: once in 10^4 for a normal one."""
    found = walks.measure(point, RNG(3))
    for name, entry in found.items():
        if entry["high"] is not None:
            assert abs(entry["variance"] - entry["exact"]) <= entry["high"] - entry["low"], name
    if point["cost"] == "sum":
        assert found["Enumerate, coupled"]["exact"] == pytest.approx(walks.closed(point["n"]), rel=1e-9)
    gains = point["cost"] == "sum" or point["n"] > 3
    for name in walks.ESTIMATORS:
        assert (found[f"{name}, coupled"]["exact"] < found[f"{name}, anew"]["exact"]) == gains


@pytest.mark.parametrize("point", orders.points(True), ids=lambda p: p["cost"])
def test_orders_measured_are_within_their_intervals(point):
    """Intervals of 95%, twice as wide: once in 10^4 for a normal one."""
    found = orders.measure(point | {"replicates": 4000}, RNG(3))
    for name, entry in found.items():
        if entry["exact"]:
            assert abs(entry["variance"] - entry["exact"]) <= entry["high"] - entry["low"], name
    assert found["enumerate"]["exact"] == 0
    assert found["leave-one-out, 2"]["exact"] < found["score function"]["exact"]
    if point["cost"] != "basket":
        assert found["REBAR, temperature 1"]["variance"] < 0.6 * found["leave-one-out, 2"]["exact"]
    assert "enumerate" in orders.report([(point, found)])


def of_bounds(ks, n):
    wanted = [
        {"K": k, "gradient": g, "datum": i, "replicates": n}
        for k in ks
        for g in bounds.GRADIENTS
        for i in range(bounds.DATA)
    ]
    return [(point, bounds.measure(point, RNG([7, i]))) for i, point in enumerate(wanted)]


def test_bounds_have_the_published_slopes_within_their_intervals():
    rows = bounds.pooled(of_bounds((4, 16, 64), 1500))
    found = {(r["gradient"], r["parameter"], r["signal"]): r for r in bounds.slopes(rows)}
    assert found["IWAE", "mu", "own"]["slope"] == pytest.approx(0.5, abs=0.06)
    assert found["IWAE", "b", "shared"]["slope"] == pytest.approx(-0.5, abs=0.06)
    assert found["doubly reparameterized", "b", "own"]["low"] > 0
    assert found["IWAE", "b", "own"]["low"] < -0.5 < found["IWAE", "b", "own"]["high"]


@pytest.mark.fast
def test_signal_of_one_sample_is_exact():
    """K = 1: m = d ELBO / db = x - mu - 2 (loc - mu) + ... is known: (x - z) - (z - mu) at z = loc + (2/3)^(1/2) e, of
    variance 8/3 for each coordinate."""
    params, a, data = bounds.model()
    point = {"K": 1, "gradient": "IWAE", "datum": 1, "replicates": 20_000}
    found = bounds.measure(point, RNG(0))["b"]
    m = data[1] + params["mu"] - 2 * (a @ data[1] + params["b"])
    assert found["variance"] == pytest.approx(bounds.SIZE * 8 / 3, rel=0.02)
    assert abs(found["signal"] - m @ m) < 5 * math.sqrt(found["error"])
    assert found["error"] == pytest.approx(
        4 * m @ m * 8 / 3 / 20_000 + 2 * bounds.SIZE * (8 / 3) ** 2 / 20_000**2, rel=0.2
    )


def test_slopes_are_found_and_their_intervals_hold_them():
    """300 sets of squared ratios with normal errors, as large as the ratio itself at the end: 95% intervals hold the
    slope in 260 to 299 of them."""
    ks, rng = np.array([16, 32, 64, 128, 256]), RNG(0)
    truth = 1e-2 * ks**-1.0
    errors = np.full(5, truth[-1])
    inside = 0
    for _ in range(300):
        s, half = bounds.slope(ks, truth + errors * rng.standard_normal(5), errors)
        inside += abs(s + 0.5) <= half
    assert 260 <= inside <= 299


@pytest.mark.parametrize("name", digits.ROWS)
def test_digits_estimators_have_the_exact_mean(name, monkeypatch):
    """A small one, by enumeration; along the exact gradient, within 4.5 standard errors. The weights of the decoder are
    large, so that it is no line."""
    for size, value in {"BATCH": 2, "LATENTS": 4, "HIDDEN": 5}.items():
        monkeypatch.setattr(digits, size, value)
    encoder, decoder, x = digits.networks.__wrapped__("initial", 0)
    decoder = [scg.nn.Layer(12 * layer.weight, layer.bias) for layer in decoder]
    graph = scg.trace(digits.cost, encoder, decoder, x, rng=RNG(0))
    exact = [leaf for _, leaf in scg.tree.leaves(scg.exact.gradient(graph))]

    def off(estimator):
        found = [leaf for _, leaf in scg.tree.leaves(graph.bind(b=estimator).gradients(rng=RNG(3), replicates=2000))]
        along = sum(np.tensordot(g, e, e.ndim) for g, e in zip(found, exact, strict=True)) / sum(
            np.sum(e * e) for e in exact
        )
        return abs(along.mean() - 1) / (along.std() / math.sqrt(len(along)))

    assert off(digits.estimator(name, graph, x, 3, RNG(1))) < 4.5
    if name == "DisARM":
        assert off(scg.StraightThrough()) > 6  # which is biased: the test sees it


@pytest.mark.parametrize("name", ["coin", "poisson", "bandit"])
def test_every_estimator_that_takes_a_problem_is_in_its_row_and_exact(name):
    (problem,) = [p for p in scg.testing.problems() if p.name == name]
    found = problems.measure({"problem": name, "replicates": 200}, RNG(0))
    for known, row in [
        ("score function", "score function"),
        ("leave-one-out", "leave-one-out, 2"),
        ("DisARM", "DisARM"),
    ]:
        if known in problem.estimators:
            exact = sum(np.sum(v) for v in problem.variance(known).values())
            assert found[row]["exact"] == pytest.approx(exact, rel=1e-9, abs=1e-18)
            assert found[row]["work"] == found[row]["exact"] * found[row]["evaluations"]
    for row, make in problems.ESTIMATORS.items():
        try:
            problem.graph(make)
        except scg.ScgError:
            assert row not in found
        else:
            assert row in found
    least = min(v["work"] for v in found.values())
    assert all(found[row]["work"] <= least * (1 + 1e-9) for row in problems.best(found))
    text = problems.report([({"problem": name}, found)])
    assert all(f"| {row} | **" in text for row in problems.best(found))


def test_every_unbiased_estimator_is_on_the_list_of_the_problems():
    listed = {type(make()) for make in problems.ESTIMATORS.values()}
    exported = [getattr(scg.estimators, name) for name in scg.estimators.__all__]
    missing = {
        kind for kind in exported if issubclass(kind, scg.stochastic.estimator.Estimator) and kind.unbiased
    } - listed
    assert missing == {scg.Marginalize}


@pytest.mark.fast
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_points_have_room_in_json_and_the_quick_ones_are_fewer(name):
    module = parts.experiment(name)
    quick, full = module.points(True), module.points(False)
    assert json.loads(json.dumps(full)) == full and 0 < len(quick) <= len(full)
    assert sum(p["replicates"] for p in quick) * 8 < sum(p["replicates"] for p in full)


def tables(folder):
    return {path.name: path.read_bytes() for path in sorted(Path(folder).glob("*.csv"))}


def stopped(folder, number, *more):
    """The exit status and output of a run that is sent a signal when it has measured three parts more."""
    arguments = [sys.executable, "-m", "benchmarks.variance", "gaussian", "--quick", "--out", str(folder), *more]
    before = len(list(Path(folder).rglob("parts/*/*.json")))
    run = subprocess.Popen(
        arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 60
    while (
        len(list(Path(folder).rglob("parts/*/*.json"))) < before + 3
        and time.monotonic() < deadline
        and run.poll() is None
    ):
        time.sleep(0.005)
    if number == signal.SIGINT:
        os.killpg(run.pid, number)  # as a terminal does: to the workers as well
    else:
        run.send_signal(number)
    output, _ = run.communicate(timeout=30)  # until workers too have closed the pipe: none is left behind
    return run.returncode, output


@pytest.mark.long
def test_a_run_that_is_stopped_and_killed_goes_on_to_the_same_tables(tmp_path, capsys):
    out = tmp_path / "out"
    code, output = stopped(out, signal.SIGINT, "--workers", "2")
    assert code == 130 and f"--resume --out {out} goes on" in output and "Traceback" not in output and not tables(out)
    code, _ = stopped(out, signal.SIGKILL, "--resume", "--workers", "2")
    assert code == -signal.SIGKILL and not tables(out)
    left = {path: path.stat().st_mtime_ns for path in out.rglob("parts/*/*.json")}
    assert 6 <= len(left) < len(gaussian.points(True))
    assert command.main(["gaussian", "--quick", "--resume", "--out", str(out), "--workers", "1"]) == 0
    assert all(path.stat().st_mtime_ns == when for path, when in left.items())
    assert command.main(["gaussian", "--quick", "--out", str(tmp_path / "whole"), "--workers", "1"]) == 0
    assert tables(out) == tables(tmp_path / "whole") != {}
    assert not list(out.rglob(".*"))  # nothing half written
    record = json.loads((out / "gaussian.json").read_text())
    assert (
        record["seed"] == 0
        and record["resumed"]
        and len(record["results"]) == len(gaussian.points(True))
        and "numpy" in record["versions"]
    )
    rows = list(csv.DictReader((out / "gaussian.csv").read_text().splitlines()))
    assert len(rows) == 28 and all(
        float(r["exact"]) == pytest.approx(float(r["closed"]), rel=1e-8, abs=1e-16) for r in rows
    )
    assert "| score function | mu = 1, sigma = 1, k = -3 | mu | 495.0 | 495.0 |" in capsys.readouterr().out


def few(monkeypatch):
    monkeypatch.setattr(
        gaussian,
        "points",
        lambda quick: [
            {"table": "coin", "row": row, "p": 0.3, "t": 0.45, "replicates": 500} for row in ("ARM", "DisARM")
        ],
    )


def test_what_was_measured_with_another_seed_or_point_is_not_mixed_in(tmp_path, monkeypatch, capsys):
    few(monkeypatch)
    run = ["gaussian", "--out", str(tmp_path), "--workers", "1"]
    assert command.main(run) == 0
    first = tables(tmp_path)
    assert command.main([*run, "--resume", "--seed", "1"]) == 1
    assert "seed 0 and not 1" in capsys.readouterr().err
    part = tmp_path / "parts/gaussian/0000.json"
    text = part.read_text()
    part.write_text(text.replace('"p": 0.3', '"p": 0.4'))
    assert command.main([*run, "--resume"]) == 1 and "0.4" in capsys.readouterr().err
    part.write_text(text[:-5])
    assert command.main([*run, "--resume"]) == 1 and "damaged" in capsys.readouterr().err
    part.unlink()
    assert command.main([*run, "--resume"]) == 0 and tables(tmp_path) == first
    assert command.main([*run, "--seed", "1"]) == 0 and tables(tmp_path) != first  # without --resume: anew


def test_a_worker_that_is_killed_is_replaced_and_its_part_is_the_same():
    import multiprocessing

    todo = parts.parts("gaussian", True, 0)[-4:]
    found = {}
    for part, result in parts.measured(todo, 2):
        if not found:
            os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
        assert part.index not in found
        found[part.index] = estimates.timeless(result["logit"])
    assert found == {part.index: estimates.timeless(parts.measure(part)["logit"]) for part in todo}


def test_an_error_in_a_part_comes_out(monkeypatch, tmp_path):
    few(monkeypatch)
    monkeypatch.setattr(gaussian, "measure", lambda point, rng: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        command.main(["gaussian", "--out", str(tmp_path), "--workers", "1"])


@pytest.mark.fast
@pytest.mark.parametrize("wrong", [["--workers", "0"], ["--seed", "-1"], ["gausian"]])
def test_bad_options(wrong, capsys):
    with pytest.raises(SystemExit):
        command.main(wrong)
    assert "expected an integer" in (text := capsys.readouterr().err) or "gausian" in text


@pytest.mark.fast
def test_numbers_are_written_to_their_digits():
    assert [estimates.number(x) for x in (495.0, 0.0156251, 2.5e-7, 0.0, -3.0, math.inf)] == [
        "495.0",
        "0.01563",
        "2.500e-07",
        "0",
        "-3.000",
        "inf",
    ]
    assert estimates.interval({"low": 1.0, "high": None, "reliable": False}, 2) == "1.0 to ? *"
    assert estimates.markdown([["a", "b"], ["x", 2.0]]) == "| a | b |\n| --- | --- |\n| x | 2.000 |"


@pytest.mark.parametrize("make", [peers.with_numpy, peers.with_scg])
def test_peers_are_checked_before_they_are_timed(make):
    run = make()
    assert peers.wrong(run, 100) == ""
    assert "variance" in peers.wrong(lambda n: 2 * run(n), 100)
    assert "variance" in peers.wrong(lambda n: run(n) * (1 + np.arange(peers.SIZE) % 2 * 0.2), 100)
    assert "shape" in peers.wrong(lambda n: run(n)[0], 100)
