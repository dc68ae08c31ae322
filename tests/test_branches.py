"""``if`` and ``while`` on draws: the exact mean of the gradient over all paths through a program is the gradient of its mean."""

import math

import numpy as np
import pytest

import scg
from scg import distributions as dist

THETA = np.array([0.3, -0.4, 0.6])


def chosen_constant(t, flip):
    return 1.0 if flip(t[0]) else 0.25


def chosen_count(t, flip):
    return 2 if flip(t[0]) else flip(t[1]) * 1.0


def chosen_older(t, flip):
    first, second = np.exp(t[1]), t[2] * t[1]
    return first if flip(t[0]) else second


def constant_added_in_a_branch(t, flip):
    return np.exp(t[1]) * 2.0 + t[2] + 5.0 if flip(t[0]) else np.exp(t[1]) * 3.0


def constant_chosen_then_used(t, flip):
    x = np.exp(t[1])
    k = 5.0 if flip(t[0]) else 3.0
    return x * k + np.sin(t[2]) - k / 4


def counted_in_a_loop(t, flip):
    n = 0
    while n < 4 and flip(t[0]):
        n += 1
    return t[1] * 0.0 + n


def drawn_in_a_branch(t, flip):
    c = flip(t[1]) * 3.0 + 1.0 if flip(t[0]) else 2.0 - flip(t[2])
    return c + 7 * flip(t[1])


def one_after_another(t, flip):
    total = t[1] * 2.0
    if flip(t[0]):
        total = total + t[2]
    total = total + 1.0
    return total * 2.0 if flip(t[2]) else total


def chosen_slice(t, flip):
    v = np.exp(t)
    return np.sum(v[:2] if flip(t[0]) else v[1:]) + np.mean(v)


def chosen_length(t, flip):
    parts = [np.exp(t[0]), np.exp(t[1])]
    if flip(t[0]):
        parts.append(np.exp(t[2]))
    return sum(parts) / len(parts)


def concatenated_in_a_branch(t, flip):
    x = np.exp(t)
    y = np.concatenate([x * 2, t]) if flip(t[0]) else x
    return np.sum(y) - t[1]


def scaled_by_another(t, flip):
    b = flip(t[1])
    return (b * t[2] + 2.0) * 3.0 if flip(t[0]) else b - 1.0


MODELS = [
    chosen_constant,
    chosen_count,
    chosen_older,
    constant_added_in_a_branch,
    constant_chosen_then_used,
    counted_in_a_loop,
    drawn_in_a_branch,
    one_after_another,
    chosen_slice,
    chosen_length,
    concatenated_in_a_branch,
    scaled_by_another,
]


def paths(model):
    """(outcomes of the coins, gradient, second derivatives) for every path that the program can take, found by running it again and again."""
    found = {}
    total, seed = 0.0, 0
    while total < 1 - 1e-12:
        assert seed < 4000, "a path was not found"
        outcomes, p = [], [1.0]

        def cost(t, rng, outcomes=outcomes, p=p):
            def flip(logit):
                b = scg.sample(dist.Bernoulli(logits=logit), scg.ScoreFunction(), rng=rng)
                outcomes.append(int(b.value))
                p[0] /= 1 + math.exp(float(logit.value) * (-1 if outcomes[-1] else 1))
                return Coin(b)

            return model(t, flip)

        gradient = scg.grad(cost)(THETA, rng=np.random.default_rng(seed))
        path = tuple(outcomes)
        if path not in found:
            total += p[0]
            found[path] = p[0], gradient, scg.hessian(cost)(THETA, rng=np.random.default_rng(seed))
        seed += 1
    return list(found.values())


class Coin:
    """A draw that ``if`` asks for more than one half, and arithmetic for its value."""

    def __init__(self, node):
        self.node = node

    def __bool__(self):
        return bool(self.node > 0.5)

    def __mul__(self, other):
        return self.node * other

    def __rmul__(self, other):
        return other * self.node

    def __sub__(self, other):
        return self.node - other

    def __rsub__(self, other):
        return other - self.node


def mean(model, t):
    """The exact mean of the cost: all outcomes of the coins, by plain arithmetic."""
    total, waiting = 0.0, [()]
    while waiting:
        given = waiting.pop()
        outcomes, p = [], 1.0

        def flip(logit, outcomes=outcomes, given=given):
            nonlocal p
            outcomes.append(given[len(outcomes)] if len(outcomes) < len(given) else 0)
            p = p / (1 + np.exp(-logit if outcomes[-1] else logit))
            return outcomes[-1]

        cost = model(t, flip)
        total = total + p * cost
        waiting += [(*outcomes[:k], 1) for k in range(len(given), len(outcomes))]
    return total


@pytest.mark.parametrize("model", MODELS)
def test_the_mean_over_all_paths_is_exact(model):
    found = paths(model)
    first = sum(p * g for p, g, _ in found)
    second = sum(p * h for p, _, h in found)
    np.testing.assert_allclose(first, scg.grad(lambda t: mean(model, t) * 1.0)(THETA), rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(second, scg.hessian(lambda t: mean(model, t) * 1.0)(THETA), rtol=1e-10, atol=1e-11)
