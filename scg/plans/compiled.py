"""``scg.compile``: a function with the same calls and the same results, and plans behind it."""

import ctypes
import functools
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from itertools import zip_longest
from typing import Any

import numpy as np

from scg.ambient import RECORDER, collect_guards, nan_is_sought
from scg.errors import NonFiniteError, NotDifferentiable, PlanError, here
from scg.graph import Node, record
from scg.plans.explain import explain
from scg.plans.kernels import Otherwise
from scg.plans.passes import Options
from scg.plans.plan import Plan
from scg.plans.recording import INPUT, Recorder, no_numbers_from_elsewhere, recording
from scg.plans.signature import Signature, is_leaf_array
from scg.sample import is_overridden
from scg.tree import leaves, rebuild

PLAIN = "plain"
"""In the place of plans: this call cannot be compiled."""


def compile(fn: Callable[..., Any], *, fallback: bool = False, capacity: int = 32, threads: int | None = None, without: Any = ()) -> "Compiled":
    """The same function with a compiled plan behind it: same call, same results, from the same draws.

        step = scg.compile(scg.value_and_grad(cost))

    ``fn`` is a cost, a derivative of one, or a whole training step (``optimizer.step(gradient)`` in it is taken when the gradient is there).
    The first call with arrays of some shapes and dtypes runs ``fn`` once, recorded, and plans; what it returns, as what all later ones do, comes
    from NumPy calls on preallocated buffers. Arrays and NumPy scalars among the arguments are inputs; generators draw what they would have
    drawn; Python numbers, strings, functions and other objects are part of what was planned: another value means another plan. Arrays that the
    function holds and gives to operations of nodes are read anew at each call; what NumPy makes of them alone, and whatever else it looks up
    outside its arguments, is as it was when it was recorded. Plans are kept
    for the ``capacity`` signatures used last. Where an ``if`` on a value comes out otherwise than it was recorded, or a gradient is not finite,
    the function runs again. The caller owns what is returned. Safe from several threads.

    ``threads`` is how many a plan may take, where it gains by more than one (None: as many as NumPy's OpenBLAS, up to four; of more, and of
    another BLAS, it leaves the use to that). While a plan runs on several, or has small products alone, each
    product has one. The same number gives the same bits.

    ``fn`` runs plainly inside a function that is being differentiated, within ``detect_nan()``, and where ``np.errstate`` asks NumPy to raise.
    Raises PlanError, which names the line, where a function cannot be compiled (it puts other values into its arguments, say); with
    ``fallback`` it runs plainly then. ``without`` names passes to leave out.
    """
    if not callable(fn):
        raise PlanError(f"compile needs a function, got {type(fn).__name__} ({here()})")
    if threads is not None and (not isinstance(threads, (int, np.integer)) or isinstance(threads, bool) or threads < 1):
        raise PlanError(f"threads must be a positive number, or None, got {threads!r} ({here()})")
    return Compiled(fn, fallback, capacity, Options(frozenset([without] if isinstance(without, str) else without), threads))


