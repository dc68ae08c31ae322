"""What distributions and bijections have in common: parameters, which are checked, broadcast, and replaced."""

import dataclasses
from typing import ClassVar, Self

import numpy as np

from scg.core.aliases import Operand
from scg.core.ambient import RECORDER, settled, unplanned
from scg.core.node import Node, Numeric
from scg.core.operands import beside, described, frozen, plain, shape_of_all
from scg.distributions.constraints import Constraint, Truth
from scg.errors import ScgTypeError, ScgValueError, here
from scg.primitives.holding import stop_gradient

Shape = tuple[int, ...]


def same(a: Numeric, b: Numeric) -> bool:
    """Whether two parameters are one: the same node, or equal numbers."""
    return a is b or type(a) is not Node and type(b) is not Node and np.array_equal(a, b)


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

    def require_checked(self) -> None:
        """Check parameters that were not yet: a constructor of its own may not have done so."""
        if getattr(self, "_batch_shape", None) is None:
            self.__post_init__()

    def recheck(self) -> None:
        """Raise ScgValueError where a parameter is outside its constraint: for what ``replaced`` has made of parameters
        that are not known to be good."""
        for name, value in self._given().items():
            if not settled(self.constraints[name].holds, value):
                self._checked(name, value, self.constraints[name])
        self._tied()
        for part in self.parts:
            getattr(self, part).recheck()

    def _checked(self, name: str, value: Operand, constraint: Constraint) -> Numeric:
        given = value
        if type(value) is int:
            value = float(value)
        elif type(value) not in (float, Node, np.ndarray):
            value = np.asarray(plain(value, f"{type(self).__name__}: {name}"))
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
        return shape_of_all(*shapes, *[getattr(self, part).batch_shape for part in self.parts])

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

        names = [f.name for f in dataclasses.fields(self)] if dataclasses.is_dataclass(self) else list(self.constraints)
        given = {name: getattr(self, name) for name in names}
        return f"{type(self).__name__}({', '.join(f'{name}={short(p)}' for name, p in given.items() if p is not None)})"


def batch_of(parameter: Numeric, event_ndim: int) -> Shape:
    """The shape of a parameter without the axes that belong to one event (of which it may lack some that would have
    length one)."""
    shape: Shape = np.shape(parameter) if type(parameter) is not Node else parameter.shape
    return shape[: max(len(shape) - event_ndim, 0)]
