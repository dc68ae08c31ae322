"""Sets of numbers, those of samples, of which many nodes have nearly the same.

A set of numbers under ``BLOCK`` is an integer: its bit k is set where k is a member. Another one is a tuple (span, low,
high): ``low`` has the members under the span, ``high`` the others less the span, and the span is BLOCK times a power of
two, the largest that a member reaches. With BLOCK = 512, {1, 700} is (512, 0b10, 1 << 188).

The node of step t of a walk depends on samples 0 to t. Written as bits alone, these sets would take n^2 of them. Here a
set shares with those that it is made of all parts in which it agrees with them: the set of step t has log2(t / BLOCK)
new tuples, and an operation does not look into a part that its operands share.
"""

from typing import Any

BLOCK = 512

Set = Any
"""An int, or a tuple (int, Set, Set)."""


def single(k: int) -> Set:
    """{k}."""
    if k < BLOCK:
        return 1 << k
    span = BLOCK << ((k // BLOCK).bit_length() - 1)
    return span, 0, single(k - span)


def union(a: Set, b: Set) -> Set:
    """Members of ``a`` or ``b``: ``a`` itself, or ``b``, where that has all."""
    if a is b or not b:
        return a
    if not a:
        return b
    if type(a) is int and type(b) is int:
        both = a | b
        return a if both == a else b if both == b else both
    if _span(a) < _span(b):
        a, b = b, a
    span, low, high = a
    if _span(b) < span:
        new = union(low, b)
        return a if _same(new, low) else (span, new, high)
    new, above = union(low, b[1]), union(high, b[2])
    if _same(new, low) and _same(above, high):
        return a
    return b if _same(new, b[1]) and _same(above, b[2]) else (span, new, above)


def common(a: Set, b: Set) -> Set:
    """Members of both: ``a`` itself, or ``b``, where all of its members are."""
    if a is b:
        return a
    if not a or not b:
        return 0
    if type(a) is int and type(b) is int:
        both = a & b
        return a if both == a else b if both == b else both
    if _span(a) < _span(b):
        a, b = b, a
    span, low, high = a
    if _span(b) < span:
        return common(low, b)
    new, above = common(low, b[1]), common(high, b[2])
    if _same(new, low) and _same(above, high):
        return a
    if _same(new, b[1]) and _same(above, b[2]):
        return b
    return (span, new, above) if above else new


def without(a: Set, b: Set) -> Set:
    """Members of ``a`` that are not in ``b``: ``a`` itself, where none is."""
    if not b:
        return a
    if a is b or not a:
        return 0
    if type(a) is int and type(b) is int:
        left = a & ~b
        return a if left == a else left
    if _span(a) < _span(b):
        return without(a, b[1])
    span, low, high = a
    if _span(b) < span:
        new, above = without(low, b), high
    else:
        new, above = without(low, b[1]), without(high, b[2])
    if _same(new, low) and _same(above, high):
        return a
    return (span, new, above) if above else new


def _same(a: Set, b: Set) -> bool:
    """Whether two sets are one object, or blocks with the same members."""
    return a is b or type(a) is int and type(b) is int and a == b


def meet(a: Set, b: Set) -> bool:
    """Whether two sets have a member in common."""
    if a is b or not a or not b:
        return bool(a) and bool(b)
    if type(a) is int and type(b) is int:
        return a & b != 0
    if _span(a) < _span(b):
        a, b = b, a
    return meet(a[1], b) if _span(b) < a[0] else meet(a[2], b[2]) or meet(a[1], b[1])


def members(a: Set) -> list[int]:
    """The members, in rising order."""
    found = []
    stack = [(a, 0)]
    while stack:
        part, start = stack.pop()
        if type(part) is int:
            while part:
                lowest = part & -part
                found.append(start + lowest.bit_length() - 1)
                part ^= lowest
        else:
            span, low, high = part
            stack += [(high, start + span), (low, start)]
    return found


def first(a: Set) -> int:
    """The least member of a set that has some."""
    start = 0
    while type(a) is not int:
        span, low, high = a
        a, start = (low, start) if low else (high, start + span)
    return start + (a & -a).bit_length() - 1


def last(a: Set) -> int:
    """The greatest member of a set that has some."""
    start = 0
    while type(a) is not int:
        a, start = a[2], start + a[0]
    return start + a.bit_length() - 1


def _span(a: Set) -> int:
    return 0 if type(a) is int else a[0]
