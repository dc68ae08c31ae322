"""VAE or IWAE: three objectives, the same networks, data and number of updates, beside Burda, Grosse and Salakhutdinov
(2016).

Trains examples.iwae with --bound elbo and one draw for each image (VAE, k = 1), with --bound elbo and k draws (VAE, k =
50), and with k draws and the importance-weighted bound (IWAE), each from several seeds, and prints the negative
5000-sample bound of held-out images. The published figures come from 3,280 epochs on 50,000 images. A short run on
fewer can show the order and some of the gap, not the values; whether it does is said under the table. A run that was
stopped goes on where it was.
"""

import argparse
import io
import json
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import BrokenExecutor, as_completed
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.stats import t as student

import scg
from examples import digits, evaluation, iwae, training
from examples.digits import DataError
from examples.options import directory
from scg import checkpoint

TAKES = "ten minutes"


class Row(NamedTuple):
    """A line of the table: its objective, and the negative bound that was published for it."""

    name: str
    bound: str
    k: int
    published: float | None


def rows(k: int) -> list[Row]:
    """The three objectives; Burda's table 1 (one stochastic layer) has them for k = 5 and k = 50."""
    vae, importance = {5: (86.47, 85.54), 50: (86.35, 84.78)}.get(k, (None, None))
    return [
        Row("VAE, k=1", "elbo", 1, 86.76),
        Row(f"VAE, k={k}", "elbo", k, vae),
        Row(f"IWAE, k={k}", "iwae", k, importance),
    ]


