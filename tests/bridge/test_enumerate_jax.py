"""Every outcome of the draws of a program in JAX."""

import numpy as np
import pytest

import scg
from scg import bridge
from scg import distributions as dist
from scg.bridge import TooManyOutcomes
from scg.errors import ScgTypeError, ScgValueError
from tests.support.drawn import first

jax = pytest.importorskip("jax")
jnp = pytest.importorskip("jax.numpy")
random = jax.random
imported = random.bernoulli

pytestmark = pytest.mark.fast

P = np.array([0.2, 0.3, 0.5])
LOGITS = np.log(P)
THETA = np.array([0.4, -0.7], np.float32)


def enumerated(fn, *args, **options):
    return bridge.enumerate(fn, *args, framework="jax", **options)


CALLS = {
    "bernoulli": (lambda key: random.bernoulli(key, P)[0], 0.2, 0.16, 8),
    "bernoulli of a shape": (lambda key: random.bernoulli(key, 0.25, (2,))[1], 0.25, 0.1875, 4),
    "categorical": (lambda key: random.categorical(key, LOGITS), 1.3, 0.61, 3),
    "categorical of columns": (lambda key: random.categorical(key, LOGITS[:, None] * jnp.ones(2), 0)[1], 1.3, 0.61, 9),
    "categorical of a shape": (lambda key: random.categorical(key, LOGITS, shape=(2,))[1], 1.3, 0.61, 9),
    "categorical, no two": (lambda key: random.categorical(key, LOGITS, shape=(2,), replace=False)[0], 1.3, 0.61, 6),
    "choice": (lambda key: random.choice(key, jnp.arange(3.0), (2,), p=P)[1], 1.3, 0.61, 9),
    "choice of a row": (lambda key: random.choice(key, jnp.eye(4))[0], 0.25, 0.1875, 4),
    "choice, no two": (lambda key: random.choice(key, 4, (2,), replace=False)[0], 1.5, 1.25, 12),
    "choice by p, no two": (lambda key: random.choice(key, 3, (2,), replace=False, p=P)[0], 1.3, 0.61, 6),
    "randint": (lambda key: random.randint(key, (2,), 3, 7)[1], 4.5, 1.25, 16),
    "permutation": (lambda key: random.permutation(key, 4)[2], 1.5, 1.25, 24),
    "permutation of rows": (lambda key: random.permutation(key, jnp.eye(4))[0, 0], 0.25, 0.1875, 24),
    "permutations": (
        lambda key: random.permutation(key, jnp.ones((2, 1)) * jnp.arange(3.0), axis=1, independent=True)[1, 0],
        1.0,
        2 / 3,
        36,
    ),
    "rademacher": (lambda key: random.rademacher(key, (2,))[0], 0.0, 1.0, 4),
    "binomial": (lambda key: random.binomial(key, 3, 0.5), 1.5, 0.75, 4),
    "geometric": (lambda key: random.geometric(key, 0.5), 2.0, 2.0, None),
    "poisson": (lambda key: random.poisson(key, 0.2), 0.2, 0.2, None),
    "vmap over keys": (lambda key: jax.vmap(lambda k: random.bernoulli(k, 0.3))(random.split(key, 2))[1], 0.3, 0.21, 4),
    "jit": (jax.jit(lambda key: random.bernoulli(key, 0.3)), 0.3, 0.21, 2),
    "scan": (lambda key: jax.lax.scan(step, 0, random.split(key, 2))[0], 0.6, 0.42, 4),
}


def step(total, key):
    return total + random.bernoulli(key, 0.3), None


@pytest.mark.slow
@pytest.mark.parametrize("name", CALLS)
def test_what_jax_draws_branches(name):
    call, mean, variance, count = CALLS[name]
    found = enumerated(call)
    assert count in (None, len(found.probability))
    # a probability that JAX computes is of float32
    assert abs(found.mean - mean) <= found.error + 1e-7
    assert abs(found.variance - variance) <= found.variance_error + 1e-7


def test_probabilities_of_python_and_numpy_keep_64_bits():
    found = enumerated(lambda key: random.bernoulli(key, P))
    assert np.allclose(found.mean, P, rtol=1e-15, atol=0)
    float32 = enumerated(lambda key: random.bernoulli(key, jnp.float32(0.3)))
    assert abs(float32.mean - float(np.float32(0.3))) < 1e-16


def cost(b):
    return (b.sum(-1) - 0.7) ** 2 * (1 + b[..., 0] * b[..., 1])


def leave_one_out(key, theta):
    def loss(theta):
        p = jax.lax.stop_gradient(jax.nn.sigmoid(theta))
        b = random.bernoulli(key, p, (2, *theta.shape)).astype(float)
        f = cost(b)
        score = (b * jax.nn.log_sigmoid(theta) + (1 - b) * jax.nn.log_sigmoid(-theta)).sum(-1)
        return ((f - f[::-1]) * score).mean()

    return jax.grad(loss)(theta)


