"""The trainer that the examples share: epochs of doubly stochastic gradient steps, with checkpoints from which a run
goes on bit for bit."""

import argparse
import errno
import json
import math
import multiprocessing
import os
import platform
import shlex
import signal
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, ProcessPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import scg
from examples import digits
from examples.digits import DataError, Images
from examples.options import Help, fraction, natural, options, parser, positive, whole
from scg import checkpoint, optim
from scg.core.tree import leaves, map_leaves
from scg.errors import NonFiniteError, ScgValueError

__all__ = [
    "Help",
    "Model",
    "Result",
    "Trainer",
    "binarise",
    "clock",
    "fraction",
    "main",
    "natural",
    "parser",
    "positive",
    "processes",
    "whole",
    "write",
]

SHARDS = 4
"""The parts of a minibatch that ``--workers`` shares out: the same whatever the number of workers is, and so are their
random numbers."""


class Result(NamedTuple):
    """A figure that is told at the end; ``error`` is its standard error, where it has one."""

    value: float
    error: float | None = None
    unit: str = "nats"


class Model(ABC):
    """What an example gives to the trainer. Bounds are in nats for one datum, and larger is better."""

    @abstractmethod
    def initial(self, pixels: np.ndarray, rng: np.random.Generator) -> Any:
        """Parameters to start from, a structure of arrays; ``pixels`` are the training images as rows of 0 to 255."""

    @abstractmethod
    def bound(self, params: Any, x: Any, rng: np.random.Generator) -> Any:
        """An unbiased estimate of the bound for each row of ``x``, in terms of nodes: what training maximizes the mean
        of."""

    @abstractmethod
    def report(self, params: Any, x: np.ndarray, rng: np.random.Generator) -> dict[str, Result]:
        """What is said at the end of the held-out rows ``x``."""

    @abstractmethod
    def figures(
        self, params: Any, images: Images, x: np.ndarray, history: list[dict[str, Any]], rng: np.random.Generator
    ) -> dict[str, Any]:
        """matplotlib figures of the trained model by name; "" is the one that has the name of the run. ``x`` are the
        held-out rows."""

    def cost(self, params: Any, x: np.ndarray, rng: np.random.Generator) -> Any:
        """Minus the bound for one datum, estimated from a minibatch."""
        return -np.mean(self.bound(params, x, rng))

    def test(self, params: Any, x: np.ndarray, rng: np.random.Generator, rows: int = 200) -> float:
        """The mean bound over the rows of ``x``, a block of them at a time."""
        bounds = (self.bound(params, x[i : i + rows], rng) for i in range(0, len(x), rows))
        return sum(float(np.sum(getattr(bound, "value", bound))) for bound in bounds) / len(x)

    def metrics(self, params: Any, x: np.ndarray, rng: np.random.Generator) -> dict[str, float]:
        """What else is logged after each epoch, by name; ``x`` is a minibatch of training rows, and ``params`` are
        averaged as for ``test``."""
        return {}

    state: Any = {}
    """What the next step depends on beside the parameters (baselines that learn, say), as ``scg.checkpoint`` takes it:
    a property to override."""


def binarise(pixels: np.ndarray, rng: np.random.Generator, how: str = "dynamic") -> np.ndarray:
    """Pixels of 0 to 255 as float32: "dynamic", black (1) with probability pixel / 255, exactly; "threshold", where
    pixel > 127; "none", pixel / 255."""
    if how == "none":
        return pixels.astype(np.float32) / np.float32(255)
    if how == "threshold":
        return (pixels > 127).astype(np.float32)
    return (rng.integers(0, 255, pixels.shape, dtype=np.uint8) < pixels).astype(np.float32)


