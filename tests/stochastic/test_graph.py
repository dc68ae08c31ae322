"""Graphs as data: tracing, names, binding, running again, replicates, pickling; and minibatches."""

import math
import pickle

import numpy as np
import pytest

import scg
from scg import distributions as dist
from scg.core.node import Node
from scg.errors import EstimatorError, GuardError, NotDifferentiable, ScgTypeError, ScgValueError
from tests.support.graphs import THETA, model
from tests.support.oracle import expectation

pytestmark = pytest.mark.fast

RNG = np.random.default_rng


def test_a_traced_graph_names_its_parts():
    graph = scg.trace(model, THETA, rng=RNG(0))
    assert set(graph.parameters) == {"logits", "loc"} and all(type(p) is Node for p in graph.parameters.values())
    assert list(graph.stochastic) == ["b", "z"]  # what does not lead to the cost is no part of it
    assert graph.stochastic["b"].value.shape == (3,) and graph.cost.shape == ()
    value, gradient = scg.value_and_grad(model)(THETA, rng=RNG(0))
    assert graph.cost.value == value
    for name, leaf in graph.gradients().items():
        np.testing.assert_array_equal(leaf, gradient[name])
    assert graph.surrogate().value == value
    assert "b ~ Bernoulli" in str(graph) and "Reparameterized" in repr(graph)


def test_unnamed_draws_are_called_by_their_distribution_and_names_are_unique():
    def two(t, rng):
        return sum(scg.sample(dist.Normal(t, 1.0), scg.Reparameterized(), rng=rng) for _ in range(2)) ** 2

    assert list(scg.trace(two, np.array(0.1), rng=RNG(0)).stochastic) == ["normal", "normal_1"]

    def twice(t, rng):
        return sum(scg.sample(dist.Normal(t, 1.0), scg.Reparameterized(), rng=rng, name="z") for _ in range(2)) ** 2

    with pytest.raises(ScgValueError, match="two stochastic nodes are called 'z'.*test_graph.py"):
        scg.trace(twice, np.array(0.1), rng=RNG(0))


def test_binding_changes_one_estimator_and_nothing_else():
    graph = scg.trace(model, THETA, rng=RNG(0))
    bound = graph.bind(b=scg.Enumerate())
    assert bound.cost.value == graph.cost.value
    for name in ("b", "z"):
        np.testing.assert_array_equal(bound.stochastic[name].value, graph.stochastic[name].value)
    np.testing.assert_array_equal(bound.gradients()["loc"], graph.gradients()["loc"])  # nobody else's gradient
    assert not np.allclose(bound.gradients()["logits"], graph.gradients()["logits"])
    assert type(graph.stochastic["b"].statics["site"].estimator) is scg.ScoreFunction  # the graph itself is untouched
    again = bound.bind(b=scg.ScoreFunction())
    np.testing.assert_array_equal(again.gradients()["logits"], graph.gradients()["logits"])


def test_binding_refuses_what_does_not_fit():
    graph = scg.trace(model, THETA, rng=RNG(0))
    with pytest.raises(ScgValueError, match="no stochastic node is called 'c'; there are 'b', 'z'"):
        graph.bind(c=scg.Enumerate())
    with pytest.raises(EstimatorError, match="b: Reparameterized"):
        graph.bind(b=scg.Reparameterized())
    with pytest.raises(ScgTypeError, match="needs an estimator"):
        graph.bind(b="score")
    with pytest.raises(ScgTypeError, match=r"write DisARM\(\)"):
        graph.bind(b=scg.DisARM)


@pytest.mark.parametrize("seed", [0, 3, np.random.RandomState(0), np.random.SeedSequence(0)])
def test_new_draws_need_a_generator(seed):
    graph = scg.trace(model, THETA, rng=RNG(0))
    for call in (graph.gradients, graph.run):
        with pytest.raises(ScgTypeError, match=r"new samples need rng=np\.random\.default_rng\(seed\), got"):
            call(rng=seed)