def disarm(key, theta):
    p = jax.nn.sigmoid(theta)
    m = jnp.maximum(p, 1 - p)
    keys = random.split(key)
    differ, side = random.bernoulli(keys[0], 2 * (1 - m)), random.bernoulli(keys[1], 0.5, theta.shape)
    b, other = jnp.where(differ, side, p > 0.5).astype(float), jnp.where(differ, ~side, p > 0.5).astype(float)
    return (cost(b) - cost(other)) / 2 * (b - other) * m


def graph_of(estimator):
    def program(theta, rng):
        b = scg.sample(dist.Bernoulli(logits=theta), estimator, rng=rng, name="b")
        return (np.sum(b) - 0.7) ** 2 * (1 + b[0] * b[1])

    return scg.trace(program, THETA.astype(float), rng=np.random.default_rng(0))


@pytest.mark.slow
@pytest.mark.parametrize("x64", first(1, [True, False]))
@pytest.mark.parametrize(
    ("theirs", "ours"),
    [(leave_one_out, scg.ScoreFunction(scg.LeaveOneOut(), samples=2)), (disarm, scg.DisARM())],
    ids=["leave-one-out", "DisARM"],
)
def test_estimators_have_the_exact_moments_that_scg_finds_of_its_own(theirs, ours, x64):
    graph = graph_of(ours)
    with jax.enable_x64(x64):
        found = enumerated(theirs, jnp.asarray(THETA, float if x64 else np.float32))
    known, gradient = scg.exact.moments(graph), scg.exact.gradient(graph)
    digits = 1e-12 if x64 else 3e-6
    assert np.allclose(found.mean, gradient, rtol=digits, atol=0)
    assert np.allclose(found.variance, known.variance, rtol=digits, atol=0)


@pytest.mark.slow
def test_a_straight_through_gradient_is_found_to_be_biased():
    def straight_through(key, theta):
        def loss(theta):
            p = jax.nn.sigmoid(theta)
            b = random.bernoulli(key, p)
            return cost(b + p - jax.lax.stop_gradient(p))

        return jax.grad(loss)(theta)

    found = enumerated(straight_through, jnp.asarray(THETA))
    assert np.max(np.abs(found.mean - scg.exact.gradient(graph_of(scg.DisARM())))) > 0.05


def test_which_key_does_not_matter_but_one_used_twice_gives_the_same_twice():
    twice = enumerated(lambda key: random.bernoulli(key, 0.3) * random.bernoulli(key, 0.3))
    assert len(twice.probability) == 2 and abs(twice.mean - 0.3) < 1e-15
    split = enumerated(lambda key: jnp.prod(jnp.array([random.bernoulli(k, 0.3) for k in random.split(key)])))
    assert abs(split.mean - 0.09) < 1e-15
    with pytest.raises(ScgValueError, match="used again"):
        enumerated(lambda key: random.bernoulli(key, 0.3) * random.bernoulli(key, 0.4))
    # rematerialisation draws by the same key
    again = enumerated(lambda key: jax.grad(jax.checkpoint(lambda t: t * random.bernoulli(key, 0.3)))(1.0))
    assert abs(again.mean - 0.3) < 1e-7


REFUSED = {
    "uniform": (lambda key: random.uniform(key) < 0.5, ScgTypeError, "jax.random.bernoulli"),
    "normal": (lambda key: random.normal(key), ScgTypeError, "cannot be listed"),
    "normal of an own key": (lambda key: random.normal(random.key(0)), ScgTypeError, "cannot be listed"),
    "imported by name": (lambda key: imported(key, 0.5), ScgTypeError, "in full"),
    "200 coins": (lambda key: random.bernoulli(key, 0.5, (200,)), TooManyOutcomes, r"1.61e\+60"),
    "200 coins in vmap": (
        lambda key: jax.vmap(lambda k: random.bernoulli(k, 0.5, (200,)))(random.split(key)),
        TooManyOutcomes,
        r"1.61e\+60",
    ),
    "numpy beside it": (lambda key: random.bernoulli(key) * np.random.rand(), ScgValueError, "global generator"),
    "complex": (lambda key: random.bernoulli(key) * 1j, ScgTypeError, "real numbers"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_known_is_refused_at_the_users_line(name):
    program, error, words = REFUSED[name]
    with pytest.raises(error, match=words) as refused:
        enumerated(program)
    assert "test_enumerate_jax.py:" in str(refused.value)


def test_nothing_stays_behind():
    before = {name: getattr(random, name) for name in dir(random)}
    with pytest.raises(ScgTypeError):
        enumerated(lambda key: random.normal(key))
    enumerated(lambda key: random.bernoulli(key))
    assert before == {name: getattr(random, name) for name in dir(random)}
    assert not jax.config.jax_disable_jit
