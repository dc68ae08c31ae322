"""Moments that are merged, intervals, evaluations, and comparisons of estimators: against closed forms, exact values
and published tables."""

import csv
import importlib.util
import json
import math
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

import scg
from scg import distributions as dist
from scg import variance
from scg.bridge.samples import Sampled
from scg.stochastic.estimator import Estimator
from scg.testing.structure import join
from scg.variance import chunks, report, threads, timing
from scg.variance.evaluations import evaluations
from scg.variance.moments import CentralMoments, Squares

LOO = lambda n=2: scg.ScoreFunction(samples=n, baseline=scg.LeaveOneOut())


def coins(theta, rng):
    b = scg.sample(dist.Bernoulli(logits=theta), scg.ScoreFunction(), rng=rng, name="b")
    return np.mean((b - 0.45) ** 2)


def mixed(theta, rng):
    b = scg.sample(dist.Bernoulli(logits=theta), scg.ScoreFunction(), rng=rng, name="b")
    return np.sum(b - 0.45) ** 2


def bowl(p, rng):
    x = scg.sample(dist.Normal(p["mu"], p["sigma"]), scg.ScoreFunction(), rng=rng, name="x")
    return (x + 3) ** 2


UNIT = {"mu": np.array(1.0), "sigma": np.array(1.0)}


def rng(seed=0):
    return np.random.default_rng(seed)


def compare(model, rows, *args, **options):
    return variance.compare(model, rows, args=args, rng=rng(), **{"replicates": 2000, **options})


# moments


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=6),
    st.integers(0, 2**32),
    st.sampled_from([0.0, 1e3, -1e8]),
    st.integers(2, 5),
)
def test_moments_of_any_partition_are_those_of_all_draws(sizes, seed, offset, order):
    x = rng(seed).standard_exponential((sum(sizes), 3)) + offset
    merged = None
    for part in np.split(x, np.cumsum(sizes)[:-1]):
        found = CentralMoments.of(part, order)
        merged = found if merged is None else merged.merge(found)
    y = x - x.mean(axis=0)
    slack = 1e-12 + 1e-15 * abs(offset)  # of the draws themselves, whose last bits the offset has taken
    assert merged.count == len(x) and np.allclose(merged.mean, x.mean(axis=0), rtol=1e-14, atol=slack)
    for p in range(2, order + 1):
        bound = p * (slack + 1e-12) * np.sum((np.abs(y) + slack) ** (p - 1) * (1 + np.abs(y)), axis=0)
        assert np.all(np.abs(merged.sums[p - 2] - np.sum(y**p, axis=0)) <= bound)


def test_sums_of_squares_about_zero_would_not_do():
    x = rng().standard_normal((1000, 1)) + 1e8
    naive = np.mean(x**2) - np.mean(x) ** 2
    merged = CentralMoments.of(x[:300]).merge(CentralMoments.of(x[300:]))
    assert abs(merged.variance[0] - np.var(x, ddof=1)) < 1e-6 and abs(naive - np.var(x)) > 0.1


def test_largest_draws_and_effective_number_of_any_partition():
    s = rng().pareto(3, (5000, 2))
    whole = Squares.of(s)
    parts = [Squares.of(p) for p in np.split(s, [10, 700, 3000])]
    merged = parts[0].merge(parts[1]).merge(parts[2]).merge(parts[3])
    np.testing.assert_array_equal(whole.top, merged.top)
    np.testing.assert_allclose(whole.effective, np.sum(s, axis=0) ** 2 / np.sum(s**2, axis=0), rtol=1e-12)
    np.testing.assert_allclose(whole.effective, merged.effective, rtol=1e-12)
    one = np.zeros((100, 1))
    one[3] = 5.0
    assert Squares.of(one).effective == pytest.approx(1, rel=1e-12) and Squares.of(np.zeros((9, 1))).effective == 9


@pytest.mark.parametrize("index", [1.0, 1.5, 3.0])
def test_the_tail_index_of_a_power_distribution(index):
    found = Squares.of(rng().pareto(index, (80_000, 50)) + 1).tail
    assert abs(np.mean(found) / index - 1) < 5 / math.sqrt(400 * 50)  # the standard error is index / sqrt(k), k = 400


