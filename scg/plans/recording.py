"""One run of a function, recorded: its arguments as inputs, everything it computed as nodes, its draws, its choices by
values, its steps.

The run is a plain one, so that its results are those of the call. What cannot be done again from the record alone (a
value read into Python, a generator that is no argument, a baseline that learns) refuses with the user's line.
"""

import contextlib
import contextvars
import functools
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, NoReturn

import numpy as np

from scg.core.aliases import Function, Keywords, Operand, Result, Tree
from scg.core.ambient import AMBIENT, RECORDER, Ambient, ids
from scg.core.ancestry import ancestors
from scg.core.generators import AnyGenerator, held_generators, state_of
from scg.core.node import Node, record
from scg.core.operands import described
from scg.core.tree import leaves, map_leaves
from scg.distributions.base import Distribution
from scg.errors import PACKAGE, PlanError, here
from scg.plans.given import HELD, INPUT, is_held, is_input, is_leaf, numbers
from scg.plans.originals import Original
from scg.plans.proxies import Proxy
from scg.plans.python_numbers import is_python_number, python_number


class Choice(NamedTuple):
    """``test(*operands)`` came out as ``outcome`` at ``line``: what was computed after it may hold for that alone."""

    test: Function
    operands: tuple[object, ...]
    outcome: bool
    line: str


class Later(NamedTuple):
    """What has side effects, and begins when the values are there: ``call(threads, *trees)`` with arrays, which may
    return, for each thread, steps to do.

    With ``now`` the arrays are those of now, and finite, when the steps run, and the call, which may come before, does
    but note where they are; without, they are what they are when it is their turn.
    """

    call: Function
    trees: tuple[Tree, ...]
    now: bool
    changes: bool  # whether another call would change more: all but what assigns an attribute
    lock: Any  # a method that returns what is held from before the plan begins to the end of these steps; None: nothing


