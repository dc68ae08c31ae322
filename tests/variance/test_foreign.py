"""Rows of gradients from outside, beside rows of estimators and without any graph."""

import csv
import json
import math
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pytest

import scg
from scg.bridge import Samples
from scg.errors import ScgError
from scg.variance import compare, sweep
from tests.support.foreign import cost, outcomes, score_function, truth, value

ZEROS = np.zeros(3)


def rng(seed=0):
    return np.random.default_rng(seed)


def exact_variance(scale=1.0):
    """Of the plain score function at logits of 0, summed over coordinates, by enumeration."""
    b = outcomes(3)
    g = scale * value(b)[:, None] * (b - 0.5)
    return float(np.sum(np.mean(g**2, axis=0) - np.mean(g, axis=0) ** 2))


@pytest.fixture(scope="module")
def report():
    rows = {
        "SF": {},
        "mine": Samples(score_function(), evaluations=1),
        "uncounted": Samples(score_function()),
        "wrong": Samples(score_function(1.5)),
    }
    return compare(scg.trace(cost, ZEROS, rng=rng()), rows, rng=rng(1))


@pytest.mark.fast
def test_rows_of_samples_stand_beside_rows_of_estimators(report):
    for label, scale in (("mine", 1.0), ("uncounted", 1.0), ("wrong", 1.5)):
        entry = report[label].total
        assert entry.low < exact_variance(scale) < entry.high and entry.reliable
        assert (entry.bias_p < 1e-4) == (label == "wrong")
    assert np.shape(report["mine"].bias) == (3,) and isinstance(report["mine"].graph, Samples)


@pytest.mark.fast
def test_what_nobody_counted_is_shown_as_such(report):
    lines = {line.split()[0]: line for line in report.table(160).splitlines() if line.strip()}
    assert "–" in lines["uncounted"] and "–" not in lines["mine"]
    assert report["mine"].total.evaluations == 1 and math.isnan(report["uncounted"].total.evaluations)
    assert math.isnan(report["uncounted"].total.ratio_evaluations)
    assert "evaluations=" in report.table(160) and "–" in report._repr_html_()


def test_reports_with_such_rows_are_written(report, tmp_path):
    report.to_csv(tmp_path / "a.csv")
    report.to_json(tmp_path / "a.json")
    lines = {line["row"]: line for line in csv.DictReader((tmp_path / "a.csv").read_text().splitlines())}
    entries = {e["row"]: e for e in json.loads((tmp_path / "a.json").read_text())["entries"]}
    assert lines["uncounted"]["evaluations"] == "nan" and entries["uncounted"]["evaluations"] is None
    assert entries["mine"]["evaluations"] == 1


def test_plots_name_what_they_cannot_place(report, tmp_path):
    pytest.importorskip("matplotlib")
    report.plot(tmp_path / "time.svg")
    report.plot(tmp_path / "evaluations.svg", work="evaluations")
    assert "not counted: uncounted" in (tmp_path / "evaluations.svg").read_text()
    assert "not counted" not in (tmp_path / "time.svg").read_text()
    with pytest.raises(ScgError, match="no row counts"):
        compare(None, {"a": Samples(score_function())}, rng=rng()).plot(tmp_path / "b.svg", work="evaluations")


@pytest.mark.fast
def test_numbers_stand_in_place_of_a_graph():
    report = compare(
        truth(ZEROS), {"mine": Samples(score_function()), "wrong": Samples(score_function(1.5))}, rng=rng()
    )
    assert report.reference == "the given gradient"
    assert report["mine"].total.bias_p > 1e-4 > report["wrong"].total.bias_p
    np.testing.assert_array_equal(report.gradient, truth(ZEROS))


@pytest.mark.fast
def test_without_any_truth_there_is_no_bias():
    report = compare(None, {"a": Samples(score_function()), "b": Samples(score_function(1.5))}, rng=rng())
    assert "bias" not in report.table(200) and "noise" not in report._repr_html_()
    assert report["b"].bias is None and report["b"].total.variance > report["a"].total.variance


def test_a_reference_row_of_samples_has_the_graphs_gradient():
    rows = {"wrong": Samples(score_function(1.5)), "SF": {}}
    report = compare(scg.trace(cost, ZEROS, rng=rng()), rows, rng=rng())
    assert report.reference == "the exact gradient" and report["wrong"].total.bias_p < 1e-4 < report["SF"].total.bias_p


