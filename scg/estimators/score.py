"""The score-function estimator."""

from typing import final

import numpy as np

from scg.core.aliases import State
from scg.core.node import Value
from scg.core.options import is_integer
from scg.distributions.base import FixedSupport
from scg.errors import EstimatorError, ScgValueError, here
from scg.estimators.baselines import Baseline
from scg.stochastic.estimator import Elsewhere
from scg.stochastic.formulas import box, first_order, held, score, summed
from scg.stochastic.surrogate import Downstream


@final
class ScoreFunction(Elsewhere):
    """Score function: d/dt E[f(z)] = E[(f(z) - b) d/dt log p(z; t)], b independent of z (Glynn, 1990; Williams, 1992).

    One evaluation of the cost, or ``samples``. Each element of the sample meets only the costs that it can have
    influenced. With ``samples=n`` the costs downstream are evaluated at n - 1 further samples z_j of the node, and the
    estimate is the mean over the n samples; with ``LeaveOneOut()`` beside it draw j has the mean cost of the others as
    its baseline.

    It is the gradient of this node's distribution that is averaged, and no other: what flows from the costs to other
    parameters comes from the one sample that was drawn. To average the whole gradient, draw n samples and average the
    costs: ``scg.sample(d, estimator, rng=rng, shape=n)``, and ``np.mean`` of the cost over that axis.
    """

    requires = (FixedSupport,)
    second_derivatives = True
    offered = 2

    def __init__(self, baseline: Baseline | None = None, samples: int = 1, *, coupled: bool = True):
        super().__init__(coupled=coupled)
        if not is_integer(samples, 1):
            raise ScgValueError(f"ScoreFunction: samples must be an integer of at least 1, got {samples!r} ({here()})")
        if baseline is not None and not isinstance(baseline, Baseline):
            raise EstimatorError(
                f"ScoreFunction: baseline must be a baseline such as LeaveOneOut(), got {baseline!r} ({here()})"
            )
        self.baseline, self.samples = baseline, int(samples)

    @property
    def scores(self) -> bool:  # type: ignore[override]
        """Whether the box of the node's log-probability enters the surrogate: with several samples, ``expand`` puts it
        there."""
        return self.samples == 1

    @property
    def state(self) -> State:  # type: ignore[override]
        """That of its baseline."""
        return {} if self.baseline is None else self.baseline.state

    @state.setter
    def state(self, state: State) -> None:
        if self.baseline is not None:
            self.baseline.state = state

    def expand(self, down: Downstream) -> Value | None:
        """(1/n) sum_j (F_j - b_j) log p(z_j), differentiated once; (1/n) sum_j (box_j - 1) (F_j - b_j) for higher
        ones."""
        if self.samples == 1 and down.higher or not down.influences:
            return None  # the boxes of the surrogate do it
        if self.samples == 1:
            f = down.now() if self.baseline is None else down.now() - self.baseline.value(down)
            return summed(first_order(score(down.node), f))
        draws = down.with_others(self.samples - 1)
        scores = down.distribution.log_prob_drawn(held(draws))
        terms = down.terms_at(draws)
        f = down.total(terms)
        if down.higher:
            found = down.scored(terms, scores)
            if self.baseline is not None:
                b = held(self.baseline.of_samples(f, draws, down))
                found = found - np.sum((box(scores) - 1) * b)
            return found / self.samples
        share = f / self.samples if self.baseline is None else self.baseline.shares(f, draws, down)
        return np.sum(first_order(scores, share))
