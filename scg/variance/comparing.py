"""Rows of estimators side by side: bias, variance and cost, with what they are worth."""

import math
from collections.abc import Callable
from concurrent.futures import Executor

import numpy as np

from scg import exact
from scg.bridge.samples import Sampled, Samples
from scg.core.aliases import Keywords, Result, Tree
from scg.core.ancestry import ancestors
from scg.core.node import Node
from scg.core.options import integer
from scg.core.progress import Progress, reporter
from scg.core.tree import leaves
from scg.errors import ScgError, ScgTypeError, ScgValueError, here
from scg.stochastic.graph import Graph, trace
from scg.testing.options import call_arguments
from scg.testing.structure import Subject, fixed, join, split
from scg.variance.bindings import Bindings, binding_of, is_model, pairs_of
from scg.variance.chunks import Tally, Task, chunk_size, generator, naming, run, usable, with_own_estimators
from scg.variance.entries import LEVEL, Measured, Reference
from scg.variance.entries import row as make_row
from scg.variance.evaluations import evaluations
from scg.variance.report import Report
from scg.variance.rows import Row
from scg.variance.threads import one_thread
from scg.variance.timing import BATCH, LONG, times_of

BUDGET = 2**18
# elements of an array of a graph for which exact values, whose cost is quadratic in them, are still looked for
_LARGE = 2**13


