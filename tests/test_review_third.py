"""What reviewers found: of each mistake the smallest program that showed it."""

import numpy as np
import pytest

import scg
from scg import distributions as dist


@pytest.mark.parametrize(
    "text",
    [
        # of which each is the negative of the other, as bytes
        "np.sin(x) * np.full(3, 255, np.uint8) + np.cos(x) * np.full(3, 1, np.uint8)",
        "np.sin(x) * np.array([-128, 1, 1], np.int8) + np.cos(x) * np.array([-128, -1, -1], np.int8)",
        "np.sin(x) * np.array([True, True, False]) + np.cos(x) * np.array([True, False, True])",
        "np.sin(x) * (-k) + np.cos(x) * k",
        "np.sin(x) + (-k)",
        "np.sin(x) - (-k)",
        "(-k) + np.sin(x)",
        "(-np.sin(x)) * (-k)",
        "(-np.sin(x)) / (-k)",
    ],
)
def test_signs_of_whole_numbers_wrap_in_a_plan_as_they_do_in_numpy(text):
    cost = eval(f"lambda x, k: np.sum({text})", {"np": np})
    x, k = np.linspace(0.1, 1.0, 3), np.array([1, 2, 200], np.uint8)
    step = scg.compile(scg.value_and_grad(cost))
    for _ in range(2):
        value, gradient = step(x, k)
        assert value == pytest.approx(cost(x, k), rel=1e-14)
        np.testing.assert_allclose(gradient, scg.grad(cost)(x, k), rtol=1e-14)


def test_enumeration_through_where_compiles():
    def cost(t, rng):
        b = scg.sample(dist.Bernoulli(logits=t), scg.Enumerate(), rng=rng)
        return np.sum(np.where(b > 0.5, t, b)) * np.sum(b * t)

    t = np.array([0.3, -0.4, 0.9])
    step = scg.compile(scg.value_and_grad(cost))
    for seed in range(4):
        value, gradient = step(t, rng=np.random.default_rng(seed))
        expected = scg.value_and_grad(cost)(t, rng=np.random.default_rng(seed))
        assert value == pytest.approx(expected[0], rel=1e-14)
        np.testing.assert_allclose(gradient, expected[1], rtol=1e-13)


def test_a_rule_that_meets_an_if_elsewhere_is_told_so_in_exact_moments():
    def cost(t, rng):
        b = scg.sample(dist.Bernoulli(logits=t), scg.ScoreFunction(samples=2), rng=rng, name="b")
        y = np.sin(t) if b > 0.5 else np.cos(t)
        d = scg.sample(dist.Bernoulli(logits=2 * t), scg.ScoreFunction(), rng=rng, name="d")
        return b * d + y * d

    for seed in range(6):
        with pytest.raises(scg.errors.GuardError, match="`if`"):
            scg.exact.moments(cost, np.array(0.3), rng=np.random.default_rng(seed))


def test_an_exact_variance_is_never_negative():
    def cost(t, rng):
        z = scg.sample(dist.OneHotCategorical(logits=t), scg.ScoreFunction(samples=2), rng=rng)
        return np.sum(z) * np.exp(-0.3 * t[0, 1] ** 2) + np.sum(t)

    rng = np.random.default_rng(0)
    for _ in range(20):
        assert np.all(scg.exact.moments(cost, rng.normal(size=(2, 3)), rng=rng).variance >= 0)


@pytest.mark.parametrize("offset", [0.0, 1e6, 1e10])
def test_a_constant_in_the_cost_hides_no_bias(offset):
    def cost(t, rng):
        b = scg.sample(dist.Bernoulli(logits=t), scg.StraightThrough(), rng=rng, name="b")
        return (b - 0.45) ** 4 + offset

    graph = scg.trace(cost, np.array(0.3), rng=np.random.default_rng(0))
    assert scg.testing.judge(graph, rng=np.random.default_rng(0)).status == "biased"
    for rule in (
        scg.ScoreFunction(),
        scg.DisARM(),
        scg.Enumerate(),
        scg.ScoreFunction(samples=2, baseline=scg.LeaveOneOut()),
    ):
        assert scg.testing.judge(graph.bind(b=rule), rng=np.random.default_rng(0)).status == "unbiased"


