"""Axis maps: which output axis of a primitive comes from which axis of which operand, and which are mixed.

A map answers two questions, and everything that the engine knows about axes follows from the answers:

``lead``   How does the primitive take a leading replicate axis on some of its operands? The call is rewritten (an axis
           moved by one, a shape lengthened) so that one call computes all replicates; None where it cannot be, and then
           a replay loops and stacks.
``align``  Which elements of the output can depend on which elements of an operand? Every axis is a tuple of *factors*
           ``(label, size)``, slowest first. Along a factor that operand and output share, element i of the output
           depends on element i of the operand only; along a factor of the operand that the output lacks, every output
           element may depend on all of them.
"""

import math
from collections.abc import Sequence

import numpy as np

from scg.core.aliases import Operand, Operands, Statics
from scg.core.indices import aligned_slices, block_rank, blocks_together, is_advanced, replicates

__all__ = [
    "AxisMap",
    "along",
    "broadcast_to",
    "concatenate",
    "contraction",
    "einsum",
    "elementwise",
    "first",
    "index",
    "mixed",
    "reduction",
    "reshape",
    "scatter",
    "transpose",
]

Factor = tuple[object, int]
Axes = tuple[tuple[Factor, ...], ...]
Alignment = tuple[Axes, tuple[Axes, ...]]
Call = tuple[Operands, Statics]


class AxisMap:
    """A family of primitives that treat their axes alike. The base class is the honest default: everything mixes."""

    products = False
    """Whether an output element is a sum of products of one element of each operand."""

    def lead(self, operands: Operands, batched: Sequence[bool], statics: Statics) -> Call | None:
        """The call for operands of which those marked in ``batched`` have a leading replicate axis; None where there is
        none."""
        return None

    def align(self, shapes: Sequence[tuple[int, ...]], out: tuple[int, ...], statics: Statics) -> Alignment:
        """The factors of the output's axes, and those of each operand's."""
        return labelled("out", out), tuple([labelled(i, shape) for i, shape in enumerate(shapes)])

    def align_result(
        self, k: int, shapes: Sequence[tuple[int, ...]], out: tuple[int, ...], statics: Statics
    ) -> Alignment:
        """The same for result ``k``, of shape ``out``, of a primitive that has several."""
        return AxisMap.align(self, shapes, out, statics)


class _Elementwise(AxisMap):
    """Output element i depends on the elements of the operands that broadcasting puts at i."""

    def lead(self, operands, batched, statics):
        return broadcast_lead(operands, batched), statics

    def align(self, shapes, out, statics):
        return labelled("out", out), tuple([broadcast_axes(shape, out) for shape in shapes])

    def align_result(self, k, shapes, out, statics):
        return self.align(shapes, out, statics)


class _First(AxisMap):
    """The first operand; the others are there to be known."""

    def lead(self, operands, batched, statics):
        size = operands[batched.index(True)].shape[0]
        return (*led_all(operands[:2], batched[:2], size, True), *operands[2:]), statics

    def align(self, shapes, out, statics):
        return labelled("out", out), (labelled("out", out), *[labelled(i, shape) for i, shape in enumerate(shapes[1:])])


class _Reduction(AxisMap):
    """One operand; the axes named by the static ``axis`` (a tuple, an int, or None for all) are mixed, and kept only
    where ``keepdims``."""

    def lead(self, operands, batched, statics):
        axis = statics.get("axis")
        ndim = operands[0].ndim - 1
        shifted = tuple(range(1, ndim + 1)) if axis is None else moved(axis, ndim)
        return operands, {**statics, "axis": shifted}

    def align(self, shapes, out, statics):
        (shape,) = shapes
        axis = statics.get("axis")
        gone = (
            set(range(len(shape)))
            if axis is None
            else {a % len(shape) for a in ((axis,) if isinstance(axis, int) else axis)}
        )
        kept = [((("x", i), n),) for i, n in enumerate(shape) if i not in gone]
        source = tuple([((("x", i), n),) for i, n in enumerate(shape)])
        if statics.get("keepdims"):
            return tuple([() if i in gone else ((("x", i), n),) for i, n in enumerate(shape)]), (source,)
        return tuple(kept), (source,)


