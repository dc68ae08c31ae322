"""Calls of compiled functions: the cache, guards, ownership of results, threads, whole steps, refusals."""

import copy
import functools
import gc
import threading

import numpy as np
import pytest

import scg
from scg import distributions as dist
from scg import optim
from scg.core.tree import leaves, map_leaves
from scg.errors import GuardError, PlanError, ScgError, ScgValueError
from tests.support.compiled import agree, autoencoder, both

pytestmark = pytest.mark.fast

# the cache


def test_shapes_dtypes_structure_and_statics_key_the_plans():
    compiled = scg.compile(lambda x, power=2: np.sum(x**power))
    for count, args in enumerate(
        [(np.ones(3),), (np.ones(4),), (np.ones(3, np.float32),), (np.ones(3), 3), (np.ones(3), 3.0)], 1
    ):
        for _ in range(3):
            assert compiled(*args) == args[0].size
        assert compiled.recorded == count
    assert compiled(np.full(3, 2.0), power=3) == 24 and compiled.recorded == 6  # by keyword is another signature


def test_the_cache_is_bounded():
    compiled = scg.compile(lambda x, k: np.sum(x * k), capacity=2)
    for k in range(5):
        compiled(np.ones(2), k)
    assert len(compiled._plans) == 2 and compiled.recorded == 5
    compiled(np.ones(2), 4)
    assert compiled.recorded == 5
    compiled(np.ones(2), 0)
    assert compiled.recorded == 6


def test_arrays_are_inputs_wherever_they_stand():
    def fn(x, table, index, mask):
        return np.sum(x * table[index]) + np.sum(np.where(mask, x, 0.0))

    compiled = scg.compile(fn)
    rng = np.random.default_rng(0)
    for _ in range(4):
        args = rng.random(3), rng.random(5), rng.integers(0, 5, 3), rng.random(3) < 0.5
        agree(compiled(*args), fn(*args), "inputs")
    assert compiled.recorded == 1


def test_arrays_that_the_function_holds_are_read_anew():
    held, params = np.ones(3), {"w": np.ones(3)}
    cost = scg.compile(lambda x: np.sum(x * held))
    nested = scg.compile(lambda x: scg.value_and_grad(lambda p: np.sum(p["w"] ** 2 * x))(params))
    x = np.arange(3.0)
    for k in range(3):
        held[:] = k
        params["w"][:] = k + 1
        assert cost(x) == 3 * k
        agree(nested(x), (3.0 * (k + 1) ** 2, {"w": 2 * (k + 1) * x}), "held parameters")
    assert cost.recorded == nested.recorded == 1


def test_layouts_of_arguments():
    fn = lambda x: np.sum(np.reshape(x.T, -1) * np.arange(6.0))
    compiled = scg.compile(fn)
    base = np.arange(24.0).reshape(4, 6)
    for x in (base[:2, :3].copy(), base[:2, :3], base[::2, ::2], np.asfortranarray(base[:2, :3]), base[2:, 3:].copy()):
        assert compiled(x) == fn(x)
        base *= -1
        assert compiled(x) == fn(x)  # changed in place, the same object


# guards


def test_an_if_that_comes_out_otherwise_is_recorded_again_once():
    def cost(x):
        return np.sum(x * x) if x[0] > 0 else -np.sum(x)

    plain = scg.value_and_grad(cost)
    compiled = scg.compile(plain)
    for x in (np.ones(2), -np.ones(2), 2 * np.ones(2), -3 * np.ones(2)) * 2:
        agree(compiled(x), plain(x), "guard")
    assert compiled.recorded == 2


def test_an_if_on_a_draw_gives_back_the_numbers_of_the_try():
    def cost(theta, rng):
        b = scg.sample(dist.Bernoulli(logits=theta), scg.ScoreFunction(), rng=rng, name="b")
        z = scg.sample(dist.Normal(theta, 1.0), scg.Reparameterized(), rng=rng) if b > 0 else theta * rng.random()
        return b * theta + z * z

    plain = scg.value_and_grad(cost)
    compiled = scg.compile(plain)
    both(plain, compiled, (np.array(0.3),), seeds=range(12))
    assert compiled.recorded == 2