class Trainer:
    """A model in training: parameters, their average, the optimizer, the generator and the history; ``state`` is all of
    it.

    One epoch visits the images in a fresh uniform order, so that each minibatch of B of the N images is drawn
    uniformly, binarises them afresh and takes one draw of noise for each: a doubly stochastic gradient. With the factor
    N / B the minibatch's sum is an unbiased estimate of the sum over all images; the cost is minus this estimate for
    one datum, so that N cancels and the minibatch's mean is left.

    With an ``executor`` (anything with the ``map`` of ``concurrent.futures``: threads, processes,
    ``dask.distributed.Client().get_executor()``) each minibatch is cut into SHARDS parts with a stream of random
    numbers each, and the parts' gradients are added up in their order. Sending 400,000 parameters out and their
    gradients back costs this process about 10 ms a step, and the parts are not compiled: a step of the default
    ``examples.vae`` takes 5 ms and is best left whole; one of ``examples.iwae`` (k = 50, 83 ms compiled, 110 ms in
    parts) gains from the third process on.
    """

    def __init__(
        self,
        model: Model,
        images: Images,
        seed: int,
        batch: int,
        learning_rate: float,
        average: float,
        how: str = "dynamic",
        executor: Executor | None = None,
        compiled: bool = False,
        threads: int = 1,
    ):
        self.model, self.seed, self.batch, self.how, self.executor = model, seed, batch, how, executor
        self.pixels = images.train.reshape(len(images.train), -1)
        if batch > len(self.pixels):
            raise DataError(
                f"{images.name}: a minibatch of {batch} needs as many training images, got {len(self.pixels)}"
            )
        if executor is not None and batch < SHARDS:
            raise ScgValueError(
                f"a minibatch that is shared out has {SHARDS} parts and needs as many images, got {batch}"
            )
        if executor is not None and model.state:
            raise ScgValueError(
                "a baseline that learns from one step to the next cannot be shared out to processes: train without"
                " --workers"
            )
        # once, and the same for every seed
        self.held = binarise(images.test.reshape(len(images.test), -1), np.random.default_rng(1905), how)
        self.rng = np.random.default_rng(seed)
        self.params = model.initial(self.pixels, self.rng)
        self.optimizer = optim.Adam(self.params, learning_rate)
        self.average = optim.Average(self.params, average)
        self.history: list[dict[str, Any]] = []
        self._gradient = scg.value_and_grad(model.cost)
        if compiled and executor is None and not model.state:  # a plan does not see what a model remembers
            self._gradient = scg.compile(self._gradient, fallback=True, threads=threads)

    @property
    def steps(self) -> int:
        """Steps in an epoch."""
        return len(self.pixels) // self.batch

    def epoch(self, tick: Callable[[], None] = lambda: None) -> dict[str, Any]:
        """One epoch; the entry that it adds to the history."""
        started, total = time.monotonic(), 0.0
        order = self.rng.permutation(len(self.pixels))
        for k in range(self.steps):
            total -= self.step(self.pixels[order[k * self.batch : (k + 1) * self.batch]])
            tick()
        number = len(self.history) + 1
        aside = np.random.default_rng((self.seed, number))
        entry = {
            "epoch": number,
            "train": total / self.steps,
            "test": self.model.test(self.average.params, self.held, aside),
        }
        entry.update(
            self.model.metrics(self.average.params, binarise(self.pixels[order[: self.batch]], aside, self.how), aside)
        )
        entry["seconds"] = round(time.monotonic() - started, 3)
        self.history.append(entry)
        return entry

    def step(self, pixels: np.ndarray) -> float:
        """One step of the optimizer; the cost before it. Raises NonFiniteError, before anything has changed, naming the
        operation."""
        x = binarise(pixels, self.rng, self.how)
        before = self.rng.bit_generator.state
        try:
            with np.errstate(all="ignore"):  # what matters of it is told below, with its place
                value, gradient = self.gradient(x)
            if not math.isfinite(value):
                raise NonFiniteError(f"the cost is {value}")
            self.optimizer.step(gradient)
        except (NonFiniteError, ScgValueError) as error:
            # a distribution refuses a NaN or infinite parameter with a ScgValueError
            where = f"training stopped in epoch {len(self.history) + 1}, step {self.optimizer.steps + 1}"
            self.rng.bit_generator.state = before
            try:
                with scg.detect_nan(), np.errstate(all="ignore"):
                    self.gradient(x, in_this_process=True)
            except scg.ScgError as origin:
                raise NonFiniteError(f"{where}: {origin}; checkpoints of earlier epochs are intact") from error
            raise NonFiniteError(f"{where}: {error}; checkpoints of earlier epochs are intact") from error
        self.average.step(self.params)
        return float(value)

    def gradient(self, x: np.ndarray, in_this_process: bool = False) -> tuple[float, Any]:
        """The cost at a minibatch and its gradient: the only place where one is taken."""
        if self.executor is None:
            return self._gradient(self.params, x, rng=self.rng)
        parts = np.array_split(x, SHARDS)
        seeds = np.random.SeedSequence(self.rng.integers(2**32, size=4).tolist()).spawn(SHARDS)
        found = (map if in_this_process else self.executor.map)(
            _part, [self.model] * SHARDS, [self.params] * SHARDS, parts, seeds
        )
        shares = [len(part) / len(x) for part in parts]
        values, gradients = zip(*found, strict=True)
        cost = sum(share * float(value) for share, value in zip(shares, values, strict=True))
        return cost, map_leaves(
            lambda *g: np.sum([s * d for s, d in zip(shares, g, strict=True)], axis=0, dtype=g[0].dtype), *gradients
        )

    @property
    def state(self) -> dict[str, Any]:
        """All that the next epoch depends on."""
        return {
            "params": self.params,
            "average": {"params": self.average.params, "steps": self.average.steps},
            "optimizer": self.optimizer.state,
            "model": self.model.state,
            "rng": self.rng,
            "history": json.dumps(self.history),
        }

    @state.setter
    def state(self, state: dict[str, Any]) -> None:
        self.optimizer.state = state["optimizer"]
        for target, source in ((self.params, state["params"]), (self.average.params, state["average"]["params"])):
            for (_, x), (_, value) in zip(leaves(target), leaves(source), strict=True):
                x[...] = value
        self.model.state = state["model"]
        self.average.steps, self.rng, self.history = (
            state["average"]["steps"],
            state["rng"],
            json.loads(state["history"]),
        )


