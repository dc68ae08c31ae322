"""The declaration of primitives: what computes, the VJP of each operand, the axis map, and what else is known.

``primitive`` is that declaration, inside the package and outside it. Each is declared once, and no other module keeps a
fact about it.
"""

import functools
import operator
import sys
from collections.abc import Callable, Iterable
from types import FunctionType
from typing import Any, Literal, TypeVar, final

import numpy as np

from scg.core.aliases import Function, Operands, Result, Statics
from scg.core.axes import AxisMap
from scg.core.operands import name_of
from scg.errors import ScgTypeError, ScgValueError, here

T = TypeVar("T", bound=Function)

Linear = Literal["together", "each"] | Iterable[Iterable[int]] | None
"""In which operands a primitive is linear: all together, each by itself, or in groups of positions."""

IMPLEMENTATIONS: dict[object, Function] = {}
"""What stands behind each NumPy or SciPy callable (or (ufunc, method) pair) once an argument is a Node."""


class Recorded:
    """What a primitive is recorded with, and not computed with: a Node."""

    __slots__ = ()

    @staticmethod
    def applied(primitive: "Primitive", operands: Operands, statics: Statics) -> Result:
        """The primitive computed and recorded."""
        raise NotImplementedError


@final
class Primitive:
    """An operation on arrays with its derivative: ``primitive(*operands, **statics)`` computes, and records where an
    operand is a Node.

    Operands are arrays, scalars or Nodes and stand in position; statics (an axis, a shape) are never differentiated and
    stand by keyword. ``vjps[i](g, out, *operands, **statics)`` is the cotangent of operand i for the cotangent ``g`` of
    the result ``out``, None where the result does not depend differentiably on it; it may have any shape and dtype that
    broadcast against the operand's. ``every(g, i, out, *operands, **statics)`` serves a primitive with any number of
    operands.
    """

    __slots__ = (
        "fn",
        "axes",
        "vjps",
        "every",
        "name",
        "module",
        "smooth",
        "silent",
        "kinks",
        "steps",
        "cuts",
        "poles",
        "sign",
        "steep",
        "shares",
        "ties",
        "supported",
        "picks",
        "jumps",
        "random",
        "together",
        "into",
        "view",
        "cost",
        "linear",
        "moves",
        "same",
        "constant",
        "holds",
        "square",
        "triangle",
        "again",
    )

    def __init__(
        self,
        fn: Function,
        axes: AxisMap | None,
        vjps: Operands,
        every: Any,
        name: str,
        module: str,
        **facts: Any,
    ):
        self.fn, self.axes, self.vjps, self.every, self.name, self.module = fn, axes, vjps, every, name, module
        self.kinks, self.steep, self.shares, self.ties, self.supported, self.picks = [
            facts.get(fact) for fact in ("kinks", "steep", "shares", "ties", "supported", "picks")
        ]
        self.cuts, self.poles, self.sign = facts.get("cuts"), facts.get("poles"), facts.get("sign")
        self.moves, self.same, self.constant = [bool(facts.get(fact)) for fact in ("moves", "same", "constant")]
        self.linear, self.square, self.again = facts.get("linear"), bool(facts.get("square")), facts.get("again")
        self.holds = self.same and not vjps and every is None  # the value of operand 0, held constant
        self.random, self.triangle = bool(facts.get("random")), bool(facts.get("triangle"))
        self.together = facts.get("together")
        self.into, self.view, self.cost = facts.get("into"), facts.get("view"), facts.get("cost")
        steps = facts.get("steps")
        self.steps = steps or None
        # a derivative, and no word of where it is smooth
        self.silent = self.differentiable and self.kinks is self.steps is self.linear is None
        self.kinks = self.kinks or None
        # the value jumps somewhere: what has no VJP is constant between jumps
        self.jumps = bool(steps) or steps is None and every is None and not vjps
        self.smooth = every is not None or bool(vjps) and None not in vjps  # every operand carries a cotangent

    def __call__(self, *operands: object, **statics: object) -> Result:
        for operand in operands:
            if isinstance(operand, Recorded):
                return operand.applied(self, operands, statics)
        return self.fn(*operands, **statics)

    def groups(self, count: int) -> tuple[tuple[int, ...], ...]:
        """Positions of operands, of ``count`` ones, in which the result is linear together, the others held."""
        if self.linear == "together":
            return (tuple(range(count)),)
        return tuple([(k,) for k in range(count)]) if self.linear == "each" else self.linear or ()

    def kernel(self, operands: Operands, statics: Statics) -> Function | None:
        """``call(*operands, out)``, which writes the result into ``out``; None where it is called plainly."""
        if self.into is None:
            return self.fn if isinstance(self.fn, np.ufunc) and not statics and self.fn.nout == 1 else None
        return self.into(*operands, **statics)  # type: ignore[no-any-return]

    @property
    def differentiable(self) -> bool:
        """Whether any operand carries a cotangent."""
        return bool(self.vjps) or self.every is not None

    def __repr__(self) -> str:
        return f"<primitive {self.name}>"

    def __reduce__(self) -> tuple[object, ...]:
        fn = self.fn
        if IMPLEMENTATIONS.get(fn) is self:
            return _implementation_of, (fn,)
        for name, value in vars(sys.modules[self.module]).items():
            if value is self:
                return _import, (self.module, name)
        raise ScgTypeError(f"{self!r} cannot be pickled: bind it to a name at the top level of module {self.module}")


