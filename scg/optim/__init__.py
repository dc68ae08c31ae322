"""Optimizers: arrays stepped in place down a gradient. The update is the formula of each class; everything is NumPy."""

import inspect
import itertools
import math
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, NoReturn, Self, final

import numpy as np

from scg.core.advice import absent, no_attribute
from scg.core.aliases import Function, Result, State, Tree
from scg.core.ambient import RECORDER, unplanned
from scg.core.node import Node, Value
from scg.core.operands import described, plain, require_plain
from scg.core.tree import leaves, leaves_like, map_leaves, rebuild
from scg.errors import NonFiniteError, ScgTypeError, ScgValueError, here
from scg.optim.blocks import Bound, Flat, Step

__all__ = ["SGD", "Adam", "Average", "Optimizer"]


_ELSEWHERE = {
    "lr": "optimizer.learning_rate",
    "zero_grad": "nothing: each gradient is an argument of optimizer.step",
    **dict.fromkeys(("state_dict", "load_state_dict"), "optimizer.state, which may be assigned"),
    **dict.fromkeys(("update", "apply_gradients"), "optimizer.step(gradients), which changes the arrays in place"),
    **dict.fromkeys(("params", "param_groups"), "the arrays that the optimizer was given: step changes them in place"),
}
"""By what other libraries call an attribute: what to write."""
_ARGUMENTS = {
    **dict.fromkeys(("lr", "step_size", "rate"), "learning_rate=..."),
    "betas": "beta1=..., beta2=...",
    "eps": "epsilon=...",
    "weight_decay": "the penalty into the cost, as + 0.5 * decay * np.sum(w**2)",
}
"""By what other libraries call an argument: what to write."""


class _Recorded:
    """What is assigned to its attributes while a function is recorded for a plan is assigned again in each call of the
    plan, when it is its turn."""

    def __setattr__(self, name: str, value: object) -> None:
        recorder = RECORDER.get()
        if recorder is not None and name != "state":
            recorder.assigned(self, name, value, self._turn)
        object.__setattr__(self, name, value)

    def _turn(self) -> Result:
        raise NotImplementedError


