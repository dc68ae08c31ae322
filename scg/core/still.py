"""Elements that stay what they are when what one differentiates by is moved: whatever slope stands before one, it has
no part in a derivative.

softmax(where(mask, logits, -inf)) is 0 outside the mask, and stays 0: the entropy -sum(p log p) is then that of the
others, though the slope of p log p at 0 is infinite. At p = x^2, x = 0, the same slope counts.
"""

from collections.abc import Sequence

import numpy as np

from scg.core.aliases import Result
from scg.core.ancestry import ancestors
from scg.core.node import Node
from scg.core.replay import rerun
from scg.errors import ScgError

_SMALL, _LARGE = 1e-4, 1e-2
"""Relative distances, and absolute ones beside numbers under 1: in double precision, where less rounds; and in the
precision that there is, where what underflows stays."""


def stays(node: Node, wrt: Sequence[Node]) -> Result:
    """Where a node has the same value at numbers near those of ``wrt``: for moves of all their elements at once, there
    and back, by a small distance in double precision or by a large one in their own. Samples stay as they are."""
    order = ancestors([node], min([x.id for x in wrt]), guards=True)
    here = np.asarray(node.raw)
    try:
        return _same(here, node, order, wrt, _SMALL, True) | _same(here, node, order, wrt, _LARGE, False)
    except (ScgError, np.linalg.LinAlgError):  # an ``if`` that comes out otherwise, say
        return np.zeros(node.shape, bool)


def _same(here: Result, node: Node, order: list[Node], wrt: Sequence[Node], distance: float, wide: bool) -> Result:
    rng = np.random.default_rng(0)
    steps = [distance * rng.uniform(0.5, 1, x.shape) * rng.choice([-1.0, 1.0], x.shape) for x in wrt]
    same = np.ones(node.shape, bool)
    for sign in (1, -1):
        table: dict[int, Result] = {}
        for x, step in zip(wrt, steps, strict=True):
            value = x.raw.astype(np.float64) if wide and x.dtype.kind == "f" else x.raw
            table[x.id] = (value + sign * step * np.maximum(np.abs(value), 1)).astype(value.dtype)
        table.update({x.id: x.raw for x in order if x.primitive.random and x.id not in table})
        with np.errstate(all="ignore"):
            same &= np.equal(rerun([node], order, table, set(), 0, False)[0], here)
    return same
