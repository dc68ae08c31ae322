"""Programs as values, and the laws of the engine over drawn programs: what a catalogue of single calls does
not put together."""

import contextlib
import io
import json
import pickle
import re
import subprocess
import sys
import traceback

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import scg
from scg.core.tree import leaves, map_leaves, rebuild
from scg.errors import ScgTypeError, ScgValueError
from scg.testing import Program, check_gradient, programs
from scg.testing.program import literal
from scg.testing.strategies.choices import BOUND
from scg.testing.strategies.operations import OPERATIONS
from scg.testing.strategies.programs import write
from tests.support.drawn import drawn, first


def some(examples):
    """Settings of drawn programs, of which one takes milliseconds to draw."""
    return drawn(examples, suppress_health_check=list(HealthCheck))


STOCHASTIC = Program(
    """
    def cost(theta, data, rng):
        b = scg.sample(dist.Bernoulli(logits=theta["w"]), scg.ScoreFunction(), rng=rng, name="b")
        z = scg.sample(dist.Normal(theta["m"], 1.0), scg.Reparameterized(), rng=rng, name="z")
        return np.mean((b - data) ** 2) * z + special.gammaln(data[0])
    """,
    {"theta": {"w": np.float32([0.1, -0.3]), "m": np.array(1 / 3)}, "data": np.array([1, 2])},
    seed=7,
)
PLAIN = Program("def f(x, y=2.0):\n    return np.sum(x * x) * y\n", {"x": np.array([1.0, 2.0]), "y": 3.0})


def printed(script):
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(compile(script, "script", "exec"), {})
    return out.getvalue()


def run_apart(code, text=""):
    """What code prints in a fresh process."""
    found = subprocess.run([sys.executable, "-c", code], input=text, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    return found.stdout


# ---- Program


def test_a_program_prints_as_a_script_that_runs_in_a_fresh_process():
    drawn = [STOCHASTIC, PLAIN]
    some(25)(given(programs(dtypes=[np.float32, np.float64]))(lambda program: drawn.append(program)))()
    scripts = [str(program) for program in drawn]
    code = "import json, sys; [exec(compile(s, 'script', 'exec'), {}) for s in json.load(sys.stdin)]"
    assert run_apart(code, json.dumps(scripts)) == "".join(map(printed, scripts))
    assert printed(str(PLAIN)) == f"{scg.value_and_grad(PLAIN, argnums=(0, 1))(*PLAIN.args)}\n"


@pytest.mark.parametrize("program", [STOCHASTIC, PLAIN])
def test_a_program_is_a_value(program):
    again = pickle.loads(pickle.dumps(program))
    assert again == program and hash(again) == hash(program) and repr(again) == str(program)
    assert getattr(again(), "value", again()) == getattr(program(), "value", program())
    assert Program(program.source, program.arguments, seed=8).seed == 8
    assert Program(program.source + "\n# other", program.arguments) != program
    with pytest.raises(AttributeError):
        program.seed = 3
    with pytest.raises(ValueError, match="read-only"):
        next(leaf for _, leaf in leaves(program.args) if isinstance(leaf, np.ndarray))[0] = 5


def test_arguments_are_copied():
    x = np.ones(2)
    program = Program("def f(x):\n    return np.sum(x)", {"x": x})
    x[:] = 7
    assert program() == 2


def test_the_seed_is_part_of_the_program():
    graph = STOCHASTIC.graph()
    assert list(graph.stochastic) == ["b", "z"] and set(graph.parameters) == {"w", "m"}
    assert graph.cost.value == STOCHASTIC.graph(7).cost.value == STOCHASTIC().value != STOCHASTIC.graph(8).cost.value
    assert STOCHASTIC(*STOCHASTIC.args, rng=np.random.default_rng(7)).value == graph.cost.value
    assert STOCHASTIC(*STOCHASTIC.args, np.random.default_rng(7)).value == graph.cost.value
    assert "np.random.default_rng(7)" in str(STOCHASTIC) and STOCHASTIC.stochastic and not PLAIN.stochastic
    again = pickle.loads(pickle.dumps(graph))
    np.testing.assert_array_equal(
        again.gradients(rng=np.random.default_rng(1))["w"], graph.gradients(rng=np.random.default_rng(1))["w"]
    )


def test_which_arguments_are_differentiated():
    assert STOCHASTIC.argnums == 0 and PLAIN.argnums == (0, 1)
    chosen = Program(PLAIN.source, PLAIN.arguments, wrt=("y",))
    assert chosen.argnums == 1 and chosen.graph().parameters.value == 3.0 and "argnums=1" in str(chosen)


def test_messages_name_the_line_of_the_script():
    program = Program("def f(x):\n    y = np.exp(x)\n    return np.sum(y) + float(y)\n", {"x": np.ones(2)})
    with pytest.raises(ScgTypeError) as caught:
        program.graph()
    number = int(re.search(r"<program [0-9a-f]{8}>:(\d+), in f", str(caught.value))[1])
    assert str(program).splitlines()[number - 1] == "    return np.sum(y) + float(y)"
    assert "    return np.sum(y) + float(y)\n" in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    "source, arguments, wrt, message",
    [
        ("def f(x:\n    return x", {"x": 1.0}, None, "not Python.* line 1"),
        ("x = 1", {"x": 1.0}, None, "must define one function, got none"),
        ("def f(x):\n    return x\ndef g(x):\n    return x", {"x": 1.0}, None, "one function, got f, g"),
        ("def f(x):\n    return x", {"y": 1.0}, None, "f takes x; got y"),
        ("def f():\n    return 1.0", {"y": 1.0}, None, "f takes no arguments; got y"),
        ("def f(x):\n    return x", {"x": 1.0}, ("z",), "wrt names z, but the arguments are x"),
        ("def f(x):\n    return x", {"x": object()}, None, "arguments are arrays, numbers.*got object"),
        ("def f(x):\n    return x", {"x": {"a": [np.array(["s"])]}}, None, r"x\['a'\]\[0\]: .* arrays of numbers"),
        ("def f(x):\n    return x", {"x": scg.parameter(np.ones(1))}, None, "arrays of numbers, got <parameter"),
    ],
)
def test_what_is_no_program_is_refused(source, arguments, wrt, message):
    with pytest.raises((ScgValueError, ScgTypeError), match=message) as caught:
        Program(source, arguments, wrt=wrt)
    assert "test_programs.py" in str(caught.value)


