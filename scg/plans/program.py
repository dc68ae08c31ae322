"""What a recorded run computed, as a list of operations that passes rewrite: no nodes, no values, only what leads to
what."""

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from scg.core.node import PARAMETER, Node, Primitive, ancestors, primitive
from scg.errors import PlanError, here
from scg.plans.checks import CHOICE, SILENT
from scg.plans.recording import HELD, INPUT, Recorder, is_python_number

CAST = primitive(lambda x, dtype: np.asarray(x, dtype), name="cast")
"""A number of Python in the dtype of the arrays that it stands beside."""


class Op:
    """One operation: a primitive, its operands (operations, or numbers and arrays that never change), and what it
    makes.

    ``generator`` is the position of the generator from which it draws, None where it does not; ``copies`` is true where
    what is a view elsewhere has to be a copy: a reshape across strides.
    """

    __slots__ = ("primitive", "args", "statics", "shape", "dtype", "line", "value", "generator", "copies")

    def __init__(
        self,
        primitive: Primitive,
        args: Sequence[Any],
        statics: dict[str, Any],
        shape: Any,
        dtype: Any,
        line: str = "",
        value: Any = None,
        generator: int | None = None,
    ):
        self.primitive, self.args, self.statics = primitive, tuple(args), statics
        self.shape, self.dtype, self.line, self.value = shape, dtype, line, value
        self.generator, self.copies = generator, False

    @property
    def is_given(self) -> bool:
        """Whether it is an array of the caller's, or one that the function holds."""
        return self.primitive in (INPUT, HELD)

    @property
    def is_held(self) -> bool:
        """Whether it is an array that the function holds."""
        return self.primitive is HELD

    @property
    def is_leaf(self) -> bool:
        """Whether it is no function of its operands alone."""
        return self.generator is not None or self.is_given

    @property
    def is_check(self) -> bool:
        """Whether it makes nothing, and may end the call."""
        return self.primitive in SILENT

    @property
    def size(self) -> int:
        """Elements of the result; 0 of several."""
        return math.prod(self.shape) if self.dtype is not None else 0

    @property
    def nbytes(self) -> int:
        """Bytes of the result."""
        return self.size * self.dtype.itemsize if self.dtype is not None else 0

    def like(self, primitive: Any, *args: Any, shape: Any = None, **statics: Any) -> "Op":
        """Another operation in the place of this one, of its dtype and, unless told, its shape."""
        return Op(primitive, args, statics, self.shape if shape is None else shape, self.dtype, self.line)

    def __repr__(self) -> str:
        return f"<{self.primitive.name} {self.shape} {self.dtype}>"


class Program:
    """Operations in an order in which each follows its operands; ``inputs`` by position of the argument, ``outputs`` as
    operations or constants."""

    def __init__(self, ops: list[Op], inputs: dict[int, int], outputs: list[Any], notes: list[str] | None = None):
        # ``inputs``: id of the operation -> position of the argument
        self.ops, self.inputs, self.outputs = ops, inputs, outputs
        self.notes = notes or []
        self.regions: list[Any] = []  # of ``passes.blocks``
        self.width = 1  # how many threads it may have
        self.stepped = 0  # elements that calls at the end go through, on as many threads
        self.shares = True  # whether its BLAS may have threads of its own
        self.turns: list[Any] = []  # what each of them does: of ``passes.schedule``
        self.kept = len(outputs)  # the outputs after these are only looked at
        self.checked: set[int] = set()  # positions of outputs that must be finite
        self.risky = False  # whether a pass has struck that may overflow where the function as written does not

    def rewrite(self, change: Callable[[Op, Callable[[Op], Op]], Any]) -> int:
        """Replace each operation by what ``change(op, add)`` returns: an operation that it passed to ``add`` or that
        stood before, a constant, or None: it stays.

        Operands are those of the new program already. The number of operations that were replaced.
        """
        table: dict[int, Any] = {}
        old, new = self.ops, []

        def add(op: Op) -> Op:
            new.append(op)
            return op

        for op in old:
            if any([type(a) is Op and id(a) in table for a in op.args]):
                op.args = tuple([table.get(id(a), a) if type(a) is Op else a for a in op.args])
            other = change(op, add)
            if other is None or other is op:
                new.append(op)
            else:
                table[id(op)] = other
        self.ops = new
        self.outputs = [table.get(id(o), o) if type(o) is Op else o for o in self.outputs]
        return len(table)

    def watch(self, op: Op) -> None:
        """Look whether this comes out finite."""
        self.checked.add(len(self.outputs))
        self.outputs.append(op)

    def users(self) -> dict[int, list[Op]]:
        """For each operation by id those that take it, and None once more for each output that it is."""
        found: dict[int, list[Any]] = {id(op): [] for op in self.ops}
        for op in self.ops:
            for a in op.args:
                if type(a) is Op:
                    found[id(a)].append(op)
        for o in self.outputs:
            if type(o) is Op:
                found[id(o)].append(None)
        return found


