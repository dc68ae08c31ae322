"""A stochastic graph with a discrete, a reparameterized and a draw that nothing depends on."""

import numpy as np

import scg
from scg import distributions as dist


def model(theta, rng):
    b = scg.sample(dist.Bernoulli(logits=theta["logits"]), scg.ScoreFunction(), rng=rng, name="b")
    z = scg.sample(dist.Normal(b * theta["loc"], 1.0), scg.Reparameterized(), rng=rng, name="z")
    scg.sample(dist.Poisson(2.0), scg.ScoreFunction(), rng=rng)
    return np.mean((z - 0.5) ** 2) + np.sum(b)


THETA = {"logits": np.array([0.3, -0.2, 0.9]), "loc": np.array([1.0, 2.0, -1.0])}


def alternating(steps):
    """A function of two arrays, of which each step makes a new one: f(x) + y and x in place of x and y."""

    def fn(x, y):
        for step in steps:
            x, y = step(x) + y, x
        return x

    return fn
