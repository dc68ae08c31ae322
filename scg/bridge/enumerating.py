"""The exact mean and variance of what a program from outside returns, over every outcome of its discrete samples."""

import math
from dataclasses import dataclass

import numpy as np

from scg.bridge.branching import Outcome, Paths
from scg.core.aliases import Function, Operands, Tree
from scg.core.options import integer, number
from scg.core.progress import Progress, reporter
from scg.core.tree import leaves, rebuild
from scg.errors import ScgTypeError, ScgValueError, here

FRAMEWORKS = ("numpy", "torch", "jax")


@dataclass(frozen=True, eq=False)
class Found:
    """What ``enumerate`` found, in the structure of what the function returns.

    ``mean``, ``variance``  over all outcomes, in float64
    ``error``        what the mean may be off: rounding of the sums, and what lies beyond the tails that were cut
    ``variance_error``  the same of the variance
    ``outcomes``     every result, stacked along a first axis: one row a run, in an order that is always the same
    ``probability``  (runs,) the probability of each
    ``missing``      the probability that is in none of them: beyond the tails
    """

    mean: Tree
    variance: Tree
    error: Tree
    variance_error: Tree
    outcomes: Tree
    probability: np.ndarray
    missing: float

    def __repr__(self) -> str:
        tail = f", {self.missing:.1e} missing" if self.missing else ""
        return f"<Found {len(self.probability):,} outcomes{tail}: mean {_short(self.mean)}>"

    def __str__(self) -> str:
        rows = [("element", "mean", "variance", "error of the mean")]
        parts = zip(*[leaves(tree) for tree in (self.mean, self.variance, self.error)], strict=True)
        for (path, mean), (_, variance), (_, error) in parts:
            for index in list(np.ndindex(mean.shape))[:20]:
                at = path + (f"[{', '.join(map(str, index))}]" if index else "")
                rows.append((at or "result", f"{mean[index]:.9g}", f"{variance[index]:.9g}", f"{error[index]:.1e}"))
            if mean.size > 20:
                rows.append((f"{path} ({mean.size - 20} more)", "", "", ""))
        widths = [max(len(row[i]) for row in rows) for i in range(4)]
        table = [
            "  ".join([row[0].ljust(widths[0]), *[c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True)]])
            for row in rows
        ]
        return "\n".join([f"{len(self.probability):,} outcomes, probability {self.missing:.1e} missing", *table])


def enumerate(
    fn: Function,
    *args: object,
    framework: str = "numpy",
    budget: int = 2**16,
    tail: float = 1e-14,
    progress: Progress = None,
) -> Found:
    """Every outcome of the discrete samples of a program in NumPy, PyTorch or JAX: E[g] = sum of p_i g_i, exactly.

    The program runs once for each outcome, depth first. Where it draws, it is handed the next value that is possible;
    a batch of samples branches element by element. Each result is weighted by the product of the probabilities of its
    values, in float64 whatever the program computes in. So the mean and the variance of an estimator are known without
    a single random number, and two estimators are compared, or one with its gradient, to rounding.

    - ``framework="numpy"`` calls ``fn(*args, rng=rng)``: any function of discrete samples. ``rng`` is a
      ``numpy.random.Generator`` whose ``binomial``, ``integers``, ``choice``, ``multinomial``, ``hypergeometric``,
      ``multivariate_hypergeometric``, ``permutation``, ``permuted``, ``shuffle``, ``geometric``, ``poisson``,
      ``negative_binomial`` and ``logseries`` branch.
    - ``framework="torch"`` calls ``fn(*args)``, or ``fn(*args, generator)`` where it takes one more argument than there
      are, or one called ``generator``. A scalar that is connected to the arguments is a loss: its gradient is
      enumerated, in the structure of the arguments (of those tensors that require one, or, where none does, of all that
      are real numbers); else what is returned is. ``torch.bernoulli``, ``multinomial``, ``randint``, ``randperm``,
      ``binomial``, ``poisson``, ``Tensor.bernoulli_``, ``geometric_`` and ``random_``, dropout, and what
      ``torch.distributions`` draws by them, branch, in this thread and as long as the call lasts.
    - ``framework="jax"`` calls ``fn(key, *args)``, with ``jax.jit`` and its kin switched off. ``jax.random.bernoulli``,
      ``categorical``, ``choice``, ``randint``, ``permutation``, ``rademacher``, ``binomial``, ``geometric`` and
      ``poisson`` branch, also inside ``jax.vmap`` and ``jax.grad``. Which key is given does not matter, but a key that
      is used twice gives the same numbers twice, as it does in JAX.

    Samples of continuous distributions are refused: ``rng.random() < p`` is one, whose p cannot be seen; write
    ``rng.binomial(1, p)``. Supports without end are cut where less than ``tail`` of the probability is beyond. What
    lies there is estimated from the last two blocks of values, as the rest of a geometric series; where they do not
    fall off the mean is refused, and the variance infinite. A program that keeps state, or draws elsewhere, comes out
    otherwise when the first and the last outcome are run again at the end, and is refused. What it draws from a
    generator that it seeds itself is a constant here.

    ``progress(done, about)`` is called with the number of outcomes; True shows a bar.

    Raises ScgValueError where there are more than ``budget`` outcomes, and says how many; where results change their
    structure or shape, or are not finite; ScgTypeError where they are no real numbers.

    >>> import numpy as np
    >>> from scg import bridge
    >>> def score(theta, rng):
    ...     p = 1 / (1 + np.exp(-theta))
    ...     b = rng.binomial(1, p)
    ...     return (b - 0.45) ** 2 * (b - p)
    >>> found = bridge.enumerate(score, 0.0)
    >>> print(len(found.probability), f"{found.mean:.4f} {found.variance:.6f}")
    2 0.0250 0.015939
    """
    if not callable(fn):
        raise ScgTypeError(f"enumerate needs a function, got {type(fn).__name__} ({here()})")
    if framework not in FRAMEWORKS:
        raise ScgValueError(f"framework must be one of {', '.join(FRAMEWORKS)}, got {framework!r} ({here()})")
    tree = Paths(integer("budget", budget, 1))
    tail, report = number("tail", tail, 0, 0.01), reporter(progress)
    if framework == "numpy":
        from scg.bridge.numpy_draws import program
    elif framework == "torch":
        from scg.bridge.torch_draws import program
    else:
        from scg.bridge.jax_draws import program
    structure: list[Tree] = []
    rows: list[Outcome] = []
    with program(fn, args, tree, tail) as run:

        def once() -> list[np.ndarray]:
            result = run()
            structure[:] = structure or [result]
            return _flat(result, structure[0])

        rows.extend(tree.walk(once, report))
    return _found(structure[0], rows)


