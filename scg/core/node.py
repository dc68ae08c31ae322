"""Nodes of a computation graph, and the dispatch by which NumPy's own names make them."""

import dis
import inspect
import reprlib
import sys
from collections.abc import Collection, Iterator
from types import CodeType, FrameType, ModuleType
from typing import TYPE_CHECKING, Any, NoReturn, final

import numpy as np

from scg.core.advice import of_attribute
from scg.core.aliases import Function, Operand, Operands, Result, Statics
from scg.core.ambient import (
    AMBIENT,
    FORMULA,
    RECORDER,
    SCOPE,
    Guard,
    ids,
    note_guard,
    note_taken,
    take_guard,
    unplanned,
)
from scg.core.detaching import Refusals, or_value
from scg.core.in_place import in_place
from scg.core.methods import Methods, typed
from scg.core.operands import (
    constant_operand,
    described,
    has_nan,
    name_of,
    plain,
    raise_kin,
    raise_named,
    require_plain,
)
from scg.core.primitive import IMPLEMENTATIONS, Primitive
from scg.errors import (
    NOT_THE_USERS,
    PACKAGE,
    NonFiniteError,
    NotDifferentiable,
    ScgAttributeError,
    ScgError,
    ScgTypeError,
    ScgValueError,
    here,
    kin,
    location,
    user_frame,
)

_NONE: Statics = {}
_ENTRIES = frozenset([dis.opmap[name] for name in ("BUILD_MAP", "MAP_ADD", "STORE_SUBSCR") if name in dis.opmap])
# older NumPy: few exponents keep the base's dtype
_SCALAR_POWERS = (np.ones(1, np.float32) ** np.int64(2)).dtype == np.float32


def _binary(ufunc: np.ufunc) -> tuple[Any, Any]:
    # apply(), written out: an operator is most of what a small graph costs
    def forward(self: "Node", other: object) -> "Node":
        implementation: Primitive = IMPLEMENTATIONS[ufunc]  # type: ignore[assignment]
        if type(other) is not Node and type(other) is not float:
            other = constant_operand(other, implementation)
        x, y = self.raw, other.raw if type(other) is Node else other
        try:
            value = ufunc(x, y)
        except Exception as error:
            raise_named(error, implementation, (x, y), _NONE)
        return record(implementation, (self, other), _NONE, value)

    def reflected(self: "Node", other: object) -> "Node":
        return apply(IMPLEMENTATIONS[ufunc], (other, self), _NONE)  # type: ignore[arg-type]

    return forward, reflected


def _unary(ufunc: np.ufunc) -> Function:
    def forward(self: "Node") -> "Node":
        return apply(IMPLEMENTATIONS[ufunc], (self,), _NONE)  # type: ignore[arg-type]

    return forward


