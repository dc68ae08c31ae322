"""The stochastic derivative: the cost at a sample beside the cost one step further."""

from typing import final

import numpy as np

from scg.core.node import Value
from scg.distributions.base import Distribution, FiniteSupport, FixedSupport
from scg.distributions.bernoulli import Bernoulli
from scg.distributions.categorical import Categorical
from scg.distributions.counts import Binomial, Geometric, NegativeBinomial, Poisson
from scg.errors import ScgTypeError, here
from scg.estimators.baselines import slopes
from scg.estimators.tools import constant, sampled
from scg.stochastic.estimator import Elsewhere
from scg.stochastic.formulas import first_order, held
from scg.stochastic.surrogate import Downstream

INTEGERS = (Bernoulli, Binomial, Categorical, Geometric, NegativeBinomial, Poisson)


@final
class StochasticDerivative(Elsewhere):
    """d/dt E[f(z)] = E[sum_i (-dF(z_i; t)/dt / p(z_i; t)) (f(z_i + 1) - f(z_i))], F the distribution function of an
    element (GO: Cong et al., 2019; stochastic derivatives: Arya et al., 2022).

    Summation by parts of sum_z f(z) dp(z): a parameter moves the mass dF from z to z + 1. For samples that are integers
    without a gap: Bernoulli, Binomial, Categorical (by the order of its values), Geometric, NegativeBinomial, Poisson.
    Elements that no cost mixes take one further evaluation together; those that a cost mixes are moved in turn, an
    evaluation each.

    With ``prune`` one element of those that costs mix is moved, i with probability c_i / sum_j c_j, and its term is
    multiplied by sum_j c_j / c_i, c_i = |dF(z_i)| / p(z_i), |dF| summed over the element's own parameters: two
    evaluations of the cost whatever the number of elements. First derivatives only.
    """

    second_derivatives = False
    requires = (FixedSupport,)

    def __init__(self, prune: bool = False, *, coupled: bool = True):
        super().__init__(coupled=coupled)
        if not isinstance(prune, (bool, np.bool_)):
            raise ScgTypeError(f"StochasticDerivative: prune must be True or False, got {prune!r} ({here()})")
        self.prune = bool(prune)

    def objection(self, distribution: Distribution) -> str:
        if not isinstance(distribution, INTEGERS):
            names = ", ".join(kind.__name__ for kind in INTEGERS)
            return f"needs samples that are integers without a gap ({names}), got {distribution!r}"
        return super().objection(distribution)

    def expand(self, down: Downstream) -> Value | None:
        if not down.influences:
            return None
        z, distribution = held(down.node), down.distribution
        below = np.broadcast_to(distribution.cdf(z), down.shape)
        p = constant(down, np.exp(distribution.log_prob(z)))
        left = 1 - constant(down, below)
        last = (left <= 0) | (p <= 0)  # no step beyond the last value: F = 1 there whatever the parameters are
        value = constant(down, down.node)
        if isinstance(distribution, FiniteSupport):  # 1 - F of the last value may be a rounding error
            last = last | (value == np.max(distribution.atoms()))
        mixed = sorted({axis for axes in down.mixed() for axis in axes})
        if not self.prune or not mixed:
            moved = value + np.where(last, 0, 1).astype(value.dtype)
            step = down.one_by_one(np.stack([moved, value]))
            change = step[0] - step[1]
        else:
            batch = down.shape
            moves = sum(
                [
                    np.sum(abs(s), axis=tuple(range(len(batch), s.ndim)))
                    for s in slopes(down, batch, lambda d: d.cdf(constant(down, z)))
                ]
            )
            pick, share = self._picked(down, np.where(last, 0, moves / np.where(last, 1, p)), mixed)
            change = (down.at((value + pick.astype(value.dtype))[None])[0] - down.now()) * (pick * share).astype(
                below.dtype
            )
        weight = np.where(last, 0, -change / np.where(last, 1, p))
        return np.sum(first_order(below, weight))

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
