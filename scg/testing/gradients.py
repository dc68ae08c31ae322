"""Derivatives against independent numerics: complex steps where a function is analytic, extrapolated differences
elsewhere."""

import functools
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

import numpy as np

from scg.core.aliases import Function, Keywords, Result
from scg.core.backward import pull
from scg.core.leaves import parameter
from scg.core.node import Node, Value
from scg.core.operands import described
from scg.core.options import integer
from scg.core.tree import leaves, rebuild
from scg.errors import ScgTypeError, ScgValueError, here
from scg.stochastic.lifting import Argnums
from scg.testing.numerics import EPS, SAFETY, change_of, extrapolated, noise_of, size_of

COORDINATES = 8  # so many elements of an argument are checked one by one, more along random directions


def check_gradient(
    fn: Function,
    *args: object,
    order: int = 2,
    argnums: int | Sequence[int] | None = None,
    rng: np.random.Generator | None = None,
    **kwargs: object,
) -> None:
    """Check scg's derivatives of ``fn`` at ``args``, up to ``order``, against numerics that know nothing of VJPs.

    ``fn`` takes nested structures of arrays and returns one; its floating-point leaves (of the arguments ``argnums``
    only, where given) are differentiated. With y = fn(x) and random u and w, the loss is

        L(x) = sum(u y + w y^2 / 2),

    whose cotangent u + w y depends on x, so that a VJP must be right, and differentiable, in its cotangent too. Checked
    are

    - the value, shape and dtype of ``fn`` on Nodes against ``fn`` on arrays, and shape and dtype of each gradient;
    - <dL/dx, d> against the derivative of t -> L(x + t d), for each leaf along each coordinate (few elements) or random
      d;
    - for each higher order, the derivative of <previous derivative, v> against differences of the previous derivative
      along v;
    - for float32 (or float16) arguments all of this in float64, and then the low-precision value and derivatives
      against those.

    **The reference.** Central differences D(h) = (L(x + h d) - L(x - h d)) / 2h with h = s/4, s/8, ... (s the size of
    x) are extrapolated to h = 0 by T[i, j] = T[i, j-1] + (T[i, j-1] - T[i-1, j-1]) / (4^j - 1). The truncation error of
    T[i, j] is estimated by its distance from the two entries that it was made of (Ridders, 1982). A value of L has
    rounding error r, so D(h) has r / h, which the extrapolation carries along linearly. The entry with the least sum of
    both is the reference, and this sum its error; where much smaller steps contradict it, a kink lies between, and the
    table begins again with steps below it. Where Im L(x + i h d) / h, h = 1e-30, exists and agrees with it, ``fn`` is
    analytic there and this, which does not cancel, is the reference; its error is 2^12 units of rounding.

    **The tolerance** is 4 times (error of the reference + rounding error of scg's derivative). Rounding errors are
    measured: three standard deviations of the noise in the quantity around x (Hamming, 1962), plus 8 eps times the sum
    of its terms' magnitudes, and of what it is the derivative of over the size of x. For low precision: the change of
    the derivative when x changes by the eps of that precision, plus 64 eps times the same magnitudes.

    Raises AssertionError with the argument's path, the coordinate, both numbers and the tolerance; ScgValueError where
    nothing can be checked: no floating-point leaf, a value that is not finite, or a kink or edge so near that the
    differences do not converge.
    """
    order = integer("order", order, 0)
    rng = np.random.default_rng(0) if rng is None else rng
    with np.errstate(all="ignore"):  # steps may leave the domain
        _check(_Problem(fn, args, argnums, kwargs), order, rng)


