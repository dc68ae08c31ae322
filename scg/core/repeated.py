"""A replay with new randomness and a replicate axis that runs again and again in the same memory."""

import functools
import math
from collections import Counter
from collections.abc import Callable, Collection, Sequence

import numpy as np

from scg.core.aliases import Function, Operands, Result
from scg.core.axes import elementwise
from scg.core.node import Node
from scg.core.operands import raise_named
from scg.core.replay import last_read, run
from scg.errors import GuardError

_ZEROS = bytes(64)  # a zero of any dtype


class Repeated:
    """The values of ``outputs`` with a leading axis of ``size`` replicates, all of whose randomness is new.

    ``draw(node, out)`` puts a new value of a random node into ``table``, and returns it: ``out``, where it could write
    it there. It may return NotImplemented, for a node that is computed as any other. ``order`` are the nodes that lead
    to the outputs, ``leading`` collects the ids of those that have the axis.

    Making it is the first run, and ``run`` another one, which overwrites the ``results`` of the last. A result is
    written over an operand that nothing reads any more, or into memory that others have left: a run allocates nothing
    itself, and is one call for each node. Where a value does not come out in the shape and dtype that its node
    announces, it is not ``repeatable``. No node may stand behind an ``if``.
    """

    def __init__(
        self,
        outputs: Sequence[Node],
        order: Sequence[Node],
        size: int,
        table: dict[int, Result],
        leading: set[int],
        draw: Callable[[Node, np.ndarray | None], Result],
    ):
        self.size, self.repeatable, self._outputs = size, True, outputs
        self._table, self._leading, self._draw = table, leading, draw
        self._steps: list[tuple[Function, Operands, Node | None]] = []
        self._free: dict[int, list[np.ndarray]] = {}  # memory that nobody uses, by its size
        self._memory: dict[int, np.ndarray] = {}  # memory in use, by id of the node that took it
        self._places: dict[int, np.ndarray] = {}  # the array that the node made there
        self._owner: dict[int, int] = {}  # by id of a node that is still to be read: who took the memory that it shows
        self._readers: Counter[int] = Counter()  # how many such nodes show it
        dead, hollow = last_read(outputs, order)
        for node in order:
            gone = dead.get(node.id, ())
            if node.primitive.random and self._drawn(node):
                pass
            elif any([type(o) is Node and o.id in table for o in node.operands]):
                if any([type(o) is Node and o.id in leading for o in node.operands]):
                    leading.add(node.id)
                if node.id in hollow:  # nobody looks at more than its shape
                    shape = self._shape(node)
                    table[node.id] = np.ndarray(shape, node.dtype, _ZEROS, strides=(0,) * len(shape))
                elif not self._written(node, gone):
                    self._copied(node)
            for i in gone:
                self._leave(i)

    def run(self) -> None:
        """Draw and compute everything anew."""
        for step in self._steps:
            _call(*step)

    @property
    def results(self) -> list[np.ndarray]:
        """The outputs, as arrays that the next run overwrites; without the axis where nothing random leads there."""
        return [self._table.get(y.id, y.value) for y in self._outputs]

    def _shape(self, node: Node) -> tuple[int, ...]:
        return (self.size, *node.shape) if node.id in self._leading else node.shape

    def _drawn(self, node: Node) -> bool:
        """Whether a random node is drawn, and not computed as any other."""
        out = self._take(node.id, (self.size, *node.shape), node.dtype)
        made = self._draw(node, out)
        if made is not out:
            self._leave(node.id)
        if made is NotImplemented:
            return False
        shown = [o.id for o in node.operands if type(o) is Node and self._table.get(o.id) is made]
        if shown:
            self._show(node, shown[0], made)
        elif made is not out:
            out = self._take(node.id, self._shape(node), node.dtype)
            self._keep(node, made, out)
        self._steps.append((_redraw, (self._draw, node, self._table[node.id]), None))
        return True

    def _written(self, node: Node, gone: Collection[int]) -> bool:
        """Whether the result is a view of an operand, or can be written into an array, over one of those that are
        ``gone`` where the primitive goes element by element."""
        primitive, statics, table = node.primitive, node.statics, self._table
        if type(node.raw) is tuple or primitive.random and primitive.view is None:
            return False
        operands = tuple([table.get(o.id, o.raw) if type(o) is Node else o for o in node.operands])
        if node.id in self._leading:
            batched = [type(o) is Node and o.id in self._leading for o in node.operands]
            call = None if primitive.axes is None else primitive.axes.lead(operands, batched, statics)
            if call is None:
                return False
            operands, statics = call
        shape, first = self._shape(node), node.operands[0]
        look = primitive.view if callable(primitive.view) or primitive.view is None else lambda *_, **__: _itself
        look = look and look(*operands, **statics)
        if look is not None and type(first) is Node and first.id in self._owner:
            seen = look(operands[0])
            if seen.shape == shape and seen.dtype == node.dtype and np.may_share_memory(seen, operands[0]):
                self._show(node, first.id, seen)
                return True
        kernel = primitive.kernel(operands, statics)
        if kernel is None or primitive.random:
            return False
        over = [
            i
            for i in (gone if primitive.axes is elementwise else ())
            if i in self._owner
            and self._readers[self._owner[i]] == 1
            and table[i] is self._places[self._owner[i]]
            and table[i].shape == shape
            and table[i].dtype == node.dtype
        ]
        out = table[over[0]] if over else self._take(node.id, shape, node.dtype)
        if over:
            self._show(node, over[0], out)
        table[node.id] = out
        self._steps.append((kernel, (*operands, out), node))
        _call(*self._steps[-1])
        return True

    def _copied(self, node: Node) -> None:
        """Compute a node as it is declared, and copy the result to where it is kept."""
        operands = tuple([self._table.get(o.id, o.raw) if type(o) is Node else o for o in node.operands])
        batched = [type(o) is Node and o.id in self._leading for o in node.operands]
        call = functools.partial(run, node.primitive, operands, batched, node.statics, self.size)
        made = call()
        out: Result
        if type(node.raw) is tuple:
            led = (self.size,) if node.id in self._leading else ()
            out = tuple([np.empty((*led, *v.shape), v.dtype) for v in node.raw])
        else:
            out = self._take(node.id, self._shape(node), node.dtype)
        self._keep(node, made, out)
        self._steps.append((lambda call, out: _copy(call(), out), (call, out), None))

    def _keep(self, node: Node, made: Result, out: Result) -> None:
        pairs = list(zip(made, out, strict=True)) if type(out) is tuple else [(made, out)]
        self.repeatable &= all([np.shape(v) == o.shape and v.dtype == o.dtype for v, o in pairs])
        self._table[node.id] = out if self.repeatable else made
        if self.repeatable:
            _copy(made, out)

    def _take(self, owner: int, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """An array in the least free memory that holds it."""
        size = math.prod(shape) * dtype.itemsize
        least = min([n for n, free in self._free.items() if free and n >= size], default=None)
        memory = np.empty(size, np.uint8) if least is None else self._free[least].pop()
        out: np.ndarray = np.ndarray(shape, dtype, memory)
        self._owner[owner], self._readers[owner], self._memory[owner], self._places[owner] = owner, 1, memory, out
        return out

    def _show(self, node: Node, other: int, seen: np.ndarray) -> None:
        self._table[node.id] = seen
        if other in self._owner:
            self._owner[node.id] = self._owner[other]
            self._readers[self._owner[other]] += 1

    def _leave(self, i: int) -> None:
        """Nothing reads a node any more: its memory is free, unless others show it as well."""
        owner = self._owner.pop(i, None)
        if owner is not None:
            self._readers[owner] -= 1
            if not self._readers[owner]:
                memory = self._memory.pop(owner)
                self._free.setdefault(memory.nbytes, []).append(memory)


def _call(call: Function, arguments: Operands, node: Node | None) -> None:
    """One step; an error names the node, where it is one of its kernel, whose last argument is where it writes."""
    try:
        call(*arguments)
    except Exception as error:
        if node is None:
            raise
        raise_named(error, node.primitive, arguments[:-1], node.statics)


def _redraw(draw: Function, node: Node, out: np.ndarray) -> None:
    """A function, as a method would hold the memory of all until the garbage collector comes."""
    made = draw(node, out)
    if made is not out:
        _copy(made, out)


def _itself(x: Result) -> Result:
    return x


def _copy(made: Result, out: Result) -> None:
    for value, place in zip(made, out, strict=True) if type(out) is tuple else [(made, out)]:
        if np.shape(value) != place.shape:
            raise GuardError(f"a replay needs an array of shape {place.shape}, got {np.shape(value)}")
        place[...] = value
