"""``if`` and ``while`` on draws: the exact mean of the gradient over all paths through a program is the gradient of its
mean."""

import math

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import chi2

import scg
from scg import distributions as dist
from scg.errors import EstimatorError, GuardError, ScgValueError

pytestmark = pytest.mark.fast

THETA = np.array([0.3, -0.4, 0.6])


def chosen_constant(t, flip):
    return 1.0 if flip(t[0]) else 0.25


def chosen_count(t, flip):
    return 2 if flip(t[0]) else flip(t[1]) * 1.0


def chosen_older(t, flip):
    first, second = np.exp(t[1]), t[2] * t[1]
    return first if flip(t[0]) else second


def constant_added_in_a_branch(t, flip):
    return np.exp(t[1]) * 2.0 + t[2] + 5.0 if flip(t[0]) else np.exp(t[1]) * 3.0


def constant_chosen_then_used(t, flip):
    x = np.exp(t[1])
    k = 5.0 if flip(t[0]) else 3.0
    return x * k + np.sin(t[2]) - k / 4


def counted_in_a_loop(t, flip):
    n = 0
    while n < 4 and flip(t[0]):
        n += 1
    return t[1] * 0.0 + n


def drawn_in_a_branch(t, flip):
    c = flip(t[1]) * 3.0 + 1.0 if flip(t[0]) else 2.0 - flip(t[2])
    return c + 7 * flip(t[1])


def one_after_another(t, flip):
    total = t[1] * 2.0
    if flip(t[0]):
        total = total + t[2]
    total = total + 1.0
    return total * 2.0 if flip(t[2]) else total


def chosen_slice(t, flip):
    v = np.exp(t)
    return np.sum(v[:2] if flip(t[0]) else v[1:]) + np.mean(v)


def chosen_length(t, flip):
    parts = [np.exp(t[0]), np.exp(t[1])]
    if flip(t[0]):
        parts.append(np.exp(t[2]))
    return sum(parts) / len(parts)


def concatenated_in_a_branch(t, flip):
    x = np.exp(t)
    y = np.concatenate([x * 2, t]) if flip(t[0]) else x
    return np.sum(y) - t[1]


def scaled_by_another(t, flip):
    b = flip(t[1])
    return (b * t[2] + 2.0) * 3.0 if flip(t[0]) else b - 1.0


MODELS = [
    chosen_constant,
    chosen_count,
    chosen_older,
    constant_added_in_a_branch,
    constant_chosen_then_used,
    counted_in_a_loop,
    drawn_in_a_branch,
    one_after_another,
    chosen_slice,
    chosen_length,
    concatenated_in_a_branch,
    scaled_by_another,
]


def paths(model):
    """(outcomes of the coins, gradient, second derivatives) for every path that the program can take, found by running
    it again and again."""
    found = {}
    total, seed = 0.0, 0
    while total < 1 - 1e-12:
        assert seed < 4000, "a path was not found"
        outcomes, p = [], [1.0]

        def cost(t, rng, outcomes=outcomes, p=p):
            def flip(logit):
                b = scg.sample(dist.Bernoulli(logits=logit), scg.ScoreFunction(), rng=rng)
                outcomes.append(int(b.value))
                p[0] /= 1 + math.exp(float(logit.value) * (-1 if outcomes[-1] else 1))
                return Coin(b)

            return model(t, flip)

        gradient = scg.grad(cost)(THETA, rng=np.random.default_rng(seed))
        path = tuple(outcomes)
        if path not in found:
            total += p[0]
            found[path] = p[0], gradient, scg.hessian(cost)(THETA, rng=np.random.default_rng(seed))
        seed += 1
    return list(found.values())


class Coin:
    """A draw that ``if`` asks for more than one half, and arithmetic for its value."""

    def __init__(self, node):
        self.node = node

    def __bool__(self):
        return bool(self.node > 0.5)

    def __mul__(self, other):
        return self.node * other

    def __rmul__(self, other):
        return other * self.node

    def __sub__(self, other):
        return self.node - other

    def __rsub__(self, other):
        return other - self.node


def seeded(seed):
    return np.random.default_rng(seed)


