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
from scg.exact.gates import Meeting
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


class Looked(NamedTuple):
    """A part of the cost, or the logarithm of a density, or a node ``inside`` of these, and the elements that each of
    its elements depends on."""

    node: Node
    scopes: np.ndarray
    is_log: bool
    inside: bool

    def refuse(self) -> None:
        """Raise ConvergenceError."""
        raise ConvergenceError(
            f"along a continuous sample there is more in {self.node!r}, at {self.node.line}, than the points of a"
            f" lattice see: it is narrow or not smooth there; sample it ({here()})"
        )


class Along:
    """The ``entries`` of something looked at that move along the lines of the elements ``mine``, and with which of
    these, the ``owner`` of each."""

    def __init__(self, part: Looked, mine: np.ndarray):
        moves = np.append(mine, False)[part.scopes]
        self.part, self.entries = part, np.flatnonzero(np.sum(moves, axis=1) == 1)
        self.owner = np.max(np.where(moves, part.scopes, -1), axis=1, initial=-1)[self.entries]

    def of(self, f: np.ndarray) -> np.ndarray:
        """These entries, of values with entries behind: of a logarithm exp."""
        f = f[..., self.entries].astype(float)
        return np.exp(f) if self.part.is_log else f

    def add(self, total: np.ndarray, f: np.ndarray, density: np.ndarray, on_lattice: np.ndarray) -> None:
        """Add points of lines, (lines, points, entries), to ``total``, (4, powers, lines, entries): integrals by all
        points, by those of the lattice, of the sizes, the largest size; of f and perhaps f^2."""
        if not len(self.entries):
            return
        f, weight = self.of(f), density[:, self.owner]
        for k in range(total.shape[1]):
            part = np.where(weight > 0, f ** (k + 1) * weight, 0)
            total[0, k] += np.sum(part, axis=1)
            total[1, k] += np.sum(part[:, on_lattice], axis=1)
            part = np.abs(part)
            total[2, k] += np.sum(part, axis=1)
            total[3, k] = np.maximum(total[3, k], np.max(part, axis=1, initial=0))

    def refuse_more(self, total: np.ndarray, finer: int, tolerance: float) -> None:
        """Raise ConvergenceError where the points of a lattice, one of so many, do not see what all see."""
        fine, coarse, sizes, most = total
        with np.errstate(all="ignore"):
            off = np.abs(fine - finer * coarse)
            near = off <= tolerance * sizes + 1e-13 * most
        if not (near | self.part.inside & ~np.isfinite(off)).all():
            self.part.refuse()

    def refuse_narrow(self, total: np.ndarray, f: np.ndarray, density: np.ndarray, tolerance: float) -> None:
        """Raise ConvergenceError where there is more around some places, at steps of ``AROUND``, than the cubic shows
        through the four points farthest away: f is (lines, places, points, entries)."""
        if not len(self.entries):
            return
        with np.errstate(all="ignore"):
            f, weight = self.of(f), density[..., self.owner]
            rest = np.abs(f - np.einsum("kn,lpne->lpke", _CUBIC, f[:, :, _FAR])) * weight
            more = np.einsum("k,lpke->lpe", _WIDTHS, np.where(weight > 0, rest, 0))
            near = more <= (tolerance * total[2, 0] + 1e-13 * total[3, 0])[:, None]
        if not (near | self.part.inside & ~np.isfinite(more)).all():
            self.part.refuse()


