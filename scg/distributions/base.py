"""What every distribution is, and the capabilities that some have. Capabilities are types: an estimator asks for them
by ``isinstance``.

A distribution is a frozen dataclass of parameters (arrays, numbers or Nodes), checked when it is made. Shapes are
NumPy's: the parameters broadcast to the *batch shape*, one distribution each; a sample has shape ``shape + batch_shape
+ event_shape``. A distribution that is made of another one (``Independent``, ``Mixture``, ``Transformed``) has that
one's parameters too, by dotted names such as ``base.loc``.
"""

import dataclasses
import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, NoReturn, Protocol, Self, overload

import numpy as np
import scipy.special as sp

from scg.core.ambient import RECORDER, settled, unplanned
from scg.core.node import Node, Numeric, Value
from scg.core.operands import beside, described, frozen, plain, require_plain
from scg.distributions.constraints import Constraint, Truth, real
from scg.distributions.entry import ENTRIES, entered
from scg.distributions.implicit import moves_at, quantile
from scg.errors import ScgTypeError, ScgValueError, here
from scg.primitives.layout import stop_gradient

Shape = tuple[int, ...]


class Parameterized:
    """A frozen dataclass of parameters: what distributions and bijections have in common.

    ``constraints`` names what each parameter must satisfy; fields without a constraint are static. ``parts`` names
    fields that are Parameterized themselves. A parameter outside its constraint raises ScgValueError at construction;
    the error names it and the first offending element.
    """

    constraints: ClassVar[dict[str, Constraint]] = {}
    parts: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        for name, constraint in self.constraints.items():
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, self._checked(name, value, constraint))
            elif getattr(type(self), name, 0) is not None:  # a default of None says that it may be left out
                raise ScgTypeError(f"{type(self).__name__}: {name} must be numbers, got None ({here()})")
        for name, value in vars(self).items():
            if type(value) is Node and name not in self.constraints:
                raise ScgTypeError(
                    f"{type(self).__name__}: {name} is a Node, so it is a parameter: name it in constraints ({here()})"
                )
        try:
            object.__setattr__(self, "_batch_shape", self._broadcast())
        except ValueError:
            shapes = ", ".join(f"{name} {getattr(value, 'shape', ())}" for name, value in self.parameters.items())
            raise ScgValueError(f"{type(self).__name__}: the shapes of {shapes} do not broadcast ({here()})") from None
        self._tied()

    def _tied(self) -> None:
        """Raise ScgValueError where parameters do not fit each other, by ``_require``."""

    def recheck(self) -> None:
        """Raise ScgValueError where a parameter is outside its constraint: for what ``replaced`` has made of parameters
        that are not known to be good."""
        for name, value in self._given().items():
            if not settled(self.constraints[name].holds, value):
                self._checked(name, value, self.constraints[name])
        self._tied()
        for part in self.parts:
            getattr(self, part).recheck()

    def _checked(self, name: str, value: Any, constraint: Constraint) -> Numeric:
        given = value
        if type(value) is int:
            value = float(value)
        elif type(value) not in (float, Node, np.ndarray):
            try:
                value = np.asarray(plain(value, f"{type(self).__name__}: {name}"))
            except (TypeError, ValueError) as error:
                raise ScgTypeError(
                    f"{type(self).__name__}: {name} needs an array of numbers: {error} ({here()})"
                ) from None
        if type(value) is np.ndarray and value.dtype.kind in "fiub" and RECORDER.get() is not None:
            value = beside(value)
        raw = value.raw if type(value) is Node else value
        if type(value) is Node and isinstance(raw, (int, float)) and not isinstance(raw, np.generic):
            unplanned(
                f"{name} of {type(self).__name__} is a Python number of a generator, whose dtype depends on what it"
                " meets: draw an array, rng.random(())"
            )
        if type(raw) is not float:
            if raw.dtype.kind not in "fiub":
                what = described((given,)) if raw.ndim == 0 else f"dtype {raw.dtype}"
                raise ScgTypeError(f"{type(self).__name__}: {name} must be real numbers, got {what} ({here()})")
            if raw.dtype.kind != "f":
                raw = raw.astype(float)
                value = raw if type(value) is not Node else value
        if constraint.event_ndim and np.ndim(raw) < constraint.event_ndim:
            needed = constraint.event_ndim
            raise ScgValueError(
                f"{type(self).__name__}: {name} needs at least {needed} axes, got shape {np.shape(raw)} ({here()})"
            )
        if not settled(constraint.holds, value):
            inside = np.asarray(constraint.contains(raw))
            first = np.unravel_index(int(np.argmin(inside)), inside.shape)
            at = f" at index {tuple(int(i) for i in first)}" if inside.ndim else ""
            raise ScgValueError(
                f"{type(self).__name__}: {name} must be {constraint}, got {np.asarray(raw)[first]}{at} ({here()})"
            )
        return value if type(value) in (float, Node) else frozen(value)

    def _require(self, good: Truth, what: str) -> None:
        """Raise ScgValueError unless ``good`` everywhere: for what ties several parameters together."""
        if not np.all(good):
            raise ScgValueError(f"{type(self).__name__}: {what} ({here()})")
        nodes = {name: p for name, p in self._nodes().items() if type(p) is Node} if RECORDER.get() is not None else {}
        names = list(nodes)
        if nodes:
            distribution = self.replaced(**dict.fromkeys(nodes, np.zeros(())))  # a test that holds no nodes
            settled(lambda *values: distribution._holds(dict(zip(names, values, strict=True))), *nodes.values())

    def _nodes(self) -> dict[str, Numeric]:
        return {
            **self._given(),
            **{f"{part}.{name}": p for part in self.parts for name, p in getattr(self, part).parameters.items()},
        }

    def _holds(self, values: dict[str, Numeric]) -> bool:
        """Whether the same distribution could be made with other values of some parameters."""
        try:
            self.replaced(**values).__post_init__()
        except ScgValueError:
            return False
        return True

    def _broadcast(self) -> Shape:
        """The batch shape: those of the parameters without the axes that belong to one event, broadcast against those
        of the parts."""
        shapes = [batch_of(value, self.constraints[name].event_ndim) for name, value in self._given().items()]
        return np.broadcast_shapes(*shapes, *[getattr(self, part).batch_shape for part in self.parts])

    def _given(self) -> dict[str, Numeric]:
        return {name: value for name in self.constraints if (value := getattr(self, name)) is not None}

    @property
    def parameters(self) -> dict[str, Numeric]:
        """Parameters by name, those that are given."""
        found = self._given()
        for part in self.parts:
            found.update({f"{part}.{name}": value for name, value in getattr(self, part).parameters.items()})
        return found

    def parameter_event_ndim(self, name: str) -> int:
        """How many last axes of a parameter belong to one event."""
        part, _, rest = name.partition(".")
        return (
            getattr(self, part).parameter_event_ndim(rest) + self._taken(part)
            if rest
            else self.constraints[name].event_ndim
        )

    def _taken(self, part: str) -> int:
        """How many batch axes of a part are no batch axes of the whole."""
        return 0

    @property
    def batch_shape(self) -> Shape:
        """One distribution for each index of this shape."""
        return self._batch_shape  # type: ignore[attr-defined,no-any-return]

    def replaced(self, **parameters: Numeric) -> Self:
        """The same distribution with other parameters, unchecked: for parameters that are known to be good."""
        for part in self.parts:
            inner = {name[len(part) + 1 :]: value for name, value in parameters.items() if name.startswith(part + ".")}
            if inner:
                parameters[part] = getattr(self, part).replaced(**inner)
        new = self._copied(parameters)
        vars(new)["_batch_shape"] = new._broadcast()
        return new

    def _copied(self, parameters: dict[str, Numeric]) -> Self:
        """A copy with some attributes replaced, of the same batch shape."""
        new = object.__new__(type(self))
        vars(new).update(vars(self))
        vars(new).update({name: value for name, value in parameters.items() if "." not in name})
        return new

    def stop_gradient(self) -> Self:
        """The same distribution with its parameters held constant."""
        nodes = {name: stop_gradient(p) for name, p in self.parameters.items() if type(p) is Node}
        return self.replaced(**nodes) if nodes else self

    def detached(self) -> Self:
        """The same distribution with the values of its parameters, as arrays."""
        nodes = {name: p.raw for name, p in self.parameters.items() if type(p) is Node}
        return self if not nodes else self.replaced(**nodes) if self.parts else self._copied(nodes)

    def __repr__(self) -> str:
        def short(value: Numeric) -> str:
            if isinstance(value, (np.ndarray, Node)) and value.ndim:
                return f"{value.dtype}{list(value.shape)}"
            return f"{value.raw if type(value) is Node else value}"

        given = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}  # type: ignore[arg-type]
        return f"{type(self).__name__}({', '.join(f'{name}={short(p)}' for name, p in given.items() if p is not None)})"


