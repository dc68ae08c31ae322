"""Derivatives of functions of arrays: grad, value_and_grad, vjp, jacobian, hessian, hvp; and gradients of a graph.

`scg.grad`, `value_and_grad`, `vjp`, `jacobian`, `hessian` and `hvp` take a function and `argnums=0`, and go through
nested dicts, lists, tuples, named tuples and dataclasses of arrays. Other arguments, `rng` among them, are handed on.
A gradient is a graph again, so that any order is within reach. Node by node: `x = scg.parameter(array)`, then NumPy,
then `scg.gradients(cost, [x])`.

```python
import numpy as np
import scg
from scg import distributions as dist

def energy(params):
    return np.sum(np.tanh(params["weight"] @ np.ones(2)) ** 2) + params["scale"] ** 3


params = {"weight": np.array([[0.1, 0.2], [0.3, 0.4]]), "scale": np.array(2.0)}
print(scg.grad(energy)(params)["scale"], scg.hessian(energy)(params)["scale"]["scale"])
```

```text
12.0 12.0
```

`scg.surrogate(cost)` is the node behind all gradients of expectations: exactly the value of the cost, with
derivatives that estimate those of its expectation. `scg.replay(outputs, {node: values}, batched=[node])` runs a
recorded graph again with other values in place of some nodes and a leading axis of alternatives: one call where a
loop would stand.

`scg.nn` (multilayer perceptrons), `scg.optim` (SGD, Adam, averaging) and `scg.checkpoint` (atomic, without pickle,
with a checksum) are small and stand aside.

# Conventions

- **Kinks.** `abs`, `hypot`, `arctan2` and the Euclidean `norm` have derivative 0 at the origin, and there a second
  derivative of NaN, unless what is composed of them is smooth (`norm(x)**2`, `exp(-norm(x)**2)`); `floor`, `rint`,
  `sign` and comparisons have it everywhere, for they are constant between jumps.
- **Ties.** Elements that share a maximum or minimum share its cotangent equally; `clip` at a bound gives a half. A
  second derivative there is the limit of those nearby, as of `np.maximum(x, -x)**2` at 0, or NaN where these differ.
  Sorting is stable.
- **0 * inf.** A zero by structure absorbs: an infinite or NaN slope in the branch that `np.where` did not take, in an
  element that was not picked, or in one matrix of a stack that is masked does no harm. Where a factor that was
  computed vanishes beside an infinite slope, as in `sqrt(x)**2` or `exp(log(x))` at 0 or in a function of a matrix by
  way of eigenvectors with equal eigenvalues, the derivative is the limit of those nearby, or NaN where they have
  none. Where the derivative itself is infinite, so is the gradient; where the cost is, it may be NaN.
- **Complex numbers** may stand inside (`fft`, for example). Parameters and costs are real; the cotangent of a complex
  z = x + iy is dL/dx - i dL/dy.
- **float32** stays float32, forward and backward.
"""

import functools
import operator
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from scg.core.aliases import Function, Tree
from scg.core.ambient import RECORDER
from scg.core.ancestry import ancestors
from scg.core.backward import Reach, depends_on_shares, pull, reach
from scg.core.leaves import FINISHED, parameter
from scg.core.limits import confirmed, limit
from scg.core.node import Node, Value
from scg.core.operands import described, plain
from scg.core.replay import replay
from scg.core.tree import children, leaves, leaves_like, map_leaves, rebuild
from scg.core.undefined import is_nan
from scg.errors import ScgTypeError, ScgValueError, here
from scg.stochastic.analysis import draws
from scg.stochastic.estimates import settled
from scg.stochastic.jumps import refuse_moving_jumps
from scg.stochastic.lifting import Argnums, check_cost, check_differentiable, check_plain, lift, refuse_finished, run
from scg.stochastic.nested import paired
from scg.stochastic.sites import is_stochastic
from scg.stochastic.surrogate import expanded

_BLOCK = 2**26  # bytes that the arrays of one block of rows of a Jacobian may take


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

    @functools.wraps(fn)
    def differentiated(*args: object, **kwargs: object) -> tuple[Value, Tree]:
        lifted, inputs, structure = lift(fn, args, argnums)
        given: list[Any] = []
        result = run(_split(fn, given) if has_aux else fn, lifted, kwargs)
        cost = result[0] if has_aux else result
        if type(cost) is not Node:  # the result does not depend on anything that we differentiate
            check_plain(cost)
            gradient = rebuild(structure, (np.zeros(x.shape, x.dtype) for x in inputs))
            if has_aux:
                cost = cost, _handed(result[1], given[0], inputs, RECORDER.get() is not None)
            else:
                _finish(inputs)
            return cost, gradient
        check_cost(cost)
        floor = _floor(inputs)
        known = reach([cost], floor)
        nested, recorder = _is_nested(cost, inputs, known), RECORDER.get()
        graph = nested or recorder is not None
        loss, drawn = expanded(cost, None if nested else 1, floor, graph, known) if known.chosen else (cost, [])
        forget = None if nested or recorder is None else recorder.forget
        found = (
            pull([loss], [np.ones((), cost.dtype)], inputs, graph, known if loss is cost else None, forget)
            if inputs
            else []
        )
        if nested:
            found = paired(found, drawn)
        if recorder is not None:
            recorder.differentiated(cost, found)
        if has_aux:
            cost = cost if graph else cost.value[()], _handed(result[1], given[0], inputs, graph)
        elif not graph:
            cost = cost.value[()]
            _finish(inputs)
        return cost, rebuild(structure, iter(found))

    return differentiated


