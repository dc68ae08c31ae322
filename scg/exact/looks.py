"""What a lattice does not see along lines of a continuous sample: parts of a cost, densities, and the nodes on the
way to them, by many more points, and close to places where nodes turn or change their sign. What is narrow, as
exp(-((z - .7) / w)^2), has such a place however small w is, and at a node that no factor zero hides."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from scg.core.aliases import Result
from scg.core.ancestry import ancestors
from scg.core.node import Node
from scg.elimination.direct import direct
from scg.elimination.structure import Structure
from scg.errors import here
from scg.exact.leaf import ConvergenceError

SEEN = 1e-6  # of the integral along a line, by which a finer lattice may differ
_MOST, _ALL = 24, 4096  # places along one line where nodes turn; of all brackets of a node and a block of rows
_SECTIONS, _ROUNDS = 16, 6  # of a bracket, at each step towards the place in it
# points around such a place, in steps of a line, on both sides; the four farthest, the cubic through these, and widths
_HALVES = 2.0 ** -np.arange(28)
AROUND = np.concatenate([-_HALVES, [0.0], _HALVES[::-1]])
_FAR = np.array([0, 1, -2, -1])
_CUBIC = np.stack(
    [np.prod([(AROUND - b) / (a - b) for b in AROUND[_FAR] if b != a], axis=0) for a in AROUND[_FAR]], axis=1
)
_WIDTHS = np.gradient(AROUND)
_BEND = 4.0  # of the logarithm of a product of factors over one step of a lattice
_COUNTS = 40.0  # by how much it may be below the largest

Held = dict[Node, np.ndarray]  # values of all draws


class Looked(NamedTuple):
    """A part of the cost, or the logarithm of a density, or a node ``inside`` of these, and the elements that each of
    its elements depends on."""

    node: Node
    scopes: np.ndarray
    is_log: bool
    inside: bool

    def along(self, mine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The entries that move along the lines of the elements ``mine``, and with which of these."""
        moves = np.append(mine, False)[self.scopes]
        chosen = np.flatnonzero(np.sum(moves, axis=1) == 1)
        return chosen, np.max(np.where(moves, self.scopes, -1), axis=1, initial=-1)[chosen]

    def add(
        self, total: np.ndarray, f: np.ndarray, mine: np.ndarray, density: np.ndarray, on_lattice: np.ndarray
    ) -> None:
        """Add rows of lines to ``total``: integrals by all points, by those of the lattice, of the sizes, the largest
        size; of f and perhaps f^2."""
        chosen, owner = self.along(mine)
        f, weight = f[:, chosen].astype(float), density[:, owner]
        f = np.exp(f) if self.is_log else f
        for k in range(total.shape[1]):
            part = np.where(weight > 0, f ** (k + 1) * weight, 0)
            total[0, k, chosen] += np.sum(part, axis=0)
            total[1, k, chosen] += np.sum(part[on_lattice], axis=0)
            total[2, k, chosen] += np.sum(np.abs(part), axis=0)
            total[3, k, chosen] = np.maximum(total[3, k, chosen], np.max(np.abs(part), axis=0, initial=0))

    def refuse_more(self, total: np.ndarray, finer: int, tolerance: float) -> None:
        """Raise ConvergenceError where the points of a lattice, one of so many, do not see what all see."""
        fine, coarse, sizes, most = total
        with np.errstate(all="ignore"):
            off = np.abs(fine - finer * coarse)
            near = off <= tolerance * sizes + 1e-13 * most
        if not (near | self.inside & ~np.isfinite(off)).all():
            self.refuse()

    def refuse_narrow(
        self, total: np.ndarray, f: np.ndarray, mine: np.ndarray, density: np.ndarray, tolerance: float
    ) -> None:
        """Raise ConvergenceError where there is more around some places, at steps of ``AROUND``, than the cubic shows
        through the four points farthest away: f is (places, points, entries)."""
        chosen, owner = self.along(mine)
        if not len(chosen):
            return
        with np.errstate(all="ignore"):
            f, weight = f[:, :, chosen], density[:, :, owner]
            f = np.exp(f) if self.is_log else f
            rest = np.abs(f - np.einsum("kn,pne->pke", _CUBIC, f[:, _FAR])) * weight
            more = np.einsum("k,pke->pe", _WIDTHS, np.where(weight > 0, rest, 0))
            sizes = total[2, 0, chosen]
            near = more <= tolerance * sizes + 1e-13 * total[3, 0, chosen]
        if not (near | self.inside & ~np.isfinite(more)).all():
            self.refuse()

    def refuse(self) -> None:
        """Raise ConvergenceError."""
        raise ConvergenceError(
            f"along a continuous sample there is more in {self.node!r}, at {self.node.line}, than the points of a"
            f" lattice see: it is narrow or not smooth there; sample it ({here()})"
        )