class Recorder:
    """What the engine tells who records a function for a plan."""

    def __init__(self, generators: Sequence[np.random.Generator]):
        self.proxies = [Proxy(rng, self, k) for k, rng in enumerate(generators)]
        self.choices: list[Choice] = []
        self.draws: dict[int, tuple[Node, int]] = {}  # by id: the node, and the position of its generator
        self.later_calls: list[Later] = []
        self.costs: list[Node] = []  # what was differentiated: where it is a NaN its gradient is not that of a plan
        self.watched: list[Node] = []  # what must be finite, as it was: else zeros absorb
        # by the id of a copy: the copy, which keeps its id taken, and the array that was copied
        self.originals: dict[int, tuple[np.ndarray, Original]] = {}
        self.scalars: set[int] = set()
        self.arrays: set[int] = set()
        self.forgotten: set[int] = set()
        self._pulls: list[
            tuple[int, int]
        ] = []  # by derivative: what is younger than the first, and not than the second
        self._outer: list[set[int]] = []
        self._changed: tuple[list[object], int] | None = None
        self.inputs: list[Node] = []
        # nodes that are called plainly: what nobody takes of them may still raise, or have another shape
        self.made: list[Node] = []
        # why, and where, what was done cannot be planned, if the run comes to its end
        self.later_refusal: tuple[str, str] | None = None
        # why, and where, the function has no plan, and runs plainly
        self.unplanned: tuple[str, str] | None = None
        self._undo: list[tuple[object, str, object]] = []
        self._placing = 0
        self._drew_in_place = False
        self._filters, self._action = warnings.filters, _action()

    # told by the engine

    def settle(self, test: Function, operands: tuple[object, ...], outcome: bool) -> None:
        """Note a test that the engine made of values, and how it came out: a plan makes it again."""
        if any([type(o) is Node or self.original(o) is not None for o in operands]):
            self.choices.append(Choice(test, operands, outcome, here()))

    def refuse(self, why: str) -> NoReturn:
        """Raise PlanError: what the function did has no place in a plan."""
        raise PlanError(f"this cannot be compiled: {why} ({here()})")

    def refuse_later(self, why: str, line: str) -> None:
        """Refuse, unless the function itself raises an error: that is its own then."""
        self.later_refusal = self.later_refusal or (why, line)

    def plainly(self, why: str, line: str) -> None:
        """Let the function run plainly at each call: what a plan would have to find out costs more than it saves."""
        self.unplanned = self.unplanned or (why, line)

    def note(self, node: Node) -> None:
        """A node was made."""
        if node.operands and not isinstance(node.primitive.fn, np.ufunc):
            self.made.append(node)
            # functions know numbers of Python by their exact type
            if any([is_python_number(o) for o in node.operands]):
                given = [
                    o.raw.python(o.raw) if is_python_number(o) else o.raw if type(o) is Node else o
                    for o in node.operands
                ]
                value = node.primitive.fn(*given, **node.statics)
                node.raw = value if hasattr(value, "dtype") or isinstance(value, tuple) else np.asarray(value)[()]
        if self.later_refusal is None and not _QUIET.issuperset(np.geterr().values()):
            self.refuse_later(
                "np.errstate asks for an error, or a call, within it, and a plan runs with all warnings off: put it"
                " around the call",
                here(),
            )
        if warnings.filters is not self._filters and _action() not in (self._action, "ignore"):
            self.refuse_later(
                "what shall become of warnings is set within it, and a plan runs with all warnings off: put that around"
                " the call",
                here(),
            )

    def changed_in_place(self, node: Node) -> None:
        """``node += other``, and the like."""
        if isinstance(node.raw, np.ndarray) and any([np.may_share_memory(node.raw, x) for x in self.inputs]):
            self.refuse(
                "it changes an argument in place, which a plan would not do: write a = a + 1 for a += 1, and return the"
                " new array"
            )

    def notes(self, node: Node) -> int:
        """How many references to the node are of what is recorded, and none of the function's."""
        return sum([n is node for n in (*self.made, *[o for choice in self.choices for o in choice.operands])])

    def is_leaf(self, node: Node) -> bool:
        """Whether a node is an array, or a number, of a plain call."""
        return is_leaf(node)

    def hashed(self, node: Node, looked_up: bool) -> None:
        """A node is ``looked_up`` in a dict or a set, or may be: as a scalar argument, or an integer, it would be found
        by its value."""
        number = node.shape == () and (looked_up or is_input(node) or node.dtype.kind in "iub")
        if number and not _is_ours(2):
            self.refuse(
                "a number that a plan does not know is looked up in a dict or a set: pass it as a Python number, a plan"
                " for each, or index an array by it"
            )

    def shown(self) -> None:
        """A node is made into text."""
        if not _is_ours(2):
            self.refuse_later(
                "an array is made into text, which would show the values of the recorded run for ever: return it, and"
                " print that",
                here(),
            )

    def assigned(self, owner: object, name: str, value: object, lock: object) -> None:
        """``owner.name = value``, which is done again in each call when it is its turn, and undone at the end of this
        run."""
        self._undo.append((owner, name, vars(owner).get(name, self)))
        self.later(functools.partial(_assign, owner, name), (value,), [], lock=lock)

    def undo(self) -> None:
        """Take back what was assigned."""
        while self._undo:
            owner, name, value = self._undo.pop()
            if value is self:
                vars(owner).pop(name, None)
            else:
                vars(owner)[name] = value

    def copied(self, copy: np.ndarray, original: np.ndarray) -> None:
        """Note of which array of the function's a frozen copy is."""
        self.originals[id(copy)] = copy, Original(original)

    def held(self, copy: object) -> Operand:
        """A leaf that stands for an array of the function's; arrays with which a distribution computes a sample are its
        own."""
        return copy if self._placing else record(HELD, (), {}, copy)

    def generator(self, rng: np.random.Generator) -> np.random.Generator:
        """The generator behind a proxy; refused where it is none that the function was given."""
        if not isinstance(rng, Proxy) or rng.recorder is not self:
            self.refuse(
                "its generator is no argument of the compiled function, and a plan could not draw the same numbers:"
                " pass rng as an argument"
            )
        return rng.real

    def drawn(self, node: Node, rng: Operand) -> Node:
        """Note from which generator a sample comes."""
        self.generator(rng)
        self.draws[node.id] = node, rng.position
        return node

    def placed(
        self, draw: Function, distribution: Distribution, rng: np.random.Generator, shape: tuple[int, ...]
    ) -> Result:
        """``draw(distribution, rng, shape)``, in which noise that is no node is refused."""
        self.generator(rng)
        self._placing, before, self._drew_in_place = self._placing + 1, self._drew_in_place, False
        try:
            value = draw(distribution, rng, shape)
            if type(value) is Node and self._drew_in_place:
                self.refuse(
                    f"{getattr(draw, '__self__', draw)!r} draws numbers that are no nodes: it must take them by"
                    " scg.sample.noise_node"
                )
        finally:
            self._placing, self._drew_in_place = self._placing - 1, before
        return value

    def finite(self, gradients: Iterable[object]) -> None:
        """Note gradients of which an infinite or NaN element sends the call back to the function itself."""
        self.watched += [g for g in gradients if type(g) is Node and g.dtype.kind in "fc"]

    def typed(self, node: Node, fn: Function, args: tuple[object, ...], kwargs: Keywords) -> None:
        """A call of NumPy's ``fn`` made a node without axes: whether NumPy makes a scalar of it is seen from a call
        with the values."""
        try:
            with np.errstate(all="ignore"):
                made = fn(*_values(args), **_values(kwargs))
        except Exception:  # the primitive takes what NumPy does not
            return
        if isinstance(made, (np.ndarray, np.generic)):
            mine, other = (self.scalars, self.arrays) if isinstance(made, np.generic) else (self.arrays, self.scalars)
            mine.add(node.id)  # the outermost call is the user's
            other.discard(node.id)

    def differentiated(self, cost: Node, found: Sequence[object]) -> None:
        """Note a cost, which is a scalar, and its derivatives, which are arrays."""
        self.scalars.add(cost.id)
        self.arrays.discard(cost.id)
        self.costs.append(cost)
        self.arrays.update([g.id for g in found if type(g) is Node])

    def pulled(self, newest: int) -> None:
        """A derivative was taken of nodes up to the id ``newest``: those made since then are its own."""
        self._pulls.append((newest, next(ids)))

    def has_derivatives(self, order: Sequence[Node]) -> bool:
        """Whether any of these nodes is part of a derivative."""
        return any([low < node.id < high for low, high in self._pulls for node in order])

    def forget(self, node: Node) -> bool:
        """Let go of the memory of a value that nobody will ask for; False where that was done before."""
        if node.id in self.forgotten or is_held(node):
            return False
        self.forgotten.add(node.id)
        if type(node.raw) is np.ndarray and node.raw.nbytes > 4096:
            node.raw = np.broadcast_to(np.zeros((), node.dtype), node.shape)
        return True

    def within(self, fn: Function, args: Sequence[object], kwargs: Keywords) -> Result:
        """``fn(*args)``, a function that is differentiated inside of the one that is recorded."""
        self._outer.append({leaf.id for _, leaf in leaves(list(args)) if type(leaf) is Node and not is_input(leaf)})
        try:
            return fn(*args, **kwargs)
        finally:
            self._outer.pop()

    def outer(self, cost: Node) -> bool:
        """Whether a function that is being differentiated around this one reaches ``cost``."""
        active = set().union(*self._outer)
        return bool(active) and any([node.id in active for node in ancestors([cost], min(active))])

    def later(
        self, call: Function, trees: tuple[object, ...], changed: list[object], now: bool = False, lock: object = None
    ) -> None:
        """Note a call that changes arrays of the function's, as a step of an optimizer: a plan makes it at its end."""
        arrays = [leaf.raw if type(leaf) is Node else leaf for tree in trees for _, leaf in leaves(tree)]
        if (
            now
            and self._changed is not None
            and any([np.may_share_memory(x, a) for x in arrays for a in self._changed[0]])
        ):
            self.refuse(
                "a step is given, as a gradient, an array that an earlier step changes, which a plan would do at its"
                " end: leave that to the next call"
            )
        self.later_calls.append(Later(call, trees, now, bool(changed), lock))
        if not changed:
            return
        stamp = record(INPUT, (), {}, np.zeros(())).id
        if self._changed is None:
            self._changed = list(changed), stamp
        else:
            self._changed[0].extend(changed)

    # asked by who builds the plan

    def close(self) -> None:
        """Let go of the run: draws hold proxies, which hold this."""
        for proxy in self.proxies:
            vars(proxy).clear()
        vars(self).clear()

    def original(self, value: object) -> np.ndarray | None:
        """The array of which this is a copy, where there is one and it is still there; else None."""
        return self.originals[id(value)][1].array() if id(value) in self.originals else None

    def read_anew(self) -> set[int]:
        """By id the arrays, and what they are views of, that a plan reads at each call."""
        found = set()
        for _, original in self.originals.values():
            array: object = original.array()
            while isinstance(array, np.ndarray):
                found.add(id(array))
                array = array.base
        return found

    def check_order(self, nodes: Sequence[Node], inputs: Sequence[Node]) -> None:
        """Refuse nodes that read, after a step of an optimizer, what this step will have changed."""
        if self._changed is None:
            return
        arrays, stamp = self._changed
        stale = {node.id for node in inputs if any([np.may_share_memory(node.raw, a) for a in arrays])}
        fresh = {id(copy) for copy, _ in self.originals.values() if any([self.original(copy) is a for a in arrays])}
        for node in nodes:
            if node.id > stamp and any([type(o) is Node and o.id in stale or id(o) in fresh for o in node.operands]):
                raise PlanError(
                    f"this cannot be compiled: {node!r}, made at {node.line}, uses parameters after the optimizer's"
                    f" step, which a plan takes at its end: leave that to the next call ({here()})"
                )

    def raw_bits(self, proxy: Proxy) -> np.random.BitGenerator:
        """What stands behind a generator, for scg itself: what others take of it no plan would see."""
        if not _is_ours(2):
            self.refuse("rng.bit_generator gives numbers that a plan would repeat: draw by the generator's methods")
        return proxy.real.bit_generator

    def numbers_drawn(self, proxy: Proxy, name: str, args: tuple[object, ...], kwargs: Keywords) -> Result:
        """Numbers that a method of a generator gives beside ``scg.sample``: a node that a plan draws anew."""
        method = getattr(proxy.real, name)
        given = [*args, *kwargs.values()]
        if self._placing:
            self._drew_in_place = True
            return method(*args, **kwargs)
        if any([type(x) is Node for x in given]):
            self.refuse(f"rng.{name} was given a node, {described(given)}: draw with scg.sample")
        if name in ("shuffle", "bytes", "spawn") or kwargs.get("out") is not None:
            self.refuse(
                f"rng.{name} makes no array that a plan could make again: draw with scg.sample, or pass the numbers as"
                " an argument"
            )
        if sys._getframe(2).f_code.co_filename.startswith(PACKAGE):
            self.refuse(
                "a distribution was sampled outside scg.sample, so that its numbers are no nodes: write"
                " scg.sample(distribution,"
                " estimator, rng=rng)"
            )
        value = method(*args, **kwargs)
        value = value if isinstance(value, (np.ndarray, np.generic)) else python_number(value)
        return self.drawn(record(numbers, (), {"name": f"rng.{name}", "args": args, "kwargs": kwargs}, value, 3), proxy)


