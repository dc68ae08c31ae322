"""Nested dicts, lists, tuples, named tuples and dataclasses of arrays, taken apart into leaves and put together
again."""

import copy
import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, MutableMapping

import numpy as np

from scg.core.aliases import Function, Tree
from scg.errors import ScgTypeError, ScgValueError, here

__all__ = ["children", "flatten", "leaves", "leaves_like", "map_leaves", "rebuild"]


def children(tree: Tree) -> Iterator[tuple[str, Tree]] | None:
    """(path component, child) pairs of a container; None where ``tree`` is a leaf. ``None`` is a container of
    nothing."""
    if tree is None:
        return iter(())
    if isinstance(tree, Mapping):
        return ((f"[{key!r}]", tree[key]) for key in tree)
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return ((f".{name}", value) for name, value in zip(tree._fields, tree, strict=True))
    if isinstance(tree, (list, tuple)):
        return ((f"[{i}]", value) for i, value in enumerate(tree))
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        return ((f".{f.name}", getattr(tree, f.name)) for f in dataclasses.fields(tree))
    return None


def leaves(tree: Tree, path: str = "") -> Iterator[tuple[str, Tree]]:
    """(path, leaf) pairs from left to right, the path as one would write it: ``['layers'][0].weight``."""
    inner = children(tree)
    if inner is None:
        yield path, tree
    else:
        for name, child in inner:
            yield from leaves(child, path + name)


def leaves_like(tree: Tree, other: Tree, what: str) -> Iterator[Tree]:
    """The leaves of ``other`` in the order of those of ``tree``: dicts are matched by their keys, in whatever order
    these stand.

    Raises ScgValueError, which calls it ``what``, where the structure is another.
    """
    inner, theirs = children(tree), children(other)
    if inner is None and theirs is None:
        yield other
        return
    wanted, found = dict(inner or ()), dict(theirs or ())
    if inner is None or theirs is None or wanted.keys() != found.keys():
        needed = "an array" if inner is None else f"a structure of {', '.join(wanted) or 'nothing'}"
        given = type(other).__name__ + (f" of {', '.join(found)}" if found else "")
        raise ScgValueError(f"{what} needs {needed}, got {given}: the structure must be the same ({here()})")
    for name in wanted:
        yield from leaves_like(wanted[name], found[name], what + name)


def rebuild(tree: Tree, values: Iterator[Tree]) -> Tree:
    """The structure of ``tree`` with its leaves replaced, from left to right, by ``values``."""
    if tree is None:
        return None
    if isinstance(tree, Mapping):
        items = {key: rebuild(tree[key], values) for key in tree}
        if type(tree) is dict:
            return items
        if isinstance(tree, MutableMapping):  # a defaultdict's first argument is not its items
            same = copy.copy(tree)
            same.update(items)
            return same
        return type(tree)(items)  # type: ignore[call-arg]
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*[rebuild(child, values) for child in tree])
    if isinstance(tree, (list, tuple)):
        return type(tree)([rebuild(child, values) for child in tree])
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        fields = dataclasses.fields(tree)
        new = object.__new__(type(tree))  # not __init__: it may refuse or convert what is no longer an array
        for field in fields:
            object.__setattr__(new, field.name, rebuild(getattr(tree, field.name), values))
        for name, value in _beside_fields(tree, {field.name for field in fields}):
            object.__setattr__(new, name, value)
        return new
    return next(values)


def map_leaves(fn: Function, tree: Tree, *others: object) -> Tree:
    """``fn`` over corresponding leaves of trees of one structure."""
    columns = [leaves_like(tree, t, "a structure") for t in (tree, *others)]
    return rebuild(tree, map(fn, *columns))


def flatten(tree: Tree) -> tuple[Tree, Callable[[Tree], Tree]]:
    """All leaves in one vector, and the function that puts such a vector back into the structure: unflatten(vector) is
    ``tree``.

    For optimizers of vectors, as SciPy's are. ``vector`` has shape (total number of elements,) and the common dtype of
    the leaves (float64 where there are none); it is a Node where a leaf is one. ``unflatten(vector)`` takes an array or
    a Node, and gives each leaf its shape and dtype; it raises ScgValueError for a vector of another length. Raises
    ScgTypeError where a leaf is not real floating-point.
    """
    found = list(leaves(tree))
    for path, leaf in found:
        if (
            getattr(leaf, "dtype", None) is None
            and not isinstance(leaf, float)
            or np.dtype(getattr(leaf, "dtype", float)).kind != "f"
        ):
            raise ScgTypeError(
                f"flatten needs real floating-point leaves, got {type(leaf).__name__} {leaf!r} at {path or 'the root'}"
                f" ({here()})"
            )
    pieces = [np.ravel(leaf) for _, leaf in found]
    vector = np.concatenate(pieces) if pieces else np.zeros(0)
    shapes, dtypes = (
        [np.shape(leaf) if not hasattr(leaf, "shape") else leaf.shape for _, leaf in found],
        [piece.dtype for piece in pieces],
    )
    ends = list(itertools.accumulate([math.prod(shape) for shape in shapes], initial=0))

    def unflatten(vector: Tree) -> Tree:
        vector = vector if hasattr(vector, "shape") else np.asarray(vector)
        if vector.shape != (ends[-1],):
            raise ScgValueError(f"unflatten needs a vector of shape ({ends[-1]},), got {vector.shape} ({here()})")
        return rebuild(
            tree,
            (
                np.astype(np.reshape(vector[a:b], s), d)
                for a, b, s, d in zip(ends, ends[1:], shapes, dtypes, strict=False)
            ),
        )

    return vector, unflatten


def _beside_fields(tree: Tree, fields: set[str]) -> Iterator[tuple[str, Tree]]:
    """Attributes of a dataclass that are no fields, such as ``__post_init__`` sets. An array there may be made of the
    leaves, and would be stale."""
    for name, value in getattr(tree, "__dict__", {}).items():
        # computed anew when it is read
        if name in fields or isinstance(getattr(type(tree), name, None), functools.cached_property):
            continue
        if isinstance(value, (np.ndarray, np.generic)) or hasattr(value, "operands"):
            raise ScgTypeError(
                f"{type(tree).__name__}.{name} is an array beside the dataclass's fields, which a copy with other"
                f" leaves would hold unchanged: make it a field, or a property that computes it ({here()})"
            )
        yield name, value
