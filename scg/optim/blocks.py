"""The arrays of an optimizer in blocks that stay in the cache, and the calls of a step on them."""

import itertools
from collections.abc import Callable, Sequence

import numpy as np

from scg.core.aliases import Function, Operand

Step = tuple[Function, list[Operand]]
"""A call, and its operands."""


class Flat:
    """The parameters of one dtype in blocks that stay in the cache, a part of a large array or some small ones; each
    buffer is one flat array."""

    LARGE, BLOCK, SHARED = 2**14, 2**16, 2**18
    """Elements: on one thread an array of the first has blocks of its own, of the second at the most; on several
    threads of the second, and of the third. Longer blocks leave the cache, but with shorter calls threads wait for one
    another: between two calls Python runs on one at a time."""

    def __init__(self, dtype: np.dtype, named: list[tuple[str, np.ndarray]], slots: tuple[str, ...]):
        self.dtype = dtype
        self.members = [i for i, (_, array) in enumerate(named) if array.dtype == dtype]
        self.members.sort(key=lambda i: -named[i][1].size)  # the small ones side by side
        self.params = [named[i][1] for i in self.members]
        self.ends = np.cumsum([0, *[array.size for array in self.params]]).tolist()
        self.buffers = [np.zeros(self.ends[-1], dtype) for _ in slots]

    def parts(self, slots: tuple[str, ...]) -> list[tuple[int, str, np.ndarray]]:
        """(index of the parameter, slot, view of its part of the buffer)."""
        spans = list(zip(self.members, self.params, self.ends[:-1], self.ends[1:], strict=True))
        return [
            (i, slot, buffer[a:b].reshape(x.shape))
            for slot, buffer in zip(slots, self.buffers, strict=True)
            for i, x, a, b in spans
        ]

    def blocks(self, threads: int) -> list[list[tuple[int, int, int]]]:
        """Of each block the pieces (parameter, start, stop), which lie side by side in the buffers."""
        least, most = (
            (self.LARGE, self.BLOCK)
            if threads == 1
            else (self.BLOCK, max(self.BLOCK, min(self.SHARED, -(-self.ends[-1] // threads))))
        )
        large = sum([x.size >= least for x in self.params])
        # the small ones as one
        spans = [*itertools.pairwise(self.ends[: large + 1]), (self.ends[large], self.ends[-1])]
        found = []
        for low, high in spans:
            count = max(
                -(-(high - low) // most),
                threads if high - low >= threads * self.LARGE and low == self.ends[large] else 1,
            )
            for start, stop in itertools.pairwise([low + (high - low) * j // count for j in range(count + 1)]):
                inside = [
                    (k, max(start - a, 0), min(stop, b) - a)
                    for k, (a, b) in enumerate(itertools.pairwise(self.ends))
                    if max(a, start) < min(b, stop)
                ]
                found += [inside] if inside else []
        return found

    def bind(self, update: Callable[..., list[Step]], count: int, threads: int) -> "Bound":
        """The calls of a step with so many constants, for each thread."""
        constants = [np.zeros((), self.dtype) for _ in range(count)]
        lists: list[list[Step]] = [[] for _ in range(threads)]
        blocks = self.blocks(threads)
        largest = max([sum([b - a for _, a, b in pieces]) for pieces in blocks], default=0)
        work = [np.empty((2, largest), self.dtype) for _ in range(threads)]
        load, places = [0] * threads, []
        for pieces in blocks:
            thread = load.index(min(load))
            size = sum([b - a for _, a, b in pieces])
            load[thread] += size
            start = self.ends[pieces[0][0]] + pieces[0][1]
            out, whole = work[thread][:, :size]
            steps: list[Step] = []
            if len(pieces) > 1:
                several: list[Operand] = [None] * len(pieces)
                steps.append((np.concatenate, [several, 0, whole]))
                places += [(several, n, self.members[k], a, b) for n, (k, a, b) in enumerate(pieces)]
            steps += update(constants, whole, out, *[buffer[start : start + size] for buffer in self.buffers])
            if len(pieces) == 1:
                ((k, a, b),) = pieces
                places += [
                    (args, at, self.members[k], a, b)
                    for _, args in steps
                    for at, array in enumerate(args)
                    if array is whole
                ]
            at = 0
            for k, a, b in pieces:
                x, moved = self.params[k], out[at : at + b - a]
                if x.flags.c_contiguous:
                    part = x.reshape(-1)[a:b]
                    steps.append((np.subtract, [part, moved, part]))
                else:
                    steps.append((_subtract, [x.flat, a, b, moved]))
                at += b - a
            lists[thread] += steps
        return Bound(lists, constants, places)


class Bound:
    """Calls for each thread, the arrays of their constants, and the ``places`` of gradients among their operands:
    (list, position, parameter, start, stop)."""

    def __init__(
        self,
        lists: list[list[Step]],
        constants: list[np.ndarray],
        places: list[tuple[list[Operand], int, int, int, int]],
    ):
        self.lists, self.constants, self.places = lists, constants, places
        self.given: dict[int, Operand] = dict.fromkeys([i for _, _, i, _, _ in places])

    def take(self, gradients: Sequence[np.ndarray]) -> None:
        """Put gradients into their places, but those that are there: a plan has them in the same memory each time."""
        rows = {}
        for i, given in self.given.items():
            if given is not gradients[i] or not gradients[i].flags.c_contiguous:  # a copy shows the values of one call
                self.given[i], rows[i] = gradients[i], gradients[i].reshape(-1)
        if rows:
            for operands, at, i, start, stop in self.places:
                if i in rows:
                    operands[at] = rows[i][start:stop]

    def drop(self) -> None:
        """Let go of the gradients."""
        self.given = dict.fromkeys(self.given)
        for operands, at, *_ in self.places:
            operands[at] = None


def _subtract(row: np.ndarray, start: int, stop: int, moved: np.ndarray) -> None:
    row[start:stop] = row[start:stop] - moved
