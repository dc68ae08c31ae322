"""Where a variance comes from, which estimators are best, and lines along a parameter: against closed forms and
enumeration."""

import csv
import json
import math
from concurrent.futures import ThreadPoolExecutor
from xml.etree import ElementTree

import numpy as np
import pytest
from scipy.special import expit

import scg
import scg.estimators
from scg import distributions as dist
from scg import variance
from scg.stochastic.estimator import Estimator
from scg.testing.structure import join
from scg.variance import halving

LOO = lambda n=2: scg.ScoreFunction(samples=n, baseline=scg.LeaveOneOut())
rng = np.random.default_rng


def two(t, rng):
    a = scg.sample(dist.Bernoulli(logits=t[0]), scg.ScoreFunction(), rng=rng, name="a")
    b = scg.sample(dist.Categorical(logits=t[1] * np.array([0.0, 1.0, -1.0])), scg.ScoreFunction(), rng=rng, name="b")
    return (a + 2 * b - 0.3) ** 2


def three(t, rng):
    draws = [
        scg.sample(dist.Bernoulli(logits=t[i]), scg.ScoreFunction(), rng=rng, name=name) for i, name in enumerate("abc")
    ]
    return sum((i + 1) * (b - 0.45) ** 2 for i, b in enumerate(draws))


T = np.array([0.3, -0.5])
BINDINGS = [
    {},
    {"a": LOO()},
    {"a": scg.DisARM(), "b": LOO()},
    {"a": scg.Enumerate(), "b": scg.UnorderedSet(2)},
    {"a": scg.DisARM(), "b": scg.DisARM()},
]


@pytest.mark.parametrize("binding", BINDINGS, ids=range(len(BINDINGS)))
def test_replicates_agree_with_enumeration_and_that_with_the_exact_variance(binding):
    graph = scg.trace(two, T, rng=rng(0)).bind(binding)
    exact = variance.attribute(graph)
    found = variance.attribute(graph, rng=rng(1), budget=0, replicates=20_000)
    assert (
        exact.method == "exact" and found.replicates == 20_000 and set(exact.shares) == set(found.shares) == {"a", "b"}
    )
    assert exact.variance == pytest.approx(np.sum(scg.exact.moments(graph).variance), rel=1e-9)
    assert found.variance == pytest.approx(exact.variance, rel=0.1)
    firsts, totals = ([getattr(share, name) for share in exact.shares.values()] for name in ("first", "total"))
    assert sum(firsts) <= 1 + 1e-12 <= sum(totals) + 2e-12 and exact["a"].first + exact["b"].total == pytest.approx(
        1, abs=1e-12
    )
    for name, share in found.shares.items():
        for part in ("first", "total"):
            error = getattr(share, f"{part}_error")
            # five standard errors
            assert 0 < error < 0.1 and abs(getattr(share, part) - getattr(exact[name], part)) < 2.6 * error


def test_without_a_generator_nothing_is_sampled():
    for call in (
        lambda: variance.attribute(two, args=(T,), budget=0),
        lambda: variance.search(three, args=(np.zeros(3),)),
        lambda: variance.sweep(lambda v: v, [1], {}),
        lambda: variance.compare(two, {"r": {}}, args=(T,)),
    ):
        with pytest.raises(
            TypeError, match=r"rng must be np.random.default_rng\(seed\), got nothing .*test_guides.py:"
        ):
            call()


def test_shares_by_hand():
    graph = scg.trace(two, T, rng=rng(0))
    table = np.array(
        [[join(graph.run(values={"a": a, "b": b}).gradients(), 1)[0] for b in range(3)] for a in (0.0, 1.0)]
    )
    p = np.array([1 - expit(T[0]), expit(T[0])])
    q = np.exp(T[1] * np.array([0, 1, -1]))
    q /= q.sum()
    spread = lambda values, weights: np.sum(np.einsum("k,kd->d", weights, (values - weights @ values) ** 2))
    whole = spread(table.reshape(6, 2), np.outer(p, q).reshape(6))
    found = variance.attribute(graph, rng=rng(0))
    assert found["a"].first == pytest.approx(spread(np.einsum("abd,b->ad", table, q), p) / whole, rel=1e-12)
    assert found["b"].first == pytest.approx(spread(np.einsum("abd,a->bd", table, p), q) / whole, rel=1e-12)