class Distribution(Parameterized, ABC):
    """A distribution. Subclasses are frozen dataclasses (``eq=False``: arrays do not compare to one bool); at the
    least they have ``sample`` and ``log_prob``. One that has ``cdf`` too, and is continuous and scalar, is
    reparameterized by implicit differentiation.

    Outside the support ``log_prob`` is -inf (the density is zero there), with gradient zero; a NaN value gives NaN.
    ``moving`` names the parameters that move the support of a distribution that is FixedSupport otherwise. ``edges``
    names probabilities, and where they leave some values of the support out: there the derivative in them is about
    values that are never drawn.
    """

    moving: tuple[str, ...] = ()
    edges: ClassVar[dict[str, tuple[float, ...]]] = {}

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        for name in ENTRIES:  # also what a class has from one that is no distribution, such as Reparameterizable
            method = getattr(cls, name)
            if method is not getattr(Distribution, name) and not hasattr(method, "entered"):
                setattr(cls, name, entered(name, method))

    other_names: ClassVar[dict[str, str]] = {}
    """By names that a parameter has elsewhere: what to write."""

    def __new__(cls, *args: object, **kwargs: object) -> Self:
        fields = getattr(cls, "__dataclass_fields__", None)
        if kwargs and fields is not None and "__init__" in vars(cls) and not kwargs.keys() <= fields.keys():
            unknown = next(name for name in kwargs if name not in fields)
            if unknown not in inspect.signature(cls.__init__).parameters:
                way = cls.other_names.get(unknown)
                raise ScgTypeError(
                    f"{cls.__name__} takes {', '.join(fields)}, got {unknown}={described((kwargs[unknown],))}"
                    f"{': write ' + way if way else ''} ({here()})"
                )
        return super().__new__(cls)

    instead_of_an_array: ClassVar[str] = "draw from a distribution by scg.sample(distribution, estimator, rng=rng)"

    def __array__(self, dtype: Any = None, copy: Any = None) -> NoReturn:
        raise ScgTypeError(f"{self!r} is no array: {self.instead_of_an_array} ({here()})")

    @property
    def event_shape(self) -> Shape:
        """The shape of one sample of one distribution: () unless draws are vectors or matrices."""
        return ()

    @property
    def dtype(self) -> np.dtype:
        """The dtype of a sample of a continuous distribution: that of the parameters; float64 where they are all Python
        numbers."""
        arrays = [p.dtype for p in self.parameters.values() if not isinstance(p, float)]
        return np.result_type(*arrays) if arrays else np.dtype(float)

    def has(self, capability: type) -> bool:
        """Whether this distribution has a capability, given which of its parameters are Nodes."""
        if capability is FixedSupport and (self.moving or self.edges):
            given = self.parameters
            if any(type(given[name]) is Node for name in self.moving):
                return False
            if any([moves_at(p, ends) for name, ends in self.edges.items() if type(p := given.get(name)) is Node]):
                return False
        return isinstance(self, capability) or capability is Reparameterizable and self.inverts_cdf()

    def way_out(self, capability: type) -> str:
        """What else to write where an estimator needs a capability that this distribution lacks; empty: nothing
        else."""
        return ""

    def inverts_cdf(self) -> bool:
        return type(self).cdf is not Distribution.cdf and not isinstance(self, Discrete) and self.event_shape == ()

    @property
    def support(self) -> Constraint:
        """The set of values with positive density."""
        return real

    @abstractmethod
    def sample(self, rng: np.random.Generator, shape: int | Shape = ()) -> np.ndarray:
        """An array of independent samples, of shape ``shape + batch_shape + event_shape``; never a Node: a sample is a
        number."""

    @abstractmethod
    def log_prob(self, value: Numeric) -> Value:
        """log p(value), in nats; shape: that of ``value`` broadcast against the parameters, without the event axes."""

    def masses(self, value: Numeric) -> Value:
        """p(value) of a discrete distribution, of the shape of ``log_prob(value)``, also where it is zero with a
        derivative that is not."""
        return np.exp(self.log_prob(value))

    def _events(self, given: Numeric) -> Value:
        """A value as it is or as an array, whose last axes are those of an event. Raises ScgValueError where they are
        not."""
        value, shape = real_array(given), self.event_shape
        if value.shape[value.ndim - len(shape) :] != shape or value.ndim < len(shape):
            raise ScgValueError(
                f"{self!r}: a value has the shape {shape} along its last axes, got shape {value.shape} ({here()})"
            )
        return value

    @property
    def mean(self) -> Numeric:
        """E[z], of shape batch_shape + event_shape."""
        raise self._unknown("mean")

    @property
    def variance(self) -> Numeric:
        """Var[z], element by element."""
        raise self._unknown("variance")

    @property
    def std(self) -> Numeric:
        """The square root of the variance."""
        return np.sqrt(self.variance)

    def entropy(self) -> Numeric:
        """-E[log p(z)], in nats."""
        raise self._unknown("entropy")

    def cdf(self, value: Numeric) -> Value:
        """P(z <= value)."""
        raise self._unknown("cdf")

    def icdf(self, probability: Numeric) -> Value:
        """The smallest value whose cdf is at least ``probability``: where the distribution has none of its own, the cdf
        is inverted numerically."""
        if not self.inverts_cdf():
            raise self._unknown("icdf")
        return quantile(self, probability)

    icdf = entered("icdf", icdf)

    def kl_to(self, other: "Distribution") -> Numeric:
        """KL(self || other) in closed form; NotImplemented where none is known. Called by ``kl_divergence``."""
        return NotImplemented

    def kl_from(self, other: "Distribution") -> Numeric:
        """KL(other || self); called where ``other`` has no formula."""
        return NotImplemented

    def prob(self, value: Numeric) -> Value:
        """p(value)."""
        return np.exp(self.log_prob(value))

    def full_shape(self, shape: int | Shape = ()) -> Shape:
        """The shape of ``sample(rng, shape)``."""
        return (*((shape,) if isinstance(shape, (int, np.integer)) else shape), *self.batch_shape, *self.event_shape)

    def _unknown(self, what: str) -> ScgValueError:
        return ScgValueError(f"{type(self).__name__} has no closed form for {what} ({here()})")

    def sample_as(self, rng: np.random.Generator, shape: Shape, dtype: np.dtype) -> np.ndarray:
        """``sample``, in a given floating-point dtype."""
        return self.sample(rng, shape).astype(dtype, copy=False)

    def sample_into(self, rng: np.random.Generator, shape: Shape, out: np.ndarray) -> None:
        """``sample``, written into an array."""
        out[...] = self.sample_as(rng, shape, out.dtype)

    def expanded(self, batch_shape: Shape) -> Self:
        """The same distribution with a larger batch shape that its own broadcasts to: independent samples for each of
        its elements."""
        if self.batch_shape == batch_shape:
            return self
        name, p = next(iter(self.parameters.items()))
        event = self.parameter_event_ndim(name)
        p = np.asarray(p, self.dtype) if isinstance(p, float) else p
        shape: Shape = p.shape
        shape = (1,) * (event - len(shape)) + shape
        return self.replaced(**{name: np.broadcast_to(p, batch_shape + shape[len(shape) - event :])})

    def _whole(self, moment: Numeric) -> Numeric:
        """A moment brought to the shape batch_shape + event_shape."""
        shape = self.batch_shape + self.event_shape
        return moment if np.shape(moment) == shape else np.broadcast_to(moment, shape)


