"""Noise that is no node: whichever way it is made of a generator, no door that replays a recorded run takes its numbers
of that run for those of all."""

import copy
import pickle
import random
import time

import numpy as np
import pytest
import scipy.stats

import scg
from scg import distributions as dist
from scg.core.tree import map_leaves
from scg.errors import PlanError, ScgValueError
from scg.stochastic.likeness import first_difference

RNG = np.random.default_rng
T = np.array(0.3)


def by_raw_state(rng):
    other = RNG(0)
    other.bit_generator.state = rng.bit_generator.state
    return other.random()


# by name: a number of its own in each run
WAYS = {
    "a deep copy": lambda rng: copy.deepcopy(rng).random(),
    "a shallow copy": lambda rng: copy.copy(rng).random(),
    "pickled": lambda rng: pickle.loads(pickle.dumps(rng)).random(),
    "jumped": lambda rng: np.random.Generator(rng.bit_generator.jumped()).random(),
    "spawned": lambda rng: rng.spawn(1)[0].random(),
    "its state as a seed": lambda rng: RNG(rng.bit_generator.state["state"]["state"]).random(),
    "its state": by_raw_state,
    "its seed": lambda rng: RNG(rng.bit_generator.seed_seq).random(),
    "its entropy": lambda rng: RNG(rng.bit_generator.seed_seq.entropy).random(),
    "a number as a seed": lambda rng: RNG(rng.integers(2**31)).random(),
    "numbers as a seed": lambda rng: RNG(rng.integers(2**31, size=3)).random(),
    "its bits": lambda rng: np.random.Generator(rng.bit_generator).random(),
    "raw": lambda rng: rng.bit_generator.random_raw() / 2**64,
    "old bits": lambda rng: np.random.RandomState(rng.bit_generator).random_sample(),
    "SciPy": lambda rng: scipy.stats.uniform.rvs(random_state=rng),
    "Python": lambda rng: random.Random(int(rng.integers(2**31))).random(),
    "Python by its state": lambda rng: random.Random(rng.bit_generator.state["state"]["state"]).random(),
    "made inside": lambda rng: RNG().random(),
    "a clock": lambda rng: time.perf_counter() % 1,
    "itself": lambda rng: rng.random(),
}


def by_an_if(b, e):
    return b + e if b > 0.5 else 2 * b


def by_an_index(b, e):
    return np.stack([k * b for k in range(1, 10)])[int(1e6 * e) % 9]


def by_both(b, e):
    return b * e if b > 0.5 else b + e


OF_THE_SEED = {"its seed", "its entropy"}  # the same in all runs from one generator
FRESH = [way for way in WAYS if way not in OF_THE_SEED]

# where it enters: the first enters with a coin alone, which is 0 in some of the runs that are looked at
PLACES = {
    "a product": lambda b, e: b * e,
    "a sum": lambda b, e: (b - e) ** 2,
    "an index": by_an_index,
    "an if": by_an_if,
    "an if, both": by_both,
}

# what replays: it must refuse
DOORS = {
    "run": lambda cost: scg.trace(cost, T, rng=RNG(0)).run(rng=RNG(1), replicates=4),
    "judge": lambda cost: scg.testing.judge(cost, T, rng=RNG(0)),
    "assert_unbiased": lambda cost: scg.testing.assert_unbiased(scg.trace(cost, T, rng=RNG(0)), rng=RNG(1)),
    "compare": lambda cost: scg.variance.compare(cost, {"a": {}}, args=(T,), replicates=100, rng=RNG(0)),
    "expectation": lambda cost: scg.exact.expectation(cost, T, rng=RNG(0)),
    "gradient": lambda cost: scg.exact.gradient(scg.trace(cost, T, rng=RNG(0))),
    "hessian": lambda cost: scg.exact.hessian(scg.trace(cost, T, rng=RNG(0))),
    "moments": lambda cost: scg.exact.moments(cost, T, rng=RNG(0)),
}


def cost_of(way, place):
    def cost(theta, rng):
        b = scg.sample(dist.Bernoulli(logits=theta), scg.ScoreFunction(), rng=rng, name="b")
        return place(b, way(rng)) + 0 * theta

    return cost


@pytest.mark.fast
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("way", WAYS)
def test_doors_that_replay_refuse_noise_that_is_no_node(way, place):
    cost = cost_of(WAYS[way], PLACES[place])
    for asked in DOORS.values():
        with pytest.raises(ScgValueError, match=r"(not a function of its samples|takes numbers from).*scg\.sample"):
            asked(cost)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("way", WAYS)
