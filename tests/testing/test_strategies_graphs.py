"""Strategies of graphs and of their estimators: what is drawn is valid, of the size asked for, prints as a script, and
shrinks."""

import contextlib
import io
import pickle

import hypothesis
import numpy as np
import pytest
from hypothesis import find, given, settings
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample

import scg
from scg import distributions as dist
from scg.core.tree import leaves
from scg.errors import GuardError, ScgValueError
from scg.testing import bindings, graphs
from scg.testing.strategies.bindings import candidates, enumerated, instance, valid
from tests.support.drawn import drawn

SEARCH = settings(max_examples=1000, derandomize=True, database=None)


@given(scg.testing.graphs())
def test_surrogate_preserves_value(graph):
    assert graph.surrogate().value == graph.cost.value


def run(script):
    """What a script prints, and the names that it leaves."""
    space, out = {}, io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(script, "script", "exec"), space)
    return out.getvalue(), space


@drawn(40)
@given(graphs(), st.integers(0, 2**32 - 1))
def test_a_graph_prints_as_a_script_that_makes_it_again_and_is_a_function_of_its_seeds(graph, seed):
    printed, space = run(repr(graph))
    assert printed.strip() == str(graph).strip()
    again = scg.trace(space["cost"], space["theta"], rng=np.random.default_rng(graph.program.seed))
    assert again.cost.value == graph.cost.value
    each = [g.gradients(rng=np.random.default_rng(seed)) for g in (graph, again, pickle.loads(pickle.dumps(graph)))]
    for (_, x), (_, y), (_, z) in zip(*map(leaves, each), strict=True):
        assert np.array_equal(x, y) and np.array_equal(y, z)


def test_a_failure_shrinks_to_a_minimal_program_and_prints_it():
    @settings(max_examples=200, derandomize=True, database=None)
    @given(graphs())
    def check(graph):
        assert "b" not in graph.stochastic

    with pytest.raises(AssertionError) as caught:
        check()
    (note,) = [n for n in caught.value.__notes__ if "import numpy" in n]
    script = note[note.index("import numpy") : note.rindex(")\n,") + 2]
    assert script.count("scg.sample") == 2 and script.count("\n") < 18
    assert "b ~" in run(script)[0]


def test_the_simplest_graph():
    assert repr(find(graphs(), lambda graph: True, settings=SEARCH)).splitlines()[7:10] == [
        "def cost(theta, rng):",
        '    a = scg.sample(dist.Bernoulli(logits=theta), scg.ScoreFunction(), rng=rng, name="a")',
        "    t0 = (a - 0.45) ** 2",
    ]


@pytest.mark.parametrize(
    "what",
    [
        lambda g: any(len(n.shape) > 1 for n in g.stochastic.values()),  # batch and sample axes
        lambda g: any(1 in n.shape for n in g.stochastic.values()),
        lambda g: "[a]" in repr(g),  # a draw as an index
        lambda g: len(g.stochastic) < repr(g).count("scg.sample("),  # a draw that does not reach the cost
        lambda g: "layer" in repr(g) and "theta['rest'][0]" in repr(g).split("def ")[1],
        lambda g: " * a)" in repr(g) and len(g.stochastic) == 3,
        lambda g: "np.einsum" in repr(g),
        lambda g: "[::-1]" in repr(g),
        lambda g: "np.sum(a)" in repr(g) and g.stochastic["a"].dtype.kind == "i",
        lambda g: len({type(n.statics["site"].distribution) for n in g.stochastic.values()}) == 3,
    ],
)
def test_variety(what):
    find(graphs(), what, settings=settings(SEARCH, phases=[hypothesis.Phase.generate]))


@drawn(40)
@given(graphs(nodes=2, outcomes=8))
def test_size(graph):
    count = 1
    for node in graph.stochastic.values():
        distribution = node.statics["site"].distribution
        count *= len(distribution.atoms()) ** int(
            np.prod(node.shape[: node.ndim - len(distribution.event_shape)], dtype=int)
        )
    assert count <= 8 and len(graph.stochastic) <= 2


@drawn(60)
@given(graphs(finite=False), st.integers(0, 2**32 - 1))
def test_continuous_distributions_are_differentiated(graph, seed):
    gradients = graph.gradients(rng=np.random.default_rng(seed))
    assert all(np.all(np.isfinite(g)) for _, g in leaves(gradients))


def test_continuous_distributions_come_up():
    for distribution in (dist.Normal, dist.Gamma, dist.Poisson, dist.Uniform):
        find(
            graphs(finite=False),
            lambda g: any(isinstance(n.statics["site"].distribution, distribution) for n in g.stochastic.values()),
            settings=SEARCH,
        )