class FixedSupport:
    """The support does not depend on the parameters: d/dt of an integral over it is the integral of d/dt."""


class Discrete:
    """Draws are integers (or one-hot vectors): there is no path along which they move."""


class FiniteSupport(Discrete, ABC):
    """There are finitely many values, and they can be listed."""

    @abstractmethod
    def atoms(self) -> np.ndarray:
        """All values, along a leading axis: shape (number of values,) + batch_shape + event_shape (broadcastable)."""


def atoms_of(distribution: Distribution) -> np.ndarray:
    """All values of a distribution that ``has(FiniteSupport)``, as its ``atoms()``."""
    return distribution.atoms()  # type: ignore[attr-defined,no-any-return]


class Reparameterizable(ABC):
    """A sample is a differentiable function of the parameters and of noise whose distribution has none: z =
    transport(noise)."""

    @abstractmethod
    def noise(self, shape: Shape = ()) -> tuple[Distribution, Shape]:
        """The distribution of the noise, free of parameters, and the shape in which it is drawn for ``sample(rng,
        shape)``."""

    @abstractmethod
    def transport(self, noise: Value) -> Value:
        """The sample for given noise: an array, or a Node where a parameter or the noise is one."""

    def sample(self, rng: np.random.Generator, shape: int | Shape = ()) -> np.ndarray:
        """An array of independent samples, of shape ``shape + batch_shape + event_shape``."""
        shape = (shape,) if isinstance(shape, (int, np.integer)) else tuple(shape)
        plain = self.detached()  # type: ignore[attr-defined]
        distribution, size = plain.noise(shape)
        return np.asarray(plain.transport(distribution.sample_as(rng, size, plain.dtype)))


