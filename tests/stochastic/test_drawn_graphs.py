"""The laws of the surrogate, over drawn graphs: each of some thousand finite graphs is held to them, by enumeration of
all that can happen."""

import copy
import itertools
import types

import numpy as np
import pytest
from hypothesis import assume, find, given, seed, settings
from hypothesis import strategies as st

import scg
from scg.core.ancestry import ancestors
from scg.core.backward import pull
from scg.core.node import Node
from scg.core.replay import replay
from scg.core.tree import leaves
from scg.exact import expectation, gradient, moments
from scg.stochastic.bindings import overridden
from scg.stochastic.estimator import Estimator
from scg.stochastic.resampling import resample
from scg.stochastic.terms import Terms, weighted
from scg.stochastic.ties import spread
from scg.testing import graphs
from scg.testing.strategies.bindings import accepting, candidates, instance, works
from tests.support.drawn import drawn
from tests.support.oracle import TooMany, derivatives, leaves_of, mean, table

SMOOTH = [text for text in candidates(True) if "REBAR" in text or "RELAX" in text]  # their noise takes quadrature
ESTIMATORS = tuple([text for text in candidates(True) if text not in SMOOTH])
SCORE = ("scg.ScoreFunction()",)
SEEDS = st.integers(0, 2**32 - 1)
LONG = 25  # shards, of 2000 graphs each


def targets_of(graph):
    return [leaf for _, leaf in leaves(graph.parameters)]


def flat(arrays):
    return np.concatenate([np.ravel(x) for x in arrays])


def close(found, exact, tolerance=1e-10):
    assert np.max(np.abs(found - exact), initial=0) <= tolerance * max(1, np.max(np.abs(exact), initial=0))


# --- 1 and 2: the value, and the mean of the derivatives
# ---------------------------------------------------------------------------


def is_right(graph, order=1, any_order=True):
    """Laws 1 and 2, where the joint values of draws and of the estimators' own are few enough; else law 1.

    The surrogate is that of any order, whose size grows exponentially with the draws in a chain that look elsewhere, or
    that of order 2.
    """
    assert graph.surrogate(None if any_order else 2).value == graph.cost.value
    try:
        pairs = derivatives(graph, order)
    except TooMany:
        return
    for found, exact in pairs:
        close(found, exact)


@drawn(500)
@given(graphs(estimators=ESTIMATORS))
def test_the_surrogate_has_the_costs_value_and_the_mean_of_its_gradient_is_that_of_the_expectation(graph):
    is_right(graph)


@drawn(150)
@given(graphs(estimators=ESTIMATORS, order=2))
def test_the_mean_of_its_second_derivative_is_that_of_the_expectation(graph):
    is_right(graph, 2)


@pytest.mark.long
@pytest.mark.parametrize("shard", range(LONG))
def test_many_more(shard):
    @drawn(2000, derandomize=False, database=None)
    @given(graphs(estimators=ESTIMATORS, outcomes=128, nodes=4))
    def laws(graph):
        is_right(graph, any_order=False)

    seed(shard)(laws)()


@pytest.mark.long
@pytest.mark.parametrize("shard", range(5))
def test_many_more_second_derivatives(shard):
    @drawn(1000, derandomize=False, database=None)
    @given(graphs(estimators=ESTIMATORS, order=2))
    def laws(graph):
        is_right(graph, 2)

    seed(shard)(laws)()


@drawn(60)
@given(graphs(estimators=ESTIMATORS))
def test_exact_values_agree_with_brute_force(graph):
    """scg.exact takes costs apart by the axis maps; the oracle does not."""
    (truth,) = mean([graph.cost], True)
    close(expectation(graph), truth.value if isinstance(truth, Node) else truth)
    one = [np.ones((), truth.dtype)]
    close(
        flat([g for _, g in leaves(gradient(graph))]),
        flat(pull([truth], one, targets_of(graph)) if isinstance(truth, Node) else [0]),
    )
    try:
        ((found, _),) = derivatives(graph)
        close(flat([g for _, g in leaves(moments(graph, budget=2**14).mean)]), found)
    except (TooMany, scg.exact.BudgetError):
        return


