"""Replicates behind ``if``s: those that take one way through the function are run together.

A recording holds for the replicates in which every ``if`` comes out as it did. Where one comes out otherwise in some of
them, these part from the others with all that was drawn for them before it: they are then one group, that has taken
one way up to there. The function runs again with what the first of a group has, which gives that one its gradient, and
the others a recording to go on by.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from scg.core.aliases import Result
from scg.core.node import Node
from scg.errors import GuardError
from scg.stochastic.resampling import resample
from scg.stochastic.tape import Turn

_FEW = 4  # replicates that are quicker run one by one


class Group(NamedTuple):
    """Some replicates, by their numbers, and what was ``made`` for them, by turn: (value, whether it has an entry for
    each of them)."""

    rows: np.ndarray
    made: Mapping[Turn, Result]

    def at(self, chosen: np.ndarray | slice) -> "Group":
        """Some of them."""
        return Group(self.rows[chosen], {t: (v[chosen] if led else v, led) for t, (v, led) in self.made.items()})

    def of(self, k: int) -> dict[Turn, np.ndarray]:
        """What the k-th of them has."""
        return {turn: value[k] if led else value for turn, (value, led) in self.made.items()}


Recording = Sequence[Result]
"""The gradient in one run, numbers or nodes, and last the node of the cost, behind which all ``if``s stand."""


def parted(
    group: Group,
    recording: Recording | None,
    rng: np.random.Generator,
    record: Callable[[dict[Turn, np.ndarray]], Recording | None] | None,
    single: Callable[[dict[Turn, np.ndarray]], list[np.ndarray]],
) -> Iterator[tuple[Group, list[Result]]]:
    """The gradients of some replicates: (group, gradients), each gradient with an axis for the group's rows, or without
    where it is one; a later one of a replicate stands for the earlier.

    ``recording`` is of one way through the function, that some of them may take. ``record`` runs it again with what one
    replicate has; it is, or returns, None where others cannot go on by that. ``single`` gives a gradient alone.
    """
    waiting: list[Group] = []
    if recording is None or record is None:
        waiting = [group]
    else:
        yield from _along(recording, group, rng, waiting, single)
    while waiting:
        group = waiting.pop()
        found = record(group.of(0)) if record is not None and len(group.rows) > _FEW else None
        if found is not None:
            yield group.at(slice(0, 1)), [np.asarray(getattr(g, "raw", g)) for g in found[:-1]]
            yield from _along(found, group.at(slice(1, None)), rng, waiting, single)
            continue
        for k in range(len(group.rows)):
            yield group.at(slice(k, k + 1)), single(group.of(k))


def _along(
    recording: Recording,
    group: Group,
    rng: np.random.Generator,
    waiting: list[Group],
    single: Callable[[dict[Turn, np.ndarray]], list[np.ndarray]],
) -> Iterator[tuple[Group, list[Result]]]:
    """The gradients of those that take one way; the others are ``waiting``."""
    nodes = [g for g in recording if type(g) is Node]
    while count := len(group.rows):
        made: dict[Turn, Result] = {}
        try:
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                new = resample(
                    nodes, {}, rng=rng, size=count, create_graph=False, checked=True, given=group.made, made=made
                )
        except GuardError as error:
            group = Group(group.rows, {**group.made, **made})
            same = np.zeros(count, bool) if error.agrees is None else error.agrees
            waiting.append(group.at(~same))
            group = group.at(same)
            continue
        values = iter(new)
        found = [next(values) if type(g) is Node else np.broadcast_to(g, (count, *np.shape(g))) for g in recording[:-1]]
        group = Group(group.rows, {**group.made, **made})
        yield group, found
        finite = np.all([np.isfinite(np.reshape(g, (count, -1))).all(axis=1) for g in found], axis=0)
        for k in np.flatnonzero(~finite).tolist():  # a zero may have to absorb what this recording did not meet
            yield group.at(slice(k, k + 1)), single(group.of(k))
        return
