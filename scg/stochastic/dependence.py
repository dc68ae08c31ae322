"""Which samples each node of a recorded graph depends on, and by which ties: the axis maps, followed from node to
node."""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import Any

from scg.core import axes
from scg.core.aliases import Function, Operand, Result
from scg.core.ambient import Guard
from scg.core.axes import Alignment, mixed
from scg.core.indices import is_basic
from scg.core.node import Node, Value
from scg.core.primitive import smooth_primitive
from scg.core.replay import is_shared
from scg.stochastic.sets import Set, common, meet, single, union, without
from scg.stochastic.sites import is_coupled
from scg.stochastic.ties import Tie, agreed, aligned, indexed

accounted: Function = smooth_primitive(
    lambda x, *draws: x, axes.first, every=lambda g, i, out, *operands: None if i else g, name="accounted", same=True
)
"""The same value, of which the derivative has already what the ``draws`` contribute: an ``estimate`` where a cost is
linear in it."""


def is_accounted(node: Node) -> bool:
    """Whether a node is ``accounted``."""
    return node.primitive is accounted


def accounts(node: Node) -> list[Node]:
    """The samples that an ``estimate`` or what is ``accounted`` has in its derivative."""
    found = []
    for operand in node.operands[1 if node.primitive is accounted else 2 :]:
        while type(operand) is Node and is_shared(operand):
            operand = operand.operands[0]
        if type(operand) is Node:
            found.append(operand)
    return found


Held = dict[Tie, Set]
"""For each tie, the samples to which a node is tied so."""

Passed = Any
"""What ``Held`` is of a node; of a node of several results a list of these."""


class Influence:
    """Which of some samples each node of a list (growing ids) depends on, and how, for all of them in one pass.

    Samples are numbered as they come, and sets of them are those of ``scg.stochastic.sets``.

    ``draws``   by id of a node, the samples on which it depends
    ``held``    for each tie the samples to which the node is tied so (a list of these for a node of several results):
                however many samples there are, these are few
    ``chosen``  the samples that an ``if`` looked at on the way: what is *not* made from them may depend on them there
                too
    ``bits``    by id of a sample, the set of it alone
    ``ties``    the ``if``s that looked at samples of several replicates at once: they tie what they are not
    """

    def __init__(self, sources: Iterable[tuple[Node, int]], order: Sequence[Node]):
        self.bits: dict[int, Set] = {}
        self.chosen: dict[int, Set] = {}
        self.ties: list[Result] = []
        # what an ``if`` looks at is tied to whole batches: the samples of each shape, and by stamp of an ``if`` those
        # that it and the ones around it looked at
        self._batches: dict[tuple[int, ...], Set] = {}
        self._looked: dict[int, Set] = {}
        own: dict[int, Held] = {}
        known: dict[tuple[tuple[int, ...], int], Tie] = {}
        for source, event_ndim in sources:
            bit, key = single(len(own)), (source.shape, event_ndim)
            tie = known[key] = known.get(key) or _own_tie(*key)
            own[source.id], self.bits[source.id] = {tie: bit}, bit
            self._batches[tie.batch] = union(self._batches.get(tie.batch, 0), bit)
        self.held: dict[int, Passed] = dict(own)
        self.draws: dict[int, Set] = dict(self.bits)
        oldest = min(own, default=0)  # what is older depends on no sample
        united: dict[int, Set] = {}  # by id of what is held: many nodes hold the same
        for node in order[bisect_left(order, oldest, key=attrgetter("id")) :]:
            found = self._passed(node)
            if node.id in own:
                found = own[node.id] if found is None else _joined(found, own[node.id])
            if node.primitive is accounted:
                found = _without(found, self._accounted(node))
            if node.guard is not None or self.chosen:
                found = self._branched(node, found)
            if found:
                self.held[node.id] = found
                draws = united.get(id(found))
                if draws is None:
                    draws = united[id(found)] = _draws(found)
                self.draws[node.id] = draws

    def tie(self, node: Node, draw: Set) -> Tie:
        """How a node depends on a sample, one of those on which it does."""
        for tie, draws in self.held[node.id].items():
            if meet(draws, draw):
                return tie
        raise KeyError(node)

    def _passed(self, node: Node) -> Passed:
        """What a node takes over from its operands."""
        held, found, alignments, axis_map = self.held, None, None, node.primitive.axes
        kept = axis_map is axes.first
        for k, operand in enumerate(node.operands[:1] if kept else node.operands):
            before = held.get(operand.id) if type(operand) is Node else None
            if before is None or k == 0 and is_coupled(node):
                continue
            if kept or axis_map is axes.elementwise and operand.raw.shape == node.raw.shape:
                after = before
            elif type(before) is list:
                after = before[node.statics["index"]]
            elif type(node.raw) is not tuple and operand.raw.shape == node.raw.shape == ():
                after = before
            elif k == 0 and len(node.operands) == 1 and axis_map is axes.index and is_basic(node.statics["index"]):
                after = _each(before, indexed, node.statics["index"], operand.raw.shape)
            else:
                alignments = alignments or _alignments(node)
                results = [_each(before, aligned, k, alignment) for alignment in alignments]
                after = results if type(node.raw) is tuple else results[0]
            found = after if found is None or found is after else _joined(found, after)
        return found

    def _accounted(self, node: Node) -> Set:
        """The samples that a node is ``accounted`` for."""
        gone: Set = 0
        for site in accounts(node):
            gone = union(gone, self.bits.get(site.id, 0))
        return gone

    def _branched(self, node: Node, found: Value) -> Value:
        """``found`` for a node that stands, or is made of what stands, on a branch that some samples chose."""
        chosen: Set = 0
        for operand in node.operands[:1] if node.primitive.axes is axes.first else node.operands[is_coupled(node) :]:
            if type(operand) is Node:
                chosen = union(chosen, self.chosen.get(operand.id, 0))
        looked: Set = 0 if node.guard is None else self._before(node.guard)
        gone: Set = self._accounted(node) if node.primitive is accounted else 0
        chosen, looked = without(union(chosen, looked), gone), without(looked, gone)
        if not chosen:
            return found
        self.chosen[node.id] = chosen
        return found if node.guard is None else self._freed(node, found, looked)

    def _before(self, guard: Guard | None) -> Set:
        """The samples that the ``if``s up to this one looked at."""
        chain, known = [], self._looked
        while guard is not None and guard.stamp not in known:
            chain.append(guard)
            guard = guard.before
        looked: Set = 0 if guard is None else known[guard.stamp]
        for link in reversed(chain):
            own = self.draws.get(link.node.id, 0)
            if own and link.node.size > 1:  # one call has looked at one number
                self.ties.append(link)
            looked = known[link.stamp] = union(looked, own)
        return looked

    def _freed(self, node: Node, found: Passed, draws: Set) -> Passed:
        """``found`` for what was made on a branch that some samples chose: all of its elements depend on all of
        theirs."""
        found = _without(found, draws)

        def freed(value: Result, before: Held) -> Held:
            free = tuple([((None, n),) for n in value.shape])
            new = {
                Tie(free, (None,) * len(batch), batch): those
                for batch, samples in self._batches.items()
                if (those := common(draws, samples))
            }
            return _joined(before, new)

        if type(node.raw) is tuple:
            return [freed(value, before) for value, before in zip(node.raw, found or [{}] * len(node.raw), strict=True)]
        return freed(node.raw, found or {})


