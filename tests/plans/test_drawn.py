"""Law 7 over drawn programs and drawn stochastic graphs: the compiled function returns what the plain one returns, from
the same draws."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import scg
from scg.plans.passes import PASSES
from scg.testing import graphs, programs
from scg.testing.strategies.families import ENDLESS, FINITE
from tests.support.compiled import is_kept
from tests.support.drawn import drawn


def drawn_program(program):
    plain = scg.value_and_grad(program, program.argnums)
    is_kept(plain, scg.compile(plain), program.args, 2**12)


def drawn_graph(graph):
    plain = scg.value_and_grad(graph.program, graph.program.argnums)
    is_kept(plain, scg.compile(plain), graph.program.args, 2**12, rngs=True)


@drawn(120)
@given(programs())
def test_programs(program):
    drawn_program(program)


@drawn(60)
@given(programs(dtypes=(np.float32, np.float64)))
def test_programs_of_mixed_precision(program):
    drawn_program(program)


@drawn(60)
@given(programs(max_statements=6), st.sampled_from(sorted(PASSES)))
def test_programs_without_a_pass(program, name):
    plain = scg.value_and_grad(program, program.argnums)
    is_kept(plain, scg.compile(plain, without=name), program.args, 2**12)


@drawn(60)
@given(graphs())
def test_finite_graphs(graph):
    drawn_graph(graph)


@pytest.mark.parametrize("family", FINITE + ENDLESS, ids=lambda family: f"{family.text} {family.k or ''}")
def test_samples_of_every_family_are_planned(family):
    """By the score function, and where nobody differentiates by the parameters: neither is refused."""
    estimator = scg.Reparameterized() if family.moving else scg.ScoreFunction()

    def loss(x, y, rng):
        distribution = eval(family.of("x"), {"dist": scg.distributions, "scg": scg, "np": np, "x": x})
        return np.sum(y * scg.sample(distribution, estimator, rng=rng))

    args = np.full((family.k,) if family.k else (2,) if "Independent" in family.text else (), 0.3), np.float64(1.5)
    for argnums in (0, 1):
        plain = scg.value_and_grad(loss, argnums)
        is_kept(plain, scg.compile(plain), args, 2**12, rngs=True)


@drawn(40)
@given(graphs(finite=False, branches=True))
def test_graphs_of_all_distributions_with_branches(graph):
    drawn_graph(graph)


@drawn(20)
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
@drawn(3000)
@given(programs())
def test_many_programs(program):
    drawn_program(program)


@pytest.mark.long
@drawn(2000)
@given(graphs(finite=False, branches=True))
def test_many_graphs(graph):
    drawn_graph(graph)