DTYPES = st.sampled_from(
    [np.bool_, np.int8, np.uint16, np.int64, np.float16, np.float32, np.float64, np.complex64, np.complex128]
)


@drawn(200)
@given(DTYPES.flatmap(lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, min_side=0, max_side=4))))
def test_arrays_are_written_exactly(x):
    for value in (x, {"a": [x, (x,)]}, *([x.flat[0]] if x.size else [])):
        again = eval(literal(value), {"np": np})
        for (_, a), (_, b) in zip(leaves(value), leaves(again), strict=True):
            assert type(a) is type(b) and a.dtype == b.dtype and np.shape(a) == np.shape(b)
            np.testing.assert_array_equal(a, b)
            signs = [np.signbit(np.real(v)) & ~np.isnan(v) for v in (a, b)]  # of zeros; that of nan means nothing
            np.testing.assert_array_equal(*signs)


# ---- programs()


def test_hypothesis_is_not_needed_for_anything_else():
    code = """if True:
        import sys
        import scg
        assert "hypothesis" not in sys.modules, "imported without need"
        sys.modules["hypothesis"] = None
        assert "programs" not in dir(scg.testing) and "Program" in dir(scg.testing)
        try:
            scg.testing.programs
        except ImportError as error:
            print(error)
    """
    assert (
        run_apart(code)
        == "scg.testing.programs draws with Hypothesis, which is not installed: pip install 'scg[test]'\n"
    )
    assert "programs" in dir(scg.testing)
    with pytest.raises(AttributeError, match="no attribute 'progams'"):
        _ = scg.testing.progams