@drawn(60)
@given(graphs(dtype=np.float32))
def test_single_precision(graph):
    assert graph.cost.dtype == np.float32
    assert all(g.dtype == np.float32 for _, g in leaves(graph.gradients()))


def test_branches_come_up_and_are_guarded():
    graph = find(graphs(branches=True), lambda g: "if " in repr(g), settings=SEARCH)
    value = graph.stochastic["a"].value
    with pytest.raises(GuardError):
        graph.run(values={"a": 1 - value})


# --- estimators
# ----------------------------------------------------------------------------------------------------------------------


def coins(theta, rng):
    a = scg.sample(dist.Bernoulli(logits=theta), scg.ScoreFunction(), rng=rng, shape=(2,), name="a")
    z = scg.sample(dist.Normal(np.sum(a, axis=0), np.exp(theta)), scg.ScoreFunction(), rng=rng, name="z")
    return np.sum(z**2) + np.mean(a)


GRAPH = scg.trace(coins, np.array([0.3, -0.2]), rng=np.random.default_rng(0))


def test_candidates_are_all_that_the_package_exports():
    classes = {type(instance(text)).__name__ for text in candidates(None)}
    exported = {
        name
        for name in scg.estimators.__all__
        if issubclass(getattr(scg.estimators, name), scg.stochastic.estimator.Estimator)
    }
    assert classes == exported
    assert {type(instance(text)).unbiased for text in candidates(True)} == {True}
    baselines = {type(getattr(instance(text), "baseline", None)).__name__ for text in candidates(True)}
    # which comes at its inputs
    assert {name for name in scg.estimators.__all__ if name not in exported} - baselines == {"Baseline", "Learned"}
    assert candidates(None)[0] == "scg.ScoreFunction()"


def test_what_is_valid_for_a_node():
    found = valid(GRAPH)
    assert "scg.Reparameterized()" in found["z"] and "scg.Reparameterized()" not in found["a"]
    assert "scg.ARM()" in found["a"] and "scg.ARM()" not in found["z"]
    assert "scg.ScoreFunction(baseline=scg.LeaveOneOut())" not in found["z"]  # no sample axis; a's costs meet along it
    assert "scg.ScoreFunction(baseline=scg.LeaveOneOut(), samples=2)" in found["z"]
    twice = valid(GRAPH, order=2)
    assert (
        "scg.Enumerate()" in twice["a"] and "scg.DisARM()" not in twice["a"] and "scg.MeasureValued()" not in twice["z"]
    )
    assert valid(GRAPH, unbiased=False)["a"] == [
        t for t in candidates(False) if "ReinMax" in t or "Straight" in t or "Gumbel" in t
    ]


@drawn(30)
@given(bindings(GRAPH), st.integers(0, 2**32 - 1))
def test_bindings_can_be_bound(binding, seed):
    assert set(binding) == {"a", "z"}
    bound = GRAPH.bind(binding)
    assert bound.surrogate(1).value == bound.cost.value
    assert np.all(np.isfinite(bound.gradients(rng=np.random.default_rng(seed))))


def test_all_bindings_of_a_small_choice():
    texts = ("scg.ScoreFunction()", "scg.Enumerate()", "scg.Reparameterized()")
    found = [tuple(type(e).__name__ for e in binding.values()) for binding in enumerated(GRAPH, estimators=texts)]
    assert sorted(found) == [
        (a, z) for a in ("Enumerate", "ScoreFunction") for z in ("Reparameterized", "ScoreFunction")
    ]


def test_a_node_without_an_estimator_is_named():
    with pytest.raises(ScgValueError, match="no estimator is valid for z, z ~ Normal"):
        bindings(GRAPH, unbiased=False)


def test_a_program_will_do_and_instances_are_fresh():
    program = find(graphs(), lambda graph: True, settings=SEARCH).program
    strategy = bindings(program, estimators=("scg.ScoreFunction(baseline=scg.MovingAverage())",))
    seen = []

    @settings(max_examples=5, database=None)
    @given(strategy, st.integers())
    def draw(binding, _):
        seen.append(binding["a"])

    draw()
    assert len(seen) > 1 and len({id(e) for e in seen}) == len(seen)


def test_nothing_is_found_where_nothing_fits():
    with pytest.raises(NoSuchExample):
        find(graphs(nodes=1), lambda graph: len(graph.stochastic) > 1, settings=settings(SEARCH, max_examples=100))
