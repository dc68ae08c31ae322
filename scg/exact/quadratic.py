"""The mean and the mean square of a quadratic form of local atoms, by elimination.

    g = c a + a S a / 2,    a_j a function of few variables each

as the gradient by score functions is, a sum of scores times costs that come later. A factor that has absorbed the atoms
I carries, for each value of its scope, E[p w w'] of w = (1, u, g_I): g_I the form of these atoms alone, and u = X' a_I
what the others have to know of them, of which there is as much as S[I, not I] has rank. Two factors are multiplied by

    u = P' (u_I, u_J)        g = g_I + g_J + u_I' H u_J        H = X_I' S[I, J] X_J

with orthonormal X, which is exact. Sums of costs-to-go have rank one: a chain takes time in proportion to its length.
"""

import functools
import heapq
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from scg.elimination.products import TooWide

_RANK = 1e-13  # of the largest entry of S: below it a singular value is rounding


class Table(NamedTuple):
    """A function of the variables in ``scope``, one axis each."""

    scope: tuple[int, ...]
    values: np.ndarray


class _Message(NamedTuple):
    """Moments of w for each value of the scope, (*values, w, w); the atoms that it has absorbed, X (atoms, u), and
    X' S (u, all atoms)."""

    scope: tuple[int, ...]
    moments: np.ndarray
    atoms: np.ndarray
    basis: np.ndarray
    rows: np.ndarray


class Order(NamedTuple):
    """The variables in the order in which they are eliminated; the largest product, and the variables in it."""

    variables: list[int]
    largest: int
    clique: list[int]


def order_of(scopes: Iterable[Sequence[int]], sizes: np.ndarray, budget: int) -> Order:
    """The order in which the variables of factors are eliminated: the smallest product is next.

    Raises TooWide where a product would have more than ``budget`` entries.
    """
    near: dict[int, set[int]] = {}
    for scope in scopes:
        for v in scope:
            near.setdefault(v, set()).update(scope)

    def weight(v: int) -> int:
        return math.prod([int(sizes[u]) for u in near[v]])

    waiting = [(weight(v), v) for v in near]
    heapq.heapify(waiting)
    order, largest, clique = [], 1, list[int]()
    while waiting:
        w, v = heapq.heappop(waiting)
        if v not in near or w != weight(v):  # an entry of another time
            continue
        if w > budget:
            raise TooWide(sorted(near[v]), w)
        if w > largest:
            largest, clique = w, sorted(near[v])
        order.append(v)
        others = near.pop(v) - {v}
        for u in others:
            near[u] = (near[u] | others) - {v}
            heapq.heappush(waiting, (weight(u), u))
    return Order(order, largest, clique)


def moments_of_form(
    chances: Sequence[Table],
    atoms: Sequence[Table],
    c: np.ndarray,
    S: np.ndarray,
    order: Order,
    check_time: Callable[[], None] = lambda: None,
) -> tuple[float, float, float]:
    """(sum p, sum p g, sum p g^2) over all values of all variables, p the product of ``chances``. Before each variable
    ``check_time`` may raise."""
    form, left = _Form(np.asarray(S, float)), _Left()
    done = [form.one]  # what depends on no variable, or on none that is left

    def put(message: _Message) -> None:
        if message.scope:
            left.put(message)
        else:
            done.append(message)

    for table in chances:
        put(_Message(table.scope, table.values[..., None, None], np.zeros(0, int), np.zeros((0, 0)), form.none))
    for j, table in enumerate(atoms):
        put(form.atom(j, table, float(c[j])))
    for v in order.variables:
        check_time()
        inside = left.take(v)
        if inside:
            put(_summed(functools.reduce(form.product, inside), v))
    m = functools.reduce(form.product, done).moments
    return float(m[0, 0]), float(m[0, -1]), float(m[-1, -1])


class _Left:
    """The messages that are left, and by variable those that have it in their scope."""

    def __init__(self) -> None:
        self._messages: dict[int, _Message] = {}
        self._holds: dict[int, set[int]] = {}
        self._count = itertools.count()

    def put(self, message: _Message) -> None:
        """Add one."""
        k = next(self._count)
        self._messages[k] = message
        for v in message.scope:
            self._holds.setdefault(v, set()).add(k)

    def take(self, v: int) -> list[_Message]:
        """Those with a variable, which are gone then; the smallest first."""
        inside = sorted(self._holds.pop(v, ()), key=lambda k: (len(self._messages[k].scope), k))
        for k in inside:
            for u in self._messages[k].scope:
                if u != v:
                    self._holds[u].discard(k)
        return [self._messages.pop(k) for k in inside]


