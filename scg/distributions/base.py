"""What every distribution is, and the capabilities that some have. Capabilities are types: an estimator asks for them by ``isinstance``.

A distribution is a frozen dataclass of parameters (arrays, numbers or Nodes), checked when it is made. Shapes are NumPy's:
the parameters broadcast to the *batch shape*, one law each; a draw has shape ``shape + batch_shape + event_shape``.
"""

import dataclasses
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np

from scg.distributions.constraints import Constraint
from scg.errors import ScgTypeError, ScgValueError, here
from scg.graph import Node, frozen
from scg.primitives.layout import stop_gradient

Shape = tuple[int, ...]


class Distribution(ABC):
    """A law. Subclasses are frozen dataclasses (``eq=False``: arrays do not compare to one truth) that name in ``constraints`` what
    each parameter must satisfy; fields without a constraint are static. At the least they have ``sample`` and ``log_prob``.

    Outside the support ``log_prob`` is -inf (the density is zero there), with gradient zero; a NaN value gives NaN. A parameter outside its
    constraint raises ScgValueError when the distribution is made, naming the parameter and the first offending element.
    """

    constraints: ClassVar[dict[str, Constraint]] = {}

    def __post_init__(self) -> None:
        for name, constraint in self.constraints.items():
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, self._checked(name, value, constraint))
        try:
            object.__setattr__(self, "_batch_shape", np.broadcast_shapes(*self._parameter_shapes()))
        except ValueError:
            shapes = ", ".join(f"{name} {getattr(value, 'shape', ())}" for name, value in self.parameters.items())
            raise ScgValueError(f"{type(self).__name__}: the shapes of {shapes} do not broadcast ({here()})") from None

    def _checked(self, name: str, value: Any, constraint: Constraint) -> Any:
        if isinstance(value, bool) or not isinstance(value, (int, float, np.generic, np.ndarray, Node)):
            try:
                value = np.asarray(value)
            except (TypeError, ValueError) as error:
                raise ScgTypeError(f"{type(self).__name__}: {name} needs an array of numbers: {error} ({here()})") from None
        raw = value._value if type(value) is Node else value
        if not isinstance(raw, (int, float)):
            if raw.dtype.kind not in "fiub":
                raise ScgTypeError(f"{type(self).__name__}: {name} must be numbers, got dtype {raw.dtype} ({here()})")
            if raw.dtype.kind != "f":
                raw = raw.astype(float)
                value = raw if type(value) is not Node else value
        if constraint.event_ndim and np.ndim(raw) < constraint.event_ndim:
            raise ScgValueError(f"{type(self).__name__}: {name} needs at least {constraint.event_ndim} axes, got shape {np.shape(raw)} ({here()})")
        inside = np.asarray(constraint.contains(raw))
        if not inside.all():
            first = np.unravel_index(int(np.argmin(inside)), inside.shape)
            at = f" at index {tuple(int(i) for i in first)}" if inside.ndim else ""
            raise ScgValueError(f"{type(self).__name__}: {name} must be {constraint}, got {np.asarray(raw)[first]}{at} ({here()})")
        return value if isinstance(value, (int, float, Node)) else frozen(value)

    def _parameter_shapes(self) -> list[Shape]:
        """The batch shapes of the parameters: without the axes that belong to one event."""
        shapes = ((getattr(value, "shape", ()), self.constraints[name].event_ndim) for name, value in self.parameters.items())
        return [shape[: len(shape) - event] for shape, event in shapes]

    @property
    def parameters(self) -> dict[str, Any]:
        """Parameters by name, those that are given."""
        return {name: getattr(self, name) for name in self.constraints if getattr(self, name) is not None}

    @property
    def batch_shape(self) -> Shape:
        """One law for each index of this shape."""
        return self._batch_shape  # type: ignore[attr-defined,no-any-return]

    @property
    def event_shape(self) -> Shape:
        """The shape of one draw of one law: () unless draws are vectors or matrices."""
        return ()

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of a draw of a continuous law: that of the parameters; float64 where they are all Python numbers."""
        arrays = [p for p in self.parameters.values() if not isinstance(p, (int, float))]
        return np.result_type(*[p.dtype for p in arrays]) if arrays else np.dtype(float)

    @property
    @abstractmethod
    def support(self) -> Constraint:
        """The set of values with positive density."""

    @abstractmethod
    def sample(self, rng: np.random.Generator, shape: int | Shape = ()) -> Any:
        """An array of independent draws, of shape ``shape + batch_shape + event_shape``; never a Node: a draw is a number."""

    @abstractmethod
    def log_prob(self, value: Any) -> Any:
        """log p(value), in nats; shape: that of ``value`` broadcast against the parameters, without the event axes."""

    @property
    def mean(self) -> Any:
        """E[z], of shape batch_shape + event_shape."""
        raise self._unknown("mean")

    @property
    def variance(self) -> Any:
        """Var[z], element by element."""
        raise self._unknown("variance")

    @property
    def std(self) -> Any:
        """The square root of the variance."""
        return np.sqrt(self.variance)

    def entropy(self) -> Any:
        """-E[log p(z)], in nats."""
        raise self._unknown("entropy")

    def cdf(self, value: Any) -> Any:
        """P(z <= value)."""
        raise self._unknown("cdf")

    def icdf(self, probability: Any) -> Any:
        """The smallest value whose cdf is at least ``probability``."""
        raise self._unknown("icdf")

    def kl_to(self, other: "Distribution") -> Any:
        """KL(self || other) in closed form; NotImplemented where none is known. Called by ``kl_divergence``."""
        return NotImplemented

    def prob(self, value: Any) -> Any:
        """p(value)."""
        return np.exp(self.log_prob(value))

    def replaced(self, **parameters: Any) -> Any:
        """The same law with other parameters, unchecked: for parameters that are known to be good."""
        new = object.__new__(type(self))
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            object.__setattr__(new, field.name, parameters.get(field.name, getattr(self, field.name)))
        object.__setattr__(new, "_batch_shape", np.broadcast_shapes(*new._parameter_shapes()))
        return new

    def stop_gradient(self) -> Any:
        """The same law with its parameters held constant."""
        nodes = {name: stop_gradient(p) for name, p in self.parameters.items() if type(p) is Node}
        return self.replaced(**nodes) if nodes else self

    def detached(self) -> Any:
        """The same law with the values of its parameters, as arrays."""
        nodes = {name: p._value for name, p in self.parameters.items() if type(p) is Node}
        return self.replaced(**nodes) if nodes else self

    def full_shape(self, shape: int | Shape = ()) -> Shape:
        """The shape of ``sample(rng, shape)``."""
        return (*((shape,) if isinstance(shape, (int, np.integer)) else shape), *self.batch_shape, *self.event_shape)

    def _unknown(self, what: str) -> ScgValueError:
        return ScgValueError(f"{type(self).__name__} has no closed form for {what} ({here()})")

    def __repr__(self) -> str:
        def short(value: Any) -> str:
            if isinstance(value, (np.ndarray, Node)) and value.ndim:
                return f"{value.dtype}{list(value.shape)}"
            return f"{value._value if type(value) is Node else value}"

        fields = dataclasses.fields(self)  # type: ignore[arg-type]
        return f"{type(self).__name__}({', '.join(f'{f.name}={short(getattr(self, f.name))}' for f in fields if getattr(self, f.name) is not None)})"


class FixedSupport:
    """The support does not depend on the parameters: d/dt of an integral over it is the integral of d/dt."""


class Discrete:
    """Draws are whole numbers (or one-hot vectors): there is no path along which they move."""


class FiniteSupport(Discrete, ABC):
    """There are finitely many values, and they can be listed."""

    @abstractmethod
    def atoms(self) -> np.ndarray:
        """All values, along a leading axis: shape (number of values,) + batch_shape + event_shape (broadcastable)."""


class Reparameterizable(ABC):
    """A draw is a differentiable function of the parameters and of noise whose law has none: z = transport(noise)."""

    @abstractmethod
    def noise(self, shape: Shape = ()) -> tuple[Distribution, Shape]:
        """The law of the noise, free of parameters, and the shape in which it is drawn for ``sample(rng, shape)``."""

    @abstractmethod
    def transport(self, noise: Any) -> Any:
        """The draw for given noise: an array, or a Node where a parameter or the noise is one."""

    def sample(self, rng: np.random.Generator, shape: int | Shape = ()) -> Any:
        """An array of independent draws, of shape ``shape + batch_shape + event_shape``."""
        shape = (shape,) if isinstance(shape, (int, np.integer)) else tuple(shape)
        plain = self.detached()  # type: ignore[attr-defined]
        law, size = plain.noise(shape)
        return plain.transport(draw_noise(law, rng, size, plain.dtype))


def draw_noise(law: Distribution, rng: np.random.Generator, shape: Shape, dtype: np.dtype[Any]) -> Any:
    """Noise in the dtype of what it becomes."""
    noise = law.sample(rng, shape)
    return noise if noise.dtype == dtype else noise.astype(dtype)


def kl_divergence(p: Distribution, q: Distribution) -> Any:
    """KL(p || q) = E_p[log p(z) - log q(z)], in nats, in closed form; shape: the batch shapes broadcast.

    Raises ScgValueError where no closed form is known: take the mean of p.log_prob(z) - q.log_prob(z) over draws z of p.
    """
    found = p.kl_to(q)
    if found is NotImplemented:
        raise ScgValueError(
            f"no closed form for KL({type(p).__name__} || {type(q).__name__}): use p.log_prob(z) - q.log_prob(z) at draws z of p ({here()})"
        )
    return found