def test_bound_between_pathwise_and_score():
    graph = scg.trace(model, THETA, rng=RNG(0)).bind(z=scg.ScoreFunction())
    found = graph.gradients(rng=RNG(1), replicates=40_000)
    exact = scg.trace(model, THETA, rng=RNG(0)).bind(b=scg.Enumerate()).gradients(rng=RNG(2), replicates=40_000)
    for name in found:
        error = np.sqrt(found[name].var(axis=0) / 40_000 + exact[name].var(axis=0) / 40_000)
        assert (np.abs(found[name].mean(axis=0) - exact[name].mean(axis=0)) < 6 * error + 1e-12).all()


@pytest.mark.slow
def test_replicates_have_the_mean_and_spread_of_single_runs():
    graph = scg.trace(model, THETA, rng=RNG(0))
    many = graph.gradients(rng=RNG(1), replicates=4000)
    single = [graph.gradients(rng=rng) for rng in map(RNG, range(1000))]
    for name, leaf in many.items():
        assert leaf.shape == (4000, 3) and leaf.flags.writeable
        one = np.array([g[name] for g in single])
        error = np.sqrt(leaf.var(axis=0) / 4000 + one.var(axis=0) / 1000)
        assert (np.abs(leaf.mean(axis=0) - one.mean(axis=0)) < 6 * error).all()
        assert (np.abs(np.log(leaf.var(axis=0) / one.var(axis=0))) < 0.8).all()


def test_replicates_do_not_depend_on_the_blocks_for_pathwise_noise_of_one_node(monkeypatch):
    def cost(t, rng):
        return scg.sample(dist.Normal(t, 1.0), scg.Reparameterized(), rng=rng) ** 2

    whole = scg.trace(cost, np.array(0.5), rng=RNG(0)).gradients(rng=RNG(7), replicates=50)
    monkeypatch.setattr("scg.stochastic.replicates.BLOCK", 64)
    parts = scg.trace(cost, np.array(0.5), rng=RNG(0)).gradients(rng=RNG(7), replicates=50)
    np.testing.assert_array_equal(whole, parts)


@pytest.mark.parametrize("replicates", [0, -3])
def test_bad_counts_of_replicates(replicates):
    graph = scg.trace(model, THETA, rng=RNG(0))
    with pytest.raises(ScgValueError, match="at least 1"):
        graph.gradients(rng=RNG(0), replicates=replicates)
    with pytest.raises(ScgTypeError, match="default_rng"):
        graph.gradients(replicates=5)


def test_runs_with_given_values_and_parameters():
    graph = scg.trace(model, THETA, rng=RNG(0))
    ones = graph.run(values={"b": np.ones(3)})
    np.testing.assert_array_equal(ones.stochastic["b"].value, np.ones(3))
    noise = graph.stochastic["z"].value - graph.stochastic["b"].value * THETA["loc"]
    np.testing.assert_allclose(ones.stochastic["z"].value, THETA["loc"] + noise, rtol=1e-14)  # the same noise
    moved = graph.run(parameters={"logits": THETA["logits"], "loc": THETA["loc"] + 1}, values={"b": np.ones(3)})
    np.testing.assert_allclose(moved.stochastic["z"].value, THETA["loc"] + 1 + noise, rtol=1e-14)
    with pytest.raises(ScgValueError, match="shape"):
        graph.run(values={"b": np.ones(4)})
    with pytest.raises(ScgTypeError, match="function of its noise"):
        graph.run(values={"z": np.ones(3)})
    with pytest.raises(ScgValueError, match="no stochastic node"):
        graph.run(values={"q": np.ones(3)})


def choosing(t, rng):
    b = scg.sample(dist.Bernoulli(logits=t), scg.ScoreFunction(), rng=rng, name="b")
    return t * t if b > 0 else 3 * t


@pytest.mark.slow
def test_guards_in_a_graph():
    graph = scg.trace(choosing, np.array(0.7), rng=RNG(0))
    other = 1 - graph.stochastic["b"].value
    with pytest.raises(GuardError, match="test_graph.py"):
        graph.run(values={"b": other})
    p = 1 / (1 + np.exp(-0.7))
    exact = p * (1 - p) * (0.49 - 2.1) + p * 1.4 + (1 - p) * 3
    along = {1.0: 1.4, 0.0: 3.0}[float(1 - other)]  # it looks at the branch that was not taken
    np.testing.assert_allclose(graph.bind(b=scg.Enumerate()).gradients(), p * (1 - p) * (0.49 - 2.1) + along)
    for estimator in (scg.ScoreFunction(), scg.ScoreFunction(baseline=scg.Constant(1.0))):
        g = graph.bind(b=estimator).gradients(rng=RNG(1), replicates=4000)
        assert abs(g.mean() - exact) < 6 * g.std() / np.sqrt(4000)


