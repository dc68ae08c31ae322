"""What must be ambient: the latest ``if`` on a node, whether NaN is sought, who records. Context variables, restored by
who sets them."""

import contextvars
import itertools
import sys
import weakref
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from types import CodeType
from typing import TYPE_CHECKING, Any, NamedTuple, final

from scg.core.aliases import Function
from scg.errors import PACKAGE, location

if TYPE_CHECKING:
    from scg.core.node import Node

ids = itertools.count()
"""Numbers of nodes and of guards: what is younger has a higher one."""


@final
class Guard:
    """``if node:`` as it came out, and where it stands; or, where it ``reads``, that a number which an estimator's
    formula has taken from a node, ``node.value``, is what it was.

    Nodes that were made after it, of anything that is older than it, point to it: a replay that reaches them checks it
    first.
    """

    __slots__ = ("node", "outcome", "before", "stamp", "code", "instruction", "reads", "__weakref__")

    def __init__(
        self,
        node: "Node",
        outcome: bool,
        before: "Guard | None",
        code: CodeType | str | None,
        instruction: int,
        reads: bool = False,
    ):
        self.node, self.outcome, self.before, self.stamp = node, outcome, before, next(ids)
        self.code, self.instruction, self.reads = code, instruction, reads

    @property
    def line(self) -> str:
        """The line of the ``if``."""
        return location(self.code, self.instruction)

    @property
    def taken(self) -> str:
        """What is wrong with a number that was taken."""
        return (
            f"node.value, at {self.line}, which all replicates would share: compute with the node, or with"
            " down.constant(node) where it is held constant; it has .shape and .dtype itself"
        )

    def unseen(self, seen: set[int]) -> Iterator["Guard"]:
        """This guard and those that it follows, latest first, up to the first that is in ``seen`` (which they
        enter)."""
        guard: Guard | None = self
        while guard is not None and guard.stamp not in seen:
            seen.add(guard.stamp)
            yield guard
            guard = guard.before


class Ambient(NamedTuple):
    """What must be ambient: the latest guard, whether NaN is sought, and who is told of each node that is made.

    The guard is held only until a node has taken it (``held``) or by the scope that collects it, so that a graph dies
    with its nodes.
    """

    guard: "weakref.ref[Guard] | None" = None
    held: Guard | None = None
    nan: bool = False
    made: "Callable[[Node], None] | None" = None


AMBIENT: contextvars.ContextVar[Ambient | None] = contextvars.ContextVar("scg_ambient", default=None)
RECORDER: contextvars.ContextVar[Any] = contextvars.ContextVar("scg_recorder", default=None)
"""Who records a function for a plan (``scg.plans``), and is told what a graph alone does not hold: choices by values,
draws, steps of optimizers."""

WATCH: contextvars.ContextVar[Any] = contextvars.ContextVar("scg_watch", default=None)
"""Who looks, while a function is traced, whether it draws numbers that are no nodes (``scg.generators``)."""

SCOPE: contextvars.ContextVar[list[Guard] | None] = contextvars.ContextVar("scg_scope", default=None)
FORMULA: contextvars.ContextVar[bool] = contextvars.ContextVar("scg_formula", default=False)
"""Whether an estimator writes, in nodes, a formula that can be replayed for other samples."""

TAKEN: contextvars.ContextVar[list[tuple[object, CodeType, int]] | None] = contextvars.ContextVar(
    "scg_taken", default=None
)
"""Numbers that a function has taken out of its graph in this run: of which node or distribution, and where."""

_MOST_TAKEN = 1000


def note_taken(source: object) -> None:
    """Enter that the caller's caller has taken the number of a node, or one of a distribution, if that is a user."""
    taken, frame = TAKEN.get(), sys._getframe(2)
    if taken is not None and len(taken) < _MOST_TAKEN and not frame.f_code.co_filename.startswith(PACKAGE):
        taken.append((source, frame.f_code, frame.f_lasti))


