"""``scg.compile``: a function with the same calls and the same results, and plans behind it."""

import ctypes
import functools
import re
import threading
import traceback
import warnings
import weakref
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from scg.core.aliases import Function, Keywords, Result, Tree
from scg.core.ambient import RECORDER, nan_is_sought
from scg.core.node import Node
from scg.core.tree import leaves
from scg.errors import NOT_THE_USERS, NonFiniteError, NotDifferentiable, PlanError, ScgError, here, location
from scg.plans.building import build
from scg.plans.checks import Otherwise, Raised
from scg.plans.derived import Constants, constants
from scg.plans.explain import explain
from scg.plans.names import functions_of, module_of
from scg.plans.outside import Outside
from scg.plans.passes import PASSES, Options
from scg.plans.plan import Plan, Stepped
from scg.plans.recording import Recorder
from scg.plans.running import Run, called, run_recorded
from scg.plans.signature import Signature
from scg.plans.witness import Witness, is_watched
from scg.stochastic.bindings import is_overridden

PATIENCE, SAME = 8, 3
"""Calls in a row in which what the function looks up is another, until it runs plainly; plans with the same constants,
until an array that was another for each is not watched."""

EXPECTED = (Otherwise, Raised, ScgError, ArithmeticError, ValueError, IndexError)
"""What a call of a plan may raise for its values. All else is a fault of the plan, and is not hidden."""

_QUIET = frozenset(["ignore", "warn", "print", "log"])
_SHOWN = re.compile(r"<.*shape \(.*\), \w+>", re.DOTALL)  # a node as text


class Unplanned(PlanError):
    """A function that runs plainly at each call."""


PLAIN = "plain"
"""In the place of plans: this call cannot be compiled."""


def compile(
    fn: Function, *, fallback: bool = False, capacity: int = 32, threads: int | None = None, without: Iterable[str] = ()
) -> "Compiled":
    """The same function with a compiled plan behind it: same call, same results, from the same draws.

        step = scg.compile(scg.value_and_grad(cost))

    ``fn`` is a cost, a derivative of one, or a whole training step (``optimizer.step(gradient)`` in it is taken when
    the gradient is there). The first call with arrays of some shapes and dtypes runs ``fn`` once, recorded, and plans;
    what it returns, as what all later ones do, comes from NumPy calls on preallocated buffers. Arrays and NumPy scalars
    among the arguments are inputs; generators draw what they would have drawn; Python numbers, strings, functions and
    other objects are part of what was planned: another value means another plan. So is what the function looks up
    outside its arguments: globals, closures, attributes, entries, elements of arrays of which NumPy alone makes
    something; it is compared at each call. Where it is another ``PATIENCE`` times in a row, the function runs plainly
    from then on, and a RuntimeWarning says so. Arrays that the function holds and gives to operations of nodes are read
    anew at each call; where NumPy alone may have made something of the same array, as ``held.max()`` beside ``held *
    x``, it is watched as well: all of it up to 16 kB, 256 elements of a larger one, of which a single other element is
    not seen: pass such an array as an argument. An attribute of an optimizer that the function sets is set in each
    call. An error after a step of an optimizer leaves what it leaves in a plain call. Plans are kept for
    the ``capacity`` signatures used last. Where an ``if`` on a value comes out otherwise than it was recorded, or a
    gradient is not finite, the function runs again. The caller owns what is returned. Safe from several threads.

    ``threads`` is how many a plan may take, where it gains by more than one (None: as many as NumPy's OpenBLAS, up to
    four, where ``threadpoolctl`` is installed; of more, and of another BLAS, it leaves the use to that). While a plan
    runs on several, or has small products alone, each product has one. The same number gives the same bits.

    ``fn`` runs plainly inside a function that is being differentiated, within ``detect_nan()``, and where
    ``np.errstate`` asks NumPy to raise. Raises PlanError, which names the line, where a function cannot be compiled: it
    puts other values into its arguments, or outside, it catches an error that scg raises, it asks Python's ``random``
    or a clock. With ``fallback`` it runs plainly then. ``without`` names passes to leave out.
    """
    if not callable(fn):
        raise PlanError(f"compile needs a function, got {type(fn).__name__} ({here()})")
    if not isinstance(fallback, (bool, np.bool_)):
        raise PlanError(f"fallback must be True or False, got {fallback!r} ({here()})")
    if threads is not None and (not isinstance(threads, (int, np.integer)) or isinstance(threads, bool) or threads < 1):
        raise PlanError(f"threads must be a positive number, or None, got {threads!r} ({here()})")
    if not isinstance(capacity, (int, np.integer)) or isinstance(capacity, bool) or capacity < 1:
        raise PlanError(
            f"capacity, of how many signatures plans are kept, must be a positive integer, got {capacity!r} ({here()})"
        )
    try:
        left_out = frozenset([without] if isinstance(without, str) else without)
    except TypeError:
        raise PlanError(f"without names passes, got {without!r} ({here()})") from None
    for name in left_out:
        if name not in PASSES:
            raise PlanError(f"without names passes, got {name!r}; there are {', '.join(PASSES)} ({here()})")
    return Compiled(fn, bool(fallback), int(capacity), Options(left_out, threads))