class _Problem:
    """``fn`` as a function of the list of its differentiable leaves, and the loss that makes its result a scalar."""

    def __init__(self, fn: Function, args: tuple[object, ...], argnums: Argnums | None, kwargs: Keywords):
        if not callable(fn):
            raise ScgTypeError(f"check_gradient needs a function and its arguments, got {described((fn,))} ({here()})")
        self.fn, self.args, self.kwargs = fn, args, kwargs
        chosen: Iterable[int] = (
            range(len(args)) if argnums is None else (argnums,) if isinstance(argnums, (int, np.integer)) else argnums
        )
        chosen = {n % len(args) for n in chosen}
        flat = [(n, path, leaf) for n, arg in enumerate(args) for path, leaf in leaves(arg, f"args[{n}]")]
        self.slots = [i for i, (n, _, leaf) in enumerate(flat) if n in chosen and np.asarray(leaf).dtype.kind == "f"]
        self.paths = [flat[i][1] for i in self.slots]
        self.flat = [leaf for _, _, leaf in flat]
        self.point = [np.asarray(self.flat[i]) for i in self.slots]
        if not self.slots:
            raise ScgValueError(
                "check_gradient found no floating-point array among the arguments: nothing can be differentiated"
                f" ({here()})"
            )

    def __call__(self, values: Sequence[Value]) -> list[Result]:
        """The leaves of fn's result."""
        flat = list(self.flat)
        for i, value in zip(self.slots, values, strict=True):
            flat[i] = value
        result = self.fn(*rebuild(self.args, iter(flat)), **self.kwargs)
        return [leaf for _, leaf in leaves(result)]

    def weigh(self, point: Sequence[np.ndarray], rng: np.random.Generator) -> list[Result]:
        """(u, w) for each result; None for one that is not floating-point."""
        self.plain = [np.asarray(y) for y in self(point)]
        weights: list[Result] = []
        for y in self.plain:
            if y.dtype.kind not in "fiubc":
                raise ScgTypeError(f"check_gradient needs a function of numbers, got {described((y,))} ({here()})")
            if y.dtype.kind not in "fc":
                weights.append(None)
                continue
            if not np.isfinite(y).all():
                raise ScgValueError(
                    f"the value is not finite at this point, {_short(y)}: derivatives cannot be compared"
                )
            u, size = _normal(rng, y.shape), 1 + np.max(np.abs(y), initial=0)
            weights.append((u - 1j * _normal(rng, y.shape) if y.dtype.kind == "c" else u, _normal(rng, y.shape) / size))
        return weights

    def terms(self, results: Sequence[np.ndarray], weights: Sequence[np.ndarray]) -> np.ndarray:
        """The terms u y + w y^2 / 2 whose sum is L, flat; for a complex y, Re(u y) + w |y|^2 / 2."""
        parts = [np.zeros(1)]
        for y, pair, plain in zip(results, weights, self.plain, strict=True):
            if pair is not None:
                u, w = pair
                parts.append(
                    np.ravel(
                        np.real(u * y) + w / 2 * np.abs(y) ** 2 if plain.dtype.kind == "c" else u * y + w / 2 * y * y
                    )
                )
        return np.concatenate(parts)

    def loss(self, values: Sequence[np.ndarray], weights: Sequence[np.ndarray]) -> np.ndarray:
        return np.sum(self.terms(self(values), weights))

    def derivative(
        self, values: Sequence[np.ndarray], weights: Sequence[Result], directions: Sequence[Sequence[np.ndarray]]
    ) -> list[Result]:
        """The gradient of L by scg, then for each direction the gradient of <the derivative so far, direction>."""
        inputs = [parameter(x) for x in values]
        roots, seeds, order = [], [], len(directions)
        for y, pair in zip(self(inputs), weights, strict=True):
            if type(y) is Node and pair is not None:
                u, w = (part.astype(_as_precise(part, y.dtype)) for part in pair)
                held: Result = y if order else y.value
                roots.append(y)
                seeds.append(u + w * (np.conjugate(held) if y.dtype.kind == "c" else held))
        found = pull(roots, seeds, inputs, order > 0) if roots else [np.zeros(x.shape, x.dtype) for x in inputs]
        for k, direction in enumerate(directions):
            pairs = [(g, np.asarray(v, g.dtype)) for g, v in zip(found, direction, strict=True) if type(g) is Node]
            if not pairs:
                return [np.zeros(x.shape, x.dtype) for x in inputs]
            found = pull([g for g, _ in pairs], [v for _, v in pairs], inputs, k + 1 < order)
        return found

    def _result(self, k: int, values: Sequence[np.ndarray]) -> np.ndarray:
        return np.asarray(self(values)[k])

    def check_value(self, values: Sequence[np.ndarray]) -> None:
        """fn on Nodes is fn on arrays; float32 in, float32 out."""
        plain, traced = [np.asarray(y) for y in self(values)], self([parameter(x) for x in values])
        if len(plain) != len(traced):
            raise AssertionError(f"{self}: {len(plain)} results on arrays, {len(traced)} on Nodes")
        widest = max((x.dtype for x in values), key=lambda dtype: dtype.itemsize)
        for k, (y, z) in enumerate(zip(plain, traced, strict=True)):
            z = np.asarray(z.value if type(z) is Node else z)
            where = f"{self}: result {k} of {len(plain)}"
            if y.shape != z.shape or y.dtype != z.dtype:
                raise AssertionError(
                    f"{where} on Nodes is {z.dtype}{list(z.shape)}, on arrays {y.dtype}{list(y.shape)}"
                )
            if y.dtype.kind in "fc":
                if y.real.dtype.itemsize > widest.itemsize:
                    raise AssertionError(
                        f"{where} is {y.dtype}, but all that is differentiated is {widest}: precision must be kept"
                    )
                eps = float(np.finfo(y.dtype).eps)
                tolerance = 64 * eps * np.max(np.abs(y), initial=0)
                if np.any(np.abs(z - y) > tolerance):  # terms that cancel, and are summed in another order
                    wide = [x.astype(np.result_type(x.dtype, float)) for x in values]
                    tolerance = tolerance + 8 * change_of(functools.partial(self._result, k), wide, eps)
                _compare(z, y, tolerance, f"{where}: value on Nodes, against value on arrays")
            elif not np.array_equal(y, z):
                raise AssertionError(f"{where} on Nodes is {_short(z)}, on arrays {_short(y)}")

    def check_kinds(self, found: Sequence[np.ndarray], values: Sequence[np.ndarray], order: int) -> None:
        """Each derivative has the shape and dtype of its argument."""
        for path, g, x in zip(self.paths, found, values, strict=True):
            if not isinstance(g, np.ndarray) or g.shape != x.shape or g.dtype != x.dtype:
                kind = f"{g.dtype}{list(g.shape)}" if isinstance(g, np.ndarray) else type(g).__name__
                raise AssertionError(
                    f"{self}: derivative {order} by {path} is {kind}, the argument {x.dtype}{list(x.shape)}"
                )

    def __repr__(self) -> str:
        return f"check_gradient({getattr(self.fn, '__name__', self.fn)})"


