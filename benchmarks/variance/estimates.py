"""Variances of gradient estimates from replicates, and the table's way of writing them."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

import scg
from scg.tree import leaves

_BYTES = 2**25  # of gradients that are held at once
Z = 2.5758293035489004
"""Half-width of a 99% interval in standard errors."""


def estimated(graph: scg.Graph, replicates: int, rng: np.random.Generator, mean: Any = None) -> dict[str, dict[str, float]]:
    """For each parameter leaf, by name: the ``variance`` of a gradient estimate (summed over coordinates) and its 99% interval, ``low`` to ``high``.

    With S = |g - c|^2 and c the ``mean`` where it is known, else that of a pilot run, Var g = E[S] - |E[g] - c|^2, and the standard error is
    that of the mean of S, from as many replicates as S has: a heavy tail of S widens it as far as it was seen.
    """
    names = [name.strip("[].'\"") for name, _ in leaves(graph.parameters)]
    shapes = [leaf.shape for _, leaf in leaves(graph.parameters)]
    pilot = graph.gradients(rng=rng, replicates=max(16, min(1000, replicates // 20))) if mean is None else mean
    centre = [np.mean(g, axis=0) if mean is None else np.asarray(g) for _, g in leaves(pilot)]
    block = max(1, _BYTES // (8 * sum(math.prod(shape) for shape in shapes) or 1))
    squares: list[list[Any]] = [[] for _ in names]
    sums = [np.zeros(shape) for shape in shapes]
    for start in range(0, replicates, block):
        found = graph.gradients(rng=rng, replicates=min(block, replicates - start))
        for i, (_, g) in enumerate(leaves(found)):
            off = np.asarray(g, float) - centre[i]
            sums[i] += off.sum(axis=0)
            squares[i].append(np.sum(off * off, axis=tuple(range(1, off.ndim))))
    result = {}
    for name, total, parts in zip(names, sums, squares, strict=True):
        s = np.concatenate(parts)
        variance = float(s.mean() - np.sum((total / replicates) ** 2))
        error = float(s.std() / math.sqrt(replicates))
        result[name or "t"] = {"variance": variance, "low": max(variance - Z * error, 0.0), "high": variance + Z * error}
    return result


def markdown(rows: Sequence[Sequence[Any]]) -> str:
    """Rows of cells as a table in Markdown, the first row its heading."""
    cells = [[cell if isinstance(cell, str) else "" if cell is None else number(cell) for cell in row] for row in rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in [cells[0], ["---"] * len(cells[0]), *cells[1:]])


def number(x: float, digits: int = 4) -> str:
    """x to so many digits, without an exponent where that is short."""
    if x == 0 or not math.isfinite(x):
        return f"{x:.0f}"
    return f"{x:.{max(0, digits - 1 - math.floor(math.log10(abs(x))))}f}" if 1e-3 <= abs(x) < 10**digits else f"{x:.{digits - 1}e}"


def interval(low: float, high: float, digits: int = 4) -> str:
    """An interval to so many digits."""
    return f"{number(low, digits)} to {number(high, digits)}"