def grad(fn: Function, argnums: Argnums = 0, has_aux: bool = False) -> Function:
    """The function that returns the gradient of ``fn``, with ``has_aux`` (gradient, aux); see ``value_and_grad``."""
    both = value_and_grad(fn, argnums, has_aux)

    @functools.wraps(fn)
    def differentiated(*args: Any, **kwargs: Any) -> Any:
        value, gradient = both(*args, **kwargs)
        return (gradient, value[1]) if has_aux else gradient

    return differentiated


def vjp(fn: Function, argnums: Argnums = 0) -> Callable[..., tuple[Any, Function]]:
    """The function that returns (fn(*args), pullback): pullback(v) is v^T J, in the structure of the arguments, v in
    that of the result."""

    @functools.wraps(fn)
    def pulled(*args: Any, **kwargs: Any) -> tuple[Any, Function]:
        lifted, inputs, structure = lift(fn, args, argnums)
        result = run(fn, lifted, kwargs)
        found = [leaf for _, leaf in leaves(result)]
        nested = any([type(y) is Node and _is_nested(y, inputs) for y in found])
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
                loss, drawn = expanded(cost, order, _floor(inputs), graph)
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
            weakref.finalize(pullback, _finish, inputs).atexit = False
        return (
            result if nested or recording else rebuild(result, (y.value if type(y) is Node else y for y in found))
        ), pullback

    return pulled


def jacobian(fn: Function, argnums: Argnums = 0) -> Function:
    """The function that returns J with J[i, j] = d fn_i / d x_j: for each leaf of the arguments an array of shape
    result.shape + leaf.shape.

    Many rows at once, by replaying one backward pass over a batch of unit cotangents: in blocks of so many that all
    arrays of one block take 64 megabytes at most, or of one row where that takes more.
    """

    @functools.wraps(fn)
    def differentiated(*args: object, **kwargs: object) -> Tree:
        lifted, inputs, structure = lift(fn, args, argnums)
        _require_any(inputs, "jacobian")
        result = run(fn, lifted, kwargs)
        if children(result) is not None:
            raise ScgTypeError(
                f"jacobian needs a function that returns one array, got {type(result).__name__}; use np.concatenate"
                f" ({here()})"
            )
        if type(result) is not Node:
            shape = np.shape(result)
            return rebuild(structure, (np.zeros(shape + x.shape, x.dtype) for x in inputs))
        check_differentiable(result)
        nested = _is_nested(result, inputs)
        rows = _rows(result, inputs, nested, _chosen)
        recorder = RECORDER.get()
        if recorder is not None:
            recorder.differentiated(np.sum(result), rows)
        elif not nested and np.isnan(result.raw).any():
            _set_undefined(rows, result, inputs)
        if not nested:
            _finish(inputs)
        return rebuild(structure, iter(rows))

    return differentiated


def hessian(fn: Function, argnums: int = 0) -> Function:
    """The function that returns the second derivative of a scalar ``fn``: for array arguments of shape s an array of
    shape s + s.

    For a structure of arrays, that structure in which each leaf holds the structure again: H[a][b] = d^2 fn / d a d b.
    """

    @functools.wraps(fn)
    def differentiated(*args: object, **kwargs: object) -> Tree:
        lifted, inputs, structure = lift(fn, args, argnums)
        cost = run(fn, lifted, kwargs)
        if type(cost) is not Node:
            check_plain(cost)
            _finish(inputs)
            return rebuild(
                structure,
                iter([rebuild(structure, (np.zeros(x.shape + y.shape, x.dtype) for y in inputs)) for x in inputs]),
            )
        check_cost(cost)
        nested = _is_nested(cost, inputs)
        loss, drawn = expanded(cost, None if nested else 2, _floor(inputs))
        rows = []
        for g, x in zip(pull([loss], [np.ones((), loss.dtype)], inputs, True), inputs, strict=True):
            found = (
                _rows(g, inputs, nested, _replayed)
                if type(g) is Node
                else [np.zeros(x.shape + y.shape, x.dtype) for y in inputs]
            )
            found = [_undefined_with(f, g, cost) for f in found]
            rows.append(rebuild(structure, iter(paired(found, drawn if nested else []))))
        if not nested:
            _finish(inputs)
        return rebuild(structure, iter(rows))

    return differentiated


