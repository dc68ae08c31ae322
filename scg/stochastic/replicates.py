"""Values of a graph in many replicates, block by block."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from scg.core.aliases import Result
from scg.core.ancestry import ancestors
from scg.core.node import Node
from scg.core.repeated import Repeated
from scg.core.replay import live_bytes
from scg.errors import GuardError
from scg.stochastic.resampling import repeated, resample
from scg.stochastic.tape import Turn

# bytes that the arrays of one block of replicates may take at a time: memory stays bounded, and much of it in the cache
BLOCK = 2**22
# the same for each node of a long graph, about what the node itself takes
PER_NODE = 2**10


def block_of(roots: Sequence[Node]) -> int:
    """How many replicates of some nodes are computed at once: as many as ``BLOCK`` bytes hold, or ``PER_NODE`` for each
    node where these are more, so that calls of NumPy do not stay short of work, however long the graph is."""
    order = ancestors(roots, guards=True)
    return max(1, max(BLOCK, PER_NODE * len(order)) // max(1, live_bytes(roots, order)))


class Block(NamedTuple):
    """Some replicates: their values, None where an ``if`` came out otherwise for what was ``made`` until then, and the
    state of the generator before."""

    size: int
    values: list[np.ndarray] | None
    made: dict[Turn, Result]
    state: Mapping[str, Any]


def replays(roots: Sequence[Node], rng: np.random.Generator, replicates: int, most: int) -> Iterator[Block]:
    """The values of ``roots`` with all randomness new and a leading axis of replicates, in blocks of ``most``. A block
    is overwritten by the next one.

    Where the next block is as large, and no ``if`` stands anywhere, both run in the same memory (``Repeated``): to make
    that takes longer than to replay the graph once.
    """
    again: Repeated | None = None
    for start in range(0, replicates, most):
        size, state = min(most, replicates - start), rng.bit_generator.state
        made: dict[Turn, Result] = {}
        values: list[np.ndarray] | None = None
        try:
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                if again is not None and again.size == size:
                    again.run()
                else:
                    again = repeated(roots, rng, size) if start + 2 * size <= replicates else None
                values = (
                    again.results
                    if again is not None
                    else resample(list(roots), {}, rng=rng, size=size, create_graph=False, checked=True, made=made)
                )
                if again is not None and not again.repeatable:
                    again = None
        except GuardError:
            pass
        yield Block(size, values, made, state)
