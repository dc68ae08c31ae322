"""Estimators written in NumPy, PyTorch and JAX: right and subtly wrong ones, each judged right; and what a bridge does
beside drawing: seeds, loops, the state of a library that is put back."""

import pickle
import random
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest

import scg
from scg.errors import ScgError
from scg.testing import judge
from scg.variance import compare
from tests.support import foreign, jax_estimators, torch_estimators
from tests.support.foreign import LOGITS, mixed_cost, mixed_truth, mixed_value

QUICK = {"alpha": 1e-6, "detect": 0.2, "power": 0.999}
"""Of wrong estimators the bias is a fifth of the gradient and more; of right ones a bias of that size is excluded."""


def rng(seed=0):
    return np.random.default_rng(seed)


def test_importing_scg_imports_no_framework():
    code = "import sys, scg; scg.bridge.Samples; sys.exit(bool({'torch', 'jax'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# NumPy


def pair(theta, rng):
    p = 1 / (1 + np.exp(-theta))
    b = (rng.random((2, 3)) < p).astype(float)
    return mixed_value(b), b - p


def leave_one_out(theta, rng):
    f, score = pair(theta, rng)
    return (f[0] - f[1]) * (score[0] - score[1]) / 2


def mean_of_all(theta, rng):
    """Each sample is in its own baseline: 1 - 1/K of the gradient."""
    f, score = pair(theta, rng)
    return ((f - f.mean())[:, None] * score).mean(axis=0)


@pytest.mark.fast
@pytest.mark.parametrize("fn, status", [(leave_one_out, "unbiased"), (mean_of_all, "biased")])
def test_numpy_estimators_are_judged_right(fn, status):
    samples = scg.bridge.numpy(fn, np.array(LOGITS))
    assert judge(samples, reference=mixed_truth(), rng=rng(), **QUICK).status == status


@pytest.mark.fast
@pytest.mark.parametrize(
    "fn, words",
    [
        (lambda rng: np.zeros(int(rng.integers(1, 9))), "one shape"),
        (lambda rng: {"a": 1.0} if rng.random() < 0.5 else {"b": 1.0}, "one structure"),
    ],
)
def test_gradients_of_calls_have_one_structure(fn, words):
    with pytest.raises(ScgError, match=words):
        scg.bridge.numpy(fn).take(20, rng())


@pytest.mark.fast
def test_a_function_of_structures_is_stacked():
    found = scg.bridge.numpy(lambda a, rng: {"x": a * rng.random(), "n": (1, np.ones(2))}, 2.0).take(3, rng())
    np.testing.assert_array_equal(found["x"], 2 * rng().random(3))
    assert found["n"][0].shape == (3,) and found["n"][1].shape == (3, 2)


# PyTorch


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


TORCH = {"leave_one_out": "vmap", "disarm": "vmap", "rebar": "vmap", "inner": "loop", "function": "loop"}


@pytest.mark.parametrize("name", TORCH)
def test_right_pytorch_estimators_are_judged_right(torch, name):
    samples = scg.bridge.torch(getattr(torch_estimators, name), torch.tensor(LOGITS, dtype=torch.float64))
    assert TORCH[name] in samples.method
    options = QUICK if TORCH[name] == "vmap" else {**QUICK, "detect": 1.0}  # a loop takes 0.3 ms a draw
    assert judge(samples, reference=mixed_truth(), rng=rng(), **options).status == "unbiased"


@pytest.mark.parametrize("name", ["mean_of_all", "detached", "straight_through"])
def test_wrong_pytorch_estimators_are_judged_wrong(torch, name):
    samples = scg.bridge.torch(getattr(torch_estimators, name), torch.tensor(LOGITS, dtype=torch.float64))
    assert judge(samples, reference=mixed_truth(), rng=rng(), **QUICK).status == "biased"


