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


def grid(points, d=3):
    """All d-tuples of the points."""
    return np.stack(np.meshgrid(*[points] * d, indexing="ij"), axis=-1).reshape(-1, d)


def outcomes(d):
    return grid([0.0, 1.0], d)


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


WEIGHTS, LOGITS = (0.5, 1.0, -0.7), (0.3, -0.5, 0.2)


def mixed_value(b):
    """A cost in which all bits mix, of NumPy's, PyTorch's and JAX's arrays alike."""
    w = WEIGHTS
    return (w[0] * b[..., 0] + w[1] * b[..., 1] + w[2] * b[..., 2] - 0.8) ** 2


def mixed_cost(theta, rng):
    return mixed_value(scg.sample(dist.Bernoulli(logits=theta), scg.ScoreFunction(), rng=rng, name="b"))


def mixed_truth():
    """Its gradient at LOGITS, by enumeration."""
    p, b = expit(np.array(LOGITS)), outcomes(3)
    return (np.prod(np.where(b > 0, p, 1 - p), axis=1) * mixed_value(b)) @ (b - p)