@drawn(10)
@given(graphs(estimators=SMOOTH, nodes=1, outcomes=4))
def test_the_mean_of_what_has_noise_of_its_own_is_that_of_the_expectation(graph):
    """REBAR and RELAX, by quadrature over their noise."""
    try:
        found = flat([g for _, g in leaves(moments(graph, rtol=1e-7, budget=2**16).mean)])
    except (scg.exact.BudgetError, scg.exact.ConvergenceError):
        return  # too many dimensions
    close(found, flat([g for _, g in leaves(gradient(graph))]), 1e-6)


# --- 3: who says that he is biased, is
# ---------------------------------------------------------------------------------------------


def bias(graph):
    """The largest error of the mean of the gradient, relative to it: for estimators whose noise is none but their draw,
    held as a draw."""
    ((found, exact),) = derivatives(graph)
    return np.max(np.abs(found - exact)) / max(1, np.max(np.abs(exact)))


@pytest.mark.parametrize("text", [t for t in candidates(False) if "Gumbel" not in t])
def test_what_declares_a_bias_has_one_on_some_graph(text):
    found = find(
        graphs(estimators=(text,), nodes=1),
        lambda graph: bias(graph) > 1e-3,
        settings=settings(max_examples=500, derandomize=True, database=None),
    )
    assert text in repr(found)


# --- 4: rebinding
# ------------------------------------------------------------------------------------------------------------------


@drawn(150)
@given(graphs(estimators=SCORE), st.data())
def test_rebinding_changes_neither_values_nor_the_gradients_of_others(graph, data):
    name = data.draw(st.sampled_from(list(graph.stochastic)))
    texts = accepting(graph.stochastic[name].statics["site"].distribution, ESTIMATORS)
    binding = {name: instance(data.draw(st.sampled_from(texts)))}
    assume(works(graph, binding))
    rebound = graph.bind(binding)
    assert rebound.cost.value == graph.cost.value
    close(mean([rebound.cost])[0], mean([graph.cost])[0])
    if type(binding[name]).condition is not Estimator.condition:
        return  # the others' costs are conditional means then
    moved = {n.id for p in parameters_of(graph.stochastic[name]) for n in ancestors([p])}
    for other in set(graph.stochastic) - {name}:
        before, after = (parameters_of(g.stochastic[other]) for g in (graph, rebound))
        assert np.array_equal(graph.stochastic[other].value, rebound.stochastic[other].value)
        if not moved & {p.id for p in before}:  # else the other draw's contribution flows on into these as well
            close(flat(pulled(rebound, after)), flat(pulled(graph, before)), 1e-13)


def parameters_of(node):
    return [p for p in node.statics["site"].distribution.parameters.values() if isinstance(p, Node)]


def pulled(graph, nodes):
    loss = graph.surrogate(1)
    return pull([loss], [np.ones(loss.shape, loss.dtype)], nodes)


# --- 5: replicates
# -----------------------------------------------------------------------------------------------------------------


@drawn(150)
@given(graphs(), SEEDS)
def test_a_replicate_is_a_single_run_with_its_noise(graph, seed):
    targets = targets_of(graph)
    together = graph.gradients(rng=np.random.default_rng(seed), replicates=3)  # first: a surrogate teaches baselines
    loss = scg.surrogate(graph.cost, 1, graph=True)
    recorded = [g for g in pull([loss], [np.ones((), loss.dtype)], targets, True) if isinstance(g, Node)]
    noise = leaves_of(recorded) if recorded else []
    new, values = resample((recorded, noise), {}, rng=np.random.default_rng(seed), size=3, create_graph=False)
    for r in range(3):
        single = replay(recorded, {leaf: value[r] for leaf, value in zip(noise, values, strict=True)})
        for g, x, y in zip(recorded, new, single, strict=True):
            close(x[r] if np.ndim(x) > g.ndim else x, y, 1e-12)
    by_node = iter(new)
    for (_, x), g in zip(leaves(together), pull([loss], [np.ones((), loss.dtype)], targets, True), strict=True):
        if isinstance(g, Node):
            close(x, next(by_node), 1e-12)  # which broadcasts where there is no noise