def test_noises_that_interact_and_that_do_not():
    def product(t, rng):  # gradient (2xy, x^2) at 0: variances 4 and 2, the first all interaction
        x = scg.sample(dist.Normal(t[0], 1.0), scg.Reparameterized(), rng=rng, name="x")
        y = scg.sample(dist.Normal(t[1], 1.0), scg.Reparameterized(), rng=rng, name="y")
        return x * x * y

    def chain(t, rng):  # gradient 2(e + f)
        x = scg.sample(dist.Normal(t, 1.0), scg.Reparameterized(), rng=rng, name="x")
        y = scg.sample(dist.Normal(x, np.sqrt(3.0)), scg.Reparameterized(), rng=rng, name="y")
        return y * y

    for model, t, truth in (
        (product, np.zeros(2), {"x": (1 / 3, 1), "y": (0, 2 / 3)}),
        (chain, np.array(0.0), {"x": (0.25, 0.25), "y": (0.75, 0.75)}),
    ):
        found = variance.attribute(model, args=(t,), rng=rng(2), replicates=20_000)
        for name, (first, total) in truth.items():
            share = found[name]
            assert (
                abs(share.first - first) < 2.6 * share.first_error
                and abs(share.total - total) < 2.6 * share.total_error
            )


def test_a_draw_that_takes_more_numbers_for_other_parameters_is_frozen_too():
    def counts(t, rng):  # at 0 the gradient is n
        a = scg.sample(dist.Bernoulli(logits=t), scg.ScoreFunction(), rng=rng, name="a")
        return t * scg.sample(dist.Poisson(2 + 2 * a), scg.ScoreFunction(), rng=rng, name="n")

    found = variance.attribute(counts, args=(np.array(0.0),), rng=rng(3), replicates=800)
    n = np.array([[rng(seed).poisson(rate) for rate in (2.0, 4.0)] for seed in range(4000)])  # by the same numbers
    alone, between, whole = np.var(n.mean(axis=1)), 1.0, 3.0 + 1.0
    assert found.variance == pytest.approx(whole, rel=0.2) and 0.5 < alone / whole < 0.8
    truth = {"a": (between, whole - alone), "n": (alone, whole - between)}
    for name, (first, total) in truth.items():
        share = found[name]
        assert (
            abs(share.first - first / whole) < 2.6 * share.first_error + 0.03
            and abs(share.total - total / whole) < 2.6 * share.total_error + 0.03
        )


def test_noise_of_no_node_and_no_noise():
    def batch(t, rng):
        rows = scg.minibatch(6, 2, rng=rng, name="rows")
        x = scg.sample(dist.Normal(t, 1.0), scg.Reparameterized(), rng=rng, name="x")
        return np.sum(rows.rows(np.arange(6.0)) * x**2)

    found = variance.attribute(batch, args=(np.array(1.0),), rng=rng(0), replicates=2000)
    assert set(found.shares) == {"rows", "x"} and found["rows"].first > 0.05
    with pytest.raises(ValueError, match="no noise to attribute"):
        variance.attribute(lambda t, rng: np.sum(t**2) + 0 * two(T, rng), args=(T,), rng=rng(0))
    with pytest.raises(ValueError, match="not finite"):
        variance.attribute(
            lambda t, rng: np.sum(np.sqrt(scg.sample(dist.Normal(t, 1.0), scg.Reparameterized(), rng=rng, name="x"))),
            args=(T + 2,),
            rng=rng(1),
        )
    with pytest.raises(ValueError, match="replicates must be at least 2"):
        variance.attribute(two, args=(T,), rng=rng(0), replicates=1)


