"""Whether two recorded runs of a function are one function of their samples and parameters.

Node by node: the same primitive, of operands that stand in the same places or are the same numbers, with the same
options; samples and noise of the same distributions, whatever their values. What is not known to be the same is not.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from scg.core.ancestry import ancestors
from scg.core.node import Node
from scg.distributions.base import Distribution


def first_difference(ones: list[Node], others: list[Node]) -> Node | None:
    """The first node that leads to ``ones`` and is not known to be as its fellow that leads to ``others``; None where
    there is none."""
    orders = [ancestors(roots, guards=True) for roots in (ones, others)]
    places = [{node.id: k for k, node in enumerate(order)} for order in orders]
    for a, b in zip(*orders, strict=False):
        if a is not b and not _is_made_as(a, b, *places):
            return a
    ends = [[place[root.id] for root in roots] for place, roots in zip(places, (ones, others), strict=True)]
    return None if ends[0] == ends[1] else next(iter([*ones, *others]))


def has_other_ways(roots: list[Node]) -> bool:
    """Whether an ``if`` on what chance decides led there, so that other runs may be other functions."""
    order, seen = ancestors(roots, guards=True), set[int]()
    moved: set[int] = set()
    for node in order:
        if node.primitive.random or any([type(o) is Node and o.id in moved for o in node.operands]):
            moved.add(node.id)
    guards = [guard for node in order if node.guard is not None for guard in node.guard.unseen(seen)]
    return any([guard.node.id in moved for guard in guards])


def held_apart(one: Node, other: Node) -> tuple[Node, Node] | None:
    """The first sample of two runs of which the estimator, or its baseline, holds another number; None where there is
    none, and where the runs are not known to be alike, ``if``s included."""
    orders = [ancestors([root], guards=True) for root in (one, other)]
    if first_difference([one], [other]) is not None or _outcomes(orders[0]) != _outcomes(orders[1]):
        return None
    for a, b in zip(*orders, strict=True):
        if "site" in (a.statics or ()) and _differ(a.statics["site"].estimator, b.statics["site"].estimator):
            return a, b
    return None


def _outcomes(order: list[Node]) -> list[bool]:
    """How the ``if``s came out that led to nodes."""
    seen = set[int]()
    return [guard.outcome for node in order if node.guard is not None for guard in node.guard.unseen(seen)]


def _differ(x: Any, y: Any) -> bool:
    """Whether two objects that are made alike hold different numbers somewhere."""
    if x is y or type(x) is not type(y):
        return False
    if isinstance(x, (np.ndarray, np.generic, float, int)):
        return not close(np.asarray(x), np.asarray(y))
    if isinstance(x, (tuple, list)):
        return len(x) == len(y) and any(map(_differ, x, y))
    if isinstance(x, Mapping):
        return x.keys() == y.keys() and any(_differ(value, y[key]) for key, value in x.items())
    return type(x) is not Node and hasattr(x, "__dict__") and _differ(vars(x), vars(y))


def close(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether arrays are equal to what sums in another order may change."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    if a.dtype.kind not in "fc":
        return np.array_equal(a, b)
    size = np.max(np.abs(a[np.isfinite(a)]), initial=0.0)
    return np.allclose(a, b, 0.0, size * np.finfo(a.dtype).eps ** 0.6, equal_nan=True)


def _is_made_as(a: Node, b: Node, before: Mapping[int, int], after: Mapping[int, int]) -> bool:
    if a.primitive is not b.primitive or len(a.operands) != len(b.operands):
        return False
    for x, y in zip(a.operands, b.operands, strict=True):
        if type(x) is Node and type(y) is Node:
            if before[x.id] != after[y.id]:
                return False
        elif not _same(x, y):
            return False
    if a.primitive.random:
        return _same(_drawn(a), _drawn(b))
    return _same(a.statics, b.statics) and (bool(a.operands) or _same(a.raw, b.raw))


def _drawn(node: Node) -> tuple[object, ...]:
    """What a sample, or noise, is drawn from."""
    site = node.statics.get("site")
    if site is None:
        return node.statics["distribution"], node.statics["shape"]
    return site.distribution, site.shape, site.coupling


def _same(x: Any, y: Any) -> bool:
    """Whether two options are known to be the same; nodes among them stand among the operands, too."""
    if x is y:
        return True
    if type(x) is not type(y):
        return False
    if isinstance(x, (np.ndarray, np.generic, float, complex)):
        return close(np.asarray(x), np.asarray(y))
    if isinstance(x, (tuple, list)):
        return len(x) == len(y) and all(map(_same, x, y))
    if isinstance(x, Mapping):
        return x.keys() == y.keys() and all(_same(value, y[key]) for key, value in x.items())
    if isinstance(x, Distribution):
        return _same(vars(x), vars(y))
    return type(x) is Node or type(x).__eq__ is not object.__eq__ and bool(x == y)