def intervals(g, truth):
    """For draws of mean zero, a column an experiment: whether the interval holds the variance, and whether it is to be
    trusted."""
    s = Squares.of(g * g)
    margin = s.margin(0.95)
    return np.abs(s.moments.mean - truth) <= np.where(np.isfinite(margin), margin, 2 * s.error), np.isfinite(margin) & (
        s.trust >= 0
    )


@pytest.mark.parametrize(
    "name, n", [("normal", 500), ("normal", 4000), ("uniform", 500), ("uniform", 4000), ("laplace", 8000)]
)
def test_intervals_hold_at_their_level(name, n):
    generator, shape = rng(n), (n, 1000)
    g, truth = {
        "normal": lambda: (generator.standard_normal(shape), 1.0),
        "uniform": lambda: (generator.uniform(-1, 1, shape), 1 / 3),
        "laplace": lambda: (generator.laplace(size=shape), 2.0),
    }[name]()
    held, trusted = intervals(g, truth)
    z = 4 * math.sqrt(0.95 * 0.05 / 1000)
    assert 0.95 - z <= np.mean(held[trusted]) <= 0.985 and np.mean(trusted) > 0.8


def test_intervals_that_do_not_hold_are_not_to_be_trusted():
    held, trusted = intervals(rng(5).standard_t(2.2, (20_000, 200)), 2.2 / 0.2)
    assert np.mean(held) < 0.85 and np.mean(trusted) < 0.05


# evaluations of the cost

COUNTS = [
    (coins, lambda: scg.ScoreFunction(), 1),
    (coins, lambda: scg.ScoreFunction(baseline=scg.MovingAverage()), 1),
    (coins, lambda: LOO(5), 5),
    (coins, lambda: scg.ARM(), 2),
    (coins, lambda: scg.DisARM(), 2),
    (coins, lambda: scg.REBAR(), 3),
    (coins, lambda: scg.RELAX(lambda phi, z: phi * z, np.array(0.3)), 1),
    (coins, lambda: scg.Enumerate(), 2),
    (coins, lambda: scg.UnorderedSet(2), 2),
    (coins, lambda: scg.MeasureValued(), 2),
    (coins, lambda: scg.StraightThrough(), 1),
    (mixed, lambda: scg.ARM(), 2),
    (mixed, lambda: LOO(3), 3),
    (mixed, lambda: scg.Enumerate(), 2 * 4),
    (mixed, lambda: scg.MeasureValued(), 2 * 4),
    (bowl, lambda: scg.Reparameterized(), 1),
    (bowl, lambda: scg.MeasureValued(), 4),
    (bowl, lambda: scg.MuProp(), 2),
]


@pytest.mark.parametrize("model, estimator, count", COUNTS)
def test_evaluations_are_those_that_the_estimators_say(model, estimator, count):
    graph = scg.trace(model, UNIT if model is bowl else np.zeros(4), rng=rng())
    node = next(iter(graph.stochastic))
    assert evaluations(graph.bind({node: estimator()})) == count


def test_an_objective_of_several_samples_evaluates_the_cost_as_often():
    """Against a graph of one sample: VIMCO of two, and the mean over three."""

    def bound(t, rng, samples, gradient):
        return scg.objectives.elbo(
            lambda z: dist.Bernoulli(logits=0.3).log_prob(z),
            guide=dist.Bernoulli(logits=t),
            samples=samples,
            rng=rng,
            gradient=gradient,
        )

    def one(t, rng):
        return bound(t, rng, 1, "score function")

    rows = {
        "one": {},
        "VIMCO of two": lambda t, rng: bound(t, rng, 2, "VIMCO"),
        "three": lambda t, rng: bound(t, rng, 3, "score function"),
    }
    report = variance.compare(one, rows, args=(np.array(0.4),), replicates=100, rng=rng())
    assert [report[name].total.evaluations for name in rows] == [1, 2, 3]


def test_an_estimator_from_outside_is_counted_too():
    class Thrice(Estimator):
        def expand(self, down):
            p = down.distribution.p
            f0, f1, _ = down.one_by_one(np.reshape([0.0, 1.0, 1.0], (3, 1)))
            return np.sum((p - scg.stop_gradient(p)) * (f1 - f0))

    graph = scg.trace(coins, np.zeros(4), rng=rng())
    assert evaluations(graph.bind(b=Thrice())) == 3