@final
class Node(Refusals, Methods):
    """One value of a computation graph, with the operation and the operands that made it.

    It goes where an array goes: ``np.exp(x)``, ``A @ x``, ``x[1:]``, ``x.sum(axis=0)``. Nodes are immutable, point to
    their operands only, and their ids grow, so that an order by id is a topological one.
    """

    __slots__ = ("raw", "primitive", "operands", "statics", "id", "guard", "code", "instruction", "__weakref__")
    raw: Result
    primitive: Primitive
    operands: Operands
    statics: Statics
    id: int
    guard: Guard | None
    code: CodeType | str | None
    instruction: int
    __array_priority__ = 1000.0

    @property
    def value(self) -> np.ndarray:
        """The value, as a read-only array or a NumPy scalar."""
        unplanned(
            "node.value is a number of this run, and a plan would keep it: use the node itself, or"
            " scg.stop_gradient(node)"
        )
        if FORMULA.get():
            _note_reading(self)
        note_taken(self)
        value = self.raw
        if isinstance(value, np.ndarray) and value.flags.writeable:
            value = value.view()
            value.flags.writeable = False
        return value

    @property
    def name(self) -> str | None:
        """The name that the user gave, if any."""
        return self.statics.get("name")

    @property
    def line(self) -> str:
        """The user's own line that made this node."""
        return location(self.code, self.instruction)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: object, **kwargs: object) -> Result:
        for x in inputs:
            if type(x) is not Node:
                require_plain(x, f"np.{ufunc.__name__}")
        implementation = IMPLEMENTATIONS.get(ufunc if method == "__call__" else (ufunc, method))
        if type(implementation) is Primitive and not kwargs and method == "__call__":
            return apply(implementation, inputs, _NONE)
        if "out" in kwargs:
            raise NotDifferentiable(
                f"np.{ufunc.__name__} cannot write a Node into a buffer (out=, or an in-place operator such as buffer"
                f" += node): write buffer = np.{ufunc.__name__}(...) instead ({here()})"
            )
        if method == "outer" and implementation is None and len(inputs) == 2:
            x, y = [v if type(v) is Node else np.asarray(v) for v in inputs]
            return ufunc(np.reshape(x, x.shape + (1,) * y.ndim), y, **kwargs)
        if implementation is None:
            made = all("O" in types for types in ufunc.types)  # by np.frompyfunc
            advice = (
                "write it in NumPy's own functions, or declare lambda *x: ufunc(*x).astype(float)"
                if made
                else "declare it"
            )
            raise NotDifferentiable(
                f"{name_of(ufunc)}{'' if method == '__call__' else '.' + method} has no derivative: {advice}"
                f" with scg.primitive{or_value(*inputs)} ({here()})"
            )
        if type(implementation) is not Primitive or method != "__call__":
            try:
                return typed(
                    implementation(*inputs, **kwargs),
                    ufunc if method == "__call__" else getattr(ufunc, method),
                    *inputs,
                    **kwargs,
                )
            except Exception as error:
                raise_kin(error, ufunc)
                raise
        return apply(implementation, _cast_inputs(ufunc, inputs, kwargs), _NONE)

    @staticmethod
    def applied(primitive: Primitive, operands: Operands, statics: Statics) -> "Node":
        """The primitive computed and recorded; at least one operand is a Node."""
        return apply(primitive, operands, statics)

    def __array_namespace__(self, *, api_version: str | None = None) -> ModuleType:
        """NumPy, whose functions take nodes: for libraries written against the array API, such as
        ``einops.array_api``."""
        return np

    def __array_function__(self, func: Function, types: Collection[type], args: Operands, kwargs: Statics) -> Result:
        implementation = IMPLEMENTATIONS.get(func)
        for kind in types:
            if kind is not Node and issubclass(kind, (np.ma.MaskedArray, np.matrix)):
                require_plain(np.zeros((0, 0)).view(kind), name_of(func))
        if implementation is None:
            raise NotDifferentiable(
                f"{name_of(func)} has no derivative: declare it with scg.primitive{or_value(*args)} ({here()})"
            )
        if kwargs.get("out", 0) is None:
            del kwargs["out"]
        elif "out" in kwargs:
            raise NotDifferentiable(f"{name_of(func)} cannot write a Node into out=: use what it returns ({here()})")
        try:
            return typed(implementation(*args, **kwargs), func, *args, **kwargs)
        except Exception as error:
            if type(error) is TypeError and error.__traceback__ is not None and error.__traceback__.tb_next is None:
                raise ScgTypeError(
                    f"{name_of(func)} of a Node: {error}; it takes {inspect.signature(implementation)} ({here()})"
                ) from None
            raise_kin(error, func)
            raise
        except (ValueError, IndexError) as error:
            if isinstance(error, ScgError):
                raise
            raise kin(error)(f"{name_of(func)} of a Node: {error} ({here()})") from error  # type: ignore[misc]

    if not TYPE_CHECKING:  # it has no attribute but those that are declared

        def __getattr__(self, name: str) -> NoReturn:
            way = of_attribute(name, IMPLEMENTATIONS.__contains__)
            if way:
                raise ScgAttributeError(f"a node has no .{name}: write {way} ({here()})")
            raise AttributeError(f"'Node' object has no attribute {name!r}", name=name, obj=self)

    def __bool__(self) -> bool:
        try:
            outcome = bool(self.raw)
        except ValueError as error:
            raise ScgValueError(f"{self!r}: {error} ({here()})") from None
        frame = user_frame()
        note_guard(self, outcome, frame and frame.f_code, frame.f_lasti if frame else 0)
        return outcome

    def __len__(self) -> int:
        if self.shape == ():
            raise ScgTypeError(f"{self!r} has no axis, and so no length ({here()})")
        return len(self.raw)

    def __iter__(self) -> Iterator["Node"]:
        if self.ndim == 0:
            raise ScgTypeError(f"{self!r} has no axis to iterate over ({here()})")
        return (self[i] for i in range(len(self)))

    def __hash__(self) -> int:
        looked_up = SCOPE.get() is not None and self.shape == () and _is_looked_up(sys._getframe(1))
        recorder = RECORDER.get()
        if recorder is not None:
            recorder.hashed(self, looked_up)
        if looked_up:
            raise ScgTypeError(
                f"a dict, a set or a cache would look for {self!r} itself, and not for its number: for a table of"
                " numbers write scg.parameter(array)[node.astype(int)], np.where(node == 0, ..., ...) or `if node =="
                f" 0:`; to find the node itself, id(node) ({here()})"
            )
        return object.__hash__(self)

    __add__, __radd__ = _binary(np.add)
    __sub__, __rsub__ = _binary(np.subtract)
    __mul__, __rmul__ = _binary(np.multiply)
    __truediv__, __rtruediv__ = _binary(np.divide)
    __floordiv__, __rfloordiv__ = _binary(np.floor_divide)
    __mod__, __rmod__ = _binary(np.remainder)
    __eq__, _ = _binary(np.equal)
    __ne__, _ = _binary(np.not_equal)
    __lt__, _ = _binary(np.less)
    __le__, _ = _binary(np.less_equal)
    __gt__, _ = _binary(np.greater)
    __ge__, _ = _binary(np.greater_equal)
    __and__, __rand__ = _binary(np.bitwise_and)
    __or__, __ror__ = _binary(np.bitwise_or)
    __xor__, __rxor__ = _binary(np.bitwise_xor)
    __lshift__, __rlshift__ = _binary(np.left_shift)
    __rshift__, __rrshift__ = _binary(np.right_shift)
    __neg__, __pos__ = _unary(np.negative), _unary(np.positive)
    __abs__, __invert__ = _unary(np.absolute), _unary(np.invert)
    del _

    def __pow__(self, other: object) -> "Node":
        if (
            _SCALAR_POWERS
            and isinstance(other, (np.number, np.ndarray))
            and other.ndim == 0
            and self.dtype.kind in "fc"
            and other in (-1, 0, 0.5, 1, 2)
        ):
            other = other.item()
        if type(other) is int or type(other) is float:  # as ndarray.__pow__ does
            if other == 2:
                return apply(IMPLEMENTATIONS[np.square], (self,), _NONE)  # type: ignore[arg-type]
            if other == 0.5 and self.dtype.kind in "fc":
                return apply(IMPLEMENTATIONS[np.sqrt], (self,), _NONE)  # type: ignore[arg-type]
        return apply(IMPLEMENTATIONS[np.power], (self, other), _NONE)  # type: ignore[arg-type]

    def __rpow__(self, other: object) -> "Node":
        return apply(IMPLEMENTATIONS[np.power], (other, self), _NONE)  # type: ignore[arg-type]

    __iadd__, __isub__ = in_place("+=", __add__), in_place("-=", __sub__)
    __imul__, __itruediv__ = in_place("*=", __mul__), in_place("/=", __truediv__)
    __ifloordiv__, __imod__ = in_place("//=", __floordiv__), in_place("%=", __mod__)
    __ipow__, __imatmul__ = in_place("**=", __pow__), in_place("@=", Methods.__matmul__)
    __iand__, __ior__, __ixor__ = in_place("&=", __and__), in_place("|=", __or__), in_place("^=", __xor__)
    __ilshift__, __irshift__ = in_place("<<=", __lshift__), in_place(">>=", __rshift__)

    def __copy__(self) -> "Node":
        return self

    def __deepcopy__(self, memo: object) -> "Node":
        return self  # immutable

    def __format__(self, spec: str) -> str:
        recorder = RECORDER.get()
        if recorder is not None:
            recorder.shown()
        return format(self.raw, spec) if spec else repr(self)

    def __repr__(self) -> str:
        recorder = RECORDER.get()
        if recorder is not None:
            recorder.shown()
        label = f"{self.primitive.name} {reprlib.repr(self.name)}" if self.name else self.primitive.name
        if isinstance(self.raw, tuple):
            return f"<{label}: {len(self.raw)} results>"
        small = self.size <= 6
        shown = (
            " ".join(np.array2string(np.asarray(self.raw), precision=6, separator=", ").split()) + ", " if small else ""
        )
        return f"<{label}: {shown}shape {self.shape}, {self.dtype}>"


