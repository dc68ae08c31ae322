"""The terms in which nodes are affine, and the nodes at other values of these."""

from collections.abc import Sequence

from scg.core.aliases import Result
from scg.core.ancestry import ancestors
from scg.core.node import Node, Value
from scg.core.replay import rerun
from scg.stochastic.terms import summands


def terms_of(roots: list[Node], order: list[Node], dependent: set[int], held: bool) -> list[Node]:
    """The nodes in which ``roots`` are affine, with weights that none of what is ``dependent`` on draws decides; with
    ``held`` taken apart through what is linear in values though not in derivatives, too."""
    terms, region = [], {root.id for root in roots}
    for node in reversed(order):
        if node.id in region and node.id in dependent:
            inner = _parts(node, dependent, held)
            region.update(node.operands[k].id for k in inner)
            if not inner:
                terms.append(node)
    return terms


def affine_at(
    terms: list[Node], roots: list[Node], values: Sequence[Value], graph: bool = False, size: int = 0
) -> list[Result]:
    """The roots at other values of the terms, in which they are affine; where ``size``, with a leading axis of it.
    Those of integers may be fractions."""
    if not terms:
        return roots if graph else [r.raw for r in roots]
    table = {t.id: v for t, v in zip(terms, values, strict=True)}
    order, needed = ancestors(roots, min(table), guards=True), {r.id for r in roots}
    for node in reversed(order):  # not what leads to a term only: it may be an index, which is no fraction
        if node.id in needed and node.id not in table:
            needed.update([o.id for o in node.operands if type(o) is Node])
    order = [node for node in order if node.id in needed]
    return rerun(roots, order, table, set(table) if size else set(), size, graph)  # type: ignore[no-any-return]


def _parts(node: Node, dependent: set[int], held: bool) -> list[int]:
    moving = [k for k, o in enumerate(node.operands) if type(o) is Node and o.id in dependent]
    # the sum of truths is none
    if any(type(node.operands[k].raw) is tuple or node.operands[k].dtype.kind not in "fiu" for k in moving):
        return []
    known = summands(node, dependent)
    if not known and held and node.primitive.same and node.guard is None and moving == [0]:
        return moving  # linear in values, though not in derivatives
    return known