# comparisons

LINE = {"score function": {}, "pathwise": {"x": scg.Reparameterized()}, "measure-valued": {"x": scg.MeasureValued()}}
TABLE = {"score function": (495, 1546), "pathwise": (4, 72), "measure-valued": (16 * (16 / math.pi - 4), None)}


def test_the_gaussian_table_exact_beside_estimated():
    found = compare(bowl, LINE, UNIT, replicates=100_000)
    for label, (mu, sigma) in TABLE.items():
        row = found[label]
        assert row.exact_variance["mu"] == pytest.approx(mu, rel=1e-8)
        assert sigma is None or row.exact_variance["sigma"] == pytest.approx(sigma, rel=1e-8)
        for name in ("mu", "sigma"):
            entry = row.entries[f"['{name}']"]
            assert entry.exact_variance == row.exact_variance[name] and entry.variance == row.variance[name]
            assert abs(entry.variance - entry.exact_variance) < 3 * (entry.high - entry.low) / 2  # six standard errors
            assert abs(row.mean[name] - row.exact_mean[name]) < 6 * math.sqrt(entry.variance / 100_000)
            assert entry.bias_p > 1e-6 and entry.exact_bias < 1e-6
        assert row.total.variance == pytest.approx(sum(e.variance for e in row.entries.values()), rel=1e-12)
    assert not found["score function"].entries["['sigma']"].reliable and found["pathwise"].entries["['mu']"].reliable
    np.testing.assert_allclose([found.gradient["mu"], found.gradient["sigma"]], [8, 2], rtol=1e-9)


def test_one_bernoulli_of_the_literature():
    def toy(theta, rng):
        b = scg.sample(dist.Bernoulli(logits=theta), scg.ScoreFunction(), rng=rng, name="b")
        return (b - 0.45) ** 2

    rows = {"score function": {}, "leave-one-out": {"b": LOO()}, "ARM": {"b": scg.ARM()}, "DisARM": {"b": scg.DisARM()}}
    found = compare(toy, rows, np.array(math.log(3 / 7)), replicates=50_000)
    for label, truth in zip(rows, (0.0155938, 6.09e-4, 3.39e-4, 2.94e-4), strict=True):
        entry = found[label].total
        assert (
            entry.exact_variance == pytest.approx(truth, rel=2e-3)
            and abs(entry.variance - entry.exact_variance) < 3 * (entry.high - entry.low) / 2
        )
    first = found["score function"].total
    assert first.ratio_evaluations == first.ratio_seconds == 1
    for entry in found.entries:
        assert (
            entry.work_evaluations == entry.variance * entry.evaluations
            and entry.work_seconds == entry.variance * entry.seconds
        )
        assert entry.ratio_evaluations == pytest.approx(entry.work_evaluations / first.work_evaluations, rel=1e-12)
        assert entry.seconds > 0 and entry.snr == pytest.approx(
            math.sqrt(max(entry.mean**2 - entry.variance / 50_000, 0) / entry.variance), rel=1e-9
        )


@pytest.mark.parametrize("budget", [2**16, 0])
def test_bias_is_seen_where_there_is_one(budget):
    rows = {"DisARM": {"b": scg.DisARM()}, "relaxed": {"b": scg.GumbelSoftmax(2.0)}, "score function": {}}
    found = compare(coins, rows, np.full(3, 1.5), replicates=20_000, budget=budget)
    assert found.reference == ("the exact gradient" if budget else "row 'DisARM'")
    assert found["relaxed"].total.bias_p < 1e-6 and found["score function"].total.bias_p > 1e-4
    assert math.isnan(found["DisARM"].total.bias) != bool(budget)
    if budget:
        assert (
            found["relaxed"].total.exact_bias > 0.01
            and abs(found["relaxed"].total.bias / found["relaxed"].total.exact_bias - 1) < 0.1
        )


def test_common_random_numbers_make_the_difference_from_the_reference_small():
    rows = {"a": {"x": scg.Reparameterized()}, "b": {"x": scg.Reparameterized()}, "score": {"x": scg.ScoreFunction()}}
    found = compare(bowl, rows, UNIT, budget=0, baseline_row="b")
    assert found["a"].total.bias == 0 == found["a"].total.bias_error and math.isnan(found["b"].total.bias)
    assert found["score"].total.bias_error > 0