class _Along(AxisMap):
    """Operands of equal rank, broadcast against one another but along the static ``axis`` (an int), which is mixed and
    kept."""

    def lead(self, operands, batched, statics):
        ndim = operands[batched.index(True)].ndim - 1
        size = operands[batched.index(True)].shape[0]
        return led_all(operands, batched, size), {**statics, "axis": moved(statics["axis"], ndim)}

    def align(self, shapes, out, statics):
        axis = statics["axis"] % len(out)
        inner = labelled("out", out)
        ins = []
        for i, shape in enumerate(shapes):
            source = list(broadcast_axes(shape, out))
            source[axis] = (((i, "mixed"), shape[axis]),)
            ins.append(tuple(source))
        return inner, tuple(ins)


class contraction(AxisMap):
    """Core axes by letters, as a gufunc signature has them, under leading axes that broadcast:
    ``contraction("ij,jk->ik")``.

    A letter that an operand shares with the output is aligned, one that the output lacks is mixed. Several outputs are
    separated by commas.
    """

    def __init__(self, signature: str, products: bool = False):
        ins, outs = signature.split("->")
        self.ins, self.outs, self.products = ins.split(","), outs.split(","), products

    def lead(self, operands, batched, statics):
        return broadcast_lead(operands, batched, [len(core) for core in self.ins]), statics

    def align(self, shapes, out, statics):
        return self.align_result(0, shapes, out, statics)

    def align_result(self, k, shapes, out, statics):
        core = self.outs[k]
        leading = out[: len(out) - len(core)]
        result = labelled("lead", leading) + tuple(
            [((letter, n),) for letter, n in zip(core, out[len(leading) :], strict=True)]
        )
        ins = []
        for letters, shape in zip(self.ins, shapes, strict=True):
            split = len(shape) - len(letters)
            ins.append(
                broadcast_axes(shape[:split], leading, "lead")
                + tuple([((letter, n),) for letter, n in zip(letters, shape[split:], strict=True)])
            )
        return result, tuple(ins)


class _Einsum(AxisMap):
    """The static ``subscripts`` name every axis (explicit output, no ellipsis, no letter twice in one term)."""

    products = True

    def lead(self, operands, batched, statics):
        ins, out = statics["subscripts"].split("->")
        fresh = next(letter for letter in "ZYXWVUTSRQPONMLKJIHGFEDCBA" if letter not in statics["subscripts"])
        terms = [fresh + term if b else term for term, b in zip(ins.split(","), batched, strict=True)]
        return operands, {**statics, "subscripts": f"{','.join(terms)}->{fresh}{out}"}

    def align(self, shapes, out, statics):
        ins, result = statics["subscripts"].split("->")
        return (
            tuple([((letter, n),) for letter, n in zip(result, out, strict=True)]),
            tuple(
                tuple([((letter, n),) for letter, n in zip(term, shape, strict=True)])
                for term, shape in zip(ins.split(","), shapes, strict=True)
            ),
        )


class _Reshape(AxisMap):
    """Row-major order stays; the static ``shape`` is the new shape, without -1."""

    def lead(self, operands, batched, statics):
        return operands, {**statics, "shape": (operands[0].shape[0], *statics["shape"])}

    def align(self, shapes, out, statics):
        return refine(shapes[0], out)


class _Transpose(AxisMap):
    """Output axis i is operand axis ``axes[i]`` (non-negative)."""

    def lead(self, operands, batched, statics):
        return operands, {**statics, "axes": (0, *[a + 1 for a in statics["axes"]])}

    def align(self, shapes, out, statics):
        source = labelled("x", shapes[0])
        return tuple([source[a] for a in statics["axes"]]), (source,)


class _BroadcastTo(AxisMap):
    """The static ``shape`` is the new shape."""

    def lead(self, operands, batched, statics):
        (x,) = operands
        shape = (x.shape[0], *statics["shape"])
        return (padded(x, len(shape) - 1),), {**statics, "shape": shape}

    def align(self, shapes, out, statics):
        return labelled("out", out), (broadcast_axes(shapes[0], out),)