class Compiled:
    """What ``scg.compile`` returns. ``explain(*args)`` prints the plan of a call; ``recorded`` counts the runs that
    were recorded, ``planned`` the calls that a plan answered, ``plainly`` those in which one gave up."""

    def __init__(self, fn: Function, fallback: bool, capacity: int, options: Options):
        functools.update_wrapper(self, fn, updated=())
        self._fn, self._fallback, self._capacity, self._options = fn, fallback, capacity, options
        self._plans: OrderedDict[Any, Any] = OrderedDict()
        self._lock = threading.Lock()
        self._stale: dict[Hashable, int] = {}
        # arrays of which nothing was made, by id
        self._free: weakref.WeakValueDictionary[int, np.ndarray] = weakref.WeakValueDictionary()
        self.recorded, self.planned, self.plainly = 0, 0, 0

    def __call__(self, *args: object, **kwargs: object) -> Tree:
        if (
            RECORDER.get() is not None
            or nan_is_sought()
            or is_overridden()
            or not _QUIET.issuperset(np.geterr().values())
        ):
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
        stale, found = None, self._found(signature)
        for plan in found:
            if plan is PLAIN:
                return self._fn(*args, **kwargs)
            changed = plan.outside.changed()
            if changed is not None:
                stale = stale or changed
                continue
            self._stale.pop(signature.key, None)
            try:
                return self._answered(plan, signature)
            except Stepped as error:  # as the plain call, which has taken the steps before it
                raise error.__cause__ or error from None
            except Otherwise:
                stale = None
                _restore(signature, states)
            except EXPECTED as error:  # the plain call tells what is wrong, in its own words
                _restore(signature, states)
                if isinstance(error, NonFiniteError) and plan.program.risky:
                    return self._without_risk(signature, states, plan, args, kwargs)
                self.plainly += 1
                return self._fn(*args, **kwargs)
        if is_watched() or stale is not None and self._is_always_stale(signature, stale):
            return self._fn(*args, **kwargs)
        results = self._record(signature, states, args, kwargs)[0]
        give_back()
        return results

    def _answered(self, plan: Plan, signature: Signature) -> Tree:
        with np.errstate(all="ignore"):
            results = plan.call(signature.arrays, signature.generators)
        self.planned += 1
        return results

    def _is_always_stale(self, signature: Signature, changed: str) -> bool:
        """Whether what the function looks up was another each time in ``PATIENCE`` calls in a row: a plan for each does
        not pay, and it runs plainly."""
        count = self._stale[signature.key] = self._stale.get(signature.key, 0) + 1
        if count < PATIENCE:
            return False
        warnings.warn(
            f"{called(self._fn)} runs plainly from now on: {changed}, which it looks up outside its arguments, is"
            " another in each call, and a plan holds for one: pass it as an argument, a number as np.float64(x)"
            f" ({here()})",
            RuntimeWarning,
            stacklevel=3,
        )
        self._keep(signature, PLAIN)
        return True

    def _without_risk(
        self, signature: Signature, states: Sequence[Keywords], plan: Plan, args: tuple[object, ...], kwargs: Keywords
    ) -> Tree:
        """Record once more, for a plan without the passes that may have overflowed in this one, which goes."""
        with self._lock:
            plans, _ = self._plans.get(signature.key, ([], None))
            plans[:] = [other for other in plans if other is not plan]
        return self._record(
            signature,
            states,
            args,
            kwargs,
            replace(self._options, without=self._options.without | {"softplus", "factor"}),
        )[0]

    def explain(self, *args: object, **kwargs: object) -> str:
        """Print, and return, the plan of a call with these arguments: steps, buffers, bytes, what was fused, what was
        not and why.

        Where there is no plan yet the function runs once, recorded, on copies of the generators; nothing is changed by
        it.
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

    def _planned(
        self, signature: Signature, args: tuple[object, ...], kwargs: Keywords, options: Options | None = None
    ) -> tuple[Plan, Run]:
        """Run the function, recorded, and plan. Once more where it has filled places that it looks up, as a cache:
        these are its state then, and are put back where it is refused."""
        states = [rng.bit_generator.state for rng in signature.generators]
        earlier = [
            (plan.constants, plan.outside.changed_samples()) for plan in self._found(signature) if plan is not PLAIN
        ]
        own = module_of(self._fn)
        roots: list[tuple[str, object]] = [(called(self._fn), self._fn), *[("an argument", x) for x in signature.kept]]
        outside = first = Outside(roots, own=own)
        attempt = 0
        while True:
            recorder, witness = Recorder(signature.generators), Witness(own)
            try:
                run = run_recorded(recorder, witness, self._fn, args, kwargs)
                if recorder.unplanned is not None:
                    why, line = recorder.unplanned
                    raise Unplanned(f"{called(self._fn)} runs plainly from now on: {why} ({line})")
                changes = list(outside.changes())
                for where, values in changes:
                    if attempt == 2 or any([type(leaf) is Node for value in values for _, leaf in leaves(value)]):
                        raise PlanError(
                            f"{called(self._fn)} cannot be compiled: it changes {where}, outside itself, which a plan"
                            " would not do: return the new value and keep it there, or pass it as an argument"
                            f" ({here()})"
                        )
                missed = [
                    code for code in witness.ran if code not in outside.codes and (code.co_names or code.co_freevars)
                ]
                missed_functions = functions_of(missed) if missed and not attempt else []
                if not changes and not missed_functions:
                    made = constants(run, witness.ran)
                    sampled = any([made.made, *[before.made for before, _ in earlier]])
                    self._free_of(made, earlier)
                    guards = Outside(roots, witness.ran, recorder.read_anew(), own, sampled, self._free)
                    if guards.iterators:
                        raise PlanError(
                            f"{called(self._fn)} cannot be compiled: it reaches an iterator, {guards.iterators[0]},"
                            f" which a plan would not move on: pass what it gives as an argument ({here()})"
                        )
                    plan = build(run, options or self._options)
                    break
                roots += [(fn.__name__, fn) for fn in missed_functions]
                outside = Outside(roots, own=own)
                attempt += 1
            except BaseException as error:
                if isinstance(error, (PlanError, NotDifferentiable)):
                    first.restore()
                recorder.close()
                raise
            recorder.close()
            _restore(signature, states)
        plan.outside, plan.constants = guards, made
        self.recorded += 1
        return plan, run

    def _free_of(self, made: Constants, earlier: list[tuple[Constants, list[np.ndarray]]]) -> None:
        """Watch arrays no more that changed since each of some earlier plans, where no constant did."""
        if len(earlier) >= SAME and all([before.digest == made.digest for before, _ in earlier]):
            for _, changed in earlier:
                self._free.update({id(array): array for array in changed})

    def _found(self, signature: Signature) -> list[Result]:
        with self._lock:
            plans = self._plans.get(signature.key)
            if plans is None:
                return []
            self._plans.move_to_end(signature.key)
            return list(plans[0])

    def _keep(self, signature: Signature, plan: object) -> None:
        with self._lock:
            plans, _ = self._plans.setdefault(signature.key, ([], signature.kept))
            plans.insert(0, plan)
            del plans[8:]
            while len(self._plans) > self._capacity:
                self._plans.popitem(last=False)

    def _record(
        self,
        signature: Signature,
        states: Sequence[Keywords],
        args: tuple[object, ...],
        kwargs: Keywords,
        options: Options | None = None,
    ) -> tuple[Tree, Tree]:
        """Run the function once, recorded; its results, and the plan."""
        try:
            plan, run = self._planned(signature, args, kwargs, options)
        except Exception as error:
            _restore(signature, states)
            if isinstance(error, Unplanned) and not self._fallback:
                warnings.warn(str(error), RuntimeWarning, stacklevel=4)
            if self._fallback or isinstance(error, Unplanned):
                self._keep(signature, PLAIN)
                return self._fn(*args, **kwargs), None
            reason = _of_a_node(error)
            if reason is not None:
                raise PlanError(f"{called(self._fn)} cannot be compiled: {reason} ({here()})") from error
            # of NumPy, where a node is put into an array
            if isinstance(error, ValueError) and isinstance(error.__cause__, NotDifferentiable):
                error = error.__cause__
            if isinstance(error, NotDifferentiable):
                raise PlanError(
                    f"{called(self._fn)} cannot be compiled: {error}; scg.compile(fn, fallback=True) runs it plainly"
                ) from error
            raise
        self._keep(signature, plan)
        run.recorder.close()  # what was recorded is not needed any more
        del run
        _restore(signature, states)
        try:
            return self._answered(plan, signature), plan  # the first call has the bits of all others
        except Stepped as error:
            raise error.__cause__ or error from None
        except EXPECTED as error:
            _restore(signature, states)
            if isinstance(error, NonFiniteError) and plan.program.risky and options is None:
                return self._without_risk(signature, states, plan, args, kwargs), plan
            self.plainly += 1
            return self._fn(*args, **kwargs), plan

    def __get__(self, instance: object, owner: object = None) -> Function:
        return self if instance is None else functools.partial(self, instance)

    def __repr__(self) -> str:
        return f"<compiled {called(self._fn)}: {len(self._plans)} signatures>"


def give_back() -> None:
    """Return the pages of a recorded run to the system, where the C library has a call for it: a plan needs fewer."""
    if _TRIM is not None:
        _TRIM(0)


def _trim() -> Function | None:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # another C library
        return None


_TRIM = _trim()


def _of_a_node(error: Exception) -> str | None:
    """What an error of Python's own says of a node in the place of an array."""
    if isinstance(error, AttributeError) and type(error.obj) is Node:
        return f"a plan does not know the {error.name} of {error.obj!r}"
    if isinstance(error, KeyError) and any([type(x) is Node for x in error.args]):
        return (
            "a number that a plan does not know is looked up in a dict: pass it as a Python number, a plan for each, or"
            " index an array by it"
        )
    if type(error) in (TypeError, ValueError) and _SHOWN.search(str(error)):
        return (
            f"what takes no nodes, as a seed, is given an array or a number that a plan makes anew, at {_raised(error)}"
            f" ({error}): draw by the methods of rng alone, or pass a seed as a Python int, a plan for each;"
            " scg.compile(fn, fallback=True) runs it plainly"
        )
    return None


def _raised(error: Exception) -> str:
    """The last of the user's own lines that led to an error."""
    lines = [(frame.f_code, frame.f_lasti) for frame, _ in traceback.walk_tb(error.__traceback__)]
    own = [
        line for line in lines if not NOT_THE_USERS[line[0].co_filename] and not line[0].co_filename.endswith(".pyx")
    ]
    return location(*own[-1]) if own else "unknown line"


def _restore(signature: Signature, states: Sequence[Keywords]) -> None:
    for rng, state in zip(signature.generators, states, strict=True):
        rng.bit_generator.state = state