@contextmanager
def collect_guards() -> Iterator[list[Guard]]:
    """Within the block every ``if node:`` enters the list that the block is given; after it they are forgotten but by
    nodes and list.

    A block inside another one shares its list: what an inner function decided, the outer one decided too.
    """
    guards = SCOPE.get()
    if guards is not None:
        yield guards
        return
    ambient, scope = AMBIENT.get(), SCOPE.set([])
    try:
        yield SCOPE.get()  # type: ignore[misc]
    finally:
        SCOPE.reset(scope)
        AMBIENT.set(ambient)


@contextmanager
def detect_nan() -> Iterator[None]:
    """Context: the first operation, forward or backward, that makes a NaN raises NonFiniteError with its name and
    line."""
    before = nan_is_sought()
    AMBIENT.set((AMBIENT.get() or Ambient())._replace(nan=True))
    try:
        yield
    finally:
        after = (AMBIENT.get() or Ambient())._replace(nan=before)
        AMBIENT.set(None if after == Ambient() else after)


def nan_is_sought() -> bool:
    """Whether a ``detect_nan()`` block is open."""
    ambient = AMBIENT.get()
    return ambient is not None and ambient.nan


def settled(test: Function, *operands: object) -> bool:
    """Whether ``test`` of the operands' values holds: a choice by values that no node records, but that a plan asks
    about anew each time."""
    outcome = bool(test(*[getattr(operand, "raw", operand) for operand in operands]))
    recorder = RECORDER.get()
    if recorder is not None:
        recorder.settle(test, operands, outcome)
    return outcome


def unplanned(why: str) -> None:
    """Refuse to be recorded for a plan, which would not do again what is done here."""
    recorder = RECORDER.get()
    if recorder is not None:
        recorder.refuse(why)


def note_guard(node: "Node", outcome: bool, code: CodeType | None, instruction: int, reads: bool = False) -> None:
    """Enter that an ``if`` on ``node`` came out as ``outcome``: nodes made from now on carry it."""
    ambient, scope = AMBIENT.get() or Ambient(), SCOPE.get()
    settled(bool, node)
    before = ambient.guard and ambient.guard()
    guard = Guard(node, outcome, before if before and node.id < before.stamp else None, code, instruction, reads)
    if scope is not None:
        scope.append(guard)
    AMBIENT.set(ambient._replace(guard=weakref.ref(guard), held=guard if scope is None else None))


def take_guard(ambient: Ambient, node: "Node") -> None:
    """Let ``node`` point to the latest guard if it is made of something older, or is a sample or noise made of no node;
    made of newer nodes only, it needs none of its own."""
    guard = None if ambient.guard is None else ambient.guard()
    if guard is None:
        rest = ambient._replace(guard=None, held=None)
        AMBIENT.set(None if rest == Ambient() else rest)
    elif any([type(o) is type(node) and o.id < guard.stamp for o in node.operands]) or (
        _begins(node) and _is_of_this_run(guard)
    ):
        node.guard = guard
        if ambient.held is not None:
            AMBIENT.set(ambient._replace(held=None))


def _begins(node: "Node") -> bool:
    return node.primitive.random and not any([type(o) is type(node) for o in node.operands])


def _is_of_this_run(guard: Guard) -> bool:
    """Whether the ``if`` stands in the function that is being run: one before it decided nothing in there."""
    scope = SCOPE.get()
    return scope is not None and scope[-1:] == [guard]


def is_tainted(guard: Guard, labels: Collection[int], known: dict[int, bool]) -> bool:
    """Whether an ``if`` on the way here looked at one of the nodes whose ids are in ``labels``."""
    chain = []
    at: Guard | None = guard
    while at is not None and at.stamp not in known:
        chain.append(at)
        at = at.before
    verdict = at is not None and known[at.stamp]
    for link in reversed(chain):
        verdict = known[link.stamp] = verdict or link.node.id in labels
    return verdict