def test_choices_that_no_node_records_are_checked():
    def cost(p, x):
        return np.sum(dist.Bernoulli(probs=p).log_prob(x))

    plain = scg.value_and_grad(cost)
    compiled = scg.compile(plain)
    p = np.array([0.2, 0.7])
    for x in ([0.0, 1.0], [1.0, 1.0], [0.0, 0.5], [2.0, 0.0], [0.0, 0.0]):
        agree(compiled(p, np.array(x)), plain(p, np.array(x)), f"x = {x}")
    with pytest.raises(ScgValueError, match="probs must be"):
        compiled(np.array([0.2, 1.7]), np.array([0.0, 1.0]))
    with pytest.raises(ScgValueError, match="greater than low"):
        bounded = scg.compile(lambda a, b, z: np.sum(dist.Uniform(a, b).log_prob(z)))
        bounded(np.zeros(2), np.ones(2), np.full(2, 0.5))
        bounded(np.zeros(2), -np.ones(2), np.full(2, 0.5))


def test_a_mask_that_takes_another_number_of_elements():
    compiled = scg.compile(lambda x: np.sum(x[x > 0]))
    for x in ([1.0, -1.0, 2.0], [1.0, 3.0, -2.0], [1.0, 1.0, 1.0], [-1.0, -1.0, -1.0]):
        assert compiled(np.array(x)) == sum(v for v in x if v > 0)


def test_where_a_gradient_is_not_finite_the_plain_call_answers():
    def cost(x):
        return np.sum(np.where(x > 0, np.log(np.where(x > 0, x, 1.0)) * x, 0.0)) + np.sum(np.sqrt(x * x))

    plain = scg.value_and_grad(cost)
    compiled = scg.compile(plain)
    for x in ([1.0, 2.0], [0.0, 2.0], [-1.0, 0.0], [3.0, 1.0]):
        agree(compiled(np.array(x)), plain(np.array(x)), f"x = {x}")


def test_softplus_beyond_the_reach_of_one_exponential():
    plain = scg.value_and_grad(lambda x: np.sum(scg.special.softplus(x) * np.arange(3.0)))
    compiled = scg.compile(plain)
    for x in ([1.0, 2.0, 3.0], [1.0, 800.0, -900.0], [5.0, 2000.0, 1.0], [-40.0, -700.0, 0.0]):
        agree(compiled(np.array(x)), plain(np.array(x)), f"x = {x}", ulps=4)
    assert compiled.recorded == 2 and compiled.plainly == 0


def test_both_tails_of_softplus_and_its_slope_keep_their_digits():
    compiled = scg.compile(scg.value_and_grad(lambda x: np.sum(scg.special.softplus(x))))
    for dtype, points in ((np.float32, np.linspace(-80, 80, 41)), (np.float64, np.linspace(-700, 700, 41))):
        for x in points:
            compiled(np.array([0.0], dtype))
            value, slope = compiled(np.array([x], dtype))
            expected = np.logaddexp(0, np.float64(dtype(x))), 1 / (1 + np.exp(-np.float64(dtype(x))))
            np.testing.assert_allclose([value, slope[0]], expected, rtol=8 * np.finfo(dtype).eps)


# who owns what


def test_results_belong_to_the_caller():
    compiled = scg.compile(lambda x: (x * 2, np.sum(x), x.T, x * 2, np.broadcast_to(x[0], x.shape)))
    x = np.random.default_rng(0).random((80, 90))
    kept = []
    for k in range(6):
        results = compiled(x + k)
        kept.append((k, results, copy.deepcopy(results)))
        for other in results:
            if isinstance(other, np.ndarray):
                assert other.flags.writeable
        arrays = [r for r in results if isinstance(r, np.ndarray)]
        assert not any(np.shares_memory(a, b) for i, a in enumerate(arrays) for b in arrays[:i])
    for _, results, before in kept:
        agree(results, before, "a result changed after it was returned", ulps=0)
    kept[0][1][0][:] = -1
    agree(compiled(x + 1), kept[1][1], "a caller wrote into its result", ulps=0)


def test_a_dropped_result_is_used_again_but_no_view_of_it():
    compiled = scg.compile(lambda x: x + 1)
    x = np.zeros((100, 100))
    places = set()
    for k in range(10):
        places.add(compiled(x + k).ctypes.data)
    assert len(places) < 10  # where freed memory is given out again is the allocator's choice
    view = compiled(x)[3:5]
    for k in range(4):
        compiled(x + k + 5)
    assert (view == 1).all()


def test_arguments_are_never_written_to():
    compiled = scg.compile(scg.value_and_grad(lambda x, y: np.sum(np.tanh(x + y) * y), (0, 1)))
    x, y = np.random.default_rng(0).random((2, 300, 300))
    before = x.copy(), y.copy()
    for _ in range(3):
        compiled(x, y)
    agree((x, y), before, "arguments", ulps=0)


