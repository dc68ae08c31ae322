"""``node += x`` and its kin: allowed where nobody else sees the node, so that a new one is as good as a changed one."""

import sys
from typing import TYPE_CHECKING

import numpy as np

from scg.core.aliases import Function
from scg.core.ambient import RECORDER
from scg.core.ancestry import ancestors
from scg.core.holders import ALONE, TWICE, operand_uses, past_uses
from scg.core.primitive import IMPLEMENTATIONS
from scg.errors import NotDifferentiable, ScgTypeError, ScgValueError, here

if TYPE_CHECKING:
    from scg.core.node import Node


def in_place(name: str, forward: Function) -> Function:
    """``node += x``: NumPy changes the array, and whatever else is that array sees it. A node cannot change, so this
    makes a new one, which is the same as long as nobody else holds the node, or one that it is a view of or that is a
    view of it, but by a name that is not read any more. Of numbers NumPy, too, makes new ones."""

    def changed(self: "Node", other: object) -> "Node":
        recorder = RECORDER.get()
        if recorder is not None:
            recorder.changed_in_place(self)
        value = self.raw
        if type(value) is not np.ndarray or value.ndim == 0:
            return forward(self, other)
        holders, alone = sys.getrefcount(self), TWICE if other is self else ALONE
        if holders > alone and type(other) is type(self):
            holders -= _uses(self, other)
        if holders > alone and recorder is not None:
            holders -= recorder.notes(self)
        if holders > alone > 0 and recorder is None:
            passed = sys.getrefcount(other)
            holders = sys.getrefcount(self) - operand_uses(self, other, passed)
        if holders > alone > 0:
            holders -= past_uses(self, sys._getframe(1))
        if holders > alone or _is_seen(self):
            raise NotDifferentiable(
                f"node {name} ... would change {self!r}, made at {self.line}, for all who hold it or a view of it, and"
                f" nodes are immutable: write v = v {name[:-1]} ..., and return v where a function is to change its"
                f" argument ({here()})"
            )
        made = forward(self, other)
        if made.shape != self.shape:
            raise ScgValueError(
                f"node {name} ... keeps the shape {self.shape}, and the result has {made.shape} ({here()})"
            )
        if made.dtype != self.dtype:
            if not np.can_cast(made.dtype, self.dtype, "same_kind"):
                raise ScgTypeError(
                    f"node {name} ... keeps the dtype {self.dtype}, and the result has {made.dtype} ({here()})"
                )
            made = IMPLEMENTATIONS[np.astype](made, self.dtype)
        return made

    return changed


def _uses(node: "Node", other: "Node") -> int:
    """How many references ``other`` has to the node, by what was computed from its value, as in ``x += f(x)``: none if
    a view of it is among that."""
    found = {id(n.operands): n for n in ancestors([other], node.id + 1) if any([o is node for o in n.operands])}
    if any([np.may_share_memory(n.raw, node.raw) for n in found.values() if type(n.raw) is np.ndarray]):
        return 0
    return sum([o is node for n in found.values() for o in n.operands])


def _is_seen(node: "Node") -> bool:
    """Whether a node is a view of one that somebody else holds."""
    while node.raw.base is not None:
        viewed = [
            o
            for o in node.operands
            if type(o) is type(node) and type(o.raw) is np.ndarray and np.may_share_memory(o.raw, node.raw)
        ]
        if not viewed:
            return False
        node, count = viewed[0], sys.getrefcount(viewed[0])
        if count > ALONE:
            return True
        del viewed
    return False