def test_pickling_keeps_a_graph_whole():
    graph = scg.trace(model, THETA, rng=RNG(0)).bind(b=scg.ScoreFunction(baseline=scg.Constant(0.5)))
    back = pickle.loads(pickle.dumps(graph))
    for name, leaf in graph.gradients().items():
        np.testing.assert_array_equal(back.gradients()[name], leaf)
    many = back.gradients(rng=RNG(3), replicates=10)
    for name, leaf in graph.gradients(rng=RNG(3), replicates=10).items():
        np.testing.assert_array_equal(many[name], leaf)


def deep(t, rng):
    z = t
    for i in range(200):
        z = scg.sample(
            dist.Normal(z, 1.0), scg.ScoreFunction() if i % 2 else scg.Reparameterized(), rng=rng, name=f"z{i}"
        )
    return z


def test_a_long_chain_of_draws_is_pickled_in_linear_space():
    graph = scg.trace(deep, np.array(0.5), rng=RNG(0))
    data = pickle.dumps(graph)
    assert len(data) < 1000 * 200
    assert pickle.loads(data).gradients() == graph.gradients()


def test_declarations_are_refused_at_once():
    with pytest.raises(ScgTypeError, match=r"ScoreFunction\(\)"):
        scg.sample(dist.Bernoulli(logits=0.0), scg.ScoreFunction, rng=RNG(0))
    with pytest.raises(ScgTypeError, match="default_rng"):
        scg.sample(dist.Bernoulli(logits=0.0), scg.ScoreFunction(), rng=0)
    with pytest.raises(ScgTypeError, match="needs a distribution"):
        scg.sample(0.5, scg.ScoreFunction(), rng=RNG(0))
    with pytest.raises(EstimatorError, match="u.*fixed support"):  # it would give (.33, -.33) where (0, 1) is right
        scg.sample(dist.Uniform(scg.parameter(-1.0), scg.parameter(2.0)), scg.ScoreFunction(), rng=RNG(0), name="u")


def test_uniform_by_its_path():
    def cost(ends, rng):
        return scg.sample(dist.Uniform(ends[0], ends[1]), scg.Reparameterized(), rng=rng) ** 2

    ends = scg.parameter(np.array([-1.0, 2.0]))
    mean = expectation(cost(ends, RNG(0)))
    np.testing.assert_allclose(scg.gradients(mean, [ends])[0], [0.0, 1.0], atol=1e-12)


def test_a_traced_function_that_depends_on_nothing():
    with pytest.raises(ScgTypeError, match="neither on its parameters nor on a sample"):
        scg.trace(lambda t: 3.0, np.array(1.0))


def test_minibatches_estimate_the_whole_sum_exactly_on_average():
    data = np.arange(6.0) ** 2 / 3

    def cost(t, rng):
        batch = scg.minibatch(6, 2, rng=rng)
        return batch.factor * np.sum((batch.rows(data) - t) ** 2 * t)

    t = scg.parameter(np.array(0.7))
    mean = expectation(cost(t, RNG(0)))
    np.testing.assert_allclose(mean.value, np.sum((data - 0.7) ** 2 * 0.7), rtol=1e-13)
    slope = expectation(scg.gradients(cost(t, RNG(1)), [t], create_graph=True)[0])
    np.testing.assert_allclose(slope.value, np.sum((data - 0.7) ** 2 - 2 * (data - 0.7) * 0.7), rtol=1e-13)