def _part(model: Model, params: Any, x: np.ndarray, seed: np.random.SeedSequence) -> tuple[float, Any]:
    return scg.value_and_grad(model.cost)(params, x, rng=np.random.default_rng(seed))


def main(
    made: argparse.ArgumentParser, model: Callable[[argparse.Namespace], Model], argv: Sequence[str] | None = None
) -> int:
    """Parse the command line, train, report, draw; the exit status. Errors of data, files and options are told in one
    line."""
    chosen = argparse.Namespace()
    try:
        chosen, saved = options(made, argv)
        images = digits.load(chosen.data)
        with terminable(), processes(chosen.workers) if chosen.workers else nullcontext() as executor:
            return _run(model(chosen), images, chosen, saved, executor)
    except KeyboardInterrupt as signalled:
        there = "out" in chosen and (Path(chosen.out) / "checkpoint.npz").exists()
        print(f"\nstopped: {_goes_on(chosen) if there else 'no epoch was finished'}", file=sys.stderr)
        return 128 + (signalled.args[0] if signalled.args else signal.SIGINT)
    except BrokenExecutor:
        print(
            f"error: a worker process has died, as one does that is killed or runs out of memory; {_goes_on(chosen)},"
            " with fewer --workers where memory is short",
            file=sys.stderr,
        )
        return 1
    except checkpoint.CheckpointError as error:
        print(f"error: {error}; --overwrite starts anew, --out DIR elsewhere", file=sys.stderr)
        return 1
    except (DataError, scg.ScgError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _goes_on(chosen: argparse.Namespace) -> str:
    """What to type to go on with a run that was stopped."""
    return f"{chosen.example} --resume --out {shlex.quote(chosen.out)} goes on"


FIGURES = ("", "traversals", "plane", "bounds", "gradient-variance")
RUN = ("checkpoint.npz", "config.json", "metrics.jsonl", "result.json")


def _clear(out: Path, overwrite: bool) -> None:
    """Make room for a new run: raise DataError where ``out`` holds epochs of an earlier one, or remove that one."""
    begun = (out / "checkpoint.npz").exists() or (out / "result.json").exists()
    if begun and not overwrite:
        try:
            config = json.loads((out / "config.json").read_text(encoding="utf-8"))
            epochs = (out / "metrics.jsonl").read_text(encoding="utf-8").count("\n")
            what = f"a run of {config['example']} (seed {config['seed']}, {epochs} of {config['epochs']} epochs)"
        except (OSError, ValueError, KeyError, TypeError):
            what = "an earlier run"
        raise DataError(
            f"{out} holds {what}: --resume goes on with it, --overwrite removes it, --out DIR writes elsewhere"
        )
    for name in (*RUN, *(f"{figure or out.resolve().name}.png" for figure in FIGURES)):
        (out / name).unlink(missing_ok=True)


def _run(
    model: Model, images: Images, chosen: argparse.Namespace, saved: dict[str, Any] | None, executor: Executor | None
) -> int:
    trainer = Trainer(
        model,
        images,
        chosen.seed,
        chosen.batch,
        chosen.learning_rate,
        chosen.average,
        chosen.binarise,
        executor,
        not chosen.no_compile,
        chosen.threads,
    )
    out, file = Path(chosen.out), Path(chosen.out) / "checkpoint.npz"
    if not chosen.epochs and saved is None:
        raise DataError(
            "--epochs 0 trains nothing, and there is no checkpoint to evaluate: use --epochs 1 or more, or --resume"
            " with a run that is there"
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"--out {out}: expected a directory, or a place where one can be made: {error.strerror}"
        ) from error
    if saved is None:
        _clear(out, chosen.overwrite or chosen.resume)
    for stale in out.glob(".*.tmp"):  # of a run that was killed while it saved
        stale.unlink()
    config = {
        **{k: v for k, v in vars(chosen).items() if k not in ("resume", "overwrite", "figures")},
        "images": images.checksum,
    }
    if saved is not None:
        if saved["images"] != images.checksum:
            raise DataError(
                f"{images.name}: the checkpoint in {out} was made with other images; --resume needs the same"
            )
        trainer.state = checkpoint.load(file, like={"config": "", **trainer.state})
    write(
        out / "config.json",
        json.dumps({**config, "versions": {"python": platform.python_version(), "numpy": np.__version__}}, indent=2)
        + "\n",
    )
    write(out / "metrics.jsonl", "".join(json.dumps(entry) + "\n" for entry in trainer.history))
    size = sum(x.size for _, x in leaves(trainer.params))
    print(
        f"{images.name}: {len(images.train)} images to train on, {len(images.test)} held out; {size} parameters;"
        f" writing to {out}/"
    )

    finished = chosen.figures or _train(
        trainer, chosen, lambda: checkpoint.save(file, {"config": json.dumps(config), **trainer.state})
    )
    if not trainer.history:
        return 0
    print(f"evaluating on {len(trainer.held)} held-out images", flush=True)
    values = model.report(trainer.average.params, trainer.held, np.random.default_rng((chosen.seed, 0)))
    told = {name: {"value": r.value, "standard_error": r.error, "unit": r.unit} for name, r in values.items()}
    write(out / "result.json", json.dumps({"epochs": len(trainer.history), **told}, indent=2) + "\n")
    width = max(40, *map(len, values))
    for name, (value, error, unit) in values.items():
        places = 2 if abs(value) >= 1 else 4
        print(f"{name:{width}} {value:9.{places}f} {'' if error is None else f'+- {error:.{places}f} '}{unit}")
    _draw(
        lambda: model.figures(
            trainer.average.params, images, trainer.held, trainer.history, np.random.default_rng(chosen.seed)
        ),
        out,
        _title(chosen, len(trainer.history)),
    )
    if not finished:
        print(f"the time limit came after {len(trainer.history)} of {chosen.epochs} epochs: {_goes_on(chosen)}")
    return 0


def _train(trainer: Trainer, chosen: argparse.Namespace, save: Callable[[], None]) -> bool:
    """The epochs, each followed by a checkpoint; whether there was time for all."""
    started, done, metrics = time.monotonic(), len(trainer.history), Path(chosen.out) / "metrics.jsonl"
    with _progress(trainer, chosen.epochs) as (tick, say):
        while len(trainer.history) < chosen.epochs:
            elapsed, fresh = time.monotonic() - started, len(trainer.history) - done
            if chosen.time_limit and fresh and elapsed * (fresh + 1) / fresh > chosen.time_limit:
                return False
            entry = trainer.epoch(tick)
            save()
            _append(metrics, json.dumps(entry) + "\n")
            left = (time.monotonic() - started) / (fresh + 1) * (chosen.epochs - entry["epoch"])
            more = "".join(
                f"   {name} {value:.3g}"
                for name, value in entry.items()
                if name not in ("epoch", "train", "test", "seconds")
            )
            say(
                f"epoch {entry['epoch']:4}/{chosen.epochs}   train {entry['train']:8.2f}   test {entry['test']:8.2f}"
                f" nats{more}   {entry['seconds']:5.2f} s   {clock(left)} left"
            )
    return True


@contextmanager
def _progress(trainer: Trainer, epochs: int) -> Iterator[tuple[Callable[[], None], Callable[[str], None]]]:
    """(tick, say): a step is done; a line to print. On a terminal a bar shows the steps, tqdm's where it is
    installed."""
    if not sys.stderr.isatty():
        yield (lambda: None), (lambda line: print(line, flush=True))
        return
    try:
        from tqdm import tqdm
    except ImportError:
        count = iter(range(1, sys.maxsize))
        yield (
            (lambda: print(f"\rstep {next(count)}", end="", file=sys.stderr)),
            (lambda line: print(f"\r{line}", flush=True)),
        )
        return
    with tqdm(
        total=epochs * trainer.steps, initial=len(trainer.history) * trainer.steps, unit="step", leave=False
    ) as bar:
        yield bar.update, bar.write


def _title(chosen: argparse.Namespace, epochs: int) -> str:
    """What a figure shows: the example, what was chosen of its model and its estimator, the seed and the epochs."""
    said = ("decoder", "encoder", "prior", "bound", "k", "estimator", "state", "latents")
    parts = [f"{name} {vars(chosen)[name]}" for name in said if vars(chosen).get(name) is not None]
    example = chosen.example.rpartition(".")[2]
    return ", ".join([example, *parts, f"seed {chosen.seed}", f"{epochs} epochs"])


def _draw(figures: Callable[[], dict[str, Any]], out: Path, title: str) -> None:
    try:
        import matplotlib
    except ImportError:
        print('no figures: matplotlib is not installed (pip install -e ".[examples]"); then --figures draws them')
        return
    matplotlib.use("Agg")
    for name, figure in figures().items():
        figure.suptitle(title, x=0.01, ha="left", fontsize=9, color="0.35")
        path = out / f"{name or out.resolve().name}.png"
        temporary = path.with_name(f".{path.name}.tmp")
        with _whole(temporary, path):
            figure.savefig(temporary, dpi=110, format="png")
        print(f"figure: {path}")


def write(path: Path, text: str) -> None:
    """All of the text or nothing."""
    temporary = path.with_name(f".{path.name}.tmp")
    with _whole(temporary, path):
        temporary.write_text(text, encoding="utf-8")


def _append(path: Path, line: str) -> None:
    """All of the line or nothing."""
    with open(path, "ab", buffering=0) as file:
        end = file.tell()
        try:
            if file.write(data := line.encode()) < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            with suppress(OSError):
                file.truncate(end)
            raise OSError(
                error.errno, f"cannot write {path}: {error.strerror}; its earlier lines are unchanged"
            ) from error


@contextmanager
def _whole(temporary: Path, path: Path) -> Iterator[None]:
    """``path`` becomes what the block has written to ``temporary``; where the block fails, what stood there stays."""
    try:
        yield
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:  # what a full disk says does not name the file
            raise OSError(
                error.errno, f"cannot write {path}: {error.strerror}; what stood there is unchanged"
            ) from error
        raise


@contextmanager
def terminable() -> Iterator[None]:
    """Let a SIGTERM end the run as Ctrl-C does."""

    def stop(number: int, frame: Any) -> None:
        raise KeyboardInterrupt(number)

    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not the main thread: signals are somebody else's
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def processes(number: int) -> Iterator[Executor]:
    """Processes to share work out to; they end with this one, however it ends."""
    with ProcessPoolExecutor(number, multiprocessing.get_context("spawn"), initializer=_follow) as executor:
        yield executor


def _follow() -> None:
    def wait() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    threading.Thread(target=wait, daemon=True).start()


def clock(seconds: float) -> str:
    """Minutes and seconds."""
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes}:{seconds:02}"