def draw_noise(distribution: Distribution, rng: np.random.Generator, shape: Shape, dtype: np.dtype) -> Value:
    """Noise in the dtype of what it becomes."""
    return distribution.sample_as(rng, shape, dtype)


def batch_of(parameter: Numeric, event_ndim: int) -> Shape:
    """The shape of a parameter without the axes that belong to one event (of which it may lack some that would have
    length one)."""
    shape: Shape = np.shape(parameter) if type(parameter) is not Node else parameter.shape
    return shape[: max(len(shape) - event_ndim, 0)]


class OfNumbers(Protocol):
    """A function of numbers: a Python number where all of them are."""

    @overload
    def __call__(self, *x: float) -> float: ...
    @overload
    def __call__(self, x: Value, /, *others: Numeric) -> Value: ...
    @overload
    def __call__(self, x: Numeric, y: Value, /, *others: Numeric) -> Value: ...
    @overload
    def __call__(self, *x: Numeric) -> Numeric: ...


def weak(fn: Callable[..., Any]) -> OfNumbers:
    """``fn`` in which Python numbers do not widen float32: alone they stay Python numbers, beside arrays they have
    these' dtype."""

    def of(*x: Any) -> Any:
        strong = [v for v in x if type(v) is not float]
        if not strong:
            return float(fn(*x))
        if len(strong) < len(x):
            dtype = np.result_type(*[v.dtype for v in strong])
            x = tuple([np.asarray(v, dtype if dtype.kind == "f" else float) if type(v) is float else v for v in x])
        return fn(*x)

    return of


