"""What leads to a node of a graph."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scg.core.node import Node


def ancestors(roots: Iterable["Node"], floor: int = -1, guards: bool = False) -> list["Node"]:
    """All nodes that lead to ``roots``, these included, by growing id, and with ``guards`` the nodes that an ``if`` on
    the way looked at.

    Nodes with ids under ``floor`` are left out: what is older than a node does not depend on it.
    """
    seen = {root.id: root for root in roots if root.id >= floor}
    stack = list(seen.values())
    kind = type(stack[0]) if stack else None  # a node; its class stands above this module
    passed: set[int] = set()
    while stack:
        node = stack.pop()
        for operand in node.operands:
            if type(operand) is kind:
                i = operand.id
                if i >= floor and i not in seen:
                    seen[i] = operand
                    stack.append(operand)
        if guards and node.guard is not None:
            for guard in node.guard.unseen(passed):
                if guard.node.id >= floor and guard.node.id not in seen:
                    seen[guard.node.id] = guard.node
                    stack.append(guard.node)
    return [seen[i] for i in sorted(seen)]
