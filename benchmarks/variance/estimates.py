"""Variances of gradient estimates from replicates, and the table's way of writing them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

import scg

Z = 1.959963984540054
"""Half-width of a 95% interval in standard errors."""


def estimated(
    graph: Any, rows: Mapping[str, Any], replicates: int, rng: np.random.Generator, budget: int = 2**20
) -> dict[str, dict[str, dict[str, Any]]]:
    """``scg.variance.compare`` as JSON: row -> parameter -> variance, its 95% interval (low to high), exact (None where
    out of reach), ... ``high`` is None where the replicates are too few to bound it.

    Several parameters have an entry each; "seconds", by the report, is for a gradient of all of them.
    """
    report = scg.variance.compare(graph, rows, replicates=replicates, rng=rng, budget=budget)
    return {row: {name.strip("[].'\""): entry(each) for name, each in report[row].entries.items()} for row in report}


def entry(found: scg.variance.Entry) -> dict[str, Any]:
    """An entry of a report as JSON."""
    return {
        "variance": found.variance,
        "low": found.low,
        "high": found.high if math.isfinite(found.high) else None,
        "reliable": found.reliable,
        "exact": None if math.isnan(found.exact_variance) else found.exact_variance,
        "evaluations": found.evaluations,
        "seconds": found.seconds,
    }


def timeless(found: Mapping[str, Any]) -> dict[str, Any]:
    """An entry without its time, which is another one in every run."""
    return {key: value for key, value in found.items() if key != "seconds"}


def markdown(rows: Sequence[Sequence[Any]]) -> str:
    """Rows of cells as a table in Markdown, the first row its heading."""
    cells = [[cell if isinstance(cell, str) else "" if cell is None else number(cell) for cell in row] for row in rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in [cells[0], ["---"] * len(cells[0]), *cells[1:]])


def number(x: float, digits: int = 4) -> str:
    """x to so many digits, without an exponent where that is short."""
    if x == 0 or not math.isfinite(x):
        return f"{x:.0f}"
    return (
        f"{x:.{max(0, digits - 1 - math.floor(math.log10(abs(x))))}f}"
        if 1e-3 <= abs(x) < 10**digits
        else f"{x:.{digits - 1}e}"
    )


def interval(found: Mapping[str, Any], digits: int = 4) -> str:
    """The interval of an entry to so many digits; a star where its replicates may not have seen the whole tail."""
    high = "?" if found["high"] is None else number(found["high"], digits)
    return f"{number(found['low'], digits)} to {high}{'' if found['reliable'] else ' *'}"
