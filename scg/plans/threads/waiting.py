"""What waits for what: tasks of several threads, in the order of a program, of which two that touch the same memory
keep that order if one writes to it.

That is all that is needed for the threads to compute what one thread would: it does not matter who decided which task
goes where.
"""

from _thread import LockType, allocate_lock
from collections.abc import Hashable, Sequence
from typing import NamedTuple

from scg.plans.threads.pool import Step

Access = tuple[Hashable, int, int, bool]
"""What memory: of which ``root``, from and up to which byte, and whether it is written."""


class Task(NamedTuple):
    """Steps that run one after the other on a thread, and the memory that they touch."""

    thread: int
    steps: list[Step]
    accesses: list[Access]


def awaited(tasks: Sequence[Task], width: int) -> list[tuple[int, int]]:
    """Pairs (i, k): on its thread, task k must wait for the end of task i, of another thread. None that follows from
    others."""
    recent: dict[Hashable, list[tuple[int, int, bool, int]]] = {}  # by root: earlier accesses
    place = [0] * len(tasks)  # of a task in its thread, from 1
    length = [0] * width
    known: list[list[int]] = []  # after each task: up to which place its thread knows each thread to be
    latest: list[list[int]] = [[0] * width for _ in range(width)]
    pairs = []
    for k, task in enumerate(tasks):
        thread, clock = task.thread, list(latest[task.thread])
        needed: dict[int, int] = {}
        for root, low, high, writes in task.accesses:
            for start, stop, wrote, i in recent.get(root, ()):
                if start < high and low < stop and (writes or wrote) and tasks[i].thread != thread:
                    needed[tasks[i].thread] = max(needed.get(tasks[i].thread, -1), i)
        for i in sorted(needed.values(), reverse=True):
            if place[i] > clock[tasks[i].thread]:
                pairs.append((i, k))
                clock = [max(a, b) for a, b in zip(clock, known[i], strict=True)]
        length[thread] += 1
        place[k] = clock[thread] = length[thread]
        known.append(clock)
        latest[thread] = clock
        for root, low, high, writes in task.accesses:
            earlier = recent.setdefault(root, [])
            if writes:  # whoever meets what is covered meets this too
                earlier[:] = [other for other in earlier if not (low <= other[0] and other[1] <= high) or other[3] == k]
            earlier.append((low, high, writes, k))
    return pairs


def step_lists(tasks: Sequence[Task], width: int) -> tuple[list[list[Step]], list[LockType]]:
    """The steps of each thread, with locks where one waits for another, and these locks, which are held between two
    runs."""
    before: dict[int, list[LockType]] = {}
    after: dict[int, list[LockType]] = {}
    locks = []
    for i, k in awaited(tasks, width):
        lock = allocate_lock()
        lock.acquire()
        locks.append(lock)
        after.setdefault(i, []).append(lock)
        before.setdefault(k, []).append(lock)
    lists: list[list[Step]] = [[] for _ in range(width)]
    for k, task in enumerate(tasks):
        lists[task.thread] += (
            [(lock.acquire, ()) for lock in before.get(k, ())]
            + task.steps
            + [(lock.release, ()) for lock in after.get(k, ())]
        )
    return lists, locks


def hold(locks: Sequence[LockType]) -> None:
    """Hold all of them again, whichever were let go."""
    for lock in locks:
        lock.acquire(False)
