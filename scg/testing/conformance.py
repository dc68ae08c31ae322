"""A conformance run of a gradient estimator, in any framework: ``python -m scg.testing.conformance module:estimator``.

An estimator is a function of a named problem (``scg.testing.problems()``) that returns ``scg.bridge.Samples``, draws of
the gradient in the structure of ``problem.parameters``; None where it does not apply. The run judges it on every
problem against the exact gradient, and prints one table: the verdict, the bias where it is plainest with its interval,
the variance (the sum over parameters), and that in ratio to leave-one-out with two samples and to the best known
estimator, whose variances are exact.

    def estimator(problem):
        if any(draw.family != "Bernoulli" for draw in problem.draws):
            return None
        ...
        return scg.bridge.Samples(draw)

The exit status is 0 where nothing is biased and nothing failed, 1 else, 2 where the estimator cannot be found.
"""

import argparse
import fnmatch
import importlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from scg.bridge import Samples
from scg.core.tree import leaves
from scg.errors import ScgError, ScgTypeError
from scg.testing.named_problems import problems
from scg.testing.problem import Problem, total
from scg.testing.unbiased import judge

Author = Callable[[Problem], Samples | None]
"""An estimator: of a problem, draws of its gradient, or None where it does not apply."""


@dataclass(frozen=True)
class Row:
    """What was found on one problem. ``verdict``: unbiased, biased, inconclusive, not applicable, skipped or failed."""

    problem: str
    verdict: str
    reason: str = ""
    worst: str = ""
    bias: float | None = None
    low: float | None = None
    high: float | None = None
    replicates: int = 0
    variance: float | None = None
    to_leave_one_out: float | None = None
    to_best: float | None = None
    best: str = ""


def conformance(
    estimator: Author,
    *,
    skip: Sequence[str] = (),
    detect: float = 0.1,
    replicates: int = 2**19,
    seed: int = 0,
) -> Iterator[Row]:
    """A row for each problem, as it is found.

    ``skip``        names of problems, or patterns with * of them
    ``detect``      the bias, in parts of the gradient's scale, that is found with near certainty (see ``judge``)
    ``replicates``  at most so many draws for a verdict; a twenty-fifth of it for the variance
    """
    for index, problem in enumerate(problems()):
        if any([fnmatch.fnmatchcase(problem.name, pattern) for pattern in skip]):
            yield Row(problem.name, "skipped")
            continue
        try:
            yield _row(problem, estimator(problem), detect, replicates, np.random.default_rng([seed, index]))
        except Exception as error:  # whatever a user's estimator raises is a row of the table
            yield Row(problem.name, "failed", f"{type(error).__name__}: {error}")


