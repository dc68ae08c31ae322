"""One problem in NumPy alone and in scg: the score function of sum((b - w)^2), b ~ Bernoulli(logits=theta)."""

from dataclasses import dataclass

import numpy as np
from scipy.special import expit

import scg
from scg import distributions as dist

W = 0.4


def cost(theta, rng):
    b = scg.sample(dist.Bernoulli(logits=theta), scg.ScoreFunction(), rng=rng, name="b")
    return np.sum((b - W) ** 2) + 0.5 * np.prod(b)


def value(b):
    """The cost of bits along the last axis."""
    return np.sum((b - W) ** 2, axis=-1) + 0.5 * np.prod(b, axis=-1)


def outcomes(d):
    return np.stack(np.meshgrid(*[[0.0, 1.0]] * d, indexing="ij"), axis=-1).reshape(-1, d)


def truth(theta):
    """The gradient of the expected cost, by enumeration."""
    p, b = expit(theta), outcomes(len(theta))
    weight = np.prod(np.where(b > 0, p, 1 - p), axis=1)
    return (weight * value(b)) @ (b - p)


@dataclass(frozen=True)
class score_function:
    """draw(n, rng) of the plain score function times ``scale``, at ``theta``; it travels to other processes."""

    scale: float = 1.0
    theta: tuple = (0.0, 0.0, 0.0)

    def __call__(self, n, rng):
        p = expit(np.array(self.theta))
        b = (rng.random((n, len(p))) < p).astype(float)
        return self.scale * value(b)[:, None] * (b - p)