class Optimizer(_Recorded, ABC):
    """An update rule over a nested structure of floating-point arrays, which ``step`` changes in place.

    Buffers have the shape and dtype of the array that they belong to: float32 stays float32. ``learning_rate`` may be
    assigned between steps: a schedule is a line in the user's loop.
    """

    slots: tuple[str, ...]
    """Names of the buffers that the update keeps for each array."""

    def __new__(cls, *args: object, **kwargs: object) -> Self:
        taken = inspect.signature(cls.__init__).parameters
        unknown = next((name for name in kwargs if name not in taken), None)
        if unknown is not None and inspect.Parameter.VAR_KEYWORD not in [p.kind for p in taken.values()]:
            way = _ARGUMENTS.get(unknown)
            raise ScgTypeError(
                f"{cls.__name__} takes {', '.join([*taken][1:])}, got {unknown}={described((kwargs[unknown],))}"
                f"{': write ' + way if way else ''} ({here()})"
            )
        return super().__new__(cls)

    def __setattr__(self, name: str, value: object) -> None:
        if name == "lr" and not hasattr(type(self), name):  # or else nothing would come of it
            raise no_attribute(self, name, _ELSEWHERE)
        super().__setattr__(name, value)

    if not TYPE_CHECKING:  # it has no attribute but those that are declared

        def __getattr__(self, name: str) -> NoReturn:
            raise no_attribute(self, name, _ELSEWHERE)

    def __init__(self, params: Tree, learning_rate: float):
        unplanned("an optimizer that is made in each call would keep its state in a plan: make it outside")
        self.learning_rate = _number("learning_rate", learning_rate, 0, math.inf)
        self.steps = 0
        self._params = params
        self._named = list(leaves(params))
        for path, array in self._named:
            require_plain(array, f"params{path}")
            if not isinstance(array, np.ndarray) or array.dtype.kind != "f":
                what = f"an array of {array.dtype}" if isinstance(array, np.ndarray) else type(array).__name__
                raise ScgTypeError(
                    f"params{path} must be a floating-point array, to be updated in place, got {what} ({here()})"
                )
            if not array.flags.writeable:
                raise ScgValueError(f"params{path} is read-only and cannot be updated in place: pass a copy ({here()})")
        for i, (path, array) in enumerate(self._named):
            for other, earlier in self._named[:i]:
                if np.may_share_memory(array, earlier) and np.shares_memory(array, earlier):
                    raise ScgValueError(
                        f"params{path} and params{other} share memory: one update would be made twice ({here()})"
                    )
        self._lock = os.getpid(), threading.RLock()
        self._owners = {_owner(array) for _, array in self._named}
        self._bound: dict[
            tuple[int, int], Result
        ] = {}  # the calls of a step, by the number of threads and of constants
        self._flats = [
            Flat(dtype, self._named, self.slots) for dtype in dict.fromkeys([array.dtype for _, array in self._named])
        ]

    @property
    def _buffers(self) -> dict[str, list[np.ndarray]]:
        """By slot the part of the buffer that belongs to each array."""
        found = [(i, slot, view) for flat in self._flats for i, slot, view in flat.parts(self.slots)]
        return {
            slot: [view for i, other, view in sorted(found, key=lambda part: part[0]) if other == slot]
            for slot in self.slots
        }

    @property
    def state(self) -> State:
        """Everything but the parameters that the next step depends on, as plain structures (for ``scg.checkpoint``).

        ``steps`` and ``learning_rate``, and for each slot the buffers, copied, in the structure of the parameters.
        Assigning a state restores it; parameters are restored by writing into them.
        """
        buffers = {
            slot: rebuild(self._params, iter([b.copy() for b in parts])) for slot, parts in self._buffers.items()
        }
        return {"steps": self.steps, "learning_rate": self.learning_rate, **buffers}

    @state.setter
    def state(self, state: State) -> None:
        unplanned("a plan would not restore the state of an optimizer: do so outside")
        wanted = {"steps", "learning_rate", *self.slots}
        if not isinstance(state, dict) or set(state) != wanted:
            got = sorted(state) if isinstance(state, dict) else type(state).__name__
            raise ScgValueError(
                f"the state of {type(self).__name__} has the entries {sorted(wanted)}, got {got} ({here()})"
            )
        steps, rate = state["steps"], _number("learning_rate", state["learning_rate"], 0, math.inf)
        if not isinstance(steps, (int, np.integer)) or isinstance(steps, bool) or steps < 0:
            raise ScgValueError(f"steps must be a natural number, got {steps!r} ({here()})")
        new = {slot: self._matching(state[slot], slot) for slot in self.slots}
        self.steps, self.learning_rate = int(steps), rate
        buffers = self._buffers
        for slot, arrays in new.items():
            for buffer, array in zip(buffers[slot], arrays, strict=True):
                buffer[...] = array

    def step(self, gradients: Tree) -> None:
        """Update the parameters in place with gradients of their structure, shapes and dtypes.

        Raises ScgTypeError or ScgValueError where these differ, and NonFiniteError at an infinite or NaN gradient, in
        each case before anything has changed. Within a function that ``scg.compile`` runs, the step is taken when the
        gradients are there, at its end.
        """
        recorder = RECORDER.get()
        if recorder is not None:
            recorder.later(
                self._begin,
                tuple(self._matching(gradients, "gradients")),
                [array for _, array in self._named],
                now=True,
                lock=self._turn,
            )
            return
        # as it was before any parameter moved
        found = [np.array(g) if _owner(g) in self._owners else g for g in self._matching(gradients, "gradients")]
        with np.errstate(over="ignore", invalid="ignore"):
            for (path, _), g in zip(self._named, found, strict=True):
                if not np.isfinite(g).all():
                    raise NonFiniteError(f"gradients{path} is not finite; no parameter was changed ({here()})")
        with self._turn():
            for fn, args in self._begin(1, *found)[0]:
                fn(*args)
            for flat in self._bound[1, len(self._constants(self.steps))]:
                flat.drop()  # the gradients are the caller's

    def _begin(self, threads: int, *gradients: np.ndarray) -> list[list[Step]]:
        """The step, in calls for each of some threads, with gradients that fit, one for each array of the parameters,
        and that are to be finite when it is taken."""
        self.learning_rate = _number("learning_rate", self.learning_rate, 0, math.inf)
        for path, array in self._named:
            if not array.flags.writeable:
                raise ScgValueError(f"params{path} has become read-only; no parameter was changed ({here()})")
        constants = self._constants(self.steps + 1)
        bound = self._bound.get((threads, len(constants)))
        if bound is None:
            bound = self._bound[threads, len(constants)] = [
                flat.bind(self._update, len(constants), threads) for flat in self._flats
            ]
        for flat in bound:
            for array, number in zip(flat.constants, constants, strict=True):
                array[...] = number
            flat.take(gradients)
        lists = [[step for flat in bound for step in flat.lists[k]] for k in range(threads)]
        lists[0].append((self._count, []))
        return lists

    def _turn(self) -> Result:
        """A lock of this process, for one step at a time: their calls are bound to one gradient. (One that was held at
        a fork would stay so.)"""
        if self._lock[0] != os.getpid():
            self._lock = os.getpid(), threading.RLock()
        return self._lock[1]

    def _count(self) -> None:
        self.steps += 1

    def __getstate__(self) -> State:
        # views would be copies
        return {name: value for name, value in vars(self).items() if name not in ("_bound", "_lock", "_owners")}

    def __setstate__(self, state: State) -> None:
        vars(self).update(state, _bound={}, _lock=(os.getpid(), threading.RLock()))
        self._owners = {_owner(array) for _, array in self._named}

    @abstractmethod
    def _constants(self, step: int) -> tuple[float, ...]:
        """The numbers of a step, the first of which is 1."""

    @abstractmethod
    def _update(
        self, constants: Sequence[np.ndarray], g: np.ndarray, work: np.ndarray, *buffers: np.ndarray
    ) -> list[Step]:
        """Calls that update ``buffers`` and leave in ``work`` what to subtract from parameters with gradient ``g``,
        which they leave alone.

        All have one axis and one dtype. The constants are arrays without axes: NumPy takes as long to convert a number
        as for a thousand elements.
        """

    def _matching(self, tree: Tree, name: str) -> list[Result]:
        """The leaves of ``tree``, checked to fit the parameters one by one."""
        found = list(leaves(tree))
        if [path for path, _ in found] != [path for path, _ in self._named]:
            paths, given = [path for path, _ in self._named], [path for path, _ in found]
            odd = next((p for p in given if p not in paths), None)
            told = (
                f"params has no {odd or name}"
                if odd is not None
                else f"{next((p for p in paths if p not in given), 'the order')} is missing"
            )
            raise ScgValueError(f"{name} must have the structure of the parameters: {told} ({here()})")
        for (path, array), (_, g) in zip(self._named, found, strict=True):
            require_plain(g, f"{name}{path}")
            if not isinstance(g, (np.ndarray, np.generic)) and not (type(g) is Node and RECORDER.get() is not None):
                raise ScgTypeError(f"{name}{path} must be an array, got {type(g).__name__} ({here()})")
            if g.shape != array.shape or g.dtype != array.dtype:
                raise ScgValueError(
                    f"{name}{path} must have the parameter's shape {array.shape} and dtype {array.dtype}, got {g.shape}"
                    f" and {g.dtype} ({here()})"
                )
        return [g if type(g) is Node else np.asarray(g) for _, g in found]

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__}: step {self.steps}, learning rate {self.learning_rate:g}, {len(self._named)}"
            " arrays>"
        )


