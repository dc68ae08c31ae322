"""Pickling of graphs: nodes as flat rows, so that no depth of graph meets the recursion limit."""

import copyreg
import os
import time
import weakref

from scg.core.aliases import Function, Operands, Result, Statics
from scg.core.ambient import Guard
from scg.core.ancestry import ancestors
from scg.core.node import Node, record

_START = time.time_ns()
Row = Operands
"""A node as it is written: its primitive, operands, statics, value and line."""

_UNPACKED: "weakref.WeakValueDictionary[object, Node]" = weakref.WeakValueDictionary()


def pack(roots: list[Node]) -> tuple[list[Row], list[int]]:
    """Nodes and the guards before them as flat rows (no recursion, at any depth), and the row of each root; see
    ``unpack``."""
    order = ancestors(roots, guards=True)
    row: dict[int, int] = {}  # of a node by its id, of a guard by its stamp
    lines: dict[object, str] = {}
    passed: set[int] = set()
    rows: list[Row] = []
    for node in order:
        chain = [] if node.guard is None else list(node.guard.unseen(passed))
        for guard in reversed(chain):
            row[guard.stamp] = len(rows)
            before = guard.before and row[guard.before.stamp]
            rows.append((None, row[guard.node.id], guard.outcome, before, guard.line, guard.reads))
        row[node.id] = len(rows)
        sources = tuple([row[o.id] if type(o) is Node else None for o in node.operands])
        constants = tuple([o for o in node.operands if type(o) is not Node])
        spot = (id(node.code), node.instruction)
        if spot not in lines:
            lines[spot] = node.line
        before = None if node.guard is None else row[node.guard.stamp]
        rows.append(
            (node.primitive, sources, constants, node.id, _unlinked(node.statics), node.raw, before, lines[spot])
        )
    return rows, [row[root.id] for root in roots]


def unpack(rows: list[Row], roots: list[int], origin: object = None) -> list[Node]:
    """The inverse of ``pack``: the nodes of the rows ``roots``.

    Nodes of one ``origin`` (a process) that are unpacked one after the other stay one graph, as they were there.
    """
    made: list[Result] = []
    for primitive, sources, *rest in rows:
        if primitive is None:
            outcome, before, line, reads = rest
            made.append(Guard(made[sources], outcome, None if before is None else made[before], line, 0, reads))
            continue
        constants, number, statics, value, guard, line = rest
        node = _UNPACKED.get((origin, number)) if origin else None
        if node is None:
            others = iter(constants)
            operands = tuple([next(others) if i is None else made[i] for i in sources])
            node = record(primitive, operands, _linked(statics, operands), value)
            node.code, node.instruction = line, 0
            node.guard = None if guard is None else made[guard]
            if origin:
                _UNPACKED[origin, number] = node
        made.append(node)
    return [made[i] for i in roots]


def _unpickle(origin: object, rows: list[Row], roots: list[int]) -> Node:
    return unpack(rows, roots, origin)[0]


def _unlinked(statics: Statics) -> Statics:
    """Statics without the nodes that they share with the operands (a sample's distribution), which would be a graph
    inside a row."""
    return {name: value.unlinked() if hasattr(value, "unlinked") else value for name, value in statics.items()}


def _linked(statics: Statics, operands: Operands) -> Statics:
    return {name: value.linked(operands) if hasattr(value, "linked") else value for name, value in statics.items()}


def _reduce(node: Node) -> tuple[Function, Operands]:
    rows, roots = pack([node])
    return _unpickle, ((os.getpid(), _START), rows, roots)


copyreg.pickle(Node, _reduce)