def _is_ours(depth: int) -> bool:
    """Whether the caller so many calls up is scg itself, in a message."""
    return sys._getframe(depth + 1).f_code.co_filename.startswith(PACKAGE)


def _assign(owner: object, name: str, threads: int, value: object) -> None:
    if isinstance(value, np.ndarray):
        value = value[()] if value.shape == () else np.array(value)
    setattr(owner, name, value)


_QUIET = frozenset(["ignore", "warn", "print", "log"])


def _action() -> str | None:
    """What becomes of the warnings of NumPy: "error", "ignore"."""
    return next((how for how, _, kind, *_ in warnings.filters if issubclass(RuntimeWarning, kind)), None)


def _values(tree: Tree) -> Tree:
    return map_leaves(lambda x: x.raw if type(x) is Node else x, tree)


def drew_elsewhere(fn: Function, args: object, given: Sequence[np.random.Generator]) -> Callable[[], bool]:
    """A function that tells whether, since now, a generator has drawn that ``fn`` holds, or its arguments beside those
    ``given`` to the plan, or NumPy's global one: a plan would repeat the numbers."""
    held = held_generators(fn) + [g for g in held_generators(args) if not any([g is other for other in given])]
    before = [(g, state_of(g), _spawned(g)) for g in held]
    return lambda: any([state_of(g) != state or _spawned(g) != n for g, state, n in before])


def _spawned(generator: AnyGenerator) -> object:
    """How many generators came out of this one, which it remembers beside its state."""
    bits = getattr(generator, "bit_generator", generator)
    return getattr(getattr(bits, "seed_seq", None), "n_children_spawned", None)


@contextlib.contextmanager
def recording(recorder: Recorder) -> Iterator[None]:
    """Within the block the engine tells ``recorder``."""
    token, ambient = RECORDER.set(recorder), AMBIENT.get()
    AMBIENT.set((ambient or Ambient())._replace(made=recorder.note))
    try:
        yield
    finally:
        RECORDER.reset(token)
        AMBIENT.set(ambient)


def unrecorded(fn: Function, *args: object, **kwargs: object) -> Result:
    """``fn(*args, **kwargs)`` as if nobody recorded: for what a plan does itself."""
    context = contextvars.copy_context()
    context.run(RECORDER.set, None)
    context.run(AMBIENT.set, None)
    return context.run(fn, *args, **kwargs)
