"""At which values of finite samples the lines of continuous samples are looked at.

What multiplies a function of z may be zero at most values of coins, as b_1 (1 - b_2) b_3 is, and hide how narrow it is.
So a line runs once for all combinations of the coins that meet there, where these are few. Elements have *colours*: two
that meet on one line differ, and combinations are those of colours, however many elements there are.
"""

import itertools
import math
from typing import NamedTuple

import numpy as np

from scg.core.backward import pull
from scg.core.leaves import parameter
from scg.core.node import Node
from scg.core.replay import replay
from scg.errors import ScgError

_MOST = 2**20  # combinations that a number of rows is compared with
_ENTRIES = 256  # of a node that are looked at
_PATTERNS = 16  # of gates, of which each has a row


def combinations(sizes: np.ndarray, meets: list[set[int]], most: int) -> np.ndarray:
    """Values of finite elements, (rows, elements) positions among those of each, in at most ``most`` rows.

    ``sizes`` has how many values each element has, ``meets`` for each line the elements that meet there. Where the
    combinations of the colours are more, coin j of row r is the parity of r & c_j, an orthogonal array (Rao, 1947):
    codes c_j are odd numbers of bits first, of which any three coins have all combinations; a first and a last row have
    the first and the last value of all.
    """
    colours = _coloured(len(sizes), meets)
    each = [int(np.max(sizes[colours == c], initial=1)) for c in range(int(np.max(colours, initial=-1)) + 1)]
    if sum(map(math.log2, each)) <= math.log2(_MOST) and math.prod(each) <= most:
        rows = np.array(list(itertools.product(*[range(n) for n in each])), int).reshape(math.prod(each), len(each))
        return np.minimum(rows[:, colours], sizes - 1)
    bits = max(1, int(math.log2(most)) - (2 ** int(math.log2(most)) > most - 2))
    codes = np.arange(1, 2**bits)
    codes = codes[np.lexsort([codes, np.bitwise_count(codes) % 2 == 0])]
    row = np.arange(2**bits)[:, None]
    coins = np.bitwise_count(row & codes[colours % len(codes)]) & 1
    drawn = np.random.default_rng(0).integers(sizes, size=(2**bits, len(sizes)))
    rows = np.where(sizes == 2, coins, drawn)
    return np.concatenate([np.zeros((1, len(sizes)), int), rows, sizes[None] - 1])


class Meeting(NamedTuple):
    """A node, and which finite elements each of its entries depends on, (entries, elements); whether an entry depends
    on a continuous element, (entries,)."""

    node: Node
    finite: np.ndarray
    continuous: np.ndarray


def telling(meetings: list[Meeting], terms: list[Node], held: dict[Node, np.ndarray], most: int) -> np.ndarray:
    """Which rows of ``held``, values of all draws with rows in front, are worth a line each: at most so many numbers.

    For each entry of a node on a line: rows where the cost has a derivative by it, so that nothing downstream hides it,
    one for each combination of values of the *gates* upstream of it, nodes that finite samples alone decide. Behind
    gates that multiply, b_1 (1 - b_2) b_3 f(z), rows differ in the product alone, and of two rows one has it. Rows are
    chosen that serve most entries that are not served yet; what is open anywhere comes first.
    """
    mixed = [m for m in meetings if m.continuous.any() and m.node.dtype.kind == "f"]
    alone = {m.node.id: m for m in meetings if not m.continuous.any() and m.finite.any()}
    rows = len(next(iter(held.values())))
    open_at = _open(mixed, terms, held, rows)
    behind: dict[int, set[int]] = {}
    for m in meetings:
        inner = [o.id for o in m.node.operands if type(o) is Node]
        if m.continuous.any():
            behind[m.node.id] = {i for i in inner if i in alone}.union(*[behind.get(i, set()) for i in inner])
    used = sorted(set().union(*behind.values()))
    with np.errstate(all="ignore"):
        values = dict(zip(used, replay([alone[i].node for i in used], held, list(held)), strict=True)) if used else {}
    numbers = {i: _numbered(np.reshape(v, (rows, -1))) for i, v in values.items()}
    first, then = {}, {}
    for m in mixed:
        gates = sorted(behind[m.node.id])
        for j in np.flatnonzero(m.continuous)[:_ENTRIES]:
            opened = open_at[m.node.id][:, j]
            first[opened.tobytes()] = np.where(opened, 0, -1)
            columns = [numbers[i][:, ~(alone[i].finite & ~m.finite[j]).any(axis=1)] for i in gates]
            for ids in _patterns(np.concatenate([np.zeros((rows, 0), int), *columns], axis=1), opened):
                then[ids.tobytes()] = ids
    chosen = _serving([], list(first.values()), most)
    return np.array(_serving(chosen, list(then.values()), most), int)


