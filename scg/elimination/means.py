"""The mean of a cost over some of its samples given all others, as a node that stands in the place of the cost.

    E[c | y] = sum_z prod_i p(z_i | parents, y) c(z, y),

z the samples that are summed over, y the others. It is made of primitives alone, and so it has derivatives of any
order, replays with other values of y, and is compiled as any other node.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from scg.core.ancestry import ancestors
from scg.core.node import Node
from scg.distributions.base import FiniteSupport, Reparameterizable
from scg.elimination.direct import NoStructure, TooBroad, depends
from scg.elimination.distribute import distributed
from scg.elimination.finite import BudgetError, written
from scg.elimination.structure import Structure
from scg.elimination.sums import NotFinite, Sums
from scg.errors import EstimatorError, here
from scg.stochastic.sites import is_draw

_LOCAL = 10.0  # log2 of the configurations of a product above which it is written as a sum of products


def mean(cost: Node, samples: list[Node], budget: int) -> Node:
    """E[cost | all samples but these], of the cost's shape: its sum in equal parts, over which a gradient sums.

    Raises EstimatorError where the samples decide an ``if``, where another sample that is not pathwise is drawn from
    them, or where a part of the cost is not finite; BudgetError, which names them, where a product of the elimination
    has more than ``budget`` entries.
    """
    refuse_what_follows(cost, samples)
    total = np.sum(cost) if cost.ndim else cost
    structure = None
    try:
        structure = Structure(total, {}, budget, draws=samples)
        structure.look()
        if (other := distributed(structure, _LOCAL)) is not None:
            structure = Structure(other, {}, budget, draws=samples)
            structure.look()
        found = Sums(structure).mean(graph=True)
    except TooBroad as error:
        what = named(samples) if structure is None else structure.naming(error.variables)
        raise BudgetError(
            f"{what}: Marginalize tabulates parts of the cost over all that they depend on directly, here"
            f" {written(error.size)} configurations, over the budget of {budget}; raise it, Marginalize(budget=...), or"
            f" write the cost as a sum of parts that depend on fewer, or use ScoreFunction() ({here()})"
        ) from None
    except NoStructure:
        raise EstimatorError(
            f"{named(samples)}: Marginalize sums out samples one after the other, and here it is not known on which of"
            f" them a part of the cost or a parameter depends: use ScoreFunction() on some ({here()})"
        ) from None
    except NotFinite:
        raise EstimatorError(
            f"{named(samples)}: Marginalize adds up the cost at all values of its samples, and at some of them it is"
            f" infinite or NaN: replace it there with np.where, or use ScoreFunction() ({here()})"
        ) from None
    found = found.astype(cost.dtype)
    shared: Any = np.broadcast_to(found / cost.size, cost.shape) if cost.ndim else found
    return shared  # type: ignore[no-any-return]


def refuse_what_follows(cost: Node, samples: Sequence[Node]) -> None:
    """Raise EstimatorError where an ``if`` looks at one of the samples, or where another sample is drawn from one."""
    own = {node.id for node in samples}
    dependent, seen = set(own), set[int]()
    for node in ancestors([cost], min(own), guards=True):
        for guard in () if node.guard is None else node.guard.unseen(seen):
            if guard.node.id in dependent:
                raise EstimatorError(
                    f"{named(samples)}: Marginalize evaluates the cost at all values of its samples, and the `if` at"
                    f" {guard.line} looks at one: write the choice with np.where, or use ScoreFunction() ({here()})"
                )
        if node.id in own or not depends(node, dependent):
            continue
        dependent.add(node.id)
        if is_draw(node):
            site = node.statics["site"]
            ways = ["Marginalize()"] * site.distribution.has(FiniteSupport)
            ways += ["Reparameterized()"] * site.distribution.has(Reparameterizable)
            own_way = f"use {' or '.join(ways)} on it, too, or" if ways else "use"
            raise EstimatorError(
                f"{named(samples)}: Marginalize takes the mean given all other samples, and {site!r}, at {node.line},"
                f" is drawn from them: {own_way} ScoreFunction() in the place of Marginalize ({here()})"
            )


def named(samples: Sequence[Node]) -> str:
    """Samples in a message: the first three."""
    names = [f"{n.statics['site'].name or type(n.statics['site'].distribution).__name__}" for n in samples[:3]]
    rest = f" and {len(samples) - 3} more" if len(samples) > 3 else ""
    return ", ".join(names) + rest