def test_precision_is_gone_on_to_and_no_further():
    loose = compare(
        bowl,
        {"pathwise": LINE["pathwise"], "measure-valued": LINE["measure-valued"]},
        UNIT,
        replicates=200_000,
        precision=0.01,
    )
    tight = compare(coins, {"r": {}}, np.full(3, 0.5), replicates=4000, precision=1e-6)
    assert (
        loose.precise
        and chunks.MOST < loose.replicates < 100_000
        and loose.replicates % chunks.chunk_size(200_000, 2) == 0
    )
    assert all(row.total.error < 2.1 * 0.01 for row in loose.rows.values())
    assert not tight.precise and tight.replicates == 4000 and "precision 1e-06 was not reached" in str(tight)


def test_intervals_of_comparisons_hold_at_their_level():
    graph = scg.trace(bowl, UNIT, rng=rng()).bind(x=scg.Reparameterized())
    entries = [
        variance.compare(graph, {"r": {}}, replicates=600, rng=rng(seed), budget=0, _timed=0.0)["r"].entries["['mu']"]
        for seed in range(150)
    ]
    held = np.mean([entry.low <= 4 <= entry.high for entry in entries if entry.reliable])
    assert held >= 0.95 - 4 * math.sqrt(0.95 * 0.05 / 150) and np.mean([entry.reliable for entry in entries]) > 0.7


@pytest.mark.parametrize("replicates", [2, 3, 257])
def test_few_replicates_and_a_last_chunk_of_one(replicates):
    found = compare(coins, {"r": {}, "DisARM": {"b": scg.DisARM()}}, np.full(2, 0.5), replicates=replicates, budget=0)
    assert (
        found["r"].total.replicates == replicates
        and found["r"].total.variance > 0
        and found["r"].total.reliable == (replicates > 200)
    )
    assert found.table(80)


def test_a_variance_that_does_not_exist_or_overflows_is_said_not_to_be_reliable():
    def heavy(theta, rng):
        return scg.sample(dist.Cauchy(theta, 1.0), scg.ScoreFunction(), rng=rng, name="x") ** 3

    assert not compare(heavy, {"r": {}}, np.array(0.0), budget=0)["r"].total.reliable
    huge = compare(lambda p, rng: 1e200 * bowl(p, rng), {"r": {}}, UNIT, budget=0)["r"].total
    assert not huge.reliable and huge.variance == np.inf


def test_a_row_may_be_a_model_of_its_own():
    def sixfold(theta, rng):
        return 6 * coins(theta, rng)

    theta = np.full(3, 0.5)
    found = compare(
        coins, {"once": {}, "sixfold": sixfold, "graph": scg.trace(coins, theta, rng=rng(3))}, theta, replicates=5000
    )
    assert found["sixfold"].total.exact_variance == pytest.approx(36 * found["once"].total.exact_variance, rel=1e-9)
    # the reference is the first row's gradient
    assert found["sixfold"].total.bias_p < 1e-6 < found["graph"].total.bias_p


def test_zero_variance_is_no_trouble():
    found = compare(coins, {"r": {}, "DisARM": {"b": scg.DisARM()}, "Enumerate": {"b": scg.Enumerate()}}, np.zeros(3))
    for label in ("DisARM", "Enumerate"):
        entry = found[label].total
        assert (
            entry.variance == entry.ratio_seconds == entry.ratio_evaluations == 0
            and entry.reliable
            and entry.snr == math.inf
            and entry.bias_p == 1
        )