def test_threads_share_a_plan():
    def cost(theta, rng):
        z = scg.sample(dist.Normal(theta, 1.0), scg.Reparameterized(), rng=rng, shape=(200,))
        return np.mean(np.tanh(z) ** 2)

    plain = scg.value_and_grad(cost)
    compiled = scg.compile(plain)
    compiled(np.zeros(300), rng=np.random.default_rng(0))
    found, errors = {}, []

    def work(k):
        try:
            for j in range(5):
                found[k, j] = compiled(np.full(300, k / 7), rng=np.random.default_rng((k, j)))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors and compiled.plainly == 0
    for (k, j), result in found.items():
        agree(result, plain(np.full(300, k / 7), rng=np.random.default_rng((k, j))), f"thread {k}, call {j}")


# what cannot be compiled


def _reads_a_value(x, rng):
    return x * float(x.value[0] if hasattr(x, "value") else x[0])


def _learns(x, rng):
    b = scg.sample(dist.Bernoulli(logits=x), scg.ScoreFunction(baseline=LEARNS), rng=rng)
    return np.sum(b * x)


def _own_generator(x, rng):
    return np.sum(scg.sample(dist.Normal(x, 1.0), scg.Reparameterized(), rng=OWN))


def _samples_a_distribution(x, rng):
    return np.sum(x * dist.Normal(0.0, 1.0).sample(rng, 3))


def _shuffles(x, rng):
    order = np.arange(3)
    rng.shuffle(order)
    return np.sum(x[order] * np.arange(3))


def _converts(x, rng):
    return np.sum(x) * int(np.max(x) if isinstance(x, np.ndarray) else x[0])


LEARNS, OWN = scg.MovingAverage(), np.random.default_rng(3)
REFUSED = {
    _reads_a_value: "node.value",
    _learns: "learns",
    _own_generator: "generator",
    _samples_a_distribution: "outside scg.sample",
    _shuffles: "shuffle",
    _converts: "int()",
}


@pytest.mark.parametrize("fn", REFUSED, ids=lambda fn: fn.__name__)
def test_what_cannot_be_compiled_names_the_line_or_runs_plainly(fn):
    plain = scg.value_and_grad(fn) if fn in (_learns, _own_generator) else fn
    with pytest.raises(PlanError) as caught:
        scg.compile(plain)(np.ones(3), rng=np.random.default_rng(0))
    assert REFUSED[fn] in str(caught.value) and "test_calls.py:" in str(caught.value)
    assert isinstance(caught.value, ScgError) and isinstance(caught.value, TypeError)
    state = np.random.default_rng(0)
    compiled = scg.compile(plain, fallback=True)
    for _ in range(2):
        compiled(np.ones(3), rng=state)


def test_errors_of_the_function_itself_are_its_own():
    def cost(x):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        scg.compile(cost)(np.ones(2))
    with pytest.raises(ScgValueError, match="must be a scalar"):
        scg.compile(scg.grad(lambda x: x * 2))(np.ones(2))
    with pytest.raises(PlanError, match="function"):
        scg.compile(3)
    with pytest.raises(PlanError, match="masked"):
        scg.compile(lambda x: x + 1)(np.ma.masked_array([1.0], [True]))


def test_errors_at_later_calls_are_those_of_the_plain_call():
    compiled = scg.compile(lambda a: np.linalg.inv(a) @ np.ones(2))
    compiled(np.eye(2))
    with pytest.raises(np.linalg.LinAlgError):
        compiled(np.zeros((2, 2)))
    assert compiled.plainly == 1
    agree(compiled(2 * np.eye(2)), np.full(2, 0.5), "afterwards")


def test_a_primitive_from_outside_compiles():
    calls = []

    def value(x, y, *, power):
        calls.append(1)
        return (x * y) ** power

    product = scg.primitive(
        value, None, lambda g, out, x, y, power: g * power * y * (x * y) ** (power - 1), None, name="product"
    )
    pair = scg.primitive(
        lambda x: (np.sin(x), np.cos(x)), None, lambda g, out, x: g[0] * out[1] - g[1] * out[0], name="pair"
    )

    def cost(x, y):
        s, c = scg.core.cotangents.results(pair(x))
        return np.sum(product(x, y, power=3) * s + c)

    plain = scg.value_and_grad(cost)
    compiled = scg.compile(plain)
    for k in (1.0, 2.0):
        args = np.linspace(0, 1, 3) * k, np.array([1.0, 2.0, 3.0])
        agree(compiled(*args), plain(*args), "from outside")
    assert compiled.recorded == 1 and "called plainly" in compiled.explain(*args)


