"""Who holds a node: references are counted, and told apart by what they are from."""

import gc
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from scg.core.node import Node


class _Probe:
    """How many references this interpreter counts, inside ``x += y``, to x and to y."""

    def __iadd__(self, other: Any) -> Any:
        self.count, self.other = sys.getrefcount(self), sys.getrefcount(other)
        return self


def _inside(x: _Probe) -> int:
    x += 0
    return x.count


def _counted() -> tuple[int, int, int]:
    alone, shared, twice, given = _Probe(), _Probe(), _Probe(), _Probe()
    alone += 0
    twice += twice
    if alone.count >= _inside(shared):
        return -1, -1, -1
    count = alone.count
    alone += _Probe()
    passing = alone.other
    alone += given
    return count, twice.count, passing if passing < alone.other else -1


ALONE, TWICE, PASSING = _counted()
"""The references to x inside ``x += y``, inside ``x += x``, and those to a y that nothing else holds; where counts do
not tell, less than any."""


def operand_uses(node: "Node", other: object, passed: int) -> int:
    """How many references nodes have to ``node``, as their operand: what they computed is a number of its own, and does
    not see the node change. None where a view of it may be seen, which does.

    ``other`` is y of ``node += y``, with ``passed`` references to it. All objects are looked through, which takes some
    milliseconds.
    """
    uses, views = _uses(node)
    return 0 if _is_any_seen(views, other, passed) else uses


def _uses(node: "Node") -> tuple[int, list[Any]]:
    """How many operands of nodes a node is; those of these nodes that are views of it."""
    uses, views = 0, []
    for operands in gc.get_referrers(node):
        if type(operands) is tuple:
            owners = [n for n in gc.get_referrers(operands) if type(n) is type(node) and n.operands is operands]
            if owners:
                uses += sum([o is node for o in operands])
                views += [n for n in owners if type(n.raw) is np.ndarray and np.may_share_memory(n.raw, node.raw)]
    return uses, views


def _is_any_seen(views: list[Any], other: object, passed: int) -> bool:
    """Whether something beside the nodes computed of them, or ``other`` on its way, refers to one of some views, or to
    a view of it."""
    views.append(object())  # which the list alone holds
    held = [sys.getrefcount(view) for view in views]
    views.pop()
    for k, count in enumerate(held[:-1]):
        uses, further = _uses(views[k])
        more = passed - PASSING if views[k] is other else count - held[-1]
        if more > uses or PASSING < 0 or _is_any_seen(further, other, passed):
            return True
    return False