def test_replicates_of_gradients_refuse_it_or_run_the_function_for_each(way, place):
    graph = scg.trace(cost_of(WAYS[way], PLACES[place]), T, rng=RNG(0))
    try:
        found = graph.gradients(rng=RNG(1), replicates=40)
    except ScgValueError as error:
        assert "not a function of its samples" in str(error)
        return
    assert len(np.unique(found)) > 5  # of a coin and frozen noise: two


@pytest.mark.parametrize("way", FRESH)
def test_single_runs_with_new_samples_have_noise_of_their_own(way):
    graph = scg.trace(cost_of(WAYS[way], PLACES["a sum"]), T, rng=RNG(0))
    for some in (graph, graph.bind(b=scg.StochasticDerivative())):
        rng = RNG(1)
        assert len({float(some.run(rng=rng).cost.value) for _ in range(20)}) > 8
        assert len({float(some.gradients(rng=rng)) for _ in range(20)}) > 8


@pytest.mark.parametrize("way", FRESH)
def test_a_plan_draws_it_anew_or_refuses_it(way):
    step, rng = scg.value_and_grad(cost_of(WAYS[way], PLACES["a sum"])), RNG(0)
    planned = scg.compile(step)
    try:
        values = {float(planned(T, rng=rng)[0]) for _ in range(20)}
    except PlanError as error:
        assert "test_hidden_noise.py" in str(error)
        plain = scg.compile(step, fallback=True)
        values = {float(plain(T, rng=rng)[0]) for _ in range(20)}
    else:
        assert planned.planned > 10
    assert len(values) > 8


@pytest.mark.fast
def test_the_line_at_which_it_enters_is_named():
    def cost(theta, rng):
        z = scg.sample(dist.Normal(theta, 1.0), scg.ScoreFunction(), rng=rng)
        y = np.sin(z)
        e = copy.deepcopy(rng).normal()
        y = y + e  # here
        return y**2

    line = cost.__code__.co_firstlineno + 4
    with pytest.raises(ScgValueError, match=rf"differ from \S*test_hidden_noise.py:{line}, in cost on"):
        scg.exact.expectation(cost, T)


@pytest.mark.fast
@pytest.mark.parametrize("door", DOORS)
def test_a_number_that_was_read_of_a_sample_is_refused_where_others_are_drawn(door):
    """It is that of the recorded run for ever: of E[z^2] a replay would make E[z] z_0."""

    def cost(theta, rng):
        b = scg.sample(dist.Bernoulli(logits=theta), scg.ScoreFunction(), rng=rng)
        return (b + 1) * (1 + float(b.value))

    with pytest.raises(ScgValueError, match=r"not a function of its samples.*node\.value"):
        DOORS[door](cost)


@pytest.mark.fast
@pytest.mark.parametrize("added", [lambda cost: cost.value, lambda cost: RNG().random()], ids=["detached", "noise"])
def test_what_is_added_to_a_cost_is_in_no_gradient(added):
    """E[2 f - a] has the gradient 2 dE[f] for every number a: replicates of it, and verdicts, are as right as fresh
    runs; the expectation is not that of the recorded number."""

    def cost(theta, rng):
        b = scg.sample(dist.Bernoulli(logits=theta), scg.ScoreFunction(), rng=rng)
        f = (b - 0.2) ** 2
        return 2 * f - added(f)

    p = 1 / (1 + np.exp(-T))
    exact = 2 * (0.64 - 0.04) * p * (1 - p)
    graph = scg.trace(cost, T, rng=RNG(0))
    found = graph.gradients(rng=RNG(1), replicates=4000)
    assert abs(found.mean() - exact) < 5 * found.std() / np.sqrt(4000)
    assert scg.testing.judge(graph, rng=RNG(1), reference=exact, detect=0.5).status == "unbiased"
    with pytest.raises(ScgValueError, match="not a function of its samples"):
        scg.exact.expectation(graph)


def in_an_inner_gradient(theta, rng):
    def inner(s):
        return np.sin(s) * scg.sample(dist.Normal(s, 1.0), scg.Reparameterized(), rng=rng)

    z = scg.sample(dist.Normal(theta, 1.0), scg.Reparameterized(), rng=rng)
    return scg.grad(inner)(z) + z**2


def from_a_child(theta, rng):
    return scg.sample(dist.Normal(theta, 1.0), scg.ScoreFunction(), rng=rng.spawn(1)[0]) ** 2


def of_fixed_noise(theta, rng):
    z = scg.sample(dist.Normal(theta, 1.0), scg.ScoreFunction(), rng=rng, shape=4)
    return np.sum((z - RNG(0).normal(size=4)) ** 2)