def test_pytorch_estimators_and_ours_stand_in_one_table_with_the_same_exact_variances(torch):
    theta = torch.tensor(LOGITS, dtype=torch.float64)
    ours = {
        "leave_one_out": scg.ScoreFunction(samples=2, baseline=scg.LeaveOneOut()),
        "disarm": scg.DisARM(),
        "rebar": scg.REBAR(temperature=0.5, scale=1.0),
    }
    rows = {name: {"b": estimator} for name, estimator in ours.items()}
    rows |= {f"torch {name}": scg.bridge.torch(getattr(torch_estimators, name), theta, evaluations=2) for name in ours}
    graph = scg.trace(mixed_cost, np.array(LOGITS), rng=rng())
    report = compare(graph, rows, replicates=40_000, rng=rng(1))
    for name in ours:
        mine, theirs = report[name].total, report[f"torch {name}"].total
        exact = mine.exact_variance if name != "rebar" else rebar_variance()
        for entry in (mine, theirs):
            wide = 4 / 1.96 * (entry.high - entry.low) / 2  # four standard errors
            assert abs(entry.variance - exact) < wide and entry.bias_p > 1e-6
        assert theirs.evaluations == 2


def rebar_variance():
    """The sum of variances by quadrature over the noise of each bit, Gauss-Legendre, for each outcome of the bits."""
    x, w = np.polynomial.legendre.leggauss(24)
    v = foreign.grid((x + 1) / 2)
    weight = np.prod(foreign.grid(w / 2), axis=1)
    l, p = np.array(LOGITS), foreign.expit(np.array(LOGITS))
    square = 0.0
    for b in foreign.outcomes(3):
        s = 2 * b - 1
        above = np.log(v) - np.log1p(-v) + np.logaddexp(0, s * l)
        soft = foreign.expit(s * np.logaddexp(0, above) / 0.5)
        inner = (soft @ foreign.WEIGHTS - 0.8)[:, None]
        slope = 2 * inner * foreign.WEIGHTS * soft * (1 - soft) / 0.5
        # given b the noise of z and that of z' are independent: g is a sum of a function of either
        given = (mixed_value(b) - inner**2) * (b - p) - slope * foreign.expit(above) * foreign.expit(s * l)
        both = weight @ given**2 + 2 * (weight @ given) * (weight @ slope) + weight @ slope**2
        square += np.prod(np.where(b > 0, p, 1 - p)) * np.sum(both)
    return square - np.sum(mixed_truth() ** 2)


@pytest.mark.parametrize("kind", ["tensor", "list", "dict", "parameters", "module"])
def test_parameters_of_any_structure(torch, kind):
    """Of E[(w x + b)^2], x standard normal: 2w and 2b."""
    model = torch.nn.Linear(2, 1).double()
    weight, bias = model.weight, model.bias
    slopes = 2 * weight.detach().numpy(), 2 * bias.detach().numpy()

    def x(generator):
        return torch.randn(2, generator=generator, dtype=torch.float64)

    both = {"weight": slopes[0], "bias": slopes[1]}
    params, loss, reference = {
        "tensor": (weight, lambda w, g: ((w @ x(g) + bias.detach()) ** 2).sum(), slopes[0]),
        "list": ([weight, bias], lambda p, g: ((p[0] @ x(g) + p[1]) ** 2).sum(), list(slopes)),
        "dict": (dict(model.named_parameters()), lambda p, g: ((p["weight"] @ x(g) + p["bias"]) ** 2).sum(), both),
        "parameters": (model.parameters(), lambda p, g: ((p[0] @ x(g) + p[1]) ** 2).sum(), list(slopes)),
        "module": (model, lambda m, g: (m(x(g)) ** 2).sum(), both),
    }[kind]
    samples = scg.bridge.torch(loss, params)
    assert samples.method == "torch.vmap"
    assert judge(samples, reference=reference, rng=rng(), **QUICK).status == "unbiased"
    assert all(p.grad is None for p in model.parameters())