def _flat(result: Tree, like: Tree) -> list[np.ndarray]:
    """The arrays of a result, in the order of those of the first one."""
    arrays, wanted = list(leaves(result)), list(leaves(like))
    if [path for path, _ in arrays] != [path for path, _ in wanted]:
        raise ScgValueError(
            f"enumerate: the structure of a result must stay, got {[path for path, _ in arrays]} after"
            f" {[path for path, _ in wanted]} ({here()})"
        )
    if not arrays:
        raise ScgTypeError(f"enumerate: the function must return numbers, got {type(result).__name__} ({here()})")
    found = []
    for (path, leaf), (_, first) in zip(arrays, wanted, strict=True):
        array = np.array(leaf)
        if array.dtype.kind not in "biuf":
            raise ScgTypeError(
                f"enumerate: the function must return real numbers, or a structure of them; got {type(leaf).__name__}"
                f" of {array.dtype} at {path or 'its result'} ({here()})"
            )
        if array.shape != np.shape(first):
            raise ScgValueError(
                f"enumerate: the shape of a result must stay, got {array.shape} after {np.shape(first)} at"
                f" {path or 'the result'} ({here()})"
            )
        if not np.all(np.isfinite(array)):
            raise ScgValueError(f"enumerate: a result is not finite at {path or 'the result'}: {array} ({here()})")
        found.append(array)
    return found


def _found(structure: Tree, rows: list[Outcome]) -> Found:
    weights = np.array([row.probability for row in rows])
    blocks = np.array([row.block for row in rows])
    missing = max(0.0, 1.0 - math.fsum(weights)) if np.any(blocks < 2) else 0.0
    columns = [np.stack(column) for column in zip(*[row.result for row in rows], strict=True)]
    parts = [_moments(column.astype(float), weights, blocks, missing) for column in columns]
    mean, variance, error, variance_error = (rebuild(structure, iter(part)) for part in zip(*parts, strict=True))
    return Found(mean, variance, error, variance_error, rebuild(structure, iter(columns)), weights, missing)


def _moments(x: np.ndarray, weights: np.ndarray, blocks: np.ndarray, missing: float) -> Operands:
    """Mean, variance, and their errors, of the rows of ``x``."""
    flat = x.reshape(len(x), -1)
    rounding = np.finfo(float).eps * (math.log2(len(x)) + 16)
    if not missing:
        weights = weights / np.sum(weights)  # one but for rounding
    mean = weights @ flat
    centred = flat - mean
    # what is missing has the mean's own place: sums over what is there, centred once more
    shift = weights @ centred
    variance = weights @ centred**2 - shift**2
    size = weights @ np.abs(flat)
    error, variance_error = (
        rounding * size,
        rounding * (variance + 4 * size * np.max(np.abs(centred), axis=0, initial=0)),
    )
    if missing:
        error = error + (beyond := _beyond(np.abs(flat), weights, blocks))
        if np.any(beyond == np.inf):
            raise ScgValueError(
                "enumerate: the results grow as fast as the probabilities of a support without end fall: the mean does"
                f" not exist, or needs a smaller tail= ({here()})"
            )
        beyond = _beyond(centred**2, weights, blocks)
        variance_error = variance_error + beyond + missing * variance + error**2
        variance = np.where(beyond == np.inf, np.inf, variance)
    return tuple(np.asarray(part).reshape(x.shape[1:]) for part in (mean, variance, error, variance_error))


def _beyond(size: np.ndarray, weights: np.ndarray, blocks: np.ndarray) -> np.ndarray:
    """Twice the rest of the geometric series that goes on from the last two blocks of supports that were cut; infinity
    where these do not fall."""
    last, before = (weights[blocks == b] @ size[blocks == b] for b in (0, 1))
    ratio = np.divide(last, before, out=np.full_like(last, 1.0), where=before > 0)
    rest = 2 * last * ratio / np.where(ratio < 1, 1 - ratio, 1.0)
    return np.where(last == 0, 0.0, np.where(ratio < 1, rest, np.inf))


def _short(tree: Tree) -> str:
    text = repr(tree)
    return text if len(text) < 60 else text[:57] + "..."
