"""The trainer that the examples share: epochs of doubly stochastic gradient steps, with checkpoints from which a run goes on bit for bit."""

import argparse
import json
import math
import os
import platform
import signal
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import scg
from examples import digits
from examples.digits import DataError, Images
from scg import checkpoint, optim
from scg.errors import NonFiniteError, ScgValueError
from scg.tree import leaves

FREE = ("epochs", "time_limit", "out", "resume", "data")
"""Options that a resumed run may change; the data may move, and are compared by checksum."""


class Model(ABC):
    """What an example gives to the trainer. Bounds are in nats for one datum, and larger is better."""

    @abstractmethod
    def initial(self, pixels: np.ndarray, rng: np.random.Generator) -> Any:
        """Parameters to start from, a structure of arrays; ``pixels`` are the training images as rows of 0 to 255."""

    @abstractmethod
    def bound(self, params: Any, x: Any, rng: np.random.Generator) -> Any:
        """An unbiased estimate of the bound for each row of ``x``, in terms of nodes: what training maximizes the mean of."""

    @abstractmethod
    def test(self, params: Any, x: np.ndarray, rng: np.random.Generator) -> float:
        """The mean bound over the rows of ``x``."""

    @abstractmethod
    def report(self, params: Any, x: np.ndarray, rng: np.random.Generator) -> dict[str, tuple[float, float]]:
        """What is said at the end: (value, standard error) by name."""

    @abstractmethod
    def figure(self, params: Any, images: Images, x: np.ndarray, history: list[dict[str, Any]], rng: np.random.Generator) -> Any:
        """A matplotlib figure of the trained model; ``x`` are the binarised held-out rows."""


def parser(name: str, description: str, *, epochs: int, average: float = 0.998) -> argparse.ArgumentParser:
    """The options that all examples have; the example adds its own."""
    made = argparse.ArgumentParser(prog=f"python -m examples.{name}", description=description, formatter_class=_Help)
    data = made.add_argument_group("data")
    data.add_argument("--data", metavar="DIR", help="directory of a set in IDX format (MNIST, Fashion-MNIST), or fashion-mnist for Debian's package (default: the embedded digits)")
    run = made.add_argument_group("the run")
    run.add_argument("--out", metavar="DIR", default=f"runs/{name}", help="where metrics.jsonl, config.json, checkpoint.npz and the figure go")
    run.add_argument("--resume", action="store_true", help="go on from DIR/checkpoint.npz, bit for bit as if the run had not stopped")
    run.add_argument("--epochs", metavar="N", type=whole, default=epochs, help="passes over the training images")
    run.add_argument("--time-limit", metavar="S", type=positive, help="stop after the last epoch that ends within S seconds (default: none)")
    run.add_argument("--seed", metavar="N", type=whole, default=0, help="of the initial parameters, the minibatches and the noise")
    step = made.add_argument_group("the steps")
    step.add_argument("--batch", metavar="N", type=natural, default=100, help="images in a minibatch")
    step.add_argument("--learning-rate", metavar="A", type=positive, default=1e-3, help="of Adam")
    step.add_argument("--average", metavar="D", type=fraction, default=average, help="decay of the average over steps that is evaluated; 0 evaluates the last step")
    return made


