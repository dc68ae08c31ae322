"""Every saboteur is caught, exactly and by replicates, at any seed; the same graph with the right estimator passes: it
is the mistake that is caught."""

import functools
import pickle
from dataclasses import FrozenInstanceError

import numpy as np
import pytest

import scg
from benchmarks import unbiased
from scg import distributions as dist
from scg.errors import ScgError
from scg.exact.values import as_values
from scg.stochastic.estimator import Estimator
from scg.testing import Saboteur, assert_bias, assert_unbiased, judge, saboteurs
from scg.testing.sabotage import scores
from tests.support.drawn import every

ALL = saboteurs()
BY_NAME = {s.name: s for s in ALL}
EACH = pytest.mark.parametrize("saboteur", ALL, ids=lambda s: s.name)
FIFTH = pytest.mark.parametrize("saboteur", every(5, ALL), ids=lambda s: s.name)


def rng(seed=0):
    return np.random.default_rng(seed)


@functools.cache
def truth(name):
    """The exact gradient of the right estimator's graph."""
    return scg.exact.gradient(BY_NAME[name].twin())


def test_there_are_many_and_each_has_its_own_name():
    assert len(ALL) >= 20 and len(BY_NAME) == len(ALL)
    assert isinstance(ALL, tuple) and all(isinstance(s, Saboteur) for s in ALL)


@EACH
def test_it_says_that_it_is_unbiased_and_is_rejected_exactly(saboteur):
    assert saboteur.estimator.unbiased
    with pytest.raises(AssertionError, match="^biased: the exact mean is not the exact gradient"):
        assert_unbiased(saboteur.graph(), rng=rng())


@EACH
def test_it_is_rejected_by_replicates(saboteur):
    verdict = judge(saboteur.graph(), rng=rng(), reference=truth(saboteur.name))
    assert verdict.status == "biased" and verdict.draws > 0, verdict


@EACH
@pytest.mark.long
def test_it_is_rejected_at_twenty_seeds(saboteur):
    graph, reference = saboteur.graph(), truth(saboteur.name)
    assert {judge(graph, rng=rng(seed), reference=reference).status for seed in range(20)} == {"biased"}


@FIFTH
def test_it_is_rejected_against_differences(saboteur):
    assert judge(saboteur.graph(), rng=rng(1), reference="differences").status == "biased"


@FIFTH
def test_the_right_estimator_passes_exactly(saboteur):
    assert assert_unbiased(saboteur.twin(), rng=rng()).method == "exact"


@FIFTH
def test_the_right_estimator_passes_by_replicates(saboteur):
    assert assert_unbiased(saboteur.twin(), rng=rng(1), reference="exact", detect=0.25, power=0.999)


@FIFTH
def test_only_the_estimator_is_wrong(saboteur):
    """The model is its twin's: the same expectation of the cost, and the same gradient of it."""
    wrong, right = saboteur.graph(), saboteur.twin()
    np.testing.assert_allclose(scg.exact.expectation(wrong), scg.exact.expectation(right), rtol=1e-9)
    np.testing.assert_allclose(scg.exact.gradient(wrong), truth(saboteur.name), rtol=1e-8, atol=1e-12)


@FIFTH
def test_its_bias_is_found_too_where_one_is_expected(saboteur):
    assert_bias(saboteur.graph(), rng=rng())


@EACH
def test_it_is_a_value_that_prints(saboteur):
    text = str(saboteur)
    assert (
        text.startswith(f"{saboteur.name}: {saboteur.mistake}\n") and saboteur.source in text and " at 0x" not in text
    )
    assert len(saboteur.mistake) > 20
    with pytest.raises(FrozenInstanceError):
        saboteur.name = "harmless"
    with pytest.raises(ValueError):
        saboteur.theta[...] = 0


@FIFTH
def test_it_can_be_given_as_a_function_and_sent_to_another_process(saboteur):
    again = pickle.loads(pickle.dumps(saboteur))
    given = {"reference": truth(saboteur.name), "alpha": 1e-3}
    verdicts = [judge(s.cost, s.theta, rng=rng(3), **given) for s in (saboteur, again)]
    assert verdicts[0].status == "biased" and str(verdicts[0]) == str(verdicts[1])


def mean(name):
    return scg.exact.moments(BY_NAME[name].graph()).mean