class _Concatenate(AxisMap):
    """Any number of operands, joined along the static ``axis`` (non-negative), which is mixed; the others are
    aligned."""

    def lead(self, operands, batched, statics):
        size = operands[batched.index(True)].shape[0]
        return led_all(operands, batched, size, spread=True), {**statics, "axis": statics["axis"] + 1}

    def align(self, shapes, out, statics):
        axis = statics["axis"]
        ins = []
        for i, shape in enumerate(shapes):
            source = list(labelled("out", shape))
            source[axis] = (((i, "joined"), shape[axis]),)
            ins.append(tuple(source))
        return labelled("out", out), tuple(ins)


class _Index(AxisMap):
    """Operand 0 is indexed by the static ``index``, a tuple in which ``Slot(k)`` stands for operand k.

    An axis that a full slice takes is aligned; so are the axes of an array of indices, each of which picks its own
    elements.
    """

    def lead(self, operands, batched, statics):
        index = statics["index"]
        if not blocks_together(index):
            return None
        if not any(batched[1:]):
            return operands, {**statics, "index": (slice(None), *index)}
        if not is_advanced(index[0]):  # the replicates would land behind the axes before it
            return None
        rank = block_rank(index, [np.ndim(o) - b for o, b in zip(operands, batched, strict=True)])
        operands = (operands[0], *[padded(o, rank) if b else o for o, b in zip(operands[1:], batched[1:], strict=True)])
        return operands, {
            **statics,
            "index": (replicates(operands, batched, rank), *index) if self._leads(batched) else index,
        }

    def _leads(self, batched):
        """Whether what is indexed has the replicate axis too."""
        return batched[0]

    def align(self, shapes, out, statics):
        index = statics["index"]
        result, source = list(labelled("out", out)), list(labelled("x", shapes[0]))
        if any(isinstance(i, np.ndarray) and i.ndim == 0 for i in index):
            return super().align(shapes, out, statics)
        pairs, start, rank = aligned_slices(index, shapes)
        for i, j in pairs:
            source[i] = result[j]
        block = result[start : start + rank]
        picks = [
            tuple([axis if axis[0][1] == n else () for axis, n in zip(block[rank - len(s) :], s, strict=True)])
            for s in shapes[1:]
        ]
        return tuple(result), (tuple(source), *picks)


class _Scatter(_Index):
    """The transpose of ``_Index``: operand 0 is added into zeros of the static ``shape`` at the static ``index``."""

    def lead(self, operands, batched, statics):
        call = super().lead(operands, batched, statics)
        return call and (call[0], {**call[1], "shape": (operands[batched.index(True)].shape[0], *statics["shape"])})

    def _leads(self, batched):
        return True

    def align(self, shapes, out, statics):
        forward = super().align([statics["shape"], *shapes[1:]], shapes[0], statics)
        return forward[1][0], (forward[0], *forward[1][1:])


elementwise, reduction, along, first = _Elementwise(), _Reduction(), _Along(), _First()
einsum, reshape, transpose, broadcast_to, concatenate = (
    _Einsum(),
    _Reshape(),
    _Transpose(),
    _BroadcastTo(),
    _Concatenate(),
)
index, scatter = _Index(), _Scatter()
mixed = AxisMap()


def labelled(label: object, shape: tuple[int, ...]) -> Axes:
    """Each axis one factor, labelled by ``label`` and its position."""
    return tuple([(((label, i), n),) for i, n in enumerate(shape)])


def broadcast_axes(shape: tuple[int, ...], out: tuple[int, ...], label: object = "out") -> Axes:
    """The factors of an operand that broadcasts to ``out``: the output's, and none along an axis of length 1 that is
    stretched."""
    skip = len(out) - len(shape)
    return tuple([(((label, skip + i), n),) if n == out[skip + i] else () for i, n in enumerate(shape)])


