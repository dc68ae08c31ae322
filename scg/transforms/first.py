"""First derivatives: of a node by nodes, and of a function by its arguments."""

import functools
import operator
import weakref
from collections.abc import Callable

import numpy as np

from scg.core.aliases import Function, Tree
from scg.core.ambient import RECORDER
from scg.core.backward import pull, reach
from scg.core.generators import have_moved, states_of
from scg.core.leaves import parameter
from scg.core.node import Node, Value
from scg.core.operands import described, plain
from scg.core.tree import leaves, leaves_like, map_leaves, rebuild
from scg.errors import ScgTypeError, ScgValueError, here
from scg.stochastic.analysis import draws
from scg.stochastic.lifting import Argnums, check_cost, check_plain, lift, positions_of, run
from scg.stochastic.nested import paired
from scg.stochastic.steps import refuse_own_steps
from scg.stochastic.surrogate import expanded
from scg.stochastic.tape import TAPE, Chosen, Program
from scg.transforms.runs import finish, floor_of, is_nested


def gradients(cost: Node, wrt: Tree, create_graph: bool = False) -> Tree:
    """d cost / d x for every node x in ``wrt`` (a Node, or a list or other structure of Nodes), in that structure.

    Arrays of each node's shape and dtype; with ``create_graph`` Nodes, which can be differentiated again. The cost must
    be a real scalar. Zero where the cost does not depend on x. Where the cost depends on samples, an estimate of the
    gradient of its expectation, by their estimators.
    """
    targets = [leaf for _, leaf in leaves(wrt)]
    for path, leaf in leaves(wrt):
        if type(leaf) is not Node:
            raise ScgTypeError(
                f"gradients needs nodes to differentiate by, got {type(leaf).__name__} at wrt{path} ({here()})"
            )
    if type(cost) is not Node:
        raise ScgTypeError(f"gradients needs a node as cost, got {type(cost).__name__} ({here()})")
    check_cost(cost)
    if not targets:
        return wrt
    floor = min([x.id for x in targets])
    known = reach([cost], floor)
    drawn: list[Node] = []
    if known.chosen:
        cost, drawn = expanded(cost, None if create_graph else 1, floor, RECORDER.get() is not None, known)
        known = reach([cost], floor)
    found = pull([cost], [np.ones((), cost.dtype)], targets, create_graph or RECORDER.get() is not None, known)
    if create_graph:  # a constant gradient is a node too
        found = paired([g if type(g) is Node else parameter(g) for g in found], drawn)
    return rebuild(wrt, iter(found))


def value_and_grad(fn: Function, argnums: Argnums = 0, has_aux: bool = False) -> Callable[..., tuple[Value, Tree]]:
    """The function that returns (fn(*args), its gradient with respect to the arguments ``argnums``).

    ``fn`` returns a real scalar. Arguments may be nested dicts, lists, tuples, named tuples and dataclasses of
    floating-point arrays, and the gradient has their structure, shapes and dtypes; with several ``argnums`` it is a
    tuple. Other arguments and keywords, ``rng`` among them, are handed on. Where ``fn`` draws (``scg.sample``), the
    gradient is an estimate of that of E[fn], by the estimators of its samples. Inside a function that is itself
    differentiated the results are Nodes, so that derivatives nest.

    With ``has_aux`` the function returns (cost, aux), aux any structure that is handed out beside the cost, such as
    predictions: ((cost, aux), gradient) comes back. No gradient of it is taken, and its Nodes come back as arrays where
    the cost does.
    """
    if not isinstance(has_aux, (bool, np.bool_)):
        raise ScgTypeError(f"has_aux must be True or False, got {described((has_aux,))} ({here()})")
    positions_of(fn, argnums)

    @functools.wraps(fn)
    def differentiated(*args: object, **kwargs: object) -> tuple[Value, Tree]:
        lifted, inputs, structure = lift(fn, args, argnums)
        given: list[Tree] = []
        alone = TAPE.get() is None
        called = _split(fn, given) if has_aux else fn

        def cost_again(chosen: Chosen, rng: np.random.Generator) -> Value:
            again = run(called, lifted, kwargs, chosen)
            return again[0] if has_aux else again

        before = states_of((*args, *kwargs.values()))
        result = run(called, lifted, kwargs)
        cost = result[0] if has_aux else result
        if type(cost) is not Node:  # the result does not depend on anything that we differentiate
            check_plain(cost)
            gradient = rebuild(structure, (np.zeros(x.shape, x.dtype) for x in inputs))
            if has_aux:
                cost = cost, _handed(result[1], given[0], inputs, RECORDER.get() is not None)
            else:
                finish(inputs)
            return cost, gradient
        check_cost(cost)
        floor = floor_of(inputs)
        known = reach([cost], floor)
        nested, recorder = is_nested(cost, inputs, known), RECORDER.get()
        graph = nested or recorder is not None
        loss, drawn = (
            expanded(
                cost, None if nested else 1, floor, graph, known, Program(cost_again) if alone and not graph else None
            )
            if known.chosen
            else (cost, [])
        )
        forget = None if nested or recorder is None else recorder.forget
        found = (
            pull([loss], [np.ones((), cost.dtype)], inputs, graph, known if loss is cost else None, forget)
            if inputs
            else []
        )
        if nested:
            found = paired(found, drawn)
        if have_moved(before):
            refuse_own_steps(cost, inputs, found)
        if recorder is not None:
            recorder.differentiated(cost, found)
            found = [g if type(g) is Node else np.asarray(g) for g in found]
        if has_aux:
            cost = cost if graph else cost.value[()], _handed(result[1], given[0], inputs, graph)
        elif not graph:
            cost = cost.value[()]
            finish(inputs)
        return cost, rebuild(structure, iter(found))

    return differentiated