def test_functions_of_ones_own_are_rows_without_a_graph():
    report = compare(
        truth(ZEROS), {"graph": scg.trace(cost, ZEROS, rng=rng()), "a": Samples(score_function())}, rng=rng()
    )
    assert report["graph"].total.bias_p > 1e-4 and report["graph"].total.exact_variance > 0


def structured(n, rng):
    x = rng.standard_normal((n, 2))
    return {"w": x, "b": x[:, 0].astype(np.float32)}


def test_structures_have_entries_by_path():
    report = compare({"w": np.zeros(2), "b": 0.0}, {"a": Samples(structured)}, rng=rng())
    assert list(report["a"].entries) == ["['w']", "['b']"] and np.shape(report["a"].variance["b"]) == ()


def same(one, other):
    names = ("mean", "variance", "low", "high", "bias", "bias_p", "snr")
    return all(getattr(one[label].total, name) == getattr(other[label].total, name) for label in one for name in names)


def test_figures_are_the_same_for_any_workers():
    rows = {"mine": Samples(score_function()), "wrong": Samples(score_function(1.5))}
    here = compare(truth(ZEROS), rows, rng=rng(3))
    for make in (lambda: ProcessPoolExecutor(2), lambda: ThreadPoolExecutor(3)):
        assert same(here, compare(truth(ZEROS), rows, rng=rng(3), executor=make))


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda s: compare(None, {"a": {"b": scg.DisARM()}}, rng=rng()), "row 'a'.*need a graph"),
        (lambda s: compare(np.zeros(4), {"a": s}, rng=rng()), r"row 'a'.*\(4,\).*\(3,\)"),
        (lambda s: compare("truth", {"a": s}, rng=rng()), "finite numbers"),
        (lambda s: compare(s, {"a": s}, rng=rng()), "Samples are a row"),
        (lambda s: compare(ZEROS, {"a": s}, args=(1,), rng=rng()), "those of a function"),
        (lambda s: compare(ZEROS, {"a": s, "b": Samples(structured)}, rng=rng()), "row 'b'"),
        (lambda s: compare(None, {"a": Samples(lambda n, rng: rng.random(n) / 0)}, rng=rng()), "row 'a'.*not finite"),
        (lambda s: compare(None, {"a": Samples(lambda n, rng: 1 / 0)}, rng=rng()), "row 'a': ZeroDivisionError"),
        (
            lambda s: compare(
                None, {"a": Samples(lambda n, rng: rng.random(n))}, rng=rng(), executor=lambda: ProcessPoolExecutor(1)
            ),
            "row 'a' cannot be sent.*top level",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_what_is_wrong_with_a_row_is_refused_with_its_name(call, words):
    with pytest.raises(ScgError, match=words):
        call(Samples(score_function()))


def test_sweeps_have_rows_of_samples():
    found = sweep(
        lambda s: s * truth(ZEROS), [1.0, 2.0], lambda s: {"a": Samples(score_function(s))}, rng=rng(), replicates=2000
    )
    x, v = found.line("a")
    assert 3 < v[1] / v[0] < 5 and found[1]["a"].total.bias_p > 1e-4


@pytest.mark.fast
def test_baselines_learn_in_the_warmup_or_are_marked():
    baseline = scg.MovingAverage(decay=0.9)
    rows = {"plain": {}, "learns": {"b": scg.ScoreFunction(baseline=baseline)}}

    def far(theta, rng):
        b = scg.sample(scg.distributions.Bernoulli(logits=theta), scg.ScoreFunction(), rng=rng, name="b")
        return (np.sum(b) + 3) ** 2

    graph = scg.trace(far, ZEROS, rng=rng())
    before, after = (compare(graph, rows, replicates=1000, rng=rng(), warmup=n) for n in (0, 100))
    assert "not learned" in before.table(120) and before.unlearned == ("learns",)
    assert "not learned" not in after.table(120) and after.unlearned == ()
    assert after["learns"].total.exact_variance < before["learns"].total.exact_variance / 2
    assert after["learns"].total.low < after["learns"].total.exact_variance < after["learns"].total.high
    assert baseline.state == {"total": 0.0, "weight": 0.0}
