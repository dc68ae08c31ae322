"""A limit of time holds within one coordinate of one result, by a clock that counts work."""

import time

import numpy as np
import pytest

import scg
from scg import distributions as dist
from scg.core.primitive import Primitive

S = scg.ScoreFunction()


def many_coins(t, rng):
    b = scg.sample(dist.Bernoulli(logits=t), S, rng=rng, shape=(17,))
    return np.max(np.cumsum(b) * np.tanh(b @ np.arange(17.0)))


def two_bumps(t, rng):
    z = scg.sample(dist.Normal(t, 1.0), S, rng=rng, shape=(2,))
    return np.exp(-np.sum(((z - 0.3) / 1e-3) ** 2))


def two_that_cross(t, rng):
    z = scg.sample(dist.Normal(t, 1.0), S, rng=rng, shape=(2,))
    return np.abs(z[0] - z[1])


def a_chain(t, rng):
    x = t
    for _ in range(6):
        x = scg.sample(dist.Normal(0.5 * x + t, 1.0), S, rng=rng)
    return x * x


class Work:
    """A clock: how many numbers primitives have made."""

    def __init__(self, monkeypatch):
        self.now, inner = 0.0, Primitive.__call__

        def counted(primitive, *operands, **statics):
            out = inner(primitive, *operands, **statics)
            self.now += max(1, np.size(out)) if not isinstance(out, tuple) else 1
            return out

        monkeypatch.setattr(Primitive, "__call__", counted)
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


CASES = [
    (scg.exact.gradient, many_coins),
    (scg.exact.moments, many_coins),
    (scg.exact.gradient, two_bumps),
    pytest.param(scg.exact.gradient, two_that_cross, marks=pytest.mark.long),
    (scg.exact.moments, a_chain),
]


@pytest.mark.parametrize(("what", "cost"), CASES)
def test_a_coordinate_that_takes_long_stops_at_the_limit(what, cost, monkeypatch):
    t = np.array(0.1)
    clock = Work(monkeypatch)
    what(cost, t, rng=np.random.default_rng(0))
    total = clock.now
    for share in (0.2, 0.6):
        begun = clock.now
        with pytest.raises(scg.exact.BudgetError, match="time_limit"):
            what(cost, t, rng=np.random.default_rng(0), time_limit=share * total)
        assert clock.now - begun <= (share + 0.2) * total
