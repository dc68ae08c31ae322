"""Where several narrow parts of a cost meet.

A product of a bump of z_1 and one of z_2 is zero along the line of z_1 unless z_2 is where its own bump is, and no
drawn value is. Places where nodes turn are known along each line for itself: further lines run where the other elements
are at such places, together with those values of finite elements at which the cost is largest there.
"""

import itertools
import math
from typing import NamedTuple, Protocol

import numpy as np

from scg.core.node import Node
from scg.exact.engine import Engine
from scg.exact.leaf import Choice, Leaf
from scg.exact.lines import Places, Run

_ROWS, _WORK = 2**12, 2**22  # combinations that are looked at, and the numbers that these may make
_MOST = 8  # further choices
_LITTLE = 1e-12  # density at a place that does not count
_NEAR = 1e-9  # what lies as near is one place


class Lines(Protocol):
    """The lines of continuous elements: see ``panels``."""

    choices: list[Choice]
    elements: list[int]
    columns: dict[int, list[int]]
    seed: int
    engine: Engine

    def leaf(self, e: int) -> Leaf: ...
    def groups(self) -> list[list[int]]: ...
    def run(self, x: Places, choice: Choice, nodes: list[Node], costs: bool = ...) -> Run: ...
    def held(self, x: Places, choice: Choice) -> Choice: ...
    @property
    def work(self) -> int: ...


class Further(NamedTuple):
    """Choices, and of each for the lines of each element how much they count, (choices,): the density of the others
    there, as a part of the largest."""

    choices: list[Choice]
    shares: Places


def at_places(panels: Lines, places: Places) -> Further:
    """Values of all leaves, at which elements that meet others are at some of their ``places``: for each place of an
    element the combination with those of others at which a part of the cost is largest, that of each part first."""
    met = {c for e in panels.elements for c in panels.columns[e]}
    several = {c for c in met if sum([c in panels.columns[e] for e in panels.elements]) > 1}
    meeting = [e for e in panels.elements if not several.isdisjoint(panels.columns[e])]
    groups = [inside for g in panels.groups() if (inside := [e for e in g if e in meeting and len(places[e])])]
    if not groups:
        return Further([], {})
    base = panels.choices
    rows = max(1, min(_ROWS, _WORK // (panels.work * len(base))))
    most = max(2, int(rows ** (1 / len(groups))))
    kept = {e: _likely(panels, e, places[e], most) for g in groups for e in g}
    counts = [max([len(kept[e][0]) for e in g]) for g in groups]
    if math.prod(counts) <= rows:
        combinations = np.array(list(itertools.product(*map(range, counts))))
    else:
        combinations = np.random.default_rng(panels.seed).integers(counts, size=(rows, len(counts)))
        combinations = np.concatenate([np.arange(max(counts))[:, None] % counts, combinations])
    at = {e: combinations[:, k] % len(kept[e][0]) for k, g in enumerate(groups) for e in g}
    x = {e: kept[e][0][rows] for e, rows in at.items()}
    shares = np.stack([np.max([kept[e][1][at[e]] for e in g], axis=0) for g in groups])  # (groups, rows)
    with np.errstate(all="ignore"):
        sizes = np.abs(np.stack([panels.run(x, choice, []).costs for choice in base]))  # (choices, rows, columns)
    sizes = np.where(np.isfinite(sizes).all(axis=2), np.prod(shares, axis=0), 0)[..., None] * np.nan_to_num(sizes)
    sizes = sizes.reshape(-1, sizes.shape[2])
    sizes = sizes / np.maximum(np.max(sizes, axis=0), 1e-300)
    score, place = np.max(sizes, axis=1, initial=0), np.tile(combinations, (len(base), 1))
    each = [np.where(place[:, k] == p, score, -1) for k, count in enumerate(counts) for p in range(count)]
    best = dict.fromkeys(
        [*np.argmax(sizes, axis=0).tolist(), *sorted(map(int, map(np.argmax, each)), key=lambda r: -score[r])]
    )
    chosen = [divmod(row, len(combinations)) for row in best if score[row] > 0][:_MOST]
    picked = [row for _, row in chosen]
    others = {e: np.prod(np.delete(shares, k, axis=0)[:, picked], axis=0) for k, g in enumerate(groups) for e in g}
    return Further([panels.held({e: v[[row]] for e, v in x.items()}, base[number]) for number, row in chosen], others)


def _likely(panels: Lines, e: int, places: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Of the places of an element those with most density, and that as a part of the largest; where this moves with
    others, all count alike."""
    places = places[np.append(True, np.diff(places) > _NEAR * (1 + np.abs(places[1:])))]
    leaf = panels.leaf(e)
    if leaf.varies:
        return places[:most], np.ones(len(places[:most]))
    centre = leaf.at_element(panels.engine.column(e))[2]
    density = np.nan_to_num(panels.run({e: np.append(places, centre)}, panels.choices[0], [], False).densities[e])
    share = density / np.max(density)
    order = np.argsort(-share[:-1], kind="stable")[:most]
    order = order[share[order] > _LITTLE]
    return (places[order], share[order]) if len(order) else (np.array([centre]), np.ones(1))
