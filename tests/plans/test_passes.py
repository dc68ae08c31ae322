"""Each pass alone: with it and without it the same results (bit for bit where it does not change roundings), and it
strikes where it should."""

import itertools
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import scg
from scg import distributions as dist
from scg.core.tree import leaves
from scg.extend import elementwise, primitive
from scg.plans.buffers import origin
from scg.plans.kernels import Generators, kernel
from scg.plans.passes import PASSES
from scg.plans.passes.few_rows import by_columns
from scg.plans.threads import BLAS
from tests.support.compiled import PROGRAMS, agree, plans_of
from tests.support.drawn import drawn

EXACT = {"fold", "aliases", "merge", "dead", "expand", "signs", "choices", "copies", "scalars", "blocks"}
"""Passes that leave every rounding as it is."""

ROUNDED = 0 if BLAS.libraries and BLAS.threads() == 1 or os.cpu_count() == 1 else 2**6
"""Units of rounding by which such results may differ: a BLAS of several threads does not add in one order."""


def struck(compiled):
    return {name: count for name, count, _ in plans_of(compiled)[0].report}


def operations(compiled):
    return [op.primitive.name for op in plans_of(compiled)[0].program.ops]


@pytest.mark.parametrize("program", PROGRAMS)
def test_each_pass_left_out_gives_the_same(program):
    fn, params, x = PROGRAMS[program]
    gradient = scg.value_and_grad(fn)
    everything = scg.compile(gradient)
    for seed in range(2):
        full = everything(params, x, rng=np.random.default_rng(seed))
    agree(full, gradient(params, x, rng=np.random.default_rng(seed)), f"{program}, all passes")
    for name in PASSES:
        compiled = scg.compile(gradient, without=name)
        for seed in range(2):
            result = compiled(params, x, rng=np.random.default_rng(seed))
        assert compiled.plainly == 0 and compiled.recorded == 1
        agree(result, full, f"{program} without {name}")


@pytest.mark.parametrize("program", PROGRAMS)
def test_each_pass_alone_gives_the_same(program):
    fn, params, x = PROGRAMS[program]
    gradient = scg.value_and_grad(fn)
    expected = gradient(params, x, rng=np.random.default_rng(1))
    for name in (None, *PASSES):
        compiled = scg.compile(gradient, without=[other for other in PASSES if other != name])
        for seed in range(2):
            result = compiled(params, x, rng=np.random.default_rng(seed))
        agree(
            result, expected, f"{program} with {name} alone", ulps=ROUNDED if name is None or name in EXACT else 2**10
        )


def compiled_at(fn, *args, **options):
    compiled = scg.compile(fn, **options)
    for _ in range(2):
        result = compiled(*args)
    agree(result, fn(*args), "compiled")
    return compiled


X = np.linspace(-1, 1, 12).reshape(3, 4)


def test_constants_are_folded_and_held_arrays_are_not():
    held = np.ones(4)
    compiled = scg.compile(
        lambda x: x * scg.special.softplus(scg.parameter(np.float64(2.0)) * 3) + np.exp(scg.parameter(held))
    )
    for k in (1.0, 2.0):
        held[:] = k
        agree(compiled(X), X * np.log1p(np.exp(6.0)) + np.exp(k), "folded")
    assert struck(compiled)["fold"] >= 2 and "held" in operations(compiled)


def test_equal_subexpressions_are_computed_once():
    compiled = compiled_at(lambda x: np.tanh(x) + np.tanh(x) * np.sum(x, axis=0) + np.sum(x, axis=(0,)), X)
    assert operations(compiled).count("tanh") == 1 and operations(compiled).count("sum") == 1
    different = compiled_at(lambda x: x * 0.0 + x * -0.0 + np.sum(x, axis=0, keepdims=True) + np.sum(x, axis=0), X)
    assert operations(different).count("multiply") == 2 and operations(different).count("sum") == 2


def test_what_nobody_needs_is_dropped():
    def fn(x):
        np.exp(x * 3)
        return scg.value_and_grad(lambda y: np.sum(y * y))(x)[1]

    assert "exp" not in operations(compiled_at(fn, X)) and "sum" not in operations(compiled_at(fn, X))


def test_a_draw_that_nobody_reads_still_moves_its_generator():
    def fn(x, rng):
        scg.sample(dist.Normal(x, 1.0), scg.Reparameterized(), rng=rng)
        rng.random(3)
        return x + rng.random()

    compiled = scg.compile(fn)
    for seed in range(3):
        agree(compiled(X, np.random.default_rng(seed)), fn(X, np.random.default_rng(seed)), "draws")