def test_a_minibatch_is_a_draw_of_the_graph():
    def cost(t, rng):
        return np.sum(scg.minibatch(5, 2, rng=rng, name="rows").rows(np.arange(5.0)) * t)

    graph = scg.trace(cost, np.array(1.0), rng=RNG(0))
    index = graph.stochastic["rows"].value
    assert index.dtype == np.int64 and (np.diff(index) > 0).all()
    many = graph.gradients(rng=RNG(1), replicates=3000)
    assert set(many.tolist()) == {float(i + j) for i in range(5) for j in range(i)}
    for bad in ((0, 1), (3, 4), (2.5, 1)):
        with pytest.raises(ScgValueError):
            scg.minibatch(*bad, rng=RNG(0))


@pytest.mark.parametrize(
    "replicates, error",
    [(2.5, ScgTypeError), ("a", ScgTypeError), (True, ScgTypeError), (0, ScgValueError), (-1, ScgValueError)],
)
def test_replicates_are_a_whole_number(replicates, error):
    graph = scg.trace(
        lambda t, rng: scg.sample(dist.Normal(t, 1.0), scg.ScoreFunction(), rng=rng),
        np.array(1.0),
        rng=np.random.default_rng(0),
    )
    for run in (graph.run, graph.gradients):
        with pytest.raises(error, match="replicates must be"):
            run(rng=np.random.default_rng(0), replicates=replicates)


def test_a_given_value_is_one_that_the_draw_can_have():
    cost = lambda t, rng: (
        t * np.sum(scg.sample(dist.Bernoulli(logits=t), scg.ScoreFunction(), rng=rng, name="b", shape=(2,)))
    )
    graph = scg.trace(cost, np.array(1.0), rng=np.random.default_rng(0))
    assert graph.run(values={"b": [1, 0]}).cost.value == 1
    np.testing.assert_array_equal(graph.run(values={"b": np.eye(2)}, replicates=2).cost.value, [1, 1])
    with pytest.raises(ScgValueError, match="b: .*0.5.* is no value of Bernoulli.*low=0, high=1"):
        graph.run(values={"b": [0.5, 1]})


def test_names_are_strings_and_costs_are_floating_point():
    with pytest.raises(ScgTypeError, match="name must be a string, got 3"):
        scg.sample(dist.Normal(0.0, 1.0), scg.ScoreFunction(), rng=np.random.default_rng(0), name=3)
    with pytest.raises(NotDifferentiable, match="multiply it by 1.0"):
        scg.grad(lambda t, rng: scg.sample(dist.Categorical(logits=t), scg.ScoreFunction(), rng=rng))(
            np.zeros(2), rng=np.random.default_rng(0)
        )


def test_a_graph_of_a_local_function_is_pickled():
    graph = scg.trace(lambda t, rng: deep(t, rng) * 2.0, np.array(0.3), rng=RNG(0))
    back = pickle.loads(pickle.dumps(graph))
    np.testing.assert_array_equal(*[g.gradients(rng=RNG(1), replicates=5) for g in (graph, back)])


def several(theta, rng):
    a = [scg.sample(dist.Bernoulli(logits=theta), scg.ScoreFunction(), rng=rng, name=f"a[{k}]") for k in range(2)]
    b = scg.sample(dist.Bernoulli(logits=theta), scg.ScoreFunction(), rng=rng)
    batch = scg.minibatch(3, 2, rng=rng, name="rows")
    return np.sum(a[0] * a[1] + b) + 0.0 * np.sum(batch.rows(np.ones(3)))


def estimators_of(graph):
    return {name: type(node.statics["site"].estimator).__name__ for name, node in graph.stochastic.items()}


def test_patterns_bind_all_that_they_match_a_name_goes_first_and_a_later_pattern_before_an_earlier_one():
    graph = scg.trace(several, np.zeros(2), rng=RNG(0))
    bound = graph.bind({"*": scg.DisARM(), "a*": scg.ARM(), "a[1]": scg.Enumerate()})
    assert estimators_of(bound) == {"a[0]": "ARM", "a[1]": "Enumerate", "bernoulli": "DisARM", "rows": "Accounted"}
    assert estimators_of(bound.bind({"a*": scg.MuProp()})) == {
        "a[0]": "MuProp",
        "a[1]": "MuProp",
        "bernoulli": "DisARM",
        "rows": "Accounted",
    }
    with pytest.raises(ScgValueError, match="'c\\*'"):
        graph.bind({"c*": scg.ARM()})
    with pytest.raises(EstimatorError, match="a\\[0\\]"):
        graph.bind({"*": scg.Reparameterized()})
    with pytest.raises(ScgTypeError, match="mapping"):
        graph.bind(np.ones(3))