class Around:
    """Where nodes along lines turn or change their sign: the first ``_MOST`` of each element on each line."""

    def __init__(self, every: list[Along], lines: int, size: int):
        self.every, self.lines, self.size = every, lines, size
        self.found: dict[tuple[int, int], dict[float, tuple[float, float, int, int, bool]]] = {}
        self.last: tuple[list[np.ndarray], np.ndarray] | None = None

    def add(self, found: list[Result], x: np.ndarray) -> None:
        """Look at further points of all nodes, (lines, points, entries) each, at the places ``x``, (points,
        elements)."""
        now = [f[..., along.entries] for f, along in zip(found, self.every, strict=True)]
        if self.last is not None:
            now = [np.concatenate([a, b], axis=1) for a, b in zip(self.last[0], now, strict=True)]
            x = np.concatenate([self.last[1], x])
        self.last = [f[:, -2:] for f in now], x[-2:]
        for k, (f, along) in enumerate(zip(now, self.every, strict=True)):
            if not len(along.entries):
                continue
            eps = float(np.finfo(f.dtype).eps) if f.dtype.kind == "f" else 0.0
            d = np.diff(f.astype(float), axis=1)
            d = np.sign(np.where(np.abs(d) > 256 * eps * np.abs(f[:, 1:]), d, 0))  # what is not rounding
            side = np.sign(f)
            for changes, turns in ((d[:, 1:] * d[:, :-1] < 0, True), (side[:, 1:] * side[:, :-1] < 0, False)):
                for line, i, j in np.argwhere(changes)[: _ALL * self.lines].tolist():
                    e = int(along.owner[j])
                    places, low = self.found.setdefault((line, e), {}), float(x[i, e])
                    if low not in places and len(places) < _MOST:
                        places[low] = low, float(x[i + 1 + turns, e]), k, int(along.entries[j]), turns

    def closed(
        self, run: Callable[[np.ndarray], tuple[list[np.ndarray], list[np.ndarray]]], elsewhere: np.ndarray
    ) -> np.ndarray | None:
        """These places, (lines, places, elements), by sections; ``elsewhere`` where an element has none. None where no
        element has one."""
        count = max(map(len, self.found.values()), default=0)
        if not count:
            return None
        low, high = (np.tile(elsewhere, (self.lines, count, 1)) for _ in range(2))
        each = [(line, p, e, *b) for (line, e), places in self.found.items() for p, b in enumerate(places.values())]
        line, p, e, left, right, node, entry, turns = (np.array(column) for column in zip(*each, strict=True))
        low[line, p, e], high[line, p, e] = left, right
        part = np.arange(_SECTIONS + 1) / _SECTIONS
        at = np.arange(len(p))
        for _ in range(_ROUNDS):
            x = low[:, :, None] + (high - low)[:, :, None] * part[:, None]
            found, f = run(x.reshape(self.lines, -1, self.size))[0], np.empty((len(p), len(part)))
            for k in np.unique(node):
                mine = node == k
                f[mine] = found[k].reshape(*x.shape[:3], -1)[line[mine], p[mine], :, entry[mine]]
            is_low = np.maximum(f[:, 0], f[:, -1]) > f[:, _SECTIONS // 2]
            lowest = np.clip(np.argmin(np.where(is_low[:, None], f, -f), axis=1), 1, _SECTIONS - 1)
            other = np.argmax(np.sign(f) != np.sign(f[:, :1]), axis=1)  # 0 where rounding hides it
            start = np.where(turns, lowest - 1, np.maximum(other - 1, 0))
            stop = np.where(turns, lowest + 1, np.where(other > 0, other, _SECTIONS))
            inside = x[line, p, :, e]
            low[line, p, e], high[line, p, e] = inside[at, start], inside[at, stop]
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


def on_lines(
    structure: Structure, held: dict[Node, np.ndarray], mine: np.ndarray, x: np.ndarray
) -> dict[Node, np.ndarray]:
    """Values of all draws, (lines times points, *shape): of the elements ``mine`` those of ``x``, (lines, points,
    elements), else the ones that are held, of each line."""
    values, (lines, points, _) = {}, x.shape
    for k, node in enumerate(structure.draws):
        inside = slice(structure.offsets[k], structure.offsets[k + 1])
        if mine[inside].any():
            kept = np.reshape(held[node], (lines, 1, -1))
            moved = np.where(mine[inside], x[..., inside], kept)
            values[node] = np.asarray(moved, node.dtype).reshape(lines * points, *node.shape)
        else:
            values[node] = np.repeat(held[node], points, axis=0)
    return values


def refuse_steep(every: list[Along], weights: list[np.ndarray], values: list[np.ndarray], size: np.ndarray) -> None:
    """Raise ConvergenceError where the lattice of one of the elements ``mine`` is too coarse for the product of all
    factors that it is in, which is what the evidence is a sum of: L, the sum of their logarithms, at the points of the
    lattice (``values``, (lines, points, entries), times ``weights`` of each part), all other elements being held.

    Around a top of L a Gauss function has the width s = h / sqrt(-D), D the second difference of L over one step h, and
    the points see it up to 2 exp(-2 pi^2 / -D). Where D < -4 they may miss it, if L comes close to its largest value:
    by the parabola through three points, whose top may lie far above them. With several elements, of a precision matrix
    P, that of element i is at most 2 exp(-2 pi^2 / (h^2 P_ii)): P_ii = -D / h^2 is one over its *conditional* variance,
    the least one of any combination with it. Parts of L may be as steep as they like, if others make up for it.
    """
    logs = [f[..., a.entries] * w[a.entries] for f, w, a in zip(values, weights, every, strict=True)]
    owner = np.concatenate([a.owner for a in every])
    order = np.argsort(owner, kind="stable")
    elements, starts = np.unique(owner[order], return_index=True)
    with np.errstate(all="ignore"):
        total = np.add.reduceat(np.concatenate(logs, axis=-1)[..., order].astype(float), starts, axis=-1)
        total = np.where(np.arange(total.shape[1])[:, None] < size[elements], total, -np.inf)
        bend = total[:, 2:] - 2 * total[:, 1:-1] + total[:, :-2]
        slope = 0.5 * (total[:, 2:] - total[:, :-2])
        top = np.where(np.abs(slope) <= -bend, total[:, 1:-1] - 0.5 * slope**2 / bend, -np.inf)
        largest = np.max(total, axis=1, keepdims=True)
        eps = max([float(np.finfo(f.dtype).eps) for f in values if f.dtype.kind == "f"])
        steep = (bend < -_BEND - 64 * eps * np.abs(total[:, 1:-1])) & (top > largest - _COUNTS)
    if steep.any():
        line, j, e = np.argwhere(steep)[0]
        bends = [
            np.where(a.owner == elements[e], f[line, j] - 2 * f[line, j + 1] + f[line, j + 2], 0)
            for f, a in zip(logs, every, strict=True)
        ]
        every[int(np.argmin([np.min(b, initial=0) for b in bends]))].part.refuse()


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


def meetings(structure: Structure, outputs: list[Node], finite: np.ndarray) -> list[Meeting]:
    """The nodes that lead to outputs, not through draws, and which elements of the draws they depend on: ``finite``
    ones, and others."""
    starts = {n.id: start for n, start in zip(structure.draws, structure.offsets, strict=False)}
    nodes = [n for n in ancestors(outputs) if type(n.raw) is not tuple]
    found, result = direct(nodes, starts, structure.alone), []
    for n in nodes:
        if n.id in found:
            table = np.zeros((n.size, len(finite) + 1), bool)
            np.put_along_axis(table, found[n.id], True, axis=1)
            table = table[:, :-1]  # the last one is of the padding
            result.append(Meeting(n, table[:, finite], np.any(table[:, ~finite], axis=1)))
    return result
