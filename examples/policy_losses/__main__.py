"""The command: ``python -m examples.policy_losses --help``."""

import argparse
import importlib
import json
import math
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from examples.options import Help, natural
from examples.policy_losses import __doc__ as PAGE
from examples.policy_losses import figures
from examples.policy_losses.losses import ROWS, Row
from examples.policy_losses.measure import Found, found, found_in_torch
from examples.policy_losses.problem import SIZES, Problem, problem
from scg import files

TOP_P = 0.8
DEFAULT, SHOWN = ("bandit", "pair", "ending"), ("ending",)
FIGURED = ("REINFORCE", "RLOO", "group mean", "sequence ratio", "weighted RLOO", "truncated weights", "GRPO")


def settings(name: str) -> dict[str, Problem]:
    """A named problem on policy, off policy, and on policy with top-p sampling."""
    base = problem(name)
    return {"on policy": base.on_policy(), "off policy": base, f"top-p {TOP_P}": base.on_policy().truncated(TOP_P)}


def measured(rows: Sequence[Row], here: Problem, size: int, framework: str) -> list[Found]:
    """Every row on one problem."""
    measure = {"numpy": found, "torch": found_in_torch}[framework]
    return [measure(row, here, size) for row in rows]


def printed(title: str, results: Iterable[Found]) -> str:
    """A table: what each row's mean is the gradient of, and how far from its claim it is, and at what variance."""
    results = list(results)
    unit = next((result.variance for result in results if result.row.label == "RLOO"), math.nan)
    lines = [
        title,
        f"{'loss':<26}{'claims':<12}{'its mean is the gradient of':<30}{'bias':>8}{'angle':>7}{'variance':>11}"
        f"{'signal':>8}{'vs RLOO':>9}",
    ]
    for result in results:
        bias = "0" if result.unbiased else f"{result.bias:.3f}"
        angle = "" if math.isnan(result.angle) else f"{result.angle:.0f}°"
        signal = "0" if result.of == "0" else f"{result.signal:.3f}"
        lines.append(
            f"{result.row.label:<26}{result.row.claim:<12}{result.of:<30}{bias:>8}{angle:>7}{result.variance:>11.4g}"
            f"{signal:>8}{'' if math.isnan(unit) else f'{result.variance / unit:.3g}':>9}"
        )
    return "\n".join(lines)


def recorded(here: Problem, setting: str, results: Iterable[Found]) -> dict[str, Any]:
    """One problem's arrays and its rows, as plain lists."""
    sequences = here.sequences
    arrays = {
        "tokens": sequences.tokens,
        "states": sequences.states,
        "mask": sequences.mask,
        "policy": here.policy,
        "old": here.old,
        "sampler": here.sampler(),
        "reference": here.reference,
        "rewards": here.rewards,
    }
    return {
        "problem": here.name,
        "setting": setting,
        "top_p": here.top_p,
        **{name: array.tolist() for name, array in arrays.items()},
        "targets": {name: target.tolist() for name, target in here.targets().items()},
        "rows": [
            {
                "loss": result.row.label,
                "claim": result.row.claim,
                "group": result.size,
                "mean": result.mean.tolist(),
                "gradient": result.gradient.tolist(),
                "gradient of": result.of,
                "bias": result.bias,
                "angle": None if math.isnan(result.angle) else result.angle,
                "variance": result.variance,
                "variances": result.variances.tolist(),
                "signal to noise": result.signal,
            }
            for result in results
        ],
    }


def own(text: str, claim: str) -> Row:
    """The row of ``module:function``."""
    module, _, name = text.partition(":")
    sys.path.insert(0, "")
    try:
        loss = getattr(importlib.import_module(module), name)
    finally:
        sys.path.remove("")
    return Row(name, loss, claim)


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(prog="python -m examples.policy_losses", description=PAGE, formatter_class=Help)
    made.add_argument(
        "problems",
        metavar="PROBLEM",
        nargs="*",
        help=f"{', '.join(SIZES)} (default: the figure of the first three, the table of ending)",
    )
    made.add_argument("--group", metavar="G", type=natural, default=3, help="samples in a group")
    made.add_argument("--out", metavar="DIR", default="runs/policy_losses", help="where the figures go")
    made.add_argument("--json", metavar="FILE", help="the problems' arrays, and mean and variance of every row")
    made.add_argument("--loss", metavar="MODULE:FUNCTION", help="one more row: a function of a group, as in losses.py")
    made.add_argument(
        "--claim", choices=("reward", "reverse KL", "forward KL"), default="reward", help="whose gradient --loss takes"
    )
    made.add_argument(
        "--framework",
        choices=("numpy", "torch"),
        default="numpy",
        help="what --loss computes with; torch: see its page",
    )
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Print the tables and draw the figures; the exit status."""
    made = parser()
    options = made.parse_args(argv)
    for name in options.problems:
        if name not in SIZES:
            made.error(f"no problem is called {name!r}; there are {', '.join(SIZES)}")
    if options.group < 2:
        made.error("argument --group: expected at least 2 samples: a baseline needs another one")
    extra: list[Row] = []
    if options.loss:
        try:
            extra = [own(options.loss, options.claim)]
        except (ImportError, AttributeError, ValueError) as error:
            made.error(f"argument --loss: expected module:function of something that can be imported: {error}")
    records, columns = [], {}
    try:
        for name in options.problems or DEFAULT:
            for setting, here in settings(name).items():
                results = measured(ROWS, here, options.group, "numpy")
                results += measured(extra, here, options.group, options.framework)
                columns[f"{name}\n{setting}"] = results
                records.append(recorded(here, setting, results))
                if name in (options.problems or SHOWN):
                    print(printed(f"{name}, {setting}, groups of {options.group}", results), end="\n\n")
        if options.json:
            files.write(Path(options.json), (json.dumps(records) + "\n").encode())
        draw(Path(options.out), columns, options.group)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def draw(out: Path, columns: dict[str, list[Found]], size: int) -> None:
    """The three figures, as PNG and SVG."""
    out.mkdir(parents=True, exist_ok=True)
    pictures = {
        "matrix": figures.matrix(columns, f"bias relative to the gradient that is claimed, groups of {size}"),
        "distance": figures.distances("ending", 2),
        "variance": figures.growth([row for row in ROWS if row.label in FIGURED]),
    }
    for name, figure in pictures.items():
        for kind in ("png", "svg"):
            figure.savefig(out / f"{name}.{kind}", dpi=150)
    print(f"figures: {', '.join(str(out / f'{name}.png') for name in pictures)}")


if __name__ == "__main__":
    sys.exit(main())