class Compiled:
    """What ``scg.compile`` returns. ``explain(*args)`` prints the plan of a call; ``recorded`` counts the runs that were recorded, ``plainly`` those in which a plan gave up."""

    def __init__(self, fn: Callable[..., Any], fallback: bool, capacity: int, options: Options):
        functools.update_wrapper(self, fn, updated=())
        self._fn, self._fallback, self._capacity, self._options = fn, fallback, capacity, options
        self._plans: OrderedDict[Any, Any] = OrderedDict()
        self._lock = threading.Lock()
        self.recorded, self.plainly = 0, 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if RECORDER.get() is not None or nan_is_sought() or is_overridden() or "raise" in np.geterr().values():
            return self._fn(*args, **kwargs)
        try:
            signature = Signature(args, kwargs)
        except PlanError:
            if self._fallback:
                return self._fn(*args, **kwargs)
            raise
        if signature.nodes:
            return self._fn(*args, **kwargs)
        states = [rng.bit_generator.state for rng in signature.generators]
        for plan in self._found(signature):
            if plan is PLAIN:
                break
            try:
                with np.errstate(all="ignore"):
                    return plan.call(signature.arrays, signature.generators)
            except Otherwise:
                _restore(signature, states)
            except Exception as error:  # the plain call tells what is wrong, in its own words
                _restore(signature, states)
                if isinstance(error, NonFiniteError) and plan.risky:
                    return self._without_risk(signature, states, plan, args, kwargs)
                self.plainly += 1
                return self._fn(*args, **kwargs)
        else:
            results = self._record(signature, states, args, kwargs)[0]
            give_back()
            return results
        return self._fn(*args, **kwargs)

    def _without_risk(self, signature: Signature, states: list[Any], plan: Plan, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Record once more, for a plan without the passes that may have overflowed in this one, which goes."""
        with self._lock:
            plans, _ = self._plans.get(signature.key, ([], None))
            plans[:] = [other for other in plans if other is not plan]
        return self._record(signature, states, args, kwargs, replace(self._options, without=self._options.without | {"softplus", "factor"}))[0]

    def explain(self, *args: Any, **kwargs: Any) -> str:
        """Print, and return, the plan of a call with these arguments: steps, buffers, bytes, what was fused, what was not and why.

        Where there is no plan yet the function runs once, recorded, on copies of the generators; nothing is changed by it.
        """
        signature = Signature(args, kwargs)
        plans = [plan for plan in self._found(signature) if plan is not PLAIN]
        if plans:
            plan = plans[0]
        else:
            states = [rng.bit_generator.state for rng in signature.generators]
            try:
                plan = self._planned(signature, args, kwargs)[0]
            finally:
                _restore(signature, states)
            self._keep(signature, plan)
        text = explain(plan)
        print(text)
        return text

    def _planned(self, signature: Signature, args: tuple[Any, ...], kwargs: dict[str, Any], options: Options | None = None) -> tuple[Plan, Any, Any, Any]:
        recorder = Recorder(signature.generators)
        inputs, result, floor = run_recorded(recorder, self._fn, args, kwargs)
        try:
            plan = Plan(recorder, inputs, result, floor, options or self._options)
        except BaseException:
            recorder.close()
            raise
        self.recorded += 1
        return plan, recorder, inputs, result

    def _found(self, signature: Signature) -> list[Any]:
        with self._lock:
            plans = self._plans.get(signature.key)
            if plans is None:
                return []
            self._plans.move_to_end(signature.key)
            return list(plans[0])

    def _keep(self, signature: Signature, plan: Any) -> None:
        with self._lock:
            plans, _ = self._plans.setdefault(signature.key, ([], signature.kept))
            plans.insert(0, plan)
            del plans[8:]
            while len(self._plans) > self._capacity:
                self._plans.popitem(last=False)

    def _record(
        self, signature: Signature, states: list[Any], args: tuple[Any, ...], kwargs: dict[str, Any], options: Options | None = None
    ) -> tuple[Any, Any]:
        """Run the function once, recorded; its results, and the plan."""
        try:
            plan, recorder, inputs, result = self._planned(signature, args, kwargs, options)
        except Exception as error:
            _restore(signature, states)
            if self._fallback:
                self._keep(signature, PLAIN)
                return self._fn(*args, **kwargs), None
            if isinstance(error, NotDifferentiable):
                raise PlanError(f"{_name(self._fn)} cannot be compiled: {error}; scg.compile(fn, fallback=True) runs it plainly") from error
            raise
        self._keep(signature, plan)
        recorder.close()  # what was recorded is not needed any more
        del recorder, inputs, result
        _restore(signature, states)
        try:
            with np.errstate(all="ignore"):
                return plan.call(signature.arrays, signature.generators), plan  # the first call has the bits of all others
        except Exception as error:
            _restore(signature, states)
            if isinstance(error, NonFiniteError) and plan.risky and options is None:
                return self._without_risk(signature, states, plan, args, kwargs), plan
            self.plainly += 1
            return self._fn(*args, **kwargs), plan

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else functools.partial(self, instance)

    def __repr__(self) -> str:
        return f"<compiled {_name(self._fn)}: {len(self._plans)} signatures>"


def run_recorded(recorder: Recorder, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[list[Node], Any, int]:
    """``fn`` with its arrays as nodes: these nodes, its result in terms of nodes, and the id of the first."""
    inputs: list[Node] = []

    def lifted(path: str, leaf: Any) -> Any:
        if isinstance(leaf, np.random.Generator):
            return next(p for p in recorder.proxies if p.real is leaf)
        if not is_leaf_array(leaf):
            return leaf
        inputs.append(record(INPUT, (), {"name": path}, leaf if isinstance(leaf, np.generic) else np.asarray(leaf)))
        return inputs[-1]

    def tree(name: str, x: Any) -> Any:
        return rebuild(x, iter([lifted(name + path, leaf) for path, leaf in leaves(x)]))

    with recording(recorder), collect_guards():
        floor = record(INPUT, (), {}, np.zeros(())).id
        new = [tree(f"argument {k}", x) for k, x in enumerate(args)]
        named = {name: tree(name, kwargs[name]) for name in sorted(kwargs)}
        given = list(leaves([new, named]))
        with no_numbers_from_elsewhere(fn, recorder):
            result = fn(*new, **named)
        for before, after in zip_longest(given, leaves([new, named])):
            if before is None or after is None or before[0] != after[0] or before[1] is not after[1]:
                path = (before or after)[0][3:]
                raise PlanError(
                    f"{_name(fn)} cannot be compiled: it puts another value into its argument {path}, which a plan would not do: return the new "
                    f"value, or change arrays by optimizer.step(gradient) of scg.optim ({here()})"
                )
        for path, leaf in leaves(result):
            if type(leaf) is Node and type(leaf._value) is not tuple or isinstance(leaf, (np.ndarray, np.generic, int, float, complex, str)):
                continue
            raise PlanError(f"{_name(fn)} cannot be compiled: it returns {type(leaf).__name__} at result{path}, and a plan makes arrays ({here()})")
    return inputs, result, floor


def give_back() -> None:
    """Return the pages of a recorded run to the system, where the C library has a call for it: a plan needs fewer."""
    if _TRIM is not None:
        _TRIM(0)


def _trim() -> Any:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # another C library
        return None


_TRIM = _trim()


def _restore(signature: Signature, states: list[Any]) -> None:
    for rng, state in zip(signature.generators, states, strict=True):
        rng.bit_generator.state = state


def _name(fn: Any) -> str:
    return getattr(fn, "__name__", type(fn).__name__)
