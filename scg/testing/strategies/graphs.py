"""Whole stochastic graphs, drawn as programs: chains, branches and diamonds of samples, and costs that are sums of
parts of them."""

import math
from collections.abc import Sequence
from typing import final

import numpy as np
from hypothesis import reject
from hypothesis import strategies as st
from numpy.typing import DTypeLike

from scg.core.aliases import Function
from scg.core.options import integer
from scg.errors import ScgError, ScgTypeError, here
from scg.stochastic.graph import Graph
from scg.testing.program import Program
from scg.testing.strategies.families import ENDLESS, FINITE, accepted
from scg.testing.strategies.lines import Expr, Shape, Writer, cost_lines, nested_lines, sample_line


@final
class DrawnGraph(Graph):
    """A graph, and ``program``, the text that makes it: as which it prints."""

    def __init__(self, program: Program):
        traced = program.graph()
        super().__init__(traced.cost, traced.parameters, again=traced.again)
        self.program = program

    def __repr__(self) -> str:
        return repr(self.program)

    def _repr_pretty_(self, printer: object, cycle: bool) -> None:
        self.program._repr_pretty_(printer, cycle)

    def __reduce__(self) -> tuple[object, ...]:
        return DrawnGraph, (self.program,)


def graphs(
    *,
    nodes: int = 3,
    outcomes: int = 64,
    finite: bool = True,
    branches: bool = False,
    order: int = 1,
    estimators: Sequence[str] | None = None,
    dtype: DTypeLike = np.float64,
    nested: bool = False,
) -> st.SearchStrategy[DrawnGraph]:
    """Stochastic graphs, each with valid estimators, unbiased where none are named, bound to its samples.

        @given(scg.testing.graphs())
        def test_surrogate_preserves_value(graph):
            assert graph.surrogate().value == graph.cost.value

    From one to ``nodes`` draws, some with parameters that depend on earlier ones, with batch and sample axes, and a
    cost of a few parts: sums, means and products of slices, picks, reductions and contractions of samples and
    parameters, which are nested dicts and lists. Not every sample need reach the cost. ``finite``: of finitely many
    values, at most ``outcomes`` jointly; else continuous and endless distributions come as well. ``branches``: the cost
    may have an ``if`` on a sample, at which a replay raises GuardError. ``order`` 2: estimators that have second
    derivatives. ``estimators``: texts as of ``scg.testing.strategies.bindings.candidates()`` to draw from. ``dtype`` of
    parameters and constants. ``nested``: the cost is made of the value and of the gradient of a cost with samples of
    its own, of which some are made before: sums, products, and what is not linear in them.

    A drawn graph is a ``Graph`` whose ``program`` (a ``Program``) makes it again; it prints as that script. Seeds are
    part of what is drawn, so a verdict on it is a function of the graph and of a seed.
    """
    nodes, outcomes, order = integer("nodes", nodes, 1), integer("outcomes", outcomes, 2), integer("order", order, 1)
    if np.dtype(dtype).kind != "f":
        raise ScgTypeError(f"graphs needs a floating-point dtype, got {np.dtype(dtype)} ({here()})")
    texts = None if estimators is None else tuple(estimators)
    for family in FINITE if finite else FINITE + ENDLESS:
        accepted(family, texts, order)  # now, as Hypothesis takes the time of a draw
    return _graphs(nodes, outcomes, finite, branches, order, texts, np.dtype(dtype), nested)


_VALUES = (0.5, -0.5, 0.25, 1.0, -1.0, 0.75, -0.25, 0.0, 1.5)
# of the parameters: how to build one, and the paths and shapes of leaves
_STRUCTURES: tuple[tuple[Function, tuple[tuple[str, Shape], ...]], ...] = (
    (lambda a: a[0], (("theta", ()),)),
    (lambda a: a[0], (("theta", (2,)),)),
    (lambda a: a[0], (("theta", (3,)),)),
    (lambda a: {"w": a[0], "b": a[1]}, (("theta['w']", (2,)), ("theta['b']", ()))),
    (lambda a: a[0], (("theta", (1,)),)),
    (lambda a: a[0], (("theta", (2, 2)),)),
    (
        lambda a: {"layer": {"w": a[0], "b": a[1]}, "rest": [a[2], a[3]]},
        (
            ("theta['layer']['w']", (2, 1)),
            ("theta['layer']['b']", (2,)),
            ("theta['rest'][0]", ()),
            ("theta['rest'][1]", (3,)),
        ),
    ),
)


@st.composite
def _graphs(
    draw: st.DrawFn,
    nodes: int,
    outcomes: int,
    finite: bool,
    branches: bool,
    order: int,
    texts: tuple[str, ...] | None,
    dtype: np.dtype,
    nested: bool,
) -> DrawnGraph:
    w = Writer(draw, dtype, outcomes)
    build, places = w.of(_STRUCTURES)
    arrays = [
        np.array(draw(st.lists(st.sampled_from(_VALUES), min_size=n, max_size=n)), dtype).reshape(s)
        for _, s in places
        if (n := math.prod(s)) >= 0
    ]
    w.leaves = [Expr(path, shape) for path, shape in places]
    plain, bound = [], []
    for name in "abcdefgh"[: w.of((1, *(2 * tuple(range(2, nodes + 1)))))]:
        if finite and w.drawn and w.budget < 2:  # another node would have two values at least
            break
        text, family = sample_line(w, name, finite)
        plain.append("scg.Reparameterized()" if family.moving else "scg.ScoreFunction()")
        groups = [group for group in accepted(family, texts, order) if group]
        bound.append(w.of(w.of(groups)) if groups else plain[-1])
        w.lines.append(text)
    costs = cost_lines(w, branches, finite)
    seed = draw(st.integers(0, 99))
    before = w.draw(st.integers(0, len(w.lines))) if nested else 0
    outer = nested_lines(w, before) if nested else []

    def program(chosen: list[str]) -> Program:
        lines = [
            line.replace("ESTIMATOR", chosen.pop(0), 1) if "ESTIMATOR" in line else line for line in [*w.lines, *costs]
        ]
        if nested:
            inside = ["def inner(theta):", *[f"    {line}" for line in lines[before:]]]
            lines = [*lines[:before], *inside, *outer]
        source = "def cost(theta, rng):\n" + "".join([f"    {line}\n" for line in lines])
        return Program(source, {"theta": build(arrays)}, seed=seed)

    # one of its own, as some estimators learn from being asked
    if bound == plain or not _works(program(list(bound)), order):
        bound = plain
    try:
        return DrawnGraph(program(list(bound)))
    except _OVERFLOWS:  # a sample of a distribution with long tails, in the exponent of a parameter
        reject()


# of distributions, of Python, of NumPy, and of its generators
_OVERFLOWS = (ScgError, ArithmeticError, RuntimeWarning, ValueError)


def _works(program: Program, order: int) -> bool:
    try:
        DrawnGraph(program).surrogate(1 if order == 1 else None)
    except _OVERFLOWS:
        return False
    return True
