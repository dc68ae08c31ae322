"""Summing over all values of several samples together."""

from typing import final

from scg.core.node import Node
from scg.core.options import integer
from scg.distributions.base import FiniteSupport
from scg.stochastic.estimator import Estimator


@final
class Marginalize(Estimator):
    """Summation over all values of the samples that have this estimator, together, by variable elimination:

        E[c | y] = sum_z prod_i p(z_i | parents, y; t) c(z, y; t)

    stands in the place of the cost c, z these samples and y all others. It has no variance with respect to z (Rao and
    Blackwell), and its derivatives are exact in z, of any order, also by what the cost holds of the parameters itself.
    The sums run one sample after the other, so that a chain of n samples with local costs takes n small products, not
    2^n values ("tensor variable elimination", Obermeyer et al., 2019): mixtures, hidden Markov chains, trees, narrow
    grids. What no z leads to stays as it is.

    The value of the cost stays the recorded one, at the z that were drawn: it is the gradient that is exact.

    Other samples may lead to z, or to the cost beside z; each of their elements meets its own cost-to-go, so that a
    score function has no more variance than beside a z that is sampled. Samples that are drawn *from* z must have
    Marginalize() as well, or be pathwise (``Reparameterized()``: z chooses between paths of the same noise). ``budget``
    bounds the entries of the largest product; where they differ, the least counts.

    Raises EstimatorError where an ``if`` looks at z, where a sample of another kind is drawn from z, where the cost is
    infinite at some value; BudgetError, which names the samples and the width, where they keep together.
    """

    requires = (FiniteSupport,)

    def __init__(self, budget: int = 2**20):
        integer("Marginalize: budget", budget, 1)
        self.budget = budget

    def condition(self, cost: Node, samples: list[Node]) -> Node:
        from scg.elimination.means import mean  # it takes as long to import as all estimators, and few programs ask

        return mean(cost, samples, min([node.statics["site"].estimator.budget for node in samples]))
