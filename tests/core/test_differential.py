"""A thousand drawn programs against autograd, which shares no code with this engine: values, gradients, products with
the Hessian."""

import functools
import re
from collections import Counter
from types import SimpleNamespace

import autograd
import autograd.numpy as anp
import autograd.scipy.special as asp
import numpy as np
import pytest
from autograd.misc.flatten import flatten
from hypothesis import HealthCheck, given, seed, settings

import scg
from scg.core.primitive import IMPLEMENTATIONS
from scg.core.tree import map_leaves
from scg.testing import Program, programs
from scg.testing.strategies.operations import OPERATIONS
from tests.support.drawn import first, share

# autograd's, of a gradient that is constant
pytestmark = pytest.mark.filterwarnings("ignore:Output seems independent of input")
EPS = float(np.finfo(float).eps)


# What the programs call, in autograd: its own function where it has one that is right, otherwise a definition by those
# it has.
def _flip(x, axis):
    return anp.swapaxes(anp.swapaxes(x, 0, axis)[::-1], 0, axis)


def _take(x, indices, axis):
    return anp.swapaxes(anp.swapaxes(x, 0, axis)[indices], 0, axis)


def _along(x, indices, axis):
    grid = list(np.ogrid[tuple([slice(n) for n in x.shape])])
    grid[axis] = indices
    return x[tuple(grid)]


def _raw(x):
    while hasattr(x, "raw"):
        x = x.raw
    return x


def _broadcast_to(x, shape):
    return x + np.zeros(shape)


def _where(mask, x, y):
    shape = np.broadcast_shapes(mask.shape, np.shape(x), np.shape(y))
    return anp.where(mask, _broadcast_to(x, shape), _broadcast_to(y, shape))


def _at(x, positions):
    return anp.ravel(x)[positions]


def _diagonal(x, axis1=-2, axis2=-1):
    i = np.arange(min(x.shape[-2:]))
    return x[..., i, i]


def _trapezoid(x, axis):
    first = anp.swapaxes(x, 0, axis)
    weights = np.ones(first.shape[0])
    weights[0] -= 0.5
    weights[-1] -= 0.5
    return anp.sum(anp.swapaxes(first * weights.reshape(-1, *[1] * (x.ndim - 1)), 0, axis), axis=axis)


def _prod(x, axis=None, keepdims=False):
    """autograd's own divides by the elements: NaN where one of them is zero."""
    axes = [i % x.ndim for i in (range(x.ndim) if axis is None else np.atleast_1d(axis))]
    for i in axes:
        first = anp.swapaxes(x, 0, i)
        x = anp.swapaxes(functools.reduce(anp.multiply, [first[j : j + 1] for j in range(first.shape[0])]), 0, i)
    return x if keepdims else anp.reshape(x, [n for i, n in enumerate(x.shape) if i not in axes])


def _over(x, cosine, sign):
    """sin(x) / x (sign -1, cosine cos) or sinh(x) / x (1, cosh), as cosine(x/2) ... cosine(x/2^8) times a series:
    smooth at 0."""
    u = sign * (x / 2.0**8) ** 2  # at most .0025: the next term is below eps
    series = 1 + u / 6 * (1 + u / 20 * (1 + u / 42))
    return functools.reduce(anp.multiply, [cosine(x / 2.0**k) for k in range(1, 9)], series)


def _cov(x):
    x = x - anp.mean(x, axis=1, keepdims=True)
    found = anp.dot(x, x.T) / (x.shape[1] - 1)
    return found if x.shape[0] > 1 else found[0, 0]


def _cumprod(x, axis):
    x = anp.swapaxes(x, 0, axis)
    return anp.swapaxes(anp.concatenate([_prod(x[: i + 1], 0, True) for i in range(x.shape[0])]), 0, axis)


def _convolve(x, y):
    shifted = [anp.concatenate([np.zeros(i), x * y[i], np.zeros(y.size - 1 - i)]) for i in range(y.size)]
    return anp.sum(anp.stack(shifted), axis=0)