def primitive(
    fn: Function,
    axes: AxisMap | None = None,
    *vjps: Function | None,
    every: Function | None = None,
    name: str | None = None,
    kinks: Function | bool | None = None,
    steps: Function | bool | None = None,
    cuts: Function | None = None,
    poles: Function | None = None,
    sign: Function | None = None,
    steep: Function | None = None,
    shares: Function | None = None,
    ties: Function | None = None,
    supported: bool = False,
    picks: bool = False,
    random: bool = False,
    together: Function | None = None,
    into: Function | None = None,
    view: Function | bool | None = None,
    cost: float | None = None,
    linear: Linear = None,
    moves: bool = False,
    same: bool = False,
    constant: bool = False,
    square: bool = False,
    triangle: bool = False,
    again: Function | None = None,
) -> Primitive:
    """Declare a primitive: the callable, the axis map (``scg.axes``; None: everything mixes), a VJP an operand, and
    what else is known of it. A fact that nobody states is not known, and never taken for granted.

        primitive(np.tanh, elementwise, lambda g, out, x: g * (1 - out * out))

    Where ``fn`` is one of NumPy's dispatching callables or a ufunc, it accepts Nodes from then on; the primitive that
    is returned does in any case. Without VJPs the result is constant: its derivative is zero, and it is taken for a
    step function. ``random``: each node of it is a random variable of its own.

    A function that is not smooth everywhere says where. ``kinks(*operands, **statics)`` is a number or a truth for
    every element, that of the piece on which the operands lie: where it changes the derivative jumps. ``steps`` is the
    same where the value itself jumps. The operands are arrays with an axis of points in front. ``kinks=False``: it is
    smooth wherever it is defined.

        primitive(np.absolute, elementwise, lambda g, out, x: g * np.sign(x), kinks=lambda x: x > 0)
        primitive(np.fmod, elementwise, ..., steps=lambda x, y: np.trunc(x / y))

    ``cuts`` is the same for complex operands alone, where the value jumps across a branch cut. ``poles(*operands)`` is
    the position of the operand (an array, or a node) at whose zeros the value has none, None where there is none: on
    the two sides of a zero the value need not have one sign, and what is made of it may jump. ``sign(signs,
    *operands)`` tells whether the result is positive (2), never negative (1) or neither known (0), from the ``signs``
    of the operands: a denominator that is positive has no zeros.

        primitive(np.divide, elementwise, ..., poles=lambda x, y: 1, sign=lambda s, x, y: s[0] if s[1] else 0)
        primitive(np.log, elementwise, ..., cuts=lambda x: 2 * (x.real > 0) + (x.imag > 0))

    Where a function says neither, exact means look for such places along a grid: they see no window that is narrower
    than 1e-4 of a sample's spread inside of one function.

    What has no VJP and no step either says ``steps=False``. ``linear`` says in which operands the result is linear,
    with weights that the others and the statics decide: "together" in all of them, "each" in every one while the others
    are held, or groups of positions. Costs are taken apart there.

        primitive(lambda x: 2 * x, elementwise, lambda g, out, x: 2 * g, linear="together")
        primitive(np.multiply, elementwise, ..., linear="each")
        primitive(np.where, elementwise, ..., linear=[(1, 2)])

    ``picks``: the result is elements of operand 0, at places that the other operands name; ``moves``: elements of the
    operands, all of them. ``same``: the value is that of operand 0, broadcast, and only the derivative is another;
    ``constant``: the value is a number that no operand changes, and stands there for its derivative; ``square``: the
    value is operand 0 times itself, element by element, which exact means distribute over a sum; ``triangle``: one
    triangle of matrices is read, and a symmetric one has the gradient of symmetric changes. ``again(*operands,
    **statics)`` is called in its place where a graph is recorded once more, on other operands: it may look at what
    these are made of.

    Four facts are for what is singular. ``steep(*operands)`` says where the slope is infinite inside the domain, as
    that of ``cbrt`` at 0. ``shares(*operands)``, of a cotangent, says where it is the share of one at a tie, and
    ``ties(*operands)``, of a step, where the operands lie on the jump itself: second derivatives there are compared
    with those nearby. Beside ``every``, ``together(g, out, *operands, **statics)`` may
    give the cotangents of all operands in one pass, where these may be very many. With ``supported`` the VJPs take
    ``support=``: where the cotangent is not zero by structure (``scg.absorbing``); None: not known.

    Three facts are for compiled plans. ``into(*operands, **statics)`` returns ``call(*arrays, out)``, which writes the
    result into ``out``, or None where these operands have no such call; it looks at their shapes and dtypes only.
    Without it a ufunc is called with ``out``, and any other function is called plainly and its result copied.
    ``view=True``: the result is operand 0 itself; ``view(*operands, **statics)`` returns a function that shows an array
    another way, in the same memory, or None where the result is a copy. ``cost`` is about how many nanoseconds an
    element takes: by it a plan shares work among threads.

        primitive(lambda x, axes: np.transpose(x, axes), ..., view=lambda x, axes: lambda x: np.transpose(x, axes))

    Raises ScgValueError where ``fn`` is declared already.
    """
    if isinstance(fn, np.ufunc) and all("O" in types for types in fn.types):
        raise ScgTypeError(
            f"{name_of(fn)} makes object arrays: declare lambda *x: ufunc(*x).astype(float) in its place ({here()})"
        )
    if not callable(fn) or axes is not None and not hasattr(axes, "align"):
        wrong = (
            f"{axes!r} as its axis map: it comes before the VJPs, a map of scg.axes or None (everything mixes)"
            if callable(fn)
            else f"{fn!r} as its function"
        )
        raise ScgTypeError(f"primitive(fn, axes, *vjps) got {wrong} ({here()})")
    vjps = vjps if any(vjps) else ()  # None for every operand: a constant as well
    module = sys._getframe(1).f_globals["__name__"]
    facts = {
        "kinks": kinks,
        "steps": steps,
        "cuts": cuts,
        "poles": poles,
        "sign": sign,
        "steep": steep,
        "shares": shares,
        "ties": ties,
        "supported": supported,
        "picks": picks,
        "random": random,
        "together": together,
        "into": into,
        "view": view,
        "cost": cost,
        "linear": _linear(linear, vjps, every),
        "moves": moves,
        "same": same,
        "constant": constant,
        "square": square,
        "triangle": triangle,
        "again": again,
    }
    made = Primitive(fn, axes, vjps, every, str(name or getattr(fn, "__name__", "primitive")), module, **facts)
    if isinstance(fn, np.ufunc) or hasattr(fn, "_implementation"):
        implements(fn)(made)
    return made