def test_the_numbers_that_are_known():
    assert truth("score along the path") == pytest.approx(3) and mean("score along the path") == pytest.approx(1.5)
    np.testing.assert_allclose(truth("score on a moving support"), [0, 1], atol=1e-9)
    np.testing.assert_allclose(mean("score on a moving support"), [1 / 3, -1 / 3])
    assert truth("wrong conditional noise") == pytest.approx(0.025) and mean(
        "wrong conditional noise"
    ) == pytest.approx(0.055, abs=1e-4)
    for name, factor in {
        "flipped sign": -1,
        "leave-one-out over n": 2 / 3,
        "moving average with the current cost": 0.8,
        "antithetic pair not halved": 2,
        "minibatch factor missing": 0.5,
        "score on a pathwise draw": 2,
    }.items():
        direct = (
            0.3 * dist.Bernoulli(logits=BY_NAME[name].theta).mean / BY_NAME[name].theta.size
            if "path" not in name
            else 0.0
        )
        np.testing.assert_allclose(mean(name) - direct, factor * (truth(name) - direct), rtol=1e-7)


def test_the_script_that_runs_them_all_leaves_no_estimator_out_and_tells_what_is_wrong():
    assert unbiased.unbiased_exports() == set(unbiased.CORRECT) - {"objectives"}
    assert {
        "ARM",
        "LeaveOneOut",
        "Reparameterized",
    } <= unbiased.unbiased_exports() and "StraightThrough" not in unbiased.unbiased_exports()
    right, wrong = ([row[0] for row in rows] for rows in (unbiased.ROWS, [(s.name,) for s in ALL]))
    found = {}
    for kind, names, options in (("correct", right[-5:], {"detect": 0.5, "power": 0.99}), ("saboteurs", wrong[:5], {})):
        for name in names:
            _, rows = unbiased.verdicts((kind, (right if kind == "correct" else wrong).index(name), range(2), options))
            statuses = [status for status, _ in rows]
            found.setdefault(kind, {})[name] = {"biased": statuses.count("biased"), "exact": "biased"}
    assert unbiased.failures(found, 2) == []
    found["correct"][right[-1]]["biased"] = 1
    found["saboteurs"][wrong[0]]["biased"] = 1
    found["saboteurs"][wrong[1]]["exact"] = "unbiased"
    assert unbiased.failures(found, 2) == [wrong[0], wrong[1], right[-1]]


# the truth that they are held against: the derivative of the cost's values, whatever stands in the graph for the sake
# of derivatives


class Held(Estimator):
    """A draw that adds nothing to a gradient."""


def square(t, rng, estimator=None):
    z = scg.sample(dist.Bernoulli(logits=t), estimator or scg.ScoreFunction(), rng=rng)
    return (z - 0.2) ** 2 * t


@pytest.mark.parametrize(
    "estimator", [scg.ScoreFunction(), scg.Enumerate(), scg.ScoreFunction(samples=3, baseline=scg.LeaveOneOut())]
)
def test_the_mean_of_a_gradient_is_the_gradient_of_the_mean_to_second_order(estimator):
    t = np.array(0.4)
    gradient = scg.trace(lambda t, rng: scg.grad(square)(t, rng=rng, estimator=estimator), t, rng=rng())
    assert scg.exact.expectation(gradient) == pytest.approx(scg.exact.gradient(square, t))
    assert scg.exact.gradient(gradient) == pytest.approx(scg.exact.hessian(square, t))
    assert scg.exact.moments(gradient).mean == pytest.approx(scg.exact.hessian(square, t))
    assert scg.exact.moments(gradient).variance >= 0


def chain(t, rng, estimator):
    x = scg.sample(dist.Bernoulli(logits=t[0]), estimator, rng=rng, name="x")
    y = scg.sample(dist.Bernoulli(logits=t[1] + x), estimator, rng=rng, name="y")
    return (x - 0.2) ** 2 * t[1] + x * y + 2 * y