def test_a_row_of_a_comparison_may_be_a_pattern():
    report = scg.variance.compare(
        scg.trace(several, np.zeros(2), rng=RNG(0)), {"ARM": {"*": scg.ARM()}}, replicates=200, rng=RNG(1)
    )
    assert list(report) == ["ARM"]


def test_patterns_and_unnamed_draws_keep_their_estimators_where_the_function_is_traced_again():
    met = []

    class Noted(scg.Enumerate):
        def draw(self, distribution, rng, shape):
            met.append(type(distribution).__name__)
            return super().draw(distribution, rng, shape)

    def cost(theta, rng):
        if scg.sample(dist.Bernoulli(logits=theta), scg.ScoreFunction(), rng=rng, name="first") > 0:
            return theta * scg.sample(dist.Bernoulli(logits=theta), scg.ScoreFunction(), rng=rng)
        return theta * scg.sample(
            dist.Categorical(logits=np.stack([theta, 0 * theta])), scg.ScoreFunction(), rng=rng, name="other"
        )

    graph = scg.trace(cost, np.array(0.3), rng=RNG(0))
    unseen = {"bernoulli", "other"} - set(graph.stochastic)
    graph = graph.bind({"[bo]*": Noted()})
    met.clear()
    graph.gradients(rng=RNG(0), replicates=40)
    assert unseen and set(met) == {"Bernoulli", "Categorical"}


