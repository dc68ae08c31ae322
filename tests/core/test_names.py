"""Names that scg does not have, and numbers that a dict or a set would not find: each error says what is written here,
and that works."""

import collections
import functools
import inspect
import re

import numpy as np
import pytest

import scg
from scg import distributions as dist
from scg.errors import ScgAttributeError, ScgError, ScgTypeError, ScgValueError

pytestmark = pytest.mark.fast

# of other libraries, of another module of ours, of NumPy, misspelt: words of the advice
NAMES = {
    scg: {
        "jit": "scg.compile(fn)",
        "vmap": "scg.trace(fn, x, rng=rng).gradients(rng=rng, replicates=n)",
        "value_and_gradient": "scg.value_and_grad",
        "stop_grad": "scg.stop_gradient",
        "Tensor": "scg.parameter(array)",
        "no_grad": "scg.stop_gradient(node)",
        "manual_seed": "np.random.default_rng(seed)",
        "jacrev": "scg.jacobian(fn)",
        "dist": "from scg import distributions as dist",
        "Normal": "scg.distributions.Normal",
        "Adam": "scg.optim.Adam",
        "logsumexp": "scg.special.logsumexp",
        "assert_unbiased": "scg.testing.assert_unbiased",
        "exp": "np.exp",
        "smaple": "scg.sample",
    },
    scg.distributions: {"Gaussian": "Normal(loc, scale)", "Bernouli": "scg.distributions.Bernoulli"},
    scg.estimators: {"REINFORCE": "ScoreFunction()", "Reparametrized": "scg.estimators.Reparameterized"},
    scg.optim: {"adam": "scg.optim.Adam"},
    scg.nn: {"Linear": "scg.nn.mlp(sizes, rng)"},
    scg.testing: {"check_grads": "scg.testing.check_gradient(fn, x)", "judg": "scg.testing.judge"},
}


@pytest.mark.parametrize(("module", "name"), [(module, name) for module, names in NAMES.items() for name in names])
def test_a_name_of_another_library_says_what_is_written_here(module, name):
    with pytest.raises(ScgAttributeError) as caught:
        getattr(module, name)
    message = str(caught.value)
    assert not hasattr(module, name)
    assert f"has no attribute {name!r}: write " in message and NAMES[module][name] in message and __file__ in message


def test_the_names_that_are_advised_are_there():
    """Whatever an advice calls ``scg....`` or ``np....`` exists."""
    advised = set()
    for module in NAMES:
        absent = getattr(module, "_absent", module.__getattr__)
        for way in inspect.getclosurevars(absent).nonlocals["elsewhere"].values():
            advised |= set(re.findall(r"\b(?:scg|np)(?:\.\w+)+", way))
    assert len(advised) > 10
    for path in advised:
        functools.reduce(getattr, path.split(".")[1:], scg if path.startswith("scg") else np)


@pytest.mark.parametrize("module", NAMES, ids=lambda module: module.__name__)
@pytest.mark.parametrize("name", ["colour", "__wrapped__", "_private"])
def test_a_name_that_nobody_has_is_python_s_own_error(module, name):
    with pytest.raises(AttributeError, match=f"has no attribute '{name}'$") as caught:
        getattr(module, name)
    assert not isinstance(caught.value, ScgError)


# attributes

GRAPH = scg.trace(lambda x: np.sum(x * x), np.ones(2))
ATTRIBUTES = {
    "graph": (
        GRAPH,
        {"value": "graph.cost.value", "backward": "graph.gradients(rng=rng)", "plot": 'graph.save("graph.svg")'},
    ),
    "optimizer": (
        scg.optim.Adam(np.zeros(2)),
        {
            "lr": "optimizer.learning_rate",
            "zero_grad": "an argument of optimizer.step",
            "state_dict": "optimizer.state",
        },
    ),
    "node": (
        scg.parameter(np.ones(2)),
        {"cuda": "node:", "float": "node.astype(np.float32)", "log_prob": "distribution.log_prob"},
    ),
}


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, (_, names) in ATTRIBUTES.items() for name in names])
def test_an_attribute_of_another_library_says_what_is_written_here(kind, name):
    owner, names = ATTRIBUTES[kind]
    with pytest.raises(ScgAttributeError) as caught:
        getattr(owner, name)
    assert f"has no .{name}: write " in str(caught.value) and names[name] in str(caught.value)
    assert __file__ in str(caught.value) and not hasattr(owner, name)
    with pytest.raises(AttributeError, match="no attribute 'colour'$"):
        _ = owner.colour