def mean(model, t):
    """The exact mean of the cost: all outcomes of the coins, by plain arithmetic."""
    total, waiting = 0.0, [()]
    while waiting:
        given = waiting.pop()
        outcomes, p = [], 1.0

        def flip(logit, outcomes=outcomes, given=given):
            nonlocal p
            outcomes.append(given[len(outcomes)] if len(outcomes) < len(given) else 0)
            p = p / (1 + np.exp(-logit if outcomes[-1] else logit))
            return outcomes[-1]

        cost = model(t, flip)
        total = total + p * cost
        waiting += [(*outcomes[:k], 1) for k in range(len(given), len(outcomes))]
    return total


@pytest.mark.parametrize("model", MODELS)
def test_the_mean_over_all_paths_is_exact(model):
    found = paths(model)
    first = sum(p * g for p, g, _ in found)
    second = sum(p * h for p, _, h in found)
    np.testing.assert_allclose(first, scg.grad(lambda t: mean(model, t) * 1.0)(THETA), rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(second, scg.hessian(lambda t: mean(model, t) * 1.0)(THETA), rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("model", MODELS)
def test_a_replicate_is_the_gradient_of_a_path_as_often_as_the_path_is_taken(model):
    """By Pearson's statistic, which chance alone takes beyond its quantile once in 10^7 tests; of two recorded ways."""
    chances: dict[tuple[float, ...], float] = {}
    for p, gradient, _ in paths(model):
        key = tuple(np.round(gradient, 9) + 0.0)
        chances[key] = chances.get(key, 0) + p

    def cost(t, rng):
        return model(t, lambda logit: Coin(scg.sample(dist.Bernoulli(logits=logit), scg.ScoreFunction(), rng=rng)))

    for seed in (1, 2):
        replicates = scg.trace(cost, THETA, rng=seeded(seed)).gradients(rng=seeded(seed + 2), replicates=3000)
        found, counts = np.unique(np.round(replicates, 9) + 0.0, axis=0, return_counts=True)
        met = dict(zip(map(tuple, found), counts, strict=True))
        assert set(met) <= set(chances)
        p, n = np.array(list(chances.values())), np.array([met.get(key, 0) for key in chances])
        assert np.sum((n - 3000 * p) ** 2 / (3000 * p)) <= chi2.isf(1e-7, max(len(p) - 1, 1))


@pytest.mark.parametrize("estimator", [scg.ScoreFunction(), scg.Enumerate()])
def test_a_gradient_that_is_a_number_is_that_of_its_own_way_alone(estimator):
    """3 with probability 1/4, else 5: the sample has no parameter, and no derivative depends on it."""

    def cost(t, rng, ends):
        b = scg.sample(dist.Bernoulli(probs=0.25), estimator, rng=rng)
        return 3 * t[0] if ends(b) else 5 * t[0] + t[1]

    for seed in range(3):
        graph = scg.trace(cost, np.array([0.3, 0.7]), seeded(seed), lambda b: b > 0)
        found = scg.exact.moments(graph)
        np.testing.assert_allclose(found.mean, [4.5, 0.75], rtol=1e-12)
        np.testing.assert_allclose(found.variance, [0.75, 3 / 16], rtol=1e-12)
        replicates = graph.gradients(rng=seeded(seed + 3), replicates=400)
        assert set(map(tuple, replicates.tolist())) == {(3.0, 0.0), (5.0, 1.0)}
        row = scg.variance.compare(graph, {"it": {}}, replicates=400, rng=seeded(seed)).entries[0]
        assert abs(row.variance - 15 / 16) < 5 * row.variance / 20
    graph = scg.trace(cost, np.array([0.3, 0.7]), seeded(0), lambda b: b < 2)
    assert scg.exact.moments(graph).mean.tolist() == [3, 0]


def test_replicates_of_one_way_are_computed_together():
    """The function runs once for each way, as often as ways are met: not for each replicate."""
    runs = []

    def cost(t, rng):
        runs.append(0)
        a, b, z = (scg.sample(dist.Bernoulli(logits=x), scg.ScoreFunction(), rng=rng) for x in t)
        if a > 0:
            return a * t[1] + (b * z if b > 0 else t[0])
        return z - t[2] * b

    graph = scg.trace(cost, THETA, seeded(0))
    graph.require_repeatable()
    runs.clear()
    graph.gradients(rng=seeded(1), replicates=1000)
    assert len(runs) == 2


def test_a_sample_whose_parameters_are_computed_behind_an_if_stays_behind_it_at_other_values():
    """The second coin, of a parameter that is read behind the first `if`, is tossed on one side of it alone."""

    def cost(t, rng):
        n = 0
        while n < 2 and scg.sample(dist.Bernoulli(logits=t[n] * 1), scg.DisARM(), rng=rng) > 0:
            n += 1
        return n * t[2]

    for seed in range(8):
        graph = scg.trace(cost, THETA, rng=seeded(seed))
        first, *further = graph.stochastic.values()
        if not further:
            continue
        value = scg.parameter(np.ones(()))
        again = scg.replay(graph.cost, {first: value}, create_graph=True)
        with pytest.raises(GuardError, match="the `if` on"):
            scg.replay(again, {value: np.zeros(())})
        return
    raise AssertionError("no seed had two coins")


# --- an ``if`` that comes out the same whatever is drawn
# --------------------------------------------------------------------------------

ESTIMATORS = [
    scg.DisARM,
    scg.ARM,
    scg.Enumerate,
    lambda: scg.Enumerate(1),
    lambda: scg.UnorderedSet(2),
    scg.MeasureValued,
    scg.MuProp,
    scg.REBAR,
    scg.ScoreFunction,
    lambda: scg.ScoreFunction(scg.LeaveOneOut(), samples=2),
    lambda: scg.ScoreFunction(scg.MovingAverage()),
]
ENTRIES = {
    "gradient": lambda cost, graph, seed: scg.grad(cost)(THETA, rng=seed()),
    "compiled": lambda cost, graph, seed: scg.compile(lambda t, r: scg.grad(cost)(t, rng=r))(THETA, seed()),
    "second derivative": lambda cost, graph, seed: scg.hvp(lambda t: cost(t, seed()))(THETA, THETA),
    "other values": lambda cost, graph, seed: graph.run(parameters=2 * THETA, rng=seed()).gradients(),
    "a given value": lambda cost, graph, seed: graph.run(values={"b": 1.0 - graph.stochastic["b"].value}).gradients(),
    "rebound": lambda cost, graph, seed: graph.bind(c=scg.Enumerate()).gradients(),
    "replicates": lambda cost, graph, seed: graph.gradients(rng=seed(), replicates=4),
    "with the rebound draw itself": lambda cost, graph, seed: graph.bind(b=scg.ScoreFunction()).gradients(),
    "comparison": lambda cost, graph, seed: len(
        scg.variance.compare(graph, {"it": {}}, replicates=30, rng=seed(), budget=1).entries
    ),
}


def outcome(call):
    """What comes of a call: its result, or the kind of its refusal."""
    try:
        return call()
    except scg.ScgError as error:
        return type(error)


@pytest.mark.slow
@pytest.mark.parametrize("entry", ENTRIES)
def test_a_check_that_holds_for_all_draws_changes_nothing(entry):
    """Each draw here is a factor of all costs that are made after the check, so that a dependence of these on it is
    none that is new."""
    for estimator in ESTIMATORS:

        def checked(t, rng, check=True, estimator=estimator):
            b = scg.sample(dist.Bernoulli(logits=t[0]), estimator(), rng=rng, name="b")
            if check and not np.all(b < 2):
                raise AssertionError
            z = scg.sample(dist.Normal(t[1], 1.0), scg.Reparameterized(), rng=rng, name="z")
            e = scg.sample(dist.Normal(0.0, 1.0), scg.Reparameterized(), rng=rng, name="e")
            c = scg.sample(dist.Bernoulli(logits=2 * t[2]), scg.ScoreFunction(), rng=rng, name="c")
            d = scg.sample(dist.Bernoulli(logits=0.4), scg.ScoreFunction(), rng=rng, name="d")
            return b * (z - e + 0.5) * np.exp(t[1]) * (c - 0.3) * (d + 1)

        def plain(t, rng, checked=checked):
            return checked(t, rng, check=False)

        results = []
        for cost in (plain, checked):
            graph = scg.trace(cost, THETA, rng=np.random.default_rng(5))
            results.append(
                outcome(lambda cost=cost, graph=graph: ENTRIES[entry](cost, graph, lambda: np.random.default_rng(7)))
            )
        if isinstance(results[0], np.ndarray):
            np.testing.assert_allclose(results[1], results[0], rtol=1e-12, err_msg=repr(estimator()))
        else:
            assert results[0] == results[1], estimator()


def test_a_check_of_what_no_draw_touches_leaves_each_draw_its_own_costs():
    """Also where data are nodes, as in a plan: the large penalty must not enter the costs of the coins."""
    weights = np.array([1.0, -2.0, 0.5])

    def cost(v, data, rng, check=True):
        penalty = 100 * np.sum((data - v) ** 2)
        if check and not np.isfinite(penalty):
            raise ValueError
        if check and np.any(np.abs(v) > 100):
            raise ValueError
        b = scg.sample(dist.Bernoulli(logits=v), scg.ScoreFunction(), rng=rng)
        return penalty + np.sum(b * weights) - 3 * np.mean(data * v)

    for seed in range(5):
        found = [scg.grad(cost)(THETA, np.ones(3), np.random.default_rng(seed), check) for check in (False, True)]
        np.testing.assert_array_equal(found[1], found[0])
        compiled = scg.compile(scg.grad(cost))
        np.testing.assert_allclose(compiled(THETA, np.ones(3), np.random.default_rng(seed), True), found[0], rtol=1e-12)


def test_a_graph_whose_if_leads_to_a_path_is_bound_again():
    def cost(t, rng):
        b = scg.sample(dist.Bernoulli(logits=t), scg.ScoreFunction(), rng=rng, name="b")
        return scg.sample(dist.Normal(t, 1.0), scg.Reparameterized(), rng=rng, name="z") if b > 0 else t * t

    graph = scg.trace(cost, np.array(0.3), rng=np.random.default_rng(1))
    bound = graph.bind(b=scg.ScoreFunction(scg.Constant(1.0)))
    assert list(bound.stochastic) == ["b", "z"]  # none of the old ones beside them
    p = 1 / (1 + np.exp(-0.3))
    b = graph.stochastic["b"].value
    assert (b, bound.cost.value) == (1, graph.cost.value)
    np.testing.assert_allclose(bound.gradients() - graph.gradients(), -(b - p), rtol=1e-12)
    np.testing.assert_allclose(scg.exact.moments(bound).mean, p + p * (1 - p) * (0.3 - 0.09) + 0.6 * (1 - p), rtol=1e-8)


def test_an_estimator_that_meets_an_if_elsewhere_is_told_so_in_exact_moments():
    def cost(t, rng):
        b = scg.sample(dist.Bernoulli(logits=t), scg.ScoreFunction(samples=2), rng=rng, name="b")
        y = np.sin(t) if b > 0.5 else np.cos(t)
        d = scg.sample(dist.Bernoulli(logits=2 * t), scg.ScoreFunction(), rng=rng, name="d")
        return b * d + y * d

    for seed in range(6):
        with pytest.raises(scg.errors.GuardError, match="`if`"):
            scg.exact.moments(cost, np.array(0.3), rng=np.random.default_rng(seed))


# elements that a mask of samples takes: how many there are is a choice, as of an `if`


def taken(t, rng, estimator):
    b = scg.sample(dist.Bernoulli(logits=t), estimator, rng=rng, shape=3, name="b")
    return np.sum(t * scg.parameter(np.array([1.0, 2.0, 4.0]))[b == 1] + 1)


SIZES = {  # sum(t x[b] + 1) = sum(t x[b]) + the number of b: of the ones, constants, there are as many as b are true
    "a mask": lambda t, x, b: np.sum((t * x)[b == 1] + 1),
    "compress": lambda t, x, b: np.sum(np.compress(b == 1, t * x) + 1),
    "extract": lambda t, x, b: np.sum(np.extract(b == 1, t * x) + 1),
    "delete": lambda t, x, b: np.sum(np.delete(t * x, b == 0) + 1),
    "delete by position": lambda t, x, b: np.sum(np.delete(t * x, np.flatnonzero(b == 0)) + 1),
    "flatnonzero": lambda t, x, b: np.sum((t * x)[np.flatnonzero(b)] + 1),
    "nonzero": lambda t, x, b: np.sum((t * x)[np.nonzero(b)] + 1),
    "where": lambda t, x, b: np.sum((t * x)[np.where(b == 1)] + 1),
    "len": lambda t, x, b: np.sum(t * x * b) + len(x[b == 1]),
    "argwhere": lambda t, x, b: np.sum(t * x * b) + len(np.argwhere(b)),
    "bincount": lambda t, x, b: np.sum(t * x * b) + len(np.bincount(np.sum(b).astype(int)[None])) - 1,
    "bincount of weights": lambda t, x, b: (
        np.sum(t * x * b) + len(np.bincount(np.sum(b).astype(int)[None], np.ones(1))) - 1
    ),
}


@pytest.mark.parametrize("name", SIZES)
def test_a_score_has_all_of_a_cost_whose_number_of_elements_the_samples_decide(name):
    t, x = np.array(0.3), np.array([1.0, 2.0, 4.0])

    def cost(t, rng):
        return SIZES[name](t, scg.parameter(x), draw(t, rng))

    def draw(t, rng):
        return scg.sample(dist.Bernoulli(logits=t), scg.ScoreFunction(), rng=rng, shape=3)

    for seed in range(4):
        b = np.asarray(draw(t, seeded(seed)).value)
        value, gradient = scg.value_and_grad(cost)(t, seeded(seed))
        np.testing.assert_allclose(value, t * (x @ b) + np.sum(b), rtol=1e-12)
        least = np.sum(b) * np.sum(b - expit(t))  # the number meets the score of every sample
        rest = t * (x @ b) * np.sum(b - expit(t)), t * (x * b) @ (b - expit(t))  # each term may meet its own alone
        assert np.any(np.isclose(gradient, x @ b + least + np.array(rest), rtol=1e-12))


@pytest.mark.parametrize(
    "estimator", [scg.ScoreFunction(), scg.Enumerate(), scg.DisARM(), scg.MeasureValued(), scg.StochasticDerivative()]
)
def test_replicates_where_samples_decide_how_many_elements_there_are_have_the_right_mean(estimator):
    """E = (7 t + 3) p, p = sigmoid(t)."""
    t, p = np.array(0.3), expit(0.3)
    found = scg.trace(taken, t, seeded(0), estimator).gradients(rng=seeded(1), replicates=400)
    assert abs(np.mean(found) - 7 * p - (7 * 0.3 + 3) * p * (1 - p)) < 5 * np.std(found) / 20


def test_a_pathwise_sample_that_decides_how_many_elements_there_are_is_refused_where_these_change():
    def cost(t, rng, chosen):
        z = scg.sample(dist.Normal(t, 1.0), scg.Reparameterized(), rng=rng, shape=3)
        return np.sum(z[chosen(z)] + 1)

    with pytest.raises(EstimatorError, match="the `if` at .*test_branches.py"):
        scg.value_and_grad(cost)(np.array(0.3), seeded(0), lambda z: z > 0)
    # two of three, whatever they are
    assert scg.value_and_grad(cost)(np.array(0.3), seeded(0), lambda z: z >= np.sort(z)[1])[1] == 2


def test_counts_with_a_length_are_no_choice_and_what_exceeds_it_is_refused():
    def cost(t, rng, length):
        n = scg.sample(dist.Categorical(logits=t * np.arange(3.0)), scg.ScoreFunction(), rng=rng, shape=4)
        return np.sum(np.bincount(n, minlength=length) * np.array([1.0, 2.0, 4.0]))

    graph = scg.trace(cost, np.array(0.3), seeded(0), 3)
    assert all(node.guard is None for node in graph.nodes)
    with pytest.raises(ScgValueError, match="minlength=1, and a value is 2"):
        scg.value_and_grad(cost)(np.array(3.0), seeded(0), 1)
