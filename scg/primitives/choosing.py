"""Choices among arrays by a condition, an index, by masks, or by masks and functions."""

import functools

import numpy as np

from scg.core.ambient import settled
from scg.core.ancestry import ancestors
from scg.core.axes import elementwise
from scg.core.node import Node
from scg.core.primitive import implements, primitive
from scg.primitives.indexing import choose_size, getitem, true_axes
from scg.primitives.layout import as_array


def _choose(condition, x, y, out):
    """np.where into an array that may be one of the operands."""
    if np.may_share_memory(condition, out):
        condition = condition.copy()
    if np.may_share_memory(x, out):
        np.copyto(out, x)
        np.copyto(out, y, where=~condition, casting="unsafe")
    else:
        np.copyto(out, y, casting="unsafe")
        np.copyto(out, x, where=condition, casting="unsafe")


# products with the mask, not np.where: ten times faster, and the zeros absorb
where_p = primitive(
    lambda c, x, y: np.where(c, x, y),
    elementwise,
    None,
    lambda g, out, c, x, y: g * c,
    lambda g, out, c, x, y: g * ~c,
    name="where",
    linear=[(1, 2)],
    sign=lambda signs, c, x, y: min(signs[1:]),
    into=lambda c, x, y: _choose,
)


@implements(np.where)
def where(condition, x=None, y=None, /):
    condition = condition if getattr(condition, "dtype", None) == np.bool_ else np.not_equal(condition, 0)
    return np.nonzero(condition) if x is None and y is None else where_p(condition, x, y)


@implements(np.choose)
def choose(a, choices, mode="raise"):
    a, choices = as_array(a), [as_array(c) for c in choices]
    n = len(choices)
    if mode == "raise":
        if not settled(lambda a: np.min(a, initial=0) >= 0 and np.max(a, initial=0) < n, a):
            raise ValueError(f"invalid entry in choice array: np.choose among {n} needs integers from 0 to {n - 1}")
    elif mode in ("wrap", "clip"):
        a = np.remainder(a, n) if mode == "wrap" else np.minimum(np.maximum(a, 0), n - 1)
    else:
        raise ValueError(f"clipmode must be one of 'clip', 'raise', or 'wrap', got {mode!r}")
    result = choices[0]
    for k, choice in enumerate(choices[1:], 1):
        result = np.where(np.equal(a, k), choice, result)
    return np.broadcast_to(result, np.broadcast_shapes(a.shape, result.shape))


@implements(np.select)
def select(condlist, choicelist, default=0):
    if len(condlist) != len(choicelist) or not len(condlist):
        raise ValueError(
            f"np.select needs as many choices as conditions, and at least one; got {len(condlist)} and"
            f" {len(choicelist)}"
        )
    if any(getattr(c, "dtype", np.asarray(c).dtype if type(c) is not Node else None) != np.bool_ for c in condlist):
        raise TypeError("invalid entry in condlist: should be boolean ndarray")
    result = default
    for condition, choice in zip(reversed(condlist), reversed(choicelist), strict=True):
        result = np.where(condition, choice, result)
    return result


@implements(np.piecewise)
def piecewise(x, condlist, funclist, *args, **kw):
    """Each function is called with the elements of its piece, ``x[condition]``, as NumPy calls it, and not where the
    piece is empty."""
    x = as_array(x)
    conditions = (
        list(condlist)
        if not (type(condlist) is Node or isinstance(condlist, np.ndarray)) or condlist.ndim > x.ndim
        else [condlist]
    )
    if len(conditions) and np.ndim(conditions[0]) == 0 and x.ndim:
        conditions = [np.stack([as_array(c) for c in conditions])]
    extra = len(funclist) - len(conditions)
    if extra not in (0, 1):
        raise ValueError(
            f"with {len(conditions)} condition(s), either {len(conditions)} or {len(conditions) + 1} functions are"
            " expected"
        )
    conditions = [np.broadcast_to(as_array(c), x.shape).astype(bool) for c in conditions]
    functions = list(funclist)
    if extra:  # the last is for what meets no condition
        functions, conditions = (
            [functions[-1], *functions[:-1]],
            [
                np.logical_not(functools.reduce(np.logical_or, conditions)),
                *conditions,
            ],
        )
    result = np.zeros(x.shape, x.dtype)
    for condition, f in zip(conditions, functions, strict=True):
        value = _on_piece(f, x, condition, args, kw) if callable(f) else f
        if value is not None:
            result = np.where(condition, as_array(value).astype(x.dtype), result)
    return as_array(result)


def _on_piece(f, x, condition, args, kw):
    """``f(x[condition])`` where its elements belong; None for an empty piece. Where f goes element by element, f(x) is
    the same there, and serves a replay in which other elements meet the condition."""
    empty = not settled(np.any, condition)
    if not x.ndim or empty:
        everywhere = _element_by_element(f, x, args, kw) if type(condition) is Node else None
        if everywhere is None and bool(np.any(condition)):  # of a node it is an `if`, which a replay looks at again
            return f(x, *args, **kw)
        return everywhere
    chosen = type(condition) is Node
    piece = (
        getitem(x, tuple(true_axes(condition)) if chosen else condition) if type(x) is Node or chosen else x[condition]
    )
    value = as_array(f(piece, *args, **kw))
    if type(piece) is Node and (type(value) is not Node or _is_element_by_element(value, piece)):
        everywhere = _element_by_element(f, x, args, kw)
        if everywhere is not None and settled(
            lambda a, b, c: np.array_equal(
                np.broadcast_to(a, np.shape(c))[c], np.broadcast_to(b, np.sum(c)), equal_nan=True
            ),
            everywhere,
            value,
            condition,
        ):
            return everywhere
    if chosen:  # what is made of the piece has its size
        choose_size(condition)
        value = as_array(f(getitem(x, tuple(true_axes(condition))), *args, **kw))
    if value.shape != piece.shape:
        # what does not fit is refused by np.where, as by NumPy
        return np.reshape(value, (1,) * x.ndim) if value.size == 1 else value
    places = np.cumsum(np.ravel(condition)) - 1
    return np.reshape(
        (
            getitem(value, np.where(np.ravel(condition), places, 0))
            if type(value) is Node
            else value[np.where(np.ravel(condition), places, 0)]
        ),
        x.shape,
    )


def _element_by_element(f, x, args, kw):
    """f(x), where it goes element by element; None where it does not, or fails where it is not asked."""
    try:
        with np.errstate(all="ignore"):  # outside its piece a function may well be undefined
            found = as_array(f(x, *args, **kw))
    except (ValueError, IndexError, ArithmeticError):
        return None
    return (
        found
        if type(found) is not Node and found.ndim == 0 or type(found) is Node and _is_element_by_element(found, x)
        else None
    )


def _is_element_by_element(value, x):
    """Whether only primitives that go element by element lead from x to a value of its shape."""
    return value.shape == x.shape and all([n.primitive.axes is elementwise for n in ancestors([value], x.id + 1)])
