"""What is done to a program before it gets its buffers, pass by pass; each is a function of the program that returns
how often it struck."""

from collections.abc import Callable
from dataclasses import dataclass, field

from scg.plans.passes.aliases import aliases
from scg.plans.passes.blocks import blocks
from scg.plans.passes.choices import choices
from scg.plans.passes.copies import copies
from scg.plans.passes.dead import dead
from scg.plans.passes.expand import expand
from scg.plans.passes.factor import factor
from scg.plans.passes.few_rows import rows
from scg.plans.passes.finite import finite
from scg.plans.passes.flatten import flatten
from scg.plans.passes.fold import fold
from scg.plans.passes.merge import merge
from scg.plans.passes.scalars import scalars
from scg.plans.passes.schedule import schedule
from scg.plans.passes.shrink import shrink
from scg.plans.passes.signs import signs
from scg.plans.passes.softplus import softplus
from scg.plans.passes.sums import sums
from scg.plans.program import Operations
from scg.plans.threads import width

Pass = Callable[[Operations], int]

PASSES: dict[str, Pass] = {
    "fold": fold,
    "aliases": aliases,
    "merge": merge,
    "dead": dead,
    "softplus": softplus,
    "expand": expand,
    "signs": signs,
    "shrink": shrink,
    "factor": factor,
    "sums": sums,
    "choices": choices,
    "flatten": flatten,
    "finite": finite,
    "copies": copies,
    "rows": rows,
    "scalars": scalars,
    "blocks": blocks,
    "schedule": schedule,
}
"""All passes by name, in their order. What one has replaced is dropped before the next."""

NEEDED = ("copies", "finite", "schedule")
"""Passes that are not left out: without them a copy would be taken for a view, what must be computed again would not be
seen, and nothing would have its turn."""


@dataclass(frozen=True)
class Options:
    """``without``: passes that are left out, by name. ``threads``: how many a plan may have; None: as many as there are
    to be had."""

    without: frozenset[str] = field(default_factory=frozenset)
    threads: int | None = None


def run(program: Operations, options: Options) -> list[tuple[str, int, int]]:
    """(pass, how often it struck, operations after it) of every pass that is not left out."""
    report = [("recorded", len(program.ops), len(program.ops))]
    program.width = options.threads or width()
    for name, change in PASSES.items():
        if name in options.without and name not in NEEDED:
            continue
        struck = change(program)
        if struck and "dead" not in options.without:
            dead(program)
        report.append((name, struck, len(program.ops)))
    return report