def _is_owned(array: np.ndarray) -> bool:
    """Whether the memory is that of arrays which nobody else holds."""
    base = array.base
    while base is not None:
        if type(base) is not np.ndarray or sys.getrefcount(base) > 3:  # the view's, this name's and the call's
            return False
        base = base.base
    return True


def from_recording(recorder: Recorder, inputs: Sequence[Node], results: Sequence[Any], floor: int) -> Program:
    """The program of a recorded run; ``floor`` is the least id of its nodes: what is older is constant."""
    roots = [
        *results,
        *[operand for choice in recorder.choices for operand in choice.operands],
        *[node for node, _ in recorder.draws.values()],
    ]
    order = ancestors([root for root in roots if type(root) is Node and root.id >= floor], floor)
    recorder.check_order(order, inputs)
    position = {node.id: k for k, node in enumerate(inputs)}
    table: dict[int, Any] = {}
    held: dict[int, Op] = {}
    ops: list[Op] = []

    def of(value: Any) -> Any:
        if type(value) is Node:
            return table[value.id] if value.id >= floor else constant(value.raw)
        return constant(value)

    def constant(value: Any) -> Any:
        if type(value) is not np.ndarray or id(value) not in recorder.originals:
            return value
        original = recorder.originals[id(value)][1]
        if sys.getrefcount(original) <= 3 and _is_owned(original):
            return value  # held by this name, the recorder and the call: nobody else can ever write to it
        if id(original) not in held:
            held[id(original)] = Op(HELD, (), {"array": original}, original.shape, original.dtype)
            ops.append(held[id(original)])
        return held[id(original)]

    def cast(op: Any, operand: Any, node: Node) -> Any:
        """A number of Python beside an array has the dtype that NumPy gives it there."""
        if (
            type(op) is not Op
            or not is_python_number(operand)
            or type(node.raw) is tuple
            or all([is_python_number(o) or type(o) in (float, int, bool) for o in node.operands])
        ):
            return op
        dtype, fn = node.dtype, node.primitive.fn
        if isinstance(fn, np.ufunc) and not node.statics:
            kinds = [
                o.raw.python if is_python_number(o) else type(o) if type(o) in (float, int, bool) else o.dtype
                for o in node.operands
            ]
            dtype = fn.resolve_dtypes((*kinds, *[None] * fn.nout))[[o is operand for o in node.operands].index(True)]
        if dtype == op.dtype or dtype.kind not in "fiu":
            return op
        ops.append(Op(CAST, (op,), {"dtype": dtype}, (), dtype, op.line))
        return ops[-1]

    found: dict[int, int] = {}
    for node in order:
        value = node.raw
        several = type(value) is tuple
        if node.primitive is PARAMETER or node.primitive is HELD:
            table[node.id] = constant(value)
            continue
        statics = node.statics
        generator = recorder.draws[node.id][1] if node.id in recorder.draws else None
        if generator is None and node.primitive.random and node.primitive.view is None:
            raise PlanError(
                f"this cannot be compiled: {node!r} was drawn by no generator that the function was given ({here()})"
            )
        if "site" in statics:
            statics = {**statics, "site": replace(statics["site"].unlinked(), rng=None), "value": None}
        elif "index" in statics and isinstance(statics["index"], tuple):
            statics = {**statics, "index": tuple([recorder.originals.get(id(i), (i, i))[1] for i in statics["index"]])}
        kept = None if node.id in recorder.forgotten and not several else value
        op = Op(
            node.primitive,
            [cast(of(o), o, node) for o in node.operands],
            statics,
            None if several else value.shape,
            None if several else value.dtype,
            node.line,
            kept,
            generator,
        )
        if node.id in position:
            found[id(op)] = position[node.id]
        table[node.id] = op
        ops.append(op)
    for choice in recorder.choices:
        statics = {"test": choice.test, "outcome": choice.outcome, "line": choice.line}
        ops.append(Op(CHOICE, [of(o) for o in choice.operands], statics, (), np.dtype(bool)))
    return Program(ops, found, [of(r) if type(r) is Node else r for r in results])