@final
class SGD(Optimizer):
    """Gradient descent with momentum: v <- m v + g;  x <- x - a v, or, for Nesterov's form, x <- x - a (g + m v).

    ``a`` is ``learning_rate``, ``m`` is ``momentum`` in [0, 1); without momentum v is g and is not kept. (Polyak, 1964;
    Nesterov, 1983.)
    """

    def __init__(self, params: Tree, learning_rate: float, momentum: float = 0.0, nesterov: bool = False):
        if not isinstance(nesterov, (bool, np.bool_)):
            raise ScgTypeError(f"nesterov must be True or False, got {described((nesterov,))} ({here()})")
        self.momentum, self.nesterov = _number("momentum", momentum, 0, 1), bool(nesterov)
        if nesterov and not momentum:
            raise ScgValueError(f"nesterov needs a positive momentum ({here()})")
        self.slots = ("velocity",) if momentum else ()
        super().__init__(params, learning_rate)

    def _constants(self, step: int) -> tuple[float, ...]:
        return self.learning_rate, self.momentum

    def _update(
        self, constants: Sequence[np.ndarray], g: np.ndarray, work: np.ndarray, *buffers: np.ndarray
    ) -> list[Step]:
        rate, momentum = constants
        if not buffers:
            return [(np.multiply, [g, rate, work])]
        (velocity,) = buffers
        moved: list[Step] = [(np.multiply, [velocity, momentum, velocity]), (np.add, [velocity, g, velocity])]
        if not self.nesterov:
            return [*moved, (np.multiply, [velocity, rate, work])]
        return [
            *moved,
            (np.multiply, [velocity, momentum, work]),
            (np.add, [work, g, work]),
            (np.multiply, [work, rate, work]),
        ]


