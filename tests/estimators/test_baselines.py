"""Baselines: exact means, what each one is, and that none contains the draw that it stands against."""

import copy
import functools

import numpy as np
import pytest

import scg
from scg import distributions as dist
from scg.errors import EstimatorError, ScgTypeError, ScgValueError
from scg.estimators.baselines import squared_score
from scg.special import sigmoid
from scg.stochastic.analysis import draws
from scg.stochastic.surrogate import Downstream
from tests.support.oracle import first_and_second, moments

pytestmark = pytest.mark.fast

THETA = np.array([0.3, -0.5])


def coin(logits, rng, baseline, samples=1, **more):
    return scg.sample(dist.Bernoulli(logits=logits), scg.ScoreFunction(baseline, samples), rng=rng, **more)


def used(baseline):
    """One that has seen some costs before."""
    for seed in range(5):
        scg.grad(lambda t, rng: np.sum((coin(t, rng, baseline) - 0.3) ** 2))(
            np.array(0.4), rng=np.random.default_rng(seed)
        )
    return baseline


def taught(**more):
    phi = np.array([0.3, -0.2])
    return scg.Learned(
        lambda phi, x: phi[0] + phi[1] * x, phi, functools.partial(scg.optim.Adam, learning_rate=0.05), **more
    )


BASELINES = {
    "MovingAverage": lambda: used(scg.MovingAverage(0.8)),
    "Optimal": lambda: used(scg.Optimal(0.8)),
    "Learned": lambda: taught()(np.array(1.5)),
    "Learned, normalized": lambda: taught(normalize=True)(np.array(1.5)),
}


def separate(t, rng, baseline, samples):
    x = coin(t, rng, baseline, samples)
    return np.mean((x - 0.45) ** 2 * np.array([1.0, 2.0]) + x * t)


def mixing(t, rng, baseline, samples):
    x = coin(t, rng, baseline, samples)
    return np.sum(x * t) ** 2 + np.prod(x + t)


def shared(t, rng, baseline, samples):
    """Two draws, one feeding the other, by one baseline."""
    x = coin(t[0], rng, baseline, samples)
    y = coin(x * t[1] + t[0], rng, baseline, samples)
    return (y * t[1] + x - 0.3) ** 2 - 2 * x


@pytest.mark.parametrize("samples", [1, 2, 3])
@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("model", [separate, mixing, shared])
def test_mean_is_exact(model, name, samples):
    """First derivatives; and second ones with a single sample, where the boxes carry on."""
    for found, exact in first_and_second(
        lambda t, rng: model(t, rng, BASELINES[name](), samples), THETA, order=2 if samples == 1 else 1
    ):
        np.testing.assert_allclose(found, exact, rtol=1e-10, atol=1e-12)