def _is_looked_up(frame: FrameType) -> bool:
    """Whether a user's frame looks a key up, or may do so. It does not where it enters one, as in ``{node: value}``,
    and whoever calls ``scg.replay`` names nodes by themselves."""
    code = frame.f_code
    return not (
        code.co_filename.startswith(PACKAGE) or "replay" in code.co_names or code.co_code[frame.f_lasti] in _ENTRIES
    )


Value = Node | np.ndarray
"""What a graph is computed of: a node, or an array that no node leads to."""

Numeric = Node | np.ndarray | float
"""The same, or a Python number, which has no dtype of its own: it leaves float32 as it is."""


def apply(primitive: Primitive, operands: Operands, statics: Statics) -> Node:
    """Compute a primitive and record it. At least one operand is a Node; arrays beside it are frozen or copied."""
    if len(operands) == 1 and not statics:
        values: Operands = (operands[0].raw,)
    else:
        operands = tuple([o if type(o) is Node else constant_operand(o, primitive) for o in operands])
        values = values_of(operands)
    try:
        value = primitive.fn(*values, **statics) if statics else primitive.fn(*values)
    except Exception as error:
        raise_named(error, primitive, values, statics)
    if type(value) is not np.ndarray and not isinstance(value, np.generic):
        value = (
            tuple([plain(v, primitive.name) for v in value])
            if isinstance(value, tuple)
            else value
            if hasattr(value, "dtype")
            else plain(value, primitive.name)
        )
    return record(primitive, operands, statics, value, 3)


