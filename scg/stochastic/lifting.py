"""A function run on nodes: its arguments made into what one differentiates by, its ``if``s collected, its result
checked."""

import inspect
import operator
from collections.abc import Sequence
from types import FunctionType

import numpy as np

from scg.core.aliases import Function, Keywords, Operands, Tree
from scg.core.ambient import RECORDER, SCOPE, TAKEN, collect_guards
from scg.core.ancestry import ancestors
from scg.core.leaves import is_finished, parameter
from scg.core.node import Node
from scg.core.operands import described
from scg.core.tree import leaves, map_leaves, rebuild
from scg.errors import NotDifferentiable, ScgTypeError, ScgValueError, here, location
from scg.primitives.layout import alias
from scg.stochastic.sites import is_stochastic
from scg.stochastic.tape import TAPE, Chosen, Tape

Argnums = int | Sequence[int]


def positions_of(fn: Function, argnums: Argnums) -> tuple[int, ...]:
    """Which arguments of ``fn`` are differentiated by; ScgTypeError where ``fn`` is no function, or ``argnums`` no
    integers."""
    if not callable(fn):
        raise ScgTypeError(
            f"only a function can be differentiated, got {described((fn,))}: write the function itself, and its"
            f" arguments after that, as in scg.grad(fn)(x) ({here()})"
        )
    try:
        return tuple(map(operator.index, argnums if isinstance(argnums, Sequence) else [argnums]))
    except TypeError:
        raise ScgTypeError(
            f"argnums needs an int or a sequence of ints, got {described((argnums,))}: fn's arguments are given to the"
            f" function that is returned, as in scg.grad(fn)(x) ({here()})"
        ) from None


def lift(fn: Function, args: Operands, argnums: Argnums) -> tuple[list[Tree], list[Node], Tree]:
    """Arguments with their leaves made into nodes to differentiate by; those nodes; and the structure that a gradient
    has."""
    positions = positions_of(fn, argnums)
    if positions and not args:
        raise ScgValueError(
            f"{_called(fn)} was called without the parameters that it is differentiated by: pass them by position, as"
            " in scg.grad(fn)(params), scg.trace(fn, params), scg.testing.judge(fn, params, rng=rng) or"
            " scg.variance.compare(fn, rows, args=(params,), rng=rng); through lambda p: fn(p=p) where fn takes them as"
            f" keywords only ({here()})"
        )
    for position in positions:
        if not -len(args) <= position < len(args):
            raise ScgValueError(
                f"argnums {position} is out of range: {_called(fn)} was called with {len(args)} positional arguments,"
                " and argnums counts these, not keywords: pass what is differentiated by position, through"
                f" lambda p: fn(p=p) where fn takes it as a keyword only ({here()})"
            )
    if len({position % len(args) for position in positions}) < len(positions):
        raise ScgValueError(f"argnums {argnums} names an argument twice ({here()})")
    lifted, inputs = list(args), []
    for position in positions:
        nodes = []
        for path, leaf in leaves(args[position]):
            if type(leaf) is Node:
                check_differentiable(leaf)
                nodes.append(alias(leaf))
            else:
                name = _argument(fn, position % len(args)) + path
                if path and np.asarray(leaf).dtype.kind in "iubUS":
                    raise ScgTypeError(
                        f"{name} must be real floating-point, got {described((leaf,))}: integers, booleans and strings"
                        " are no parameters; keep them outside of the structure, pass them as another argument, or"
                        f" write 1.0 for 1 ({here()})"
                    )
                nodes.append(parameter(leaf, name))
        lifted[position] = rebuild(args[position], iter(nodes))
        inputs += nodes
    structure = args[argnums] if isinstance(argnums, (int, np.integer)) else tuple([args[p] for p in positions])
    return lifted, inputs, structure


def run(fn: Function, args: Sequence[object], kwargs: Keywords, chosen: Chosen | None = None) -> Tree:
    """``fn(*args, **kwargs)`` in a scope of its own for every ``if`` on a node, with random numbers that are
    ``chosen``."""
    if chosen is None and TAPE.get() is not None:
        return _run(fn, args, kwargs)
    token, taken = TAPE.set(Tape(chosen, "" if chosen is None else chosen.prefix)), TAKEN.set([])
    try:
        result = _run(fn, args, kwargs)
        if type(result) is not Node and isinstance(result, (int, float, np.number, np.ndarray)):
            _refuse_taken(fn, result)
        return result
    finally:
        TAPE.reset(token)
        TAKEN.reset(taken)


