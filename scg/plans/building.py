"""From a recorded run to a plan: its program, made shorter by the passes, and a place for each result."""

import itertools
from collections.abc import Sequence

import numpy as np

from scg.core.aliases import Operand
from scg.core.ancestry import ancestors
from scg.core.node import Node
from scg.core.tree import leaves, rebuild
from scg.core.undefined import may_hide
from scg.plans import passes
from scg.plans.buffers import assign, origin
from scg.plans.checks import is_there
from scg.plans.kernels import may_differ
from scg.plans.plan import Ending, Output, Plan, is_foreign
from scg.plans.program import Op, Operations, from_recording
from scg.plans.python_numbers import is_python_number
from scg.plans.recording import Choice, Later, Recorder
from scg.plans.running import Run
from scg.plans.steps import SMALL


def build(run: Run, options: "passes.Options") -> Plan:
    """The plan of a recorded run."""
    recorder, results = run.recorder, [leaf for _, leaf in leaves(run.result)]
    given = [[leaf for tree in later.trees for _, leaf in leaves(tree)] for later in recorder.later_calls]
    program = _program(run, results, given)
    report = passes.run(program, options)
    written = _written(program.outputs[: len(results)], len(run.inputs))
    outputs = _outputs(results, program.outputs, written, run)
    rest = iter(program.outputs[len(results) :])
    endings = [
        _ending(later, list(itertools.islice(rest, len(values))))
        for later, values in zip(recorder.later_calls, given, strict=True)
    ]
    assignment = assign(program, set(written))
    for op in program.ops:
        if op.dtype is not None:
            op.value = None  # what was computed is not kept
    return Plan(
        program=program,
        report=report,
        assignment=assignment,
        results=written,
        slots=len(run.inputs) + len(written),
        structure=rebuild(run.result, itertools.count()),
        outputs=outputs,
        endings=endings,
        locks=sorted({x.lock for x in recorder.later_calls if x.lock is not None}, key=lambda lock: id(lock.__self__)),
        at_once=_is_at_once(outputs, endings),
    )


def _program(run: Run, results: Sequence[Operand], given: Sequence[Sequence[Operand]]) -> Operations:
    """The program of the results, of what is ``given`` to later calls, and of what must be finite."""
    recorder, trailing = run.recorder, [leaf for values in given for leaf in values]
    seen = [*recorder.watched, *[cost for cost in recorder.costs if may_hide(ancestors([cost]))]]
    roots = [x for x in [*results, *trailing, *seen] if type(x) is Node]
    taken = {node.id for node in ancestors(roots, run.floor)} | recorder.draws.keys()
    recorder.choices += [
        Choice(is_there, (node,), True, node.line)
        for node in recorder.made
        if node.id not in taken and not node.primitive.random and may_differ(node)  # a sample that is held stays
    ]
    watched = [node for node in {node.id: node for node in seen}.values() if node.id >= run.floor]
    program = from_recording(recorder, run.inputs, [*results, *trailing, *watched], run.floor)
    start = program.kept = len(results) + len(trailing)
    program.checked = set(range(start, len(program.outputs)))
    start = len(results)
    for later, values in zip(recorder.later_calls, given, strict=True):
        if later.now:
            program.checked |= set(range(start, start + len(values)))
            program.stepped += sum([x.size for x in values])
        start += len(values)
    return program


def _written(values: Sequence[object], start: int) -> dict[int, tuple[int, Op]]:
    """By id the operations that are written into arrays of the caller, with slots from ``start`` on: large results that
    are nobody's view."""
    large = {
        id(value): value
        for value in values
        if type(value) is Op and value.nbytes > SMALL and not value.is_given and origin(value) is value
    }
    return {i: (start + k, op) for k, (i, op) in enumerate(large.items())}


def _outputs(
    results: Sequence[object], values: Sequence[object], written: dict[int, tuple[int, Op]], run: Run
) -> list[Output]:
    """How each result is returned."""
    position = {node.id: k for k, node in enumerate(run.inputs)}
    free = {i: slot for i, (slot, _) in written.items()}  # the same result twice: two arrays
    return [
        Output(value, None, position[node.id], False)
        if type(node) is Node and node.id in position
        else Output(
            value if type(value) is Op or type(node) is not Node else np.asarray(value),
            free.pop(id(value), None),
            None,
            _is_scalar(node, run.recorder),
            is_python_number(node),
        )
        for node, value in zip(results, values, strict=False)
    ]


def _is_scalar(node: object, recorder: Recorder) -> bool:
    """Whether a plain call makes a NumPy scalar of it, and not an array without axes."""
    if type(node) is not Node or node.shape != () or node.id in recorder.arrays:
        return False
    return node.id in recorder.scalars or isinstance(node.raw, np.generic)


def _ending(later: Later, values: list[object]) -> Ending:
    trees = tuple([rebuild(tree, itertools.count()) for tree in later.trees])
    return Ending(later.call, later.now, later.changes, trees, values)


def _is_at_once(outputs: Sequence[Output], endings: Sequence[Ending]) -> bool:
    """Whether the first ending may begin where the steps end: nobody reads what it changes."""
    if not endings or not endings[0].now:
        return False
    read = [*[output.value for output in outputs], *[v for ending in endings if ending.now for v in ending.values]]
    return not any(map(is_foreign, read))
