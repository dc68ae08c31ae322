"""The parts of a run: measured in worker processes, each kept in its own file as soon as it is there, so that a run can
stop at any moment."""

import importlib
import json
import multiprocessing
import os
import signal
import threading
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

_TRIES = 3  # how often the parts of workers that were killed are measured again


class ResumeError(Exception):
    """The parts that a run left belong to another one."""


@dataclass(frozen=True)
class Part:
    """One point of an experiment. Its random numbers depend on the seed, the experiment and the place in it: not on
    workers, nor on what was run before."""

    experiment: str
    index: int
    point: dict[str, Any]
    seed: int

    def file(self, folder: Path) -> Path:
        """Where its result is kept."""
        return folder / "parts" / self.experiment / f"{self.index:04}.json"

    def rng(self) -> np.random.Generator:
        """The generator of this part."""
        return np.random.default_rng(
            np.random.SeedSequence(self.seed, spawn_key=(zlib.crc32(self.experiment.encode()), self.index))
        )

    def key(self) -> dict[str, Any]:
        """What a kept result must have been made with."""
        return {"experiment": self.experiment, "seed": self.seed, "point": self.point}


def experiment(name: str) -> Any:
    """The module of an experiment."""
    return importlib.import_module(f"benchmarks.variance.{name}")


def parts(name: str, quick: bool, seed: int) -> list[Part]:
    """All parts of an experiment."""
    return [
        Part(name, i, json.loads(json.dumps(point)), seed) for i, point in enumerate(experiment(name).points(quick))
    ]


def kept(part: Part, folder: Path) -> Any:
    """The result that an earlier run left, or None. Raises ResumeError where it was made with another seed or other
    settings."""
    path = part.file(folder)
    try:
        record = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except ValueError as error:  # nothing here writes half a file; a full disk may
        raise ResumeError(f"{path} is damaged ({error}): remove it, and --resume measures it again") from None
    if record["key"] != part.key():
        raise ResumeError(
            f"{path} was made with {_difference(record['key'], part.key())}: use the same, another --out, or no"
            " --resume to start anew"
        )
    return record["result"]


def measure(part: Part) -> Any:
    """The result of a part."""
    return experiment(part.experiment).measure(part.point, part.rng())


def measured(todo: Sequence[Part], workers: int) -> Iterator[tuple[Part, Any]]:
    """(part, result) in the order in which they come: from ``workers`` processes, or with one worker from this one.

    Workers that die (killed, out of memory) are replaced, and what they had in hand is measured again, with the same
    random numbers.
    """
    if workers == 1:
        for part in todo:
            yield part, measure(part)
        return
    left = list(todo)
    for attempt in range(_TRIES):
        others = set(multiprocessing.active_children())
        pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _begin)
        try:
            futures = {pool.submit(measure, part): part for part in left}
            for future in as_completed(futures):
                result = future.result()
                left.remove(futures[future])
                yield futures[future], result
            return
        except BrokenProcessPool:
            if attempt + 1 == _TRIES:
                raise
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            # after Ctrl-C or an error nobody waits for what they do
            for process in set(multiprocessing.active_children()) - others:
                process.terminate()


def write(path: Path, content: bytes | str) -> None:
    """All of the content or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _begin() -> None:
    """In a worker: Ctrl-C is the parent's, and a worker without a parent ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


def _difference(found: dict[str, Any], wanted: dict[str, Any]) -> str:
    for name in ("seed", "experiment"):
        if found.get(name) != wanted[name]:
            return f"{name} {found.get(name)} and not {wanted[name]}"
    return f"the point {found.get('point')} and not {wanted['point']}"