@drawn(100)
@given(graphs(estimators=SCORE), SEEDS)
def test_a_run_of_replicates_is_so_many_runs(graph, seed):
    batch = graph.run(rng=np.random.default_rng(seed), replicates=3)
    for r in range(3):
        single = graph.run(values={name: node.value[r] for name, node in batch.stochastic.items()})
        close(batch.cost.value[r], single.cost.value, 1e-13)
        for (_, x), (_, y) in zip(
            leaves(pulled(batch, targets_of(batch))), leaves(pulled(single, targets_of(single))), strict=True
        ):
            close(x[r], y, 1e-12)


# --- 6: Rao-Blackwellisation
# -------------------------------------------------------------------------------------------------------


def test_each_draw_meets_what_it_can_have_influenced():
    """The axis maps see every dependence that there is; and where they see no other, as in most graphs, the gradient is
    that of the hand-written surrogate."""
    tight = []

    @drawn(200)
    @given(graphs(estimators=SCORE), SEEDS)
    def law(graph, seed):
        tight.append(is_blackwellised(graph, seed))

    law()
    assert np.mean(tight) > 0.8


def is_blackwellised(graph, seed):
    """Law 6; whether the graph is one of those where the axis maps see no dependence but what there is."""
    sites = list(graph.stochastic.values())
    parts = {s: Terms(graph.cost, [s]).of(s, False) for s in sites}
    terms = list({term.id: term for found in parts.values() for term, _, _ in found}.values())
    truth = influences(terms, sites, np.random.default_rng(seed))
    by_hand, tight = graph.cost, True
    for s in sites:
        score = s.statics["site"].distribution.log_prob(s)
        goes = np.zeros(score.size)
        for term, weight, tie in parts[s]:
            seen, there = believed(s, term, tie), truth[s.id][term.id]
            assert np.all(seen >= there), (s, term)
            tight = tight and np.array_equal(seen, there)
            goes = goes + there @ np.ravel(weighted(term.value, weight))
        by_hand = by_hand + np.sum(score * goes.reshape(score.shape))
    if tight:
        close(
            flat(pulled(graph, targets_of(graph))),
            flat(pull([by_hand], [np.ones((), by_hand.dtype)], targets_of(graph))),
            1e-12,
        )
    return tight


def believed(draw, term, tie):
    """(elements of the draw, elements of the term): whether the axis maps say that one may depend on the other."""
    batch = draw.shape[: draw.ndim - draw.statics["site"].event_ndim]
    n = int(np.prod(batch, dtype=int))
    rows = spread(np.eye(n).reshape(n, *batch), term.shape, tie, 1)
    return (
        np.broadcast_to(
            rows.reshape(n, *(1,) * (term.ndim + 1 - rows.ndim), *rows.shape[1:]), (n, *term.shape)
        ).reshape(n, -1)
        != 0
    )


def influences(terms, sites, rng):
    """By brute force: which element of which draw can change which element of which term, directly or by a later draw's
    parameters."""
    direct = {s.id: changed(s, [*terms, *[p for d in sites for p in parameters_of(d)]], sites, rng) for s in sites}
    found = {}
    for s in reversed(sites):
        found[s.id] = {t.id: direct[s.id][t.id] for t in terms}
        for d in sites:
            if d.id > s.id:
                through = np.any(
                    [
                        aligned(direct[s.id][p.id], p, name, d)
                        for name, p in d.statics["site"].distribution.parameters.items()
                        if isinstance(p, Node)
                    ],
                    axis=0,
                )
                for t in terms:
                    found[s.id][t.id] = found[s.id][t.id] | (through.astype(int) @ found[d.id][t.id].astype(int) > 0)
    return found


def aligned(rows, parameter, name, draw):
    """(elements, elements of a parameter) as (elements, elements of the draw)."""
    site = draw.statics["site"]
    event = site.distribution.parameter_event_ndim(name)
    batch = draw.shape[: draw.ndim - site.event_ndim]
    each = rows.reshape(len(rows), *parameter.shape).any(
        axis=tuple(range(1 + parameter.ndim - event, 1 + parameter.ndim))
    )
    each = each.reshape(len(rows), *(1,) * (len(batch) - (parameter.ndim - event)), *each.shape[1:])
    return np.broadcast_to(each, (len(rows), *batch)).reshape(len(rows), -1)


