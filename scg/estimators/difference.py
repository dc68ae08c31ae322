"""The stochastic derivative: the cost at a sample beside the cost one step further."""

import math
from typing import Any, final

import numpy as np

from scg.core.ambient import settled
from scg.core.node import Value
from scg.distributions.base import Distribution, FiniteSupport, FixedSupport
from scg.distributions.bernoulli import Bernoulli
from scg.distributions.categorical import Categorical
from scg.distributions.counts import Binomial, Geometric, NegativeBinomial, Poisson
from scg.errors import ScgTypeError, here
from scg.estimators.baselines import slopes
from scg.estimators.tools import constant, sampled
from scg.stochastic.costs import change
from scg.stochastic.estimator import Elsewhere
from scg.stochastic.formulas import first_order, held
from scg.stochastic.surrogate import Downstream

PROGRAM = "program"
INTEGERS = (Bernoulli, Binomial, Categorical, Geometric, NegativeBinomial, Poisson)


@final
class StochasticDerivative(Elsewhere):
    """d/dt E[f(z)] = E[sum_i (-dF(z_i; t)/dt / p(z_i; t)) (f(z_i + 1) - f(z_i))], F the distribution function of an
    element (GO: Cong et al., 2019; stochastic derivatives: Arya et al., 2022).

    Summation by parts of sum_z f(z) dp(z): a parameter moves the mass dF from z to z + 1, past values that are
    impossible (masked logits) to the next one that is not. For samples that are integers without a gap: Bernoulli,
    Binomial, Categorical (by the order of its values), Geometric, NegativeBinomial, Poisson.
    Elements that no cost mixes take one further evaluation together; those that a cost mixes are moved in turn, an
    evaluation each.

    With ``prune=True`` one element of those that costs mix is moved, i with probability c_i / sum_j c_j, and its term
    is multiplied by sum_j c_j / c_i, c_i = |dF(z_i)| / p(z_i), |dF| summed over the element's own parameters: two
    evaluations of the cost whatever the number of elements. With ``prune="program"`` it is one element of all samples
    that have this estimator, whatever lies further down made again from its randomness: two evaluations of the cost
    whatever the length of the program. In replicates that another estimator makes at its own values each sample moves
    alone, as with ``prune=True``, for there each value has a cost of its own. First derivatives only.
    """

    second_derivatives = False
    requires = (FixedSupport,)

    def __init__(self, prune: bool | str = False, *, coupled: bool = True):
        super().__init__(coupled=coupled)
        if not isinstance(prune, (bool, np.bool_)) and prune != PROGRAM:
            raise ScgTypeError(
                f"StochasticDerivative: prune must be True, False or {PROGRAM!r}, got {prune!r} ({here()})"
            )
        self.prune = PROGRAM if prune == PROGRAM else bool(prune)

    @property
    def joint(self) -> bool:  # type: ignore[override]
        """Whether it is one element of all samples that moves."""
        return self.prune == PROGRAM

    def objection(self, distribution: Distribution) -> str:
        if not isinstance(distribution, INTEGERS):
            names = ", ".join(kind.__name__ for kind in INTEGERS)
            return f"needs samples that are integers without a gap ({names}), got {distribution!r}"
        return super().objection(distribution)

    def expand(self, down: Downstream) -> Value | None:
        if not _moves_something(down):
            return None
        below, p, last, ahead = _parts(down)
        value = constant(down, down.node)
        mixed = sorted({axis for axes in down.mixed() for axis in axes})
        if not self.prune or not mixed:
            moved = value + np.where(last, 0, ahead).astype(value.dtype)
            step = down.one_by_one(np.stack([moved, value]))
            apart = step[0] - step[1]
        else:
            pick, share = self._picked(down, _moves(down, p, last), mixed)
            moved = value + np.where(pick, ahead, 0).astype(value.dtype)
            apart = (down.at(moved[None])[0] - down.now()) * (pick * share).astype(below.dtype)
        weight = np.where(last, 0, -apart / np.where(last, 1, p))
        return np.sum(first_order(below, weight))

    def expand_together(self, downs: list[Downstream]) -> Value | None:
        downs = [down for down in downs if _moves_something(down)]
        if not downs:
            return None
        parts = [_parts(down) for down in downs]
        sizes = [_moves(down, p, last).astype(np.float64) for down, (_, p, last, _) in zip(downs, parts, strict=True)]
        flat = np.concatenate([np.reshape(c, -1) for c in sizes])
        total = np.sum(flat)
        chance = np.where(total > 0, flat / np.where(total > 0, total, 1), 1 / flat.size)
        one = constant(downs[0], sampled(downs[0], Categorical(probs=chance)))
        picks, end = [], 0
        for down, c in zip(downs, sizes, strict=True):
            start, end = end, end + math.prod(down.shape)
            picks.append(np.reshape(one == np.arange(start, end), down.shape) & (c > 0))
        steps: list[Value] = [
            np.where(pick, part[3], 0).astype(down.node.dtype)
            for down, pick, part in zip(downs, picks, parts, strict=True)
        ]
        apart = change(downs, steps) * total
        found: Any = 0
        for pick, c, (below, p, _, _) in zip(picks, sizes, parts, strict=True):
            weight = np.where(pick, -apart / np.where(pick, c * p, 1), 0)
            found = found + np.sum(first_order(below, weight.astype(below.dtype)))
        return found

    def _picked(self, down: Downstream, sizes: Value, mixed: list[int]) -> tuple[Value, Value]:
        """One element along the axes that costs mix, as zeros and a one, and the inverse of its probability: both
        (batch)."""
        shape, sizes = np.shape(sizes), sizes.astype(np.float64)  # probabilities that add up to one
        total = np.sum(sizes, axis=tuple(mixed), keepdims=True)
        chance = np.where(total > 0, sizes / np.where(total > 0, total, 1), 1 / np.prod([shape[a] for a in mixed]))
        kept = [a for a in range(len(shape)) if a not in mixed]
        order = [*kept, *mixed]
        flat = np.reshape(np.transpose(chance, order), (*[shape[a] for a in kept], -1))
        chosen = constant(down, sampled(down, Categorical(probs=flat)))[..., None] == np.arange(flat.shape[-1])
        pick = np.transpose(np.reshape(chosen, [shape[a] for a in order]), np.argsort(order)) & (sizes > 0)
        return pick, 1 / np.where(chance > 0, chance, 1)


