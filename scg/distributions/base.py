"""What every distribution is, and the capabilities that some have. Capabilities are types: an estimator asks for them
by ``isinstance``.

A distribution is a frozen dataclass of parameters (arrays, numbers or Nodes), checked when it is made. Shapes are
NumPy's: the parameters broadcast to the *batch shape*, one distribution each; a sample has shape ``shape + batch_shape
+ event_shape``. A distribution that is made of another one (``Independent``, ``Mixture``, ``Transformed``) has that
one's parameters too, by dotted names such as ``base.loc``.
"""

import inspect
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, NoReturn, Self

import numpy as np

from scg.core.advice import no_attribute
from scg.core.aliases import Result
from scg.core.node import Node, Numeric, Value
from scg.core.operands import described
from scg.distributions.constraints import Constraint, real
from scg.distributions.entry import ENTRIES, entered
from scg.distributions.implicit import moves_at, quantile
from scg.distributions.parameterized import Parameterized, Shape
from scg.distributions.weak import real_array
from scg.errors import ScgTypeError, ScgValueError, here

INSTEAD = {
    "rsample": "scg.sample(distribution, scg.Reparameterized(), rng=rng)",
    "has_rsample": "distribution.has(scg.distributions.Reparameterizable)",
    "sample_n": "distribution.sample(rng, shape)",
    "rvs": "distribution.sample(rng, shape)",
    "expand": "scg.sample(distribution, estimator, rng=rng, shape=shape)",
    "sample_and_log_prob": "z = scg.sample(distribution, estimator, rng=rng); distribution.log_prob(z)",
    "to_event": "scg.distributions.Independent(distribution, ndim)",
    "stddev": "distribution.std",
    "var": "distribution.variance",
    "logpdf": "distribution.log_prob(value)",
    "logpmf": "distribution.log_prob(value)",
    "pdf": "distribution.prob(value)",
    "pmf": "distribution.prob(value)",
    "ppf": "distribution.icdf(probability)",
    "quantile": "distribution.icdf(probability)",
    "logcdf": "np.log(distribution.cdf(value))",
    "log_cdf": "np.log(distribution.cdf(value))",
    "sf": "1 - distribution.cdf(value)",
    "survival_function": "1 - distribution.cdf(value)",
    "kl_divergence": "scg.distributions.kl_divergence(distribution, other)",
    "kl": "scg.distributions.kl_divergence(distribution, other)",
    "shape": "distribution.full_shape(), of a sample: distribution.batch_shape + distribution.event_shape",
}
"""By names that PyTorch, Pyro, Distrax and SciPy have: what to write here."""


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

    if not TYPE_CHECKING:  # it has no attribute but those that are declared

        def __getattr__(self, name: str) -> NoReturn:
            raise no_attribute(self, name, INSTEAD)

    instead_of_an_array: ClassVar[str] = "draw from a distribution by scg.sample(distribution, estimator, rng=rng)"

    def __array__(self, dtype: object = None, copy: object = None) -> NoReturn:
        raise ScgTypeError(f"{self!r} is no array: {self.instead_of_an_array} ({here()})")

    def __array_function__(self, function: object, types: object, args: object, kwargs: object) -> NoReturn:
        self.__array__()  # np.mean would call its mean

    @property
    def event_shape(self) -> Shape:
        """The shape of one sample of one distribution: () unless samples are vectors or matrices."""
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

    def bends(self) -> bool:
        """Whether a parameter that is a Node stands at one of its ``edges``, and has a second derivative there."""
        given = self.parameters
        return any([moves_at(p, ends, 2) for name, ends in self.edges.items() if type(p := given.get(name)) is Node])

    def way_out(self, capability: type) -> str:
        """What else to write where an estimator needs a capability that this distribution lacks; empty: nothing
        else."""
        return ""

    def unresolved(self) -> float:
        """Which part of the samples is rounded to an end of the support where their scores are not those of what was
        rounded; 0 where no parameter has a derivative."""
        return 0.0

    @property
    def rounds(self) -> bool:
        """Whether ``unresolved`` may say something: what is made of other distributions asks these."""
        return type(self).unresolved is not Distribution.unresolved

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

    @property
    def marginal(self) -> "Distribution":
        """The distribution of a sample when that of nothing else is known."""
        return self

    def coupled(self, before: "Distribution", value: Numeric) -> "Distribution | Value | None":
        """How to make a sample from the randomness that ``value``, a sample of ``before``, comes from: a distribution
        given that sample, or the new sample as a function of it. None where it is to be drawn anew.

        ``before`` is this distribution with other parameters. The new sample must have this distribution where
        ``value`` has that of ``before``.
        """
        return None

    def log_prob_drawn(self, sample: Value) -> Value:
        """``log_prob`` of values that were drawn, of which a score function takes the derivative by the parameters: in
        few operations, where there is a formula."""
        return self.log_prob(sample)

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

    def _whole(self, moment: Result) -> Numeric:
        """A moment brought to the shape batch_shape + event_shape, and to float32 where the parameters are, but for
        Python numbers, which do not widen it."""
        shape = self.batch_shape + self.event_shape
        if getattr(moment, "dtype", None) == np.float64 and self.dtype == np.float32:
            moment = moment.astype(np.float32)
        return moment if np.shape(moment) == shape else np.broadcast_to(moment, shape)


class FixedSupport:
    """The support does not depend on the parameters: d/dt of an integral over it is the integral of d/dt."""


class Discrete:
    """Samples are integers (or one-hot vectors): there is no path along which they move."""


class FiniteSupport(Discrete, ABC):
    """There are finitely many values, and they can be listed."""

    @abstractmethod
    def atoms(self) -> np.ndarray:
        """All values, along a leading axis: shape (number of values,) + batch_shape + event_shape (broadcastable)."""

    def count(self) -> int:
        """How many values there are, without a list of them where they are many."""
        return len(self.atoms())


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


def writes(distribution: Distribution) -> bool:
    """Whether a distribution has a way of its own to write samples into an array."""
    return type(distribution).sample_into is not Distribution.sample_into


def draw_noise(distribution: Distribution, rng: np.random.Generator, shape: Shape, dtype: np.dtype) -> Value:
    """Noise in the dtype of what it becomes."""
    return distribution.sample_as(rng, shape, dtype)


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
            f" samples z of p ({here()})"
        )
    return found
