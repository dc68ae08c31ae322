"""Gradients in JAX that estimate that of E[mixed_value(b)], b ~ Bernoulli(logits=theta): right and wrong."""

import numpy as np

from tests.support.foreign import mixed_value


def _pair(key, theta):
    import jax

    p = jax.nn.sigmoid(theta)
    b = jax.random.bernoulli(key, p, (2, 3)).astype(p.dtype)
    return mixed_value(b), b - p


def leave_one_out(key, theta):
    f, score = _pair(key, theta)
    return (f[0] - f[1]) * (score[0] - score[1]) / 2


def mean_of_all(key, theta):
    """Each sample is in its own baseline: 1 - 1/K of the gradient."""
    f, score = _pair(key, theta)
    return ((f - f.mean())[:, None] * score).mean(axis=0)


def straight_through(key, theta):
    import jax

    def loss(theta):
        p = jax.nn.sigmoid(theta)
        b = jax.random.bernoulli(key, p).astype(p.dtype)
        return mixed_value(jax.lax.stop_gradient(b - p) + p)

    return jax.grad(loss)(theta)


def untraceable(key, theta):
    f, score = (np.asarray(x) for x in _pair(key, theta))
    return (f[0] - f[1]) * (score[0] - score[1]) / 2
