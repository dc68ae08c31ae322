"""The mean of a cost over some of its samples given all others, as a node that stands in the place of the cost.

    E[c | y] = sum_z prod_i p(z_i | parents, y) c(z, y),

z the samples that are summed over, y the others; and the logarithm of the mean of an exponential. Both are made of
primitives alone: they have derivatives of any order, replays with other values of y, and are compiled as any node.
"""

import functools
import operator
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from scg.core.aliases import Result
from scg.core.ancestry import ancestors
from scg.core.backward import pull
from scg.core.leaves import parameter
from scg.core.node import Node
from scg.distributions.base import FiniteSupport, Reparameterizable
from scg.elimination.affine import affine_at
from scg.elimination.direct import NoStructure, TooBroad, depends
from scg.elimination.distribute import distributed
from scg.elimination.finite import BudgetError, written
from scg.elimination.structure import Structure
from scg.elimination.sums import NotFinite, Sums
from scg.errors import EstimatorError, here
from scg.stochastic.dependence import Influence
from scg.stochastic.estimator import Estimator
from scg.stochastic.sets import members
from scg.stochastic.sites import is_draw

_GROUPS = 64  # of terms, each of which takes an elimination of its own
_LOCAL = 10.0  # log2 of the configurations of a product above which it is written as a sum of products


def mean(cost: Node, samples: list[Node], budget: int) -> Node:
    """E[cost | all samples but these], of the cost's shape: its sum in equal parts, over which a gradient sums.

    Raises EstimatorError where the samples decide an ``if``, where another sample that is not pathwise is drawn from
    them, or where a part of the cost is not finite; BudgetError, which names them, where a product of the elimination
    has more than ``budget`` entries.
    """
    refuse_what_follows(cost, samples)
    with _refusals(samples, budget):
        structure = _structured(np.sum(cost) if cost.ndim else cost, samples, budget)
        found = _by_influence(structure).astype(cost.dtype)
    shared: Result = np.broadcast_to(found / cost.size, cost.shape) if cost.ndim else found
    return shared


def _structured(cost: Node, samples: list[Node], budget: int) -> Structure:
    """The structure of a cost, of which products of sums are distributed where it is a number."""
    structure = Structure(cost, {}, budget, draws=samples)
    structure.look()
    if cost.ndim == 0 and (other := distributed(structure, _LOCAL)) is not None:
        structure = Structure(other, {}, budget, draws=samples)
        structure.look()
    return structure


def _by_influence(structure: Structure) -> Node:
    """The mean as a sum of means of terms that the same other samples have influenced, of those whose estimators look
    at costs: each of them meets its own cost-to-go still.

        E[sum_t w_t t | y] = sum_g E[sum_{t in g} w_t t | y_g],   y_g what has influenced the terms in g

    At most ``_GROUPS`` of them, of terms that much the same has influenced.
    """
    others = _looking(structure)
    if not others:
        return Sums(structure).mean(graph=True, steps=True)
    zeros = [parameter(np.zeros(t.shape, t.dtype if t.dtype.kind == "f" else float)) for t in structure.terms]
    (total,) = affine_at(structure.terms, [structure.cost], zeros, True)
    weights = pull([total], [np.ones((), total.dtype)], zeros, True)
    parts: list[Node] = [np.sum(w * t) for w, t in zip(weights, structure.terms, strict=True)]
    influence = Influence([(n, n.statics["site"].event_ndim) for n in others], ancestors([*others, *parts]))
    groups: dict[int, list[Node]] = {}
    for part in parts:
        groups.setdefault(influence.draws.get(part.id, 0), []).append(part)
    ordered = sorted(groups.items(), key=lambda item: len(members(item[0])))
    for cut in np.array_split(np.arange(len(ordered)), min(len(ordered), _GROUPS)):
        cost = functools.reduce(operator.add, [part for k in cut for part in ordered[k][1]])
        above = {node.id for node in ancestors([cost])}
        inside = Structure(cost, {}, structure.budget, draws=[n for n in structure.draws if n.id in above])
        inside.look()
        total = total + Sums(inside).mean(graph=True, steps=True, blocks=True)
    return total


def _looking(structure: Structure) -> list[Node]:
    """The samples beside those of a structure whose estimators look at the costs that they have influenced."""
    own, found = {node.id for node in structure.draws}, []
    for node in structure.order:
        if is_draw(node) and node.id not in own:
            estimator = node.statics["site"].estimator
            if estimator.scores or type(estimator).expand is not Estimator.expand:
                found.append(node)
    return found


def log_mean_exp(log_p: Node, samples: list[Node], budget: int) -> Node:
    """log E[exp(log_p) | all samples but these], element by element. Raises as ``mean`` does."""
    refuse_what_follows(log_p, samples)
    with _refusals(samples, budget):
        structure = _structured(log_p, samples, budget)
        apart = structure.apart()
        if apart is not None:
            found = Sums(structure, evidence=True).log_mean_exps(*apart, bool(_looking(structure)))
            return found.reshape(log_p.shape).astype(log_p.dtype)
    each: list[Node] = []
    for element in log_p.ravel():  # elements that have samples in common
        above = {node.id for node in ancestors([element])}
        own = [node for node in samples if node.id in above]
        each.append(log_mean_exp(element, own, budget) if own else element)
    stacked: Result = np.stack(each)
    return stacked.reshape(log_p.shape)


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


@contextmanager
def _refusals(samples: Sequence[Node], budget: int) -> Iterator[None]:
    """What an elimination raises, as refusals of the estimator."""
    try:
        yield
    except TooBroad as error:
        raise BudgetError(
            f"{error.names}: Marginalize tabulates parts of the cost over all that they depend on"
            f" directly, here {written(error.size)} configurations, over the budget of {budget}; raise it,"
            " Marginalize(budget=...), or write the cost as a sum of parts that depend on fewer, or use"
            f" ScoreFunction() ({here()})"
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