def of_a_minibatch(theta, rng):
    rows = scg.minibatch(10, 3, rng=rng)
    z = scg.sample(dist.Normal(theta, 1.0), scg.ScoreFunction(baseline=scg.LeaveOneOut()), rng=rng, shape=3)
    return rows.factor * np.sum((z - rows.rows(np.arange(10.0))) ** 2)


def coupled(theta, rng):
    z = scg.sample(dist.Normal(theta, 1.0), scg.Reparameterized(), rng=rng, shape=8, coupling=scg.noise.Sobol())
    return np.sum(z**3)


SEEN = []


def written_down(theta, rng):
    z = scg.sample(dist.Normal(theta, 1.0), scg.ScoreFunction(), rng=rng)
    SEEN.append(float(z.value))
    return z**2


def behind_an_if(theta, rng):
    b = scg.sample(dist.Bernoulli(logits=theta), scg.ScoreFunction(), rng=rng)
    if b > 0.5:
        return scg.sample(dist.Normal(theta, 1.0), scg.ScoreFunction(), rng=rng) ** 2
    return 2.0


def in_a_loop(theta, rng):
    steps = 0.0
    while True:
        steps = steps + theta
        if scg.sample(dist.Bernoulli(logits=theta), scg.ScoreFunction(), rng=rng) > 0.5:
            return steps


RIGHT = [
    in_an_inner_gradient,
    from_a_child,
    of_fixed_noise,
    of_a_minibatch,
    coupled,
    written_down,
    behind_an_if,
    in_a_loop,
]


@pytest.mark.fast
@pytest.mark.parametrize("cost", RIGHT, ids=lambda cost: cost.__name__)
def test_programs_of_which_all_noise_is_a_node_are_taken(cost):
    """And what replicates give is what fresh runs give: means by 6 standard errors of their difference."""
    graph = scg.trace(cost, T, rng=RNG(0))
    graph.require_repeatable()
    found, rng = graph.gradients(rng=RNG(1), replicates=400), RNG(2)
    fresh = np.array([scg.grad(cost)(T, rng=rng) for _ in range(400)])
    assert abs(found.mean() - fresh.mean()) < 6 * np.sqrt((found.var() + fresh.var()) / 400)


@pytest.mark.fast
@pytest.mark.parametrize("problem", scg.testing.problems(), ids=lambda problem: problem.name)
def test_two_runs_of_a_problem_are_one_function_of_their_samples_node_by_node(problem):
    """So that no replicates are needed to see it; neither does it matter which samples were drawn."""
    graph = problem.graph()
    program = graph.again.fn
    for seed in range(3):
        assert first_difference([graph.cost], [scg.trace(program, problem.parameters, rng=RNG(seed)).cost]) is None
    moved = map_leaves(lambda x: x + 1e-3, problem.parameters)
    assert first_difference([graph.cost], [scg.trace(program, moved, rng=RNG(0)).cost]) is not None


@pytest.mark.fast
@pytest.mark.parametrize("theta", [-2.0, 2.0])
def test_noise_that_a_rare_sample_alone_shows_is_refused(theta):
    """A coin of 0.12 or 0.88: in the runs themselves it hardly ever, or mostly, shows."""
    for factor in (lambda b: b, lambda b: 1 - b):
        with pytest.raises(ScgValueError, match="not a function of its samples"):
            scg.exact.expectation(cost_of(WAYS["made inside"], lambda b, e, f=factor: f(b) * e), np.array(theta))


@pytest.mark.fast
def test_a_function_is_run_once_more_for_a_door_and_not_for_each_replicate():
    runs = []

    def cost(theta, rng):
        runs.append(1)
        return scg.sample(dist.Bernoulli(logits=theta), scg.ScoreFunction(), rng=rng) ** 2

    graph = scg.trace(cost, T, rng=RNG(0))
    for _ in range(3):
        graph.gradients(rng=RNG(1), replicates=1000)
        graph.gradients(rng=RNG(1))
        graph.run(rng=RNG(1), replicates=10)
        scg.exact.gradient(graph)
        graph = graph.run(rng=RNG(2)).bind({"*": scg.DisARM()})
    assert len(runs) == 2


@pytest.mark.fast
@pytest.mark.parametrize("door", [lambda g: g.gradients(rng=RNG(1), replicates=5), scg.exact.gradient])
def test_a_first_run_that_is_unlike_all_others_is_found_out(door):
    """A state that changes once: the recorded run has 2 b, every other one b."""
    runs = []

    def cost(theta, rng):
        runs.append(1)
        return scg.sample(dist.Bernoulli(logits=theta), scg.ScoreFunction(), rng=rng) * (2.0 if len(runs) == 1 else 1.0)

    with pytest.raises(ScgValueError, match="not a function of its samples.*its state changes"):
        door(scg.trace(cost, T, rng=RNG(0)))
