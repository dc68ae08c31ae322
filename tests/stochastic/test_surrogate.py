"""The surrogate loss against exact expectations, against surrogates written by hand, and to second order."""

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import scg
from scg import distributions as dist
from scg.core.ancestry import ancestors
from scg.errors import EstimatorError, NotDifferentiable
from scg.stochastic.formulas import plus
from scg.stochastic.surrogate import surrogate
from tests.support.oracle import first_and_second

pytestmark = pytest.mark.fast

ESTIMATORS = {
    "score": lambda: scg.ScoreFunction(),
    "score, constant": lambda: scg.ScoreFunction(baseline=scg.Constant(0.7)),
    "score, 2 samples": lambda: scg.ScoreFunction(samples=2),
    "leave-one-out": lambda: scg.ScoreFunction(samples=2, baseline=scg.LeaveOneOut()),
    "enumerate": lambda: scg.Enumerate(),
}
THETA = np.array([0.3, -0.5])


def coin(theta, rng, estimator, **more):
    return scg.sample(dist.Bernoulli(logits=theta), ESTIMATORS[estimator](), rng=rng, **more)


def separate(t, rng, a, b):
    x = coin(t, rng, a)
    return np.mean((x - 0.45) ** 2 * np.array([1.0, 2.0]) + x * t)


def mixing(t, rng, a, b):
    x = coin(t, rng, a)
    return np.sum(x * t) ** 2 + np.prod(x + t)


def chain(t, rng, a, b):
    x = coin(t[:1], rng, a)
    y = coin(x * t[1] + t[0], rng, b)
    return np.sum(y * t[1] * x) - np.sum(x) * t[0] + np.sum(y + x) ** 2


def branches(t, rng, a, b):
    x, y = coin(t[0], rng, a), coin(t[1], rng, b)
    return 3 * (x - t[1]) ** 2 - (y * t[0] + x * y) / 2


def through_a_path(t, rng, a, b):
    z = scg.sample(dist.Normal(t[0], 1 + t[1] ** 2), scg.Reparameterized(), rng=rng)
    x = coin(np.tanh(z) * t[0], rng, b)
    return x * t[1] + z**2 * t[0] + x * z


def into_a_path(t, rng, a, b):
    x = coin(t[0], rng, a)
    z = scg.sample(dist.Normal(x * t[1], 1.5), scg.Reparameterized(), rng=rng)
    return z**2 * t[0] + x * z


def layout(t, rng, a, b):
    x = coin(t, rng, a)
    y = np.stack([x, x * t]).T.reshape(4)
    return np.sum(np.reshape(y, (2, 2))[:, 1] * np.array([1.0, 3.0])) - np.concatenate([x, t])[1]