def hvp(fn: Function, argnums: Argnums = 0) -> Function:
    """The function (*args, v) -> H v of a scalar ``fn``, with v and the result in the structure of the arguments
    ``argnums``.

    One backward pass through the gradient of <grad fn, v>: the Hessian is never formed.
    """

    @functools.wraps(fn)
    def product(*args: object, **kwargs: object) -> Tree:
        if len(args) < 2:
            raise ScgTypeError(f"hvp(fn) takes fn's arguments and then the vector ({here()})")
        *primals, vector = args
        lifted, inputs, structure = lift(fn, tuple(primals), argnums)
        _require_any(inputs, "hvp")
        cost = run(fn, lifted, kwargs)
        directions = list(leaves_like(structure, vector, "the vector"))
        if [np.shape(v) for v in directions] != [x.shape for x in inputs]:
            raise ScgValueError(
                f"the vector needs the structure and shapes of the arguments, {[x.shape for x in inputs]}, got"
                f" {[np.shape(v) for v in directions]} ({here()})"
            )
        if type(cost) is not Node:
            return rebuild(structure, (np.zeros(x.shape, x.dtype) for x in inputs))
        check_cost(cost)
        nested = _is_nested(cost, inputs) or any(type(v) is Node for v in directions)
        loss, drawn = expanded(cost, None if nested else 2, _floor(inputs))
        first = pull([loss], [np.ones((), cost.dtype)], inputs, True)
        _refuse_kinks(first)
        pairs = [
            (g, v if type(v) is Node else np.asarray(plain(v, "the vector"), g.dtype))
            for g, v in zip(first, directions, strict=True)
            if type(g) is Node
        ]
        if not pairs:
            zeros = [np.zeros(x.shape, x.dtype) for x in inputs]
            return rebuild(structure, (_undefined_with(z, g, cost) for z, g in zip(zeros, first, strict=True)))
        found = pull([g for g, _ in pairs], [v for _, v in pairs], inputs, nested or RECORDER.get() is not None)
        found = [_undefined_with(f, g, cost) for f, g in zip(found, first, strict=True)]
        if not nested:
            _finish(inputs)
        return rebuild(structure, iter(paired(found, drawn if nested else [], directions)))

    return product


def _require_any(inputs: list[Node], who: str) -> None:
    if not inputs:
        raise ScgValueError(
            f"{who} has nothing to differentiate by: the arguments argnums hold no array; pass some, or choose others"
            f" by argnums ({here()})"
        )


def _split(fn: Function, given: list[Any]) -> Function:
    """``fn``, which is to return (cost, aux); aux enters ``given`` as it is."""

    def split(*args: Any, **kwargs: Any) -> Any:
        result = fn(*args, **kwargs)
        if type(result) is not tuple or len(result) != 2:
            raise ScgTypeError(
                f"with has_aux=True a function returns the tuple (cost, aux), got {described((result,))} ({here()})"
            )
        given.append(result[1])
        return result

    return split


def _handed(chosen: Tree, given: Tree, inputs: list[Node], graph: bool) -> Tree:
    """Auxiliary results as arrays, and as they were ``given`` where they are no nodes. Nodes stay nodes in a ``graph``,
    and where somebody outside may differentiate them; there they depend on an `if` that ``chosen`` them."""

    def handed(y: Value, before: Value) -> Value:
        if type(y) is not Node or graph or _is_nested(y, inputs):
            return y
        return before.value[()] if type(before) is Node else before

    found = map_leaves(handed, chosen, given)
    if not any([type(y) is Node for _, y in leaves(found)]):
        _finish(inputs)
    return found


def _has_nan(y: Node, seed: Value) -> bool:
    return bool(np.isnan(y.raw[np.not_equal(seed, 0)]).any())


def _set_undefined(rows: list[Value], result: Node, inputs: list[Node]) -> None:
    """Set those rows of a Jacobian that belong to elements that are NaN: each has the gradient of such a cost."""
    for place in map(tuple, np.argwhere(np.isnan(result.raw))):
        for row, g in zip(rows, pull([result[place]], [np.ones((), result.dtype)], inputs), strict=True):
            row[place] = g


def _undefined_with(found: Value, slope: Value, cost: Node) -> Value:
    """Derivatives of a slope, whose first axes are the slope's: of a cost that is a NaN they are NaN where it is."""
    if RECORDER.get() is not None or not is_nan(cost):
        return found
    value = slope.raw if type(slope) is Node else slope
    missing = np.isnan(value)
    missing = missing.reshape(value.shape + (1,) * (found.ndim - value.ndim))
    return np.where(missing, np.asarray(np.nan, found.dtype), found)