def _row(problem: Problem, samples: Samples | None, detect: float, replicates: int, rng: np.random.Generator) -> Row:
    if samples is None:
        return Row(problem.name, "not applicable")
    if not isinstance(samples, Samples):
        raise ScgTypeError(
            f"an estimator returns scg.bridge.Samples, or None where it does not apply, not {type(samples).__name__}"
        )
    known = problem.variances
    found = judge(samples, reference=problem.gradient, rng=rng, detect=detect, max_replicates=replicates)
    variance = _variance(samples, max(2, replicates // 25), rng)
    best = min(known, key=lambda name: total(known[name]))
    return Row(
        problem.name,
        found.status,
        found.reason,
        found.worst,
        found.worst_bias,
        *found.worst_interval,
        found.draws,
        variance,
        _ratio(variance, total(known["leave-one-out"])) if "leave-one-out" in known else None,
        _ratio(variance, total(known[best])),
        best,
    )


def _variance(samples: Samples, n: int, rng: np.random.Generator) -> float:
    """Of n draws, in blocks: the sum over parameters."""
    count, mean, square = 0, 0.0, 0.0
    while count < n:
        size = min(n - count, 4096)
        block = np.concatenate([np.reshape(x, (size, -1)) for _, x in leaves(samples.take(size, rng))], axis=1)
        off = np.mean(block, axis=0, dtype=float) - mean
        square = square + np.sum((block - np.mean(block, axis=0, dtype=float)) ** 2, axis=0)
        square = square + off**2 * (count * size / (count + size))
        mean, count = mean + off * (size / (count + size)), count + size
    return float(np.sum(square)) / (n - 1)


def _ratio(variance: float, known: float) -> float | None:
    """None where the known estimator does not vary."""
    return variance / known if known > 1e-25 else None


_HEAD = ("problem", "verdict", "bias", "interval", "variance", "/ leave-one-out", "/ best known")
_WIDTHS = (22, 14, 10, 22, 10, 15, 24)


def line(row: Row) -> str:
    """A row as a line of the table."""
    number = lambda x, digits=3: "–" if x is None else f"{x:.{digits}g}"
    interval = "" if row.low is None or row.high is None else f"[{row.low:.2g}, {row.high:.2g}]"
    if row.bias is None:
        return _spaced((row.problem, row.verdict, row.reason, "", "", "", ""))
    best = f"{number(row.to_best)} ({row.best})"
    cells = (number(row.bias), interval, number(row.variance), number(row.to_leave_one_out), best)
    return _spaced((row.problem, row.verdict, *cells))


def _spaced(cells: Sequence[str]) -> str:
    return "  ".join([cell.ljust(width) for cell, width in zip(cells, _WIDTHS, strict=True)]).rstrip()


def load(name: str) -> Author:
    """The function that ``module:name`` names. Raises ScgTypeError."""
    module, _, path = name.partition(":")
    if not path:
        raise ScgTypeError(f"an estimator is given as module:function, got {name!r}")
    try:
        found = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ScgTypeError(f"{name!r} is not there: {error}") from error
    if not callable(found):
        raise ScgTypeError(f"{name!r} is no function")
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Run from the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m scg.testing.conformance",
        description="Judge a gradient estimator on named problems with exact answers, and print one table.",
        epilog="Exit status: 0 where nothing is biased and nothing failed, 1 else, 2 where the estimator is not found.",
    )
    parser.add_argument(
        "estimator",
        metavar="module:estimator",
        help="a function of a problem (see scg.testing.problems) that returns scg.bridge.Samples: draws of its gradient"
        " in the structure of problem.parameters; or None where it does not apply",
    )
    parser.add_argument("--json", action="store_true", help="print the rows as JSON in place of a table")
    parser.add_argument(
        "--skip", action="append", default=[], metavar="NAME", help="leave a problem out; a * stands for any letters"
    )
    parser.add_argument(
        "--detect",
        type=float,
        default=0.1,
        metavar="PART",
        help="the bias that a verdict is to find, in parts of the gradient's scale (default: %(default)s)",
    )
    parser.add_argument(
        "--replicates",
        type=int,
        default=2**19,
        metavar="N",
        help="at most so many draws for each problem (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of all draws; the table is a function of it (default: 0)")
    options = parser.parse_args(argv)
    sys.path.insert(0, os.getcwd())
    try:
        estimator = load(options.estimator)
        rows = conformance(
            estimator, skip=options.skip, detect=options.detect, replicates=options.replicates, seed=options.seed
        )
        return _json(list(rows)) if options.json else _table(rows)
    except ScgError as error:
        parser.error(str(error))
    finally:
        sys.path.remove(os.getcwd())


def _json(rows: list[Row]) -> int:
    print(json.dumps([asdict(row) for row in rows], indent=2))
    return _status(rows)


def _table(rows: Iterator[Row]) -> int:
    print(_spaced(_HEAD), flush=True)
    done = []
    for row in rows:
        print(line(row), flush=True)
        done.append(row)
    verdicts = [row.verdict for row in done]
    counts = ", ".join(f"{verdicts.count(v)} {v}" for v in dict.fromkeys(verdicts))
    print(f"\n{counts}")
    return _status(done)


def _status(rows: Sequence[Row]) -> int:
    return int(any([row.verdict in ("biased", "failed") for row in rows]))


if __name__ == "__main__":
    sys.exit(main())