@pytest.mark.parametrize("a", ESTIMATORS)
@pytest.mark.parametrize("model", [separate, mixing, branches, into_a_path, layout])
def test_mean_of_first_and_second_derivative_is_exact(model, a):
    for found, exact in first_and_second(
        lambda t, rng: model(t, rng, a, "enumerate" if a == "score" else "score"), THETA, points=5
    ):
        np.testing.assert_allclose(found, exact, rtol=1e-10, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("b", ESTIMATORS)
@pytest.mark.parametrize("a", ["score", "leave-one-out", "enumerate"])
@pytest.mark.parametrize("model", [chain, through_a_path])
def test_draws_that_feed_draws(model, a, b):
    for found, exact in first_and_second(lambda t, rng: model(t, rng, a, b), THETA, points=5):
        np.testing.assert_allclose(found, exact, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("baseline", [None, scg.Constant(0.3), scg.LeaveOneOut()])
def test_own_sample_axis(baseline):
    def cost(t, rng):
        x = scg.sample(dist.Bernoulli(logits=t), scg.ScoreFunction(baseline=baseline), rng=rng, shape=(3,))
        return np.mean(np.sum((x - t) ** 2 * x, axis=1))

    for found, exact in first_and_second(cost, THETA):
        np.testing.assert_allclose(found, exact, rtol=1e-10, atol=1e-12)


def test_leave_one_out_needs_costs_that_do_not_mix():
    def cost(t, rng):
        x = scg.sample(
            dist.Bernoulli(logits=t), scg.ScoreFunction(baseline=scg.LeaveOneOut()), rng=rng, shape=(3,), name="coins"
        )
        return np.sum(x) ** 2

    with pytest.raises(EstimatorError, match="coins.*do not mix.*samples=n"):
        scg.grad(cost)(THETA, rng=np.random.default_rng(0))


def hierarchical(t, rng):
    top = scg.sample(dist.Bernoulli(logits=t["top"]), scg.ScoreFunction(), rng=rng, name="top")
    # (sample, group)
    group = scg.sample(dist.Bernoulli(logits=t["group"] + top), scg.ScoreFunction(), rng=rng, shape=(4,), name="group")
    # (sample, group, item)
    item = scg.sample(dist.Bernoulli(logits=t["item"] * group[:, :, None]), scg.ScoreFunction(), rng=rng, name="item")
    merged = np.reshape(item - 0.3, (4, 6)) ** 2  # groups and items in one axis
    per_item = np.reshape(merged, (4, 3, 2))
    return np.mean(np.sum(per_item, axis=(1, 2))) - 2 * np.sum(group * t["group"]) + 0.5 * top


def test_costs_meet_exactly_the_draws_that_influenced_them():
    theta = {
        "top": np.array(0.2),
        "group": np.array([0.1, -0.4, 0.9]),
        "item": np.array([[0.5, -1.0], [0.3, 0.2], [-0.7, 0.1]]),
    }
    graph = scg.trace(hierarchical, theta, rng=np.random.default_rng(3))
    top, group, item = (graph.stochastic[name].value for name in ("top", "group", "item"))
    found = graph.gradients()

    def score(b, logits):
        return b - 1 / (1 + np.exp(-logits))

    per_item = (item - 0.3) ** 2 / 4  # (sample, group, item), with the weight of the mean
    per_group = -2 * group * theta["group"]
    s_item = score(item, theta["item"] * group[:, :, None])
    s_group = score(group, theta["group"] + top)
    s_top = score(top, theta["top"])
    togo_group = per_item.sum(axis=2) + per_group
    togo_top = per_item.sum() + per_group.sum() + 0.5 * top
    # the item's own elements only; the group's items and its own cost; everything for the coin on top
    np.testing.assert_allclose(found["item"], (per_item * s_item * group[:, :, None]).sum(axis=0), rtol=1e-12)
    np.testing.assert_allclose(
        found["group"], (togo_group * s_group).sum(axis=0) + (-2 * group).sum(axis=0), rtol=1e-12
    )
    np.testing.assert_allclose(found["top"], togo_top * s_top, rtol=1e-12)


def elements(t, rng):
    b = scg.sample(dist.Bernoulli(logits=t), scg.ScoreFunction(), rng=rng, name="b")
    return (b[0] - 0.2) ** 2 + 3 * b[2] * b[1] - np.sum(b[1:] * np.array([1.0, 2.0]))


def test_an_element_meets_the_costs_of_that_element():
    theta = np.array([0.3, -0.8, 0.5])
    graph = scg.trace(elements, theta, rng=np.random.default_rng(1))
    b = graph.stochastic["b"].value
    s = b - 1 / (1 + np.exp(-theta))
    pair = 3 * b[2] * b[1]
    expected = [(b[0] - 0.2) ** 2 * s[0], (pair - b[1]) * s[1], (pair - 2 * b[2]) * s[2]]
    np.testing.assert_allclose(graph.gradients(), expected, rtol=1e-12, atol=1e-14)


@given(st.integers(0, 2**32 - 1))
def test_a_score_never_enters_for_a_pathwise_draw(seed):
    """N(0, 1.5), E[x^2]: the gradient for the scale is 2 * 1.5; counting a score as well, or neither, would give 4.5 or
    1.5 on average."""

    def cost(scale, rng):
        z = scg.sample(dist.Normal(0.0, scale), scg.Reparameterized(), rng=rng, name="z")
        return z**2

    graph = scg.trace(cost, np.array(1.5), rng=np.random.default_rng(seed))
    z = graph.stochastic["z"].value
    assert graph.gradients() == pytest.approx(2 * z * z / 1.5, rel=1e-12)


def test_branch_chosen_by_a_draw():
    def cost(t, rng):
        before = t * t
        if coin(t, rng, "score", name="b") > 0:
            return before
        return 3 * t

    p = 1 / (1 + np.exp(-0.7))
    seen = {}
    for seed in range(20):
        value, gradient = scg.value_and_grad(cost)(np.array(0.7), rng=np.random.default_rng(seed))
        seen[round(float(value), 6)] = float(gradient)
    assert seen == {0.49: pytest.approx(1.4 + 0.49 * (1 - p)), 2.1: pytest.approx(3 - 2.1 * p)}


def test_guarded_costs_in_replicates_are_traced_again():
    def cost(t, rng):
        return t * t if coin(t, rng, "score", name="b") > 0 else 3 * t

    graph = scg.trace(cost, np.array(0.7), rng=np.random.default_rng(0))
    found = graph.gradients(rng=np.random.default_rng(1), replicates=40)
    p = 1 / (1 + np.exp(-0.7))
    assert {round(float(g), 9) for g in found} == {round(1.4 + 0.49 * (1 - p), 9), round(3 - 2.1 * p, 9)}


@pytest.mark.slow
def test_hessian_and_hvp_of_an_expectation():
    def cost(t, rng):
        x = coin(t, rng, "enumerate")
        return np.sum(x * t) ** 2

    rng = np.random.default_rng(0)
    h = np.mean([scg.hessian(cost)(THETA, rng=np.random.default_rng(s)) for s in range(200)], axis=0)
    v = np.array([1.0, -2.0])
    products = np.mean([scg.hvp(cost)(THETA, v, rng=np.random.default_rng(s)) for s in range(200)], axis=0)
    np.testing.assert_allclose(h @ v, products, rtol=1e-10)
    assert scg.hessian(cost)(THETA, rng=rng).shape == (2, 2)


def test_vector_results_take_one_cost_an_element():
    def values(t, rng):
        return coin(t, rng, "score", name="b") * t

    graph_rng = np.random.default_rng(5)
    jacobian = scg.jacobian(values)(THETA, rng=np.random.default_rng(5))
    b = scg.sample(dist.Bernoulli(logits=THETA), scg.ScoreFunction(), rng=graph_rng).value
    s = b - 1 / (1 + np.exp(-THETA))
    np.testing.assert_allclose(jacobian, np.diag(b + b * THETA * s), rtol=1e-12, atol=1e-15)
    _, pullback = scg.vjp(values)(THETA, rng=np.random.default_rng(5))
    v = np.array([0.5, -3.0])
    np.testing.assert_allclose(pullback(v), v @ jacobian, rtol=1e-12, atol=1e-15)


def test_costs_that_mix_a_part_of_an_axis_and_of_whole_numbers():
    """Each product takes elements i and i + 2 of one axis; the mean of a whole-number draw has a fraction as its
    weight."""

    def cost(t, rng):
        b = coin(t, rng, "enumerate")
        x = scg.sample(dist.Categorical(logits=t), scg.Enumerate(), rng=rng, shape=(2,))
        return np.sum(np.prod(np.reshape(b, (2, 2)) + t[0], axis=0)) + np.mean(x * x)

    for found, exact in first_and_second(cost, np.array([0.3, -0.5, 0.8, 0.1])):
        np.testing.assert_allclose(found, exact, rtol=1e-10, atol=1e-12)


def test_replicate_r_is_the_single_run_with_the_same_draws():
    def cost(t, rng):
        x = scg.sample(dist.Bernoulli(logits=t), scg.ScoreFunction(), rng=rng, shape=(2,), name="x")
        y = scg.sample(dist.Bernoulli(logits=x * t + t[0]), scg.ScoreFunction(), rng=rng, name="y")
        return np.sum(y * t) ** 2 + np.mean(x)

    graph = scg.trace(cost, THETA, rng=np.random.default_rng(0))
    many = graph.run(rng=np.random.default_rng(1), replicates=5)
    gradients = scg.gradients(np.sum(many.cost), many.parameters)
    for r in range(5):
        one = graph.run(values={name: node.value[r] for name, node in many.stochastic.items()})
        np.testing.assert_allclose(one.cost.value, many.cost.value[r], rtol=1e-14)
        np.testing.assert_allclose(one.gradients(), gradients[r], rtol=1e-13)


def test_estimates_of_first_order_refuse_a_second_derivative():
    from scg.stochastic.formulas import first_order

    x = scg.parameter(np.array([1.0, 2.0]))
    y = np.sum(first_order(x, np.array([3.0, 4.0])))
    assert y.value == 0
    np.testing.assert_array_equal(scg.gradients(y, [x])[0], [3.0, 4.0])
    (g,) = scg.gradients(np.sum(first_order(x, x * x)), [x], create_graph=True)
    with pytest.raises(NotDifferentiable, match="differentiated again"):
        scg.gradients(np.sum(g), [x])
    # constant, and of a curved parameter
    (g,) = scg.gradients(np.sum(first_order(x * x, np.array([3.0, 4.0]))), [x], create_graph=True)
    np.testing.assert_array_equal(g.value, 2 * x.value * [3.0, 4.0])
    with pytest.raises(NotDifferentiable, match="differentiated again"):
        scg.gradients(np.sum(g), [x])


def test_a_hessian_refuses_where_rows_would_cancel():
    from scg.stochastic.formulas import first_order

    gradient = scg.grad(lambda t: np.sum(first_order(t * t, np.ones(2))))
    with pytest.raises(NotDifferentiable, match="differentiated again"):
        scg.jacobian(lambda t: np.stack([gradient(t), -gradient(t)]))(THETA)
    g = scg.grad(lambda t: np.sum(first_order(t * t, np.ones(2))) * np.sum(t))
    with pytest.raises(NotDifferentiable, match="differentiated again"):
        scg.jacobian(lambda t: (lambda y: np.stack([y, -y]))(g(t)))(THETA)


@pytest.mark.parametrize(
    "step",
    [
        lambda t, z, rng: np.sum(np.round(z)),
        lambda t, z, rng: np.sum(z**2) + np.mean(z > 0),
        lambda t, z, rng: t * np.sum(np.where(z > 0, 1.0, 0.0)),
        lambda t, z, rng: np.sum(scg.sample(dist.Bernoulli(logits=np.floor(z)), scg.ScoreFunction(), rng=rng)),
    ],
)
def test_a_pathwise_draw_in_a_step_is_refused(step):
    def f(t, rng):
        return step(t, scg.sample(dist.Normal(t, 1.0), scg.Reparameterized(), rng=rng, shape=3, name="z"), rng)

    for derivative in (scg.grad(f), scg.hessian(f)):
        with pytest.raises(EstimatorError, match="z ~ Normal.*continuous.*use ScoreFunction"):
            derivative(0.3, rng=np.random.default_rng(0))


@pytest.mark.parametrize(
    "f",
    [
        lambda z: np.sum(np.where(z > 0, z, 0.0)),
        lambda z: np.sum(z * (z > 0)),
        lambda z: (lambda s: np.sum(s * (s > 0)))(z[np.argsort(z)]),
        lambda z: np.sum(np.maximum(z, 0)) + np.sum(scg.stop_gradient(z)) + np.sum(np.ones_like(z)),
    ],
)
def test_a_step_inside_a_smooth_term_is_none(f):
    def cost(t, rng):
        return f(scg.sample(dist.Normal(t, 1.0), scg.Reparameterized(), rng=rng, shape=5))

    above = np.random.default_rng(1).standard_normal(5) + 0.3 > 0
    assert 0 < above.sum() < 5
    assert scg.grad(cost)(0.3, rng=np.random.default_rng(1)) == above.sum()


@pytest.mark.slow
def test_a_surrogate_of_any_order_that_would_take_all_memory_is_refused(monkeypatch):
    def chain(theta, rng, length):
        b = theta
        for _ in range(length):
            b = scg.sample(dist.Bernoulli(logits=theta + 0.3 * b), scg.Enumerate(), rng=rng)
        return (b - 0.3) ** 2

    graph = scg.trace(chain, np.array(0.3), np.random.default_rng(0), 30)
    monkeypatch.setattr(sys.modules["scg.stochastic.surrogate"], "MOST", 10**5)
    with pytest.raises(EstimatorError, match=r"more than 100,000 numbers: ask for less, graph.surrogate\(order=2\)"):
        graph.surrogate()
    assert graph.surrogate(order=1).value == graph.cost.value
    monkeypatch.undo()
    assert graph.surrogate(order=2).value == graph.cost.value  # 30 + 30 * 29 / 2
    six = scg.trace(chain, np.array(0.3), np.random.default_rng(0), 6)
    assert six.surrogate().value == six.cost.value


UNBIASED = (
    scg.ScoreFunction(),
    scg.ScoreFunction(samples=2),
    scg.Enumerate(),
    scg.ScoreFunction(baseline=scg.Constant(0.3)),
)


@pytest.mark.slow
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("second", UNBIASED, ids=repr)
@pytest.mark.parametrize("first", [UNBIASED[0], UNBIASED[2], UNBIASED[3]], ids=repr)
def test_a_hessian_vector_product_takes_two_draws_by_any_estimators(first, second, nested):
    def cost(t, rng):
        b = scg.sample(dist.Bernoulli(logits=t[0]), first, rng=rng, name="b")
        d = scg.sample(dist.Bernoulli(logits=t[1] * b if nested else t[1]), second, rng=rng, name="d")
        e = scg.sample(dist.Bernoulli(logits=t[0] + d), first, rng=rng, name="e")
        return np.sin(b * t[0] + d + e * t[1])

    t, v, products = np.array([0.3, -0.8]), np.array([1.0, -0.5]), []
    for seed in range(4):  # the same numbers are drawn: the same estimate
        product = scg.hvp(cost)(t, v, rng=np.random.default_rng(seed))
        np.testing.assert_allclose(
            product, scg.hessian(cost)(t, rng=np.random.default_rng(seed)) @ v, rtol=1e-10, atol=1e-12
        )
        products.append(product)
    assert np.any(products)


@pytest.mark.slow
def test_a_hessian_vector_product_through_further_samples_is_unbiased():
    def cost(t, rng):
        b = scg.sample(dist.Bernoulli(logits=t[0]), scg.ScoreFunction(samples=2), rng=rng, name="b")
        return np.sin(b * t[0] + scg.sample(dist.Bernoulli(logits=t[1] * b), scg.ScoreFunction(), rng=rng, name="d"))

    t, v = np.array([0.3, -0.8]), np.array([1.0, -0.5])
    found = np.array([scg.hvp(cost)(t, v, rng=np.random.default_rng(seed)) for seed in range(600)])
    exact = scg.exact.hessian(cost, t, rng=np.random.default_rng(0)) @ v
    assert np.all(np.abs(found.mean(axis=0) - exact) < 5 * found.std(axis=0) / np.sqrt(len(found)))


def walk(length):
    """Dependent coins, each with a cost of its own."""

    def cost(theta, rng):
        x, total = 0.0 * theta, 0.0
        for _ in range(length):
            x = scg.sample(dist.Bernoulli(logits=0.9 * x + theta), scg.ScoreFunction(), rng=rng)
            total = total + 0.5 * x
        return total

    return cost


def test_the_costs_to_go_of_a_walk_share_their_sums():
    """F_t = f_t + F_{t+1}: as many nodes a step for a long walk as for a short one."""
    sizes = []
    for length in (32, 64, 128):  # 32 zeros enter the cost by one node
        cost = scg.trace(walk(length), np.array(0.1), rng=np.random.default_rng(0)).cost
        sizes.append(len(ancestors([surrogate(cost, order=1, graph=True)])))
    assert sizes[2] - sizes[1] == 2 * (sizes[1] - sizes[0])


@pytest.mark.parametrize("estimator", [scg.ScoreFunction(), scg.ScoreFunction(baseline=scg.Constant(0.5))], ids=repr)
def test_a_gradient_of_a_walk_calls_as_many_functions_for_each_sample_however_long_it_is(estimator):
    def calls(length):
        def cost(theta, rng):
            x, total = 0.0, 0.0
            for _ in range(length):
                x = 0.5 * x + scg.sample(dist.Bernoulli(logits=0.1 * x + theta), estimator, rng=rng)
                total = total + (x - 1) ** 2
            return total

        count, gradient = 0, scg.grad(cost)

        def called(frame, event, arg):
            nonlocal count
            count += event == "call"

        gradient(np.array(0.1), rng=np.random.default_rng(0))
        before = sys.getprofile()
        sys.setprofile(called)
        try:
            gradient(np.array(0.1), rng=np.random.default_rng(0))
        finally:
            sys.setprofile(before)
        return count

    few, some, many = calls(32), calls(96), calls(224)
    assert many - some < 2.2 * (some - few)  # 2 where all is linear


def test_shared_sums_are_the_costs_to_go_of_each_draw():
    """sum_t (b_t - p_t) F_t, F_t = sum_{s >= t} b_s / 2, by hand."""
    length, theta = 6, np.array(0.1)
    graph = scg.trace(walk(length), theta, rng=np.random.default_rng(0))
    runs = graph.gradients(rng=np.random.default_rng(1), replicates=4)
    mine = [scg.grad(walk(length))(theta, rng=np.random.default_rng(s)) for s in range(4)]
    for seed, found in enumerate(mine):
        rng, x, score, coins = np.random.default_rng(seed), 0.0, [], []
        for _ in range(length):
            before = x
            x = scg.sample(dist.Bernoulli(logits=0.9 * before + theta), scg.ScoreFunction(), rng=rng)
            x = float(getattr(x, "raw", x))
            score.append(x - 1 / (1 + np.exp(-(0.9 * before + theta))))
            coins.append(x)
        to_go = 0.5 * np.cumsum(coins[::-1])[::-1]
        assert found == pytest.approx(np.sum(np.array(score) * to_go))
    assert runs.shape == (4,) and np.isfinite(runs).all()


@pytest.mark.parametrize("shape", [(), (2, 3)])
def test_any_number_of_zeros_enters_a_cost_by_few_nodes_and_each_has_its_derivative(shape):
    for count in (1, 2, 33, 70):
        x = scg.parameter(np.full(shape, 0.5))
        others = [scg.parameter(np.full(shape, float(k))) for k in range(count)]
        y = plus(x * 1.0, others)
        np.testing.assert_array_equal(y.value, np.full(shape, 0.5 + sum(range(count))))
        for g in scg.gradients(np.sum(3.0 * y), [x, *others]):
            np.testing.assert_array_equal(g, np.full(shape, 3.0))
        assert len(ancestors([y], x.id)) <= 2 * count // 32 + count + 3
