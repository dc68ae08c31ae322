"""Who holds a node: references are counted, and told apart by what they are from."""

import dis
import gc
import inspect
import sys
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from scg.core.node import Node


_PAIRS: tuple[type, ...] = enumerate, zip, type({}.items().__iter__())


class _Probe:
    """How many references this interpreter counts, inside ``x += y``, to x and to y."""

    def __iadd__(self, other: object) -> "_Probe":
        self.count, self.other = sys.getrefcount(self), sys.getrefcount(other)
        return self


def _inside(x: _Probe) -> int:
    x += 0
    return x.count


def _counted() -> tuple[int, int, int]:
    alone, shared, twice, given = _Probe(), _Probe(), _Probe(), _Probe()
    alone += 0
    twice += twice
    if alone.count >= _inside(shared):
        return -1, -1, -1
    count = alone.count
    alone += _Probe()
    passing = alone.other
    alone += given
    return count, twice.count, passing if passing < alone.other else -1


ALONE, TWICE, PASSING = _counted()
"""The references to x inside ``x += y``, inside ``x += x``, and those to a y that nothing else holds; where counts do
not tell, less than any."""


def operand_uses(node: "Node", other: object, passed: int) -> int:
    """How many references nodes have to ``node``, as their operand: what they computed is a number of its own, and does
    not see the node change. None where a view of it may be seen, which does.

    ``other`` is y of ``node += y``, with ``passed`` references to it. All objects are looked through, which takes some
    milliseconds.
    """
    uses, views = _uses(node)
    return 0 if _is_any_seen(views, other, passed) else uses


def _uses(node: "Node") -> tuple[int, list[Any]]:
    """How many operands of nodes a node is; those of these nodes that are views of it."""
    found = [x for x in gc.get_referrers(node) if type(x) is tuple]
    owners = [n for n in gc.get_referrers(*found) if type(n) is type(node) and any([n.operands is x for x in found])]
    held = {id(n.operands): n.operands for n in owners}  # several nodes may share them
    uses = sum([o is node for operands in held.values() for o in operands])
    return uses, [n for n in owners if type(n.raw) is np.ndarray and np.may_share_memory(n.raw, node.raw)]


def _is_any_seen(views: list[Any], other: object, passed: int) -> bool:
    """Whether something beside the nodes computed of them, or ``other`` on its way, refers to one of some views, or to
    a view of it."""
    views.append(object())  # which the list alone holds
    held = [sys.getrefcount(view) for view in views]
    views.pop()
    for k, count in enumerate(held[:-1]):
        uses, further = _uses(views[k])
        more = passed - PASSING if views[k] is other else count - held[-1]
        if more > uses or PASSING < 0 or _is_any_seen(further, other, passed):
            return True
    return False


def past_uses(node: "Node", frame: FrameType) -> int:
    """How many references to ``node`` nobody reads any more: of local names of a function, whatever it does next, and
    of iterators as ``d.items()``, which keep the pair that they gave."""
    pairs = [pair for pair in gc.get_referrers(node) if type(pair) is tuple and sys.getrefcount(pair) <= 4]
    iterators = [holder for holder in gc.get_referrers(*pairs) if type(holder) in _PAIRS]
    kept = [x for holder in iterators for x in gc.get_referents(holder)]
    return _past_names(node, frame) + sum([any([x is pair for x in kept]) for pair in pairs])


def _past_names(node: "Node", frame: FrameType) -> int:
    """Of local names; the one that ``node += y`` is written to is not among them."""
    code = frame.f_code
    if not code.co_flags & inspect.CO_OPTIMIZED:
        return 0
    held = frame.f_locals
    names = [name for name in code.co_varnames if held.get(name) is node and name not in code.co_cellvars]
    if type(held) is dict:  # a copy, which stays with the frame and would hold nodes
        for name in [name for name, value in held.items() if type(value) is type(node)]:
            del held[name]
    if not names:
        return 0
    steps = [(i.offset, i.opname, i.argval) for i in dis.get_instructions(code)]
    place = {offset: k for k, (offset, _, _) in enumerate(steps)}
    start = place[frame.f_lasti] + 1
    return sum([not _is_stored(steps[start], name) and not _is_read(steps, place, start, name, code) for name in names])


def _is_read(steps: list[tuple[int, str, Any]], place: dict[int, int], start: int, name: str, code: CodeType) -> bool:
    """Whether a way through the instructions from ``start`` reads a name before it is written to."""
    if code.co_exceptiontable:  # which may lead anywhere
        return any([_is_loaded(step, name) for step in steps])
    stack, seen = [start], set()
    while stack:
        k = stack.pop()
        if k in seen or k >= len(steps):
            continue
        seen.add(k)
        _, op, target = steps[k]
        if _is_loaded(steps[k], name):
            return True
        if _is_stored(steps[k], name) or op.startswith(("RETURN_", "RAISE_", "RERAISE")):
            continue
        if "JUMP" in op or op in ("FOR_ITER", "SEND"):
            stack.append(place[target])
        if not op.startswith(("JUMP_FORWARD", "JUMP_BACKWARD")):
            stack.append(k + 1)
    return False


def _is_loaded(step: tuple[int, str, Any], name: str) -> bool:
    return "FAST" in step[1] and name in _loads(step)


def _is_stored(step: tuple[int, str, Any], name: str) -> bool:
    return "FAST" in step[1] and name in _names(step) and name not in _loads(step)


def _names(step: tuple[int, str, Any]) -> tuple[str, ...]:
    return step[2] if isinstance(step[2], tuple) else (step[2],)


def _loads(step: tuple[int, str, Any]) -> tuple[str, ...]:
    """The names that an instruction reads: all but those that it stores or deletes, two of which may be one
    instruction, as in STORE_FAST_LOAD_FAST."""
    op, names = step[1], _names(step)
    if op.startswith("STORE_FAST_LOAD"):
        return names[1:]
    return () if op.startswith(("STORE_", "DELETE_")) else names