def test_signs_and_neutral_elements():
    compiled = compiled_at(lambda x: np.negative(-x) + (-x) * (-np.exp(x)) - 0.0 + x / 1.0 - (-x), X)
    names = operations(compiled)
    assert "negative" not in names and "divide" not in names
    for fn in (lambda x: x + 0.0, lambda x: x - np.float64(-0.0)):  # of -0.0 they make 0.0: no neutral elements
        sign = scg.compile(fn)
        for _ in range(2):
            assert not np.signbit(sign(np.array([-0.0])))[0]


def test_maps_of_broadcast_arrays_are_computed_before_the_broadcast():
    def fn(x):
        wide = np.broadcast_to(x[:, :1], (3, 400))
        return (
            np.sum(np.exp(-wide) * 2.0, axis=0),
            np.sum(wide, axis=1),
            np.broadcast_to(x[0], (5, 4)) + np.broadcast_to(x[1], (5, 4)),
        )

    compiled = compiled_at(fn, X)
    shapes = [
        op.shape
        for op in plans_of(compiled)[0].program.ops
        if op.primitive.name in ("exp", "multiply", "negative", "sum", "add")
    ]
    # but for the sum along which it was stretched, of which the result is small too
    assert all(np.prod(shape) <= 4 for shape in shapes), shapes


def test_common_factors_are_taken_out():
    for combine in (lambda a, b: a + b, lambda a, b: a - b, lambda a, b: b - a):
        for w in (lambda x: np.exp(x), lambda x: -np.exp(x)):
            compiled = compiled_at(lambda x, combine=combine, w=w: combine(w(x) * np.cos(x), np.exp(x) * np.sin(x)), X)
            assert operations(compiled).count("multiply") == 1
    shared = compiled_at(lambda x: (np.exp(x) * np.cos(x) + np.exp(x) * np.sin(x), np.exp(x) * np.sin(x)), X)
    assert operations(shared).count("multiply") == 2  # one of them is a result itself


def test_sums_of_products_are_contractions():
    large = np.random.default_rng(0).standard_normal((70, 90))
    compiled = compiled_at(lambda x: (np.sum(x * np.tanh(x), axis=-1), np.sum(np.exp(x), axis=-1)), large)
    assert operations(compiled).count("dot") == 2 and "sum" not in operations(compiled)
    assert "multiply" not in operations(compiled)


def test_leading_axes_are_flattened():
    stack, matrix = np.random.default_rng(0).standard_normal((5, 6, 7)), np.ones((7, 3))
    compiled = compiled_at(lambda x, w: x @ w, stack, matrix)
    (product,) = [op for op in plans_of(compiled)[0].program.ops if op.primitive.name == "matmul"]
    assert product.shape == (30, 3)
    both = compiled_at(lambda x, w: x @ w, stack, np.ones((5, 7, 2)))
    assert [op.shape for op in plans_of(both)[0].program.ops if op.primitive.name == "matmul"] == [(5, 6, 2)]


def test_a_reshape_across_strides_is_a_copy():
    compiled = compiled_at(lambda x: np.reshape((x * 2).T, (2, 6)) + np.reshape(x * 3, (2, 6)), X)
    assert sum(op.copies for op in plans_of(compiled)[0].program.ops) == 1


def test_one_exponential_for_softplus_and_its_slope():
    compiled = compiled_at(scg.value_and_grad(lambda x: np.sum(scg.special.softplus(x) * np.arange(4.0))), X)
    assert operations(compiled).count("exp") == 1 and "expm1" not in operations(compiled)


