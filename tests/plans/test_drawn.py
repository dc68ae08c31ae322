"""Law 7 over drawn programs and drawn stochastic graphs: the compiled function returns what the plain one returns, from
the same draws."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import scg
from scg.core.tree import map_leaves
from scg.errors import PlanError, ScgError
from scg.plans.passes import PASSES
from scg.testing import graphs, programs
from tests.plans.test_catalogue import agree

MOVES = (0.0, 1e-3, -2e-3)


def moved(args, by):
    return tuple(
        [
            map_leaves(
                lambda x: (x + by).astype(x.dtype) if isinstance(x, np.ndarray) and x.dtype.kind == "f" else x, arg
            )
            for arg in args
        ]
    )


def outcome(fn, *args, **kwargs):
    """What a call returns, or its error."""
    try:
        with np.errstate(all="ignore"):
            return fn(*args, **kwargs)
    except (ScgError, ArithmeticError, ValueError) as error:  # the last of NumPy's generators, where a rate overflows
        return error


def is_kept(plain, compiled, args, ulps, rngs=None, least=0.0):
    for k, by in enumerate(MOVES):
        first, second = ({"rng": np.random.default_rng(k)} if rngs else {} for _ in range(2))
        found = outcome(compiled, *moved(args, by), **second)
        if isinstance(found, PlanError) and "learns" in str(found):
            return  # what it learned would be in the next call's result
        expected = outcome(plain, *moved(args, by), **first)
        if isinstance(expected, Exception) or isinstance(found, Exception):
            assert type(found) is type(expected), f"call {k}: {found!r}, expected {expected!r}"
            return
        agree(found, expected, f"call {k}", ulps, least)
        if rngs:
            assert first["rng"].bit_generator.state == second["rng"].bit_generator.state


def drawn_program(program):
    plain = scg.value_and_grad(program, program.argnums)
    is_kept(plain, scg.compile(plain), program.args, 2**12)


def drawn_graph(graph):
    plain = scg.value_and_grad(graph.program, graph.program.argnums)
    is_kept(plain, scg.compile(plain), graph.program.args, 2**12, rngs=True)


@settings(max_examples=120)
@given(programs())
def test_programs(program):
    drawn_program(program)


@settings(max_examples=60)
@given(programs(dtypes=(np.float32, np.float64)))
def test_programs_of_mixed_precision(program):
    drawn_program(program)


@settings(max_examples=60)
@given(programs(max_statements=6), st.sampled_from(sorted(PASSES)))
def test_programs_without_a_pass(program, name):
    plain = scg.value_and_grad(program, program.argnums)
    is_kept(plain, scg.compile(plain, without=name), program.args, 2**12)


@settings(max_examples=60)
@given(graphs())
def test_finite_graphs(graph):
    drawn_graph(graph)


@settings(max_examples=40)
@given(graphs(finite=False, branches=True))
def test_graphs_of_all_distributions_with_branches(graph):
    drawn_graph(graph)


@settings(max_examples=20)
@given(graphs(nodes=2, order=2))
def test_second_derivatives(graph):
    def slope(*args, rng):
        return sum(
            [
                np.sum(leaf)
                for _, leaf in scg.tree.leaves(scg.grad(graph.program, graph.program.argnums)(*args, rng=rng))
            ]
        )

    plain = scg.grad(slope, graph.program.argnums)
    is_kept(plain, scg.compile(plain), graph.program.args, 2**14, rngs=True)


@pytest.mark.long
@settings(max_examples=3000)
@given(programs())
def test_many_programs(program):
    drawn_program(program)


@pytest.mark.long
@settings(max_examples=2000)
@given(graphs(finite=False, branches=True))
def test_many_graphs(graph):
    drawn_graph(graph)
