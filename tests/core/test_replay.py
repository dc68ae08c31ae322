"""Replay: a recorded subgraph runs again as the function would, batched or not; a guard says so where it would not."""

import pickle
import re
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import scg
from scg import distributions as dist
from scg.core.ambient import collect_guards
from scg.core.ancestry import ancestors
from scg.core.axes import elementwise
from scg.core.cotangents import results
from scg.core.node import Node
from scg.core.replay import live_bytes, replay
from scg.errors import GuardError
from scg.stochastic.resampling import resample
from scg.stochastic.sites import noise, noise_node, path
from tests.support.graphs import alternating

pytestmark = pytest.mark.fast

X = np.array([0.5, -1.25, 2.0])
A = np.array([[2.0, -1.0, 0.5], [0.25, 1.5, -0.75], [1.0, 0.0, -2.0]])
looped = scg.primitive(np.tanh.__call__, None, lambda g, out, x: g * (1 - out * out), name="looped")
halves = scg.primitive(
    lambda x: (np.sin(x), x * x), None, lambda g, out, x: g[0] * np.cos(x) + 2 * g[1] * x, name="halves"
)

STEPS = {
    "sin": np.sin,
    "mul": lambda x: x * X,
    "matmul": lambda x: A @ x,
    "outer sum": lambda x: np.sum(np.reshape(x, (3, 1)) * x, axis=0),
    "shift": lambda x: x[np.array([1, 2, 0])],
    "slice": lambda x: np.concatenate([x[1:], x[:1]]),
    "loop": looped,
    "halves": lambda x: results(halves(x))[0] + results(halves(x))[1],
    "total": lambda x: x + np.sum(x),
    "where": lambda x: np.where(x > 0.25, x, X),
    "stack": lambda x: np.stack([x, X, x])[:, 1],
    "broadcast": lambda x: np.mean(np.broadcast_to(x, (2, 3)), axis=0),
}
programs = st.lists(st.sampled_from(sorted(STEPS)), min_size=1, max_size=5)
vectors = st.lists(st.floats(-1, 1, width=16), min_size=3, max_size=3).map(np.array)
TOLERANCE = {"rtol": 1e-12, "atol": 1e-12}  # one call and the loop may add in another order


def program(names):
    return alternating([STEPS[name] for name in names])


def recorded(fn):
    x, y = scg.parameter(X, name="x"), scg.parameter(X[::-1], name="y")
    return x, y, fn(x, y)


@given(programs, vectors)
def test_a_replay_is_the_function_at_the_other_value(names, value):
    fn = program(names)
    x, y, out = recorded(fn)
    np.testing.assert_array_equal(scg.replay(out, {x: value}), fn(scg.parameter(value), scg.parameter(X[::-1])).value)
    np.testing.assert_array_equal(scg.replay(out, {y: value}), fn(scg.parameter(X), scg.parameter(value)).value)
    np.testing.assert_array_equal(scg.replay(out, {}), out.value)
    np.testing.assert_array_equal(scg.replay(out, {x: X}), out.value)


@given(programs, st.lists(vectors, min_size=1, max_size=4), vectors)
def test_a_batched_replay_is_the_loop(names, values, other):
    x, y, out = recorded(program(names))
    batch = np.stack(values)
    for replacements, batched in [({x: batch}, [x]), ({x: batch, y: other}, [x]), ({x: batch, y: batch[::-1]}, [x, y])]:
        got = scg.replay(out, replacements, batched=batched)
        for r in range(len(batch)):
            one = scg.replay(out, {n: v[r] if any(n is b for b in batched) else v for n, v in replacements.items()})
            np.testing.assert_allclose(got[r], one, **TOLERANCE)