@pytest.mark.parametrize("shape", [(700, 90), (2, 40000), (90000,), (50, 30, 40)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_regions_are_the_same_numbers_in_blocks(shape, dtype):
    x = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    row = np.ones(shape[-1:], dtype) * 3

    def fn(x, row, flag):
        h = np.tanh(x * row + 1.0)
        keep = np.where(flag > 0, h, np.exp(-x))
        return h, np.sum(keep, axis=-1), (keep * x).astype(np.float64), x[:1] * h

    flag = np.random.default_rng(1).standard_normal(shape).astype(dtype)
    compiled = compiled_at(fn, x, row, flag)
    region, *_ = plans_of(compiled)[0].program.regions
    assert len(region.members) >= 4 and region.rows()[0][0] == 0 and region.rows()[-1][1] == shape[0]
    assert all(a[1] == b[0] for a, b in itertools.pairwise(region.rows()))
    again = scg.compile(fn, without="blocks")
    for _ in range(2):
        unblocked, blocked = again(x, row, flag), compiled(x, row, flag)
    agree(blocked, unblocked, "blocks", ulps=4)


def test_buffers_are_shared_and_results_written_in_place():
    def chain(x):
        for _ in range(50):
            x = np.tanh(x) * 1.5
        return x

    compiled = compiled_at(chain, np.ones((30, 30)))
    plan = plans_of(compiled)[0]
    assert len(plan.assignment.sizes) <= 2 and plan.assignment.in_place >= 97
    text = compiled.explain(np.ones((30, 30)))
    assert "in place" in text and "buffers" in text


def test_a_buffer_is_not_written_over_while_somebody_reads_it():
    def fn(x):
        y = np.exp(x)
        z = y * 2
        w = z + y.T  # a view of what z must not be written over
        return w + y[::-1], y

    square = np.random.default_rng(0).random((60, 60))
    agree(compiled_at(fn, square)(square), fn(square), "overlap", ulps=0)


def _row_sums_in_columns(a):
    x = np.tanh(a) + 2 * a
    s = np.sum(x * a, axis=-1)
    return np.sin(x) - s, s  # row k of the sums meets column k


def _written_over_while_transposed(a):
    y = np.exp(np.tanh(a))
    z = y + y.T
    return z @ (2 * z)


def _read_transposed_by_another(a):
    y = np.exp(np.tanh(a)) @ a
    return np.abs(y) @ (y - y.T)


@pytest.mark.parametrize("fn", [_row_sums_in_columns, _written_over_while_transposed, _read_transposed_by_another])
def test_blocks_of_rows_read_no_others_before_they_are_there_nor_after_they_are_gone(fn):
    """Calls with new arrays: what is left of the one before would be right for the same."""
    compiled = scg.compile(fn)
    for seed in range(3):
        a = np.random.default_rng(seed).standard_normal((300, 300))
        agree(compiled(a), fn(a), fn.__name__)
    assert compiled.recorded == 1 and compiled.plainly == 0 and plans_of(compiled)[0].program.regions


@pytest.mark.parametrize(
    "rows, inner, columns",
    [(3, 2000, 250), (20, 9000, 250), (20, 784, 200), (20, 200, 784), (32, 101, 333), (99, 150, 401), (100, 784, 130)],
)
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("threads", [1, 2])
def test_products_of_few_rows_are_taken_by_columns(rows, inner, columns, transposed, threads):
    fn = (lambda x, w: np.tanh(x) @ w.T) if transposed else (lambda x, w: np.tanh(x) @ w)
    compiled = scg.compile(fn, threads=threads)
    for seed in range(3):
        rng = np.random.default_rng(seed)
        x, w = (
            rng.standard_normal(s).astype(np.float32)
            for s in ((rows, inner), (columns, inner) if transposed else (inner, columns))
        )
        got = compiled(x, w)
        error = np.abs(got - np.tanh(x).astype(float) @ (w.T if transposed else w))
        bound = inner * np.finfo(np.float32).eps * (np.abs(np.tanh(x)).astype(float) @ np.abs(w.T if transposed else w))
        # Higham (2002), section 3.5
        assert got.dtype == np.float32 and got.flags.c_contiguous and np.all(error <= bound)
    assert compiled.plainly == 0
    (product,) = [op for op in plans_of(compiled)[0].program.ops if op.primitive.name == "matmul"]
    assert (kernel(product, Generators()) is by_columns) == ((transposed or rows <= 32) and rows * inner <= 125_000)


AWKWARD = [np.nan, np.inf, -np.inf, 1e16, 1e30, 3e38, -3e38]


def _separate(params, data):
    """Terms whose gradients have nothing in common: products, a sum, and a map."""
    products = [np.sum((data[x] @ params[w]) * data[y]) for x, w, y in (("x", "w", "y"), ("k", "v", "l"))]
    return sum(products) + np.sum(params["b"] * data["s"]) + np.sum(np.sin(params["e"]) * data["t"])


@drawn(150)
@given(st.data())
def test_what_is_not_finite_is_found_wherever_it_is(data):
    """Gradients are looked at through sums of squares of what they are made of: an awkward number anywhere, and large
    ones that are finite."""
    rng, dtype = np.random.default_rng(0), data.draw(st.sampled_from([np.float32, np.float64]))
    rows, inner, columns = data.draw(st.sampled_from([(3, 5, 4), (30, 40, 50), (20, 784, 3), (2000, 3, 5)]))

    def arrays(**shapes):
        return {name: np.asarray(rng.standard_normal(shape), dtype) for name, shape in shapes.items()}

    params = arrays(w=(inner, columns), v=(columns, inner), b=(columns,), e=(rows, inner))
    other = arrays(
        x=(rows, inner), y=(rows, columns), k=(rows, columns), l=(rows, inner), s=(rows, columns), t=(rows, inner)
    )
    plain = scg.value_and_grad(_separate)
    compiled = scg.compile(plain)
    compiled(params, other)
    array = data.draw(st.sampled_from([*params.values(), *other.values()]))
    array[np.unravel_index(data.draw(st.integers(0, array.size - 1)), array.shape)] = data.draw(
        st.sampled_from(AWKWARD)
    )
    with np.errstate(all="ignore"):
        found, expected = compiled(params, other), plain(params, other)
    for (path, a), (_, b) in zip(leaves(found), leaves(expected), strict=True):
        eps = 2**12 * np.finfo(dtype).eps
        np.testing.assert_allclose(a, b, eps, eps * np.max(np.abs(b), where=np.isfinite(b), initial=0), err_msg=path)
    finite = all([np.isfinite(g).all() for _, g in leaves(expected[1])])
    assert (compiled.plainly > 0) == (not finite)


@pytest.mark.parametrize(
    "text",
    [
        # of which each is the negative of the other, as bytes
        "np.sin(x) * np.full(3, 255, np.uint8) + np.cos(x) * np.full(3, 1, np.uint8)",
        "np.sin(x) * np.array([-128, 1, 1], np.int8) + np.cos(x) * np.array([-128, -1, -1], np.int8)",
        "np.sin(x) * np.array([True, True, False]) + np.cos(x) * np.array([True, False, True])",
        "np.sin(x) * (-k) + np.cos(x) * k",
        "np.sin(x) + (-k)",
        "np.sin(x) - (-k)",
        "(-k) + np.sin(x)",
        "(-np.sin(x)) * (-k)",
        "(-np.sin(x)) / (-k)",
    ],
)
def test_signs_of_whole_numbers_wrap_in_a_plan_as_they_do_in_numpy(text):
    cost = eval(f"lambda x, k: np.sum({text})", {"np": np})
    x, k = np.linspace(0.1, 1.0, 3), np.array([1, 2, 200], np.uint8)
    step = scg.compile(scg.value_and_grad(cost))
    for _ in range(2):
        value, gradient = step(x, k)
        assert value == pytest.approx(cost(x, k), rel=1e-14)
        np.testing.assert_allclose(gradient, scg.grad(cost)(x, k), rtol=1e-14)


def _line(x, y, out):
    np.add(x, 2 * y, out=out)


LINE = primitive(
    lambda x, y: x + 2 * y,
    elementwise,
    lambda g, out, x, y: g,
    lambda g, out, x, y: 2 * g,
    name="line",
    into=lambda x, y: _line if x.shape == y.shape else None,
)
REVERSED = primitive(
    lambda x: x[::-1].copy(),
    None,
    lambda g, out, x: REVERSED(g),
    name="reversed",
    view=lambda x: lambda x: x[::-1],
)


@pytest.mark.parametrize("size", [1, 3, 2**16])
def test_primitives_from_outside_run_as_they_declare(size):
    fn = scg.value_and_grad(lambda x, y: np.sum(np.tanh(REVERSED(LINE(x, y))) * np.exp(x)), (0, 1))
    compiled = scg.compile(fn, threads=1)
    for seed in range(3):
        args = np.random.default_rng(seed).standard_normal((2, size, 2))
        agree(compiled(*args), fn(*args), f"seed {seed}", 2**6)
    assert compiled.plainly == 0 and compiled.planned == 3
    (plan,) = plans_of(compiled)
    line, shown = ([op for op in plan.program.ops if op.primitive is p] for p in (LINE, REVERSED))
    assert len(line) == 1 and kernel(line[0], Generators()) is _line and len(shown) == 2
    assert all([origin(op) is not op and id(op) not in plan.assignment.block for op in shown])


def test_a_call_that_is_declared_for_other_operands_is_none_for_these():
    compiled = scg.compile(lambda x, y: LINE(x, y) + 1.0)
    x, y = np.arange(6.0).reshape(2, 3), np.arange(3.0)
    np.testing.assert_array_equal(compiled(x, y), x + 2 * y + 1)
    assert compiled.planned == 1 and "called plainly" in compiled.explain(x, y)


def test_what_differs_in_its_derivative_alone_is_no_step():
    fn = scg.value_and_grad(lambda x: np.sum(np.exp(scg.stop_gradient(x)) * x + np.positive(x)))
    compiled = scg.compile(fn)
    agree(compiled(X), fn(X), "constants held")
    assert not any([op.primitive.same or op.primitive.view is True for op in plans_of(compiled)[0].program.ops])
    graph = scg.value_and_grad(lambda w: np.mean(scg.objectives.iwae(np.tanh(w), axis=0)))
    planned = scg.compile(graph)
    agree(planned(X), graph(X), "weights")
    assert not any([op.primitive.same for op in plans_of(planned)[0].program.ops])
