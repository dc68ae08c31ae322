"""Sets of samples, and the terms that each sample sees, against Python's own sets and loops."""

import functools
import operator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import scg
from scg import distributions as dist
from scg.stochastic import sets
from scg.stochastic.terms import sighted
from scg.stochastic.ties import Tie

pytestmark = pytest.mark.fast

NUMBERS = st.one_of(st.integers(0, 8), st.integers(0, 5000), st.integers(500, 530), st.integers(1020, 1030))
SETS = st.one_of(
    st.frozensets(NUMBERS, max_size=12),
    st.builds(lambda n, step: frozenset(range(0, n, step)), st.integers(0, 2000), st.integers(1, 3)),
)


def of(numbers):
    found = 0
    for k in sorted(numbers):
        found = sets.union(found, sets.single(k))
    return found


@given(SETS, SETS)
def test_sets_are_those_of_python(x, y):
    a, b = of(x), of(y)
    assert list(sets.members(a)) == sorted(x)
    assert list(sets.members(sets.union(a, b))) == sorted(x | y)
    assert list(sets.members(sets.common(a, b))) == sorted(x & y)
    assert list(sets.members(sets.without(a, b))) == sorted(x - y)
    assert sets.meet(a, b) == bool(x & y)
    assert bool(a) == bool(x)
    if x:
        assert (sets.first(a), sets.last(a)) == (min(x), max(x))


@given(SETS, SETS)
def test_equal_sets_are_written_alike(x, y):
    assert sets.union(of(x), of(y)) == of(x | y)
    assert sets.common(of(x), of(y)) == of(x & y)
    assert sets.without(of(x), of(y)) == of(x - y)


@given(SETS, SETS)
def test_a_result_that_equals_an_operand_is_it(x, y):
    a, b = of(x), of(y)
    assert sets.union(a, a) is sets.common(a, a) is a
    for result in (sets.union(a, b), sets.common(a, b), sets.without(a, b)):
        if result in (a, b):
            assert type(result) is int or result is a or result is b  # a block shares nothing


def test_sets_of_a_walk_share_what_they_agree_in():
    n, sets_of = 20_000, [0]
    for k in range(n):
        sets_of.append(sets.union(sets_of[-1], sets.single(k)))
    pairs, stack = set(), list(sets_of)
    while stack:
        part = stack.pop()
        if type(part) is tuple and id(part) not in pairs:
            pairs.add(id(part))
            stack += part[1:]
    assert len(pairs) <= n * (1 + np.log2(n / sets.BLOCK))


def parts_of(seen):
    """Parts with these sets, in the form that terms have."""
    return [((k, None, Tie((), (), ())), of(numbers)) for k, numbers in enumerate(seen)]


@given(st.lists(st.frozensets(st.integers(0, 6), min_size=1), max_size=8))
def test_each_sample_sees_the_parts_that_name_it_once(seen):
    found = sighted(parts_of(seen))
    for k in range(7):
        mine = [one.part[0] for one in found[k].back()] if k in found else []
        assert sorted(mine) == [i for i, numbers in enumerate(seen) if k in numbers]


@pytest.mark.parametrize("turned", [False, True])
def test_a_walk_takes_as_many_sums_as_samples(turned):
    """Part t is seen by the actions up to t and by the noise of step t: 2 n samples, n + n - 1 sums."""
    n = 300
    seen = [frozenset([*range(0, 2 * t + 1, 2), 2 * t + 1]) for t in range(n)]
    found = sighted(parts_of(seen[::-1] if turned else seen))
    assert len({id(one) for last in found.values() for one in last.back()}) == 2 * n - 1


@pytest.mark.parametrize("estimator", [scg.ScoreFunction(), scg.ScoreFunction(baseline=scg.LeaveOneOut())], ids=repr)
def test_costs_to_go_of_a_walk_longer_than_a_block(estimator):
    """Cost t is made of state t and noise t: steps up to t see it, and of the noise that of step t alone."""
    n, axis, rng = sets.BLOCK + 90, 3, np.random.default_rng(0)
    theta = scg.parameter(np.array(0.2))
    state, draws, costs = 0.0, [], []
    for _ in range(n):
        step, noise = (scg.sample(dist.Normal(theta, 1.0), estimator, rng=rng, shape=(axis,)) for _ in range(2))
        state = 0.5 * state + step
        draws.append((step.value, noise.value))
        costs.append(np.tanh(state) * noise)
    (found,) = scg.gradients(functools.reduce(operator.add, map(np.sum, costs)), [theta])
    now = np.array([cost.value for cost in costs])
    costs_to_go = np.stack([np.cumsum(now[::-1], axis=0)[::-1], now], axis=1)
    if estimator.baseline is not None:
        costs_to_go = costs_to_go - (np.sum(costs_to_go, axis=-1, keepdims=True) - costs_to_go) / (axis - 1)
    np.testing.assert_allclose(found, np.sum((np.array(draws) - 0.2) * costs_to_go), rtol=1e-10)
