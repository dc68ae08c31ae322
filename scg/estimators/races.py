"""The keys behind an order, given the order: a race whose outcome is known."""

from collections.abc import Callable

import numpy as np

from scg.core.aliases import Result
from scg.core.backward import pull
from scg.core.leaves import parameter
from scg.core.node import Node, Value
from scg.distributions.orders import PlackettLuce, completed, sums_to_the_last
from scg.distributions.uniform import UNIT
from scg.special import softmax
from scg.stochastic.sites import noise_node
from scg.stochastic.surrogate import Downstream


def race(l: Value, order: Value, v: Value) -> Value:
    """Keys z = l - log E, E standard exponential, of which ``order`` are the largest in falling order, given it and v
    uniform.

    exp(-z) are the times of a race in which i runs at the rate exp(l_i). With S_j the sum of the rates of those who are
    not home before place j and e = -log v, the winner of place j comes home e_j / S_j after the one before, and who is
    not in the order e_i / exp(l_i) after the last of it: the exponential distribution has no memory.
    """
    n, k = l.shape[-1], order.shape[-1]
    whole: Result = completed(order, n=n) if k < n else order
    own, e = np.take_along_axis(l, whole, -1), np.log(-np.log(v))
    steps = (e - sums_to_the_last(own))[..., :k]
    homes = np.flip(sums_to_the_last(np.flip(steps, -1)), -1)
    if k < n:
        homes = np.concatenate([homes, np.logaddexp(homes[..., -1:], (e - own)[..., k:])], axis=-1)
    return -np.take_along_axis(homes, np.argsort(whole, axis=-1), -1)


def two_races(
    down: Downstream, distribution: PlackettLuce, logits: Value, order: Value
) -> tuple[Value, Value, Value, Callable[[Value], Value]]:
    """z, z', the score, and what a derivative by z' becomes as one by l."""
    l = logits if type(logits) is Node else parameter(logits)
    n = l.shape[-1]
    keys: list[Result] = [race(l, order, _uniform(down, (*down.shape, n), l.dtype)) for _ in range(2)]
    z, other = keys
    log_p: Result = distribution.replaced(logits=l).log_prob(order)
    (score,) = pull([log_p], [np.ones(log_p.shape, log_p.dtype)], [l], down.graph)

    def back(d: Value) -> Value:
        return pull([other], [d], [l], down.graph or type(d) is Node)[0]

    plain = (lambda x: x) if down.graph else (lambda x: x.raw)
    return plain(z), plain(other), score, back


def relaxed(z: Value, b: Value, rate: Value) -> tuple[Value, Callable[[Value], Value]]:
    """A matrix of which each row is a distribution over things, near to the order ``b`` of the keys z, one-hot: x_i =
    softmax_j(-rate |z_(i) - z_j|), z_(i) the i-th largest (Prillo and Eisenschlos, 2020: SoftSort). And what a
    derivative by x becomes as one by z.

    b is the order of z, so that |z_(i) - z_j| = s_ij (z_(i) - z_j), s_ij = -1 where j comes before place i, else 1:
    linear in z while the order stays, and continuous where it changes.
    """
    passed = np.cumsum(b, axis=-2)
    after = 1 - passed + b  # who has not come before place i
    s = 2 * after - 1
    top = np.sum(b * z[..., None, :], axis=-1)
    x = softmax(-rate * s * (top[..., None] - z[..., None, :]), axis=-1)

    def back(g: Value) -> Value:
        h = rate * s * x * (g - np.sum(g * x, axis=-1, keepdims=True))
        return np.sum(h - b * np.sum(h, axis=-1, keepdims=True), axis=-2)

    return x, back


def _uniform(down: Downstream, shape: tuple[int, ...], dtype: np.dtype) -> Value:
    if down.graph:
        return noise_node(UNIT, down.rng, shape, dtype)
    return UNIT.sample_as(down.rng, shape, dtype)