def test_a_gradient_without_noise_is_compared_all_the_same():
    def cost(t, rng):
        scg.sample(dist.Bernoulli(logits=t), scg.ScoreFunction(), rng=rng, name="b")  # which nobody looks at
        return np.sum(t**2)

    report = scg.variance.compare(
        cost, {"as it is": {}}, args=(np.ones(2),), kwargs={}, rng=np.random.default_rng(0), replicates=300
    )
    assert report["as it is"].total.variance == 0


def test_noise_of_an_estimator_alone_is_attributed_to_its_draw():
    def cost(t, rng):  # linear in the draw, whose own value the gradient then does not contain
        z = scg.sample(dist.OneHotCategorical(logits=t), scg.Enumerate(k=1), rng=rng, name="z")
        b = scg.sample(dist.Bernoulli(logits=t[0]), scg.ScoreFunction(samples=2), rng=rng, name="b")
        return np.sum(z * np.arange(3.0)) + b * t[1]

    graph = scg.trace(cost, np.array([0.3, -0.4, 0.9]), rng=np.random.default_rng(0))
    found = scg.variance.attribute(graph, rng=np.random.default_rng(0), replicates=1000)
    assert set(found.shares) == {"z", "b"}
    assert found.variance == pytest.approx(float(np.sum(scg.exact.moments(graph).variance)), rel=1e-12)


RULES = (
    scg.ScoreFunction(),
    scg.ScoreFunction(samples=2),
    scg.Enumerate(),
    scg.ScoreFunction(baseline=scg.Constant(0.3)),
)


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("second", RULES, ids=repr)
@pytest.mark.parametrize("first", [RULES[0], RULES[2], RULES[3]], ids=repr)
def test_a_hessian_vector_product_takes_two_draws_by_any_rules(first, second, nested):
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


def test_a_hessian_vector_product_through_further_samples_is_unbiased():
    def cost(t, rng):
        b = scg.sample(dist.Bernoulli(logits=t[0]), scg.ScoreFunction(samples=2), rng=rng, name="b")
        return np.sin(b * t[0] + scg.sample(dist.Bernoulli(logits=t[1] * b), scg.ScoreFunction(), rng=rng, name="d"))

    t, v = np.array([0.3, -0.8]), np.array([1.0, -0.5])
    found = np.array([scg.hvp(cost)(t, v, rng=np.random.default_rng(seed)) for seed in range(600)])
    exact = scg.exact.hessian(cost, t, rng=np.random.default_rng(0)) @ v
    assert np.all(np.abs(found.mean(axis=0) - exact) < 5 * found.std(axis=0) / np.sqrt(len(found)))


def test_a_plan_draws_nothing_for_rules_on_distributions_of_arguments_that_nobody_differentiates_by():
    def cost(t, k, rng):
        a = scg.sample(dist.Bernoulli(logits=2 * k), scg.DisARM(), rng=rng, name="a")
        b = scg.sample(dist.Bernoulli(logits=t), scg.ScoreFunction(samples=2), rng=rng, name="b")
        return np.sum(a) + np.sum(b)

    t, k, plain = np.linspace(-1, 1, 4), np.zeros(4), scg.value_and_grad(cost)
    step = scg.compile(plain)
    for seed in range(3):
        one, other = np.random.default_rng(seed), np.random.default_rng(seed)
        np.testing.assert_allclose(step(t, k, rng=one)[1], plain(t, k, rng=other)[1], rtol=1e-12)
        assert one.bit_generator.state == other.bit_generator.state


@pytest.mark.parametrize("k", [np.array([1, 2, 200], np.uint8), np.array([True, False, True])], ids=["bytes", "truths"])
@pytest.mark.parametrize("name", ["sigmoid", "softplus", "log_sigmoid"])
def test_sigmoids_of_unsigned_numbers_do_not_wrap(name, k):
    fn = getattr(scg.special, name)
    np.testing.assert_allclose(fn(k), fn(k.astype(float)), rtol=1e-12)
    step = scg.compile(lambda x, k: np.sum(x * fn(k)))
    for _ in range(2):
        np.testing.assert_allclose(step(np.ones(3), k), np.sum(fn(k.astype(float))), rtol=1e-12)
