"""What a function is given by mistake is refused before work begins: what was needed, what came, the user's line."""

import warnings

import numpy as np
import pytest

import scg
from scg import distributions as dist
from scg.errors import ScgError

X = np.ones(3)


def cost(theta, rng):
    b = scg.sample(dist.Bernoulli(logits=theta), scg.ScoreFunction(), rng=rng, name="b")
    return np.mean((b - 0.499) ** 2)


def seeded():
    return np.random.default_rng(0)


GRAPH = scg.trace(cost, X, rng=seeded())


class Shifted(scg.extend.Distribution, scg.extend.FixedSupport):
    """N(loc, 1), whose own constructor checks nothing: the gradient by loc would be zero."""

    def __init__(self, loc):
        self.loc = loc

    def sample(self, rng, shape=()):
        return rng.normal(size=shape) + np.asarray(getattr(self.loc, "value", self.loc))

    def log_prob(self, value):
        return -((value - self.loc) ** 2) / 2 - 0.5 * np.log(2 * np.pi)


# the call, words of the message
MISTAKES = {
    "a cost that was computed": (lambda: scg.grad(cost(X, seeded())), "the function itself, .* scg.grad"),
    "arguments beside the function": (lambda: scg.vjp(np.sin, X), r"got float64\[3\]: fn's arguments"),
    "no parameters": (lambda: scg.testing.judge(cost, rng=seeded()), r"judge\(fn, params, rng=rng\)"),
    "three results": (lambda: scg.grad(lambda x: (np.sum(x), x, x), has_aux=True)(X), "got tuple of 3"),
    "a name": (lambda: scg.parameter(X, name=3), "a name must be a string, got 3"),
    "a class": (lambda: scg.sample(dist.Normal, scg.Reparameterized(), rng=seeded()), r"write Normal\(...\)"),
    "rows of data": (lambda: scg.minibatch(np.zeros((10, 2)), 2, rng=seeded()), r"write len\(data\)"),
    "a width": (
        lambda: scg.variance.compare(GRAPH, {"a": {}}, rng=seeded(), replicates=10).table("a"),
        "width must be an integer, got 'a'",
    ),
    "a budget": (lambda: scg.exact.distribution(GRAPH, "b"), "budget must be a number, got 'b'"),
    "an option of exact": (lambda: scg.exact.gradient(GRAPH, rng=seeded()), "got rng"),
    "an option of judge": (
        lambda: scg.testing.judge(GRAPH, rng=seeded(), replicates=9),
        "no further arguments, got replicates: the options",
    ),
    "a fallback": (lambda: scg.compile(cost, fallback="yes"), "fallback must be True or False, got 'yes'"),
    "sizes": (lambda: scg.nn.mlp(3, seeded()), r"got \[3\]"),
    "one layer": (lambda: scg.nn.apply(np.zeros((3, 4)), X), r"a list of layers, .* got float64\[3, 4\]"),
    "no layers": (lambda: scg.nn.apply(None, X), "a list of layers, .* got NoneType"),
    "an optimizer": (lambda: scg.checkpoint.save("a.npz", {"adam": scg.optim.Adam(X.copy())}), "save its .state"),
    "draws without a generator": (lambda: scg.bridge.Samples(lambda n: X), r"called as draw\(n, rng\)"),
    "a value": (lambda: scg.testing.check_gradient(np.tanh(X), X), "needs a function and its arguments"),
    "text": (lambda: scg.testing.check_gradient(lambda x: "a", X), "a function of numbers"),
    "a rate by another name": (lambda: scg.optim.Adam(X.copy(), lr=0.1), "got lr=0.1: write learning_rate=..."),
    "an argument of nobody": (
        lambda: scg.optim.SGD(X.copy(), 0.1, colour=1),
        "takes params, learning_rate, .* colour=1",
    ),
    "a flag": (lambda: scg.optim.SGD(X.copy(), 0.1, 0.9, nesterov="no"), "nesterov must be True or False, got 'no'"),
    "no generator": (lambda: dist.Normal(0.0, 1.0).sample(), r"needs rng=np.random.default_rng\(seed\), got nothing"),
    "a node as a key": (
        lambda: GRAPH.bind({GRAPH.stochastic["b"]: scg.DisARM()}),
        r"a key is the name of a stochastic node, or a pattern, got float64\[3\]",
    ),
    "one value": (
        lambda: scg.variance.sweep(lambda n: GRAPH, 3, {"a": {}}, rng=seeded()),
        "a sequence of values, got 3",
    ),
    "a parameter without a name": (
        lambda: scg.sample(Shifted(scg.parameter(1.0)), scg.ScoreFunction(), rng=seeded()),
        "Shifted: loc is a Node, so it is a parameter: name it in constraints",
    ),
    "no graph": (lambda: scg.testing.bindings(3), "a graph or a program, got int"),
    "no nodes": (lambda: scg.testing.graphs(nodes=0), "nodes must be at least 1, got 0"),
    "a graph of integers": (lambda: scg.testing.graphs(dtype=int), "a floating-point dtype, got int64"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_refused_with_what_was_needed_and_what_came(name):
    call, words = MISTAKES[name]
    with pytest.raises(ScgError, match=words) as caught:
        call()
    assert __file__ in str(caught.value)


@pytest.mark.parametrize("given", [dist.Normal(0.0, 1.0), [scg.parameter(1.0), 2.0]], ids=["distribution", "list"])
def test_a_parameter_that_is_no_array_is_refused_in_one_sentence(given):
    with pytest.raises(ScgError, match="^Normal: loc needs an array of numbers, got ") as caught:
        dist.Normal(given, 1.0)
    assert str(caught.value).count(__file__) == str(caught.value).count("needs an array") == 1


def test_a_cost_without_samples_has_a_verdict_without_a_warning():
    """Also where cost and gradient are zero, and no error of rounding is to be reckoned with."""
    graph = scg.trace(lambda x: np.sum(x**2), np.zeros(3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert scg.testing.judge(graph, rng=seeded()).status == "unbiased"


@pytest.mark.parametrize(
    "held",
    [
        lambda p: scg.stop_gradient({"w": [p, 2.0]})["w"][0],
        lambda p: scg.stop_gradient((p, None))[0],
        lambda p: scg.stop_gradient(dist.Normal(p, 1.0)).loc,
        lambda p: scg.stop_gradient(dist.Independent(dist.Normal(p, 1.0))).base.loc,
        scg.stop_gradient,
    ],
    ids=["dict", "tuple", "distribution", "nested distribution", "node"],
)
def test_a_structure_is_held_constant_as_a_node_is(held):
    """d sum(x held(x)) / dx = held(x)."""
    np.testing.assert_array_equal(scg.grad(lambda x: np.sum(x * held(x)))(2 * X), 2 * X)