def _summed(message: _Message, v: int) -> _Message:
    """The sum over the values of a variable."""
    axis = message.scope.index(v)
    rest = message.scope[:axis] + message.scope[axis + 1 :]
    return message._replace(scope=rest, moments=np.sum(message.moments, axis=axis))


class _Form:
    def __init__(self, S: np.ndarray):
        self.S, self.count = S, len(S)
        self.least = _RANK * float(np.max(np.abs(S), initial=0)) * max(1, self.count)
        self.none = np.zeros((0, self.count))
        self.one = _Message((), np.diag([1.0, 0.0]), np.zeros(0, int), np.zeros((0, 0)), self.none)

    def atom(self, j: int, table: Table, c: float) -> _Message:
        """An atom: w = (1, a, c a + S_jj a^2 / 2), of which u is there where it meets others."""
        a, row = table.values, self.S[j].copy()
        own, row[j] = row[j], 0.0
        meets = bool(np.any(np.abs(row) > self.least))
        w = np.stack([np.ones_like(a), *([a] if meets else []), c * a + 0.5 * own * a * a], axis=-1)
        basis = np.ones((1, 1)) if meets else np.zeros((1, 0))
        return _Message(
            table.scope, w[..., :, None] * w[..., None, :], np.array([j]), basis, row[None] if meets else self.none
        )

    def product(self, x: _Message, y: _Message) -> _Message:
        """The message of both."""
        scope = tuple(dict.fromkeys(x.scope + y.scope))
        a, b = _spread(x, scope), _spread(y, scope)
        if a.shape[-1] == 1 or b.shape[-1] == 1:  # a probability alone
            kept = y if a.shape[-1] == 1 else x
            return kept._replace(scope=scope, moments=a * b)
        atoms = np.concatenate([x.atoms, y.atoms])
        rx, ry = x.basis.shape[1], y.basis.shape[1]
        meet = x.rows[:, y.atoms] @ y.basis
        both = np.concatenate([x.rows, y.rows])
        both[:, atoms] = 0
        if rx + ry:
            # of few rows and thousands of columns: those of the triangle, in a quarter of the time
            left, singular, _ = np.linalg.svd(np.transpose(np.linalg.qr(both.T, mode="r")), full_matrices=False)
            turn = left[:, singular > self.least]
        else:
            turn = np.zeros((0, 0))
        basis = np.zeros((len(atoms), rx + ry))
        basis[: len(x.atoms), :rx], basis[len(x.atoms) :, rx:] = x.basis, y.basis
        r = turn.shape[1]
        T = np.zeros((r + 2, rx + 2, ry + 2))
        T[0, 0, 0] = T[-1, -1, 0] = T[-1, 0, -1] = 1
        T[-1, 1 : rx + 1, 1 : ry + 1] = meet
        T[1 : r + 1, 1 : rx + 1, 0], T[1 : r + 1, 0, 1 : ry + 1] = turn[:rx].T, turn[rx:].T
        # sum_bcde T_abc T_fde a_bd b_ce
        n, d, e = r + 2, rx + 2, ry + 2
        half = np.swapaxes(a, -1, -2) @ np.swapaxes(T, 0, 1).reshape(d, n * e)  # (..., d, a c)
        half = half.reshape(*half.shape[:-2], d * n, e) @ b  # (..., d a, e)
        half = np.swapaxes(half.reshape(*half.shape[:-2], d, n, e), -3, -2)
        moments = half.reshape(*half.shape[:-3], n, d * e) @ T.reshape(n, d * e).T
        return _Message(scope, moments, atoms, basis @ turn, turn.T @ both)


def _spread(message: _Message, scope: tuple[int, ...]) -> np.ndarray:
    """The moments with the axes of ``scope``, of length one where they do not depend on a variable."""
    own = [v for v in scope if v in message.scope]
    moved = np.transpose(message.moments, [*[message.scope.index(v) for v in own], -2, -1])
    sizes = dict(zip(own, moved.shape, strict=False))
    return moved.reshape([sizes.get(v, 1) for v in scope] + list(moved.shape[-2:]))
