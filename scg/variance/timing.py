"""How long a gradient takes: rows take turns, so that what slows a machine down slows all."""

import statistics
import time

import numpy as np

from scg.bridge.samples import Sampled
from scg.core.node import Node
from scg.stochastic.replicates import BLOCK
from scg.testing.structure import Subject, depends
from scg.variance.chunks import Task, generator, naming
from scg.variance.threads import one_thread

# replicates of the first round; timed rounds, and the seconds that one of them should take at least
BATCH, _ROUNDS, LONG = 256, 7, 0.02


def times_of(task: Task, n: int, entropy: int, long: float) -> dict[str, float]:
    """The seconds a gradient takes: rows take turns in rounds, the first with n replicates each, the others with a
    batch of about ``long`` seconds.

    How many these are is told by a second call: the first may compile, and a batch that is small for that would have
    the cost of a call shared out among few.
    """
    batches, times = {}, {label: [] for label in task.rows}  # type: ignore[var-annotated]
    with one_thread(), np.errstate(all="ignore"):
        for label, row in task.rows.items():
            for _ in range(2 if long else 1):
                start = time.perf_counter()
                _gradients(label, row, generator(entropy, 0, 1), n)
                each = (time.perf_counter() - start) / n
            times[label].append(each)
            batches[label] = int(np.clip(long / max(each, 1e-9), 1, 16 * n))
        for i in range(_ROUNDS if long else 0):
            for label, row in task.rows.items():
                rng = generator(entropy, 0, 2 + i)
                start = time.perf_counter()
                _gradients(label, row, rng, batches[label])
                times[label].append((time.perf_counter() - start) / batches[label])
    return {label: statistics.median(t[1:] or t) for label, t in times.items()}


def _gradients(label: str, row: Subject, rng: np.random.Generator, n: int) -> None:
    """n gradients, as ``Graph.gradients`` computes them; where they depend on no sample, and one would do for all, by n
    runs. Errors name the row."""
    with naming(label):
        _computed(row, rng, n)


def _computed(row: Subject, rng: np.random.Generator, n: int) -> None:
    if (
        isinstance(row, Sampled)
        or row.runs_again
        or row.has_ifs
        or depends(*[g for g in row.recorded if type(g) is Node])
    ):
        row.gradients(rng=rng, replicates=n)
        return
    graph = row
    block = max(1, BLOCK // max(1, sum([x.raw.nbytes for x in graph.nodes if not isinstance(x.raw, tuple)])))
    for start in range(0, n, block):
        run = graph.run(rng=rng, replicates=min(block, n - start))
        graph.pulled(np.sum(run.cost), run.parameters)
