"""Optimizers: arrays stepped in place down a gradient. The update is the formula of each class; everything is NumPy."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, final

import numpy as np

from scg.ambient import RECORDER
from scg.errors import NonFiniteError, ScgTypeError, ScgValueError, here
from scg.graph import Node
from scg.tree import leaves, leaves_like, map_leaves, rebuild


class Optimizer(ABC):
    """An update rule over a nested structure of floating-point arrays, which ``step`` changes in place.

    Buffers have the shape and dtype of the array that they belong to: float32 stays float32. ``learning_rate`` may be assigned between
    steps: a schedule is a line in the user's loop.
    """

    slots: tuple[str, ...]
    """Names of the buffers that the rule keeps for each array."""

    def __init__(self, params: Any, learning_rate: float):
        self.learning_rate = _number("learning_rate", learning_rate, 0, math.inf)
        self.steps = 0
        self._params = params
        self._named = list(leaves(params))
        for path, array in self._named:
            if not isinstance(array, np.ndarray) or array.dtype.kind != "f":
                what = f"an array of {array.dtype}" if isinstance(array, np.ndarray) else type(array).__name__
                raise ScgTypeError(f"params{path} must be a floating-point array, to be updated in place, got {what} ({here()})")
            if not array.flags.writeable:
                raise ScgValueError(f"params{path} is read-only and cannot be updated in place: pass a copy ({here()})")
        for i, (path, array) in enumerate(self._named):
            for other, earlier in self._named[:i]:
                if np.may_share_memory(array, earlier) and np.shares_memory(array, earlier):
                    raise ScgValueError(f"params{path} and params{other} share memory: one update would be made twice ({here()})")
        self._flats = [_Flat(dtype, self._named, self.slots) for dtype in dict.fromkeys([array.dtype for _, array in self._named])]

    @property
    def _buffers(self) -> dict[str, list[np.ndarray]]:
        """By slot the part of the buffer that belongs to each array."""
        found = [(i, slot, view) for flat in self._flats for i, slot, view in flat.parts(self.slots)]
        return {slot: [view for i, other, view in sorted(found, key=lambda part: part[0]) if other == slot] for slot in self.slots}

    @property
    def state(self) -> dict[str, Any]:
        """Everything but the parameters that the next step depends on, as plain structures (for ``scg.checkpoint``).

        ``steps`` and ``learning_rate``, and for each slot the buffers, copied, in the structure of the parameters. Assigning a state
        restores it; parameters are restored by writing into them.
        """
        buffers = {slot: rebuild(self._params, iter([b.copy() for b in parts])) for slot, parts in self._buffers.items()}
        return {"steps": self.steps, "learning_rate": self.learning_rate, **buffers}

    @state.setter
    def state(self, state: dict[str, Any]) -> None:
        wanted = {"steps", "learning_rate", *self.slots}
        if not isinstance(state, dict) or set(state) != wanted:
            got = sorted(state) if isinstance(state, dict) else type(state).__name__
            raise ScgValueError(f"the state of {type(self).__name__} has the entries {sorted(wanted)}, got {got} ({here()})")
        steps, rate = state["steps"], _number("learning_rate", state["learning_rate"], 0, math.inf)
        if not isinstance(steps, (int, np.integer)) or isinstance(steps, bool) or steps < 0:
            raise ScgValueError(f"steps must be a natural number, got {steps!r} ({here()})")
        new = {slot: self._matching(state[slot], slot) for slot in self.slots}
        self.steps, self.learning_rate = int(steps), rate
        buffers = self._buffers
        for slot, arrays in new.items():
            for buffer, array in zip(buffers[slot], arrays, strict=True):
                buffer[...] = array

    def step(self, gradients: Any) -> None:
        """Update the parameters in place with gradients of their structure, shapes and dtypes.

        Raises ScgTypeError or ScgValueError where these differ, and NonFiniteError at an infinite or NaN gradient, in each case
        before anything has changed. Within a function that ``scg.compile`` runs, the step is taken when the gradients are there, at its end.
        """
        recorder = RECORDER.get()
        if recorder is not None:
            recorder.later(self._take, tuple(self._matching(gradients, "gradients")), [array for _, array in self._named])
            return
        found = self._matching(gradients, "gradients")
        with np.errstate(over="ignore", invalid="ignore"):
            for (path, _), g in zip(self._named, found, strict=True):
                if not math.isfinite(np.add.reduce(g, axis=None)) and not np.isfinite(g).all():  # a sum is the cheaper pass
                    raise NonFiniteError(f"gradients{path} is not finite; no parameter was changed ({here()})")
        self._take(*found)

    def _take(self, *gradients: np.ndarray) -> None:
        """The step for gradients that fit and are finite, one for each array of the parameters."""
        self.learning_rate = _number("learning_rate", self.learning_rate, 0, math.inf)
        for path, array in self._named:
            if not array.flags.writeable:
                raise ScgValueError(f"params{path} has become read-only; no parameter was changed ({here()})")
        self.steps += 1
        for flat in self._flats:
            flat.step(self._change, gradients)

    @abstractmethod
    def _change(self, g: np.ndarray, work: np.ndarray, *buffers: np.ndarray) -> np.ndarray:
        """What to subtract from parameters with gradient ``g``; their part of the buffers is updated in place.

        One axis; ``g`` is left alone, ``work`` has its shape and may be written to, and ``self.steps`` counts this step too.
        """

    def _matching(self, tree: Any, name: str) -> list[Any]:
        """The leaves of ``tree``, checked to fit the parameters one by one."""
        found = list(leaves(tree))
        if [path for path, _ in found] != [path for path, _ in self._named]:
            paths, given = [path for path, _ in self._named], [path for path, _ in found]
            odd = next((p for p in given if p not in paths), None)
            told = f"params has no {odd or name}" if odd is not None else f"{next((p for p in paths if p not in given), 'the order')} is missing"
            raise ScgValueError(f"{name} must have the structure of the parameters: {told} ({here()})")
        for (path, array), (_, g) in zip(self._named, found, strict=True):
            if not isinstance(g, (np.ndarray, np.generic)) and not (type(g) is Node and RECORDER.get() is not None):
                raise ScgTypeError(f"{name}{path} must be an array, got {type(g).__name__} ({here()})")
            if g.shape != array.shape or g.dtype != array.dtype:
                raise ScgValueError(
                    f"{name}{path} must have the parameter's shape {array.shape} and dtype {array.dtype}, got {g.shape} and {g.dtype} ({here()})"
                )
        return [g if type(g) is Node else np.asarray(g) for _, g in found]

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: step {self.steps}, learning rate {self.learning_rate:g}, {len(self._named)} arrays>"


@final
class SGD(Optimizer):
    """Gradient descent with momentum: v <- m v + g;  x <- x - a v, or, for Nesterov's form, x <- x - a (g + m v).

    ``a`` is ``learning_rate``, ``m`` is ``momentum`` in [0, 1); without momentum v is g and is not kept. (Polyak, 1964; Nesterov, 1983.)
    """

    def __init__(self, params: Any, learning_rate: float, momentum: float = 0.0, nesterov: bool = False):
        self.momentum, self.nesterov = _number("momentum", momentum, 0, 1), bool(nesterov)
        if nesterov and not momentum:
            raise ScgValueError(f"nesterov needs a positive momentum ({here()})")
        self.slots = ("velocity",) if momentum else ()
        super().__init__(params, learning_rate)

    def _change(self, g: np.ndarray, work: np.ndarray, *buffers: np.ndarray) -> np.ndarray:
        direction = g
        if buffers:
            (direction,) = (velocity,) = buffers
            np.multiply(velocity, self.momentum, out=velocity)
            np.add(velocity, g, out=velocity)
            if self.nesterov:
                direction = np.add(np.multiply(velocity, self.momentum, out=work), g, out=work)
        return np.multiply(direction, self.learning_rate, out=work)


@final
class Adam(Optimizer):
    """Adam at step t: m <- b1 m + (1 - b1) g;  v <- b2 v + (1 - b2) g^2;  x <- x - a (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + e).

    ``a`` is ``learning_rate``, ``b1`` and ``b2`` in [0, 1) are ``beta1`` and ``beta2``, ``e`` is ``epsilon``. The state keeps the discounted
    sums m / (1 - b1) and v / (1 - b2), which need two passes fewer. (Kingma and Ba, 2015.)
    """

    slots = ("sum", "sum_of_squares")

    def __init__(self, params: Any, learning_rate: float = 1e-3, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-8):
        self.beta1, self.beta2 = _number("beta1", beta1, 0, 1), _number("beta2", beta2, 0, 1)
        self.epsilon = _number("epsilon", epsilon, 0, math.inf)
        super().__init__(params, learning_rate)

    def _change(self, g: np.ndarray, work: np.ndarray, *buffers: np.ndarray) -> np.ndarray:
        total, squares = buffers
        b1, b2, t = self.beta1, self.beta2, self.steps
        np.multiply(total, b1, out=total)
        np.add(total, g, out=total)
        np.multiply(g, g, out=work)
        np.multiply(squares, b2, out=squares)
        np.add(squares, work, out=squares)
        np.sqrt(squares, out=work)
        rate, scale = self.learning_rate * (1 - b1) / (1 - b1**t), math.sqrt((1 - b2) / (1 - b2**t))
        if not rate > 1e-12:  # below, what is divided by it could overflow
            np.add(np.multiply(work, scale, out=work), self.epsilon, out=work)
            return np.multiply(np.divide(total, work, out=work), rate, out=work)
        np.multiply(work, scale / rate, out=work)  # the rate in the denominator: a pass less
        np.add(work, self.epsilon / rate, out=work)
        return np.divide(total, work, out=work)


class _Flat:
    """The parameters of one dtype as one flat array, in blocks that stay in the cache: each buffer is that long, parameters stay where they are."""

    BLOCK = 2**16  # elements

    def __init__(self, dtype: np.dtype[Any], named: list[tuple[str, np.ndarray]], slots: tuple[str, ...]):
        self.members = [i for i, (_, array) in enumerate(named) if array.dtype == dtype]
        self.params = [named[i][1] for i in self.members]
        ends = np.cumsum([0, *[array.size for array in self.params]]).tolist()
        self.buffers = [np.zeros(ends[-1], dtype) for _ in slots]
        self.ends = ends
        self.work = [np.empty(min(self.BLOCK, ends[-1]), dtype) for _ in range(2)]
        self.blocks = []
        count = -(-ends[-1] // self.BLOCK)
        for start, stop in [(ends[-1] * k // count, ends[-1] * (k + 1) // count) for k in range(count)]:
            pieces = [(k, max(start, a) - a, min(stop, b) - a) for k, (a, b) in enumerate(zip(ends[:-1], ends[1:], strict=True)) if a < stop and b > start]
            self.blocks.append((start, stop, [piece for piece in pieces if piece[1] < piece[2]]))

    def parts(self, slots: tuple[str, ...]) -> list[tuple[int, str, np.ndarray]]:
        """(index of the parameter, slot, view of its part of the buffer)."""
        spans = list(zip(self.members, self.params, self.ends[:-1], self.ends[1:], strict=True))
        return [(i, slot, buffer[a:b].reshape(x.shape)) for slot, buffer in zip(slots, self.buffers, strict=True) for i, x, a, b in spans]

    def step(self, change: Callable[..., np.ndarray], gradients: Sequence[np.ndarray]) -> None:
        """Subtract ``change(g, work, *buffers)``, block by block."""
        found = [(x.reshape(-1) if x.flags.c_contiguous else x.flat, gradients[i].reshape(-1)) for i, x in zip(self.members, self.params, strict=True)]
        work = self.work
        for start, stop, pieces in self.blocks:
            g = [found[k][1][a:b] for k, a, b in pieces]
            whole = g[0] if len(g) == 1 else np.concatenate(g, out=work[1][: stop - start])
            moved = change(whole, work[0][: stop - start], *[buffer[start:stop] for buffer in self.buffers])
            at = 0
            for k, a, b in pieces:
                row = found[k][0]
                if type(row) is np.ndarray:
                    np.subtract(row[a:b], moved[at : at + b - a], row[a:b])
                else:
                    row[a:b] = row[a:b] - moved[at : at + b - a]
                at += b - a


@final
class Average:
    """An average over the steps of an optimizer: a <- a + (1 - d) (x - a), d = min(decay, (1 + t) / (10 + t)) at step t.

    ``params`` holds the averages, copies in the structure of the parameters. Averaging takes the noise of the last steps out of
    the parameters that are evaluated, as a falling learning rate does, and needs no end of training to be known. (Polyak and Juditsky, 1992.)
    """

    def __init__(self, params: Any, decay: float):
        self.decay, self.steps = _number("decay", decay, 0, 1), 0
        self.params = map_leaves(np.array, params)

    def step(self, params: Any) -> None:
        """Move the averages towards ``params``."""
        recorder = RECORDER.get()
        if recorder is not None:
            recorder.later(self.step, (params,), [array for _, array in leaves(self.params)])
            return
        self.steps += 1
        rate = 1 - min(self.decay, (1 + self.steps) / (10 + self.steps))
        for (_, a), x in zip(leaves(self.params), leaves_like(self.params, params, "params"), strict=True):
            a += rate * (x - a)


def _number(name: str, value: Any, low: float, high: float) -> float:
    if isinstance(value, (bool, complex)) or not isinstance(value, (int, float, np.floating, np.integer)):
        raise ScgTypeError(f"{name} must be a number, got {value!r} ({here()})")
    if not low <= value < high:
        raise ScgValueError(f"{name} must be in [{low}, {high}), got {value!r} ({here()})")
    return float(value)
