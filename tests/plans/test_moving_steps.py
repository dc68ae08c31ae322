"""Steps that move with the parameters and with a pathwise draw: a plan refuses where a plain run does, whatever
parameters it was recorded with."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import scg
from scg import distributions as dist
from scg.core.tree import leaves
from scg.errors import EstimatorError
from tests.support.compiled import agree, both, outcome, plans_of
from tests.support.drawn import drawn

PATH, SCORE = scg.Reparameterized(), scg.ScoreFunction()

SAMPLES = {
    "uniform": lambda t, rng, n: scg.sample(dist.Uniform(t, t + 2.0), PATH, rng=rng, shape=n),
    "moving end": lambda t, rng, n: scg.sample(dist.Uniform(-4.0, t + 5.0), PATH, rng=rng, shape=n),
    "exponential": lambda t, rng, n: t + scg.sample(dist.Exponential(2.0), PATH, rng=rng, shape=n),
    "its rate": lambda t, rng, n: scg.sample(dist.Exponential(np.exp(t)), PATH, rng=rng, shape=n) - 0.5,
    "truncated": lambda t, rng, n: scg.sample(dist.TruncatedNormal(0.5, 1.0, t - 1.0, 6.0), PATH, rng=rng, shape=n),
    "beta": lambda t, rng, n: t + 2.0 * scg.sample(dist.Beta(1.5, 2.0), PATH, rng=rng, shape=n),
    "normal": lambda t, rng, n: scg.sample(dist.Normal(t, 1.2), PATH, rng=rng, shape=n),
    "by its score": lambda t, rng, n: t + 2.0 * scg.sample(dist.Beta(1.5, 2.0), SCORE, rng=rng, shape=n),
    "score, moving": lambda t, rng, n: scg.sample(dist.Exponential(np.exp(t)), SCORE, rng=rng, shape=n) - t,
}
LOOKED = {
    "itself": lambda z, t: z,
    "from t": lambda z, t: z - t,
    "half": lambda z, t: 0.5 * z + 1,
    "square": lambda z, t: z * z - 0.25,
    "sum": lambda z, t: np.sum(z),
    "largest": lambda z, t: np.max(z),
    "masked": lambda z, t: z * (t > 0),
}
STEPS = {
    "where": lambda x, z, t, b: np.sum(np.where(x > 0, 0.5 * x + b, x)),
    "hinge": lambda x, z, t, b: np.sum(np.where(x > b, x - b, 0.0)),
    "two sides": lambda x, z, t, b: np.sum(np.where(x > 0, z, b * z)),
    "if": lambda x, z, t, b: np.sum(z) * b if np.sum(x) > 0 else np.sum(z),
    "sign": lambda x, z, t, b: np.sum(np.sign(x) * (z * z + b)),
    "floor": lambda x, z, t, b: np.sum(np.floor(x) * b + z),
    "counted": lambda x, z, t, b: b * np.sum(x > 0) + np.sum(z),
    "sort": lambda x, z, t, b: np.sum(np.sort(np.ravel(z)) * b) + np.sum(x),
    "argmax": lambda x, z, t, b: np.ravel(z)[np.argmax(np.ravel(x))] + b * np.sum(x),
    "pole": lambda x, z, t, b: np.sum(b / x + z),
    "rectified": lambda x, z, t, b: np.sum(np.maximum(x, 0.0) * b + np.abs(z)),
    "between": lambda x, z, t, b: np.sum(np.where(x < 0, 0.0, np.where(x < b, x, b))),
    "masked": lambda x, z, t, b: np.sum(np.where((x > 0) & (b > 0), z + 1, z)),
    "root": lambda x, z, t, b: np.sum(z / np.sqrt(b * b + x * x)),
    "held": lambda x, z, t, b: np.sum(np.where(scg.stop_gradient(x) > 0, z + b, z)),
}


@st.composite
def programs(draw):
    parts = [draw(st.sampled_from(sorted(kinds))) for kinds in (SAMPLES, LOOKED, STEPS)]
    shape = draw(st.sampled_from([(), 3]))
    dtype = draw(st.sampled_from([np.float64, np.float64, np.float32]))
    calls = draw(
        st.lists(
            st.tuples(
                st.sampled_from([0.45, -0.55, 0.0, -1.45, 2.55, -3.05, 0.7]),
                st.sampled_from([0.0, 0.0, 1.0, 0.5, -2.0]),
            ),
            min_size=2,
            max_size=5,
        )
    )
    return parts, shape, dtype, calls


def is_kept(parts, shape, dtype, calls):
    """The outcomes of calls of a compiled gradient are those of plain ones."""
    sample, look, step = (kinds[name] for kinds, name in zip((SAMPLES, LOOKED, STEPS), parts, strict=True))

    def cost(t, b, rng):
        z = sample(t, rng, shape)
        return step(look(z, t), z, t, b)

    plain = scg.value_and_grad(cost, (0, 1))
    compiled = scg.compile(plain, threads=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        for k, call in enumerate(calls):
            args = [np.array(x, dtype) for x in call]
            gave_up = compiled.plainly
            found = outcome(compiled, *args, np.random.default_rng(k))
            expected = outcome(plain, *args, np.random.default_rng(k))
            refused = [isinstance(x, Exception) for x in (found, expected)]
            assert refused[0] == refused[1], f"call {k}: {found!r}, expected {expected!r}"
            if refused[0]:
                assert type(found) is type(expected), f"call {k}: {found!r}, expected {expected!r}"
            else:
                agree(found, expected, f"call {k}", 2**12, least=1.0)
                assert compiled.plainly == gave_up or not all([np.isfinite(x).all() for _, x in leaves(expected)])


@drawn(300)
@given(programs())
def test_a_plan_refuses_a_moving_step_where_a_plain_run_does(program):
    is_kept(*program)


@pytest.mark.long
@drawn(3000)
@given(programs())
def test_many_plans_refuse_moving_steps_where_plain_runs_do(program):
    is_kept(*program)


def _over(sample, cost):
    return scg.value_and_grad(lambda t, b, rng: cost(SAMPLES[sample](t, rng, ()), t, b), (0, 1))


UNMET = {
    "where": lambda z, t, b: np.where(z > 0, 0.5 * z + b, z),
    "if": lambda z, t, b: 0.5 * z + b if z > 0 else z,
    "sign": lambda z, t, b: np.sign(z) * (z + b),
    "pole": lambda z, t, b: b / z,
    "largest": lambda z, t, b: np.where(np.argmax(np.stack([z, 0.0])) == 0, z + b, 0.0 * z),
}


@pytest.mark.fast
@pytest.mark.parametrize("sample", ["uniform", "exponential", "beta", "by its score"])
@pytest.mark.parametrize("name", sorted(UNMET))
def test_a_step_to_which_samples_come_for_later_parameters_alone_is_refused_there(sample, name):
    """No sample is below zero for t = 0.5 and 1, some are for -0.5; in between the plan that was recorded answers."""
    plain = _over(sample, UNMET[name])
    step = scg.compile(plain, threads=1)
    for t in (0.5, 1.0, 0.7):
        both(plain, step, (np.array(t), np.array(1.0)))
    assert step.recorded == 1 and step.planned == 9 and step.plainly == 0
    for fn in (plain, step):
        with pytest.raises(EstimatorError, match="a step that moves with the parameters"):
            fn(np.array(-0.5), np.array(1.0), rng=np.random.default_rng(0))
    both(plain, step, (np.array(0.6), np.array(1.0)))
    assert step.recorded == 1


@pytest.mark.fast
@pytest.mark.parametrize(
    "cost",
    [
        UNMET["where"],
        lambda z, t, b: np.where(z > t, z - t + b, 0.0),
        lambda z, t, b: np.where((z > 0) & (b > 0), z + 1, z),
        lambda z, t, b: np.where(z < 0, 0.0, np.where(z < 0.5 - b, z, 0.5 - b)),
    ],
)
def test_a_cost_that_is_continuous_for_the_recorded_numbers_alone_has_no_plan(cost):
    """0.5 z + b and z agree at z = 0 for b = 0, z - t + b and 0 at z = t; the mask is empty for b = 0, and the piece
    between 0 and 0.5 - b for b = 1."""
    plain = _over("normal", cost)
    step = scg.compile(plain)
    with pytest.warns(RuntimeWarning, match="runs plainly from now on: whether the cost jumps"):
        both(plain, step, (np.array(0.1), np.array(0.0)))
    with pytest.raises(EstimatorError, match="a step that moves with the parameters"):
        step(np.array(0.1), np.array(1.0), rng=np.random.default_rng(0))
    assert step.planned == 0


@pytest.mark.fast
@pytest.mark.parametrize(
    "cost",
    [
        lambda z, t, b: np.where(z > 0, z, b * z) * np.maximum(z - t, 0),
        lambda z, t, b: np.where(np.abs(z - t) < b, 0.5 * (z - t) ** 2, b * (np.abs(z - t) - 0.5 * b)),
        lambda z, t, b: np.sum(np.sort(np.stack([z, t, b * z]))),
        lambda z, t, b: np.where(scg.stop_gradient(z) > 0, z, b * z),
        lambda z, t, b: z / (1 + np.exp(z)) if np.exp(z) > 0 else z,
    ],
)
def test_a_step_that_is_none_for_any_numbers_is_looked_at_in_no_call(cost):
    step = scg.compile(_over("normal", cost))
    step(np.array(0.1), np.array(0.7), rng=np.random.default_rng(0))
    assert step.planned == 1
    assert not [op for op in plans_of(step)[0].program.ops if op.statics.get("test") and "one_side" in str(op.statics)]
