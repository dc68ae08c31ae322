"""Numbers that a function takes out of its graph: where nothing that it returns is a node, or a parameter enters at
comparisons with them alone, a gradient of zero would be silent; what the refusal advises has the gradient."""

import numpy as np
import pytest

import scg
from scg import distributions as dist
from scg.errors import NotDifferentiable, PlanError, ScgValueError
from scg.special import sigmoid

pytestmark = pytest.mark.fast

REWARDS = np.array([1.0, 5.0])
T = 0.3
EXACT = 4 * sigmoid(T) * (1 - sigmoid(T))  # d/dt E[1 + 4 b]


def seeded():
    return np.random.default_rng(1)


def coin(theta, rng):
    return scg.sample(dist.Bernoulli(logits=theta), scg.Enumerate(), rng=rng, name="b")


# a number as a result


def table(theta, rng):
    return REWARDS[int(coin(theta, rng).value)]


def episode(theta, rng):
    total = 0.0
    for _ in range(3):
        b = scg.sample(dist.Bernoulli(logits=theta), scg.ScoreFunction(), rng=rng)
        total += float(b.value)
    return -total


def sampled(theta, rng):
    return REWARDS[int(dist.Bernoulli(logits=theta).sample(rng))]


@pytest.mark.parametrize("transform", [scg.grad, scg.value_and_grad, scg.jacobian, scg.hessian, scg.trace])
@pytest.mark.parametrize(
    ("cost", "words"),
    [
        (table, r"no gradient passes node.value of <draw 'b'.*in table: .*scg.primitive\(fn\)\(node\)"),
        (episode, "node.value of .*taken at .*in episode"),
        (sampled, r"no gradient passes Bernoulli\(.*\).sample\(rng\), taken at .*in sampled: draw by scg.sample"),
    ],
)
def test_a_number_made_of_samples_is_no_cost(cost, words, transform):
    with pytest.raises(ScgValueError, match=words) as caught:
        if transform is scg.trace:
            scg.trace(cost, T, rng=seeded())
        else:
            transform(cost)(T, rng=seeded())
    assert str(caught.value).count(__file__) >= 2  # where it was taken, and where the derivative


WAYS = {
    "a table": lambda b: scg.parameter(REWARDS)[b.astype(int)],
    "a choice": lambda b: 1.0 if b == 0 else 5.0,
    "a function of its number": lambda b: scg.primitive(lambda n: REWARDS[int(n)], name="reward")(b),
}


@pytest.mark.parametrize("name", WAYS)
def test_the_ways_out_have_the_gradient(name):
    gradient = scg.grad(lambda theta, rng: WAYS[name](coin(theta, rng)))(T, rng=seeded())
    np.testing.assert_allclose(gradient, EXACT, rtol=1e-12)


def test_numbers_that_are_only_looked_at_are_no_matter():
    """Of a cost that is a node; of one that no sample decides; of a run that took none of a sample."""
    seen = []

    def watched(theta, rng):
        b = coin(theta, rng)
        seen.append(b.value)
        return 1.0 + 4.0 * b

    np.testing.assert_allclose(scg.grad(watched)(T, rng=seeded()), EXACT, rtol=1e-12)
    assert len(seen) == 1
    assert scg.grad(lambda x: 1.0 if np.isfinite(x.value) else 0.0)(T) == 0
    assert scg.grad(lambda x, rng: (coin(x, rng), 2.0)[1])(T, rng=seeded()) == 0
    assert scg.grad(lambda x, rng: float(dist.Bernoulli(logits=0.0).sample(rng)))(T, rng=seeded()) == 0


def test_a_score_function_that_is_written_by_hand_stays():
    """-log p(z) times a reward, of a sample that is a number: (b - p) r, whichever sample it is."""

    def loss(theta, rng):
        given = dist.Bernoulli(logits=theta)
        b = given.sample(rng)
        return given.log_prob(b) * REWARDS[int(b)]

    b = dist.Bernoulli(logits=T).sample(seeded())
    np.testing.assert_allclose(scg.grad(loss)(T, rng=seeded()), (b - sigmoid(T)) * REWARDS[int(b)], rtol=1e-12)


# steps at numbers of a generator

STEPS = {
    "mask": lambda t, rng: np.mean((rng.random(3) < sigmoid(t)).astype(float)),
    "where": lambda t, rng: np.mean(np.where(sigmoid(t) > rng.random(3), 1.0, 0.0)),
}


@pytest.mark.parametrize("name", STEPS)
def test_a_comparison_with_numbers_of_a_generator_is_refused(name):
    """E[rng.random() < p] = p, whose derivative is no zero; in a plan as in a plain run."""
    with pytest.raises(NotDifferentiable, match=r"through steps alone, .*scg.sample\(dist.Bernoulli\(p\)"):
        scg.value_and_grad(STEPS[name])(T, rng=seeded())
    with pytest.raises(NotDifferentiable, match="through steps alone"):
        scg.grad(lambda params, rng: params[1] ** 2 + STEPS[name](params[0], rng))((T, 2.0), rng=seeded())
    with pytest.raises(PlanError, match="through steps alone"):
        scg.compile(scg.value_and_grad(STEPS[name]))(T, seeded())


def test_what_is_drawn_in_its_place_has_the_gradient():
    def cost(t, rng):
        return np.mean(scg.sample(dist.Bernoulli(sigmoid(t)), scg.Enumerate(), rng=rng, shape=3))

    np.testing.assert_allclose(scg.grad(cost)(T, rng=seeded()), sigmoid(T) * (1 - sigmoid(T)), rtol=1e-12)


SMOOTH = {
    "noise": (lambda w, rng: np.sum(w * rng.normal(size=3)), lambda rng: rng.normal(size=3)),
    "dropout": (lambda w, rng: np.sum(w * (rng.random(3) < 0.5)), lambda rng: (rng.random(3) < 0.5) * 1.0),
    "rows": (lambda w, rng: np.sum(w[rng.permutation(3)[:2]]), None),
    "steps of rows": (lambda w, rng: np.sum((w[rng.permutation(3)] > 0) * 1.0), lambda rng: np.zeros(3)),
    "a flat rectifier": (lambda w, rng: np.sum(np.maximum(w - 5 - rng.random(3), 0)), lambda rng: np.zeros(3)),
    "steps without chance": (lambda w, rng: np.sum((w > 0.3) * 1.0), lambda rng: np.zeros(3)),
}


@pytest.mark.parametrize("name", SMOOTH)
def test_what_is_smooth_or_a_step_of_data_stays(name):
    cost, slope = SMOOTH[name]
    found = scg.grad(cost)(np.full(3, 0.25), rng=seeded())
    if slope is not None:
        np.testing.assert_allclose(found, slope(seeded()))