@final
class Adam(Optimizer):
    """Adam at step t: m <- b1 m + (1 - b1) g;  v <- b2 v + (1 - b2) g^2;  x <- x - a (m / (1 - b1^t)) / (sqrt(v / (1 -
    b2^t)) + e).

    ``a`` is ``learning_rate``, ``b1`` and ``b2`` in [0, 1) are ``beta1`` and ``beta2``, ``e`` is ``epsilon``. The state
    keeps the discounted sums m / (1 - b1) and v / (1 - b2), which need two passes fewer. (Kingma and Ba, 2015.)
    """

    slots = ("sum", "sum_of_squares")

    def __init__(
        self, params: Tree, learning_rate: float = 1e-3, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-8
    ):
        self.beta1, self.beta2 = _number("beta1", beta1, 0, 1), _number("beta2", beta2, 0, 1)
        self.epsilon = _number("epsilon", epsilon, 0, math.inf)
        super().__init__(params, learning_rate)

    def _constants(self, step: int) -> tuple[float, ...]:
        rate, scale = (
            self.learning_rate * (1 - self.beta1) / (1 - self.beta1**step),
            math.sqrt((1 - self.beta2) / (1 - self.beta2**step)),
        )
        if rate > 1e-12:  # the rate in the denominator, a pass less; below, what is divided by it could overflow
            return self.beta1, self.beta2, scale / rate, self.epsilon / rate
        return self.beta1, self.beta2, scale, self.epsilon, rate

    def _update(
        self, constants: Sequence[np.ndarray], g: np.ndarray, work: np.ndarray, *buffers: np.ndarray
    ) -> list[Step]:
        b1, b2, factor, shift, *rate = constants
        total, squares = buffers
        return [
            (np.multiply, [total, b1, total]),
            (np.add, [total, g, total]),
            (np.square, [g, work]),
            (np.multiply, [squares, b2, squares]),
            (np.add, [squares, work, squares]),
            (np.sqrt, [squares, work]),
            (np.multiply, [work, factor, work]),
            (np.add, [work, shift, work]),
            (np.divide, [total, work, work]),
            *[(np.multiply, [work, last, work]) for last in rate],
        ]


@final
class Average(_Recorded):
    """An average over the steps of an optimizer: a <- a + (1 - d) (x - a), d = min(decay, (1 + t) / (10 + t)) at step
    t.

    ``params`` holds the averages, copies in the structure of the parameters. Averaging takes the noise of the last
    steps out of the parameters that are evaluated, as a falling learning rate does, and needs no end of training to be
    known. (Polyak and Juditsky, 1992.)
    """

    def __init__(self, params: Tree, decay: float):
        unplanned("an average that is made in each call would keep its state in a plan: make it outside")
        self.decay, self.steps = _number("decay", decay, 0, 1), 0
        for path, value in leaves(params):
            if plain(value, f"params{path}").dtype.kind != "f":
                raise ScgTypeError(
                    f"params{path} must be real floating-point numbers, got {described((value,))} ({here()})"
                )
        self.params = map_leaves(np.array, params)

    def _turn(self) -> Result:
        return nullcontext()

    def step(self, params: Tree) -> None:
        """Move the averages towards ``params``, of their structure, shapes and dtypes.

        Raises ScgTypeError or ScgValueError where these differ, and NonFiniteError at an infinite or NaN number, in
        each case before an average has changed.
        """
        recorder = RECORDER.get()
        if recorder is not None:
            recorder.later(
                lambda threads, params: self.step(params), (params,), [array for _, array in leaves(self.params)]
            )
            return
        new = [plain(x, "params") for x in leaves_like(self.params, params, "params")]
        for (path, a), x in zip(leaves(self.params), new, strict=True):
            if x.shape != a.shape or x.dtype != a.dtype:
                raise ScgValueError(
                    f"params{path} must have the average's shape {a.shape} and dtype {a.dtype}, got {x.shape} and"
                    f" {x.dtype} ({here()})"
                )
            if not np.isfinite(x).all():
                raise NonFiniteError(f"params{path} is not finite; no average was changed ({here()})")
        self.steps += 1
        rate = 1 - min(self.decay, (1 + self.steps) / (10 + self.steps))
        for (_, a), x in zip(leaves(self.params), new, strict=True):
            a += rate * (x - a)


def _owner(array: np.ndarray) -> int:
    """The id of the array whose memory this is."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return id(array)


def _number(name: str, value: object, low: float, high: float) -> float:
    if isinstance(value, (bool, complex)) or not isinstance(value, (int, float, np.floating, np.integer)):
        raise ScgTypeError(f"{name} must be a number, got {value!r} ({here()})")
    if not low <= value < high:
        raise ScgValueError(f"{name} must be in [{low}, {high}), got {value!r} ({here()})")
    return float(value)


if not TYPE_CHECKING:  # for which a name that is not there is an error
    __getattr__ = absent(__name__)
