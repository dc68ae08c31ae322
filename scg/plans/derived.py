"""What NumPy alone made, in a recorded run, of arrays that the function holds: a plan reads these arrays anew, and not
what was made of them.

Where such numbers may be among the constants of a plan, the arrays are watched. After a change the function is recorded
again: where its constants came out as they were, nothing was made of what changed, and it is watched no more.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from types import CodeType
from typing import NamedTuple

import numpy as np

from scg.core.ancestry import ancestors
from scg.core.node import Node
from scg.core.tree import leaves
from scg.plans.given import is_held
from scg.plans.recording import Recorder
from scg.plans.running import Run


class Constants(NamedTuple):
    """A ``digest`` of all that stands in the nodes of a run beside nodes and arrays that are read anew; and whether the
    function itself ``made`` some of it."""

    digest: bytes
    made: bool


def constants(run: Run, ran: Iterable[CodeType]) -> Constants:
    """Those of a recorded run of some code: all numbers but those that are written there."""
    recorder = run.recorder
    trees = [run.result, *[tree for later in recorder.later_calls for tree in later.trees]]
    roots = [leaf for tree in trees for _, leaf in leaves(tree) if type(leaf) is Node]
    order = ancestors([*roots, *recorder.costs], run.floor)
    known = {(type(x), x) for code in ran for x in code.co_consts if isinstance(x, (int, float))}
    # and what arrays of these shapes have: axes, sizes, numbers of elements
    shapes = [(*node.shape, node.size, node.ndim) for node in order if type(node.raw) is not tuple]
    known |= {(int, k * n) for shape in shapes for n in shape for k in (1, -1)} | {(int, n) for n in (-1, 0, 1)}
    digest, made = hashlib.blake2b(), False
    for node in order:
        digest.update(node.primitive.name.encode())
        own = not recorder.has_derivatives([node])
        given = [node.raw] if is_held(node) else [*node.operands, *(node.statics or {}).values()]
        for x in _constants(given):
            kept = _bytes(x, recorder)
            digest.update(kept)
            made = made or own and bool(kept) and _is_made(x, known)
    return Constants(digest.digest(), made)


def _constants(values: Sequence[object]) -> Iterator[object]:
    for x in values:
        if isinstance(x, (tuple, list)):
            yield from _constants(x)
        elif type(x) is not Node:
            yield x


def _bytes(x: object, recorder: Recorder) -> bytes:
    """Nothing for an array that is read anew, and for objects."""
    if isinstance(x, np.ndarray):
        return b"" if recorder.original(x) is not None or x.dtype.hasobject else x.tobytes()
    return repr(x).encode() if isinstance(x, (int, float, complex, str, slice, np.generic)) else b""


def _is_made(x: object, known: set[tuple[type, float]]) -> bool:
    return isinstance(x, (np.ndarray, np.number)) or type(x) in (int, float) and (type(x), x) not in known