def _open(mixed: list[Meeting], terms: list[Node], held: dict[Node, np.ndarray], rows: int) -> dict[int, np.ndarray]:
    """Whether the terms have a derivative by each entry of some nodes in each row, (rows, entries); also where it is
    not known."""
    every = {m.node.id: np.ones((rows, m.node.size), bool) for m in mixed}
    numbers = {n: parameter(v) if v.dtype.kind == "f" else v for n, v in held.items()}
    try:
        with np.errstate(all="ignore"):
            found = replay([*terms, *[m.node for m in mixed]], numbers, list(held), create_graph=True)
            ends, nodes = found[: len(terms)], found[len(terms) :]
            kept = [k for k, n in enumerate(nodes) if type(n) is Node]
            seeds = np.random.default_rng(0)
            roots = [n for n in ends if type(n) is Node and n.dtype.kind == "f"]
            slopes = pull(roots, [seeds.normal(size=n.shape).astype(n.dtype) for n in roots], [nodes[k] for k in kept])
    except ScgError:
        return every
    for k, slope in zip(kept, slopes, strict=True):
        every[mixed[k].node.id] = np.reshape(slope != 0, (rows, -1))
    return every


def _numbered(values: np.ndarray) -> np.ndarray:
    """In each column the number of a value among those of the column."""
    columns = [np.unique(column, return_inverse=True)[1] for column in values.T]
    return np.stack(columns, axis=1) if columns else np.zeros(values.shape, int)


def _patterns(columns: np.ndarray, opened: np.ndarray) -> list[np.ndarray]:
    """The number of each row's pattern, -1 where it is not open; where there are many patterns, of each column alone
    its first and last value."""
    ids = np.zeros(len(columns), int)
    for column in columns.T:
        ids = np.unique(ids * (int(column.max()) + 1) + column, return_inverse=True)[1]
    ids = np.where(opened, ids, -1)
    if len(np.unique(ids)) <= _PATTERNS:
        return [ids]
    found = []
    for column in columns.T:
        ends = np.where(column == column[opened].min(), 0, np.where(column == column[opened].max(), 1, -1))
        found.append(np.where(opened, ends, -1))
    return found


def _serving(chosen: list[int], items: list[np.ndarray], most: int) -> list[int]:
    """The rows that are chosen, and further ones: in turn the one that has most of what no other has."""
    if not items:
        return chosen
    ids = np.stack(items)  # (items, rows)
    left = np.zeros((len(ids), int(ids.max(initial=0)) + 2), bool)
    np.put_along_axis(left, ids, True, axis=1)
    left[:, -1] = False
    np.put_along_axis(left, ids[:, chosen], False, axis=1)
    while len(chosen) < most:
        gains = np.sum(np.take_along_axis(left, ids, axis=1), axis=0)
        row = int(np.argmax(gains))
        if not gains[row]:
            break
        chosen = [*chosen, row]
        np.put_along_axis(left, ids[:, row : row + 1], False, axis=1)
    return chosen


def _coloured(count: int, meets: list[set[int]]) -> np.ndarray:
    near: dict[int, set[int]] = {}
    for group in set(map(frozenset, meets)):
        for element in group:
            near.setdefault(element, set()).update(group)
    colours = np.zeros(count, int)
    for element in sorted(near):
        taken = {int(colours[other]) for other in near[element] if other < element}
        colours[element] = next(c for c in itertools.count() if c not in taken)
    return colours