def _solve(a, b):
    """autograd's own takes no vector with a stack of matrices."""
    if a.ndim == 2:
        return anp.linalg.solve(a, b)
    return anp.einsum("...ij,j->...i", anp.linalg.inv(a), b) if b.ndim == 1 else anp.matmul(anp.linalg.inv(a), b)


def _svd(x, compute_uv=True):
    return anp.linalg.svd(x, full_matrices=False) if compute_uv else anp.linalg.svd(x, compute_uv=False)


class _Joined:
    """A module with some of its names replaced."""

    def __init__(self, module, **names):
        self.__dict__.update(names, _module=module)

    def __getattr__(self, name):
        return getattr(self._module, name)


NUMPY = _Joined(
    anp,
    positive=lambda x: x + 0.0,
    power=lambda x, y: anp.exp(y * anp.log(x)),
    cbrt=lambda x: anp.exp(anp.log(x) / 3),
    i0=asp.i0,
    nansum=anp.sum,
    nanmean=anp.mean,
    prod=_prod,
    sinc=lambda x: _over(np.pi * x, anp.cos, -1),
    ptp=lambda x, **statics: anp.max(x, **statics) - anp.min(x, **statics),
    average=lambda x, weights: anp.sum(weights * x) / anp.sum(weights),
    cov=_cov,
    cumprod=_cumprod,
    sort=lambda x, axis: _along(x, np.argsort(_raw(x), axis), axis),
    take_along_axis=_along,
    trapezoid=_trapezoid,
    convolve=_convolve,
    polyval=lambda c, x: functools.reduce(lambda total, a: total * x + a, c, 0.0),
    where=_where,
    outer=lambda x, y: anp.ravel(x)[:, None] * anp.ravel(y),
    vdot=lambda x, y: anp.sum(anp.ravel(x) * anp.ravel(y)),
    broadcast_to=_broadcast_to,
    flip=_flip,
    repeat=lambda x, n, axis: _take(x, np.repeat(np.arange(x.shape[axis]), n), axis),
    take=_take,
    tile=lambda x, n: _at(x, np.tile(np.arange(x.size).reshape(x.shape), n)),
    diagonal=_diagonal,
    diag=lambda x: x[:, None] * np.eye(x.size) if x.ndim == 1 else _diagonal(x),
    linalg=_Joined(
        anp.linalg,
        svd=_svd,
        solve=_solve,
        eigvalsh=lambda x: anp.linalg.eigh(x)[0],
        matrix_power=lambda x, n: functools.reduce(anp.matmul, [x] * n),
    ),
    fft=_Joined(anp.fft, rfft=lambda x: anp.fft.fft(x)[..., : x.shape[-1] // 2 + 1]),
)
SPECIAL = _Joined(
    asp,
    log_expit=lambda x: -anp.logaddexp(0.0, -x),
    ndtr=lambda x: asp.erfc(-x / 2**0.5) / 2,
    log_ndtr=lambda x: anp.log(asp.erfc(-x / 2**0.5) / 2),
    ndtri=lambda p: 2**0.5 * asp.erfinv(2 * p - 1),
    entr=lambda x: -x * anp.log(x),
    xlogy=lambda x, y: x * anp.log(y),
    xlog1py=lambda x, y: x * anp.log1p(y),
    rel_entr=lambda x, y: x * anp.log(x / y),
    kl_div=lambda x, y: x * anp.log(x / y) - x + y,
    exprel=lambda x: anp.exp(x / 2) * _over(x / 2, anp.cosh, 1),
    i0e=lambda x: anp.exp(-anp.abs(x)) * asp.i0(x),
    jv=asp.jn,
)
OURS = SimpleNamespace(
    special=SimpleNamespace(
        softmax=lambda x, axis: anp.exp(x - asp.logsumexp(x, axis=axis, keepdims=True)),
        softplus=lambda x: anp.logaddexp(0.0, x),
        logsumexp=asp.logsumexp,
    )
)
MISSING = {  # autograd has neither these nor what they could be defined by
    "scipy.special.erfcx",
    "scipy.special.dawsn",
    "scipy.special.k0",
    "scipy.special.k1e",
    "scipy.special.exp1",
    "scipy.special.spence",
    "scipy.special.ellipk",
    "scipy.special.gammainc",
    "scipy.special.gammaincc",
    "np.add.reduce",
    "np.median",
    "np.quantile",
    "np.gradient",
    "np.fft.irfft",
}
COMMON = [name for name in OPERATIONS if name not in MISSING]


RELATIVE, ABSOLUTE = 1e-9, 1e-12  # of the largest element: what a thousand roundings explain, see below


def direction(flat):
    return np.cos(np.arange(flat.size))


def theirs(program):
    """Value, gradient and Hessian times ``direction``, by autograd, flat."""
    fn = program.bound(np=NUMPY, special=SPECIAL, scg=OURS)
    flat, unflatten = flatten(program.args)
    product, gradient = autograd.make_vjp(autograd.grad(lambda z: fn(*unflatten(z))))(flat)
    return fn(*program.args), gradient, product(direction(flat))


def ours(program, fn=None, args=None):
    """The same by scg; of another function on other arguments, where given."""
    fn, args = fn or program.function, args or program.args
    everything, (flat, unflatten) = tuple(range(len(args))), flatten(program.args)
    value, gradient = scg.value_and_grad(fn, everything)(*args)
    return value, flatten(gradient)[0], flatten(scg.hvp(fn, everything)(*args, unflatten(direction(flat))))[0]


def agree(program):
    """Assert that both engines find the same; the largest elements of gradient and product."""
    sizes = []
    for what, found, expected in zip(
        ("value", "gradient", "Hessian times direction"), ours(program), theirs(program), strict=True
    ):
        size = np.max(np.abs(expected), initial=0)
        wrong = np.max(np.abs(found - expected), initial=0)
        assert wrong <= RELATIVE * size + ABSOLUTE, f"{what} differs by {wrong:.3g}: {found}, autograd {expected}"
        sizes.append(size)
    return sizes[1:]


def survey(check, examples, number=0, **options):
    """``check`` held for so many drawn programs: what it returned, for each that is different."""
    found = {}

    @seed(number)
    # a draw takes milliseconds
    @settings(max_examples=examples, suppress_health_check=list(HealthCheck), report_multiple_bugs=False)
    @given(programs(**options))
    def each(program):
        if program not in found:
            found[program] = check(program)

    each()
    return found


@pytest.mark.parametrize("examples", first(1, [250, 1150]))
def test_drawn_programs(examples):
    found = survey(agree, examples, operations=COMMON)
    assert len(found) >= 0.87 * examples
    called = Counter(
        name for program in found for name in set(re.findall(r"(?<![\w.])(?:np|special|scg)(?:\.\w+)+", program.source))
    )
    absent = [name for name in COMMON if not called[name.removeprefix("scipy.")] and not name.startswith("operator")]
    assert len(absent) <= 3 or examples < 1000, absent  # each is held alone as well
    lengths = [program.source.count(" = ") for program in found]
    assert np.mean(lengths) > 3.5 and np.mean([length >= 8 for length in lengths]) > 0.15
    assert {type(arg) for program in found for arg in program.args} == {np.ndarray, dict, list}
    vanishing = np.mean([[size == 0 for size in sizes] for sizes in found.values()], axis=0)
    assert vanishing[0] < 0.02 and vanishing[1] < 0.15, "so many programs have derivatives that are zero"


@pytest.mark.parametrize("examples", first(1, [6, 24]))
@pytest.mark.parametrize("name", COMMON)
def test_each_operation_alone(name, examples):
    found = survey(agree, examples, operations=[name], max_statements=1)
    assert sum(" = " in program.source for program in found) >= 2


@pytest.mark.long
def test_many_more_programs():
    assert len(survey(agree, 20_000, 1, operations=COMMON, max_statements=20, max_elements=36)) > 15_000


DELTA = 2.0**-20
# units of rounding within one statement: no value has more than 16 elements, no operation more than 64 terms
ROUNDINGS = 64


def shaken(program, number):
    """The program and its arguments with each element of each value changed by DELTA, up or down."""
    rng = np.random.default_rng(number)
    shake = lambda x: x * (1 + DELTA * rng.choice([-1.0, 1.0], np.shape(x)))
    fn = Program(
        re.sub(r"^    (v\d+) = (.*)$", r"    \1 = shake(\2)", program.source, flags=re.M), program.arguments
    ).bound(shake=shake)
    return fn, map_leaves(shake, program.args)


def test_the_tolerance_is_what_rounding_explains():
    """An engine rounds each value and each cotangent, as if each had been multiplied by 1 + d with |d| <= ROUNDINGS
    eps.

    A factor 1 + d on a value multiplies its cotangent as well. What factors with |d| = DELTA change, over DELTA, is how
    roundings are amplified; ROUNDINGS eps times this stays below the tolerance. So the conditioning of the programs
    explains no difference above it.
    """

    def amplified(program):
        exact = ours(program)
        others = [ours(program, *shaken(program, k)) for k in range(2)]
        changed = [[np.max(np.abs(a - b), initial=0) for a, b in zip(other, exact, strict=True)] for other in others]
        allowed = [RELATIVE * np.max(np.abs(b), initial=0) + ABSOLUTE for b in exact]
        return np.max(changed, axis=0) / DELTA * ROUNDINGS * EPS / allowed

    used = np.array(list(survey(amplified, share(150), 2, operations=COMMON).values()))
    assert np.max(used) < 1 and np.max(used) > 1e-6


WRONG = {  # where autograd 1.9 is wrong or has nothing, and what is right
    "repeat along the last axis": (
        "np.sum(np.repeat(x, 2, axis=1)[0] * np.arange(4))",
        [[1.0, 2.0], [3.0, 4.0]],
        [[1, 5], [0, 0]],
    ),
    "the diagonal of a row": ("np.sum(np.diag(x))", [[1.0, 2.0, 3.0]], [[1, 0, 0]]),
    "a product with a zero": ("np.prod(x)", [0.0, 2.0, 3.0], [6, 0, 0]),
    "where with a scalar": ("np.sum(np.where(np.arange(3) > 0, x, 0.0))", 2.0, 2),
}


@pytest.mark.parametrize("name", WRONG)
def test_where_autograd_is_no_oracle(name):
    expression, x, gradient = WRONG[name]
    program = Program(f"def cost(x):\n    return {expression}", {"x": np.array(x)})
    np.testing.assert_array_equal(scg.grad(program)(*program.args), gradient)
    # with what it has here in their place
    np.testing.assert_array_equal(autograd.grad(program.bound(np=NUMPY))(*program.args), gradient)


def test_sinc_near_zero():
    """sinc(x) = 1 - (pi x)^2 / 6 + (pi x)^4 / 120 - ...: autograd subtracts sinc from cos, which at 1e-8 leaves nothing
    of sinc''."""
    for x in (0.0, 1e-17, 1e-8, 1e-5):
        exact = -(np.pi**2) / 3 + np.pi**4 * x**2 / 10
        assert abs(scg.hessian(np.sinc)(x) - exact) < 1e-14


SABOTEURS = {
    "np.tanh": (np.tanh, lambda g, out, x: g * (1 + out * out), "v1 = np.tanh(x)"),
    "np.exp": (np.exp, lambda g, out, x: g * scg.stop_gradient(out), "v1 = np.exp(x)"),
    "np.arctan2": (np.arctan2, lambda g, out, y, x: g * x / (x * x - y * y), "v1 = np.arctan2("),
}


@pytest.mark.parametrize("name", SABOTEURS)
def test_a_wrong_vjp_is_found_and_shrinks_to_one_line(name, monkeypatch):
    fn, wrong, line = SABOTEURS[name]
    monkeypatch.setattr(IMPLEMENTATIONS[fn], "vjps", (wrong, *IMPLEMENTATIONS[fn].vjps[1:]))
    with pytest.raises(AssertionError, match="differs by") as caught:
        survey(agree, 300, operations=["np.exp", "np.tanh", "np.arctan2", "np.multiply", "np.sum"])
    printed = "\n".join(caught.value.__notes__)
    script = printed[printed.index("import numpy") : printed.index("\n,\n")]  # Hypothesis closes the call
    assert line in script and "v2" not in script and len(script.splitlines()) < 14
    exec(compile(script, "script", "exec"), {})
