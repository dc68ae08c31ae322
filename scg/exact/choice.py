"""Whether a mean is enumerated or eliminated.

Enumeration is first where it is cheap: where all that meets in one element of a term has few configurations, with all
that it is drawn from. Else what has structure is eliminated. Where neither fits the budget the refusal names the
samples that keep together in the elimination.
"""

import math
from collections.abc import Callable

import numpy as np

from scg.core.aliases import Result
from scg.core.node import Node
from scg.core.replay import replay
from scg.elimination.direct import NoStructure, NotListed, direct
from scg.elimination.distribute import distributed
from scg.elimination.finite import BudgetError, Width
from scg.elimination.structure import Structure
from scg.elimination.sums import NotFinite, Sums
from scg.exact.estimates import moments_of
from scg.exact.lattices import Attempt, Lattices, settled
from scg.exact.leaf import ConvergenceError
from scg.exact.models import by_densities
from scg.exact.results import RTOL

_CHEAP = 10.0  # log2 of how many configurations are enumerated, or tabulated, without a thought
_WORK = 19.0  # log2 of how many numbers are enumerated in less time than an elimination is planned
_GAIN = 3.0  # log2 of how much smaller than what is enumerated at once a product is to be
_TOGETHER = 7.0  # log2 of the configurations of a part, of which two together are few
_COORDINATES = 2**9  # of a gradient, each of which takes an elimination of its own
_POINTS = 32  # of a quadrature rule, that all continuous samples together may take
_TABLE = 16.0  # log2 of the configurations of a part of the cost on lattices
_MANY = 2**13  # elements of samples, of which a table of what depends on what would take an element squared


def eliminated(
    cost: Node,
    names: dict[int, str],
    budget: int,
    deadline: float,
    compute: Callable[[Sums], list[np.ndarray]],
    evidence: bool = False,
    rtol: float = RTOL,
) -> tuple[list[np.ndarray], float, int, Width] | None:
    """What ``compute`` makes of the sums of a cost: arrays, an estimate of their error, the entries of all products,
    and the largest of these. None where enumeration is to do it. With ``evidence`` the terms are logarithms of factors,
    which no enumeration takes apart.

    Raises BudgetError where neither enumeration nor elimination keeps to the budget.
    """
    try:
        structure, listed = Structure(cost, names, budget, deadline), True
    except NoStructure as error:
        listed = not isinstance(error, NotListed)
        if listed:
            return None
    if not listed:
        return _on_lattices(cost, names, budget, deadline, compute, evidence, rtol)
    try:
        many = len(structure.sizes) > _MANY
        if structure.bits <= _CHEAP and not evidence:
            return None
        structure.look()
        # log2 of the configurations of the largest set, where enumeration is a choice
        widest = math.inf
        if not many and not evidence:
            widest, rows = structure.enumeration(math.log2(budget))
            if rows + math.log2(structure.work) <= _WORK:
                return None
        if not evidence and (other := distributed(structure, _CHEAP)) is not None:
            structure = Structure(other, names, budget, deadline)
            structure.look()
        if widest < math.inf and max(map(structure.largest, [*structure.scopes, *structure.parents])) > widest - _GAIN:
            return None
        try:
            sums = Sums(structure, evidence=evidence)
        except BudgetError:
            if widest < math.inf:
                return None
            raise
        if math.log2(sums.plan.largest) > max(_CHEAP, widest - _GAIN) and widest < math.inf:
            return None
        found = compute(sums)
    except (NoStructure, NotFinite):
        return None
    if not all([np.isfinite(x).all() for x in found]):
        return None
    return found, sums.error, sums.plan.entries, sums.width


