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
from scg.elimination.direct import NoStructure, direct
from scg.elimination.distribute import distributed
from scg.elimination.finite import BudgetError, Width
from scg.elimination.structure import Structure
from scg.elimination.sums import NotFinite, Sums
from scg.exact.estimates import moments_of

_CHEAP = 10.0  # log2 of how many configurations are enumerated, or tabulated, without a thought
_WORK = 19.0  # log2 of how many numbers are enumerated in less time than an elimination is planned
_GAIN = 3.0  # log2 of how much smaller than what is enumerated at once a product is to be
_TOGETHER = 7.0  # log2 of the configurations of a part, of which two together are few
_COORDINATES = 2**9  # of a gradient, each of which takes an elimination of its own
_MANY = 2**13  # elements of samples, of which a table of what depends on what would take an element squared


def eliminated(
    cost: Node,
    names: dict[int, str],
    budget: int,
    deadline: float,
    compute: Callable[[Sums], list[np.ndarray]],
    evidence: bool = False,
) -> tuple[list[np.ndarray], float, int, Width] | None:
    """What ``compute`` makes of the sums of a cost: arrays, an estimate of their error, the entries of all products,
    and the largest of these. None where enumeration is to do it. With ``evidence`` the terms are logarithms of factors,
    which no enumeration takes apart.

    Raises BudgetError where neither enumeration nor elimination keeps to the budget.
    """
    try:
        structure = Structure(cost, names, budget, deadline)
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
    roots: list[Node], names: dict[int, str], budget: int, deadline: float
) -> tuple[list[np.ndarray], list[np.ndarray], list[float], int, Width] | None:
    """Means and mean squares of the elements of some nodes, what the rounding of each is relative to, the entries of
    all tables, and the largest of these. None where enumeration is to do it: where it is cheap, or what the nodes are
    is not known.

    Raises BudgetError where neither enumeration nor elimination keeps to the budget.
    """
    try:
        structure = Structure(roots[0], names, budget, deadline, roots)
        if structure.bits <= _CHEAP or sum(r.size for r in roots) > _COORDINATES:
            return None
        structure.look()
        if structure.enumeration(_TOGETHER)[0] < math.inf:
            return None
        means, squares, widest, entries = [], [], Width(0, 0, ()), 0
        for root in roots:
            flat: Result = np.reshape(root, -1)
            found = []
            for k in range(root.size):
                structure.check_time()
                found.append(moments_of(flat[k], names, budget, deadline))
            means.append(np.reshape([m.mean for m in found], root.shape))
            squares.append(np.reshape([m.square for m in found], root.shape))
            entries += sum(m.entries for m in found)
            widest = max([widest, *[m.width for m in found]], key=lambda width: width.entries)
    except (NoStructure, NotFinite):
        return None
    except BudgetError:
        if structure.enumeration(math.log2(budget))[0] < math.inf:
            return None
        raise
    return means, squares, [float(np.max(q, initial=0)) for q in squares], entries, widest