log, sqrt, exp, gammaln, betaln, digamma, xlogy, xlog1py = map(
    weak, (np.log, np.sqrt, np.exp, sp.gammaln, sp.betaln, sp.digamma, sp.xlogy, sp.xlog1py)
)
gammainc, gammaincc, gammaincinv, gammainccinv = map(weak, (sp.gammainc, sp.gammaincc, sp.gammaincinv, sp.gammainccinv))


def masked(outside: Value, density: Callable[[Value], Numeric], value: Numeric, inside: float) -> Value:
    """``density(value)``, and -inf where ``outside``, with gradient zero: there the density is evaluated ``inside``."""
    return np.where(outside, -math.inf, density(np.where(outside, inside, value)))


def real_array(value: Any) -> Value:
    """A value as it is or as an array: Python numbers and lists become arrays."""
    if type(value) in (Node, np.ndarray) or isinstance(value, np.generic):
        return value
    require_plain(value, "a value of a distribution")
    return value if isinstance(value, np.ndarray) else np.asarray(value)


def kl_divergence(p: Distribution, q: Distribution) -> Numeric:
    """KL(p || q) = E_p[log p(z) - log q(z)], in nats, in closed form; shape: the batch shapes broadcast.

    Raises ScgValueError where the event shapes differ, or no closed form is known: take the mean of p.log_prob(z) -
    q.log_prob(z) over samples z of p.
    """
    if not (isinstance(p, Distribution) and isinstance(q, Distribution)):
        raise ScgTypeError(f"KL(p || q) needs two distributions, got {described((p, q))} ({here()})")
    for distribution, other in ((p, q), (q, p)):
        sizes = getattr(distribution, "categories", None), getattr(other, "categories", None)
        if distribution.event_shape != other.event_shape or None not in sizes and sizes[0] != sizes[1]:
            raise ScgValueError(
                f"KL(p || q) needs two distributions of values of one shape, got {p!r} and {q!r} ({here()})"
            )
    found = p.kl_to(q)
    if found is NotImplemented:
        found = q.kl_from(p)
    if found is NotImplemented:
        raise ScgValueError(
            f"no closed form for KL({type(p).__name__} || {type(q).__name__}): use p.log_prob(z) - q.log_prob(z) at"
            f" draws z of p ({here()})"
        )
    return found