def test_methods_and_names():
    class Model:
        @scg.compile
        def cost(self, x):
            """Twice the sum."""
            return np.sum(x) * self.factor

    model = Model()
    model.factor = 2
    assert model.cost(np.ones(3)) == 6 and Model.cost.__doc__ == "Twice the sum."
    assert "cost" in repr(Model.cost)


def test_guards_outside_are_left_alone():
    x = scg.parameter(np.ones(2))
    compiled = scg.compile(lambda y: np.sum(y) if y[0] > 0 else y[1])
    compiled(np.ones(2))
    z = np.sum(x * x)
    with pytest.raises((GuardError, ScgError)):
        scg.replay(z, {x: np.ones(3)})
    agree(scg.replay(z, {x: np.full(2, 2.0)}), np.float64(8), "replay")


def test_nothing_of_the_recorded_run_is_kept():
    def cost(theta, x, rng):
        a = scg.sample(dist.Bernoulli(logits=theta), scg.ScoreFunction(), rng=rng, name="a")
        z = scg.sample(dist.Uniform(theta - 1, theta + 1), scg.Reparameterized(), rng=rng)
        y = np.exp(a * z * x)
        return np.sum(y) if z[0] > -100 else np.sum(x)

    theta = np.zeros(3)
    optimizer = optim.SGD(theta, 1e-3)

    def step(theta, x, rng):
        value, g = scg.value_and_grad(cost)(theta, x, rng)
        optimizer.step(g)
        return value

    def nodes():
        return sum(type(x) is scg.core.node.Node for x in gc.get_objects())

    compiled = scg.compile(step)
    gc.collect()
    gc.disable()
    try:
        before = nodes()
        for k in range(3):
            compiled(theta, np.full(3, k + 1.0), np.random.default_rng(k))
        assert compiled.recorded == 1 and compiled.plainly == 0
        assert nodes() == before
    finally:
        gc.enable()


def test_planning_is_quick_and_memory_is_planned():
    params, loss, data = autoencoder([40, 40], 10, 20, 5)
    compiled = scg.compile(scg.value_and_grad(loss))
    rng = np.random.default_rng(0)
    compiled(params, data(0), rng=rng)
    ((plans, _),) = compiled._plans.values()
    program = plans[0].program
    naive = sum(op.nbytes for op in program.ops)
    assert sum(plans[0].assignment.sizes) < 0.6 * naive
    assert all(op.value is None for op in program.ops if op.dtype is not None)
    assert map_leaves(np.shape, compiled(params, data(1), rng=rng)[1]) == map_leaves(np.shape, params)


def test_a_function_that_rebinds_its_arguments_is_refused():
    def by_hand(p):
        value, g = scg.value_and_grad(lambda p: np.sum(p["w"] ** 2))(p)
        p["w"] = p["w"] - 0.1 * g["w"]
        return value

    def longer(p, xs):
        xs.append(1.0)
        return np.sum(p["w"])

    p = {"w": np.ones(2)}
    for fn, args, where in ((by_hand, (p,), r"\['w'\]"), (longer, (p, [np.ones(2)]), r"\[1\]\[1\]")):
        with pytest.raises(PlanError, match=f"puts another value into its argument .*{where}.*optimizer"):
            scg.compile(fn)(*args)
    plain = scg.compile(by_hand, fallback=True)
    losses = [float(plain(p)) for _ in range(3)]
    assert losses == pytest.approx([2, 2 * 0.64, 2 * 0.64**2])
    copied = scg.compile(lambda p: np.sum({**p, "w": p["w"] * 2}["w"]))  # a dict of the function's own
    assert copied(p) == pytest.approx(2 * np.sum(p["w"]))


def test_the_first_call_has_the_bits_of_the_others():
    params, loss, data = autoencoder([16], 4, 9, 7)
    step, x = scg.compile(scg.value_and_grad(loss)), data(0)
    first, second = (step(params, x, np.random.default_rng(3)) for _ in range(2))
    for (_, a), (_, b) in zip(leaves(first), leaves(second), strict=True):
        np.testing.assert_array_equal(a, b)