def _moves_something(down: Downstream) -> bool:
    """Whether a sample has elements, and a cost that they influence."""
    return down.influences and math.prod(down.shape) > 0


def _parts(down: Downstream) -> tuple[Value, Value, Value, Value | int]:
    """F(z) as a node, p(z), where z is the last value (no step beyond it, F = 1 there whatever the parameters are), and
    how far the next value lies."""
    z, distribution = held(down.node), down.distribution
    below = np.broadcast_to(distribution.cdf(z), down.shape)
    p = constant(down, np.exp(distribution.log_prob(z)))
    last = (1 - constant(down, below) <= 0) | (p <= 0)
    if isinstance(distribution, FiniteSupport):  # 1 - F of the last value may be a rounding error
        last = last | (constant(down, down.node) == np.max(distribution.atoms()))
    if not isinstance(distribution, Categorical) or settled(lambda chances: np.all(chances > 0), distribution.p):
        return below, p, last, 1
    # values that are never drawn are leapt over: mass that moves past them arrives at the next one that may be
    following = constant(down, np.broadcast_to(distribution.following(z), down.shape))
    last = last | (following == distribution.categories)
    return below, p, last, following - constant(down, down.node)


def _moves(down: Downstream, p: Value, last: Value) -> Value:
    """c = |dF(z)| / p(z), 0 at the last value."""
    batch, z = down.shape, held(down.node)
    moves = sum(
        [
            np.sum(abs(s), axis=tuple(range(len(batch), s.ndim)))
            for s in slopes(down, batch, lambda d: d.cdf(constant(down, z)))
        ]
    )
    return np.where(last, 0, moves / np.where(last, 1, p))
