"""Parameters of distributions, from the constraints that these declare: every class with ``constraints`` has a
strategy, from the package or not."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import DTypeLike

from scg import distributions as dist
from scg.core.aliases import Result, State
from scg.distributions.base import Distribution
from scg.distributions.constraints import (
    Constraint,
    Increasing,
    Integers,
    LowerCholesky,
    Matrix,
    OneHot,
    Simplex,
    Vector,
    positive,
    real,
)
from scg.distributions.parameterized import Parameterized
from scg.errors import ScgTypeError, ScgValueError, here

Shape = tuple[int, ...]

_SHAPES: tuple[Shape, ...] = ((), (2,), (1,), (3,), (2, 1), (2, 3))
_LINE = (0.0, *(sign * size for size in (1.0, 0.5, 2.0, 0.25, 3.0, 0.125, 1.5, 0.75, 4.0) for sign in (1, -1)))
_RAY = (1.0, 2.0, 0.5, 3.0, 1.5, 0.75, 4.0, 0.25)
_PART = (0.5, 0.25, 0.75, 0.125, 0.875, 0.375, 0.625)
_NEAR = 2.0**-6
# on the whole line and continuous, so that any map applies to them
_DISTRIBUTIONS = (dist.Normal, dist.Gumbel, dist.Logistic)
# which no such distribution reaches so far out that it is rounded to an end of its range
_MAPS = (dist.Exp, dist.Affine, dist.Softplus)


def parameters_of(
    distribution: type[Parameterized],
    *,
    shape: Shape | None = None,
    size: int | None = None,
    dtype: DTypeLike = float,
    edges: bool = True,
) -> st.SearchStrategy[dict[str, object]]:
    """Valid parameters by name, so that ``distribution(**parameters)`` is a distribution: for any class of
    distributions (or bijections).

    ``shape`` is the batch shape (None: some of up to two axes), which the parameters broadcast to, not all of them
    having all its axes; ``size`` the length of an event's axes where events are vectors (None: 2 or 3). Parameters are
    arrays of ``dtype``; a field that is no parameter is drawn as an integer, and a distribution that the class is made
    of as a distribution. Where the class takes one of several parameters (``probs`` or ``logits``) each choice comes.
    Numbers are round, of a size near 1; with ``edges`` some lie at a closed end of their set, an infinite one too, or
    close by an open one. Parameters that the class ties to each other (low < high) are put in order.

    Raises ScgTypeError for what is no such class, ScgValueError for a class that refuses whatever its constraints
    allow.
    """
    if not (
        isinstance(distribution, type)
        and issubclass(distribution, Parameterized)
        and dataclasses.is_dataclass(distribution)
    ):
        raise ScgTypeError(
            f"parameters_of needs a class of distributions that is a dataclass, such as Normal, got {distribution!r}"
            f" ({here()})"
        )
    if np.dtype(dtype).kind != "f":
        raise ScgTypeError(f"parameters_of: dtype must be a floating-point one, got {np.dtype(dtype)} ({here()})")
    forms = _forms(distribution)
    if not forms:
        raise ScgValueError(
            f"parameters_of found no parameters that {distribution.__name__} accepts, from its constraints"
            f" {sorted(distribution.constraints)} and fields {[f.name for f in dataclasses.fields(distribution)]}: give"
            f" its constraints, or draw them by st.builds ({here()})"
        )
    return _drawn(distribution, forms, shape, size, np.dtype(dtype), edges)


def distributions(
    *classes: type[Distribution],
    shape: Shape | None = None,
    size: int | None = None,
    dtype: DTypeLike = float,
    edges: bool = True,
) -> st.SearchStrategy[Any]:
    """Distributions of some classes, with the parameters that ``parameters_of`` draws; of all that the package exports
    where none is named."""
    chosen = classes or exported()
    return st.one_of(
        [
            parameters_of(c, shape=shape, size=size, dtype=dtype, edges=edges).map(functools.partial(_made, c))
            for c in chosen
        ]
    )


def exported(kind: type = Distribution) -> tuple[type, ...]:
    """The classes of a kind that ``scg.distributions`` exports and of which there can be instances."""
    found = [getattr(dist, name) for name in dist.__all__]
    return tuple([c for c in found if isinstance(c, type) and issubclass(c, kind) and dataclasses.is_dataclass(c)])


def arrays_in(
    constraint: Constraint, shape: Shape = (), *, size: int = 3, dtype: DTypeLike = float, edges: bool = True
) -> st.SearchStrategy[np.ndarray]:
    """Arrays of events in a set: of shape ``shape``, and one or two axes of length ``size`` where the set is one of
    vectors or matrices."""
    if isinstance(constraint, OneHot):
        return _numbers(tuple(range(size)), shape).map(lambda k: (k[..., None] == np.arange(size)).astype(dtype))
    if isinstance(constraint, Simplex):
        return _numbers((*_RAY, 0.0) if edges else _RAY, (*shape, size)).map(
            lambda w: _normalised(constraint, w, dtype)
        )
    if isinstance(constraint, Increasing):
        pair = st.tuples(_numbers(_LINE, shape), _numbers(_RAY, (*shape, size)))
        return pair.map(lambda p: (p[0][..., None] + np.cumsum(p[1], axis=-1)).astype(dtype))
    if isinstance(constraint, LowerCholesky):
        pair = st.tuples(_numbers(_LINE, (*shape, size, size)), _numbers(_RAY, (*shape, size)))
        return pair.map(lambda p: (np.tril(p[0], -1) + p[1][..., None] * np.eye(size)).astype(dtype))
    element = constraint.element if isinstance(constraint, (Vector, Matrix)) else constraint
    grid = _grid(element, edges and not (isinstance(constraint, Vector) and element is real), np.dtype(dtype))
    drawn = _numbers(grid, (*shape, *[size] * constraint.event_ndim)).map(lambda x: x.astype(dtype))
    return (
        drawn
        if element is not constraint or constraint.event_ndim == 0
        else drawn.filter(lambda x: bool(np.all(constraint.contains(x))))
    )


def _grid(constraint: Constraint, edges: bool, dtype: np.dtype) -> tuple[float, ...]:
    """Numbers of a set, the simplest first; those at its edges last."""
    low, high = float(np.max(constraint.low)), float(np.min(constraint.high))
    if isinstance(constraint, Integers):
        start = low if math.isfinite(low) else min(0.0, high)
        inner, ends = [start + k for k in (1, 0, 2, 3, 4)], []
    elif math.isfinite(low) and math.isfinite(high):
        inner, ends = (
            [low + (high - low) * p for p in _PART],
            [
                low,
                high,
                low + (high - low) * _NEAR,
                high - (high - low) * _NEAR,
            ],
        )
    elif math.isfinite(low):
        inner, ends = [low + x for x in _RAY], [low, low + 0.125]
    elif math.isfinite(high):
        inner, ends = [high - x for x in _RAY], [high, high - 0.125]
    else:
        inner, ends = [*_LINE], [-math.inf, math.inf, 8.0, -8.0]
    if constraint is positive:
        ends = [0.125, 16.0]
    found = np.array([*inner, *(ends if edges else [])], dtype)
    if constraint.event_ndim == 0:
        found = found[np.broadcast_to(constraint.contains(found), found.shape)]
    if not found.size:
        raise ScgValueError(
            f"no numbers are known that are {constraint}: draw them by a strategy of your own ({here()})"
        )
    return tuple(found.tolist())


def _numbers(grid: Sequence[float], shape: Shape) -> st.SearchStrategy[np.ndarray]:
    n = math.prod(shape)
    return st.lists(st.sampled_from(grid), min_size=n, max_size=n).map(lambda x: np.array(x).reshape(shape))


def _normalised(constraint: Constraint, w: np.ndarray, dtype: DTypeLike) -> np.ndarray:
    w = np.where(w.sum(axis=-1, keepdims=True) == 0, 1, w)
    found = (w / w.sum(axis=-1, keepdims=True)).astype(dtype)
    if not np.all(constraint.contains(found)):  # an open simplex
        w = np.where(w == 0, 1, w)
        found = (w / w.sum(axis=-1, keepdims=True)).astype(dtype)
    return found


@dataclasses.dataclass(frozen=True)
class _Form:
    """One way to make a distribution: which parameters are given, which fields are integers, and of what kind its parts
    are."""

    parameters: tuple[str, ...]
    whole: tuple[str, ...]
    parts: tuple[tuple[str, type], ...]


@functools.cache
def _forms(cls: type[Parameterized]) -> tuple[_Form, ...]:
    """The ways that the class accepts, found by trying."""
    fields = dataclasses.fields(cls)  # type: ignore[arg-type]
    missing = dataclasses.MISSING
    required = [f.name for f in fields if f.default is missing and f.default_factory is missing]
    given = [f.name for f in fields if f.name in cls.constraints and (f.name in required or f.default is not None)]
    optional = [f.name for f in fields if f.name in cls.constraints and f.name not in given]
    whole = tuple([name for name in required if name not in cls.constraints and name not in cls.parts])
    parts = [name for name in required if name in cls.parts]
    found = []
    for count in range(len(optional) + 1):
        for some in itertools.combinations(optional, count):
            for kinds in itertools.product((Distribution, dist.Bijection), repeat=len(parts)):
                form = _Form((*given, *some), whole, tuple(zip(parts, kinds, strict=True)))
                if _accepted(cls, _simplest(cls, form)) is not None:
                    found.append(form)
    return tuple(found)


def _simplest(cls: type[Parameterized], form: _Form) -> dict[str, object]:
    """Two-element vectors of plain numbers."""
    example: dict[str, object] = dict.fromkeys(form.whole, 2)
    for name, kind in form.parts:
        example[name] = dist.Normal(np.zeros(2), np.ones(2)) if kind is Distribution else dist.Exp()
    for name in form.parameters:
        constraint = cls.constraints[name]
        if isinstance(constraint, (Simplex, OneHot)):
            example[name] = np.array([0.5, 0.5]) if isinstance(constraint, Simplex) else np.array([1.0, 0.0])
        elif isinstance(constraint, Increasing):
            example[name] = np.array([0.0, 1.0])
        elif isinstance(constraint, LowerCholesky):
            example[name] = np.eye(2)
        else:
            element = constraint.element if isinstance(constraint, (Vector, Matrix)) else constraint
            example[name] = np.full((2,) * constraint.event_ndim, _grid(element, False, np.dtype(float))[0])
    return example


def _accepted(cls: type[Parameterized], parameters: dict[str, object]) -> dict[str, object] | None:
    """The parameters, put in order where the class asks for one; None where it refuses them in every order."""
    for order in (None, 1, -1):
        tried = parameters if order is None else _ordered(cls, parameters, order)
        if tried is None:
            return None
        try:
            cls(**tried)
            return tried
        except (ScgTypeError, ScgValueError):
            continue
    return None


def _ordered(cls: type[Parameterized], parameters: State, sign: int) -> State | None:
    """Parameters of one constraint in rising (falling) order, element by element, strictly; None where there are none
    to order."""
    groups: dict[object, list[str]] = {}
    for name in parameters:
        groups.setdefault(id(cls.constraints[name]) if name in cls.constraints else type(parameters[name]), []).append(
            name
        )
    groups = {
        k: names
        for k, names in groups.items()
        if len(names) > 1 and isinstance(parameters[names[0]], (int, np.ndarray))
    }
    if not groups:
        return None
    new = dict(parameters)
    for names in groups.values():
        if isinstance(parameters[names[0]], int):
            new.update(zip(names, sorted([parameters[n] for n in names])[::sign], strict=True))
            continue
        try:
            stacked = np.stack(np.broadcast_arrays(*[parameters[n] for n in names]))
        except ValueError:
            return None
        tie = (stacked[1:] == stacked[:1]).any(axis=0)
        apart = np.array(_grid(cls.constraints[names[0]], False, stacked.dtype)[: len(names)])
        if len(apart) < len(names):
            return None
        stacked = np.where(tie, apart.reshape(-1, *[1] * (stacked.ndim - 1)), stacked).astype(stacked.dtype)
        stacked = np.sort(stacked, axis=0)[::sign]
        new.update({name: stacked[k, ...] for k, name in enumerate(names)})
    return new


@st.composite
def _drawn(
    draw: st.DrawFn,
    cls: type[Parameterized],
    forms: tuple[_Form, ...],
    shape: Shape | None,
    size: int | None,
    dtype: DTypeLike,
    edges: bool,
) -> Result:
    form = draw(st.sampled_from(forms))
    batch = draw(st.sampled_from(_SHAPES)) if shape is None else tuple(shape)
    n = draw(st.sampled_from((2, 3))) if size is None else size
    parameters: dict[str, object] = {}
    for name in form.whole:
        parameters[name] = draw(st.integers(1, 4))
    for name, kind in form.parts:
        if kind is Distribution:
            parameters[name] = draw(distributions(*_DISTRIBUTIONS, shape=(*batch, n), dtype=dtype, edges=False))
        else:
            parameters[name] = draw(st.one_of([_instances(c, dtype, edges) for c in _MAPS]))
    for k, name in enumerate(form.parameters):
        own = batch if k == 0 and not form.parts else draw(st.sampled_from(_within(batch)))
        parameters[name] = draw(arrays_in(cls.constraints[name], own, size=n, dtype=dtype, edges=edges))
    found = _accepted(cls, parameters)
    return found if found is not None else draw(st.nothing())


def _instances(cls: type[Parameterized], dtype: DTypeLike, edges: bool) -> st.SearchStrategy[Any]:
    return parameters_of(cls, shape=(), dtype=dtype, edges=edges).map(functools.partial(_made, cls))


def _made(cls: Any, parameters: dict[str, object]) -> Result:
    return cls(**parameters)


def _within(batch: Shape) -> list[Shape]:
    """Shapes that broadcast to the batch shape: all of it, none, or with an axis of length one."""
    return list(dict.fromkeys([batch, (), *[(*batch[:k], 1, *batch[k + 1 :]) for k in range(len(batch))], batch[1:]]))