def grad(fn: Function, argnums: Argnums = 0, has_aux: bool = False) -> Function:
    """The function that returns the gradient of ``fn``, with ``has_aux`` (gradient, aux); see ``value_and_grad``."""
    both = value_and_grad(fn, argnums, has_aux)

    @functools.wraps(fn)
    def differentiated(*args: object, **kwargs: object) -> Tree:
        value, gradient = both(*args, **kwargs)
        return (gradient, value[1]) if has_aux else gradient

    return differentiated


def vjp(fn: Function, argnums: Argnums = 0) -> Callable[..., tuple[Tree, Function]]:
    """The function that returns (fn(*args), pullback): pullback(v) is v^T J, in the structure of the arguments, v in
    that of the result."""
    positions_of(fn, argnums)

    @functools.wraps(fn)
    def pulled(*args: object, **kwargs: object) -> tuple[Tree, Function]:
        lifted, inputs, structure = lift(fn, args, argnums)
        result = run(fn, lifted, kwargs)
        found = [leaf for _, leaf in leaves(result)]
        nested = any([type(y) is Node and is_nested(y, inputs) for y in found])
        recorder = RECORDER.get()
        recording = recorder is not None

        def pullback(cotangent: Tree) -> Value:
            seeds = list(leaves_like(result, cotangent, "the cotangent"))
            shapes = [np.shape(seed) for seed in seeds]
            if shapes != [y.shape if type(y) is Node else np.shape(y) for y in found]:
                raise ScgValueError(
                    f"the cotangent needs the structure and shapes of the result, {[np.shape(y) for y in found]}, got"
                    f" {shapes} ({here()})"
                )
            pairs = [
                (y, s if type(s) is Node else np.asarray(plain(s, "the cotangent"), y.dtype))
                for y, s in zip(found, seeds, strict=True)
                if type(y) is Node
            ]
            graph = nested or recording or any(type(s) is Node for s in seeds)
            order = None if nested or not recording and graph else 1
            if pairs and draws([y for y, _ in pairs]):  # the costs of each sample are those that the cotangent weighs
                cost = functools.reduce(operator.add, [np.sum(y * s) for y, s in pairs])
                loss, drawn = expanded(cost, order, floor_of(inputs), graph)
                pulled = pull([loss], [np.ones((), loss.dtype)], inputs, graph)
                return rebuild(structure, iter(paired(pulled, drawn if graph and order is None else [])))
            if not recording and any([type(s) is not Node and _has_nan(y, s) for y, s in pairs]):
                whole = [np.sum(np.where(np.equal(s, 0), 0, y) * s) for y, s in pairs]
                cost = functools.reduce(operator.add, whole)  # a NaN, whose derivative is one where it comes from
                return rebuild(structure, iter(pull([cost], [np.ones((), cost.dtype)], inputs, graph)))
            pulled = pull([y for y, _ in pairs], [s for _, s in pairs], inputs, graph)
            if recorder is not None:
                for y, _ in pairs:
                    recorder.differentiated(np.sum(y), pulled)
            return rebuild(structure, iter(pulled))

        if not nested:
            # while somebody holds it, it may be differentiated itself
            weakref.finalize(pullback, finish, inputs).atexit = False
        return (
            result if nested or recording else rebuild(result, (y.value if type(y) is Node else y for y in found))
        ), pullback

    return pulled


def _split(fn: Function, given: list[Tree]) -> Function:
    """``fn``, which is to return (cost, aux); aux enters ``given`` as it is."""

    def split(*args: object, **kwargs: object) -> Tree:
        result = fn(*args, **kwargs)
        if type(result) is not tuple or len(result) != 2:
            raise ScgTypeError(
                f"with has_aux=True a function returns the tuple (cost, aux), got {described((result,))}"
                f"{f' of {len(result)}' if isinstance(result, tuple) else ''} ({here()})"
            )
        given.append(result[1])
        return result

    return split


def _handed(chosen: Tree, given: Tree, inputs: list[Node], graph: bool) -> Tree:
    """Auxiliary results as arrays, and as they were ``given`` where they are no nodes. Nodes stay nodes in a ``graph``,
    and where somebody outside may differentiate them; there they depend on an `if` that ``chosen`` them."""

    def handed(y: Value, before: Value) -> Value:
        if type(y) is not Node or graph or is_nested(y, inputs):
            return y
        return before.value[()] if type(before) is Node else before

    found = map_leaves(handed, chosen, given)
    if not any([type(y) is Node for _, y in leaves(found)]):
        finish(inputs)
    return found


def _has_nan(y: Node, seed: Value) -> bool:
    return bool(np.isnan(y.raw[np.not_equal(seed, 0)]).any())