def _refuse_taken(fn: Function, result: object) -> None:
    """Raise ScgValueError where a result that is no node comes from a run in which a user took numbers that a sample
    decides: its gradient would be zero, whatever that of its expectation is."""
    for source, code, instruction in TAKEN.get() or ():
        if type(source) is Node:
            if not any([is_stochastic(node) for node in ancestors([source], guards=True)]):
                continue
            what = f"node.value of {source!r}"
            way = (
                "compute with the node; write scg.parameter(array)[node.astype(int)] for a table, `if node == 0:` for a"
                " choice, scg.primitive(fn)(node) for a function of its number, as of a simulator"
            )
        elif any([type(p) is Node for p in source.parameters.values()]):  # type: ignore[attr-defined]
            what, way = f"{source!r}.sample(rng)", "draw by scg.sample(distribution, estimator, rng=rng)"
        else:
            continue
        raise ScgValueError(
            f"{_called(fn)} returned {described((result,))}, which is no node, and no gradient passes {what}, taken at"
            f" {location(code, instruction)}: {way} ({here()})"
        )


def _run(fn: Function, args: Sequence[object], kwargs: Keywords) -> Tree:
    recorder = RECORDER.get()
    with collect_guards() as guards:  # an `if` inside is not remembered outside
        try:
            result = fn(*args, **kwargs) if recorder is None else recorder.within(fn, args, kwargs)
        except ValueError as error:
            if isinstance(error.__cause__, NotDifferentiable):
                raise error.__cause__ from None  # NumPy's own stands before that of a node written into an array
            raise
        if not guards:
            return result
        drawn = any(is_stochastic(node) for node in ancestors([guard.node for guard in guards]))

        def chosen(y: object) -> Tree:
            """What an `if` chose to return depends on it, also where it was computed before, and on a sample even where
            it is a plain number."""
            if type(y) is Node:
                return alias(y)
            if (
                not drawn
                or not isinstance(y, (int, float, np.number, np.ndarray))
                or np.asarray(y).dtype.kind not in "fiu"
            ):
                return y
            node = alias(parameter(np.asarray(y, float)))
            node.guard = guards[-1]
            return node

        return map_leaves(chosen, result)


def refuse_finished(cost: Node, floor: int) -> None:
    """Raise ScgValueError where a run that nobody differentiates around depends on a node of a run that is over: a
    running mean, a cache.

    ``floor`` is the least id of the run. Parameters that a user made, and graphs that were traced, are alive: they are
    never finished.
    """
    if SCOPE.get() is not None:  # the run around this one, which has all that this one has, will look
        return
    old: dict[int, Node] = {}
    for node in ancestors([cost], guards=True):
        if is_finished(node) or any([type(o) is Node and o.id in old for o in node.operands]):
            if node.id >= floor:
                break
            old[node.id] = node
    if old:
        last = old[max(old)]
        raise ScgValueError(
            f"{last!r}, made at {last.line}, belongs to a run that is over, and would be neither a constant nor"
            f" differentiated in this one: keep its number, node.value, or compute it anew ({here()})"
        )


def check_cost(cost: Node) -> None:
    """Raise ScgValueError unless the cost is a scalar, NotDifferentiable unless it is real floating-point."""
    check_differentiable(cost)
    if cost.shape != ():
        raise ScgValueError(
            f"a cost must be a scalar, got shape {cost.shape} from {cost!r}, made at {cost.line}: take np.sum or"
            f" np.mean of it, or use scg.jacobian ({here()})"
        )


def check_plain(cost: object) -> None:
    """Raise ScgTypeError unless a cost that is no node is a real scalar."""
    if (
        not isinstance(cost, (int, float, np.generic, np.ndarray))
        or np.shape(cost) != ()
        or np.asarray(cost).dtype.kind not in "fiu"
    ):
        shape = f" of shape {np.shape(cost)}" if isinstance(cost, np.ndarray) else ""
        way = "return a sum or a mean"
        if isinstance(cost, (complex, np.complexfloating)):
            way = "take np.real or np.abs of it"
        elif isinstance(cost, tuple) and cost:
            way = "with has_aux=True, value_and_grad and grad take (cost, anything else)"
        raise ScgTypeError(f"a cost must be a real scalar, got {type(cost).__name__}{shape}: {way} ({here()})")


def check_differentiable(node: Node) -> None:
    """Raise NotDifferentiable unless the node is one real floating-point array."""
    if isinstance(node.raw, tuple) or node.dtype.kind != "f":
        dtype = "several results" if isinstance(node.raw, tuple) else node.dtype
        hint = ""
        if not isinstance(node.raw, tuple):
            hint = "; take np.real or np.abs of it" if node.dtype.kind == "c" else "; multiply it by 1.0"
        raise NotDifferentiable(
            f"a derivative needs a real floating-point value, got {node!r} ({dtype}), made at {node.line}{hint}"
            f" ({here()})"
        )


def _argument(fn: Function, position: int) -> str:
    if type(fn) is FunctionType and position < fn.__code__.co_argcount:  # a signature takes ten microseconds
        return fn.__code__.co_varnames[position]
    try:
        return list(inspect.signature(fn).parameters)[position]
    except (TypeError, ValueError, IndexError):
        return f"argument {position}"


def _called(fn: Function) -> str:
    return getattr(fn, "__name__", type(fn).__name__)
