"""Nested dicts, lists, tuples, named tuples and dataclasses of arrays, taken apart into leaves and put together again."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from scg.errors import ScgValueError, here


def children(tree: Any) -> Iterator[tuple[str, Any]] | None:
    """(path component, child) pairs of a container; None where ``tree`` is a leaf. ``None`` is a container of nothing."""
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


def leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """(path, leaf) pairs from left to right, the path as one would write it: ``['layers'][0].weight``."""
    inner = children(tree)
    if inner is None:
        yield path, tree
    else:
        for name, child in inner:
            yield from leaves(child, path + name)


def leaves_like(tree: Any, other: Any, what: str) -> Iterator[Any]:
    """The leaves of ``other`` in the order of those of ``tree``: dicts are matched by their keys, in whatever order these stand.

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


def rebuild(tree: Any, values: Iterator[Any]) -> Any:
    """The structure of ``tree`` with its leaves replaced, from left to right, by ``values``."""
    if tree is None:
        return None
    if isinstance(tree, Mapping):
        items = {key: rebuild(tree[key], values) for key in tree}
        return items if type(tree) is dict else type(tree)(items)  # type: ignore[call-arg]
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*[rebuild(child, values) for child in tree])
    if isinstance(tree, (list, tuple)):
        return type(tree)([rebuild(child, values) for child in tree])
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        fields = dataclasses.fields(tree)
        new = object.__new__(type(tree))  # not __init__: it may refuse or convert what is no longer an array
        for field in fields:
            object.__setattr__(new, field.name, rebuild(getattr(tree, field.name), values))
        return new
    return next(values)


def map_leaves(fn: Callable[..., Any], tree: Any, *others: Any) -> Any:
    """``fn`` over corresponding leaves of trees of one structure."""
    columns = [leaves_like(tree, t, "a structure") for t in (tree, *others)]
    return rebuild(tree, map(fn, *columns))
