"""Joining, splitting and repeating arrays."""

import itertools
import operator

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from scg.core import axes
from scg.core.primitive import implements, primitive
from scg.primitives.layout import as_array, at, at_least, reshape_p


def _part(g, i, out, *xs, axis):
    start = sum(x.shape[axis] for x in xs[:i])
    return g[(slice(None),) * axis + (slice(start, start + xs[i].shape[axis]),)]


def _parts(g, out, *xs, axis):
    """The part of ``g`` that belongs to each operand: slices between the running sums of lengths, in one pass."""
    cuts, whole = itertools.accumulate([x.shape[axis] for x in xs], initial=0), (slice(None),) * axis
    return [g[(*whole, slice(start, stop))] for start, stop in itertools.pairwise(cuts)]


concatenate_p = primitive(
    lambda *xs, axis: np.concatenate(xs, axis),
    axes.concatenate,
    every=_part,
    together=_parts,
    name="concatenate",
    linear="together",
    moves=True,
    into=lambda *xs, axis: lambda *x: np.concatenate(x[:-1], axis, out=x[-1]),
)


@implements(np.concatenate)
def concatenate(arrays, /, axis=0, *, dtype=None, casting="same_kind"):
    arrays = [as_array(x) for x in arrays]
    if axis is None:
        arrays, axis = [np.ravel(x) for x in arrays], 0
    if arrays[0].ndim == 0:
        raise ValueError("zero-dimensional arrays cannot be concatenated")
    if dtype is not None:
        if not all(np.can_cast(x.dtype, dtype, casting) for x in arrays):
            raise TypeError(f"Cannot cast to {np.dtype(dtype)} according to the rule {casting!r}")
        arrays = [x.astype(dtype) for x in arrays]
    return concatenate_p(*arrays, axis=normalize_axis_index(axis, arrays[0].ndim))


@implements(np.stack)
def stack(arrays, axis=0, *, dtype=None, casting="same_kind"):
    arrays = [as_array(x) for x in arrays]
    if len({x.shape for x in arrays}) > 1:
        raise ValueError(f"all input arrays must have the same shape, got {[x.shape for x in arrays]}")
    axis = normalize_axis_index(axis, arrays[0].ndim + 1)
    return concatenate(
        [reshape_p(x, shape=(*x.shape[:axis], 1, *x.shape[axis:])) for x in arrays], axis, dtype=dtype, casting=casting
    )


@implements(np.vstack)
def vstack(tup, *, dtype=None, casting="same_kind"):
    return concatenate([at_least(2, x) for x in tup], 0, dtype=dtype, casting=casting)


@implements(np.hstack)
def hstack(tup, *, dtype=None, casting="same_kind"):
    arrays = [at_least(1, x) for x in tup]
    return concatenate(arrays, 0 if arrays[0].ndim == 1 else 1, dtype=dtype, casting=casting)


@implements(np.dstack)
def dstack(tup):
    return concatenate([at_least(3, x) for x in tup], 2)


@implements(np.column_stack)
def column_stack(tup):
    return concatenate([np.reshape(x, (-1, 1)) if x.ndim < 2 else x for x in map(as_array, tup)], 1)


@implements(np.block)
def block(arrays):
    def depth_and_rank(tree):
        if not isinstance(tree, list):
            return 0, np.ndim(tree)
        if not tree:
            raise ValueError("np.block: a list is empty")
        below = [depth_and_rank(child) for child in tree]
        if len({depth for depth, _ in below}) > 1:
            raise ValueError("np.block: the lists are not nested to one depth")
        return 1 + below[0][0], max(rank for _, rank in below)

    def joined(tree, level):
        if not isinstance(tree, list):
            x = as_array(tree)
            return np.expand_dims(x, tuple(range(ndim - x.ndim)))
        return np.concatenate([joined(child, level - 1) for child in tree], axis=-level)

    depth, rank = depth_and_rank(arrays)
    ndim = max(depth, rank)
    return joined(arrays, depth)


@implements(np.append)
def append(arr, values, axis=None):
    if axis is None:
        return concatenate([np.ravel(as_array(arr)), np.ravel(as_array(values))])
    return concatenate([arr, values], axis)


@implements(np.array_split)
def array_split(ary, indices_or_sections, axis=0):
    axis = normalize_axis_index(axis, ary.ndim)
    n = ary.shape[axis]
    if np.iterable(indices_or_sections):
        cuts = [0, *map(operator.index, indices_or_sections), n]
    else:
        sections = operator.index(indices_or_sections)
        if sections <= 0:
            raise ValueError("number sections must be larger than 0.")
        each, more = divmod(n, sections)
        cuts = [0, *itertools.accumulate([each + 1] * more + [each] * (sections - more))]
    return [ary[at(axis, slice(start, stop))] for start, stop in itertools.pairwise(cuts)]


@implements(np.split)
def split(ary, indices_or_sections, axis=0):
    if not np.iterable(indices_or_sections) and ary.shape[axis] % indices_or_sections:
        raise ValueError("array split does not result in an equal division")
    return array_split(ary, indices_or_sections, axis)


def _split_along(name, axis, least):
    def implementation(ary, indices_or_sections):
        if ary.ndim < least:
            raise ValueError(f"{name} only works on arrays of {least} or more dimensions")
        return split(ary, indices_or_sections, min(axis, ary.ndim - 1))

    return implementation


for _fn, _axis, _least in ((np.hsplit, 1, 1), (np.vsplit, 0, 2), (np.dsplit, 2, 3)):
    implements(_fn)(_split_along(_fn.__name__, _axis, _least))


@implements(getattr(np, "unstack", None))
def unstack(x, /, *, axis=0):
    if x.ndim == 0:
        raise ValueError("Input array must be at least 1-d.")
    axis = normalize_axis_index(axis, x.ndim)
    return tuple([x[at(axis, i)] for i in range(x.shape[axis])])


@implements(np.tile)
def tile(A, reps):
    reps = tuple(map(operator.index, reps)) if np.iterable(reps) else (operator.index(reps),)
    A = np.expand_dims(A, tuple(range(len(reps) - A.ndim))) if len(reps) > A.ndim else A
    reps = (1,) * (A.ndim - len(reps)) + reps
    pairs = list(zip(reps, A.shape, strict=True))
    apart = np.reshape(A, tuple([m for _, n in pairs for m in (1, n)]))
    return np.reshape(
        np.broadcast_to(apart, tuple([m for pair in pairs for m in pair])), tuple([r * n for r, n in pairs])
    )


@implements(np.repeat)
def repeat(a, repeats, axis=None):
    if axis is None:
        a, axis = np.ravel(a), 0
    axis = normalize_axis_index(axis, a.ndim)
    n = a.shape[axis]
    counts = np.asarray(repeats)
    if counts.size != 1:
        return np.take(a, np.repeat(np.arange(n), counts), axis)
    times = operator.index(counts.reshape(())[()])
    before, after = a.shape[:axis], a.shape[axis + 1 :]
    spread = np.broadcast_to(np.reshape(a, (*before, n, 1, *after)), (*before, n, times, *after))
    return np.reshape(spread, (*before, n * times, *after))