def test_an_attribution_prints_the_largest_first_and_writes(tmp_path):
    found = variance.attribute(two, args=(T,), rng=rng(0))
    lines = str(found).splitlines()
    assert lines[0].startswith("variance ") and [line.split()[0] for line in lines[2:]] == sorted(
        found.shares, key=lambda n: -found[n].total
    )
    found.to_csv(tmp_path / "a.csv")
    with open(tmp_path / "a.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {r["node"]: float(r["total"]) for r in rows} == {name: share.total for name, share in found.shares.items()}


# search


def test_the_best_estimator_is_found_and_bound():
    graph = scg.trace(three, np.full(3, -0.8), rng=rng(0))
    estimators = [scg.ScoreFunction(), LOO(), scg.ARM(), scg.DisARM(), scg.GumbelSoftmax(0.5)]
    found = variance.search(graph, {"b": estimators[:-1]}, rng=rng(1), replicates=1000, work="evaluations")
    assert found.binding == {"b": estimators[3]} and list(found.report)[0] == "as declared" and len(found.report) == 5
    assert str(found) == f"best of what was tried: b: DisARM()\n\n{found.report}"
    assert found.graph.stochastic["b"].statics["site"].estimator is estimators[3]
    again = variance.search(graph, {"b": estimators[:-1]}, rng=rng(1), replicates=1000, work="evaluations")
    with ThreadPoolExecutor(2) as executor:
        there = variance.search(
            graph, {"b": estimators[:-1]}, rng=rng(1), replicates=1000, work="evaluations", executor=executor
        )
    assert (
        [e.variance for e in found.report.entries]
        == [e.variance for e in again.report.entries]
        == [e.variance for e in there.report.entries]
    )


@pytest.mark.long
def test_all_valid_estimators_compete_where_none_are_named():
    found = variance.search(two, args=(T,), rng=rng(1), replicates=500, work="evaluations", budget=0)
    totals = [row.total for row in found.report.rows.values()]
    best = found.report[halving._label(found.binding)].total
    assert best.high * best.evaluations == min(e.high * e.evaluations for e in totals) < totals[0].work_evaluations / 5
    assert all(estimator.unbiased for estimator in found.binding.values())
    choices = {
        name: {type(estimator).__name__ for estimator in estimators}
        for name, estimators in halving._valid(scg.trace(two, T, rng=rng(0))).items()
    }
    assert {"ARM", "DisARM", "REBAR", "Enumerate"} <= choices["a"] and {
        "ScoreFunction",
        "DisARM",
        "Enumerate",
        "UnorderedSet",
    } <= choices["b"]
    assert not {"ARM", "REBAR", "Reparameterized"} & choices["b"]


def steep(theta, rng):
    z = scg.sample(dist.Bernoulli(logits=theta), scg.ScoreFunction(), rng=rng, name="b")
    return np.exp(0.15 * np.sum(z * np.linspace(-1, 2, z.size))) + 0.1 * np.sum(z * np.linspace(-1, 2, z.size)) ** 2


def stairs(theta, rng):
    z = scg.sample(dist.Bernoulli(logits=theta), scg.ScoreFunction(), rng=rng, name="b")
    total = np.sum(z * np.linspace(1, 2, z.size))
    return np.where(total > 6, total, 0)


def counts(theta, rng):
    return np.sum(np.sqrt(scg.sample(dist.Poisson(np.exp(theta)), scg.ScoreFunction(), rng=rng, name="b") + 1)) ** 2


@pytest.mark.parametrize(
    "fn, theta, best",
    [
        (steep, np.linspace(-1, 1, 12), scg.DoubleControlVariate),
        (stairs, np.zeros(6), scg.CoupledPairs),
        (counts, np.zeros(5), scg.StochasticDerivative),
    ],
)
def test_each_of_the_estimators_of_several_samples_and_of_steps_is_found_where_it_is_best(fn, theta, best):
    """Nobody names it: a smooth cost of many coins, one that jumps, and one of counts."""
    found = variance.search(fn, args=(theta,), rng=rng(0), replicates=2000, work="evaluations", budget=2**14)
    assert any(best.__name__ in row for row in found.report)
    if fn is not stairs:  # where DisARM is as good but for a few percent
        assert type(found.binding["b"]) is best


def steeper(theta, rng):
    z = scg.sample(dist.Bernoulli(logits=theta), scg.ScoreFunction(), rng=rng, name="b")
    return np.exp(0.6 * np.sum(z * np.linspace(-1, 2, z.size)))


def arrivals(theta, rng):
    days = [scg.sample(dist.Poisson(np.exp(theta)), scg.ScoreFunction(), rng=rng, shape=8, name=name) for name in "ab"]
    return sum([np.sum(np.sqrt(z + 1)) for z in days]) ** 2


def test_a_stein_operator_and_one_step_of_a_whole_program_are_found_without_being_named():
    """Half the slope of a cost that bends, and a step of one of sixteen counts with one rate."""
    how = {"replicates": 2000, "work": "evaluations", "budget": 2**14}
    found = variance.search(steeper, args=(np.linspace(-1, 1, 12),), rng=rng(0), **how)
    assert type(found.binding["b"]) is scg.RODEO
    found = variance.search(arrivals, args=(np.array(0.0),), rng=rng(0), **how)
    assert {type(e) for e in found.binding.values()} == {scg.StochasticDerivative}
    assert any("prune='program'" in row for row in found.report)


def test_every_unbiased_estimator_is_a_candidate():
    """But one that needs a function, and the one that sums samples out together."""
    kinds = {getattr(scg.estimators, name) for name in scg.estimators.__all__}
    unbiased = {kind for kind in kinds if issubclass(kind, Estimator) and kind.unbiased}
    tried = {type(make()) for make in halving.CANDIDATES}
    assert tried == unbiased - {scg.RELAX, scg.Marginalize}


def test_many_assignments_are_decided_node_by_node(monkeypatch):
    monkeypatch.setattr(halving, "JOINT", 20)
    estimators = [scg.ScoreFunction(), LOO(), scg.DisARM()]
    found = variance.search(
        three,
        dict.fromkeys("abc", estimators),
        args=(np.full(3, -0.8),),
        rng=rng(0),
        replicates=300,
        work="evaluations",
    )
    assert found.binding == dict.fromkeys("abc", estimators[2])
    assert max(len(label.split(",")) for label in found.report) >= 3


@pytest.mark.parametrize(
    "candidates, words",
    [
        ({"b": [scg.Reparameterized()]}, "b: Reparameterized needs"),
        ({"z": [scg.ARM()]}, "no stochastic node is called 'z'"),
        ({"b": []}, "there is none for node 'b'"),
        ([scg.ARM()], "candidates must be a mapping"),
        ({"b": [scg.ScoreFunction(scg.LeaveOneOut())]}, "LeaveOneOut"),
    ],
)
def test_candidates_that_are_not_valid_are_named(candidates, words):
    with pytest.raises((ValueError, TypeError), match=words):
        variance.search(three, candidates, args=(np.zeros(3),), rng=rng(0))


def test_what_else_a_search_refuses():
    with pytest.raises(ValueError, match="work must be"):
        variance.search(three, args=(np.zeros(3),), rng=rng(0), work="time")
    with pytest.raises(ValueError, match="no estimator to choose"):
        variance.search(
            lambda t, rng: np.sum(t * scg.sample(dist.Normal(0.0, 1.0), scg.Reparameterized(), rng=rng)),
            args=(np.ones(2),),
            rng=rng(0),
        )


# sweeps


def coin(t, rng):
    b = scg.sample(dist.Bernoulli(logits=t), scg.ScoreFunction(), rng=rng, name="b")
    return np.sum((b - 0.45) ** 2)


def test_a_line_along_a_parameter_of_an_estimator():
    graph = scg.trace(coin, np.array([0.4, 0.1]), rng=rng(0))
    told = []
    swept = variance.sweep(
        lambda n: graph,
        [1, 2, 4, 8, 16],
        lambda n: {"plain": {"b": scg.ScoreFunction(samples=n)}},
        rng=rng(0),
        name="samples",
        replicates=4000,
        progress=lambda done, total: told.append((done, total)),
    )
    n, exact = swept.line("plain", "exact_variance")
    np.testing.assert_allclose(exact * n, exact[0], rtol=1e-9)
    assert swept.slope("plain", "exact_variance")[0] == pytest.approx(-1, abs=1e-9) and told == [
        (i, 5) for i in range(1, 6)
    ]
    slope, low, high = swept.slope("plain", "variance")
    assert (
        low < slope < high
        and abs(slope + 1) < 0.1
        and swept.slope("plain", "evaluations")[0] == pytest.approx(1, abs=1e-9)
    )
    assert [r["plain"].total.seconds > 0 for r in swept] == [True] * len(swept)


def test_the_interval_of_a_slope_is_that_of_least_squares():
    from scipy import stats

    swept = variance.sweep(
        lambda t: scg.trace(coin, np.array([t]), rng=rng(0)),
        [0.5, 1.0, 2.0, 4.0],
        {"r": {}},
        rng=rng(0),
        replicates=300,
    )
    fit = stats.linregress(*map(np.log, swept.line("r", "variance")))
    half = stats.t.ppf(0.975, 2) * fit.stderr
    np.testing.assert_allclose(swept.slope("r", "variance"), (fit.slope, fit.slope - half, fit.slope + half), rtol=1e-9)


def test_a_sweep_has_the_same_draws_at_every_value_and_writes(tmp_path):
    graph = scg.trace(coin, np.array([0.4]), rng=rng(0))
    swept = variance.sweep(
        lambda _: graph, ["one", "two"], {"r": {}, "ARM": {"b": scg.ARM()}}, rng=rng(0), replicates=300
    )
    assert swept[0]["r"].total.variance == swept[1]["r"].total.variance and swept[0].seed == swept[1].seed
    swept.to_csv(tmp_path / "s.csv")
    swept.to_json(tmp_path / "s.json")
    with open(tmp_path / "s.csv", newline="") as file:
        assert [(r["value"], r["row"]) for r in csv.DictReader(file)] == [
            (v, r) for v in ("one", "two") for r in ("r", "ARM")
        ]
    told = json.loads((tmp_path / "s.json").read_text())
    assert (
        [r["value"] for r in told["reports"]] == ["one", "two"]
        and "versions" in told
        and "versions" not in told["reports"][0]
    )
    assert (
        str(swept).splitlines()[0].split() == ["value", "r", "ARM"] and str(swept).splitlines()[1].split()[0] == "one"
    )


def test_what_a_sweep_refuses():
    make = lambda _: scg.trace(coin, np.zeros(1), rng=rng(0))
    few = {"rng": rng(0), "replicates": 10}
    with pytest.raises(ValueError, match="needs values"):
        variance.sweep(make, [], {}, **few)
    with pytest.raises(TypeError, match="a function of the value"):
        variance.sweep(3, [1], {}, **few)
    with pytest.raises(ValueError, match="k = 2: row 'r': no stochastic node is called 'c'"):
        variance.sweep(make, [1, 2], lambda k: {"r": {"c": scg.ARM()} if k == 2 else {}}, name="k", **few)
    swept = variance.sweep(make, [1], {"r": {}}, **few)
    with pytest.raises(ValueError, match="no row is called 's'"):
        swept.line("s")
    with pytest.raises(ValueError, match="two positive values"):
        swept.slope("r")
    two_points = variance.sweep(make, [1, 2], {"r": {}}, **few)
    assert math.isnan(two_points.slope("r", "variance")[1]) and repr(two_points) == "<Sweep of 2 values of value: r>"


def test_noise_of_an_estimator_alone_is_attributed_to_its_draw():
    def cost(t, rng):  # linear in the draw, whose own value the gradient then does not contain
        z = scg.sample(dist.OneHotCategorical(logits=t), scg.Enumerate(k=1), rng=rng, name="z")
        b = scg.sample(dist.Bernoulli(logits=t[0]), scg.ScoreFunction(samples=2), rng=rng, name="b")
        return np.sum(z * np.arange(3.0)) + b * t[1]

    graph = scg.trace(cost, np.array([0.3, -0.4, 0.9]), rng=np.random.default_rng(0))
    found = scg.variance.attribute(graph, rng=np.random.default_rng(0), replicates=1000)
    assert set(found.shares) == {"z", "b"}
    assert found.variance == pytest.approx(float(np.sum(scg.exact.moments(graph).variance)), rel=1e-12)


def test_a_notebook_shows_the_shares_that_are_printed():
    graph = scg.trace(
        lambda t, rng: scg.sample(dist.Bernoulli(logits=t), scg.ScoreFunction(), rng=rng, name="<b>") * 1.0,
        np.array(0.3),
        rng=np.random.default_rng(0),
    )
    found = variance.attribute(graph)
    page = ElementTree.fromstring(found._repr_html_())
    title, head, *lines = str(found).splitlines()
    names = [th.text for th in page.iter("th")]
    assert page.find("caption").text == title and names == ["node", "alone", "with others", "estimator"]
    assert all(name in head for name in names)
    cells = [[td.text for td in tr.iter("td")] for tr in page.iter("tr")][1:]
    assert len(cells) == len(lines) == 1 and all(cell in lines[0] for cell in cells[0]) and cells[0][0] == "<b>"