def test_the_rate_of_an_optimizer_is_not_set_by_another_name():
    """``optimizer.lr = rate`` would have no effect."""
    optimizer = scg.optim.SGD(np.zeros(2), learning_rate=0.5)
    with pytest.raises(ScgAttributeError, match="write optimizer.learning_rate"):
        optimizer.lr = 0.1
    optimizer.learning_rate, optimizer.note = 0.1, "mine"
    assert optimizer.learning_rate == 0.1 and optimizer.note == "mine"


# tables of numbers

LOOKUPS = {
    "item": lambda table, b: table[b],
    "get": lambda table, b: table.get(b, 0.0),
    "in": lambda table, b: 1.0 if b in table else 0.0,
    "set": lambda table, b: float(len({b, 1.0 * b})),
    "frozenset": lambda table, b: 1.0 if b in frozenset(table) else 0.0,
    "Counter": lambda table, b: float(collections.Counter([b])[1.0]),
    "cache": lambda table, b: functools.cache(lambda x: 2.0 * x)(b),
}
TABLE = {0.0: 0.1, 1.0: 0.9}


def coin(theta, rng):
    return scg.sample(dist.Bernoulli(logits=theta), scg.Enumerate(), rng=rng, name="b")


@pytest.mark.parametrize("drawn", [True, False])
@pytest.mark.parametrize("name", LOOKUPS)
def test_a_number_that_is_a_node_is_not_looked_up(name, drawn):
    """``get`` would give the default, and ``in`` be false, whatever the number is."""

    def cost(theta, rng):
        return theta * LOOKUPS[name](TABLE, coin(theta, rng) if drawn else theta)

    with pytest.raises(ScgTypeError, match="a cache would look for <.* itself, and not for its number") as caught:
        scg.grad(cost)(0.5, rng=np.random.default_rng(0))
    assert __file__ in str(caught.value)


WAYS = {
    "index": lambda b: scg.parameter(np.array([0.1, 0.9]))[b.astype(int)],
    "where": lambda b: np.where(b == 0, 0.1, 0.9),
    "if": lambda b: 0.1 if b == 0 else 0.9,
}


@pytest.mark.parametrize("name", WAYS)
def test_the_ways_to_look_up_a_number_have_the_gradient_of_the_table(name):
    """d/dt (.1 (1 - p) + .9 p) = .8 p (1 - p), p = sigmoid(t)."""
    p = scg.special.sigmoid(0.5)
    gradient = scg.grad(lambda theta, rng: WAYS[name](coin(theta, rng)))(0.5, rng=np.random.default_rng(0))
    np.testing.assert_allclose(gradient, 0.8 * p * (1 - p), rtol=1e-12)


def replacements(y):
    entered = {}
    entered[y] = 5.0
    return [{y: 3.0}, {n: 2.0 * k for k, n in enumerate([y], 2)}, entered]


def test_a_replay_within_a_run_names_its_nodes():
    """In a dict, a comprehension, entry by entry or by a call: what is not replaced has its derivative, 2 t."""

    def cost(theta):
        y = 1.0 * theta
        z = y * y
        found = [*map(scg.replay, [z] * 3, replacements(y)), scg.replay(z, dict.fromkeys([y], 6.0))]
        assert [float(f) for f in found] == [9.0, 16.0, 25.0, 36.0]
        return z + sum(found)

    assert scg.grad(cost)(0.5) == 1.0


def test_nodes_themselves_are_found_in_sets_and_dicts():
    """Those of a graph; and, within a run, arrays, which NumPy cannot look up either."""
    graph = scg.trace(lambda theta, rng: np.sum(coin(theta, rng)), np.zeros(2), rng=np.random.default_rng(0))
    assert len({node: node.name for node in graph.nodes}) == len(set(graph.nodes)) == len(graph.nodes)
    assert scg.grad(lambda x: float(len({x, x})) * np.sum(x))(np.ones(2)).tolist() == [1.0, 1.0]


def test_nditer_names_what_iterates_over_a_node():
    node = scg.parameter(np.arange(4.0).reshape(2, 2))
    with pytest.raises(ScgValueError, match=r"np.ravel\(node\)") as caught:
        sum(x for x in np.nditer(node))
    assert __file__ in str(caught.value)
    assert sum(x for x in np.ravel(node)).value == 6.0
