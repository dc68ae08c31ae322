"""One run of a differentiated function: whether it stands within another, and its end."""

from scg.core.ambient import RECORDER
from scg.core.backward import Reach, reach
from scg.core.leaves import FINISHED
from scg.core.node import Node
from scg.stochastic.lifting import refuse_finished


def floor_of(inputs: list[Node]) -> int:
    """What is older than this depends on none of the inputs."""
    return min([x.id for x in inputs], default=0)


def is_nested(cost: Node, inputs: list[Node], known: Reach | None = None) -> bool:
    """Whether the cost also depends on nodes older than the inputs: then somebody outside may differentiate the
    result."""
    floor = floor_of(inputs)
    older = any([x.operands for x in inputs]) or (known or reach([cost], floor)).older
    if not older:
        return False
    refuse_finished(cost, floor)
    recorder = RECORDER.get()
    return True if recorder is None else recorder.outer(cost)


def finish(inputs: list[Node]) -> None:
    """Note that a run is over whose derivatives were given away as arrays (in a plan they are nodes, and it is not)."""
    if RECORDER.get() is None:
        for x in inputs:
            if not x.operands:
                x.primitive = FINISHED