def test_threads_that_step_one_optimizer_take_whole_steps():
    """The gradient is the same wherever the parameters are, so that the order of the steps does not matter, only that
    each is one."""
    start, scales = np.linspace(-1, 1, 40_000).reshape(200, 200), np.cos(np.arange(40_000.0)).reshape(200, 200)
    results = []
    for threads in (0, 4):
        params = start.copy()
        optimizer = scg.optim.Adam(params)
        gradient = scg.value_and_grad(lambda p, x: np.sum(p * x))

        def step(params, x, optimizer=optimizer, gradient=gradient):
            value, g = gradient(params, x)
            optimizer.step(g)
            return value

        run = scg.compile(step) if threads else step

        def work(run=run, params=params):
            for _ in range(20):
                run(params, scales.copy())

        workers = [threading.Thread(target=work) for _ in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        if not threads:
            for _ in range(80):
                step(params, scales)
        results.append((params, optimizer.state))
    for (path, a), (_, b) in zip(*[leaves(r) for r in results], strict=True):
        np.testing.assert_allclose(a, b, 1e-12, 1e-12, err_msg=path)


ELSEWHERE = np.random.default_rng(0)


def _of_a_global(p):
    return np.sum(p * ELSEWHERE.standard_normal(3))


def _of_the_global_one(p):
    return np.sum(p * np.random.standard_normal(3))


def _of_a_closure():
    mine = np.random.default_rng(1)
    return lambda p: np.sum(p * mine.standard_normal(3))


SEEDS, BITS, PARENT = np.random.SeedSequence(4), np.random.PCG64(5), np.random.default_rng(6)


@pytest.mark.parametrize(
    "fn",
    [
        lambda p: np.sum(p * np.random.Generator(BITS).random(3)),
        lambda p: np.sum(p * (BITS.random_raw() % 2**20)),
        lambda p: np.sum(p * PARENT.spawn(1)[0].random(3)),
        lambda p: np.sum(p * np.random.default_rng(SEEDS.spawn(1)[0]).random(3)),
        functools.partial(lambda bits, p: np.sum(p * np.random.Generator(bits).random(3)), np.random.PCG64(7)),
        _of_a_global,
        _of_the_global_one,
        _of_a_closure(),
        functools.partial(lambda g, p: np.sum(p * g.random(3)), np.random.default_rng(2)),
    ],
)
def test_numbers_of_other_generators_are_refused(fn):
    """A plan would repeat them."""
    for function in (fn, scg.value_and_grad(fn)):
        with pytest.raises(PlanError, match="no argument of the compiled function"):
            scg.compile(function)(np.ones(3))
        plainly = scg.compile(function, fallback=True)
        first, second = ([leaf for _, leaf in leaves(plainly(np.ones(3)))][0] for _ in range(2))
        assert first != second


@pytest.mark.parametrize(
    "make, draw",
    [
        (np.random.PCG64, lambda bits: np.random.Generator(bits).random()),
        (np.random.PCG64, lambda bits: bits.random_raw() % 2**20),
        (np.random.SeedSequence, lambda seeds: np.random.default_rng(seeds.spawn(1)[0]).random()),
        (np.random.default_rng, lambda rng: np.random.Generator(rng.bit_generator).random()),
        (np.random.default_rng, lambda rng: rng.bit_generator.random_raw() % 2**20),
        (np.random.default_rng, lambda rng: [rng.bit_generator.advance(3), rng.random()][1]),
        (np.random.default_rng, lambda rng: rng.spawn(1)[0].random()),
        (np.random.default_rng, lambda rng: rng.bit_generator.state["state"]["state"] % 2**20 + rng.random()),
    ],
)
def test_numbers_by_way_of_what_stands_behind_a_generator_are_refused(make, draw):
    """A plan would repeat them."""
    fn = lambda p, source: np.sum(p) * (1.0 + draw(source))
    with pytest.raises(PlanError):
        scg.compile(fn)(np.ones(3), make(3))
    again, source = scg.compile(fn, fallback=True), make(3)
    assert again(np.ones(3), source) != again(np.ones(3), source)


def test_keyword_arguments_keep_their_order():
    fn = lambda x, **parts: sum([x * k * part for k, part in enumerate(parts.values(), 1)])
    compiled = scg.compile(fn)
    for parts in ({"b": 2.0, "a": np.float64(3.0)}, {"a": np.float64(3.0), "b": 2.0}) * 2:
        np.testing.assert_array_equal(compiled(np.ones(2), **parts), fn(np.ones(2), **parts))
    assert compiled.recorded == 2 and compiled.plainly == 0