@given(programs, st.lists(vectors, min_size=1, max_size=3))
def test_a_replay_that_makes_a_graph_has_the_function_s_gradient(names, values):
    fn = program(names)
    x, y, out = recorded(fn)
    new = scg.parameter(values[0])
    again = scg.replay(out, {x: new})
    assert type(again) is Node
    np.testing.assert_allclose(
        scg.gradients(np.sum(again), [new, y])[0], scg.grad(lambda v: np.sum(fn(v, X[::-1])))(values[0]), **TOLERANCE
    )
    np.testing.assert_allclose(
        scg.gradients(np.sum(again), [y])[0], scg.grad(lambda v: np.sum(fn(values[0], v)))(X[::-1]), **TOLERANCE
    )
    batch = scg.parameter(np.stack(values))
    many = scg.gradients(np.sum(scg.replay(out, {x: batch}, batched=[x])), [batch])[0]
    np.testing.assert_allclose(
        many, [scg.grad(lambda v: np.sum(fn(v, X[::-1])))(value) for value in values], **TOLERANCE
    )


def test_the_gradient_graph_replays():
    x, y, out = recorded(program(["sin", "matmul", "loop", "total"]))
    (gradient,) = scg.gradients(np.sum(out), [x], create_graph=True)
    batch = np.stack([X, X + 1, -X])
    expected = [
        scg.grad(lambda v: np.sum(program(["sin", "matmul", "loop", "total"])(v, X[::-1])))(value) for value in batch
    ]
    np.testing.assert_allclose(scg.replay(gradient, {x: batch}, batched=[x]), expected, **TOLERANCE)


def test_outputs_keep_their_structure_and_what_does_not_depend_its_value():
    x, y, out = recorded(lambda x, y: x * 2)
    other = y * 3
    got = scg.replay({"a": [out, other], "b": x}, {x: X + 1})
    np.testing.assert_array_equal(got["a"][0], 2 * (X + 1))
    np.testing.assert_array_equal(got["a"][1], 3 * X[::-1])
    np.testing.assert_array_equal(got["b"], X + 1)
    many = scg.replay([out, other], {x: np.ones((4, 3))}, batched=[x])
    assert many[0].shape == many[1].shape == (4, 3)


def test_an_intermediate_node_is_replaced_and_what_led_to_it_no_longer_counts():
    x, y, _ = recorded(lambda x, y: x)
    middle = x * y
    out = np.exp(middle) + x
    np.testing.assert_array_equal(scg.replay(out, {middle: np.zeros(3)}), 1 + X)
    np.testing.assert_array_equal(scg.replay(out, {middle: np.zeros(3), x: np.ones(3)}), np.full(3, 2.0))


PATHS = {
    "numbers": (lambda t: dist.Normal(t[:2], np.exp(t[0])), (3,)),
    "a moving support": (lambda t: dist.Uniform(t[0], t[0] + np.exp(t[:2])), ()),
    "vectors": (lambda t: dist.Dirichlet(np.exp(t)), (2,)),
    "a batch of vectors": (
        lambda t: dist.MultivariateNormal(np.stack([t[:2], -t[1:]]), scale_tril=np.exp(t[0]) * np.eye(2)),
        (),
    ),
}