def _check(problem: _Problem, order: int, rng: np.random.Generator) -> None:
    exact = [x.astype(np.result_type(x.dtype, float)) for x in problem.point]
    weights = problem.weigh(exact, rng)
    problem.check_value(exact)
    first = problem.derivative(exact, weights, ())
    problem.check_kinds(first, exact, 1)
    rounding = noise_of(lambda x: _join(problem.derivative(x, weights, ())), exact)
    _check_first(problem, exact, weights, first, _split(rounding, exact), rng)
    directions: tuple[list[np.ndarray], ...] = ()
    for _ in range(2, order + 1):
        along = [_normal(rng, x.shape) for x in exact]
        rounding = _check_higher(problem, exact, weights, directions, along, rounding)
        directions = (*directions, along)
    if any(x.dtype != e.dtype for x, e in zip(problem.point, exact, strict=True)):
        problem.check_value(problem.point)
        for k in range(1, order + 1):
            _check_low(problem, exact, weights, directions[: k - 1], k)


def _moved_loss(
    problem: _Problem, moved: Callable[[float], list[np.ndarray]], weights: list[np.ndarray], t: float
) -> np.ndarray:
    return problem.loss(moved(t), weights)


def _check_first(
    problem: _Problem,
    point: list[np.ndarray],
    weights: list[np.ndarray],
    found: list[np.ndarray],
    rounding: list[np.ndarray],
    rng: np.random.Generator,
) -> None:
    terms = problem.terms(problem(point), weights)
    noise = 8 * EPS * np.sum(np.abs(terms)) + noise_of(lambda x: problem.loss(x, weights), point)
    for i, (path, x, g) in enumerate(zip(problem.paths, point, found, strict=True)):
        for direction, name in _directions(x, rng):
            moved = _mover(point, i, direction)
            got = np.sum(g * direction)
            typical = np.sum(np.abs(terms)) / size_of(x)
            noisy = np.sum(rounding[i] * np.abs(direction))
            unsure = noisy + 8 * EPS * (np.sum(np.abs(g * direction)) + typical)
            reference, error = extrapolated(partial(_moved_loss, problem, moved, weights), size_of(x), noise)
            how = "differences"
            stepped = _complex_step(problem, point, weights, i, direction)
            if stepped is not None and abs(stepped[0] - reference) <= SAFETY * error:
                (reference, error), how = stepped, "complex step"
            _refuse_vague(reference, error + noisy, typical, problem, path)
            _compare(got, reference, SAFETY * (error + unsure), f"{problem}: derivative by {path}{name}, against {how}")


