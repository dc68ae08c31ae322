"""Exact truth of a stochastic computation graph: expectations, their derivatives, and the moments of gradient
estimators, by enumeration and quadrature.

Finitely many values are enumerated, or eliminated sample by sample where that takes less: a chain of samples with local
costs takes time in proportion to its length (``sums``). A mean over a continuous distribution is a Gauss rule of that
distribution (Hermite, Laguerre, Legendre, Jacobi, or the distribution's own, by Lanczos); where the integrand has kinks
or jumps, which are looked for along each sample, in the cost and in the density, or heavy tails, a double exponential
rule on each of the pieces between; the number of points is doubled until the result settles to ``rtol``. What settled
is held against an adaptive quadrature that shares no point and no symmetry with the rule (``panels``): narrow, steep or
undeclared features and means that do not exist are found by it, or are refused. Endless supports are cut where what is
left has a probability that matters no more. Chains of continuous samples, with finite ones among them, that are too
long to be integrated together are eliminated, too, with a lattice of points for the values of each (``lattices``): what
is smooth, on the whole line. Costs are taken apart, so that only what meets in one part of a cost is enumerated
jointly, or in one product of an elimination; ``budget`` bounds the number of its configurations.

All take a Graph, a node, or a function with its arguments, and with ``full=True`` return an ``Exact``. ``time_limit``
is in seconds.

An ``if`` on a sample is followed both ways where the function is known: it is traced again until the ways that were met
have probability one together.

Raises BudgetError (a ScgValueError), which names the samples, where parts of the cost depend on too many or
``time_limit`` is over; ConvergenceError where parameters move a jump of the cost (for second derivatives, a kink), of
which no derivative under the integral knows, and where an integral does not settle, as where several samples decide
together about a jump, or the mean does not exist; GuardError where ways through an ``if`` are too rare to be met;
MovingSupport where a support moves with the parameters and no path is known along which its samples do.
"""

from scg.elimination.finite import BudgetError
from scg.exact.evidence import log_evidence
from scg.exact.leaf import ConvergenceError
from scg.exact.listing import distribution
from scg.exact.means import expectation, gradient, hessian
from scg.exact.results import PATIENCE, Exact, Law, Moments
from scg.exact.values import MovingSupport
from scg.exact.variances import moments

__all__ = [
    "PATIENCE",
    "BudgetError",
    "ConvergenceError",
    "Exact",
    "Law",
    "Moments",
    "MovingSupport",
    "distribution",
    "expectation",
    "gradient",
    "hessian",
    "log_evidence",
    "moments",
]
