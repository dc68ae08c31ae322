"""python -m benchmarks.variance: the variance of gradient estimators, exact and estimated, as tables and figures.

    gaussian   the Gaussian table and the table of one coin: closed form, exact, estimated
    costs      (x - k)^2, exp(-k x^2) and cos(k x) under a Gaussian: which estimator is best against k
    coins      200 Bernoulli variables against their logit: all estimators of coins, and what automatic
               Rao-Blackwellisation is worth
    walks      the first coin of a walk: what follows made again from the same randomness, or anew
    orders     orders and subsets of five things
    problems   every unbiased estimator on ten problems of the literature: variance times evaluations, and the best
    bounds     signal-to-noise ratio of the gradients of importance-weighted bounds against the number of samples
    digits     the encoder of a variational autoencoder with 200 binary latents: variance, and variance for equal work

A star marks an interval whose replicates may not have seen the whole tail; one that ends in ? has no upper end.

Each leaves CSV (which depends on the seed only), JSON (with versions, the machine and times) and figures, PNG and SVG.
Stopped at any moment, the run goes on with --resume, and its tables are then those of a run that was not stopped.
"""

import argparse
import csv
import io
import json
import os
import platform
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.timing import RESULTS, versions
from benchmarks.variance import EXPERIMENTS
from benchmarks.variance.parts import ResumeError, experiment, kept, measured, parts, write
from examples.options import directory
from examples.training import terminable


def main(argv: Sequence[str] | None = None) -> int:
    """Run the experiments; the exit status."""
    options, out, started = _parser().parse_args(argv), None, time.monotonic()
    out = Path(options.out)
    try:
        with terminable():
            run(options.experiments or EXPERIMENTS, out, options.seed, options.quick, options.resume, options.workers)
    except (ResumeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as signalled:
        print(f"\nstopped: --resume --out {out} goes on", file=sys.stderr)
        return 128 + (signalled.args[0] if signalled.args else signal.SIGINT)
    print(f"{time.monotonic() - started:.0f} s; tables and figures: {out}")
    return 0


def run(names: Sequence[str], out: Path, seed: int, quick: bool, resume: bool, workers: int) -> None:
    """Measure what is not there yet, and write the files of an experiment as soon as its last part is."""
    every = [part for name in dict.fromkeys(names) for part in parts(name, quick, seed)]
    results: dict[str, dict[int, Any]] = {part.experiment: {} for part in every}
    if not resume:
        for name in results:
            shutil.rmtree(out / "parts" / name, ignore_errors=True)
    for part in every:
        if (result := kept(part, out)) is not None:
            results[part.experiment][part.index] = result
    todo = [part for part in every if part.index not in results[part.experiment]]
    sizes, started = Counter(part.experiment for part in every), time.monotonic()

    def finish(name: str) -> None:
        of_name = [(part.point, results[name][part.index]) for part in every if part.experiment == name]
        about = {
            "seed": seed,
            "quick": quick,
            "workers": workers,
            "seconds until here": time.monotonic() - started,
            "resumed": len(todo) < len(every),
        }
        say(leave(name, of_name, out, about))

    with _progress(len(every), len(every) - len(todo)) as (tick, say):
        for name, size in sizes.items():
            if len(results[name]) == size:
                finish(name)
        for part, result in measured(todo, workers):
            write(part.file(out), json.dumps({"key": part.key(), "result": result}))
            results[part.experiment][part.index] = result
            tick()
            if len(results[part.experiment]) == sizes[part.experiment]:
                finish(part.experiment)


def leave(name: str, results: list[tuple[Any, Any]], out: Path, about: dict[str, Any]) -> str:
    """Write tables, JSON and figures of an experiment; what there is to say about it."""
    module = experiment(name)
    for title, rows in module.tables(results).items():
        write(out / f"{title}.csv", _csv(rows))
    machine = {"platform": platform.platform(), "processor": platform.machine(), "cores": os.cpu_count()}
    record = {
        "experiment": name,
        **about,
        "versions": versions("numpy", "scipy", "scg"),
        "machine": machine,
        "results": [{**p, **r} for p, r in results],
    }
    write(out / f"{name}.json", json.dumps(record, indent=1))
    try:
        import matplotlib
    except ImportError:
        return (
            f'{module.report(results)}\nno figure: matplotlib is not installed (pip install -e ".[bench]"); then'
            " --resume draws it\n"
        )
    with matplotlib.rc_context({"svg.hashsalt": name}):
        for title, figure in module.figures(results).items():
            for kind, extra in (("png", {"dpi": 130}), ("svg", {"metadata": {"Date": None}})):
                picture = io.BytesIO()
                figure.savefig(picture, format=kind, **extra)
                write(out / f"{title}.{kind}", picture.getvalue())
    return f"{module.report(results)}\n"


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m benchmarks.variance", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument(
        "experiments",
        nargs="*",
        metavar="experiment",
        type=_experiment,
        help=f"{', '.join(EXPERIMENTS)} (default: all)",
    )
    made.add_argument(
        "--quick",
        action="store_true",
        help="fewer points and replicates: under a minute in place of some ten of processor time",
    )
    made.add_argument("--resume", action="store_true", help="go on where the run in DIR was stopped")
    made.add_argument(
        "--out",
        metavar="DIR",
        type=directory,
        default=RESULTS / "variance",
        help="where everything goes (default: benchmarks/results/variance)",
    )
    made.add_argument(
        "--workers",
        metavar="N",
        type=_natural,
        default=2,
        help="processes; the results do not depend on them (default: 2)",
    )
    made.add_argument("--seed", metavar="N", type=_whole, default=0, help="of all random numbers (default: 0)")
    return made


@contextmanager
def _progress(total: int, done: int) -> Iterator[tuple[Callable[[], Any], Callable[[str], Any]]]:
    """(tick, say): a part is done; lines to print. On a terminal a bar, tqdm's where it is installed; elsewhere a line
    a tenth."""
    try:
        from tqdm import tqdm
    except ImportError:
        tqdm = None
    if sys.stderr.isatty() and tqdm:
        with tqdm(total=total, initial=done, unit="part", smoothing=0) as bar:
            yield bar.update, lambda text: bar.write(text, sys.stdout)
        return
    count, started = [done], time.monotonic()

    def tick() -> None:
        count[0] += 1
        if sys.stderr.isatty():
            print(f"\r{count[0]} of {total} parts", end="", file=sys.stderr, flush=True)
        elif count[0] * 10 // total > (count[0] - 1) * 10 // total:
            print(f"{count[0]} of {total} parts, {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)

    yield tick, lambda text: print(f"\n{text}" if sys.stderr.isatty() else text, flush=True)


def _experiment(text: str) -> str:
    if text not in EXPERIMENTS:
        raise argparse.ArgumentTypeError(f"no experiment is called {text!r}; there are {', '.join(EXPERIMENTS)}")
    return text


def _natural(text: str) -> int:
    return _whole(text, 1)


def _whole(text: str, least: int = 0) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"expected an integer from {least}, got {text!r}")
    return int(text)