def _check_higher(
    problem: _Problem,
    point: list[np.ndarray],
    weights: list[np.ndarray],
    directions: tuple[list[np.ndarray], ...],
    along: list[np.ndarray],
    noise: np.ndarray,
) -> np.ndarray:
    """The next derivative, against differences of this one, of which ``noise`` is the rounding; returns the rounding of
    the next."""
    order = len(directions) + 2
    found = problem.derivative(point, weights, (*directions, along))
    problem.check_kinds(found, point, order)
    before = problem.derivative(point, weights, directions)
    size = max([size_of(x) for x in point])
    noise = noise + 8 * EPS * np.abs(_join(before))
    rounding = noise_of(lambda x: _join(problem.derivative(x, weights, (*directions, along))), point)

    def moved(t: float) -> np.ndarray:
        return _join(problem.derivative([x + t * v for x, v in zip(point, along, strict=True)], weights, directions))

    reference, error = extrapolated(moved, size, noise)
    typical = np.max(np.abs(_join(before)), initial=0) / size
    _refuse_vague(reference, error + rounding, typical, problem, f"all arguments, order {order}")
    tolerance = SAFETY * (error + rounding + 8 * EPS * (np.max(np.abs(reference), initial=0) + typical))
    start = 0
    for path, g in zip(problem.paths, found, strict=True):
        part = slice(start, start + g.size)
        start += g.size
        what = f"{problem}: derivative {order} by {path}, against differences of derivative {order - 1}"
        _compare(g, reference[part].reshape(g.shape), tolerance[part].reshape(g.shape), what)
    return rounding


def _check_low(
    problem: _Problem,
    exact: list[np.ndarray],
    weights: list[Result],
    directions: tuple[list[np.ndarray], ...],
    order: int,
) -> None:
    """The derivative in low precision against the one in float64, which is checked: they differ by rounding."""
    found = problem.derivative(problem.point, weights, directions)
    problem.check_kinds(found, problem.point, order)
    precise = problem.derivative(exact, weights, directions)
    eps = max([float(np.finfo(x.dtype).eps) for x in problem.point])
    rounding = _split(change_of(lambda x: _join(problem.derivative(x, weights, directions)), exact, eps), exact)
    before = (
        problem.derivative(exact, weights, directions[:-1]) if directions else problem.terms(problem(exact), weights)
    )
    largest = np.max(np.abs(_join(precise)), initial=0) + np.max(np.abs(_join(before)), initial=0) / max(
        [size_of(x) for x in exact]
    )
    for path, g, p, r in zip(problem.paths, found, precise, rounding, strict=True):
        _compare(
            g,
            p,
            SAFETY * (r + 64 * eps * largest),
            f"{problem}: derivative {order} by {path} in {g.dtype}, against float64",
        )