def test_a_loss_that_reads_parameters_beside_its_argument_is_looped(torch):
    model = torch.nn.Linear(2, 1)
    samples = scg.bridge.torch(lambda p, g: model(torch.ones(2)).sum(), dict(model.named_parameters()))
    assert "beside its argument" in samples.method
    np.testing.assert_array_equal(samples.take(2, rng())["weight"], np.ones((2, 1, 2)))


def test_the_state_of_pytorch_is_put_back(torch):
    model = torch.nn.BatchNorm1d(2)
    buffers = {name: x.clone() for name, x in model.named_buffers()}

    def loss(module, generator):
        torch.set_default_dtype(torch.float64)
        torch.set_grad_enabled(True)
        return (module(torch.randn(4, 2, dtype=torch.float32)) * torch.ones(2, dtype=torch.float32)).pow(3).sum()

    torch.manual_seed(5)
    expected = torch.random.get_rng_state()
    with torch.no_grad():
        samples = scg.bridge.torch(loss, model)
        one, other = samples.take(3, rng(1)), samples.take(3, rng(1))
        assert not torch.is_grad_enabled()
    np.testing.assert_array_equal(one["weight"], other["weight"])
    assert torch.equal(expected, torch.random.get_rng_state()) and torch.get_default_dtype() == torch.float32
    assert all(torch.equal(x, buffers[name]) for name, x in model.named_buffers())
    assert vars(torch.distributions.Distribution)["_validate_args"] is True


@pytest.mark.parametrize("name", ["Normal", "Exponential", "Gumbel"])
def test_distributions_of_pytorch_are_drawn_together_and_apart(torch, name):
    """Each replicate has its own draws, of the distribution."""

    def loss(p, generator):
        family = {"Normal": (p, 1.0), "Exponential": (p.exp(),), "Gumbel": (p, 1.0)}[name]
        return (getattr(torch.distributions, name)(*family).rsample() * p).sum()

    samples = scg.bridge.torch(loss, torch.zeros(2, dtype=torch.float64))
    assert samples.method == "torch.vmap"
    x = samples.take(50, rng())
    assert len(np.unique(x)) == 100


@pytest.mark.parametrize(
    "loss, params, words",
    [
        (lambda p, g: p, "floats", "shape"),
        (lambda p, g: 1.0, "floats", "got float"),
        (lambda p, g: p.detach().sum(), "floats", "depends on no parameter"),
        (lambda p, g: p.sum(), "integers", "floating tensors"),
        (lambda p, g: p.sum(), "array", "floating tensors, got ndarray"),
        (None, "floats", "needs a function"),
    ],
)
def test_losses_and_parameters_of_another_kind_are_refused(torch, loss, params, words):
    given = {"floats": torch.zeros(2), "integers": torch.zeros(2, dtype=torch.int64), "array": np.zeros(2)}[params]
    with pytest.raises(ScgError, match=words):
        scg.bridge.torch(loss, given)


@pytest.mark.parametrize("number, whose", [(np.random.random, "NumPy's"), (random.random, "Python's")])
def test_numbers_of_a_global_generator_in_a_loss_are_refused(torch, number, whose):
    samples = scg.bridge.torch(lambda p, g: p.sum() * number(), torch.zeros(2))
    with pytest.raises(ScgError, match=f"{whose} global generator"):
        judge(samples, reference=np.zeros(2), rng=rng())


def test_a_baseline_that_learns_from_call_to_call_is_refused(torch):
    baseline = [0.0]

    def loss(p, g):
        b = torch.bernoulli(torch.sigmoid(p).detach())
        cost, score = torch.sum(b), -torch.nn.functional.binary_cross_entropy_with_logits(p, b)
        learned, baseline[0] = baseline[0], 0.9 * baseline[0] + 0.1 * cost
        return (cost - learned) * score

    with pytest.raises(ScgError, match="a baseline that learns"):
        judge(scg.bridge.torch(loss, torch.zeros(2)), reference=np.zeros(2), rng=rng())