FORMS = {
    "scale": (lambda t: dist.Normal(0.0, t), np.array(1.0), [-1.0, 0.0, math.nan, math.inf]),
    "probs": (lambda t: dist.Categorical(probs=t), np.array([0.5, 0.5]), [[0.9, 0.9], [1.5, -0.5], [math.nan, 0.5]]),
    "base.rate": (lambda t: dist.Independent(dist.Poisson(t), 1), np.array([1.0, 2.0]), [[1.0, -2.0]]),
    "low": (lambda t: dist.Uniform(t, 1.0), np.array(0.0), [1.0, 3.0]),
    "component.rate": (
        lambda t: dist.Mixture(dist.Exponential(t), weights=[0.5, 0.5]),
        np.array([1.0, 2.0]),
        [[1.0, 0.0]],
    ),
    "a draw in between": (
        lambda t: dist.Normal(0.0, scg.sample(dist.Delta(t), scg.Reparameterized(), rng=np.random.default_rng(0))),
        np.array(1.0),
        [-1.0],
    ),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("estimator", [scg.ScoreFunction(), scg.Reparameterized()])
def test_a_graph_run_with_parameters_that_a_distribution_refuses_is_refused_as_the_function_is(form, estimator):
    make, good, bad = FORMS[form]
    function = lambda t, rng: 1.0 * np.sum(scg.sample(make(t), estimator, rng=rng, name="z") ** 2)
    try:
        graph = scg.trace(function, good, rng=np.random.default_rng(0))
    except EstimatorError:
        return
    for parameters in map(np.asarray, bad):
        with pytest.raises(ScgValueError) as by_function:
            scg.grad(function)(parameters, rng=np.random.default_rng(0))
        for run in (
            lambda p=parameters: graph.run(parameters=p, rng=np.random.default_rng(0)),
            lambda p=parameters: graph.run(parameters=p),
            lambda p=parameters: graph.run(parameters=p, rng=np.random.default_rng(0), replicates=3),
            lambda p=parameters: scg.replay(graph.cost, {graph.parameters: p}),
            lambda p=parameters: scg.replay(graph.cost, {graph.parameters: np.stack([good, p])}, [graph.parameters]),
        ):
            with pytest.raises(ScgValueError) as caught:
                run()
            assert "test_graph.py" in str(caught.value) and str(by_function.value).split(" (")[0].split(", got")[
                0
            ] in str(caught.value)
    assert np.isfinite(graph.run(parameters=good * 1.0, rng=np.random.default_rng(1)).gradients()).all()


def test_values_and_parameters_of_a_run_are_numbers_of_the_right_shape():
    graph = scg.trace(
        lambda s, rng: np.sum(scg.sample(dist.Normal(0.0, s), scg.ScoreFunction(), rng=rng, name="z") ** 2),
        np.array(1.0),
        rng=np.random.default_rng(0),
    )
    rng = np.random.default_rng(0)
    for bad, kind in (
        (None, ScgTypeError),
        ("a", ScgTypeError),
        (1j, ScgTypeError),
        (np.ones(5), ScgValueError),
        ([1.0, "a"], ScgTypeError),
    ):
        with pytest.raises(kind):
            graph.run(values={"z": bad})
        for replicates in (None, 3) if bad is not None else ():
            with pytest.raises(ScgValueError if isinstance(bad, list) else kind):
                graph.run(parameters=bad, rng=rng, replicates=replicates)
    assert graph.run(parameters=np.array([1.0, 2.0, 3.0]), rng=rng, replicates=3).cost.shape == (3,)


@pytest.mark.parametrize("order", [None, 1])
def test_replicates_behind_an_if_on_a_sample_have_values_and_no_common_gradient(order):
    """An `if` looks at the sample of one run: what stands behind it must not depend on those of others."""

    def cost(t, rng):
        x = scg.sample(dist.Normal(t, 1.0), scg.ScoreFunction(), rng=rng, name="x")
        if x > -100:
            return scg.sample(dist.Normal(t, 1.0), scg.ScoreFunction(), rng=rng, name="z") ** 2 + x
        return x

    graph = scg.trace(cost, np.array(0.25), rng=np.random.default_rng(0))
    many = graph.run(rng=np.random.default_rng(1), replicates=500)
    z, x = [many.stochastic[name].value for name in "zx"]
    np.testing.assert_allclose(many.cost.value, z**2 + x)
    with pytest.raises(GuardError, match="replicates were run at once.*graph.gradients"):
        scg.gradients(scg.surrogate(np.sum(many.cost), order=order), many.parameters)
    with pytest.raises(GuardError, match="replicates were run at once"):
        scg.gradients(np.sum(many.cost), many.parameters)
    alone = graph.run(rng=np.random.default_rng(1), replicates=1)
    z, x = [alone.stochastic[name].value for name in "zx"]
    right = (z**2 + x) * (x - 0.25) + z**2 * (z - 0.25)
    np.testing.assert_allclose(scg.gradients(np.sum(alone.cost), alone.parameters), right)
    found = graph.gradients(rng=np.random.default_rng(1), replicates=500)
    assert np.std(found) < 20  # 4.5, and 1400 where each sees the costs of all


@pytest.mark.parametrize("estimator", [scg.ScoreFunction(), scg.Reparameterized()], ids=repr)
def test_replicates_of_a_long_walk_come_in_blocks_of_the_same_size_however_long_it_is(estimator, monkeypatch):
    """Else a walk of n steps takes n blocks of n calls each."""
    monkeypatch.setattr("scg.stochastic.replicates.BLOCK", 1)

    def walk(n):
        def cost(theta, rng):
            x, total = 0.0, 0.0
            for _ in range(n):
                x = 0.5 * x + scg.sample(dist.Normal(theta + 0.1 * x, 1.0), estimator, rng=rng)
                total = total + (x - 1) ** 2
            return total

        return scg.trace(cost, np.array(0.1), rng=RNG(0))

    short, long = walk(20), walk(200)
    assert long.block > 0.9 * short.block >= 90
    assert long.gradients(rng=RNG(1), replicates=3).shape == (3,)


def test_a_distribution_may_write_to_what_it_gave_before():
    def cost(t, rng):
        a, b = (scg.sample(dist.Normal(t, 1.0), scg.ScoreFunction(), rng=rng) for _ in range(2))
        return np.sum(a * b)

    graph = scg.trace(cost, np.zeros(3), rng=RNG(0))
    expected = graph.gradients(rng=RNG(1), replicates=50)
    memory = np.zeros((50, 3))

    def reused(self, distribution, rng, shape):
        memory[...] = distribution.sample(rng, shape)
        return memory

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scg.ScoreFunction, "draw", reused)
        np.testing.assert_array_equal(graph.gradients(rng=RNG(1), replicates=50), expected)
