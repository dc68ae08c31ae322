"""What a recorded run computed, as a list of operations that passes rewrite: no nodes, no values, only what leads to
what."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from scg.core.aliases import Operand, Result, Shape, Statics
from scg.core.ancestry import ancestors
from scg.core.leaves import is_parameter
from scg.core.node import Node
from scg.core.primitive import Primitive, primitive
from scg.errors import PlanError, here
from scg.plans.checks import CHOICE, is_check
from scg.plans.given import HELD, is_given, is_held
from scg.plans.python_numbers import is_python_number
from scg.plans.recording import Recorder

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
        args: Sequence[Operand],
        statics: Statics,
        shape: Any,
        dtype: Any,
        line: str = "",
        value: Operand = None,
        generator: int | None = None,
    ):
        self.primitive, self.args, self.statics = primitive, tuple(args), statics
        self.shape, self.dtype, self.line, self.value = shape, dtype, line, value
        self.generator, self.copies = generator, False

    @property
    def is_given(self) -> bool:
        """Whether it is an array of the caller's, or one that the function holds."""
        return is_given(self)

    @property
    def is_held(self) -> bool:
        """Whether it is an array that the function holds."""
        return is_held(self)

    @property
    def is_leaf(self) -> bool:
        """Whether it is no function of its operands alone."""
        return self.generator is not None or self.is_given

    @property
    def is_check(self) -> bool:
        """Whether it makes nothing, and may end the call."""
        return is_check(self)

    @property
    def size(self) -> int:
        """Elements of the result; 0 of several."""
        return math.prod(self.shape) if self.dtype is not None else 0

    @property
    def nbytes(self) -> int:
        """Bytes of the result."""
        return self.size * self.dtype.itemsize if self.dtype is not None else 0

    def like(self, primitive: Any, *args: Operand, shape: Shape | None = None, **statics: object) -> "Op":
        """Another operation in the place of this one, of its dtype and, unless told, its shape."""
        return Op(primitive, args, statics, self.shape if shape is None else shape, self.dtype, self.line)

    def __repr__(self) -> str:
        return f"<{self.primitive.name} {self.shape} {self.dtype}>"


class Operations:
    """Operations in an order in which each follows its operands; ``inputs`` by position of the argument, ``outputs`` as
    operations or constants."""

    def __init__(self, ops: list[Op], inputs: dict[int, int], outputs: list[Operand], notes: list[str] | None = None):
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

    def rewrite(self, change: Callable[[Op, Callable[[Op], Op]], object]) -> int:
        """Replace each operation by what ``change(op, add)`` returns: an operation that it passed to ``add`` or that
        stood before, a constant, or None: it stays.

        Operands are those of the new program already. The number of operations that were replaced.
        """
        table: dict[int, Operand] = {}
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
        found: dict[int, list[Result]] = {id(op): [] for op in self.ops}
        for op in self.ops:
            for a in op.args:
                if type(a) is Op:
                    found[id(a)].append(op)
        for o in self.outputs:
            if type(o) is Op:
                found[id(o)].append(None)
        return found


def from_recording(recorder: Recorder, inputs: Sequence[Node], results: Sequence[object], floor: int) -> Operations:
    """The program of a recorded run; ``floor`` is the least id of its nodes: what is older is constant."""
    roots = [
        *results,
        *[operand for choice in recorder.choices for operand in choice.operands],
        *[node for node, _ in recorder.draws.values()],
    ]
    order = ancestors([root for root in roots if type(root) is Node and root.id >= floor], floor)
    recorder.check_order(order, inputs)
    reader = _Reader(recorder, floor)
    for node in order:
        reader.read(node)
    for choice in recorder.choices:
        statics = {"test": choice.test, "outcome": choice.outcome, "line": choice.line}
        reader.ops.append(Op(CHOICE, [reader.operand(o) for o in choice.operands], statics, (), np.dtype(bool)))
    found = {id(reader.table[node.id]): k for k, node in enumerate(inputs) if node.id in reader.table}
    return Operations(reader.ops, found, [reader.operand(r) if type(r) is Node else r for r in results])


class _Reader:
    """Nodes of a run as operations; ``table``: by the id of a node."""

    def __init__(self, recorder: Recorder, floor: int):
        self.recorder, self.floor = recorder, floor
        self.table: dict[int, Operand] = {}
        self.ops: list[Op] = []
        self._held: dict[int, Op] = {}

    def read(self, node: Node) -> None:
        """Add the operation of a node, all of whose operands were read."""
        if is_held(node) or is_parameter(node):
            self.table[node.id] = self._constant(node.raw)
            return
        value, several = node.raw, type(node.raw) is tuple
        generator = self._generator(node)
        op = Op(
            node.primitive,
            [self._cast(self.operand(o), o, node) for o in node.operands],
            self._statics(node),
            None if several else value.shape,
            None if several else value.dtype,
            node.line,
            None if node.id in self.recorder.forgotten and not several else value,
            generator,
        )
        self.table[node.id] = op
        self.ops.append(op)

    def operand(self, value: Operand) -> Operand:
        """What stands for a node, an array or a number: an operation or a constant."""
        if type(value) is not Node:
            return self._constant(value)
        return self.table[value.id] if value.id >= self.floor else self._constant(value.raw)

    def _constant(self, value: Operand) -> Operand:
        """The array itself, or where others hold what it is a copy of, an operation that reads this."""
        original = self.recorder.original(value) if type(value) is np.ndarray else None
        if original is None:
            return value
        if id(original) not in self._held:
            self._held[id(original)] = Op(HELD, (), {"array": original}, original.shape, original.dtype)
            self.ops.append(self._held[id(original)])
        return self._held[id(original)]

    def _generator(self, node: Node) -> int | None:
        if node.id in self.recorder.draws:
            return self.recorder.draws[node.id][1]
        if node.primitive.random and node.primitive.view is None:
            raise PlanError(
                f"this cannot be compiled: {node!r} was drawn by no generator that the function was given ({here()})"
            )
        return None

    def _statics(self, node: Node) -> dict[str, object]:
        """Those of a node, without other nodes, and with the arrays that others may write to."""
        if "site" in node.statics:
            return {**node.statics, "site": replace(node.statics["site"].unlinked(), rng=None), "value": None}
        index = node.statics.get("index")
        if not isinstance(index, tuple):
            return node.statics
        pairs = [(i, self.recorder.original(i)) for i in index]
        return {**node.statics, "index": tuple([i if original is None else original for i, original in pairs])}

    def _cast(self, op: object, operand: object, node: Node) -> Operand:
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
        self.ops.append(Op(CAST, (op,), {"dtype": dtype}, (), dtype, op.line))
        return self.ops[-1]
