"""One run of a function that is recorded: its arrays are nodes, and what a plan could not do again is refused."""

from collections.abc import Sequence
from itertools import zip_longest
from typing import NamedTuple

import numpy as np

from scg.core.aliases import Function, Keywords, Operand, Tree
from scg.core.ambient import collect_guards
from scg.core.node import Node, record
from scg.core.tree import leaves, rebuild
from scg.errors import PlanError, here
from scg.plans.given import INPUT
from scg.plans.recording import Recorder, drew_elsewhere, recording
from scg.plans.signature import is_leaf_array
from scg.plans.witness import Witness, watching


class Run(NamedTuple):
    """A run that was recorded: ``inputs``, its ``result`` in terms of nodes, and the id of the first node."""

    recorder: Recorder
    inputs: Sequence[Node]
    result: Tree
    floor: int


def run_recorded(recorder: Recorder, witness: Witness, fn: Function, args: tuple[object, ...], kwargs: Keywords) -> Run:
    """``fn`` with its arrays as nodes."""
    inputs: list[Node] = []

    def lifted(path: str, leaf: object) -> Operand:
        if isinstance(leaf, np.random.Generator):
            return next(p for p in recorder.proxies if p.real is leaf)
        if not is_leaf_array(leaf):
            return leaf
        inputs.append(record(INPUT, (), {"name": path}, leaf if isinstance(leaf, np.generic) else np.asarray(leaf)))
        recorder.inputs.append(inputs[-1].raw)
        return inputs[-1]

    def tree(name: str, x: object) -> Tree:
        return rebuild(x, iter([lifted(name + path, leaf) for path, leaf in leaves(x)]))

    with recording(recorder), collect_guards():
        floor = record(INPUT, (), {}, np.zeros(())).id
        new = [tree(f"argument {k}", x) for k, x in enumerate(args)]
        named = {name: tree(name, x) for name, x in kwargs.items()}
        given = list(leaves([new, named]))
        drew = drew_elsewhere(fn, [args, kwargs], [p.real for p in recorder.proxies])
        try:
            with watching(witness):
                result = fn(*new, **named)
        finally:
            recorder.undo()
        refused = recorder.later_refusal or witness.refused
        if refused is None and drew():
            refused = (
                (
                    "it draws from a generator that is no argument of the compiled function, and a plan would repeat"
                    " its numbers: pass rng as an argument"
                ),
                here(),
            )
        if refused is None and witness.raised is not None:
            refused = "it catches an error that scg has raised, as it may not be for other values", witness.raised
        if refused is not None:
            raise PlanError(
                f"{called(fn)} cannot be compiled: {refused[0]} ({refused[1]}); scg.compile(fn, fallback=True) runs it"
                " plainly"
            )
        for before, after in zip_longest(given, leaves([new, named])):
            if before is None or after is None or before[0] != after[0] or before[1] is not after[1]:
                path = (before or after)[0][3:]
                raise PlanError(
                    f"{called(fn)} cannot be compiled: it puts another value into its argument {path}, which a plan"
                    " would not do: return the new value, or change arrays by optimizer.step(gradient) of scg.optim"
                    f" ({here()})"
                )
        for path, leaf in leaves(result):
            if (
                type(leaf) is Node
                and type(leaf.raw) is not tuple
                or isinstance(leaf, (np.ndarray, np.generic, int, float, complex, str))
            ):
                continue
            raise PlanError(
                f"{called(fn)} cannot be compiled: it returns {type(leaf).__name__} at result{path}, and a plan makes"
                f" arrays ({here()})"
            )
    return Run(recorder, inputs, result, floor)


def called(fn: Function) -> str:
    """How a function is called in messages."""
    return getattr(fn, "__name__", type(fn).__name__)
