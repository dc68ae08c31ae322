"""Padding, which gathers elements of an array or joins pieces to it."""

import numpy as np

from scg.core.primitive import implements
from scg.errors import NotDifferentiable, here
from scg.primitives.layout import as_array, at

_GATHERS = ("edge", "reflect", "symmetric", "wrap")
_STATISTICS = {"mean": np.mean, "maximum": np.max, "minimum": np.min, "median": np.median}
_OPTIONS = (
    {"constant": ("constant_values", 0), "linear_ramp": ("end_values", 0)}
    | dict.fromkeys(_STATISTICS, ("stat_length", None))
    | dict.fromkeys(("reflect", "symmetric"), ("reflect_type", "even"))
)


@implements(np.pad)
def pad(array, pad_width, mode="constant", **options):
    """np.pad, one axis after another: a gather, a constant (which may be a Node), a ramp, or a statistic of what lies
    at the edge."""
    if callable(mode) or mode == "empty":
        raise NotDifferentiable(f"np.pad of a Node with mode={mode!r}: use another mode, or np.concatenate ({here()})")
    if mode not in _OPTIONS and mode not in _GATHERS:
        raise ValueError(f"mode {mode!r} is not supported")
    name, option = _OPTIONS.get(mode, ("", None))
    if set(options) - {name}:
        raise ValueError(f"unsupported keyword arguments for mode {mode!r}: {set(options)}")
    option = options.get(name, option)
    widths = np.zeros((array.ndim, 2), int)
    for axis, width in pad_width.items() if isinstance(pad_width, dict) else [(..., pad_width)]:
        if np.asarray(width).dtype.kind not in "iu" or np.min(width, initial=0) < 0:
            raise ValueError(f"pad_width needs non-negative integers, got {pad_width!r}")
        widths[axis] = width
    for axis, (before, after) in enumerate(widths.tolist()):
        if mode in _GATHERS:
            array = _pad_by_gather(array, axis, before, after, mode, option) if before or after else array
        else:
            ends = [None, None] if option is None else np.broadcast_to(as_array(option), widths.shape)[axis]
            parts = [array]
            if before:
                parts.insert(0, _PIECES[mode](array, axis, before, ends[0], 0))
            if after:
                parts.append(_PIECES[mode](array, axis, after, ends[1], 1))
            array = np.concatenate([x.astype(array.dtype) for x in parts], axis) if len(parts) > 1 else array
    return array


def _pad_by_gather(x, axis, before, after, mode, reflect_type):
    if reflect_type == "odd":  # linear in x, but no gather: as a matrix
        matrix = np.pad(np.eye(x.shape[axis], dtype=x.dtype), ((before, after), (0, 0)), mode, reflect_type="odd")
        return np.moveaxis(np.tensordot(matrix, x, (1, axis)), 0, axis)
    return np.take(x, np.pad(np.arange(x.shape[axis]), (before, after), mode), axis)


def _constant_piece(x, axis, width, end, side):
    return np.broadcast_to(end, (*x.shape[:axis], width, *x.shape[axis + 1 :]))


def _ramp_piece(x, axis, width, end, side):
    edge = x[at(axis, slice(-1, None) if side else slice(1))]
    share = (np.arange(width) / width).astype(x.dtype)[:: -1 if side else 1].reshape(-1, *(1,) * (x.ndim - 1 - axis))
    return end + (edge - end) * share


def _statistic_piece(statistic):
    def piece(x, axis, width, end, side):
        n = x.shape[axis]
        length = n if end is None else min(int(end), n)
        edge = x[at(axis, slice(n - length, n) if side else slice(length))]
        return _constant_piece(x, axis, width, statistic(edge, axis=axis, keepdims=True), side)

    return piece


_PIECES = {"constant": _constant_piece, "linear_ramp": _ramp_piece} | {
    name: _statistic_piece(f) for name, f in _STATISTICS.items()
}