def _floor(inputs: list[Node]) -> int:
    """What is older than this depends on none of the inputs."""
    return min([x.id for x in inputs], default=0)


def _rows(result: Node, inputs: list[Node], nested: bool, of: Callable[..., list[Value]]) -> list[Value]:
    """The rows of a Jacobian, by one of the two ways below, with limits in place of NaN."""
    rows = of(result, inputs, nested)
    if any([type(row) is Node for row in rows]):
        return rows
    again = lambda ys, xs: of(ys[0], xs, False)
    rows = limit(rows, again, [result], inputs)
    tied = depends_on_shares(result, _weights(result), _floor(inputs))
    return confirmed(rows, again, [result], inputs) if tied else rows


def _chosen(result: Node, inputs: list[Node], nested: bool) -> list[Value]:
    """Each element is a cost of its own where it depends on samples; else all rows at once."""
    graph = nested or RECORDER.get() is not None
    result = settled(result)
    if draws([result]):
        each, drawn = [], {}
        for y in np.ravel(result):
            loss, more = expanded(y, None if nested else 1, _floor(inputs), graph)
            each.append(pull([loss], [np.ones((), y.dtype)], inputs, graph))
            drawn.update({node.id: node for node in more})
        found = [
            np.reshape(np.stack(column), result.shape + x.shape)
            for column, x in zip(zip(*each, strict=True), inputs, strict=True)
        ]
        return paired(found, list(drawn.values()) if nested else [])
    return paired(_replayed(result, inputs, nested), expanded(result)[1] if nested else [])


def _replayed(result: Node, inputs: list[Node], nested: bool) -> list[Value]:
    """The rows of a Jacobian: one backward pass, replayed over a batch of unit cotangents."""
    graph = nested or RECORDER.get() is not None
    _refuse_kinks([result])
    seed = parameter(_weights(result))
    pulled = pull([result], [seed], inputs, create_graph=True, nearby=graph)
    moving = [g for g in pulled if type(g) is Node]
    block = max(1, min(result.size, _BLOCK // _bytes_behind(seed, moving)))
    parts: list[list[Value]] = []
    for start in range(0, result.size, block):
        rows = np.arange(start, min(start + block, result.size))
        unit = np.zeros((len(rows), result.size), result.dtype)
        unit[rows - start, rows] = 1
        parts.append(replay(moving, {seed: unit.reshape(len(rows), *result.shape)}, batched=[seed], create_graph=graph))
    columns = iter([np.concatenate(column) for column in zip(*parts, strict=True)])
    found = [next(columns, None) if type(g) is Node else None for g in pulled]
    whole = [result.shape + x.shape for x in inputs]
    return [
        np.zeros(s, x.dtype) if f is None else np.reshape(f, s) for f, s, x in zip(found, whole, inputs, strict=True)
    ]


def _weights(result: Node) -> np.ndarray:
    """Numbers of no significance, none of them zero and no two of which cancel: a zero would ask nothing of what has no
    derivative."""
    return np.sqrt(np.arange(2.0, result.size + 2)).reshape(result.shape).astype(result.dtype)


def _refuse_kinks(slopes: Sequence[Value]) -> None:
    """Raise EstimatorError where what is to be differentiated jumps with the parameters and a continuous sample: a kink
    of the cost is a jump of its slope."""
    for slope in slopes:
        if type(slope) is Node and any(map(is_stochastic, ancestors([slope], guards=True))):
            total = np.sum(slope)
            refuse_moving_jumps(total, ancestors([total], guards=True))


def _bytes_behind(seed: Node, nodes: list[Node]) -> int:
    """The bytes of all arrays between a node and some that are made of it: what one replicate of a replay holds."""
    held = {seed.id: seed.nbytes}
    for node in ancestors(nodes, seed.id):
        if any([type(o) is Node and o.id in held for o in node.operands]):
            value = node.raw
            held[node.id] = sum([v.nbytes for v in value]) if type(value) is tuple else value.nbytes
    return max(1, sum(held.values()))


def _is_nested(cost: Node, inputs: list[Node], known: Reach | None = None) -> bool:
    """Whether the cost also depends on nodes older than the inputs: then somebody outside may differentiate the
    result."""
    floor = _floor(inputs)
    older = any([x.operands for x in inputs]) or (known or reach([cost], floor)).older
    if not older:
        return False
    refuse_finished(cost, floor)
    recorder = RECORDER.get()
    return True if recorder is None else recorder.outer(cost)


def _finish(inputs: list[Node]) -> None:
    """Note that a run is over whose derivatives were given away as arrays (in a plan they are nodes, and it is not)."""
    if RECORDER.get() is None:
        for x in inputs:
            if not x.operands:
                x.primitive = FINISHED