def changed(draw, nodes, sites, rng, bases=6):
    """For nodes, which of their elements (columns) change with which element of a draw (rows), whatever the draws are
    elsewhere: at a NaN, and at its other values."""
    event, distribution = draw.statics["site"].event_ndim, draw.statics["site"].distribution
    batch = draw.shape[: draw.ndim - event]
    n = int(np.prod(batch, dtype=int))
    atoms = distribution.atoms().reshape(len(distribution.atoms()), -1, *draw.shape[draw.ndim - event :])[:, 0]
    tries = [*atoms, *([np.full(atoms[0].shape, np.nan)] if draw.dtype.kind == "f" else [])]
    result = {node.id: np.zeros((n, node.size), bool) for node in nodes}
    for _ in range(bases):
        base = {
            s: (
                rng.uniform(0.2, 0.9, s.shape)
                if s.dtype.kind == "f"
                else rng.integers(0, len(s.statics["site"].distribution.atoms()), s.shape)
            )
            for s in sites
        }
        rows = np.broadcast_to(base[draw], (n, len(tries), *draw.shape)).copy().reshape(n, len(tries), n, -1)
        for i in range(n):
            rows[i, :, i] = np.reshape(tries, (len(tries), -1))
        rows = np.concatenate([base[draw].reshape(1, *draw.shape), rows.reshape(-1, *draw.shape)])
        values = {s: rows if s is draw else np.broadcast_to(v, (len(rows), *s.shape)) for s, v in base.items()}
        with np.errstate(all="ignore"):
            found = replay(nodes, values, sites)
        for node, value in zip(nodes, found, strict=True):
            differs = ~(value[1:] == value[:1])
            result[node.id] |= differs.reshape(n, len(tries), -1).any(axis=1)
    return result


# --- an ``if`` on a draw
# ------------------------------------------------------------------------------------------------------------


@drawn(60)
@given(graphs(estimators=SCORE, branches=True, outcomes=16))
def test_a_branch_that_a_draw_chose(graph):
    """By tracing the program at all values of its draws, so that each meets its own branch."""
    columns = [[(name, value) for value in table(node, 1)[0]] for name, node in graph.stochastic.items()]
    estimate, exact, mass = 0, 0, 0
    for values in itertools.product(*columns):
        traced = at(graph.program, dict(values))
        distributions = {name: node.statics["site"].distribution for name, node in traced.stochastic.items()}
        chance = np.exp(sum(np.sum(distributions[name].log_prob(np.asarray(v))) for name, v in values))
        if not isinstance(chance, Node):
            chance = scg.parameter(chance)
        one = [np.ones(())]
        estimate = estimate + chance.value * flat([g for _, g in leaves(traced.gradients())])
        exact = exact + flat(pull([chance * traced.cost], one, targets_of(traced)))
        mass = mass + chance.value
    close(mass, 1.0, 1e-12)
    close(estimate, exact)


@drawn(40)
@given(graphs(estimators=SCORE, branches=True, outcomes=16), st.sampled_from([scg.MovingAverage, scg.Optimal]), SEEDS)
def test_a_replicate_behind_a_branch_is_a_single_run_with_what_was_learned_until_then(graph, baseline, seed):
    """Whichever way it takes, and was learned since the graph was recorded."""
    bound = {name: scg.ScoreFunction(baseline=baseline(0.8)) for name in graph.stochastic}
    program, graph, rng = graph.program, graph.bind(bound), np.random.default_rng(seed)
    for _ in range(6):
        graph.gradients(rng=rng)
    states = {name: copy.deepcopy(estimator.state) for name, estimator in bound.items()}
    together = graph.gradients(rng=rng, replicates=12)
    np.testing.assert_equal({name: estimator.state for name, estimator in bound.items()}, states)
    singles = []
    for values in itertools.product(*[[(n, v) for v in table(node, 1)[0]] for n, node in graph.stochastic.items()]):
        for name, estimator in bound.items():
            estimator.state = copy.deepcopy(states[name])
        with overridden(bound):
            singles.append(flat([g for _, g in leaves(at(program, dict(values)).gradients())]))
    for r in range(12):
        found = flat([g[r] for _, g in leaves(together)])
        assert min(np.max(np.abs(found - single)) for single in singles) <= 1e-9 * max(1, np.max(np.abs(found)))