@pytest.mark.parametrize(
    "options, message",
    [
        (
            {"operations": ["np.tahn"]},
            "no operation or family is called np.tahn; families are contraction, elementwise",
        ),
        ({"operations": "np.tanh"}, "needs a list of names"),
        (
            {"operations": ["scipy.special.gammainc"], "order": 2},
            "none of scipy.special.gammainc is differentiable 2 times",
        ),
        ({"dtypes": [np.int64]}, "floating-point dtypes"),
        ({"dtypes": []}, "floating-point dtypes"),
        ({"max_statements": 0}, "max_statements and max_elements must be at least 1, got 0 and 16"),
        ({"max_arguments": 9}, "max_arguments must be between 1 and 6, got 9"),
    ],
)
def test_options_that_draw_nothing_are_refused(options, message):
    with pytest.raises((ScgValueError, ScgTypeError), match=message):
        programs(**options)


def watched(program, fn):
    """The result, with ``fn`` called on every statement's value."""
    source = re.sub(r"^    (v\d+) = (.*)$", r"    \1 = watch(\2)", program.source, flags=re.M)
    return Program(source, program.arguments).bound(watch=lambda x: (fn(x), x)[1])(*program.args)


@some(60)
@given(
    programs(
        max_statements=4,
        max_elements=6,
        max_arguments=2,
        dtypes=[np.float32],
        operations=["elementwise", "np.sum", "linalg"],
    )
)
def test_options_are_kept(program):
    assert program.source.count(" = ") <= 4
    found = [leaf for _, leaf in leaves(program.args)]
    assert len(found) <= 2 and {x.dtype for x in found} == {np.dtype(np.float32)} and max(x.size for x in found) <= 6
    numbers = np.concatenate([np.ravel(x) for x in found])
    assert len(set(numbers)) == numbers.size and np.all(numbers != 0)
    names = set(re.findall(r"= (np[.\w]+)\(", program.source))
    assert all(name == "np.sum" or OPERATIONS[name].family in ("elementwise", "linalg") for name in names)
    watched(program, lambda x: check_value(x, 6))


def check_value(x, size=16):
    assert np.isfinite(x).all() and np.max(np.abs(x)) <= BOUND and np.size(x) <= size


@some(200)
@given(programs())
def test_values_are_moderate_and_nothing_warns(program):
    with np.errstate(divide="raise", invalid="raise", over="raise"):
        value = watched(program, check_value)
    assert np.shape(value) == () and np.isfinite(value) and value == program()


KINKED = {
    "np.absolute": "np.absolute(x)",
    "np.sort": "np.sort(x, axis=-1)",
    "np.max": "np.max(x)",
    "np.argsort": None,
    "np.maximum": "np.maximum(v1, x)",
    "np.linalg.norm": "np.linalg.norm(x)",
    "np.std": "np.std(x, axis=-1)",
    "np.where": "np.where(v1 > 0.28125, x, v1)",
}


@pytest.mark.parametrize("name", KINKED)
def test_kinks_are_kept_away_from(name):
    program = write([((3,), np.float64)], [("np.subtract", 0), (name, 0)])
    assert "    v1 = np.subtract(x, x)\n" in program.source  # where all elements tie, at zero
    assert re.findall("v2 = (.*)", program.source) == [KINKED[name]] * (KINKED[name] is not None)


def settles(program, order):
    """Check derivatives by differences; False where these are zero, as of rel_entr(x, x), and differences see rounding
    only."""
    try:
        check_gradient(program, *program.args, order=order)
    except ScgValueError as error:
        assert "do not converge" in str(error)
        found = [
            scg.hvp(program, n)(*program.args, map_leaves(np.ones_like, arg)) for n, arg in enumerate(program.args)
        ]
        assert order == 2 and max(np.max(np.abs(leaf)) for _, leaf in leaves(found)) < 1e-13, error
        return False
    return True


# the covariance of float32 is float64 in NumPy, float32 here
SINGLE = [name for name in OPERATIONS if name != "np.cov"]