@pytest.mark.parametrize(
    "estimator",
    [
        scg.ScoreFunction(),
        scg.ScoreFunction(baseline=scg.Constant(0.5)),
        scg.ScoreFunction(samples=2, baseline=scg.LeaveOneOut()),
        scg.Enumerate(),
        scg.UnorderedSet(2),
        scores.AnyOrder(),
    ],
    ids=repr,
)
def test_second_derivatives_are_tested_by_giving_the_gradient_as_the_cost(estimator):
    v, theta = np.array([1.0, -0.5]), np.array([0.4, -0.6])
    product = lambda t, rng: np.sum(scg.grad(chain)(t, rng=rng, estimator=estimator) * v)
    verdict = assert_unbiased(product, theta, rng=rng())
    assert verdict.method == "exact"
    np.testing.assert_allclose(
        verdict.reference, scg.exact.hessian(chain, theta, rng=rng(), estimator=scg.ScoreFunction()) @ v, rtol=1e-9
    )
    for reference, detect in (("exact", 0.5), ("differences", 2.0)):  # which have noise of their own
        assert_unbiased(product, theta, rng=rng(1), reference=reference, detect=detect, power=0.99)


def test_an_estimator_that_is_right_to_first_order_only_is_biased_to_second():
    v, theta = np.array([1.0, -0.5]), np.array([0.4, -0.6])
    wrong = lambda t, rng: np.sum(scg.grad(chain)(t, rng=rng, estimator=scores.FirstOrderOnly()) * v)
    assert judge(chain, theta, rng=rng(), estimator=scores.FirstOrderOnly()).status == "unbiased"
    for reference in ("auto", "exact", "differences"):
        assert judge(wrong, theta, rng=rng(1), reference=reference).status == "biased"


@pytest.mark.parametrize(
    "gradient", ["pathwise", "doubly reparameterized", "score function", "VIMCO", "sticking the landing"]
)
def test_a_bound_is_held_against_its_own_derivative_and_not_against_what_stands_for_it(gradient):
    def bound(t, rng):
        guide = dist.Normal(t, 1.2)
        return scg.objectives.iwae(
            lambda z: dist.Normal(0.0, 1.0).log_prob(z), guide=guide, samples=2, rng=rng, gradient=gradient
        )

    graph = scg.trace(bound, np.array(0.3), rng=rng())
    assert scg.exact.gradient(graph) == pytest.approx(truth("weights counted once"), rel=1e-6)
    status = judge(graph, rng=rng(), reference="exact", detect=0.5).status
    assert status == ("biased" if gradient == "sticking the landing" else "unbiased")


def test_what_is_stopped_has_a_value_still():
    stopped = lambda t, rng: scg.stop_gradient(t) * square(t, rng)
    t = np.array(0.4)
    assert scg.exact.gradient(stopped, t) == pytest.approx(scg.exact.gradient(lambda t, rng: t * square(t, rng), t))
    assert judge(stopped, t, rng=rng()).status == "biased"


@pytest.mark.parametrize("estimator", [Held(), scg.Reparameterized()])
def test_the_ends_of_a_support_move(estimator):
    cost = lambda t, rng: np.exp(scg.sample(dist.Uniform(t[0], t[1]), estimator, rng=rng)) * t[1]
    a, b = t = np.array([-0.5, 1.2])
    value = (np.exp(b) - np.exp(a)) / (b - a)
    np.testing.assert_allclose(
        scg.exact.gradient(cost, t),
        [b * (value - np.exp(a)) / (b - a), value + b * (np.exp(b) - value) / (b - a)],
        rtol=1e-9,
    )


def test_a_step_on_a_moving_support_has_no_exact_gradient():
    cost = lambda t, rng: np.sum(scg.sample(dist.Uniform(0.0, t), Held(), rng=rng) > 0.5) * 1.0
    with pytest.raises(ScgError, match="support.* moves"):
        scg.exact.gradient(cost, np.array(1.3))


def test_a_graph_without_such_nodes_is_left_as_it_is():
    cost = scg.trace(square, np.array(0.4), rng=rng()).cost
    assert as_values([cost])[0] is cost


@pytest.mark.parametrize("offset", [0.0, 1e6, 1e10])
def test_a_constant_in_the_cost_hides_no_bias(offset):
    def cost(t, rng):
        b = scg.sample(dist.Bernoulli(logits=t), scg.StraightThrough(), rng=rng, name="b")
        return (b - 0.45) ** 4 + offset

    graph = scg.trace(cost, np.array(0.3), rng=np.random.default_rng(0))
    assert scg.testing.judge(graph, rng=np.random.default_rng(0)).status == "biased"
    for estimator in (
        scg.ScoreFunction(),
        scg.DisARM(),
        scg.Enumerate(),
        scg.ScoreFunction(samples=2, baseline=scg.LeaveOneOut()),
    ):
        assert scg.testing.judge(graph.bind(b=estimator), rng=np.random.default_rng(0)).status == "unbiased"