def _complex_step(
    problem: _Problem, point: list[np.ndarray], weights: list[Result], i: int, direction: np.ndarray
) -> tuple[Result, Result] | None:
    """Im L(x + i h d) / h and its error; None where fn does not take complex arguments, or has complex results."""
    if any(y.dtype.kind == "c" for y in problem.plain):
        return None

    moved = list(point)
    moved[i] = point[i] + 1e-30j * direction
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", np.exceptions.ComplexWarning)
            terms = problem.terms(problem(moved), weights).imag / 1e-30
            return (np.sum(terms), 2**12 * EPS * np.sum(np.abs(terms))) if np.isfinite(terms).all() else None
    except Exception:  # whatever fn does with what it was not written for
        return None


def _directions(x: np.ndarray, rng: np.random.Generator) -> Iterator[tuple[np.ndarray, str]]:
    """(direction, its name) pairs: coordinates, or random ones."""
    if x.size <= COORDINATES:
        for k in range(x.size):
            direction = np.zeros(x.size)
            direction[k] = 1
            coordinate = ", ".join(map(str, np.unravel_index(k, x.shape)))
            yield direction.reshape(x.shape), f"[{coordinate}]" if x.ndim else ""
    else:
        for _ in range(3):
            yield _normal(rng, x.shape), " along a random direction"


def _mover(point: list[np.ndarray], i: int, direction: np.ndarray) -> Callable[[float], list[np.ndarray]]:
    return lambda t: [x + t * direction if k == i else x for k, x in enumerate(point)]


def _compare(got: np.ndarray, expected: np.ndarray, tolerance: np.ndarray, what: str) -> None:
    got, expected = np.asarray(got), np.asarray(expected)
    difference = np.abs(got - expected)
    wrong = ~((difference <= tolerance) & np.isfinite(got))
    if wrong.any():
        excess = np.where(wrong, np.where(np.isfinite(difference), difference - tolerance, np.inf), -np.inf)
        worst = np.unravel_index(np.argmax(excess), excess.shape)
        at = f" at [{', '.join(map(str, worst))}]" if worst else ""
        allowed = np.broadcast_to(tolerance, got.shape)[worst]
        raise AssertionError(
            f"{what}{at}: {got[worst]:.17g}, expected {expected[worst]:.17g} (tolerance {allowed:.2g})"
        )


def _refuse_vague(reference: np.ndarray, error: np.ndarray, typical: np.ndarray, problem: _Problem, path: str) -> None:
    """Where errors reach a thousandth of what is measured (and are no mere rounding of ones), nothing is confirmed."""
    if not np.all(error <= 1e-3 * (np.max(np.abs(reference), initial=0) + typical) + EPS):
        raise ScgValueError(
            f"{problem}: the differences by {path} do not converge (error {np.max(error):.2g}): the point is at a kink"
            " or the edge of the domain; choose another point, or a lower order"
        )


def _join(parts: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
    return np.concatenate([np.ravel(part) for part in parts])


def _split(flat: np.ndarray, point: list[np.ndarray]) -> list[np.ndarray]:
    ends = np.cumsum([x.size for x in point])
    return [part.reshape(x.shape) for part, x in zip(np.split(flat, ends[:-1]), point, strict=True)]


def _normal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return np.asarray(rng.standard_normal(shape))


def _as_precise(weight: np.ndarray, dtype: np.dtype) -> np.dtype:
    """The dtype of a weight that leaves the precision of a result as it is."""
    real = np.empty(0, dtype).real.dtype
    return np.result_type(real, np.complex64) if weight.dtype.kind == "c" else real


def _short(x: np.ndarray) -> str:
    return " ".join(np.array2string(np.asarray(x), precision=6, threshold=8).split())
