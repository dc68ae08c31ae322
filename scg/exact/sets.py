"""Sets of elements of samples, and which of them are enumerated together."""

import numpy as np

from scg.elimination.finite import BudgetError
from scg.errors import here

Set = frozenset[int]

_PAIRS = 2**26


def overlapping(slopes: list[np.ndarray], sets: list[Set], elements: int) -> np.ndarray:
    """The pairs of elements of terms that some coordinate adds up and that are not independent: (pairs, 2), the first
    not after the second."""
    if len(sets) ** 2 > _PAIRS:
        raise BudgetError(f"{len(sets)} parts of a gradient are too many for their covariances ({here()})")
    member = np.zeros((len(sets), elements), np.float32)
    for i, s in enumerate(sets):
        member[i, list(s)] = 1
    met = np.zeros((len(sets), len(sets)), bool)
    for slope in slopes:
        used = np.asarray(slope != 0, np.float32)
        met |= used.T @ used > 0
    return np.argwhere(np.triu(met & (member @ member.T > 0)))


def covered(requests: list[Set]) -> tuple[list[Set], list[int]]:
    """The largest of the sets, in which all the others lie, and for every request one in which it does."""
    distinct = sorted(set(requests), key=lambda s: (-len(s), sorted(s)))
    covers: list[Set] = []
    containing: dict[int, list[int]] = {}
    cover_of: dict[Set, int] = {}
    for s in distinct:
        rarest = min((containing.get(e, []) for e in s), key=len, default=list(range(len(covers))))
        found = next((k for k in rarest if s <= covers[k]), None)
        if found is None:
            found = len(covers)
            covers.append(s)
            for e in s:
                containing.setdefault(e, []).append(found)
        cover_of[s] = found
    return covers, [cover_of[r] for r in requests]


def rounds(covers: list[Set], sizes: list[int]) -> list[list[int]]:
    """Sets that have no element in common, together: by falling size, each into the first round that it fits."""
    rounds: list[tuple[set[int], list[int]]] = []
    for k in sorted(range(len(covers)), key=lambda k: -sizes[k]):
        for used, members in rounds:
            if used.isdisjoint(covers[k]):
                used |= covers[k]
                members.append(k)
                break
        else:
            rounds.append((set(covers[k]), [k]))
    return [members for _, members in rounds]