def _on_lattices(
    cost: Node,
    names: dict[int, str],
    budget: int,
    deadline: float,
    compute: Callable[[Sums], list[np.ndarray]],
    evidence: bool,
    rtol: float,
) -> tuple[list[np.ndarray], float, int, Width] | None:
    """The same where some draws are continuous: quadrature of all that meets together is first, with ``_POINTS`` for
    each of them."""

    def attempt(structure: Structure) -> Attempt:
        if not evidence and (other := distributed(structure, _TABLE)) is not None:
            structure = lattices.structure(structure.lattices, [other])
        sums = Sums(structure, evidence=evidence)
        found = compute(sums)
        return Attempt(found, sums.error, sums.missing, sums.plan.entries, sums.width)

    try:
        lattices = Lattices([by_densities(cost)], names, budget, deadline, evidence)
        if lattices.joint(_POINTS, evidence):
            return None
        return settled(lattices, attempt, rtol)
    except NoStructure:
        return None
    except (BudgetError, ConvergenceError):
        if lattices.joint(_POINTS // 2, evidence):
            return None
        raise


def eliminated_distribution(
    root: Node, names: dict[int, str], budget: int, deadline: float = math.inf
) -> tuple[np.ndarray, np.ndarray] | None:
    """Values of a node, along a leading axis, and their probabilities: of what it depends on directly, when all else is
    eliminated. None where enumeration is to do it. Raises BudgetError where neither keeps to the budget."""
    try:
        structure = Structure(root, names, budget, deadline)
        if structure.bits <= _CHEAP:
            return None
        structure.look()
        starts = {n.id: start for n, start in zip(structure.draws, structure.offsets, strict=False)}
        kept = np.unique(direct([root], starts)[root.id])
        kept = kept[kept >= 0]
        entries = math.prod(structure.sizes[kept].tolist())
        if entries > budget:
            raise structure.too_wide(kept.tolist(), entries)
        variables, chances = Sums(structure, kept.tolist()).joint()
        rows = np.indices(chances.shape).reshape(len(variables), -1)
        digits = np.full((rows.shape[1], len(structure.sizes)), -1)
        digits[:, variables] = rows.T
        values = {}
        for k, start in enumerate(structure.offsets[:-1]):
            leaf = structure.leaf(k)
            values[leaf.node] = leaf.at(digits[:, start : start + leaf.count])
        with np.errstate(all="ignore"):  # where a configuration is impossible
            found = replay(root, values, list(values))
    except (NoStructure, NotFinite):
        return None
    except BudgetError:
        if structure.bits > math.log2(budget):
            raise
        return None
    return found, chances.reshape(-1)


def eliminated_moments(
    roots: list[Node], names: dict[int, str], budget: int, deadline: float, rtol: float = RTOL
) -> tuple[list[np.ndarray], list[np.ndarray], list[float], int, Width] | None:
    """Means and mean squares of the elements of some nodes, what the rounding of each is relative to, the entries of
    all tables, and the largest of these. None where enumeration is to do it: where it is cheap, or what the nodes are
    is not known.

    Raises BudgetError where neither enumeration nor elimination keeps to the budget.
    """
    try:
        structure, listed = Structure(roots[0], names, budget, deadline, roots), True
    except NoStructure as error:
        listed = not isinstance(error, NotListed)
        if listed:
            return None
    if not listed:
        return _moments_on_lattices(roots, names, budget, deadline, rtol)
    try:
        if structure.bits <= _CHEAP or sum(r.size for r in roots) > _COORDINATES:
            return None
        structure.look()
        if structure.enumeration(_TOGETHER)[0] < math.inf:
            return None
        found = _each(structure)
    except (NoStructure, NotFinite):
        return None
    except BudgetError:
        if structure.enumeration(math.log2(budget))[0] < math.inf:
            return None
        raise
    means, squares = found.found[: len(roots)], found.found[len(roots) :]
    return means, squares, [float(np.max(q, initial=0)) for q in squares], found.entries, found.width


def _each(structure: Structure) -> Attempt:
    """The means and the mean squares of the elements of the roots of a structure."""
    means, squares, every = [], [], []
    for root in structure.roots:
        flat: Result = np.reshape(root, -1)
        found = []
        for k in range(root.size):
            structure.check_time()
            found.append(moments_of(flat[k], structure.names, structure.budget, structure.deadline, structure.lattices))
        means.append(np.reshape([m.mean for m in found], root.shape))
        squares.append(np.reshape([m.square for m in found], root.shape))
        every += found
    width = max([m.width for m in every], key=lambda width: width.entries, default=Width(0, 0, ()))
    missing = max([m.missing for m in every], default=0.0)
    return Attempt([*means, *squares], 0.0, missing, sum(m.entries for m in every), width)


def _moments_on_lattices(
    roots: list[Node], names: dict[int, str], budget: int, deadline: float, rtol: float
) -> tuple[list[np.ndarray], list[np.ndarray], list[float], int, Width] | None:
    """The same where some draws are continuous."""
    try:
        lattices = Lattices(roots, names, budget, deadline)
        if sum(r.size for r in roots) > _COORDINATES or lattices.joint(_POINTS, False):
            return None
        found, error, entries, width = settled(lattices, _each, rtol, True)
    except NoStructure:
        return None
    except (BudgetError, ConvergenceError):
        if lattices.joint(_POINTS // 2, False):
            return None
        raise
    squares = found[len(roots) :]
    return (
        found[: len(roots)],
        squares,
        [max(error / 1e-13, float(np.max(q, initial=0))) for q in squares],
        entries,
        width,
    )
