"""Which elements of a node depend on which elements of a draw: the axis maps, followed through a recorded graph.

The axes of a draw (those of its batch, not of one event) are *factors*: (axis, stride, size) is the component (i // stride) % size of the index
i along that axis. Each later node then has, for every axis, a tuple of (factor, size), slowest first. A factor of the draw that stands on an
axis is *tied*: elements with index i there depend on elements of the draw with component i only. A factor None is
*free*: all elements along it depend on the same elements of the draw. A factor of the draw that stands nowhere is *mixed*.
"""

from collections.abc import Collection, Iterable
from typing import Any

from scg.axes import elementwise, mixed
from scg.graph import Guard, Node

Labels = tuple[tuple[tuple[Any, int], ...], ...]


def influence(source: Node, event_ndim: int, order: Iterable[Node]) -> dict[int, Labels]:
    """The labels of every node of ``order`` (growing ids) that depends on ``source``; of a node of several results a tuple of labels, one for each."""
    tied = source.ndim - event_ndim
    labels: dict[int, Any] = {
        source.id: tuple([(((a, 1, n) if a < tied else None, n),) for a, n in enumerate(source.shape)])
    }
    tainted: dict[int, bool] = {}
    for node in order:
        if node.id <= source.id:
            continue
        found: Any = None
        alignment = None
        value = node._value
        if node.guard is not None and is_tainted(node.guard, labels, tainted):
            labels[node.id] = tuple(map(_free, value)) if type(value) is tuple else _free(value)  # made on a branch that the draw chose
            continue
        for k, operand in enumerate(node.operands):
            if type(operand) is not Node or operand.id not in labels:
                continue
            before = labels[operand.id]
            if type(operand._value) is tuple:  # one of several results
                after = before[node.statics["index"]]
            elif type(value) is tuple:
                shapes, rule = [getattr(o, "shape", ()) for o in node.operands], node.primitive.axes or mixed
                each = [rule.align_result(j, shapes, v.shape, node.statics) for j, v in enumerate(value)]
                after = tuple([_carried(before, sources[k], target) for target, sources in each])
            elif node.primitive.axes is elementwise and operand._value.shape == value.shape:
                after = before
            else:
                if alignment is None:
                    shapes = [getattr(o, "shape", ()) for o in node.operands]
                    alignment = (node.primitive.axes or mixed).align(shapes, value.shape, node.statics)
                after = _carried(before, alignment[1][k], alignment[0])
            if found is None or found is after:
                found = after
            else:
                found = tuple(map(_agreed, found, after)) if type(value) is tuple else _agreed(found, after)
        if found is not None:
            labels[node.id] = found
    return labels


def is_tainted(guard: Guard, labels: Collection[int], known: dict[int, bool]) -> bool:
    """Whether an ``if`` on the way here looked at one of the labelled nodes."""
    chain = []
    at: Guard | None = guard
    while at is not None and at.stamp not in known:
        chain.append(at)
        at = at.before
    verdict = at is not None and known[at.stamp]
    for link in reversed(chain):
        verdict = known[link.stamp] = verdict or link.node.id in labels
    return verdict


def _free(value: Any) -> Labels:
    return tuple([((None, n),) for n in value.shape])


def _carried(before: Labels, source: Any, result: Any) -> Labels:
    """Labels of an operand's axes carried to the output's axes by an alignment."""
    image: dict[Any, tuple[tuple[Any, int], ...]] = {}
    for labels, factors in zip(before, source, strict=True):
        if len(factors) == 1:
            image[factors[0]] = labels
        elif factors:
            pieces = _cut(labels, [size for _, size in factors])
            for factor, piece in zip(factors, pieces or [((None, n),) for _, n in factors], strict=True):
                image[factor] = piece
    return tuple([tuple([label for factor in axis for label in image.get(factor, ((None, factor[1]),))]) for axis in result])


def _cut(labels: tuple[tuple[Any, int], ...], sizes: list[int]) -> list[tuple[tuple[Any, int], ...]] | None:
    """Labels of one axis cut into consecutive groups of the given sizes, a factor split where it must be; None where it cannot."""
    pieces, queue = [], list(labels)
    for size in sizes:
        piece: list[tuple[Any, int]] = []
        while size > 1:
            if not queue:
                return None
            factor, n = queue.pop(0)
            if size % n == 0:
                piece.append((factor, n))
                size //= n
            elif n % size == 0:  # the slow part here, the fast part for the next group
                slow, fast = split(factor, n, n // size)
                piece.append(slow)
                queue.insert(0, fast)
                size = 1
            else:
                return None
        pieces.append(tuple(piece))
    return pieces


def split(factor: Any, size: int, fast: int) -> tuple[tuple[Any, int], tuple[Any, int]]:
    """A factor as a slow and a fast part, the fast one of the given size."""
    if factor is None:
        return (None, size // fast), (None, fast)
    axis, stride, _ = factor
    return ((axis, stride * fast, size // fast), size // fast), ((axis, stride, fast), fast)


def _agreed(a: Labels, b: Labels) -> Labels:
    """What two paths from the same draw agree on: a factor is tied only where both tie it to the same place."""
    if a == b:
        return a
    out = []
    for x, y in zip(a, b, strict=True):
        if x != y:
            finer = _cut(x, [n for _, n in y])
            coarser = _cut(y, [n for _, n in x])
            if finer is not None and all(len(p) == 1 for p in finer):
                x = tuple([p[0] for p in finer])
            elif coarser is not None and all(len(p) == 1 for p in coarser):
                y = tuple([p[0] for p in coarser])
            else:
                size = 1
                for _, n in x:
                    size *= n
                x = y = ((None, size),)
            x = tuple([(f if f == h else None, n) for (f, n), (h, _) in zip(x, y, strict=True)])
        out.append(x)
    return _once(tuple(out))


def _once(labels: Labels) -> Labels:
    """Labels in which no factor of the draw stands twice (a factor on two axes ties neither)."""
    seen = [f for axis in labels for f, _ in axis if f is not None]
    twice = {f for f in seen if seen.count(f) > 1}
    return tuple([tuple([(None if f in twice else f, n) for f, n in axis]) for axis in labels]) if twice else labels