def test_optimal_and_leave_one_out_of_samples_have_exact_means():
    for baseline in (scg.Optimal(), scg.LeaveOneOut()):
        for found, exact in first_and_second(lambda t, rng: mixing(t, rng, baseline, 2), THETA):
            np.testing.assert_allclose(found, exact, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("n", [2, 3, 5])
def test_shares_of_leave_one_out_are_costs_less_the_mean_of_the_others(n):
    f, loo = np.random.default_rng(n).normal(3.0, 1.0, (n, 4)), scg.LeaveOneOut()
    right = np.array([f[j] - np.mean(np.delete(f, j, axis=0), axis=0) for j in range(n)]) / n
    for found in (loo.shares(f, f, None), scg.Baseline.shares(loo, f, f, None)):
        np.testing.assert_allclose(found, right, rtol=1e-12, atol=1e-14)
    assert not np.any(loo.shares(np.full((n, 4), 0.375), f, None))


def exact_mean(baseline, theta=np.array(0.4), cost=lambda b: (b + 0.6) ** 2):
    """The mean of a first-order gradient over the two values of a coin, each from the state that the baseline has now;
    and the exact one."""
    p, found = sigmoid(theta), 0.0
    for b, weight in ((0.0, 1 - p), (1.0, p)):
        now = copy.deepcopy(baseline)
        graph = scg.trace(
            lambda t, rng, now=now: cost(coin(t, rng, now, name="b")), theta, rng=np.random.default_rng(0)
        )
        found += weight * graph.run(values={"b": np.array(b)}).gradients()
    return found, p * (1 - p) * (cost(1.0) - cost(0.0))


class FoldsInFirst(scg.Baseline):
    """The mistake: the average with this draw's cost in it."""

    def __init__(self, decay):
        self.decay, self.level = decay, 0.0

    def value(self, down):
        self.level = self.decay * self.level + (1 - self.decay) * float(down.now())
        return self.level


def test_an_average_that_contains_the_draw_shrinks_the_gradient():
    for baseline, factor in ((scg.MovingAverage(0.7), 1), (FoldsInFirst(0.7), 0.7)):
        found, exact = exact_mean(used(baseline))
        assert found == pytest.approx(factor * exact, rel=1e-12)


def test_moving_average_is_the_average_before():
    baseline, seen = scg.MovingAverage(0.5), []
    for k in range(4):
        cost = scg.trace(
            lambda t, rng, k=k: (coin(t, rng, baseline) + k + 1) ** 2, np.array(0.0), rng=np.random.default_rng(k)
        ).cost
        (node,) = draws([cost])
        weights = 0.5 ** np.arange(len(seen))[::-1]
        expected = np.sum(weights * seen) / np.sum(weights) if seen else 0.0
        for _ in range(2):  # looking twice at the same draw teaches nothing
            assert baseline.value(Downstream(node, cost, 1)) == pytest.approx(expected, rel=1e-14)
        seen.append(float(cost.value))


def test_optimal_is_the_coefficient_of_least_variance():
    """With many samples b* is E[F s^2]/E[s^2] up to sampling error; for one coin that leaves no variance."""
    theta, p = np.array(0.4), sigmoid(0.4)
    f, s = np.array([0.36, 2.56]), np.array([-p, 1 - p])
    weights = np.array([1 - p, p])
    best = np.sum(weights * f * s**2) / np.sum(weights * s**2)
    fn = lambda b: lambda t, rng: (coin(t, rng, b) + 0.6) ** 2
    assert moments(fn(scg.Constant(best)), theta)[1] == pytest.approx(0, abs=1e-13)
    baseline = scg.Optimal(decay=0.999)
    for seed in range(40):  # the same coin forty times a step
        scg.grad(lambda t, rng: np.sum((coin(t, rng, baseline, shape=(40,)) + 0.6) ** 2))(
            theta, rng=np.random.default_rng(seed)
        )
    assert moments(fn(baseline), theta)[1] < 0.01 * moments(fn(None), theta)[1]


def test_squared_score_of_every_parameter():
    loc, scale = scg.parameter(np.array([0.2, -1.0])), scg.parameter(np.array(1.5))
    z = scg.sample(dist.Normal(loc, scale), scg.ScoreFunction(), rng=np.random.default_rng(0))
    e = (z.value - loc.value) / 1.5
    for order in (1, None):
        found = squared_score(Downstream(z, np.sum(z * z), order), z if order is None else z.value, 0)
        np.testing.assert_allclose(
            found.value if order is None else found, (e**2 + (e**2 - 1) ** 2) / 1.5**2, rtol=1e-12
        )


def test_leave_one_out_over_a_sample_axis_refuses_costs_that_mix_there():
    """Also where only some of the costs mix."""

    def cost(t, rng):
        x = coin(t, rng, scg.LeaveOneOut(), shape=(2,), name="x")
        return np.sum(x * t) + np.prod(np.sum(x, axis=0))

    with pytest.raises(EstimatorError, match=r"x .*mix axes \[0, 1\].*samples=n"):
        scg.grad(cost)(THETA, rng=np.random.default_rng(0))


class MeanOfAll(scg.Baseline):
    """The mistake: divided by n, and with the draw's own cost in the sum."""

    def value(self, down):
        raise NotImplementedError

    def of_samples(self, f, draws, down):
        return np.sum(f, axis=0, keepdims=True) / f.shape[0]


@pytest.mark.parametrize("n", [2, 3])
def test_mean_of_all_samples_is_no_baseline(n):
    """It shrinks the gradient by (n - 1) / n, in the order-one estimate as in the other."""
    for baseline, factor in ((scg.LeaveOneOut(), 1), (MeanOfAll(), (n - 1) / n)):
        ((found, exact),) = first_and_second(
            lambda t, rng: (coin(t, rng, baseline, n) + 0.6) ** 2, np.array(0.4), order=1
        )
        assert found == pytest.approx(factor * exact, rel=1e-12)


def regression(baseline_of, steps, width=8):
    """Costs that depend on inputs x: (b + x)^2; the last gradients' spread."""
    rng = np.random.default_rng(0)
    spread = []
    for _ in range(steps):
        x = rng.normal(size=width)
        g = scg.grad(lambda t, rng, x=x: np.sum((coin(t, rng, baseline_of(x)) + 3 * x) ** 2))(np.zeros(width), rng=rng)
        spread.append(g)
    return np.mean(np.square(spread[-100:]))


@pytest.mark.slow
@pytest.mark.parametrize("normalize", [False, True])
def test_learned_baseline_learns_beside_the_model(normalize):
    phi = {"w": np.zeros(3)}
    optimizer = functools.partial(scg.optim.Adam, learning_rate=0.1)
    baseline = scg.Learned(
        lambda phi, x: phi["w"][0] + phi["w"][1] * x + phi["w"][2] * x * x, phi, optimizer, normalize
    )
    assert regression(baseline, 400) < 0.2 * regression(lambda x: None, 400)
    m, v = baseline.level()
    assert (m, v) == (0.0, 1.0) if not normalize else v > 1 and m > 1
    x = np.linspace(-1, 1, 5)
    predicted = m + v * (phi["w"][0] + phi["w"][1] * x + phi["w"][2] * x * x)
    assert np.max(np.abs(predicted - (9 * x**2 + 3 * x + 0.5))) < 1.5  # E[(b + 3x)^2] at p = 1/2


def test_learned_step_is_down_the_squared_error():
    class Seen:
        def __init__(self, parameters):
            self.found = []

        def step(self, gradients):
            self.found.append(gradients)

    phi = np.array([0.5, -1.0])
    baseline = scg.Learned(lambda phi, x: phi[0] + phi[1] * x, phi, Seen)
    x, f = np.array([1.0, 2.0, 4.0]), np.array([3.0, -1.0, 0.5])
    error = f - (0.5 - x)
    assert baseline.train(x, f) == pytest.approx(np.mean(error**2), rel=1e-14)
    np.testing.assert_allclose(baseline._optimizer.found[0], [-2 * np.mean(error), -2 * np.mean(error * x)], rtol=1e-14)


def test_a_learned_baseline_is_trained_only_after_the_draw():
    """Two draws by one baseline: what the first teaches (costs that the second influenced) waits until both are
    done."""
    baseline = taught()
    before = baseline.parameters.copy()
    scg.grad(lambda t, rng: shared(t, rng, baseline(np.array(1.5)), 1))(THETA, rng=np.random.default_rng(0))
    np.testing.assert_array_equal(baseline.parameters, before)
    scg.grad(lambda t, rng: shared(t, rng, baseline(np.array(1.5)), 1))(THETA, rng=np.random.default_rng(1))
    assert np.all(baseline.parameters != before)


def test_nothing_is_learned_from_costs_at_a_relaxed_value():
    """REBAR looks at what lies further down with x between 0 and 1; the draws there that have a baseline are seen once,
    as they were drawn."""
    baseline, seen = scg.MovingAverage(), []

    def cost(t, rng):
        x = scg.sample(dist.Bernoulli(logits=t[0]), scg.REBAR(), rng=rng)
        c = (coin(x * t[1], rng, baseline) + 1 + x) ** 2
        seen.append(float(c.value))
        return c

    for seed in range(3):
        scg.grad(cost)(THETA, rng=np.random.default_rng(seed))
    lessons = [float(lesson[0]) for _, lesson in baseline._waiting.values()]
    assert lessons == [seen[2]]
    assert baseline._total == pytest.approx(0.99 * seen[0] + seen[1])


def test_inputs_that_depend_on_the_draw_are_refused():
    baseline = taught()

    def cost(t, rng):
        x = coin(t[0], rng, None)
        y = coin(t[1] + x, rng, baseline(x))  # an older draw is a fine input
        return (x + y) ** 2

    scg.grad(cost)(THETA, rng=np.random.default_rng(0))
    t, rng = scg.parameter(THETA), np.random.default_rng(0)
    late = baseline(None)
    b = coin(t[0], rng, late, name="b")
    late._inputs = b * 2
    with pytest.raises(EstimatorError, match="must not depend on its sample"):
        scg.gradients(b * b, [t])


def test_refusals():
    for kind in (scg.MovingAverage, scg.Optimal):
        for decay in (1.0, -0.1, "0.9", np.nan):
            with pytest.raises(ScgValueError, match="decay"):
                kind(decay)
    with pytest.raises(ScgTypeError, match="fn must be"):
        scg.Learned(np.zeros(2), np.zeros(2))
    with pytest.raises(ScgTypeError, match="optimizer must be"):
        scg.Learned(lambda phi, x: x, np.zeros(2), optimizer=0.1)
    with pytest.raises(EstimatorError, match="give the learned baseline its inputs"):
        scg.grad(lambda t, rng: coin(t, rng, taught()) ** 2)(np.array(0.1), rng=np.random.default_rng(0))
    with pytest.raises(EstimatorError, match="does not broadcast"):
        scg.grad(lambda t, rng: np.sum(coin(t, rng, taught()(np.zeros(3)))))(THETA, rng=np.random.default_rng(0))
    with pytest.raises(EstimatorError, match="baseline must be a baseline"):
        scg.ScoreFunction(baseline=0.5)


@pytest.mark.parametrize("trained", [0, 20])
@pytest.mark.parametrize("baseline", [scg.MovingAverage, scg.Optimal, lambda: taught()(0.5)])
def test_what_a_baseline_has_learned_is_the_same_on_all_ways_through_an_if(baseline, trained):
    """The exact mean over the ways is that of one baseline, and leaves it as it was."""
    estimator = scg.ScoreFunction(baseline())

    def cost(t, rng):
        b = scg.sample(dist.Bernoulli(logits=t), estimator, rng=rng, name="b")
        if b > 0:
            return scg.sample(dist.Bernoulli(logits=2 * t), estimator, rng=rng, name="c") * t + b + 3
        return t**2 + 1

    t = np.array(0.3)
    for seed in range(trained):
        scg.grad(cost)(t, rng=np.random.default_rng(seed))
    graph, before = scg.trace(cost, t, rng=np.random.default_rng(0)), copy.deepcopy(estimator.state)
    for _ in range(2):
        assert scg.exact.moments(graph).mean == pytest.approx(scg.exact.gradient(graph), rel=1e-10)
    assert scg.testing.judge(graph, rng=np.random.default_rng(0)).status == "unbiased"
    np.testing.assert_equal(estimator.state, before)


@pytest.mark.parametrize(
    "make",
    [
        lambda: scg.ScoreFunction(scg.MovingAverage()),
        lambda: scg.ScoreFunction(scg.Optimal()),
        lambda: scg.ScoreFunction(taught()(0.5)),
        lambda: scg.DoubleControlVariate(coefficient=None),
        lambda: scg.RODEO(optimizer=functools.partial(scg.optim.Adam, learning_rate=0.05)),
        lambda: scg.REBAR(optimizer=functools.partial(scg.optim.Adam, learning_rate=0.05)),
    ],
    ids=["MovingAverage", "Optimal", "Learned", "DoubleControlVariate", "RODEO", "REBAR"],
)
def test_replicates_are_held_against_the_state_that_an_estimator_had_at_first(make):
    """Also where each is a run of the function, as an ``if`` comes out otherwise: from the same numbers the last of
    many is what it is alone, and the next ones learn nothing from it."""
    estimator = make()

    def cost(t, rng):
        b = scg.sample(dist.Bernoulli(logits=t), estimator, rng=rng)
        a = scg.sample(dist.Bernoulli(logits=0.5), scg.ScoreFunction(), rng=rng)
        return 3 + b * t if a > 0.5 else 2 - b**2

    t = np.array(0.3)
    for seed in range(20):
        scg.grad(cost)(t, rng=np.random.default_rng(seed))
    graph = scg.trace(cost, t, rng=np.random.default_rng(0))
    before, rng = copy.deepcopy(estimator.state), np.random.default_rng(1)
    found = graph.gradients(rng=rng, replicates=40)
    np.testing.assert_equal(estimator.state, before)
    again = scg.trace(cost, t, rng=np.random.default_rng(0)).gradients(rng=np.random.default_rng(1), replicates=40)
    np.testing.assert_array_equal(found, again)


@pytest.mark.parametrize("baseline", [scg.MovingAverage, scg.Optimal, lambda: taught()(0.5)])
@pytest.mark.parametrize("early", [False, True])
def test_the_ways_that_a_sample_chose_have_one_baseline_in_replicates(baseline, early):
    """Also the way that was recorded before the estimator learned: else b would depend on the sample."""
    estimator = scg.ScoreFunction(baseline())

    def cost(t, rng):
        b = scg.sample(dist.Bernoulli(logits=t), estimator, rng=rng)
        return 2 + 0 * t if b > 0 else 1 + 0 * t

    def is_right(graph):
        """Whether p g_1 + (1 - p) g_0 is the gradient, p (1 - p) (2 - 1), g the two values that there are."""
        found = np.unique(np.round(graph.gradients(rng=np.random.default_rng(1), replicates=60), 12))
        for seed in range(20):
            scg.grad(cost)(t, np.random.default_rng(seed))
        return len(found) == 2 and any(np.isclose(p * g + (1 - p) * (np.sum(found) - g), p * (1 - p)) for g in found)

    t, p = np.array(0.3), sigmoid(0.3)
    graph = scg.trace(cost, t, np.random.default_rng(0))
    if early:
        assert is_right(graph)
    assert is_right(scg.trace(cost, t, np.random.default_rng(0)))
    assert is_right(graph)


@pytest.mark.parametrize("baseline", [scg.MovingAverage, scg.Optimal, lambda: taught()(0.5)])
def test_exact_moments_are_those_of_replicates_and_teach_nothing(baseline):
    """Whether lessons wait, that of the graph's own samples among them, or not."""
    estimator = scg.ScoreFunction(baseline())

    def cost(t, rng):
        return 2 + scg.sample(dist.Bernoulli(logits=t), estimator, rng=rng)

    t, p = np.array(0.3), sigmoid(0.3)
    for graph in [scg.trace(cost, t, np.random.default_rng(seed)) for seed in range(3)]:
        graph.gradients()
        before = copy.deepcopy(estimator.state)
        found = scg.exact.moments(graph)
        np.testing.assert_equal(estimator.state, before)
        low, high = np.unique(graph.gradients(rng=np.random.default_rng(1), replicates=60))
        assert found.mean == pytest.approx(p * (1 - p))
        assert found.variance == pytest.approx(p * (1 - p) * (high - low) ** 2)


@pytest.mark.parametrize("branch", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_inputs_that_other_samples_lead_to_are_those_of_each_replicate(branch, seed):
    """Whichever run was recorded. Were they those of the recorded one in each way, b would depend on its sample."""
    b = scg.Learned(lambda phi, x: phi[0] * x["a"] + phi[1] * np.sum(x["t"]), np.array([3.0, 0.2]))

    def cost(t, rng):
        above = coin(t, rng, None)
        below = coin(t * above, rng, b({"a": above, "t": np.array(0.5)}))
        if branch and below > 0:
            return 2 + above + below
        return 2 + above + below

    t = np.array(0.3)
    graph = scg.trace(cost, t, np.random.default_rng(seed))
    found = scg.exact.moments(graph)
    assert found.mean == pytest.approx(scg.exact.gradient(graph), rel=1e-10)
    other = scg.exact.moments(scg.trace(cost, t, np.random.default_rng(seed + 1)))
    assert found.variance == pytest.approx(other.variance, rel=1e-10)
    many = graph.gradients(rng=np.random.default_rng(1), replicates=400)
    single = [scg.trace(cost, t, np.random.default_rng(k)).gradients() for k in range(40)]
    assert set(np.round(single, 9)) <= set(np.round(many, 9))


HELD = {
    "inputs": lambda above: scg.ScoreFunction(scg.Learned(lambda phi, x: phi * x, np.array(3.0))(above.value)),
    "a constant": lambda above: scg.ScoreFunction(scg.Constant(3 * float(above.value))),
    "a temperature": lambda above: scg.REBAR(temperature=0.5 + float(above.value)),
    "a choice by an if": lambda above: scg.ScoreFunction(scg.Constant(3.0 if above > 0 else 1.0)),
    "nodes": lambda above: scg.ScoreFunction(scg.Learned(lambda phi, x: phi * x, np.array(3.0))(above)),
}


@pytest.mark.parametrize("name", HELD)
def test_an_estimator_that_is_made_of_a_number_of_one_run_is_refused_in_replicates(name):
    """Behind an ``if`` on its own sample it would be another one in each way."""

    def cost(t, rng):
        above = coin(t, rng, None)
        below = scg.sample(dist.Bernoulli(logits=t * above), HELD[name](above), rng=rng, name="below")
        assert above.value >= 0
        return 2 + above + below**2

    t = np.array(0.3)
    graph = scg.trace(cost, t, np.random.default_rng(0))
    assert np.isfinite(scg.grad(cost)(t, np.random.default_rng(0)))
    if name in ("a choice by an if", "nodes"):
        assert scg.exact.moments(graph).mean == pytest.approx(scg.exact.gradient(graph), rel=1e-9)
        return
    for refused in (scg.exact.moments, lambda graph: graph.gradients(rng=np.random.default_rng(0), replicates=3)):
        with pytest.raises(EstimatorError, match="below .*made of numbers of one run.*Learned"):
            refused(scg.trace(cost, t, np.random.default_rng(0)))
