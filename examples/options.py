"""Command lines of the examples: the options that all of them have, and what --resume makes of them."""

import argparse
import itertools
import json
import math
import os
import re
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from examples.digits import DataError
from scg import checkpoint

FREE = ("epochs", "time_limit", "out", "resume", "overwrite", "figures", "data", "workers", "evaluate")
"""Options that a resumed run may change; the data may move, and are compared by checksum."""


def number(kind: type, low: float, high: float, what: str) -> Callable[[str], Any]:
    """A parser of numbers in [low, high) for argparse."""

    def parse(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not low <= value < high:
            raise argparse.ArgumentTypeError(f"expected {what}, got {text!r}")
        return value

    return parse


def directory(text: str) -> str:
    """A parser of directories for argparse: any path but an empty one."""
    if not text.strip():
        raise argparse.ArgumentTypeError("expected a directory, got an empty name; . is the working directory")
    return text


def threads(text: str) -> int:
    """A parser of numbers of threads for argparse: at most one for each core."""
    cores = os.cpu_count() or 1
    if (found := natural(text)) > cores:
        raise argparse.ArgumentTypeError(
            f"expected at most {cores}, a thread for each core of this machine, got {text}"
        )
    return found  # type: ignore[no-any-return]


natural = number(int, 1, math.inf, "an integer from 1")
whole = number(int, 0, math.inf, "an integer from 0")
positive = number(float, math.ulp(0.0), math.inf, "a positive number")
fraction = number(float, 0, 1, "a number from 0, below 1")


def parser(
    name: str,
    description: str,
    *,
    epochs: int,
    average: float = 0.998,
    binarise: str | None = "dynamic",
    evaluate: int = 100,
    rate: float = 1e-3,
) -> argparse.ArgumentParser:
    """The options that all examples have; the example adds its own."""
    made = argparse.ArgumentParser(prog=f"python -m examples.{name}", description=description, formatter_class=Help)
    data = made.add_argument_group("data")
    data.add_argument(
        "--data",
        metavar="DIR",
        help=(
            "directory of a set in IDX format (MNIST, Fashion-MNIST), digits for the embedded ones, or fashion for"
            " Debian's package (default: digits)"
        ),
    )
    data.add_argument(
        "--binarise",
        choices=("dynamic", "threshold", "none"),
        default=binarise,
        help=(
            "black and white by chance and anew for each minibatch, by comparison with a half, or grey values from 0"
            " to 1"
        ),
    )
    run = made.add_argument_group("the run")
    run.add_argument(
        "--out",
        metavar="DIR",
        type=directory,
        default=f"runs/{name}",
        help="where metrics.jsonl, config.json, result.json, checkpoint.npz and the figures go",
    )
    run.add_argument(
        "--resume", action="store_true", help="go on from DIR/checkpoint.npz, bit for bit as if the run had not stopped"
    )
    run.add_argument(
        "--overwrite", action="store_true", help="start anew where DIR holds an earlier run, which is removed"
    )
    run.add_argument(
        "--figures", action="store_true", help="train no more: evaluate and draw what DIR/checkpoint.npz holds"
    )
    run.add_argument("--epochs", metavar="N", type=whole, default=epochs, help="passes over the training images")
    run.add_argument(
        "--time-limit",
        metavar="S",
        type=positive,
        help="stop after the last epoch that ends within S seconds (default: none)",
    )
    run.add_argument(
        "--seed", metavar="N", type=whole, default=0, help="of the initial parameters, the minibatches and the noise"
    )
    run.add_argument(
        "--evaluate",
        metavar="K",
        type=natural,
        default=evaluate,
        help="draws for each held-out image in the bounds that are told at the end",
    )
    step = made.add_argument_group("the steps")
    step.add_argument("--batch", metavar="N", type=natural, default=100, help="images in a minibatch")
    step.add_argument("--learning-rate", metavar="A", type=positive, default=rate, help="of Adam")
    step.add_argument(
        "--average",
        metavar="D",
        type=fraction,
        default=average,
        help="decay of the average over steps that is evaluated; 0 evaluates the last step",
    )
    step.add_argument(
        "--workers",
        metavar="N",
        type=natural,
        help=(
            "cut each minibatch into parts and share them out to N processes; the result does not depend on N (default:"
            " one whole, in this process)"
        ),
    )
    step.add_argument(
        "--threads",
        metavar="N",
        type=threads,
        default=1,
        help="of a compiled step; their number changes the last digits of what it gives",
    )
    step.add_argument(
        "--no-compile",
        action="store_true",
        help="take every gradient from the function itself, not from a compiled plan of it",
    )
    return made


def options(
    made: argparse.ArgumentParser, argv: Sequence[str] | None
) -> tuple[argparse.Namespace, dict[str, Any] | None]:
    """Options, and with --resume or --figures those of the checkpoint, which are the defaults then: the ones that shape
    the run must not differ."""
    absent = object()
    names = {action.dest: action.default for action in made._actions if action.dest != "help"}
    parsed = vars(made.parse_args(argv, argparse.Namespace(**dict.fromkeys(names, absent))))
    given = {name: value for name, value in parsed.items() if value is not absent}
    path = Path(given.get("out", names["out"])) / "checkpoint.npz"
    going_on = given.get("resume") or given.get("figures")
    if given.get("figures") and not path.exists():
        raise DataError(f"{path}: expected the checkpoint of a run, to draw its figures; there is none")
    if going_on and given.get("overwrite"):
        made.error("--overwrite starts anew, and --resume and --figures take what is there: leave one of them out")
    if not going_on:
        return argparse.Namespace(**{**names, **given, "example": made.prog}), None
    if not path.exists():
        print(f"{path} does not exist: the run starts from the beginning")
        return argparse.Namespace(**{**names, **given, "example": made.prog}), None
    content = checkpoint.load(path)
    if not isinstance(content, dict) or not isinstance(content.get("config"), str):
        raise checkpoint.CheckpointError(f"{path} is no checkpoint of an example")
    saved = json.loads(content["config"])
    if saved.get("example") != made.prog:
        raise checkpoint.CheckpointError(
            f"{path} is a checkpoint of {saved.get('example')}, and {made.prog} does not go on with it"
        )
    config = {name: value for name, value in saved.items() if name in names}
    for name, value in given.items():
        if name not in FREE and config.get(name, value) != value:
            made.error(
                f"{_flag(name)} {value}: the run in {path.parent} was made with {config[name]}, and --resume goes on"
                " with the same"
            )
    found = {
        **names,
        **config,
        "time_limit": None,
        "resume": False,
        "overwrite": False,
        "figures": False,
        **given,
        "example": made.prog,
    }
    if (found.get("workers") is None) != (config.get("workers") is None):
        made.error(
            f"--workers: the run in {path.parent} was made with{'out' if config.get('workers') is None else ''} it, and"
            " --resume goes on likewise"
        )
    return argparse.Namespace(**found), saved


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


class Help(argparse.RawDescriptionHelpFormatter):
    """The description to the terminal's width, its formulas under one another where a line of them is too long, and
    defaults of the options that have one."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        found = []
        for indented, lines in itertools.groupby(
            text.strip("\n").split("\n"), key=lambda line: not line or line.startswith(" ")
        ):
            if indented:
                for line in lines:
                    parts = [line] if len(line) <= width else re.sub(r"(?<=\S) {4}(?=\S)", "\n    ", line).split("\n")
                    for part in parts:
                        gap = re.search(r"\S {2,}(?=\S)", part)
                        found += textwrap.wrap(
                            part,
                            width,
                            subsequent_indent=" " * (gap.end() if gap else 8),
                            break_long_words=False,
                            break_on_hyphens=False,
                        ) or [""]
            else:
                found += textwrap.wrap(" ".join(lines), width, break_long_words=False, break_on_hyphens=False)
        return "\n".join(f"{indent}{line}" for line in found)

    def _get_help_string(self, action: argparse.Action) -> str | None:
        shown = action.help and not (
            action.default is None or action.default is False or action.default is argparse.SUPPRESS
        )
        return f"{action.help} (default: %(default)s)" if shown else action.help