def refine(before: tuple[int, ...], after: tuple[int, ...]) -> Alignment:
    """Row-major axes before and after a reshape as products of common factors; what has none in common is mixed.

    (6, 4) -> (2, 3, 4) splits the 6 into factors 2 and 3; (4, 6) -> (6, 4) has no common refinement, and mixes.
    """
    if 0 in before or 0 in after:
        return labelled("out", after), (labelled("x", before),)
    ins: list[list[Factor]] = [[] for _ in before]
    outs: list[list[Factor]] = [[] for _ in after]
    i, j = len(before), len(after)
    while i > 0 or j > 0:
        # the shortest group of axes, from the right, with equal products on both sides
        start_i, start_j, left, right = i, j, 1, 1
        while start_i == i and start_j == j or left != right:
            if left <= right and start_i > 0:
                start_i -= 1
                left *= before[start_i]
            elif start_j > 0:
                start_j -= 1
                right *= after[start_j]
            else:
                start_i -= 1
                left *= before[start_i]
        cuts_in, cuts_out = _cuts(before[start_i:i]), _cuts(after[start_j:j])
        cuts = sorted(set(cuts_in) | set(cuts_out))
        if all(b % a == 0 for a, b in zip(cuts, cuts[1:], strict=False)):
            for low, high in zip(cuts, cuts[1:], strict=False):
                factor = (((i, j), low), high // low)
                _insert(factor, low, before, start_i, i, ins)
                _insert(factor, low, after, start_j, j, outs)
        else:
            for axes, shape, start, stop, side in ((ins, before, start_i, i, "x"), (outs, after, start_j, j, "out")):
                for axis in range(start, stop):
                    axes[axis].append(((side, axis), shape[axis]))
        i, j = start_i, start_j
    return tuple(map(tuple, outs)), (tuple(map(tuple, ins)),)


def _cuts(shape: tuple[int, ...]) -> list[int]:
    """The strides at which axes begin and end, counted in elements from the right: 1, n_last, n_last * n_before, ..."""
    return [math.prod(shape[k:]) for k in range(len(shape), -1, -1)]


def _insert(factor: Factor, low: int, shape: tuple[int, ...], start: int, stop: int, axes: list[list[Factor]]) -> None:
    stride = 1
    for axis in range(stop - 1, start - 1, -1):
        if stride <= low < stride * shape[axis]:
            axes[axis].insert(0, factor)
            return
        stride *= shape[axis]


def moved(axis: int | tuple[int, ...], ndim: int) -> int | tuple[int, ...]:
    """``axis`` of an array of ``ndim`` axes, once a replicate axis stands before them."""
    return axis % ndim + 1 if isinstance(axis, int) else tuple([a % ndim + 1 for a in axis])


def padded(x: Operand, ndim: int) -> Operand:
    """A batched operand with ones between its replicate axis and its own, so that it broadcasts as it did among
    ``ndim`` axes."""
    missing = ndim - (x.ndim - 1)
    return x.reshape(x.shape[:1] + (1,) * missing + x.shape[1:]) if missing > 0 else x


def broadcast_lead(operands: Operands, batched: Sequence[bool], core: Sequence[int] | None = None) -> Operands:
    """Operands padded so that their leading axes still broadcast once some have a replicate axis; ``core`` axes each
    stay last."""
    core = core or [0] * len(operands)
    ranks = [getattr(x, "ndim", 0) - b - c for x, b, c in zip(operands, batched, core, strict=True)]
    most = max(ranks)
    return tuple([padded(x, most + c) if b else x for x, b, c in zip(operands, batched, core, strict=True)])


def led_all(operands: Operands, batched: Sequence[bool], size: int, spread: bool = False) -> Operands:
    """Operands that all have a leading axis: of ``size`` where ``spread``, else of 1 where they had none."""
    led = []
    for x, b in zip(operands, batched, strict=True):
        x = x if b else np.reshape(x, (1, *x.shape))
        led.append(np.broadcast_to(x, (size, *x.shape[1:])) if spread and not b else x)
    return tuple(led)