def main(made: argparse.ArgumentParser, model: Callable[[argparse.Namespace], Model], argv: Sequence[str] | None = None) -> int:
    """Parse the command line, train, report, draw; the exit status. Errors of data, files and options are told in one line."""
    options = argparse.Namespace()
    try:
        options, saved = _options(made, argv)
        images = digits.load(options.data)
        with _terminable():
            return _run(model(options), images, options, saved)
    except KeyboardInterrupt as signalled:
        goes_on = f"--resume --out {options.out} goes on" if (Path(options.out) / "checkpoint.npz").exists() else "no epoch was finished"
        print(f"\nstopped: {goes_on}", file=sys.stderr)
        return 128 + (signalled.args[0] if signalled.args else signal.SIGINT)
    except (DataError, scg.ScgError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def binarise(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Black and white by chance, float32: each pixel of 0 to 255 is 1 with probability pixel / 255, exactly."""
    return (rng.integers(0, 255, pixels.shape, dtype=np.uint8) < pixels).astype(np.float32)


class Trainer:
    """A model in training: parameters, their average, the optimizer, the generator and the history; ``state`` is all of it.

    One epoch visits the images in a fresh uniform order, so that each minibatch of B of the N images is drawn uniformly, binarises them afresh
    and takes one draw of noise for each: a doubly stochastic gradient. With the factor N / B the minibatch's sum is an unbiased estimate of the
    sum over all images; the cost is minus this estimate for one datum, so that N cancels and the minibatch's mean is left.
    """

    def __init__(self, model: Model, images: Images, seed: int, batch: int, learning_rate: float, average: float):
        self.model, self.seed, self.batch = model, seed, batch
        self.pixels = images.train.reshape(len(images.train), -1)
        if batch > len(self.pixels):
            raise DataError(f"{images.name}: a minibatch of {batch} needs as many training images, got {len(self.pixels)}")
        self.held = binarise(images.test.reshape(len(images.test), -1), np.random.default_rng(1905))  # once, and the same for every seed
        self.rng = np.random.default_rng(seed)
        self.params = model.initial(self.pixels, self.rng)
        self.optimizer = optim.Adam(self.params, learning_rate)
        self.average = optim.Average(self.params, average)
        self.history: list[dict[str, Any]] = []
        self._gradient = scg.value_and_grad(self.cost)

    @property
    def steps(self) -> int:
        """Steps in an epoch."""
        return len(self.pixels) // self.batch

    def cost(self, params: Any, x: np.ndarray, rng: np.random.Generator) -> Any:
        """Minus the bound for one datum, estimated from a minibatch."""
        return -np.mean(self.model.bound(params, x, rng))

    def epoch(self, tick: Callable[[], None] = lambda: None) -> dict[str, Any]:
        """One epoch; the entry that it adds to the history."""
        started, total = time.monotonic(), 0.0
        order = self.rng.permutation(len(self.pixels))
        for k in range(self.steps):
            total -= self.step(self.pixels[order[k * self.batch : (k + 1) * self.batch]])
            tick()
        number = len(self.history) + 1
        test = self.model.test(self.average.params, self.held, np.random.default_rng((self.seed, number)))
        entry = {"epoch": number, "train": total / self.steps, "test": test, "seconds": round(time.monotonic() - started, 3)}
        self.history.append(entry)
        return entry

    def step(self, pixels: np.ndarray) -> float:
        """One step of the optimizer; the cost before it. Raises NonFiniteError, before anything has changed, naming the operation."""
        x = binarise(pixels, self.rng)
        before = self.rng.bit_generator.state
        try:
            value, gradient = self._gradient(self.params, x, rng=self.rng)
            if not math.isfinite(value):
                raise NonFiniteError(f"the cost is {value}")
            self.optimizer.step(gradient)
        except (NonFiniteError, ScgValueError) as error:  # a law refuses a NaN or infinite parameter with a ScgValueError
            where = f"epoch {len(self.history) + 1}, step {self.optimizer.steps + 1}"
            self.rng.bit_generator.state = before
            try:
                with scg.detect_nan():
                    self._gradient(self.params, x, rng=self.rng)
            except scg.ScgError as origin:
                raise NonFiniteError(f"training stopped in {where}: {origin}; checkpoints of earlier epochs are intact") from error
            raise NonFiniteError(f"training stopped in {where}: {error}; checkpoints of earlier epochs are intact") from error
        self.average.step(self.params)
        return float(value)

    @property
    def state(self) -> dict[str, Any]:
        """All that the next epoch depends on."""
        return {
            "params": self.params,
            "average": {"params": self.average.params, "steps": self.average.steps},
            "optimizer": self.optimizer.state,
            "rng": self.rng,
            "history": json.dumps(self.history),
        }

    @state.setter
    def state(self, state: dict[str, Any]) -> None:
        self.optimizer.state = state["optimizer"]
        for target, source in ((self.params, state["params"]), (self.average.params, state["average"]["params"])):
            for (_, x), (_, value) in zip(leaves(target), leaves(source), strict=True):
                x[...] = value
        self.average.steps, self.rng, self.history = state["average"]["steps"], state["rng"], json.loads(state["history"])


def _run(model: Model, images: Images, options: argparse.Namespace, saved: dict[str, Any] | None) -> int:
    trainer = Trainer(model, images, options.seed, options.batch, options.learning_rate, options.average)
    out, file = Path(options.out), Path(options.out) / "checkpoint.npz"
    out.mkdir(parents=True, exist_ok=True)
    for stale in out.glob(".checkpoint.npz.*.tmp"):  # of a run that was killed while it saved
        stale.unlink()
    config = {**vars(options), "images": images.checksum}
    if saved is not None:
        if saved["images"] != images.checksum:
            raise DataError(f"{images.name}: the checkpoint in {out} was made with other images; --resume needs the same")
        trainer.state = checkpoint.load(file, like={"config": "", **trainer.state})
    _write(out / "config.json", json.dumps({**config, "versions": {"python": platform.python_version(), "numpy": np.__version__}}, indent=2) + "\n")
    _write(out / "metrics.jsonl", "".join(json.dumps(entry) + "\n" for entry in trainer.history))
    size = sum(x.size for _, x in leaves(trainer.params))
    print(f"{images.name}: {len(images.train)} images to train on, {len(images.test)} held out; {size} parameters; writing to {out}/")

    finished = _train(trainer, options, lambda: checkpoint.save(file, {"config": json.dumps(config), **trainer.state}))
    if not trainer.history:
        return 0
    values = model.report(trainer.average.params, trainer.held, np.random.default_rng((options.seed, 0)))
    _write(out / "result.json", json.dumps({"epochs": len(trainer.history), **{k: {"value": v, "standard_error": s} for k, (v, s) in values.items()}}, indent=2) + "\n")
    for name, (value, error) in values.items():
        print(f"{name:40} {value:9.2f} +- {error:.2f} nats")
    _draw(lambda: model.figure(trainer.average.params, images, trainer.held, trainer.history, np.random.default_rng(options.seed)), out)
    if not finished:
        print(f"the time limit came after {len(trainer.history)} of {options.epochs} epochs: --resume --out {out} goes on")
    return 0


def _train(trainer: Trainer, options: argparse.Namespace, save: Callable[[], None]) -> bool:
    """The epochs, each followed by a checkpoint; whether there was time for all."""
    started, done = time.monotonic(), len(trainer.history)
    with open(Path(options.out) / "metrics.jsonl", "a", encoding="utf-8") as metrics, _progress(trainer, options.epochs) as (tick, say):
        while len(trainer.history) < options.epochs:
            elapsed, fresh = time.monotonic() - started, len(trainer.history) - done
            if options.time_limit and fresh and elapsed * (fresh + 1) / fresh > options.time_limit:
                return False
            entry = trainer.epoch(tick)
            save()
            metrics.write(json.dumps(entry) + "\n")
            metrics.flush()
            left = (time.monotonic() - started) / (fresh + 1) * (options.epochs - entry["epoch"])
            say(f"epoch {entry['epoch']:4}/{options.epochs}   train {entry['train']:8.2f}   test {entry['test']:8.2f} nats   {entry['seconds']:5.2f} s   {_clock(left)} left")
    return True


@contextmanager
def _progress(trainer: Trainer, epochs: int) -> Iterator[tuple[Callable[[], None], Callable[[str], None]]]:
    """(tick, say): a step is done; a line to print. On a terminal a bar shows the steps, tqdm's where it is installed."""
    if not sys.stderr.isatty():
        yield (lambda: None), (lambda line: print(line, flush=True))
        return
    try:
        from tqdm import tqdm
    except ImportError:
        count = iter(range(1, sys.maxsize))
        yield (lambda: print(f"\rstep {next(count)}", end="", file=sys.stderr)), (lambda line: print(f"\r{line}", flush=True))
        return
    with tqdm(total=epochs * trainer.steps, initial=len(trainer.history) * trainer.steps, unit="step", leave=False) as bar:
        yield bar.update, bar.write


def _options(made: argparse.ArgumentParser, argv: Sequence[str] | None) -> tuple[argparse.Namespace, dict[str, Any] | None]:
    """Options, and with --resume those of the checkpoint, which are the defaults then: the ones that shape the run must not differ."""
    absent = object()
    names = {action.dest: action.default for action in made._actions if action.dest != "help"}
    parsed = vars(made.parse_args(argv, argparse.Namespace(**dict.fromkeys(names, absent))))
    given = {name: value for name, value in parsed.items() if value is not absent}
    path = Path(given.get("out", names["out"])) / "checkpoint.npz"
    if not given.get("resume"):
        return argparse.Namespace(**{**names, **given}), None
    if not path.exists():
        print(f"{path} does not exist: the run starts from the beginning")
        return argparse.Namespace(**{**names, **given}), None
    content = checkpoint.load(path)
    if not isinstance(content, dict) or not isinstance(content.get("config"), str):
        raise checkpoint.CheckpointError(f"{path} is no checkpoint of an example")
    saved = json.loads(content["config"])
    config = {name: value for name, value in saved.items() if name in names}
    for name, value in given.items():
        if name not in FREE and config.get(name, value) != value:
            made.error(f"--{name.replace('_', '-')} {value}: the run in {path.parent} was made with {config[name]}, and --resume goes on with the same")
    return argparse.Namespace(**{**names, **config, "time_limit": None, **given}), saved


def _draw(figure: Callable[[], Any], out: Path) -> None:
    try:
        import matplotlib
    except ImportError:
        print('no figure: matplotlib is not installed (pip install -e ".[examples]"); then --resume draws it')
        return
    matplotlib.use("Agg")
    path = out / f"{out.name}.png"
    figure().savefig(path, dpi=110)
    print(f"figure: {path}")


def _write(path: Path, text: str) -> None:
    """All of the text or nothing."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def _terminable() -> Iterator[None]:
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


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes}:{seconds:02}"


def _number(kind: type, low: float, high: float, what: str) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not low <= value < high:
            raise argparse.ArgumentTypeError(f"expected {what}, got {text!r}")
        return value

    return parse


natural = _number(int, 1, math.inf, "a whole number from 1")
whole = _number(int, 0, math.inf, "a whole number from 0")
positive = _number(float, math.ulp(0.0), math.inf, "a positive number")
fraction = _number(float, 0, 1, "a number from 0, below 1")


class _Help(argparse.RawDescriptionHelpFormatter):
    """The description as it is written, and defaults beside the options that have one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        shown = action.help and not (action.default is None or action.default is False or action.default is argparse.SUPPRESS)
        return f"{action.help} (default: %(default)s)" if shown else action.help