def record(primitive: Primitive, operands: Operands, statics: Statics, value: object, depth: int = 2) -> Node:
    """A new Node with a value that is already computed; ``depth`` is how many calls up a user's frame may first
    stand."""
    node = Node()
    node.raw = value
    node.primitive = primitive
    node.operands = operands
    node.statics = statics
    node.id = next(ids)
    frame = sys._getframe(depth)
    code = frame.f_code
    if NOT_THE_USERS[code.co_filename]:
        frame = user_frame(depth + 1) or frame
        code = frame.f_code
    node.code = code
    node.instruction = frame.f_lasti
    ambient = AMBIENT.get()
    node.guard = None
    if ambient is None:
        return node
    if ambient.guard is not None:
        take_guard(ambient, node)
    if ambient.made is not None:
        ambient.made(node)
    if ambient.nan and has_nan(value):
        raise NonFiniteError(f"{primitive.name} made a NaN: {node!r} of operands {described(operands)} ({here()})")
    return node


def _note_reading(node: Node) -> None:
    """Enter that a formula has taken the number that a node is for the samples that are there."""
    token = FORMULA.set(False)
    try:
        same: Result = np.all((node == node.raw) | (node != node))
    finally:
        FORMULA.reset(token)
    frame = user_frame()
    note_guard(same, True, frame and frame.f_code, frame.f_lasti if frame else 0, reads=True)


def value_of(x: Operand) -> Result:
    """The array or scalar that stands in the place of ``x``."""
    return x.raw if type(x) is Node else x


def values_of(operands: Operands) -> Operands:
    """The arrays and scalars that stand in the places of ``operands``."""
    if len(operands) == 2:  # written out: no comprehension for what nearly all calls have
        x, y = operands
        return x.raw if type(x) is Node else x, y.raw if type(y) is Node else y
    return tuple([x.raw if type(x) is Node else x for x in operands])


def _cast_inputs(ufunc: np.ufunc, inputs: Operands, kwargs: Statics) -> Operands:
    dtype = kwargs.pop("dtype", None)
    if (
        any(
            kwargs.pop(key, default) != default
            for key, default in (("casting", "same_kind"), ("order", "K"), ("subok", True))
        )
        or kwargs
    ):
        raise NotDifferentiable(
            f"np.{ufunc.__name__} of a Node takes no keyword but dtype (got {', '.join(kwargs) or 'casting or order'}):"
            f" for where=, use np.where ({here()})"
        )
    return (
        inputs
        if dtype is None
        else tuple([IMPLEMENTATIONS[np.astype](x, dtype) if type(x) is Node else np.asarray(x, dtype) for x in inputs])
    )