def test_a_loss_that_is_always_a_nan_is_not_called_seeded(torch):
    verdict = judge(
        scg.bridge.torch(lambda p, g: p.sum() * torch.rand(()) * np.nan, torch.zeros(2)),
        reference=np.zeros(2),
        rng=rng(),
    )
    assert verdict.status == "inconclusive" and "not finite" in str(verdict)


# JAX


@pytest.fixture
def jax():
    return pytest.importorskip("jax")


@pytest.mark.parametrize(
    "name, status",
    [
        ("leave_one_out", "unbiased"),
        ("straight_through", "biased"),
        pytest.param("mean_of_all", "biased", marks=pytest.mark.long),
    ],
)
def test_jax_estimators_are_judged_right(jax, name, status):
    samples = scg.bridge.jax(getattr(jax_estimators, name), np.array(LOGITS))
    assert "vmap" in samples.method
    assert judge(samples, reference=mixed_truth(), rng=rng(), **QUICK).status == status


def test_what_jax_cannot_trace_is_looped(jax):
    samples = scg.bridge.jax(jax_estimators.untraceable, np.array(LOGITS))
    assert "loop" in samples.method and "Tracer" in samples.method
    assert judge(samples, reference=mixed_truth(), rng=rng(), **{**QUICK, "detect": 2.0}).status == "unbiased"


def test_the_precision_of_jax_is_put_back(jax):
    def fn(key, x):
        jax.config.update("jax_enable_x64", True)
        return jax.numpy.asarray(x) * jax.random.normal(key)

    before = jax.config.jax_enable_x64
    scg.bridge.jax(fn, 1.0).take(2, rng())
    assert jax.config.jax_enable_x64 == before


def test_numbers_that_tracing_would_freeze_are_refused(jax):
    with pytest.raises(ScgError, match="other numbers for the same key"):
        scg.bridge.jax(lambda key, x: x * np.random.random(), 1.0)


def test_any_number_of_draws_is_drawn(jax):
    samples = scg.bridge.jax(lambda key, x: x * jax.random.normal(key, (2,)), np.ones(2))
    for n in (1, 31, 33, 2400):
        found = samples.take(n, rng())
        assert found.shape == (n, 2) and len(np.unique(found, axis=0)) == n


# all


def bridged():
    made = {"numpy": scg.bridge.numpy(leave_one_out, np.array(LOGITS))}
    theta = pytest.importorskip("torch").tensor(LOGITS, dtype=pytest.importorskip("torch").float64)
    made["torch"] = scg.bridge.torch(torch_estimators.leave_one_out, theta)
    pytest.importorskip("jax")
    made["jax"] = scg.bridge.jax(jax_estimators.leave_one_out, np.array(LOGITS))
    return made


@pytest.mark.long
def test_figures_are_the_same_in_other_processes():
    """Fresh ones: a fork of a process in which JAX runs is none of ours to make."""
    rows = bridged()
    here = compare(mixed_truth(), rows, replicates=3000, rng=rng(2))
    there = compare(
        mixed_truth(),
        pickle.loads(pickle.dumps(rows)),
        replicates=3000,
        rng=rng(2),
        executor=lambda: ProcessPoolExecutor(2, mp_context=get_context("spawn")),
    )
    for label in rows:
        np.testing.assert_array_equal(here[label].mean, there[label].mean)
        assert here[label].total.variance == there[label].total.variance


@pytest.mark.parametrize("name", ["torch", "jax"])
def test_a_gradient_without_random_numbers_is_known_to_be_constant(name):
    library = pytest.importorskip(name)
    if name == "torch":
        samples = scg.bridge.torch(lambda p, g: (p**2).sum(), library.ones(2, dtype=library.float64))
    else:
        samples = scg.bridge.jax(lambda key, x: 2 * x, np.ones(2))
    assert judge(samples, reference=np.ones(2), rng=rng(), **QUICK).status == "biased"
    assert judge(samples, reference=np.full(2, 2.0), rng=rng(), **QUICK).status == "unbiased"