def stays_single(program):
    graph = program.graph()
    gradients = scg.gradients(graph.cost, graph.parameters, create_graph=True)
    # on the way back a derivative may be wider for precision
    nodes = [*graph.nodes, *[node for _, node in leaves(gradients)]]
    wide = [node for node in nodes if any(np.asarray(y).dtype == np.float64 for _, y in leaves(node.raw))]
    assert np.asarray(program()).dtype == np.float32 and not wide, wide


SHAPES = [(3,), (2, 2), (1, 3), (3, 3), (2, 2, 2), (), (2, 3)]


@pytest.mark.parametrize("times", first(1, [1, 3]))
@pytest.mark.parametrize("name", OPERATIONS)
def test_each_operation_is_drawn_and_its_derivatives_are_right(name, times):
    """By differences and complex steps, which know nothing of VJPs: on so many shapes and choices. In float32 nothing
    becomes wider."""
    rng, checked = np.random.default_rng(0), 0
    for seed in range(40):
        shapes = [SHAPES[rng.integers(len(SHAPES))] for _ in range(2)]
        program = write([(shape, np.float64) for shape in shapes], [(name, int(rng.integers(2**24)))], seed, seed % 4)
        if " = " in program.source and settles(program, min(2, OPERATIONS[name].order)):
            checked += 1
            if name in SINGLE:
                stays_single(Program(program.source, map_leaves(np.float32, program.arguments)))
        if checked == times:
            return
    pytest.fail(f"{name} is drawn {checked} times of 40")


# ---- laws


def test_derivatives_to_second_order():
    settled = []
    some(30)(given(programs())(lambda program: settled.append(settles(program, 2))))()
    assert np.mean(settled) > 0.9


@some(200)
@given(programs(dtypes=[np.float32, np.float64], operations=SINGLE))
def test_value_and_dtypes_are_those_of_numpy(program):
    plain = program()
    value, gradient = scg.value_and_grad(program, program.argnums)(*program.args)
    assert value.dtype == np.asarray(plain).dtype
    coarsest = max(np.finfo(x.dtype).eps for _, x in leaves(program.args))
    assert abs(value - plain) <= 2**6 * coarsest * (1 + abs(plain))
    expected = [leaf for n, arg in enumerate(program.args) for _, leaf in leaves(arg)]
    assert [(np.shape(g), g.dtype) for _, g in leaves(gradient)] == [(x.shape, x.dtype) for x in expected]


@some(100)
@given(programs(dtypes=[np.float32], operations=SINGLE))
def test_float32_in_float32_out(program):
    stays_single(program)


@some(100)
@given(programs(), st.integers(0, 2**32 - 1))
def test_entry_r_of_a_batched_replay_is_a_run_with_the_r_th_arguments(program, seed):
    rng, graph = np.random.default_rng(seed), program.graph()
    nodes = [node for _, node in leaves(graph.parameters)]
    batches = [node.value * (1 + 1e-3 * rng.uniform(-1, 1, (3, *node.shape))) for node in nodes]
    given_ = [rebuild(program.args, iter([b[r] for b in batches])) for r in range(3)]
    expected = np.array([program(*args) for args in given_])
    found = scg.replay(graph.cost, dict(zip(nodes, batches, strict=True)), batched=nodes)
    np.testing.assert_allclose(found, expected, 1e-12, 1e-12)
    gradients = scg.gradients(graph.cost, nodes, create_graph=True)
    again = scg.replay(gradients, dict(zip(nodes, batches, strict=True)), batched=nodes)
    everything = tuple(range(len(program.args)))
    each = [[g for _, g in leaves(scg.grad(program, everything)(*args))] for args in given_]
    for k, g in enumerate(again):
        one = np.stack([np.broadcast_to(column[k], nodes[k].shape) for column in each])
        np.testing.assert_allclose(np.broadcast_to(g, one.shape), one, 1e-10, 1e-10)


def test_an_if_before_a_run_does_not_enter_it():
    graph = STOCHASTIC.graph()
    if graph.cost > 0 or graph.cost < 0:  # decides nothing in what follows
        assert list(STOCHASTIC.graph().stochastic) == ["b", "z"]
    if graph.cost > 0 or graph.cost < 0:
        assert list(graph.run(rng=np.random.default_rng(0)).stochastic) == ["b", "z"]
