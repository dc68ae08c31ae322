"""Running a recorded subgraph again, with nodes replaced and, on any of them, a leading replicate axis."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from scg.core.aliases import Function, Operands, Result, Statics, Tree
from scg.core.ambient import RECORDER, Guard, is_tainted, settled
from scg.core.ancestry import ancestors
from scg.core.axes import elementwise
from scg.core.node import Node, record
from scg.core.operands import plain, raise_named
from scg.core.primitive import Primitive, smooth_primitive
from scg.core.tree import leaves, rebuild
from scg.errors import EstimatorError, GuardError, ScgTypeError, ScgValueError, here


def replay(
    outputs: Tree,
    replacements: Mapping[Node, Result],
    batched: Collection[Node] = (),
    create_graph: bool = False,
    guards: Sequence[Guard] = (),
) -> Result:
    """The values of ``outputs`` (a Node or a structure of Nodes) with other values in place of some of the nodes that
    led to them.

    Nodes listed in ``batched`` (all of the replaced ones, or some) are given values with one more axis in front, of one
    length R for all; every output then has that axis too, and its entry r is what a replay with the r-th entries gives.
    Primitives take the axis as their axis maps say; one without a map is run R times. What does not depend on a
    replaced node keeps its recorded value. With ``create_graph``, or where a replacement is a Node, the results are
    Nodes that can be differentiated.

    Every ``if`` that stood before an output was made is checked. An output that is older than the ``if`` that chose it
    cannot know of it: ``guards`` are further ones to check, from ``collect_guards`` around the whole function.

    Raises ScgValueError where a replacement has another shape than its node, GuardError where an ``if`` on a node comes
    out otherwise.
    """
    roots = [leaf for _, leaf in leaves(outputs)]
    if not isinstance(replacements, Mapping):
        raise ScgTypeError(
            f"replay needs a mapping of nodes to their new values, got {type(replacements).__name__}: write {{node:"
            f" value}} ({here()})"
        )
    for root in roots:
        if type(root) is not Node:
            raise ScgTypeError(f"replay needs nodes of a graph as outputs, got {type(root).__name__} ({here()})")
    create_graph = create_graph or RECORDER.get() is not None  # a plan is made of nodes
    if not replacements and not batched:
        return outputs if create_graph else rebuild(outputs, iter([root.value for root in roots]))
    table, leading, size = replaced(replacements, batched)
    create_graph = create_graph or any(type(value) is Node for value in table.values())
    order = ancestors([*roots, *[guard.node for guard in guards]], min(table), guards=True)
    found = rerun(outputs, order, table, leading, size, create_graph, looked=[guard.node for guard in guards])
    for guard in guards:
        _check(guard, table, leading)
    return found


def rerun(
    outputs: Tree,
    order: list[Node],
    table: dict[int, Result],
    leading: set[int],
    size: int,
    create_graph: bool,
    visit: Function | None = None,
    same: set[int] | None = None,
    looked: Sequence[Node] = (),
) -> Result:
    """``replay`` once it is known what is replaced: ``table`` holds new values by id, ``leading`` the ids that have a
    replicate axis of ``size``.

    ``visit(node)``, where given, is asked first: it returns NotImplemented, or has put a value into ``table``. An array
    leaves the table with its last reader, so that memory holds only what is still to be read, and what an ``if`` that
    comes later ``looked`` at.

    With ``create_graph`` a node behind an ``if`` that looks at something new is recorded again, so that it depends on
    that, also where its value stays: ``same`` collects the ids of these. A sample, or noise, is not drawn again for it:
    the new node is the random variable that the old one is.
    """
    passed: set[int] = set()
    guards: dict[int, Guard] = {}
    tainted: dict[int, bool] = {}
    latest: dict[int, Guard | None] = {}  # by id of a node that is recorded again, the last `if` that it stands behind
    same = set() if same is None else same
    roots = [root for _, root in leaves(outputs)]
    dead, hollow = ({}, set()) if create_graph else last_read([*roots, *looked], order)
    for node in order:
        if node.guard is not None:  # before the node itself, which may not even exist on the other branch
            for guard in reversed(list(node.guard.unseen(passed))):
                _check(guard, table, leading)
        if node.id not in table:
            again = [o.id for o in node.operands if type(o) is Node and o.id in table]
            if visit is not None and visit(node) is not NotImplemented:
                pass
            elif create_graph and same.issuperset(again) and (again or _is_behind(node, table, tainted)):
                table[node.id] = _as_before(node, table)
                same.add(node.id)
                latest[node.id] = max([latest[i] for i in again if i in latest], default=None, key=_stamp)
                if node.primitive.random:  # of the old operands, which know nothing of an `if` behind which its own are
                    table[node.id].guard = latest[node.id]
            elif again:
                table[node.id] = _run_again(node, table, leading, size, create_graph, node.id in hollow)
            if node.guard is not None:
                _carry(node, node.guard, table, guards)
                latest[node.id] = guards.get(node.guard.stamp)
        for i in dead.get(node.id, ()):
            table.pop(i, None)

    def result(root: Node) -> Result:
        value = table.get(root.id, root if create_graph else root.value)
        if leading and root.id not in leading:
            return np.broadcast_to(value, (size, *root.shape))
        return value

    return rebuild(outputs, map(result, roots))


def _as_before(node: Node, table: dict[int, Result]) -> Node:
    """A node of the value that it had, of the operands that ``table`` has."""
    if node.primitive.random:
        return shared(node)  # type: ignore[no-any-return]
    operands = tuple([table.get(o.id, o) if type(o) is Node else o for o in node.operands])
    return record(node.primitive, operands, node.statics, node.raw)


def _run_again(
    node: Node, table: dict[int, Result], leading: set[int], size: int, create_graph: bool, hollow: bool
) -> Result:
    """The value of a node of the operands that ``table`` has; where it is ``hollow``, of which nobody looks at more
    than the shape, zeros.

    node (3,) = x (3,) * y (3,), of which ``table`` has x alone, as (R, 3) with the id in ``leading``: the flags are
    (True, False), the value is (R, 3), and the node is in ``leading``, too.
    """
    operands = node.operands
    arguments = tuple([table.get(o.id, o if create_graph else o.raw) if type(o) is Node else o for o in operands])
    flags = [type(o) is Node and o.id in leading for o in operands]
    wide = True in flags
    if wide:
        leading.add(node.id)
    if hollow:
        return np.broadcast_to(np.zeros((), node.dtype), (size, *node.shape) if wide else node.shape)
    if wide and not size:  # no replicates: nothing to run, but the shapes are known
        return _none_of(node.raw)
    return run(node.primitive, arguments, flags, node.statics, size)


def _stamp(guard: Guard | None) -> int:
    return -1 if guard is None else guard.stamp


def _is_behind(node: Node, table: dict[int, Result], tainted: dict[int, bool]) -> bool:
    return node.guard is not None and is_tainted(node.guard, table, tainted)


def live_bytes(outputs: Sequence[Node], order: Sequence[Node]) -> int:
    """The most bytes that arrays of one replicate take at a time, where all nodes of ``order`` that depend on a random
    one are run again for ``outputs``: an array counts until its last reader is done."""
    (dead, hollow), sizes = last_read(outputs, order), dict[int, int]()
    now = most = 0
    for node in order:
        if node.primitive.random or any([type(o) is Node and o.id in sizes for o in node.operands]):
            arrays = node.raw if type(node.raw) is tuple else () if node.id in hollow else (node.raw,)
            sizes[node.id] = sum([v.nbytes for v in arrays])
            now += sizes[node.id]
            most = max(most, now)
        now -= sum([sizes.get(i, 0) for i in dead.get(node.id, ())])
    return most


def last_read(outputs: Sequence[Node], order: Sequence[Node]) -> tuple[dict[int, list[int]], set[int]]:
    """By id of a node of ``order`` (growing ids), the ids of those that nothing reads after it: neither another node,
    nor an ``if``, nor whoever wants the ``outputs``. And the ids of those of which nobody reads more than the shape."""
    passed: set[int] = set()
    valued = {node.id for node in outputs}
    valued.update([g.node.id for node in order if node.guard is not None for g in node.guard.unseen(passed)])
    read, found, hollow = set(valued), dict[int, list[int]](), set[int]()
    for node in reversed(order):
        primitive = node.primitive
        if node.id not in valued and not primitive.random and type(node.raw) is not tuple:
            hollow.add(node.id)
        looks = 0 if node.id in hollow or primitive.constant else 1 if primitive.same else len(node.operands)
        for k, o in enumerate(node.operands):
            if type(o) is Node:
                if k < looks:
                    valued.add(o.id)
                if o.id not in read:
                    read.add(o.id)
                    found.setdefault(node.id, []).append(o.id)
    return found, hollow


shared = smooth_primitive(lambda x: x, elementwise, lambda g, out, x: g, name="shared")
"""A sample or noise, as it is met behind an ``if`` that looks at something new: the same random variable."""


def is_shared(node: Node) -> bool:
    """Whether a node is a sample or noise as it is met behind an ``if``."""
    return node.primitive is shared


def _carry(node: Node, own: Guard, table: dict[int, Result], guards: dict[int, Guard]) -> None:
    """Let the new node depend on the same ``if`` as the old one, which looks at the new value now."""
    if type(table.get(node.id)) is Node:
        for guard in reversed(list(own.unseen(set(guards)))):
            before = guard.before and guards[guard.before.stamp]
            guards[guard.stamp] = Guard(
                _node(table.get(guard.node.id), guard.node),
                guard.outcome,
                before,
                guard.code,
                guard.instruction,
                guard.reads,
            )
        table[node.id].guard = guards[own.stamp]


def _node(new: Result, old: Node) -> Node:
    return new if type(new) is Node else old


def run(primitive: Primitive, arguments: Operands, batched: list[bool], statics: Statics, size: int) -> Result:
    """A primitive on arguments of which some have a leading replicate axis: in one call where its axis map tells how,
    else one by one."""
    try:
        if not any(batched):
            return (primitive.again or primitive)(*arguments, **statics)
        call = None if primitive.axes is None else primitive.axes.lead(arguments, batched, statics)
        if call is not None:
            return primitive(*call[0], **call[1])
        each = [
            primitive(*[a[r] if b else a for a, b in zip(arguments, batched, strict=True)], **statics)
            for r in range(size)
        ]
        several = isinstance(each[0].raw if type(each[0]) is Node else each[0], tuple)
        return _stacked(*each) if several else np.stack(each)
    except Exception as error:
        raise_named(error, primitive, arguments, statics)


_stacked = smooth_primitive(
    lambda *runs: tuple([np.stack(column) for column in zip(*runs, strict=True)]),
    every=lambda g, r, out, *runs: tuple([c[r] for c in g]),
    name="stacked",
)
"""The results of each run of a primitive that has several, along a replicate axis."""


def replaced(replacements: Mapping[Node, Result], batched: Collection[Node]) -> tuple[dict[int, Result], set[int], int]:
    """Checked replacements by id, the ids of those with a replicate axis, and its length."""
    leading = {node.id for node in batched}
    missing = [node for node in batched if node not in replacements]
    if missing:
        raise ScgValueError(f"replay: {missing[0]!r} is listed as batched but has no replacement ({here()})")
    table: dict[int, Result] = {}
    size: int | None = None
    for node, value in replacements.items():
        if type(node) is not Node:
            raise ScgTypeError(f"replay replaces nodes, got {type(node).__name__} ({here()})")
        if type(value) is not Node:
            value = _cast(value, node)
        shape = value.shape[1:] if node.id in leading else value.shape
        if shape != node.shape or node.id in leading and value.ndim == 0:
            axis = "a replicate axis and then " if node.id in leading else ""
            raise ScgValueError(
                f"replay: the replacement for {node!r} needs {axis}shape {node.shape}, got {value.shape} ({here()})"
            )
        if node.id in leading:
            if size is not None and size != value.shape[0]:
                raise ScgValueError(f"replay: replicate axes of lengths {size} and {value.shape[0]} ({here()})")
            size = value.shape[0]
        table[node.id] = value
    return table, leading, size or 0


def _none_of(value: Result) -> Result:
    return tuple(map(_none_of, value)) if isinstance(value, tuple) else np.zeros((0, *value.shape), value.dtype)


def _cast(value: Result, node: Node) -> Result:
    """``value`` in the node's dtype, if nothing but precision is lost by that."""
    if type(value) is np.ndarray and value.dtype == node.dtype:
        return value
    try:
        array = np.asarray(plain(value, f"the replacement for {node!r}"))
        cast = (
            array
            if array.dtype == node.dtype
            else array.astype(node.dtype, casting="unsafe" if array.dtype.kind in "biuf" else "same_kind")
        )
    except (TypeError, ValueError) as error:
        raise ScgTypeError(
            f"replay: the replacement for {node!r} needs an array of {node.dtype}, got {type(value).__name__}: {error}"
            f" ({here()})"
        ) from None
    if not np.can_cast(array.dtype, node.dtype, "same_kind") and not np.array_equal(cast, array):
        raise ScgTypeError(
            f"replay: the replacement for {node!r} needs values of {node.dtype}, got {array.dtype} ({here()})"
        )
    return cast


def _check(guard: Guard, table: dict[int, Result], leading: set[int]) -> None:
    if guard.node.id not in table:
        return
    value = table[guard.node.id]
    if settled(lambda value, outcome=guard.outcome: _comes_out(value, outcome).all(), value):
        return
    if guard.reads:
        raise EstimatorError(f"an estimator's formula takes a number by {guard.taken} ({here()})")
    error = GuardError(
        f"the `if` on {guard.node!r} at {guard.line} came out {guard.outcome} when the graph was recorded, and"
        f" otherwise in this replay: write the choice with np.where, or trace the function again for these values;"
        " for a gradient, scg.ScoreFunction() looks at the cost only where it was drawn, and takes an"
        f" `if` ({here()})"
    )
    if guard.node.id in leading:
        found = _comes_out(getattr(value, "raw", value), guard.outcome)
        error.agrees = np.all(found, axis=tuple(range(1, found.ndim)))
    raise error


def _comes_out(value: Result, outcome: bool) -> np.ndarray:
    return np.asarray(value, dtype=bool) == outcome