@pytest.mark.parametrize("case", PATHS)
@pytest.mark.parametrize("changed", ["noise", "parameters", "both"])
def test_pathwise_draws_replay_in_one_call(case, changed):
    """Noise, parameters or both have the replicate axis: the values and the gradients of a loop, and one draw in the
    graph."""
    distribution, shape = PATHS[case]
    t, rng, size = scg.parameter(np.array([0.3, -0.2, 0.1])), np.random.default_rng(0), 4
    z = scg.sample(distribution(t), scg.Reparameterized(), rng=rng, shape=shape, name="z")
    cost = np.sum(np.sin(z) * np.cumsum(z, axis=-1))
    source = next(n for n in ancestors([z]) if n.primitive is noise)
    new = {source: rng.random((size, *source.shape)), t: t.value + rng.normal(size=(size, 3))}
    new = {node: value for node, value in new.items() if changed == "both" or (node is source) == (changed == "noise")}
    led = {node: scg.parameter(value) for node, value in new.items()}
    batched = replay(cost, led, batched=list(led))
    rows = [replay(cost, {n: scg.parameter(v[r]) for n, v in new.items()}, create_graph=True) for r in range(size)]
    np.testing.assert_allclose(batched.value, [row.value for row in rows], rtol=1e-12)
    assert [n.statics["site"].replicate_axes for n in ancestors([batched]) if n.primitive is path] == [1]
    for node, leaf in led.items():
        (g,) = scg.gradients(np.sum(batched), [leaf])
        for r in range(size):
            alone = {n: scg.parameter(v[r]) for n, v in new.items()}
            (expected,) = scg.gradients(replay(cost, alone), [alone[node]])
            np.testing.assert_allclose(g[r], expected, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("size", [0, 1, 3])
def test_any_number_of_replicates(size):
    x, y, out = recorded(program(["sin", "matmul", "slice"]))
    assert scg.replay(out, {x: np.ones((size, 3))}, batched=[x]).shape == (size, 3)


def test_no_replicates_of_a_primitive_without_an_axis_map():
    x, y, out = recorded(lambda x, y: looped(x) + results(halves(x))[1])
    assert scg.replay(out, {x: np.ones((0, 3))}, batched=[x]).shape == (0, 3)


def test_a_replay_takes_the_node_s_dtype_and_nothing_is_lost_silently():
    x = scg.parameter(np.float32([1.0, 2.0]))
    assert scg.replay(x * 2, {x: [1, 2]}).dtype == np.float32
    whole = np.floor(x).astype(int)
    np.testing.assert_array_equal(scg.replay(whole * 2, {whole: [1.0, 3.0]}), [2, 6])
    with pytest.raises(scg.ScgError, match="int64"):
        scg.replay(whole * 2, {whole: [1.5, 3.0]})


def test_a_replay_leaves_replacement_and_graph_as_they_were():
    x, y, out = recorded(lambda x, y: np.broadcast_to(x, (2, 3)))
    value = X.copy()
    got = scg.replay([x, out], {x: value})
    np.testing.assert_array_equal(value, X)
    before = out.value.copy()
    value[:] = 7.0
    np.testing.assert_array_equal(out.value, before)
    assert got[1].shape == (2, 3)


# guards


def sign(x):
    if x > 0:  # the line of the if
        y = np.sin(x)
        z = np.exp(x)
    else:
        y = z = x * 3
    return y, z


def steps(x):
    if x > 2:
        return x * 5
    elif x > 1:
        return x * 4
    elif x > 0:
        return x * 3
    return x * 2


def halving(x):
    n = 0
    while np.sum(x * x) > 0.1:
        x, n = x / 2, n + 1
    return x * n


def nested(x):
    y = np.exp(x)
    if y > 1:
        if y * y > 9:
            return y
        y = y + 1
    return y * 2


def negated(x):
    return x if not x < 0 else -x


def joined(x):
    return x * 2 if (x > 0 and x < 2) or x > 5 else x * 3


def constant_branch(x):
    return np.cos(scg.parameter(1.0)) * (1.0 if x > 0 else 2.0) + 0 * x


def reduced(x):
    y = np.stack([x, x * x, -x])
    return np.max(y) if np.any(y > 3) else np.sum(y)


BRANCHING = [lambda x: sign(x)[0], lambda x: sign(x)[1], steps, halving, joined, constant_branch, reduced]
OLDER = [nested, negated]  # which may return what is older than the `if` that chose it
POINTS = [-3.0, -0.5, 0.25, 0.75, 1.5, 2.5, 6.0]


def outcomes(fn, value):
    with collect_guards() as guards:
        fn(scg.parameter(value))
    return [guard.outcome for guard in guards]


@pytest.mark.parametrize("fn", BRANCHING)
@pytest.mark.parametrize("start", POINTS)
def test_a_replay_takes_the_same_branch_or_says_that_it_would_not(fn, start):
    x = scg.parameter(start)
    out = fn(x)
    for value in POINTS:
        if outcomes(fn, value) == outcomes(fn, start):
            assert scg.replay(out, {x: value}) == pytest.approx(float(fn(scg.parameter(value)).value), rel=1e-15)
        else:
            with pytest.raises(GuardError):
                scg.replay(out, {x: value})


@pytest.mark.parametrize("fn", BRANCHING + OLDER)
@pytest.mark.parametrize("start", POINTS)
def test_the_guards_of_the_whole_function_bind_whatever_it_returns(fn, start):
    x = scg.parameter(start)
    with collect_guards() as guards:
        out = fn(x)
    for value in POINTS:
        if outcomes(fn, value) == outcomes(fn, start):
            assert replay(out, {x: value}, guards=guards) == pytest.approx(
                float(fn(scg.parameter(value)).value), rel=1e-15
            )
        else:
            with pytest.raises(GuardError):
                replay(out, {x: value}, guards=guards)


@pytest.mark.parametrize("fn", BRANCHING)
def test_a_batched_replay_is_refused_where_any_replicate_takes_another_branch(fn):
    x = scg.parameter(1.5)
    out = fn(x)
    same = [value for value in POINTS if outcomes(fn, value) == outcomes(fn, 1.5)]
    np.testing.assert_allclose(
        scg.replay(out, {x: np.array(same)}, batched=[x]), [scg.replay(out, {x: v}) for v in same], rtol=1e-15
    )
    with pytest.raises(GuardError):
        scg.replay(out, {x: np.array(POINTS)}, batched=[x])


def test_the_error_names_the_node_its_outcome_and_the_line_of_the_if():
    x = scg.parameter(1.0)
    _, out = sign(x)
    with pytest.raises(GuardError, match=r"greater.*came out True") as caught:
        scg.replay(out, {x: -1.0})
    assert isinstance(caught.value, RuntimeError) and isinstance(caught.value, scg.ScgError)
    with open(__file__) as source:
        line = [i for i, text in enumerate(source, 1) if text.strip().endswith("# the line of the " + "if")]
    assert re.search(rf"{re.escape(__file__)}:{line[0]}, in sign", str(caught.value))
    assert "np.where" in str(caught.value)


@pytest.mark.parametrize("fn", BRANCHING)
def test_guards_survive_pickling(fn):
    x = scg.parameter(1.5)
    x2, out = pickle.loads(pickle.dumps((x, fn(x))))
    for value in POINTS:
        if outcomes(fn, value) == outcomes(fn, 1.5):
            assert scg.replay(out, {x2: value}) == scg.replay(fn(x), {x: value})
        else:
            with pytest.raises(GuardError, match=r"test_replay\.py:\d+, in"):
                scg.replay(out, {x2: value})


def test_a_guard_is_checked_before_what_stands_behind_it_is_computed():
    x = scg.parameter(1.0)
    fail = scg.primitive(lambda x: x if x > 0 else 1 / 0, None, lambda g, out, x: g, name="fail")
    if x > 0:
        out = fail(x)
    with pytest.raises(GuardError):
        scg.replay(out, {x: -1.0})


def test_a_guard_on_a_replaced_intermediate_node_counts():
    x = scg.parameter(1.0)
    y = x * 2
    out = np.exp(y) if y > 1 else y
    assert scg.replay(out, {y: 3.0}) == np.exp(3.0)
    with pytest.raises(GuardError):
        scg.replay(out, {y: 0.5})
    assert scg.replay(out, {x: 0.75}) == np.exp(1.5)


def test_a_guard_does_not_bind_what_was_made_before_it_or_of_other_things():
    x, other = scg.parameter(1.0), scg.parameter(2.0)
    before = x * 2
    if x > 0:
        pass
    assert scg.replay(before, {x: -1.0}) == -2.0
    assert scg.replay(other * 2, {other: -1.0}) == -2.0


def test_guards_of_one_function_do_not_reach_the_next():
    scg.grad(steps)(1.5)
    x = scg.parameter(1.0)
    assert (x * 2).guard is None
    with collect_guards() as outer:
        y = scg.parameter(1.5)
        scg.grad(steps)(y)
        assert [guard.outcome for guard in outer] == [False, True]
    assert (y * 2).guard is None


def test_a_guard_at_a_boundary_is_what_python_says():
    x = scg.parameter(0.0)
    out = x * 2 if x else x * 3
    assert out.value == 0.0
    with pytest.raises(GuardError):
        scg.replay(out, {x: 1.0})
    with pytest.raises(GuardError):
        scg.replay(out, {x: np.nan})  # bool(nan) is True


@pytest.mark.parametrize("pickled", [False, True])
def test_every_one_of_several_decisions_on_older_nodes_binds(pickled):
    parameters = [scg.parameter(1.0) for _ in range(3)]
    decisions = [x > 0 for x in parameters]  # computed beforehand: no node ties one `if` to the next
    if decisions[0] and decisions[1] and decisions[2]:
        pass
    out = sum(parameters)
    if pickled:
        *parameters, out = pickle.loads(pickle.dumps((*parameters, out)))
    for x in parameters:
        assert scg.replay(out, {x: 2.0}) == 4.0
        with pytest.raises(GuardError):
            scg.replay(out, {x: -1.0})


def test_a_batched_replay_holds_no_more_than_what_is_still_to_be_read():
    """A chain of any length takes the memory of a few of its arrays."""
    rows, peaks = np.ones((500, 1000)), []
    for n in (10, 40):
        x = scg.parameter(np.ones(1000))
        y = x
        for _ in range(n):
            y = np.tanh(y)
        tracemalloc.start()
        replay(y, {x: rows}, batched=[x])
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert max(peaks) < 3.5 * rows.nbytes


@given(programs, st.integers(0, 2**32 - 1))
def test_what_a_replay_of_random_programs_holds_is_no_more_than_live_bytes(names, seed):
    rng, size = np.random.default_rng(seed), 4000
    x = noise_node(dist.Normal(0.0, 1.0), rng, (3,), np.dtype(float))
    y = program([name for name in names if name not in ("loop", "halves")])(x, 2.0 * x)
    roots = [y, np.sum(x * y)]
    most = size * live_bytes(roots, ancestors(roots)) + 2**15
    tracemalloc.start()
    resample(roots, {}, rng=rng, size=size, create_graph=False)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # beside what is read later, one call has arrays of its own: a copy of its operands, and what it makes
    assert peak <= most + 6 * size * 3 * 8


def test_what_only_lends_its_shape_is_not_computed_again():
    """An operand of a value that is that of another one, or a constant: its shape is known."""
    calls = []
    counted = scg.primitive(lambda x: calls.append(0) or np.tanh(x), elementwise, name="counted")
    shown = scg.primitive(lambda x, other: x + 0 * other[..., :1] * 0, elementwise, name="shown", same=True)
    x = noise_node(dist.Normal(0.0, 1.0), np.random.default_rng(0), (3,), np.dtype(float))
    lent, read = shown(2.0 * x, counted(x)), shown(counted(x), 2.0 * x)
    for root, times in ((lent, 0), (read, 1), (np.exp(lent) + read, 1)):
        calls.clear()
        found, given = resample([root, x], {}, rng=np.random.default_rng(1), size=4, create_graph=False)
        assert len(calls) == times and found.shape == (4, 3)
        np.testing.assert_array_equal(found, replay(root, {x: given}, batched=[x], create_graph=True))


@pytest.mark.parametrize("bins", [[-0.2, 0.3, 1.0], [1.0, 0.3, -0.2], [0.3], [], [0.3, 0.3]])
@pytest.mark.parametrize("right", [False, True])
def test_what_is_looked_up_in_bins_is_replayed_at_once(bins, right, monkeypatch):
    """np.digitize and np.isin: each element by itself, whatever the rows: one call for all of them."""
    x = np.array([[0.3, -1.0, 0.5], [-0.2, 2.0, 1.0]])
    p = scg.parameter(x)
    place, inside = np.digitize(p, bins, right), np.isin(p, bins)
    np.testing.assert_array_equal(place.value, np.digitize(x, bins, right))
    np.testing.assert_array_equal(inside.value, np.isin(x, bins))
    rows = np.random.default_rng(0).normal(size=(50, 2, 3))
    rows[3] = 0.3
    wanted = np.digitize(rows, bins, right), np.isin(rows, bins)
    calls = []
    for name in ("searchsorted", "isin"):
        one = getattr(np, name)
        monkeypatch.setattr(np, name, lambda *args, one=one, **how: calls.append(1) or one(*args, **how))
    found = replay([place, inside], {p: rows}, [p])
    assert len(calls) == 2
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(a, b)