smooth_primitive = functools.partial(primitive, kinks=False)
"""``primitive`` of a function that is smooth wherever it is defined, or that says itself where it is not."""


def _linear(linear: Linear, vjps: Operands, every: Function | None) -> Linear:
    """``linear`` as a primitive keeps it: a word, groups as tuples, or None.

    Raises ScgTypeError where it is none of these, or where an operand that it names has no VJP.
    """
    if linear is None:
        return None
    groups = [range(len(vjps))] if linear == "together" or linear == "each" else linear
    try:
        groups = tuple([tuple([operator.index(k) for k in group]) for group in groups])
        known = groups and all([every or len(vjps) > k >= 0 and vjps[k] for group in groups for k in group])
    except TypeError:
        known = False
    if not known or not vjps and not every:
        raise ScgTypeError(
            'linear= takes "together", "each" or groups of positions of operands that have VJPs, as [(1, 2)], got'
            f" {linear!r} ({here()})"
        )
    return linear if isinstance(linear, str) else groups


def implements(*callables: object) -> Callable[[T], T]:
    """Let a function of Nodes stand behind NumPy callables; ``(ufunc, "reduce")`` names a ufunc's method, None one that
    is not there yet."""

    def declare(implementation: T) -> T:
        for fn in callables:
            if fn is None:
                continue
            if fn in IMPLEMENTATIONS:
                raise ScgValueError(
                    f"{name_of(fn)} already has an implementation, {IMPLEMENTATIONS[fn]!r}; a callable is declared once"
                    f" ({here()})"
                )
            IMPLEMENTATIONS[fn] = implementation
        if type(implementation) is FunctionType and implementation.__doc__ is None:
            names = ", ".join([name_of(fn) for fn in callables if fn is not None])
            implementation.__doc__ = (
                f"What stands behind {names} where an argument is a node: the same signature, the same meaning."
            )
        return implementation

    return declare


def _implementation_of(fn: object) -> Function:
    return IMPLEMENTATIONS[fn]


def _import(module: str, name: str) -> Primitive:
    return getattr(__import__(module, fromlist=[name]), name)