def compare(
    graph_or_truth: object,
    bindings: Bindings,
    *,
    args: tuple[object, ...] = (),
    kwargs: Keywords | None = None,
    replicates: int = 10_000,
    rng: np.random.Generator | None = None,
    precision: float | None = None,
    executor: Executor | Callable[[], Executor] | None = None,
    progress: Progress = None,
    baseline_row: str | None = None,
    budget: int = BUDGET,
    warmup: int = 0,
    _timed: float = LONG,
    _sure: int = 0,
) -> Report:
    """Bias, variance, signal-to-noise ratio and work of estimators of one gradient, a row each; see ``Report`` and
    ``Entry`` for what is in it.

    ``graph_or_truth`` is a Graph, or a function that returns a cost, which is traced with ``args`` and ``kwargs``
    (``rng`` among them). ``bindings`` maps the label of a row to estimators by node, ``{"DisARM": {"b": scg.DisARM()},
    "as declared": {}}``; to another Graph or function of the same parameters, where objectives that differ are to be
    compared; or to ``scg.bridge.Samples``, gradients from outside, in the same structure. Where all rows are of these
    kinds no graph is needed: the gradient as numbers may stand in its place, or None where it is not known.

    Every row is given ``replicates`` gradients; with ``precision=0.01`` only as many as it takes until the relative
    standard error of every row's variance is at most that, and never more than ``replicates`` (then ``report.precise``
    is False).

    Bias is against the numbers, where these are given; there is no such column where None is. Of a graph it is against
    the exact gradient of the row ``baseline_row`` (the first; of the graph, where that row is of Samples), where
    ``scg.exact.gradient`` reaches it within ``budget``; else against the mean of that row, in differences of runs with
    common random numbers: nan where fewer than ten of its samples carry its variance, since its mean is then not known.
    Exact variances stand beside the estimated ones where ``scg.exact.moments`` reaches them; ``budget=0`` leaves all
    that is exact out, and so do arrays of more than 8192 elements.

    A row that never varied has the variance 0 where exact moments say so, or where no sample leads to its gradient.
    Else what matters is too rare to have been seen: the variance has no upper end, is not reliable and not precise, and
    the bias is not known.

    Replicates are drawn in chunks of ``chunks.chunk_size``, chunk i from ``SeedSequence(entropy, spawn_key=(i,))``
    (``entropy`` is drawn from ``rng``), and merged in order. So memory is bounded, and all figures but the times are
    the same to the last bit for any ``executor``, a ``concurrent.futures.Executor`` (of processes, threads, or dask's
    ``client.get_executor()``) or a function that makes one, with any number of workers, also when one of these dies and
    its chunk is run again. Linear algebra has one thread where ``threadpoolctl`` is installed; else set
    OPENBLAS_NUM_THREADS=1, or its like, for workers that share a machine.

    Estimators that learn (a moving average, a trained control) do so in ``warmup`` gradients of each row, one run after
    the other, before anything is measured; then they stand, and the user's own learn nothing. With ``warmup=0`` they
    stand as they came, and a note below the table names their rows.

    Times are medians of rounds in which the rows take turns, in this process, of batches of replicates. A library that
    has threads of its own is timed with them: ``torch.set_num_threads(1)`` for one core.

    ``progress(done, replicates)`` is called after each chunk; ``progress=True`` shows a bar on stderr. Ctrl-C ends the
    drawing and not the comparison: what is reported is of the chunks that were finished, and ``report.interrupted`` is
    True.

    Raises ScgValueError, ScgTypeError or EstimatorError, with the row's name, for what is wrong with a row: an unknown
    node, one bound twice, an estimator that is not valid for its node, a cost or gradient that is not finite.
    """
    entropy = entropy_of(rng)
    checked(replicates, precision, budget)
    integer("warmup", warmup, 0)
    usable(executor)
    report = reporter(progress)
    graph, truth = _model(graph_or_truth, args, kwargs, rng)
    rows, estimators, counts = _rows(graph, truth, bindings, kwargs, args, rng, entropy)
    reference = next(iter(rows)) if baseline_row is None else baseline_row
    if reference not in rows:
        raise ScgValueError(
            f"baseline_row {baseline_row!r} is no row; there are {', '.join(map(repr, rows))} ({here()})"
        )
    learning = {label: row for label, row in rows.items() if isinstance(row, Graph) and _learns(row)}
    for label, row in learning.items():
        _warm(label, row, warmup, entropy)
    task = Task(rows, reference)
    gradient, against = _truth(graph, truth, rows[reference], reference, budget)
    moments = {label: _moments(row, budget) for label, row in rows.items()}
    task.reference = None if gradient is not None or not against else reference
    seconds = times_of(task, min(BATCH, replicates), entropy, _timed)
    size = chunk_size(replicates, sum(task.widths))
    sizes = [size] * (replicates // size) + [replicates % size] * (replicates % size > 0)

    still = [fixed(row, moments[label]) for label, row in rows.items()]

    def measured(tallies: list[Tally]) -> list[Measured]:
        return [
            Measured(label, estimators[label], row, tally, moments[label], known, counts[label], seconds[label])
            for (label, row), tally, known in zip(rows.items(), tallies, still, strict=True)
        ]

    def done(tallies: list[Tally], count: int) -> bool:
        report(count, replicates)
        return precision is not None and count > 1 and all(each.precise(precision) for each in measured(tallies))

    tallies, interrupted = run(task, sizes, entropy, executor, done)
    if _sure:
        for k, each in enumerate(measured(tallies)):
            if each.moments is None and each.unseen():
                moments[each.label] = _moments(each.subject, _sure)
                still[k] = fixed(each.subject, moments[each.label])
    found = {each.label: each for each in measured(tallies)}
    other = Reference(gradient, found[reference])
    made: dict[str, Row] = {}
    for label, each in found.items():
        made[label] = make_row(each, other, next(iter(made.values()), None))
    return Report(
        rows=made,
        reference=against,
        gradient=None if gradient is None else split(rows[reference], gradient),
        replicates=tallies[0].coordinates.count,
        seed=entropy,
        level=LEVEL,
        precision=precision,
        precise=precision is None or all(each.precise(precision) for each in found.values()),
        interrupted=interrupted,
        unlearned=() if warmup else tuple(learning),
    )


def as_graph(
    graph_or_fn: object, args: tuple[object, ...], kwargs: Keywords | None, rng: np.random.Generator | None
) -> Graph:
    """A graph as it is; a function traced with its arguments."""
    call_arguments(args, kwargs)
    if isinstance(graph_or_fn, Graph):
        if args or kwargs:
            raise ScgTypeError(
                f"a graph takes no further arguments: args and kwargs are those of a function ({here()})"
            )
        graph = graph_or_fn
    elif callable(graph_or_fn):
        graph = trace(graph_or_fn, *args, **{"rng": rng, **(kwargs or {})})
    else:
        raise ScgTypeError(f"a graph or a function is needed, got {type(graph_or_fn).__name__} ({here()})")
    if not sum(leaf.size for _, leaf in leaves(graph.parameters)):
        raise ScgValueError(f"the graph has no parameters: there is no gradient ({here()})")
    graph.require_nodes("a comparison of variances")
    graph.require_repeatable()
    return graph


def entropy_of(rng: np.random.Generator | None) -> int:
    """128 random bits, of which every chunk's seed is made."""
    if not isinstance(rng, np.random.Generator):
        got = "nothing" if rng is None else type(rng).__name__
        raise ScgTypeError(f"randomness is an argument: rng must be np.random.default_rng(seed), got {got} ({here()})")
    high, low = rng.integers(2**64, size=2, dtype=np.uint64).tolist()
    return int(high << 64 | low)


def checked(replicates: object, precision: object, budget: object) -> None:
    """Raise unless there are at least two replicates, as a variance needs, the precision, if any, is one, and so is the
    budget."""
    integer("replicates", replicates, 2)
    integer("budget", budget, 0)
    if precision is not None and not (isinstance(precision, (int, float, np.number)) and 0 < precision < 1):
        raise ScgValueError(
            f"precision is a relative standard error between 0 and 1, such as 0.01, got {precision!r} ({here()})"
        )


def _model(
    given: object, args: tuple[object, ...], kwargs: Keywords | None, rng: np.random.Generator | None
) -> tuple[Graph | None, object]:
    """(graph, None), or (None, what stands in its place: numbers or None)."""
    if isinstance(given, Graph) or callable(given):
        return as_graph(given, args, kwargs, rng), None
    call_arguments(args, kwargs)
    if args or kwargs:
        raise ScgTypeError(
            f"args and kwargs are those of a function, got {type(given).__name__} before them ({here()})"
        )
    if isinstance(given, Samples):
        raise ScgTypeError(
            f"Samples are a row: compare(truth, {{'mine': samples}}), with the gradient as truth, or None ({here()})"
        )
    for path, leaf in leaves(given):
        array = np.asarray(leaf)
        if array.dtype.kind not in "biuf" or not np.all(np.isfinite(array)):
            raise ScgTypeError(
                "a graph, a function, or the gradient as finite numbers is needed (None where it is not known), got"
                f" {leaf!r}{' at ' + path if path else ''} ({here()})"
            )
    return None, given


def _rows(
    graph: Graph | None,
    truth: object,
    bindings: Bindings,
    kwargs: Keywords | None,
    args: tuple[object, ...],
    rng: np.random.Generator | None,
    entropy: int,
) -> tuple[dict[str, Subject], dict[str, str], dict[str, float]]:
    pairs = pairs_of(bindings, "bindings", "label", "estimators by node")
    if not pairs:
        raise ScgValueError(f"there are no rows: write {{'a label': {{'a node': scg.ScoreFunction()}}}} ({here()})")
    rows: dict[str, Subject] = {}
    estimators: dict[str, str] = {}
    counts: dict[str, float] = {}
    shapes = None if graph is None and truth is None else _shapes(truth if graph is None else graph.parameters)
    for label, given in pairs:
        if not isinstance(label, str):
            raise ScgTypeError(f"the label of a row must be a string, got {label!r} ({here()})")
        if label in rows:
            raise ScgValueError(f"row {label!r} is there twice ({here()})")
        with naming(label):
            row = _row(graph, given, args, kwargs, rng, entropy)
            shapes = shapes or _shapes(row.parameters)
            if _shapes(row.parameters) != shapes:
                raise ScgValueError(
                    f"its parameters must be those of the others, {shapes}, got {_shapes(row.parameters)} ({here()})"
                )
            rows[label] = row
            # what an estimator only sees in the graph of a gradient, it refuses here
            counts[label] = _count(row, graph)
        estimators[label] = _estimators(row)
    return rows, estimators, counts


def _row(
    graph: Graph | None,
    given: object,
    args: tuple[object, ...],
    kwargs: Keywords | None,
    rng: np.random.Generator | None,
    entropy: int,
) -> Subject:
    if isinstance(given, Samples):
        return Sampled.of(given, generator(entropy, 1, 0))
    if isinstance(given, Graph):
        return with_own_estimators(as_graph(given, (), None, rng))
    if is_model(given):
        return with_own_estimators(as_graph(given, args, kwargs, rng))
    wanted = binding_of(given)
    if graph is None:
        raise ScgTypeError(
            "estimators by node need a graph: give one, or a function, in place of the numbers; a row without a graph"
            f" is scg.bridge.Samples(draw) ({here()})"
        )
    return with_own_estimators(graph.bind(wanted) if wanted else graph)


def _shapes(tree: Tree) -> list[tuple[str, tuple[int, ...]]]:
    return [(path, np.shape(leaf) if not hasattr(leaf, "shape") else tuple(leaf.shape)) for path, leaf in leaves(tree)]


def _count(row: Subject, graph: Graph | None) -> float:
    """Evaluations of the cost for one gradient, the cost being that of ``graph``; nan where Samples do not say."""
    if isinstance(row, Graph):
        return evaluations(with_own_estimators(row)) * _run_at_once(row, graph)
    return math.nan if row.samples.evaluations is None else row.samples.evaluations


def _run_at_once(row: Graph, graph: Graph | None) -> float:
    """How many runs of ``graph`` one run of a row of its own stands for: an objective of k samples evaluates the cost k
    times. Told by the elements of the stochastic nodes that both have, by name; 1 where they do not agree in it."""
    known = {} if graph is None else graph.stochastic
    ratios = {node.size / known[name].size for name, node in row.stochastic.items() if name in known}
    return ratios.pop() if len(ratios) == 1 else 1.0


def _estimators(row: Subject) -> str:
    if isinstance(row, Sampled):
        return repr(row.samples)
    used = {name: node.statics["site"].estimator for name, node in row.stochastic.items()}
    return ", ".join(f"{name}: {estimator!r}" for name, estimator in used.items())


def _truth(graph: Graph | None, truth: object, row: Subject, label: str, budget: int) -> tuple[Result, str]:
    """(The gradient of all coordinates, None where it is not known; what the bias is against, "" for nothing)."""
    if graph is None and truth is not None:
        return join(truth, 1)[0], "the given gradient"
    model = row if isinstance(row, Graph) else graph
    found = None if model is None else _gradient(model, budget)
    if found is not None:
        return found, "the exact gradient"
    return None, "" if graph is None else f"row {label!r}"


def _learns(graph: Graph) -> bool:
    return any(node.statics["site"].estimator.state for node in graph.stochastic.values())


def _warm(label: str, graph: Graph, runs: int, entropy: int) -> None:
    """Let a row's estimators learn, from run to run."""
    with naming(label), one_thread(), np.errstate(all="ignore"):
        for i in range(runs):
            graph.gradients(rng=generator(entropy, 2, i))


def _gradient(graph: Graph, budget: int) -> np.ndarray | None:
    """The exact gradient of all coordinates; None where it is out of reach."""
    if not budget or _largest([graph.cost]) > _LARGE:
        return None
    try:
        return join(exact.gradient(graph, budget=budget, time_limit=exact.PATIENCE), 1)[0]
    except ScgError:  # too large, not settled, an `if` that comes out otherwise, no quadrature rule
        return None


def _moments(row: Subject, budget: int) -> Result:
    """Exact (mean, variance) of the estimator, of all coordinates; None where they are out of reach."""
    if isinstance(row, Sampled) or not budget or row.runs_again:
        return None
    if _largest([g for g in row.recorded if type(g) is Node]) > _LARGE:
        return None
    try:
        found = exact.moments(row, budget=budget, time_limit=exact.PATIENCE)
    except ScgError:  # too large, not settled, an `if` that comes out otherwise, no quadrature rule
        return None
    return join(found.mean, 1)[0], np.maximum(join(found.variance, 1)[0], 0)


def _largest(roots: list[Node]) -> int:
    return max([node.size for node in ancestors(roots, guards=True) if type(node.raw) is not tuple], default=0)