def influence(source: Node, event_ndim: int, order: Sequence[Node]) -> dict[int, Passed]:
    """The ``Tie`` of every node of ``order`` (growing ids) that depends on ``source``; a list of them for a node of
    several results."""
    held = Influence([(source, event_ndim)], order).held
    return {
        i: [next(iter(h)) for h in found] if type(found) is list else next(iter(found)) for i, found in held.items()
    }


def _own_tie(shape: tuple[int, ...], event_ndim: int) -> Tie:
    """How a sample of this shape is tied to itself: shape (4, 3) of events of one axis has the axes (((0, 1, 4), 4),)
    and ((None, 3),), and the batch (4,)."""
    tied = len(shape) - event_ndim
    return Tie(
        tuple([(((a, 1, n) if a < tied else None, n),) for a, n in enumerate(shape)]), (None,) * tied, shape[:tied]
    )


def _alignments(node: Node) -> list[Alignment]:
    """How the axes of each result of a node follow from those of its operands."""
    axis_map, value, shapes = node.primitive.axes or mixed, node.raw, [getattr(o, "shape", ()) for o in node.operands]
    if type(value) is tuple:
        return [axis_map.align_result(j, shapes, v.shape, node.statics) for j, v in enumerate(value)]
    return [axis_map.align(shapes, value.shape, node.statics)]


def _each(before: Held, move: Callable[..., Tie], *how: Operand) -> Held:
    found: Held = {}
    for tie, draws in before.items():
        after = move(tie, *how)
        found[after] = union(found.get(after, 0), draws)
    return found


def _joined(a: Passed, b: Passed) -> Passed:
    """What two paths hold together: a sample on both has what they agree on."""
    if type(a) is list:
        return [_joined(x, y) for x, y in zip(a, b, strict=True)]
    if len(a) == len(b) == 1:
        ((x, left),), ((y, right),) = a.items(), b.items()
        if x == y:
            draws = union(left, right)
            return a if draws is left else b if draws is right else {x: draws}
    both = common(_draws(a), _draws(b))
    found: Held = {}
    for held in (a, b):
        for tie, draws in held.items():
            if alone := without(draws, both):
                found[tie] = union(found.get(tie, 0), alone)
    if both:
        for x, left in a.items():
            for y, right in b.items():
                if shared := common(left, right):
                    tie = agreed(x, y)
                    found[tie] = union(found.get(tie, 0), shared)
    return found


def _without(held: Passed, gone: Set) -> Passed:
    """``held`` without some samples."""
    if type(held) is list:
        return [_without(h, gone) or {} for h in held]
    return held and {tie: left for tie, draws in held.items() if (left := without(draws, gone))}


def _draws(held: Passed) -> Set:
    found: Set = 0
    for part in held if type(held) is list else (held,):
        for draws in part.values():
            found = union(found, draws)
    return found