def test_memory_is_bounded_by_the_chunk_and_not_by_the_replicates():
    peaks = []
    graph = scg.trace(coins, np.zeros(200), rng=rng())
    for n in (2 * chunks.MOST, 12 * chunks.MOST):
        tracemalloc.start()
        compare(graph, {"r": {}}, replicates=n * chunks.PARTS // chunks.PARTS, budget=0)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert chunks.chunk_size(10**9, 200) == chunks.MOST and peaks[1] < 60e6 < 12 * chunks.MOST * 200 * 8


def test_float32_and_nested_parameters():
    def model(p, rng):
        return coins(p[0]["w"], rng) + np.sum(p[1] ** 2)

    found = compare(model, {"r": {}}, ({"w": np.zeros(2, np.float32)}, np.ones(3, np.float32)))
    assert list(found["r"].entries) == ["[0]['w']", "[1]"] and found["r"].entries["[1]"].variance == 0
    assert found["r"].variance[0]["w"].shape == (2,) and found["r"].mean[1] == pytest.approx(np.full(3, 2.0))


# what is wrong with a row, by its name


def outside(theta, rng):
    x = scg.sample(dist.Normal(theta, 1.0), scg.Reparameterized(), rng=rng, name="x")
    return np.sum(x * x) + np.where(scg.stop_gradient(np.sum(x)) > 4, np.inf, 0.0)


BAD = [
    ({}, {}, ValueError, "there are no rows"),
    ({"r": {}}, {"replicates": 1}, ValueError, "replicates must be at least 2"),
    ({"r": {}}, {"replicates": 2.5}, TypeError, "replicates must be an integer"),
    ({"r": {}}, {"precision": 2}, ValueError, "precision is a relative standard error"),
    ({"r": {}}, {"baseline_row": "s"}, ValueError, "baseline_row 's' is no row"),
    ({"r": {}}, {"progress": 5}, TypeError, "progress must be True"),
    ({"r": {}}, {"kwargs": np.ones(2)}, TypeError, "kwargs must be a dict"),
    ({"r": {}}, {"budget": -1}, ValueError, "budget must be at least 0"),
    ({"r": {}}, {"executor": 3}, TypeError, "executor must be a concurrent.futures.Executor"),
    ({"r": {"c": scg.ARM()}}, {}, ValueError, "row 'r': no stochastic node is called 'c'; there are 'b'"),
    (
        {"r": {"b": scg.Reparameterized()}},
        {},
        TypeError,
        "row 'r': b: Reparameterized needs a reparameterizable distribution",
    ),
    ({"r": {"b": 3}}, {}, TypeError, "row 'r': b: bind needs an estimator"),
    ({"r": scg.ARM()}, {}, TypeError, "row 'r': estimators are given by the name of their node"),
    ({"r": [("b", scg.ARM()), ("b", scg.DisARM())]}, {}, ValueError, "row 'r': node 'b' is bound twice"),
    ({"r": 5}, {}, TypeError, "row 'r': a row must be a mapping"),
    ([("r", {}), ("r", {})], {}, ValueError, "row 'r' is there twice"),
    ({3: {}}, {}, TypeError, "the label of a row must be a string"),
    (7, {}, TypeError, "bindings must be a mapping"),
    ({"ok": {}, "r": {"b": scg.ScoreFunction(scg.LeaveOneOut())}}, {}, TypeError, "row 'r': .*LeaveOneOut"),
    ({"ok": {}, "r": lambda theta, rng: coins(np.stack([theta[0], theta[0]]), rng) * bowl(UNIT, rng)}, {}, None, ""),
]


@pytest.mark.parametrize("rows, options, kind, words", BAD)
def test_what_is_wrong_is_said_with_the_name_of_the_row(rows, options, kind, words):
    if kind is None:
        assert compare(coins, rows, np.zeros(2)).rows
        return
    with pytest.raises(kind, match=words) as caught:
        compare(coins, rows, np.zeros(2), **options)
    assert isinstance(caught.value, scg.ScgError) and "test_comparing.py" in str(caught.value)


def test_a_row_or_a_directory_that_is_not_there_is_named(tmp_path):
    found = compare(coins, {"one": {}, "two": {"b": scg.DisARM()}}, np.zeros(2))
    with pytest.raises(KeyError) as caught:
        found["three"]
    assert isinstance(caught.value, scg.ScgError) and str(caught.value).startswith(
        "no row is called 'three'; there are 'one', 'two' ("
    )
    for write in (found.to_csv, found.to_json):
        with pytest.raises(FileNotFoundError, match=r"no such directory to write in: '.*absent'$"):
            write(tmp_path / "absent" / "v.csv")


def test_arguments_that_are_missing_or_too_many():
    graph = scg.trace(coins, np.zeros(2), rng=rng())
    with pytest.raises(TypeError, match="default_rng"):
        variance.compare(graph, {"r": {}}, rng=None)
    with pytest.raises(TypeError, match="no further arguments"):
        variance.compare(graph, {"r": {}}, args=(1.0,), rng=rng())
    with pytest.raises(TypeError, match="need a graph: give one, or a function"):
        variance.compare(3, {"r": {}}, rng=rng())
    with pytest.raises(ValueError, match="no parameters"):
        variance.compare(lambda empty, rng: coins(np.zeros(2), rng), {"r": {}}, args=({},), rng=rng())
    with pytest.raises(ValueError, match=r"row 'other': its parameters must be those of the others"):
        variance.compare(graph, {"r": {}, "other": scg.trace(coins, np.zeros(3), rng=rng())}, rng=rng())


@pytest.mark.parametrize("model", [outside, lambda theta, rng: coins(theta, rng) + np.log(bowl(UNIT, rng) - 1)])
def test_a_cost_that_is_not_finite_is_named_with_row_and_replicate(model):
    with pytest.raises(
        ValueError, match=r"row 'r': the cost of replicate \d+ is not finite \((nan|-?inf)\), and \d+ in all of"
    ):
        compare(model, {"ok": coins, "r": model}, np.zeros(2), budget=0)


# reports


@pytest.fixture(scope="module")
def found():
    rows = {
        "REINFORCE": {},
        "ARM": {"b": scg.ARM()},
        "a label that is far too long for a column of its own": {"b": LOO()},
        "<b>": {"b": scg.DisARM()},
    }
    return variance.compare(
        lambda p, rng: coins(p["w"] + p["v"], rng),
        rows,
        args=({"w": np.full(2, 0.5), "v": np.ones(2)},),
        replicates=500,
        rng=rng(),
    )


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_the_table_fits(found, width):
    lines = found.table(width).splitlines()
    assert max(map(len, lines)) <= width and sum(line.startswith("REINFORCE") for line in lines) == 3
    assert ("far too long for a column of its own" in found.table(width)) == (width == 200) and "×time" in lines[0]
    assert ("evals" in lines[0].replace("×evals", "")) == (width >= 100)


def test_the_table_is_as_wide_as_the_terminal(found, monkeypatch):
    monkeypatch.setenv("COLUMNS", "70")
    assert str(found) == found.table(70) and found.table(70) != found.table(90)


def test_csv_and_json_hold_the_entries(found, tmp_path):
    found.to_csv(tmp_path / "v.csv")
    with open(tmp_path / "v.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["row"], r["parameter"]) for r in rows] == [(e.row, e.parameter) for e in found.entries] and len(
        rows
    ) == 12
    assert all(
        float(r["variance"]) == e.variance and int(r["replicates"]) == 500
        for r, e in zip(rows, found.entries, strict=True)
    )
    found.to_json(tmp_path / "v.json")
    told = json.loads((tmp_path / "v.json").read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert (
        told["seed"] == found.seed
        and told["versions"]["numpy"] == np.__version__
        and set(told["machine"]) == {"cpu", "cores", "system"}
    )
    assert told["rows"]["ARM"] == "b: ARM()" and told["entries"][0]["variance"] == found.entries[0].variance
    assert sorted(p.name for p in tmp_path.iterdir()) == ["v.csv", "v.json"]


def test_the_seed_that_is_told_gives_the_draws(found):
    graph = scg.trace(coins, np.full(3, 0.5), rng=rng())
    one = compare(graph, {"r": {}}, budget=0)
    parts, size = [], chunks.chunk_size(2000, 3)
    for i in range(-(-2000 // size)):
        n, seed = min(size, 2000 - i * size), np.random.SeedSequence(one.seed, spawn_key=(i,))
        parts.append(join(graph.gradients(rng=np.random.default_rng(seed), replicates=n), n))
    np.testing.assert_allclose(one["r"].variance, np.var(np.concatenate(parts), axis=0, ddof=1), rtol=1e-12)


def test_writing_is_all_or_nothing(found, tmp_path, monkeypatch):
    path = tmp_path / "v.csv"
    path.write_text("old")

    def full(*args):
        raise OSError("no space")

    monkeypatch.setattr(report.os, "replace", full)
    with pytest.raises(OSError, match="no space"):
        found.to_csv(path)
    assert path.read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_a_notebook_shows_a_table(found):
    shown = found._repr_html_()
    assert shown.count("<tr>") == 13 and "&lt;b&gt;" in shown and "<b>" not in shown


def test_a_report_that_is_shown_by_itself_is_short(found):
    assert repr(found) == f"<Report of 500 replicates: {', '.join(found)}>" and len(repr(found["ARM"])) < 40


def test_numbers_take_few_characters():
    shown = [report.number(x) for x in (0.0, 1.0, 1234.5, 12345.0, 0.00123, 1.5e-7, -2e-5, math.inf, math.nan)]
    assert shown == ["0", "1", "1234", "1.23e4", "0.00123", "1.50e-7", "-2.00e-5", "inf", "-"]
    assert [report.duration(x) for x in (2.0, 0.0123, 4.5e-5, 3e-8)] == ["2 s", "12.3 ms", "45 us", "30 ns"]


def test_figures_are_drawn_where_matplotlib_is_and_missed_where_it_is_not(found, tmp_path, monkeypatch):
    make, rows = lambda t: scg.trace(coins, np.full(2, float(t)), rng=rng()), {"r": {}, "DisARM": {"b": scg.DisARM()}}
    swept = variance.sweep(make, [-1, 0, 1], rows, rng=rng(), replicates=500)
    if importlib.util.find_spec("matplotlib") is not None:
        for name, draw in (("a.svg", found), ("b.png", found), ("c.svg", swept)):
            draw.plot(tmp_path / name)
        found.plot(tmp_path / "d.pdf", work="evaluations", parameter="['w']")
        text = (tmp_path / "a.svg").read_text()
        assert text.startswith("<?xml") and len(list(tmp_path.iterdir())) == 4
        with pytest.raises(ValueError, match="xyz"):
            found.plot(tmp_path / "e.xyz")
    with pytest.raises(ValueError, match="work must be"):
        found.plot(tmp_path / "f.svg", work="time")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    for draw in (found, swept):
        with pytest.raises(ImportError, match=r"pip install 'scg\[plot\]'"):
            draw.plot(tmp_path / "g.svg")


def test_figures_are_drawn_into_axes_of_the_callers(found, tmp_path):
    swept = variance.sweep(
        lambda t: scg.trace(coins, np.full(2, float(t)), rng=rng()), [-1, 1], {"r": {}}, rng=rng(), replicates=500
    )
    figure = Figure()
    left, right = figure.subplots(1, 2)
    assert found.plot(ax=left) is left and swept.plot(ax=right) is right
    assert all(label in [text.get_text() for text in left.texts] for label in found) and right.get_xlabel() == "value"
    figure.canvas.draw()
    assert any(text.get_text().endswith("s") for text in left.get_xticklabels())  # seconds have their unit
    assert found.plot(tmp_path / "both.svg", ax=left) is left and (tmp_path / "both.svg").exists()
    for arguments in ({}, {"ax": 3}):
        with pytest.raises(TypeError, match="ax"):
            found.plot(**arguments)


def test_what_is_slow_once_is_not_taken_for_what_a_gradient_takes():
    """A first call that compiles for a second leaves batches in which the cost of a call counts for little."""
    sizes = []

    def draw(n, rng):
        if n == 256 and n not in sizes:
            time.sleep(1.0)
        sizes.append(n)
        return rng.standard_normal((n, 2))

    row = Sampled.of(scg.bridge.Samples(draw), np.random.default_rng(0))
    timing.times_of(chunks.Task({"slow once": row}), 256, 0, 0.02)
    assert min(sizes[sizes.index(256) :]) >= 256


def test_linear_algebra_has_one_thread_within_and_as_many_as_before_after():
    before = threads.counts()
    with threads.one_thread():
        with threads.one_thread():
            assert set(threads.counts()) <= {1}
        assert set(threads.counts()) <= {1}
    assert (
        threads.counts() == before
        and set(before) > set()
        or not any(Path(np.__file__).parent.parent.glob("numpy.libs/*openblas*"))
    )


def test_a_gradient_without_noise_is_compared_all_the_same():
    def cost(t, rng):
        scg.sample(dist.Bernoulli(logits=t), scg.ScoreFunction(), rng=rng, name="b")  # which nobody looks at
        return np.sum(t**2)

    report = scg.variance.compare(
        cost, {"as it is": {}}, args=(np.ones(2),), kwargs={}, rng=np.random.default_rng(0), replicates=300
    )
    assert report["as it is"].total.variance == 0
