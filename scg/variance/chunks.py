"""Replicates in chunks: each from its own seed, on whatever executor, merged in order."""

import contextlib
import copy
import hashlib
import math
import pickle
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import BrokenExecutor, Executor, Future
from dataclasses import dataclass

import numpy as np

from scg.bridge.samples import Sampled
from scg.core.aliases import Result
from scg.core.tree import leaves
from scg.errors import ScgError, ScgTypeError, ScgValueError, here, kin
from scg.estimators.baselines import Baseline
from scg.stochastic.estimator import Estimator
from scg.stochastic.graph import Graph
from scg.testing.structure import Subject, join
from scg.variance.moments import CentralMoments, Squares
from scg.variance.threads import one_thread

LEAST, MOST, PARTS, ENTRIES = 256, 4096, 16, 2**22
_AHEAD = 64  # chunks that are handed to an executor before their turn to be merged
_PATIENCE = 1.0  # seconds between two looks at the workers
_RETRIES = 3  # fresh executors in a row that may break before any chunk is done


def chunk_size(replicates: int, coordinates: int) -> int:
    """Replicates of a chunk: a sixteenth of all, between 256 and 4096, and at most 2^22 numbers, but two. A function of
    these two and of nothing else."""
    return max(2, min(max(LEAST, -(-replicates // PARTS)), MOST, ENTRIES // max(1, coordinates)))


def generator(entropy: int, *key: int) -> np.random.Generator:
    """The generator of chunk i, from ``SeedSequence(entropy, spawn_key=(i,))``."""
    return np.random.default_rng(np.random.SeedSequence(entropy, spawn_key=key))


class RowFailure(ScgError, RuntimeError):
    """What a row is made of has raised an error that is none of scg's, or has ended its process."""


class WorkerError(RowFailure, BrokenExecutor):
    """Workers died, each time that a fresh executor took their place."""


@dataclass(frozen=True, eq=False)
class Tally:
    """What is kept of replicates of one row: moments of each coordinate, squared distances by parameter and in total
    (the last column), moments of the differences from the reference row where they are wanted."""

    coordinates: CentralMoments
    squares: Squares
    differences: CentralMoments | None

    @classmethod
    def of(cls, g: np.ndarray, widths: list[int], reference: np.ndarray | None) -> "Tally":
        """Of replicates g, (n, coordinates), by groups of ``widths`` coordinates.

        Squared distances S are from the mean of the chunk's other replicates, n / (n - 1) times as far as that of all.
        That mean, e, is without bias and independent of the sample x, T its squared distance from the true mean, so
        that

            Var S = Var T + 4 tr(Cov(x)^2) / (n - 1) + Var |e - E x|^2

        is a little too large. From one centre c for all chunks, at a distance d = E x - c, it would be Var T + 4
        d.Cov(T, x) + 4 d.Cov(x) d, which may be too small, and stays so however many replicates there are.
        """
        each = CentralMoments.of(g)
        y = g - each.mean
        further = (len(g) / max(1, len(g) - 1)) ** 2
        parts, at = [], 0
        for width in widths:
            part = y[:, at : at + width]
            parts.append(further * np.einsum("ij,ij->i", part, part))
            at += width
        columns = np.stack([*parts, sum(parts)], axis=1)
        return cls(each, Squares.of(columns), None if reference is None else CentralMoments.of(g - reference))

    @np.errstate(all="ignore")
    def merge(self, other: "Tally") -> "Tally":
        """Those of both."""
        differences = (
            None if self.differences is None or other.differences is None else self.differences.merge(other.differences)
        )
        return Tally(self.coordinates.merge(other.coordinates), self.squares.merge(other.squares), differences)


class Task:
    """The rows to be measured, each a graph of its own or Samples, and how a chunk of their replicates is drawn and
    tallied."""

    def __init__(self, rows: Mapping[str, Subject], reference: str | None = None):
        self.rows = rows  # graphs of their own, see ``with_own_estimators``
        self.graphs = [row for row in rows.values() if isinstance(row, Graph)]
        self.estimators = list(
            {
                id(r): r
                for g in self.graphs
                for n in g.stochastic.values()
                if _learns(r := n.statics["site"].estimator)
            }.values()
        )
        self.states = [copy.deepcopy(vars(estimator)) for estimator in self.estimators]
        self.reference = reference  # the row from which the others' differences are taken, first of all
        self.line = here()  # the user's, which a worker does not see
        first = next(iter(self.rows.values()))
        self.widths = [leaf.size for _, leaf in leaves(first.parameters)]

    def draws(self, label: str, n: int, rng: np.random.Generator, start: int = 0) -> np.ndarray:
        """n replicates of a row's gradient, (n, coordinates). Raises ScgValueError where a cost or gradient is not
        finite; errors name the row."""
        with naming(label), np.errstate(all="ignore"):
            g, costs = replicates(self.rows[label], rng, n)
        for what, x in (("cost", costs), ("gradient", g)):
            with np.errstate(all="ignore"):
                if np.isfinite(np.add.reduce(x, axis=None)):
                    continue
            wrong = ~np.isfinite(x)
            bad = wrong.reshape(len(x), -1).any(axis=1)
            if bad.any():
                r = int(np.argmax(bad))
                raise ScgValueError(
                    f"row {label!r}: the {what} of replicate {start + r} is not finite"
                    f" ({x[r][wrong[r]].reshape(-1)[0]}), and {int(bad.sum())} in all of {n}: a variance needs finite"
                    f" costs; look at the samples there, or bound the cost ({self.line})"
                )
        return g

    def chunk(self, index: int, size: int, start: int, entropy: int, alone: str | None = None) -> list[Tally]:
        """Chunk ``index``: ``size`` replicates of each row, or of the one ``alone``, from its seed; rows have random
        numbers in common."""
        with one_thread(), np.errstate(all="ignore"):
            self.reset(self.rows if alone is None else [alone])
            if alone is not None:
                return [Tally.of(self.draws(alone, size, generator(entropy, index), start), self.widths, None)]
            compared = (
                None if self.reference is None else self.draws(self.reference, size, generator(entropy, index), start)
            )
            found = []
            for label in self.rows:
                g = (
                    self.draws(label, size, generator(entropy, index), start)
                    if label != self.reference or compared is None
                    else compared
                )
                found.append(Tally.of(g, self.widths, compared))
            return found

    def reset(self, labels: Iterable[str]) -> None:
        """Let estimators be as they came: what one chunk may teach them is not for the next. Errors name the row."""
        for label in labels:
            if isinstance(row := self.rows[label], Graph):
                with naming(label):
                    _ = row.runs_again or row.recorded  # in which estimators meet the costs of the recorded run, once
        for estimator, state in zip(self.estimators, self.states, strict=True):
            vars(estimator).clear()
            vars(estimator).update(copy.deepcopy(state))

    def packed(self) -> bytes:
        """The task for another process. Raises ScgTypeError, which names the row, where it cannot travel."""
        for label, row in self.rows.items():
            try:
                pickle.dumps(row)
            except Exception as error:
                raise ScgTypeError(
                    f"row {label!r} cannot be sent to the workers of an executor: {error}; define what it is made of"
                    " (functions, primitives, baselines' functions, the draw of Samples) by name at the top level of a"
                    f" module, or leave executor=None ({here()})"
                ) from error
        return pickle.dumps(self)


def replicates(row: Subject, rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """(n replicates of the gradient, (n, coordinates) in float64; their costs, or nothing where there are none: where
    the function had to be traced again, and of Samples)."""
    if isinstance(row, Sampled):
        return join(row.gradients(rng=rng, replicates=n), n), np.zeros(0)
    graph = row
    if graph.runs_again:
        return join(graph.gradients(rng=rng, replicates=n), n), np.zeros(0)
    shapes = [np.shape(g) for g in graph.recorded]
    gradients, costs = np.empty((n, sum(map(math.prod, shapes)))), []
    start = 0
    for size, arrays, cost in graph.replicated(rng, n, costs=True):
        # a replicate axis where no sample gave one
        arrays = [np.broadcast_to(g, (size, *shape)) for g, shape in zip(arrays, shapes, strict=True)]
        gradients[start : start + size] = join(arrays, size)
        if cost is not None:
            costs.append(np.array(np.broadcast_to(cost, (size,))))
        start += size
    return gradients, np.concatenate(costs) if costs else np.zeros(0)


def run(
    task: Task,
    sizes: list[int],
    entropy: int,
    executor: Executor | Callable[[], Executor] | None = None,
    done: Callable[[list[Tally], int], bool] = lambda tallies, count: False,
) -> tuple[list[Tally], bool]:
    """(The tallies of all chunks, merged in their order, whether Ctrl-C came before they were done). ``done(tallies,
    replicates)`` is called after each, and returns whether that is enough. Ctrl-C before the first is done goes on to
    the caller.

    What ``executor`` does, and in which order, does not matter: a chunk is a function of its number. One whose worker
    dies is run again: by a fresh executor where ``executor`` is a function that makes them, else in this process.
    """
    starts = np.cumsum([0, *sizes]).tolist()
    jobs = [(i, size, start, entropy) for i, (size, start) in enumerate(zip(sizes, starts, strict=False))]
    pool = None if executor is None else _Pool(task, jobs, executor)
    merged: list[Tally] = []
    try:
        for i, job in enumerate(jobs):
            found = task.chunk(*job) if pool is None else pool.result(i)
            merged = [a.merge(b) for a, b in zip(merged, found, strict=True)] if merged else found
            if done(merged, starts[i + 1]):
                break
    except KeyboardInterrupt:
        if not merged:
            raise
        return merged, True
    finally:
        if pool is not None:
            pool.close()
    return merged, False


def usable(executor: object) -> None:
    """Raise ScgTypeError unless ``executor`` is None, an executor or a function."""
    if executor is not None and not isinstance(executor, Executor) and not callable(executor):
        raise ScgTypeError(
            "executor must be a concurrent.futures.Executor, such as ProcessPoolExecutor(2) or dask's"
            f" client.get_executor(), or a function that makes one, got {type(executor).__name__} ({here()})"
        )


class _Pool:
    """Chunks on an executor, a bounded number ahead of the one that is merged next."""

    def __init__(self, task: Task, jobs: list[tuple[int, int, int, int]], executor: Executor | Callable[[], Executor]):
        self.task, self.jobs, self.payload = task, jobs, task.packed()
        self.digest = hashlib.sha256(self.payload).hexdigest()
        self.make = None if isinstance(executor, Executor) else executor
        self.executor: Executor | None = executor if isinstance(executor, Executor) else executor()
        self.pending: dict[int, Future[list[Tally]]] = {}
        self.next, self.broken = 0, 0

    def result(self, i: int) -> list[Tally]:
        while self.executor is not None:
            try:
                while self.next < len(self.jobs) and self.next < i + _AHEAD:
                    self.pending[self.next] = self.executor.submit(
                        _remote, self.payload, self.digest, self.jobs[self.next]
                    )
                    self.next += 1
                found = self._wait(self.pending[i])
                del self.pending[i]
                self.broken = 0
                return found
            except BrokenExecutor as error:
                self._replace(i, error)
        return self.task.chunk(*self.jobs[i])

    def _wait(self, future: Future[list[Tally]]) -> list[Tally]:
        """The result, when it comes; looks after the executor meanwhile."""
        dead = 0
        while True:
            try:
                return future.result(timeout=_PATIENCE)
            except TimeoutError:
                if future.done():
                    raise  # the chunk's own
                dead = dead + 1 if _has_dead_workers(self.executor) else 0
                if dead == 2:  # what notices a death has had its time
                    _free(self.executor)

    def _replace(self, i: int, error: BrokenExecutor) -> None:
        """A worker died and took its executor with it: what has a result keeps it, the rest is run again."""
        self.broken += 1
        if self.make is None:
            warnings.warn(
                f"a worker died and broke the executor ({error}); the remaining chunks run in this process. Give"
                " executor= as a function that makes one, and a fresh one takes its place",
                RuntimeWarning,
                stacklevel=2,
            )
            self.executor = None
            return
        assert self.executor is not None
        if self.broken > _RETRIES:
            raise self._blamed(i, error) from error
        self.executor.shutdown(wait=False, cancel_futures=True)
        self.executor = self.make()
        for k, future in list(self.pending.items()):
            if not future.done() or future.cancelled() or future.exception() is not None:
                self.pending[k] = self.executor.submit(_remote, self.payload, self.digest, self.jobs[k])

    def _blamed(self, i: int, error: BrokenExecutor) -> ScgError:
        """The error that names the row whose chunk no worker survives: each is drawn alone, by an executor of its
        own."""
        assert self.make is not None
        times = f"its worker died {self.broken + 1} times in a row"
        advice = (
            "compare with executor=None finds the line, if it is the row's own; a worker may also have too little"
            " memory"
        )
        for label in self.task.rows:
            alone = self.make()
            try:
                alone.submit(_remote, self.payload, self.digest, self.jobs[i], label).result()
            except BrokenExecutor:
                return WorkerError(f"row {label!r}: {times} ({error}); {advice} ({self.task.line})")
            except Exception as own:
                return own if isinstance(own, ScgError) else WorkerError(f"row {label!r}: {own}")
            finally:
                alone.shutdown(wait=False, cancel_futures=True)
        return WorkerError(
            f"workers died {self.broken} times in a row ({error}), though each row alone is drawn by one; {advice}"
            f" ({self.task.line})"
        )

    def close(self) -> None:
        for future in self.pending.values():
            future.cancel()
        if self.make is not None and self.executor is not None:
            self.executor.shutdown(cancel_futures=True)


def _has_dead_workers(executor: object) -> bool:
    processes = getattr(executor, "_processes", None) or {}
    return any(getattr(process, "exitcode", None) is not None for process in list(processes.values()))


def _free(executor: Result) -> None:
    """Let a pool of processes see that it is broken. A worker that is killed while it writes a result leaves a part of
    it in the pipe, and ``ProcessPoolExecutor`` waits for the rest for ever: without any writer it meets the end of the
    pipe."""
    for process in list(executor._processes.values()):
        process.kill()
    writer = getattr(getattr(executor, "_result_queue", None), "_writer", None)
    if writer is not None and not writer.closed:
        writer.close()


_UNPACKED = threading.local()


def _remote(payload: bytes, digest: str, job: tuple[int, int, int, int], alone: str | None = None) -> list[Tally]:
    """A chunk in a worker, of all rows or of one ``alone``; a worker keeps the task that it unpacked last."""
    if getattr(_UNPACKED, "digest", None) != digest:
        _UNPACKED.task, _UNPACKED.digest = pickle.loads(payload), digest
    found: list[Tally] = _UNPACKED.task.chunk(*job, alone)
    return found


@contextlib.contextmanager
def naming(label: str) -> Iterator[None]:
    """Let the errors within name the row."""
    try:
        yield
    except (Exception, SystemExit) as error:
        raise _named(error, label) from error


def _named(error: BaseException, label: str) -> BaseException:
    """The error with the row in front, a ScgError of its builtin kind; its message alone travels from a worker,
    whatever else the error holds."""
    if isinstance(error, ScgError):
        try:
            return type(error)(f"row {label!r}: {error}")
        except TypeError:
            return ScgValueError(f"row {label!r}: {error}")
    if isinstance(error, MemoryError):
        return error
    kind = kin(error) if isinstance(error, Exception) else None
    return (kind or RowFailure)(f"row {label!r}: {type(error).__name__}: {error}")


def with_own_estimators(graph: Graph) -> Graph:
    """The graph with estimators of its own, so that nothing here teaches the user's; and without its function where no
    ``if`` needs it."""
    mine: dict[str, Estimator] = {}
    for name, node in graph.stochastic.items():
        estimator = node.statics["site"].estimator
        if _learns(estimator):
            mine[name] = copy.deepcopy(estimator)
            for part in vars(mine[name]).values():
                for learner in part.learners() if isinstance(part, Baseline) else ():
                    learner.carry_over()
    bound = graph.bind(mine) if mine else graph
    again = bound.again if bound.has_ifs else None
    return Graph(bound.cost, bound.parameters, again=again, bindings=bound.bindings)


def _learns(estimator: Estimator) -> bool:
    return any(not isinstance(value, (int, float, str, type(None), np.generic)) for value in vars(estimator).values())
