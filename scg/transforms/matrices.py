"""Jacobians and Hessians, whole or times a vector."""

import functools
from collections.abc import Callable, Sequence

import numpy as np

from scg.core.aliases import Function, Tree
from scg.core.ambient import RECORDER
from scg.core.ancestry import ancestors
from scg.core.backward import depends_on_shares, pull, rests_beside
from scg.core.leaves import parameter
from scg.core.limits import beside, confirmed, limit
from scg.core.node import Node, Value
from scg.core.operands import plain
from scg.core.replay import replay
from scg.core.tree import children, leaves_like, rebuild
from scg.core.undefined import is_nan
from scg.errors import ScgTypeError, ScgValueError, here
from scg.stochastic.analysis import draws
from scg.stochastic.estimates import settled
from scg.stochastic.jumps import refuse_moving_jumps
from scg.stochastic.lifting import Argnums, check_cost, check_differentiable, check_plain, lift, positions_of, run
from scg.stochastic.nested import paired
from scg.stochastic.sites import is_stochastic
from scg.stochastic.surrogate import expanded
from scg.transforms.runs import finish, floor_of, is_nested

_BLOCK = 2**26  # bytes that the arrays of one block of rows of a Jacobian may take


def jacobian(fn: Function, argnums: Argnums = 0) -> Function:
    """The function that returns J with J[i, j] = d fn_i / d x_j: for each leaf of the arguments an array of shape
    result.shape + leaf.shape.

    Many rows at once, by replaying one backward pass over a batch of unit cotangents: in blocks of so many that all
    arrays of one block take 64 megabytes at most, or of one row where that takes more.
    """
    positions_of(fn, argnums)

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
        nested = is_nested(result, inputs)
        rows = _rows(result, inputs, nested, _chosen)
        recorder = RECORDER.get()
        if recorder is not None:
            recorder.differentiated(np.sum(result), rows)
        elif not nested and np.isnan(result.raw).any():
            _set_undefined(rows, result, inputs)
        if not nested:
            finish(inputs)
        return rebuild(structure, iter(rows))

    return differentiated


def hessian(fn: Function, argnums: int = 0) -> Function:
    """The function that returns the second derivative of a scalar ``fn``: for array arguments of shape s an array of
    shape s + s.

    For a structure of arrays, that structure in which each leaf holds the structure again: H[a][b] = d^2 fn / d a d b.
    """
    positions_of(fn, argnums)

    @functools.wraps(fn)
    def differentiated(*args: object, **kwargs: object) -> Tree:
        lifted, inputs, structure = lift(fn, args, argnums)
        cost = run(fn, lifted, kwargs)
        if type(cost) is not Node:
            check_plain(cost)
            finish(inputs)
            return rebuild(
                structure,
                iter([rebuild(structure, (np.zeros(x.shape + y.shape, x.dtype) for y in inputs)) for x in inputs]),
            )
        check_cost(cost)
        nested = is_nested(cost, inputs)
        loss, drawn = expanded(cost, None if nested else 2, floor_of(inputs))
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
            finish(inputs)
        return rebuild(structure, iter(rows))

    return differentiated


def hvp(fn: Function, argnums: Argnums = 0) -> Function:
    """The function (*args, v) -> H v of a scalar ``fn``, with v and the result in the structure of the arguments
    ``argnums``.

    One backward pass through the gradient of <grad fn, v>: the Hessian is never formed.
    """
    positions_of(fn, argnums)

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
        nested = is_nested(cost, inputs) or any(type(v) is Node for v in directions)
        loss, drawn = expanded(cost, None if nested else 2, floor_of(inputs))
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
            finish(inputs)
        return rebuild(structure, iter(paired(found, drawn if nested else [], directions)))

    return product


def _require_any(inputs: list[Node], who: str) -> None:
    if not inputs:
        raise ScgValueError(
            f"{who} has nothing to differentiate by: the arguments argnums hold no array; pass some, or choose others"
            f" by argnums ({here()})"
        )


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


def _rows(result: Node, inputs: list[Node], nested: bool, of: Callable[..., list[Value]]) -> list[Value]:
    """The rows of a Jacobian, by one of the two ways below, with limits in place of NaN."""
    rows = of(result, inputs, nested)
    if any([type(row) is Node for row in rows]):
        return rows
    again = lambda ys, xs: of(ys[0], xs, False)
    rows = limit(rows, again, [result], inputs)
    tied = depends_on_shares(result, _weights(result), floor_of(inputs))
    if tied:
        return confirmed(rows, again, [result], inputs)
    return beside(rows, again, [result], inputs) if rests_beside(result, inputs) else rows


def _chosen(result: Node, inputs: list[Node], nested: bool) -> list[Value]:
    """Each element is a cost of its own where it depends on samples; else all rows at once."""
    graph = nested or RECORDER.get() is not None
    result = settled(result)
    if draws([result]):
        each, drawn = [], {}
        for y in np.ravel(result):
            loss, more = expanded(y, None if nested else 1, floor_of(inputs), graph)
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
        values = {seed: unit.reshape(len(rows), *result.shape)}
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # as in the pass that is replayed
            parts.append(replay(moving, values, batched=[seed], create_graph=graph))
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