def at(program, values):
    """The graph of the program where its draws come out so."""
    right = scg.sample
    current = []

    def sample(distribution, estimator, *, name, **how):
        current.append(name)
        return right(distribution, estimator, name=name, **how)

    def drawn(self, distribution, rng, shape):
        return np.asarray(values[current[-1]]) if current[-1] in values else distribution.sample(rng, shape)

    names = types.SimpleNamespace(
        sample=sample, special=scg.special, parameter=scg.parameter, ScoreFunction=scg.ScoreFunction
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Estimator, "draw", drawn)
        return scg.trace(program.bound(scg=names), *program.args, rng=np.random.default_rng(program.seed))


# --- what was found so
# ---------------------------------------------------------------------------------------------------------------


def test_an_index_that_takes_all_of_an_axis_leaves_the_replicates_apart():
    def cost(theta, rng):
        b = scg.sample(
            scg.distributions.OneHotCategorical(logits=theta), scg.ScoreFunction(), rng=rng, shape=(2,), name="b"
        )
        return np.sum(b**2 * b[..., 1])

    graph = scg.trace(cost, np.array([0.5, -0.5]), rng=np.random.default_rng(0))
    batch = graph.run(rng=np.random.default_rng(0), replicates=4)
    zero = ~batch.stochastic["b"].value[..., 1].any(axis=1)
    assert zero.any() and not zero.all()
    assert np.all(batch.gradients()[zero] == 0) and np.all(batch.gradients()[~zero] != 0)


def test_a_baseline_does_not_look_at_the_zeros_that_other_estimators_add():
    def cost(theta, rng):
        a = scg.sample(
            scg.distributions.Bernoulli(logits=theta),
            scg.ScoreFunction(baseline=scg.LeaveOneOut()),
            rng=rng,
            shape=(2,),
            name="a",
        )
        b = scg.sample(scg.distributions.Bernoulli(logits=theta), scg.Enumerate(), rng=rng, name="b")
        return np.sum((b * a - 0.45) ** 2)

    is_right(scg.trace(cost, np.array(0.5), rng=np.random.default_rng(0)), 2)


@pytest.mark.parametrize("upstream, order", [(scg.ARM, 1), (scg.Enumerate, 2)])
def test_nor_at_those_that_meet_a_draw_made_again(upstream, order):
    def cost(theta, rng):
        a = scg.sample(scg.distributions.Bernoulli(logits=theta), upstream(), rng=rng, name="a")
        estimator = scg.ScoreFunction(baseline=scg.LeaveOneOut())
        b = scg.sample(scg.distributions.Bernoulli(logits=theta * a), estimator, rng=rng, shape=(2,), name="b")
        return np.sum((b - 0.45) ** 2)

    is_right(scg.trace(cost, np.array([0.5, -0.25]), rng=np.random.default_rng(0)), order)


@pytest.mark.parametrize("estimator", [scg.REBAR, lambda: scg.RELAX(lambda phi, z: np.tanh(z), temperature=0.5)])
def test_a_step_is_refused_where_the_cost_is_differentiated_between_the_values_of_a_draw(estimator):
    """The derivative of the relaxed cost would lose it: a bias of a quarter here."""

    def cost(theta, rng, estimator):
        b = scg.sample(scg.distributions.Bernoulli(logits=theta), estimator, rng=rng, name="b")
        return theta * np.where(b > 0.5, 2.0, -1.0)

    rng = np.random.default_rng(0)
    with pytest.raises(
        scg.errors.EstimatorError, match="b ~ .*continuous in the sample, and <where.*only through steps"
    ):
        scg.grad(cost)(np.array(0.3), rng=rng, estimator=estimator())
    free = scg.RELAX(lambda phi, z: np.tanh(z))  # which evaluates the cost at 0 and 1 alone
    graph = scg.trace(cost, np.array(0.3), rng=rng, estimator=free)
    close(moments(graph, rtol=1e-7).mean, gradient(graph), 1e-6)