class Around:
    """Where nodes along lines turn or change their sign: the first ``_MOST`` of each element."""

    def __init__(self, looked: list[Looked], mine: np.ndarray):
        self.along = [part.along(mine) for part in looked]
        self.size = len(mine)
        self.found: dict[int, dict[float, tuple[float, float, int, int, bool]]] = {}
        self.last: tuple[list[np.ndarray], np.ndarray] | None = None

    def add(self, found: list[Result], x: np.ndarray) -> None:
        """Look at further rows of all nodes, at the places ``x``, (rows, elements)."""
        now = [np.reshape(f, (len(x), -1))[:, chosen] for f, (chosen, _) in zip(found, self.along, strict=True)]
        if self.last is not None:
            now = [np.concatenate([a, b]) for a, b in zip(self.last[0], now, strict=True)]
            x = np.concatenate([self.last[1], x])
        self.last = [f[-2:] for f in now], x[-2:]
        for k, (f, (chosen, owner)) in enumerate(zip(now, self.along, strict=True)):
            eps = float(np.finfo(f.dtype).eps) if f.dtype.kind == "f" else 0.0
            d = np.diff(f.astype(float), axis=0)
            d = np.where(np.abs(d) > 256 * eps * np.abs(f[1:]), d, 0)  # what is not rounding
            brackets = [(int(i), int(j), True) for i, j in np.argwhere(d[1:] * d[:-1] < 0)[:_ALL]]
            brackets += [(int(i), int(j), False) for i, j in np.argwhere(np.sign(f[1:]) * np.sign(f[:-1]) < 0)[:_ALL]]
            for i, j, turns in brackets:
                e = int(owner[j])
                places, low = self.found.setdefault(e, {}), float(x[i, e])
                if low not in places and len(places) < _MOST:
                    places[low] = low, float(x[i + 1 + turns, e]), k, int(chosen[j]), turns

    def closed(self, run: Callable[[np.ndarray], list[np.ndarray]], elsewhere: np.ndarray) -> np.ndarray | None:
        """These places, (places, elements), by sections; ``elsewhere`` where an element has none. None where no
        element has one."""
        count = max(map(len, self.found.values()), default=0)
        if not count:
            return None
        low, high = np.tile(elsewhere, (count, 1)), np.tile(elsewhere, (count, 1))
        each = [(p, e, *b) for e, places in self.found.items() for p, b in enumerate(places.values())]
        p, e, left, right, node, entry, turns = (np.array(column) for column in zip(*each, strict=True))
        low[p, e], high[p, e] = left, right
        part = np.arange(_SECTIONS + 1) / _SECTIONS
        for _ in range(_ROUNDS):
            x = low[:, None] + (high - low)[:, None] * part[:, None]
            found, f = run(x.reshape(-1, self.size)), np.empty((len(p), len(part)))
            for k in np.unique(node):
                f[node == k] = found[k].reshape(*x.shape[:2], -1)[p[node == k], :, entry[node == k]]
            is_low = np.maximum(f[:, 0], f[:, -1]) > f[:, _SECTIONS // 2]
            lowest = np.clip(np.argmin(np.where(is_low[:, None], f, -f), axis=1), 1, _SECTIONS - 1)
            other = np.argmax(np.sign(f) != np.sign(f[:, :1]), axis=1)  # 0 where rounding hides it
            start = np.where(turns, lowest - 1, np.maximum(other - 1, 0))
            stop = np.where(turns, lowest + 1, np.where(other > 0, other, _SECTIONS))
            low[p, e], high[p, e] = x[p, start, e], x[p, stop, e]
        return 0.5 * (low + high)


def parts_of(structure: Structure) -> list[Looked]:
    """The terms of a structure, then the logarithms of the densities of all draws."""
    found = [Looked(node, scopes, False, False) for node, scopes in zip(structure.terms, structure.scopes, strict=True)]
    for node, start, above in zip(structure.draws, structure.offsets, structure.parents, strict=False):
        score = node.statics["site"].distribution.log_prob(node)
        first_of = np.arange(start, start + len(above))[:, None]
        if type(score) is Node:
            found.append(Looked(score, np.concatenate([first_of, above], axis=1), True, False))
    return found


def scopes_of(parts: list[Looked]) -> np.ndarray:
    """What the entries of all parts depend on, one below the other."""
    width = max([part.scopes.shape[1] for part in parts])
    every = [np.pad(p.scopes, ((0, 0), (width - p.scopes.shape[1], 0)), constant_values=-1) for p in parts]
    return np.concatenate(every)


def lattices_of(structure: Structure) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each element how many points its lattice has, the first one and the step; zeros where it has none."""
    size, first, step = (np.zeros(len(structure.sizes)) for _ in range(3))
    for k, node in enumerate(structure.draws):
        if node.id in structure.lattices:
            own, lattice = slice(structure.offsets[k], structure.offsets[k + 1]), structure.lattices[node.id]
            size[own], first[own], step[own] = len(lattice.points), lattice.points[0], lattice.steps[0]
    return size, first, step


def on_lines(structure: Structure, held: Held, mine: np.ndarray, x: np.ndarray) -> dict[Node, np.ndarray]:
    """Values of all draws, (rows, *shape): of the elements ``mine`` those of ``x``, (rows, elements), else the ones
    that are held."""
    values = {}
    for k, node in enumerate(structure.draws):
        inside = slice(structure.offsets[k], structure.offsets[k + 1])
        full = np.broadcast_to(held[node], (len(x), *node.shape))
        if mine[inside].any():
            moved = np.where(mine[inside], x[:, inside], np.reshape(full, (len(x), -1)))
            full = np.asarray(moved, node.dtype).reshape(full.shape)
        values[node] = full
    return values


def refuse_steep(
    parts: list[Looked], weights: list[np.ndarray], values: list[np.ndarray], mine: np.ndarray, size: np.ndarray
) -> None:
    """Raise ConvergenceError where the lattice of one of the elements ``mine`` is too coarse for the product of all
    factors that it is in, which is what the evidence is a sum of: L, the sum of their logarithms, at the points of the
    lattice (``values`` times ``weights`` of each part), all other elements being held.

    Around a top of L a Gauss function has the width s = h / sqrt(-D), D the second difference of L over one step h, and
    the points see it up to 2 exp(-2 pi^2 / -D). Where D < -4 they may miss it, if L comes close to its largest value:
    by the parabola through three points, whose top may lie far above them. With several elements, of a precision matrix
    P, that of element i is at most 2 exp(-2 pi^2 / (h^2 P_ii)): P_ii = -D / h^2 is one over its *conditional* variance,
    the least one of any combination with it. Parts of L may be as steep as they like, if others make up for it.
    """
    along = [part.along(mine) for part in parts]
    logs = [f[:, chosen] * w[chosen] for f, w, (chosen, _) in zip(values, weights, along, strict=True)]
    owner = np.concatenate([o for _, o in along])
    order = np.argsort(owner, kind="stable")
    elements, starts = np.unique(owner[order], return_index=True)
    with np.errstate(all="ignore"):
        total = np.add.reduceat(np.concatenate(logs, axis=1)[:, order].astype(float), starts, axis=1)
        inside = np.arange(len(total))[:, None] < size[elements]
        total = np.where(inside, total, -np.inf)
        bend = total[2:] - 2 * total[1:-1] + total[:-2]
        slope = 0.5 * (total[2:] - total[:-2])
        top = np.where(np.abs(slope) <= -bend, total[1:-1] - 0.5 * slope**2 / bend, -np.inf)
        largest = np.max(total, axis=0)
        rounding = max([float(np.finfo(f.dtype).eps) for f in values if f.dtype.kind == "f"]) * 64 * np.abs(total[1:-1])
        steep = (bend < -_BEND - rounding) & (top > largest - _COUNTS)
    if steep.any():
        j, e = np.argwhere(steep)[0]
        bends = [
            np.where(o == elements[e], f[j] - 2 * f[j + 1] + f[j + 2], 0) for f, (_, o) in zip(logs, along, strict=True)
        ]
        narrowest = int(np.argmin([np.min(b, initial=0) for b in bends]))
        parts[narrowest].refuse()


def on_the_way(structure: Structure, known: set[int]) -> list[Looked]:
    """The nodes of real numbers between draws and the parts of the cost or the parameters of other draws."""
    starts = {n.id: start for n, start in zip(structure.draws, structure.offsets, strict=False)}
    nodes = [
        n
        for n in ancestors([*structure.terms, *structure.draws])
        if n.id in structure.dependent and n.id not in known and n.id not in starts
        if type(n.raw) is not tuple and n.dtype.kind == "f"
    ]
    found = direct(nodes, starts, structure.alone)
    return [Looked(n, found[n.id], False, True) for n in nodes]
