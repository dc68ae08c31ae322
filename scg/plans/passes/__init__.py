"""What is done to a program before it gets its buffers, pass by pass; each is a function of the program that returns how often it struck."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from scg.plans.passes.copies import copies
from scg.plans.passes.dead import dead
from scg.plans.passes.fold import fold
from scg.plans.passes.merge import merge
from scg.plans.passes.scalars import scalars
from scg.plans.program import Program

Pass = Callable[[Program], int]

PASSES: dict[str, Pass] = {"fold": fold, "merge": merge, "dead": dead, "copies": copies, "scalars": scalars}
"""All passes by name, in their order."""

NEEDED = ("copies",)


@dataclass(frozen=True)
class Options:
    """``without``: passes that are left out, by name."""

    without: frozenset[str] = field(default_factory=frozenset)


def run(program: Program, options: Options, plan: Any) -> list[tuple[str, int, int]]:
    """(pass, how often it struck, operations after it) of every pass that is not left out."""
    report = [("recorded", len(program.ops), len(program.ops))]
    for name, change in PASSES.items():
        if name in options.without and name not in NEEDED:
            continue
        report.append((name, change(program), len(program.ops)))
    return report