def train(row: Row, seed: int, options: argparse.Namespace) -> np.ndarray:
    """The importance bound of each held-out image for one trained model; what is there already is not done again.
    Raises DataError."""
    out = folder(row, seed, options)
    arguments = {
        "data": options.data or "digits",
        "epochs": options.epochs,
        "batch": options.batch,
        "learning-rate": options.learning_rate,
    }
    arguments |= {
        "bound": row.bound,
        "k": row.k,
        "seed": seed,
        "hidden": options.hidden,
        "latents": options.latents,
        "evaluate": 1,
        "out": out,
    }
    argv = ["--resume", *[word for name, value in arguments.items() for word in (f"--{name}", str(value))]]
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()) as told:
        try:
            failed = iwae.main(argv)
        except SystemExit as refusal:  # of options that are not those of the run that is there
            failed = refusal.code
    if failed:
        raise DataError(f"{out}: {told.getvalue().strip().splitlines()[-1]}")
    saved = checkpoint.load(out / "checkpoint.npz")
    if (done := len(json.loads(saved["history"]))) != options.epochs:
        raise DataError(
            f"{out} holds {done} epochs, and --epochs {options.epochs} asks for fewer: use --epochs {done}, or another"
            " --out"
        )
    key, file = f"{options.evaluate} draws of {options.images} images after {options.epochs} epochs", out / "bounds.npz"
    if file.exists() and (known := checkpoint.load(file))["key"] == key:
        return known["bounds"]
    model = iwae.IWAE([options.latents], [options.hidden])
    trainer = training.Trainer(model, digits.load(options.data), 0, options.batch, 1.0, 0.0)
    params = checkpoint.load(out / "checkpoint.npz", like={**saved, "average": {"params": trainer.params, "steps": 0}})[
        "average"
    ]["params"]
    rng = np.random.default_rng((seed, 1))
    _, bounds = evaluation.bounds(
        lambda x: model.log_weights(params, x, rng),
        trainer.held[:: -(-len(trainer.held) // options.images)],
        options.evaluate,
    )
    checkpoint.save(file, {"key": key, "bounds": bounds})
    return bounds


def folder(row: Row, seed: int, options: argparse.Namespace) -> Path:
    """Where a run is."""
    return Path(options.out) / f"{row.bound}-{row.k}-seed-{seed}"


def trained(row: Row, seed: int, options: argparse.Namespace) -> float:
    """The part of a run's epochs that is done."""
    metrics = folder(row, seed, options) / "metrics.jsonl"
    return min(1.0, metrics.read_text().count("\n") / options.epochs) if metrics.exists() else 0.0


def table(found: dict[Row, np.ndarray]) -> tuple[str, dict[str, dict[str, float]]]:
    """The table, and the gaps between the last row and the others as {name: {"gap", "low", "high"}}, 95% intervals over
    the seeds, if there are some."""
    negative = {row: -np.mean(bounds, axis=1) for row, bounds in found.items()}  # of each seed
    lines = [f"{'negative bound, nats':22}{'mean':>8}   {'of each seed':28}{'Burda et al.':>12}"]
    for row, values in negative.items():
        lines.append(
            f"{row.name:22}{values.mean():8.2f}  "
            f" {' '.join(f'{v:.2f}' for v in values):28}{'' if row.published is None else f'{row.published:.2f}':>12}"
        )
    *others, best = negative
    gaps = {}
    for row in others:
        gap, n = negative[row] - negative[best], len(negative[row])
        mean, told, published = float(gap.mean()), "of one seed", ""
        gaps[f"{row.name} - {best.name}"] = {"gap": mean}
        if n > 1:
            half = float(student.ppf(0.975, n - 1) * gap.std(ddof=1) / np.sqrt(n))
            gaps[f"{row.name} - {best.name}"] |= {"low": mean - half, "high": mean + half}
            told = f"95% interval [{mean - half:.2f}, {mean + half:.2f}]"
        if row.published is not None and best.published is not None:
            published = f"{row.published - best.published:.2f}"
        lines.append(f"{f'{row.name} - {best.name}':22}{mean:8.2f}   {told:28}{published:>12}")
    k = f"with k = {best.k}, as here" if best.published is not None else f"for k = 5 and 50 only, none for k = {best.k}"
    lines.append(f"Burda et al.: their table 1, one stochastic layer, {k}")
    return "\n".join([*lines, *order(gaps, best)]), gaps


def order(gaps: dict[str, dict[str, float]], best: Row) -> list[str]:
    """A line for each gap: whether these runs show that ``best`` has the higher bound."""
    lines = []
    for name, gap in gaps.items():
        other = name.removesuffix(f" - {best.name}")
        if "low" not in gap:
            told = f"one seed does not tell whether {best.name} is better than {other}: use --seeds 3"
        elif gap["low"] > 0:
            told = f"{best.name} is better than {other}, as published"
        elif gap["high"] < 0:
            told = (
                f"{best.name} is worse than {other} after so few updates, unlike the published order: use more --epochs"
            )
        else:
            told = f"these runs do not tell {best.name} from {other}: use more --epochs or --seeds"
        lines.append(told)
    return lines


def parser() -> argparse.ArgumentParser:
    """The options of the comparison."""
    made = argparse.ArgumentParser(
        prog="python -m examples.compare", description=__doc__, formatter_class=training.Help
    )
    made.add_argument("--data", metavar="DIR", help="as in the other examples (default: digits)")
    made.add_argument(
        "--out", metavar="DIR", type=directory, default="runs/compare", help="where the runs and table.txt go"
    )
    made.add_argument("--seeds", metavar="N", type=training.natural, default=3, help="runs of each objective")
    made.add_argument("--k", metavar="N", type=training.natural, default=50, help="draws for each image")
    made.add_argument(
        "--epochs", metavar="N", type=training.natural, default=32, help="passes over the training images"
    )
    made.add_argument("--batch", metavar="N", type=training.natural, default=20, help="images in a minibatch")
    made.add_argument("--learning-rate", metavar="A", type=training.positive, default=1e-3, help="of Adam")
    made.add_argument(
        "--hidden", metavar="N", type=training.natural, default=200, help="units in each of the two tanh layers"
    )
    made.add_argument(
        "--latents", metavar="N", type=training.natural, default=50, help="dimensions of the stochastic layer"
    )
    made.add_argument(
        "--evaluate", metavar="K", type=training.natural, default=5000, help="draws for each held-out image"
    )
    made.add_argument("--images", metavar="N", type=training.natural, default=250, help="held-out images, evenly taken")
    made.add_argument("--processes", metavar="N", type=training.natural, default=2, help="runs at the same time")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run the comparison; the exit status."""
    options = parser().parse_args(argv)
    started, jobs = (
        time.monotonic(),
        [(row, seed) for row in reversed(rows(options.k)) for seed in range(options.seeds)],
    )
    work = {job: job[0].k + 5 for job in jobs}  # a step costs about this: the draws, and what does not depend on them
    found: dict[tuple[Row, int], np.ndarray] = {}
    with training.processes(options.processes) as executor:
        try:
            futures = {executor.submit(train, row, seed, options): (row, seed) for row, seed in jobs}
            for future in as_completed(futures):
                row, seed = futures[future]
                found[row, seed] = future.result()
                done = sum(work[job] * (job in found or trained(*job, options)) for job in jobs)
                left = (time.monotonic() - started) * (sum(work.values()) / done - 1)
                print(
                    f"{row.name:12} seed {seed}   {-found[row, seed].mean():8.2f} nats  "
                    f" {training.clock(time.monotonic() - started)}, {training.clock(left)} left",
                    flush=True,
                )
        except (DataError, scg.ScgError, OSError) as error:
            executor.shutdown(cancel_futures=True)
            print(f"error: {error}", file=sys.stderr)
            return 1
        except BrokenExecutor:
            print(
                "error: a run's process has died, as one does that is killed: the same command goes on", file=sys.stderr
            )
            return 1
        except KeyboardInterrupt:
            print("\nstopped: the same command goes on", file=sys.stderr, flush=True)
            os._exit(130)  # and with this process end its runs, for which an orderly shutdown would wait
    text, gaps = table({row: np.stack([found[row, seed] for seed in range(options.seeds)]) for row in rows(options.k)})
    print(f"\n{text}")
    training.write(Path(options.out) / "table.txt", text + "\n")
    training.write(Path(options.out) / "gaps.json", json.dumps(gaps, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
