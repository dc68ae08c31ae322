"""Draws that move little where their parameters do: for differences of costs with common random numbers."""

import math
from typing import final

import numpy as np

from scg.core.node import Node, Value
from scg.distributions import Independent
from scg.distributions.base import Discrete, Distribution
from scg.distributions.uniform import is_of_noise, noise_of, transported
from scg.errors import ScgError
from scg.stochastic.estimator import Estimator

_DRAWS = 2**16  # in which rejection is seen that happens once in ten thousand


@final
class Coupled(Estimator):
    """The sample as a function of noise whose distribution has no parameters: by its own transport, or by the quantile
    z = icdf(u).

    What has neither is drawn as ever, and from a generator of its own, so that what is drawn after it has the same
    numbers whatever this one took.
    """

    def draw(self, distribution: Distribution, rng: np.random.Generator, shape: tuple[int, ...]) -> Value:
        plain = distribution.detached()
        own = np.random.default_rng(rng.integers(2**63))
        try:
            return _coupled(plain, own, shape)
        except ScgError:  # no quantile of this one, as of a vector of counts
            return plain.sample(own, shape)


def _coupled(distribution: Distribution, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    if isinstance(distribution, Independent):
        return _coupled(distribution.base, rng, shape)
    if is_of_noise(distribution):
        noise, size = noise_of(distribution, shape)
        value = transported(distribution, noise.sample_as(rng, size, distribution.dtype))
        return value.raw if type(value) is Node else value
    if isinstance(distribution, Discrete) and not distribution.event_shape:
        return np.asarray(distribution.icdf(rng.random((*shape, *distribution.batch_shape)))).astype(
            distribution.sample(rng, (0,)).dtype
        )
    return distribution.sample(rng, shape)


def comes_apart(one: Distribution, other: Distribution) -> bool:
    """Whether draws of two distributions take different amounts of random numbers from generators of one seed, as
    rejection does.

    What takes the same is a function of the same numbers, and what is drawn after it too.
    """
    n = max(1, _DRAWS // max(1, math.prod(one.batch_shape)))
    ends = []
    for distribution in (one, other):
        rng = np.random.default_rng(0)
        distribution.sample(rng, (n,))
        ends.append(rng.bit_generator.state)
    return ends[0] != ends[1]
