"""A zero by structure absorbs: where a branch is not taken, or a factor is zero, the infinite or NaN other side leaves
no trace in a derivative.

A zero that was computed does not: there is the limit of the derivatives nearby, or NaN.
"""

import numpy as np
import pytest
import scipy.special as sp

import scg
from scg.core.axes import elementwise
from scg.core.backward import pull
from scg.core.leaves import parameter
from scg.core.node import Node
from scg.core.tree import leaves
from scg.errors import GuardError
from scg.testing import check_gradient
from tests.support.cases import all_cases

pytestmark = pytest.mark.fast

INF, NAN = np.inf, np.nan
E = np.exp(1.0)
SOFT = 1 / (1 + E)  # softmax of (0, 1) at 0
RAMP = np.array([[1.0, 0.0], [0.0, 1.0]])
CATALOGUE = [case for case in all_cases() if case.order]

# name: f, x, the gradient of sum(f), and the Hessian of sum(f) times a vector of ones (None: infinite, undefined, or a
# convention)
TABLE = {
    # branches of where
    "where(x > 0, sqrt(x), 0)": (lambda x: np.where(x > 0, np.sqrt(x), 0), [0, -1, 4], [0, 0, 1 / 4], [0, 0, -1 / 32]),
    "where(x > 0, log(x), 0)": (lambda x: np.where(x > 0, np.log(x), 0), [0, -1, 2], [0, 0, 1 / 2], [0, 0, -1 / 4]),
    "where(x != 0, sin(x) / x, 1)": (
        lambda x: np.where(x != 0, np.sin(x) / x, 1),
        [0, np.pi],
        [0, -1 / np.pi],
        None,  # -1/3, of which digits nearby show seven
    ),
    "where(x > 0, x log x, 0)": (lambda x: np.where(x > 0, x * np.log(x), 0), [0, 1], [0, 1], [0, 1]),
    "where(x > 0, sqrt(x) log x, 0)": (lambda x: np.where(x > 0, x**0.5 * np.log(x), 0), [0, 1], [0, 1], [0, 0]),
    "where(x > 0, 1 / x, x)": (lambda x: np.where(x > 0, 1 / x, x), [0, 2], [1, -1 / 4], [0, 1 / 4]),
    "where(x > 0, exp(-1 / x), 0)": (lambda x: np.where(x > 0, np.exp(-1 / x), 0), [0, 1], [0, 1 / E], [0, -1 / E]),
    "where(x < 10, exp(x), 0)": (lambda x: np.where(x < 10, np.exp(x), 0), [1e4, 0], [0, 1], [0, 1]),
    "where(x > 30, x, log1p(exp(x)))": (
        lambda x: np.where(x > 30, x, np.log1p(np.exp(x))),
        [1e4, 0],
        [1, 1 / 2],
        [0, 1 / 4],
    ),
    "where(x > -1, log1p(x), 0)": (lambda x: np.where(x > -1, np.log1p(x), 0), [-1, 0], [0, 1], [0, -1]),
    "where(isnan(x), 0, x^2)": (lambda x: np.where(np.isnan(x), 0, x**2), [NAN, 3], [0, 6], [0, 2]),
    "where(|x| < 1, arctanh(x), 0)": (
        lambda x: np.where(np.abs(x) < 1, np.arctanh(x), 0),
        [1, -1, 0],
        [0, 0, 1],
        [0, 0, 0],
    ),
    "where(|x| < 1, arcsin(x), 0)": (
        lambda x: np.where(np.abs(x) < 1, np.arcsin(x), 0),
        [2, -1, 0],
        [0, 0, 1],
        [0, 0, 0],
    ),
    "where(x > 1, arccosh(x), 0)": (
        lambda x: np.where(x > 1, np.arccosh(x), 0),
        [1, 0, 2],
        [0, 0, 3**-0.5],
        [0, 0, -2 * 3**-1.5],
    ),
    "where(x > 0, x^-1.5, 0)": (lambda x: np.where(x > 0, x**-1.5, 0), [0, 1], [0, -1.5], [0, 3.75]),
    "where(x > 0, cbrt(x), 0)": (lambda x: np.where(x > 0, np.cbrt(x), 0), [0, 1], [0, 1 / 3], [0, -2 / 9]),
    "where(x > 0, tan(x) / x, 0)": (
        lambda x: np.where(x > 0, np.tan(x) / x, 0),
        [0, np.pi / 4],
        [0, 8 / np.pi - 16 / np.pi**2],
        None,
    ),
    "nested where": (
        lambda x: np.where(x > 0, np.sqrt(np.where(x > 1, np.log(x), x)), 0),
        [0, 1 / 4, E],
        [0, 1, 1 / (2 * E)],
        None,
    ),
    "where, and a sum before the root": (
        lambda x: np.where(np.sum(x) > 0, np.sqrt(np.sum(x)), 0.0),
        [0, 0],
        [0, 0],
        [0, 0],
    ),
    "where, and a sum of the rows behind": (
        lambda x: np.sum(np.where(x > 0, np.log(x), 0), axis=0) ** 2,
        [[0, 1], [E, E]],
        [[0, 2], [2 / E, 2 / E]],
        None,
    ),
    "where, modf beside it": (lambda x: np.where(x > 0, np.sqrt(x), 0) + np.modf(x)[0], [0, 1 / 4], [1, 2], [0, -2]),
    "where(x < y, sqrt(y - x), 0)": (
        lambda x: np.where(x[0] < x[1], np.sqrt(x[1] - x[0]), 0),
        [[1, 0], [1, 4]],
        [[0, -1 / 4], [0, 1 / 4]],
        [[0, 0], [0, 0]],
    ),
    "where(x > 0, gammaln(x), 0)": (
        lambda x: np.where(x > 0, sp.gammaln(x), 0),
        [0, 1],
        [0, -np.euler_gamma],
        [0, np.pi**2 / 6],
    ),
    "where(0 < x < 1, logit(x), 0)": (
        lambda x: np.where((x > 0) & (x < 1), sp.logit(x), 0),
        [0, 1 / 2, 1],
        [0, 4, 0],
        [0, 0, 0],
    ),
    "where(|x| < 1, erfinv(x), 0)": (
        lambda x: np.where(np.abs(x) < 1, sp.erfinv(x), 0),
        [1, 0],
        [0, np.pi**0.5 / 2],
        [0, 0],
    ),
    "select": (lambda x: np.select([x > 0], [np.log(x)], 0.0), [0, 2], [0, 1 / 2], [0, -1 / 4]),
    # extrema and clipping
    "sqrt(maximum(x, 0))": (lambda x: np.sqrt(np.maximum(x, 0)), [-1, 4], [0, 1 / 4], [0, -1 / 32]),
    "sqrt(maximum(x, 0)) at 0 is steep": (lambda x: np.sqrt(np.maximum(x, 0)), [0, 4], [INF, 1 / 4], None),
    "where(x > 0, 1 / maximum(x, 0), 0)": (
        lambda x: np.where(x > 0, 1 / np.maximum(x, 0), 0),
        [-1, 0, 2],
        [0, 0, -1 / 4],
        [0, 0, 1 / 4],
    ),
    "arccos(clip(x, -1, 1)) outside": (lambda x: np.arccos(np.clip(x, -1, 1)), [2, -3, 0], [0, 0, -1], [0, 0, 0]),
    "log(clip(x, tiny, 1))": (lambda x: np.log(np.clip(x, 1e-3, 1)), [0, 1 / 2], [0, 2], [0, -4]),
    "maximum of -inf, a tie": (lambda x: np.max(x), [-INF, -INF], [1 / 2, 1 / 2], [0, 0]),
    "maximum beside -inf": (lambda x: np.max(x), [-INF, 1], [0, 1], [0, 0]),
    "median beside inf": (lambda x: np.median(x), [INF, 1, 2], [0, 0, 1], [0, 0, 0]),
    # masks
    "sqrt(x) * mask": (lambda x: np.sqrt(x) * np.array([0.0, 1.0]), [0, 4], [0, 1 / 4], [0, -1 / 32]),
    "mask @ where(log)": (
        lambda x: np.array([0.0, 1.0]) @ np.where(x > 0, np.log(x), 0),
        [0, 2],
        [0, 1 / 2],
        [0, -1 / 4],
    ),
    "weighted average": (
        lambda x: np.average(np.where(x > 0, np.log(x), 0), weights=[0.0, 1.0]),
        [0, 2],
        [0, 1 / 2],
        [0, -1 / 4],
    ),
    "(1 / x) rows masked after a product": (
        lambda x: np.where([True, False], (1 / x) @ RAMP, 0),
        [2, 0],
        [-1 / 4, 0],
        [1 / 4, 0],
    ),
    "infinite row of a matrix, masked": (
        lambda x: np.where([True, False], [[1.0, 2.0], [INF, 1.0]] @ x, 0),
        [0, 1],
        [1, 2],
        [0, 0],
    ),
    "infinite column, in rows that are masked": (
        lambda x: np.where([False, True], np.einsum("ij,j->i", x, [INF, 1.0]), 0),
        [[0, 1], [-1, 1]],
        [[0, 0], [INF, 1]],
        None,
    ),
    # elements taken away
    "(1 / x)[1]": (lambda x: (1 / x)[1], [0, 2], [0, -1 / 4], [0, 1 / 4]),
    "(1 / x)[x > 0]": (lambda x: (1 / x)[x > 0], [0, 2], [0, -1 / 4], [0, 1 / 4]),
    "take(log(x), [1, 1])": (lambda x: np.take(np.log(x), [1, 1]), [0, 2], [0, 1], [0, -1 / 2]),
    "compress": (lambda x: np.compress([False, True], np.sqrt(x)), [0, 4], [0, 1 / 4], [0, -1 / 32]),
    "cumsum before an infinite element": (lambda x: np.cumsum(1 / x)[1], [1, 2, 0], [-1, -1 / 4, 0], [2, 1 / 4, 0]),
    "diff beside an infinite element": (lambda x: np.diff(1 / x)[1], [0, 1, 2], [0, 1, -1 / 4], [0, -2, 1 / 4]),
    "concatenate and cut": (lambda x: np.concatenate([1 / x, x])[1:], [0, 2], [1, 3 / 4], [0, 1 / 4]),
    # NaN-ignoring reductions
    "nansum": (lambda x: np.nansum(x**2), [NAN, 3], [0, 6], [0, 2]),
    "nanmean": (lambda x: np.nanmean(x**2), [NAN, 2], [0, 4], [0, 2]),
    "nanmax": (lambda x: np.nanmax(x), [NAN, 2], [0, 1], [0, 0]),
    "nanprod": (lambda x: np.nanprod(x), [NAN, 0, 2], [0, 2, 0], [0, 1, 1]),
    "nansum of a log": (lambda x: np.nansum(np.where(x > 0, np.log(x), NAN)), [-1, 2], [0, 1 / 2], [0, -1 / 4]),
    # zeros
    "prod with a zero": (lambda x: np.prod(x), [0, 2, 3], [6, 0, 0], [5, 3, 2]),
    "prod with two zeros": (lambda x: np.prod(x), [0, 0, 3], [0, 0, 0], [3, 3, 0]),
    "cumprod with a zero": (lambda x: np.cumprod(x), [2, 0, 3], [1, 8, 0], [4, 6, 2]),
    "det of a zero matrix": (lambda x: np.linalg.det(x), [[0, 0], [0, 0]], [[0, 0], [0, 0]], [[1, -1], [-1, 1]]),
    "norm at 0": (lambda x: np.linalg.norm(x), [0, 0], [0, 0], None),
    "norm of a zero row": (lambda x: np.linalg.norm(x, axis=1), [[0, 0], [3, 4]], [[0, 0], [0.6, 0.8]], None),
    "norm of order 3 at 0": (lambda x: np.linalg.norm(x, 3), [0, 0], [0, 0], None),
    "hypot(0, 0)": (lambda x: np.hypot(x[0], x[1]), [0, 0], [0, 0], None),
    "arctan2(0, 0)": (lambda x: np.arctan2(x[0], x[1]), [0, 0], [0, 0], None),
    "|x|^1.5": (lambda x: np.abs(x) ** 1.5, [0, 4], [0, 3], None),
    "std of constants": (lambda x: np.std(x), [2, 2, 2], [0, 0, 0], None),
    "sqrt(var) of constants": (lambda x: np.sqrt(np.var(x)), [1, 1], [0, 0], None),
    "x^[0, 1, 2] at 0": (lambda x: x ** np.array([0.0, 1, 2]), [0, 0, 0], [0, 1, 0], [0, 0, 2]),
    "0^y": (lambda y: np.zeros(3) ** y, [0, 1, 2], [0, 0, 0], [0, 0, 0]),
    "sinc(0)": (lambda x: np.sinc(x), [0, 1], [0, -1], [-(np.pi**2) / 3, 2]),
    # entropies and log-probabilities
    "xlogy(0, 0)": (lambda x: sp.xlogy(x[0], x[1]), [[0, 2], [0, 1]], [[0, 0], [0, 2]], None),
    "xlogy(0, y)": (lambda y: sp.xlogy(0.0, y), [0, 2], [0, 0], [0, 0]),
    "xlog1py(0, -1)": (lambda x: sp.xlog1py(x[0], x[1]), [[0, 2], [-1, 0]], [[0, 0], [0, 2]], None),
    "entr(0) is steep": (lambda x: sp.entr(x), [0, 1], [INF, -1], None),
    "rel_entr(0, 0)": (lambda x: sp.rel_entr(x[0], x[1]), [[0, 1], [0, 1]], [[0, 1], [0, -1]], None),
    "where(x > 0, entr(x), 0)": (lambda x: np.where(x > 0, sp.entr(x), 0), [0, 1], [0, -1], [0, -1]),
    "log_expit far out": (lambda x: sp.log_expit(x), [-INF, 0, INF], [1, 1 / 2, 0], [0, -1 / 4, 0]),
    "expit far out": (lambda x: sp.expit(x), [-INF, 0, INF], [0, 1 / 4, 0], [0, 0, 0]),
    "1 / (1 + exp(-x)) far out": (lambda x: 1 / (1 + np.exp(-x)), [-1e4, 0], [0, 1 / 4], [0, 0]),
    "logaddexp(0, x) at a tie and far out": (
        lambda x: np.logaddexp(0, x),
        [-INF, -1e4, 0, 1e4],
        [0, 0, 1 / 2, 1],
        [0, 0, 1 / 4, 0],
    ),
    "logaddexp(-inf, -inf)": (lambda x: np.logaddexp(x[0], x[1]), [-INF, -INF], [0, 0], [0, 0]),
    "logsumexp with -inf": (lambda x: scg.special.logsumexp(x), [-INF, 0, 1], [0, SOFT, 1 - SOFT], [0, 0, 0]),
    "softmax with -inf": (
        lambda x: scg.special.softmax(x)[1],
        [-INF, 0, 1],
        [0, SOFT * (1 - SOFT), -SOFT * (1 - SOFT)],
        [0, 0, 0],
    ),
    "log_softmax with -inf": (
        lambda x: scg.special.log_softmax(x)[1],
        [-INF, 0, 1],
        [0, 1 - SOFT, SOFT - 1],
        [0, 0, 0],
    ),
    "exp(-x^2) far out": (lambda x: np.exp(-(x**2)), [1e200, 0], [0, 0], [0, -2]),
    "tanh far out": (lambda x: np.tanh(x), [-INF, 0, 1e4], [0, 1, 0], [0, 0, 0]),
    # matrices whose eigenvalues or singular values coincide
    "eigenvalues that coincide": (lambda x: np.linalg.eigvalsh(x) ** 2, RAMP, 2 * RAMP, None),
    "singular values that coincide": (lambda x: np.linalg.svd(x)[1], RAMP, RAMP, None),
    "log-determinant of a singular matrix, masked": (
        lambda x: np.where(x[0, 0] > 0, np.linalg.slogdet(x)[1], x[0, 1]),
        [[0, 2], [0, 1]],
        [[0, 1], [0, 0]],
        [[0, 0], [0, 0]],
    ),
    "cholesky of the identity": (
        lambda x: np.linalg.cholesky(x)[0, 0],
        RAMP,
        [[1 / 2, 0], [0, 0]],
        [[-1 / 4, 0], [0, 0]],
    ),
    # what is infinite stays so
    "sqrt(0)": (lambda x: np.sqrt(x), [0, 1], [INF, 1 / 2], None),
    "sqrt(0) beside a branch not taken": (
        lambda x: np.sqrt(x[0]) + np.where(x[1] > 0, np.sqrt(x[1]), 0),
        [0, 0],
        [INF, 0],
        None,
    ),
    "log(0) and -log(0)": (lambda x: np.log(x) * [1, -1], [0, 0], [INF, -INF], None),
    "1 / 0": (lambda x: 1 / x, [0, 1], [-INF, -1], None),
}


def at(name):
    fn, x, gradient, curvature = TABLE[name]
    return (lambda x: np.sum(fn(x))), fn, np.array(x, float), np.array(gradient, float), curvature


@pytest.fixture(autouse=True)
def quiet():
    """The values themselves divide by zero, as NumPy would."""
    with np.errstate(all="ignore"):
        yield


@pytest.mark.parametrize("name", TABLE)
def test_gradient(name):
    total, fn, x, expected, _ = at(name)
    np.testing.assert_allclose(scg.grad(total)(x), expected, 1e-12, 1e-14)
    node = parameter(x)
    traced = scg.gradients(total(node), node, create_graph=True)
    np.testing.assert_allclose(getattr(traced, "value", traced), expected, 1e-12, 1e-14, err_msg="with create_graph")


@pytest.mark.parametrize("name", TABLE)
def test_gradient_in_single_precision(name):
    total, _, x, expected, _ = at(name)
    if np.abs(x[np.isfinite(x)]).max(initial=0) < 1e38:
        found = scg.grad(total)(x.astype(np.float32))
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, 1e-5, 1e-6)


@pytest.mark.parametrize("name", TABLE)
def test_jacobian_rows_and_zero_cotangents(name):
    """Rows of the Jacobian sum to the gradient, though each has a cotangent that is zero nearly everywhere; a zero
    cotangent gives zero."""
    _, fn, x, expected, _ = at(name)
    rows = scg.jacobian(fn)(x)
    with np.errstate(invalid="ignore"):
        np.testing.assert_allclose(rows.reshape(-1, *x.shape).sum(axis=0), expected, 1e-12, 1e-14)
    result, pullback = scg.vjp(fn)(x)
    np.testing.assert_array_equal(pullback(np.zeros(np.shape(result))), np.zeros(x.shape))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in TABLE if TABLE[name][3] is not None])
def test_second_derivative(name):
    total, _, x, _, curvature = at(name)
    expected = np.array(curvature, float)
    np.testing.assert_allclose(scg.hvp(total)(x, np.ones(x.shape)), expected, 1e-12, 1e-13)
    np.testing.assert_allclose(
        scg.grad(lambda x: np.sum(scg.grad(total)(x)))(x), expected, 1e-12, 1e-13, err_msg="grad of grad"
    )
    hessian = scg.hessian(total)(x)
    np.testing.assert_allclose(
        hessian.reshape(x.size, -1).sum(axis=0).reshape(x.shape), expected, 1e-12, 1e-13, err_msg="hessian"
    )


def test_the_table_is_not_short():
    assert len(TABLE) >= 40


def test_without_absorption_the_table_fails(monkeypatch):
    """The saboteur: plain products instead of absorbing ones poison what the table says is finite."""
    gradient = __import__("scg.core.supports", fromlist=["absorb"])
    monkeypatch.setattr(gradient, "absorb", lambda g, slope: g * slope)
    poisoned = 0
    for name in TABLE:
        total, _, x, expected, _ = at(name)
        poisoned += not np.allclose(scg.grad(total)(x), expected, 1e-9, 1e-9)
    assert poisoned >= 25


def test_the_choice_is_made_for_the_values_of_the_replay():
    """A recorded gradient replayed where its absorbing side matters, though it did not when it was recorded, and the
    other way round."""
    node = parameter(np.array([1.0, 4.0]))
    recorded = scg.gradients(np.sum(np.where(node > 0, np.sqrt(node), 0)), node, create_graph=True)
    node_at_zero = parameter(np.array([0.0, 4.0]))
    absorbed = scg.gradients(
        np.sum(np.where(node_at_zero > 0, np.sqrt(node_at_zero), 0)), node_at_zero, create_graph=True
    )
    np.testing.assert_allclose(scg.replay(absorbed, {node_at_zero: np.array([1.0, 4.0])}), [1 / 2, 1 / 4])
    np.testing.assert_allclose(scg.replay(recorded, {node: np.array([9.0, 4.0])}), [1 / 6, 1 / 4])


def test_sums_that_overflow_are_no_trap():
    """Finiteness is judged by a sum; where it overflows the gradient is computed twice, and is the same."""
    x = np.full(4, 1.0, np.float32)
    np.testing.assert_array_equal(scg.grad(lambda x: np.sum(x * np.float32(2e38)))(x), np.full(4, 2e38, np.float32))
    np.testing.assert_array_equal(
        scg.grad(lambda x: np.sum(x * np.array([INF, -INF, 1, 0])))(np.ones(4)), [INF, -INF, 1, 0]
    )


PRODUCTS = {
    "matmul": (lambda a, b: a @ b, (2, 3), (3, 2), "ij,jk->ik"),
    "stack @ matrix": (lambda a, b: a @ b, (2, 2, 3), (3, 2), "lij,jk->lik"),
    "matrix @ stack": (lambda a, b: a @ b, (2, 3), (2, 3, 2), "ij,ljk->lik"),
    "matvec": (lambda a, b: a @ b, (2, 3), (3,), "ij,j->i"),
    "vecmat": (lambda a, b: a @ b, (3,), (3, 2), "i,ij->j"),
    "dot": (lambda a, b: a @ b, (3,), (3,), "i,i->"),
    "einsum": (lambda a, b: np.einsum("ij,ki->jk", a, b), (3, 2), (2, 3), "ij,ki->jk"),
    "tensordot": (lambda a, b: np.tensordot(a, b, ([0, 2], [1, 0])), (2, 3, 2), (2, 2), "ijl,li->j"),
}
ELEMENTS = np.array([0, 0, 1, -2, INF, -INF, NAN])


def products_one_by_one(text, *factors, loud=None):
    """The sum of products by its definition: every product by itself, and zero where a factor is, unless another is in
    ``loud``, which marks the elements of a factor."""
    ins, out = text.split("->")
    letters = "".join(sorted(set(ins.replace(",", ""))))
    spread = [np.einsum(f"{term}->{''.join(sorted(term))}", x) for term, x in zip(ins.split(","), factors, strict=True)]
    shapes = [
        [x.shape[sorted(term).index(c)] if c in term else 1 for c in letters]
        for term, x in zip(ins.split(","), spread, strict=True)
    ]
    spread = np.broadcast_arrays(*[x.reshape(shape) for x, shape in zip(spread, shapes, strict=True)])
    zero = np.any([x == 0 for x in spread], axis=0)
    terms = np.where(zero, 0, np.prod(spread, axis=0))
    if loud is not None:
        at, marks = loud
        over = products_one_by_one(text, *[marks * 1.0 if k == at else (x == 0) * 1.0 for k, x in enumerate(factors)])
        return np.where(over > 0, NAN, products_one_by_one(text, *factors))
    return np.einsum(
        f"{''.join(c for c in letters if c in out)}->{out}",
        terms.sum(axis=tuple([i for i, c in enumerate(letters) if c not in out])),
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", PRODUCTS)
def test_contractions_absorb_product_by_product(name):
    """Zeros, infinities and NaNs anywhere, in the cotangent too: the VJP is the sum of the products that have no zero.
    A zero of an operand that moves is none by structure: it absorbs no NaN, and an infinity only where the cost is
    finite."""
    fn, *shapes, text = PRODUCTS[name]
    left, right, result = text.replace("->", ",").split(",")
    rng = np.random.default_rng(0)
    for _ in range(40):
        a, b = [rng.choice(ELEMENTS, shape) for shape in shapes]
        nodes = [parameter(a), parameter(b)]
        out = fn(*nodes)
        g = rng.choice(ELEMENTS, out.shape)
        for k, alone in enumerate((lambda x: fn(x, b), lambda x: fn(a, x))):
            wanted = products_one_by_one(*((f"{result},{right}->{left}", g, b), (f"{left},{result}->{right}", a, g))[k])
            if out.shape or not np.isnan(out.value):
                found = pull([alone(nodes[k])], [g], nodes[k : k + 1])[0]
                np.testing.assert_array_equal(found, wanted)
        loud = np.isnan(g) | (np.isinf(g) & ~np.isfinite(out.value).all())
        expected = (
            products_one_by_one(f"{result},{right}->{left}", g, b, loud=(0, loud)),
            products_one_by_one(f"{left},{result}->{right}", a, g, loud=(1, loud)),
        )
        if out.shape == () and np.isnan(out.value) and g != 0:  # a cost that is NaN by 0 * nan depends on that nan
            expected = [
                np.where(np.isnan(x) & (y == 0), NAN, d) for d, x, y in zip(expected, (a, b), (b, a), strict=True)
            ]
        for found, wanted in zip(pull([out], [g], nodes), expected, strict=True):
            np.testing.assert_array_equal(found, wanted)
        for found, wanted in zip(pull([out], [g], nodes, create_graph=True), expected, strict=True):
            np.testing.assert_array_equal(getattr(found, "value", found), wanted)


def test_a_derivative_that_raises_is_no_trap():
    """A zero cotangent asks nothing of it, at any order; any other one is told."""
    singular = np.array([[1.0, 2.0], [2.0, 4.0]])
    squared = lambda a: np.sum(a**2) / 2
    np.testing.assert_array_equal(
        scg.hessian(lambda a: np.where(False, np.linalg.slogdet(a)[1], squared(a)))(singular).reshape(4, 4), np.eye(4)
    )
    with pytest.raises(np.linalg.LinAlgError, match="slogdet"):
        scg.grad(lambda a: np.linalg.slogdet(a)[1])(singular)
    regular = np.array([[2.0, 1.0], [1.0, 1.0]])  # slogdet is 0 there, and so is the cotangent, but not its derivative
    slope = np.linalg.inv(regular).T.ravel()
    found = scg.hessian(lambda a: np.linalg.slogdet(a)[1] ** 2)(regular).reshape(4, 4)
    np.testing.assert_allclose(found, 2 * np.outer(slope, slope), 1e-12, 1e-12)


def test_a_declared_primitive_absorbs_too():
    """Nothing in a user's VJP knows of branches."""
    root = scg.primitive(lambda x: np.sqrt(x), elementwise, lambda g, out, x: g / (2 * out), name="root")
    np.testing.assert_array_equal(
        scg.grad(lambda x: np.sum(np.where(x > 0, root(x), 0)))(np.array([0.0, 4.0])), [0, 1 / 4]
    )
    check_gradient(lambda x: np.where(x > 0, root(x), 0), np.array([-1.0, 4.0]))


# name: f, x, the derivative of sum(f): where a computed zero meets an infinite slope, the limit of what is nearby, or
# NaN where there is none
LIMITS = {
    "sqrt(x)^2": (lambda x: np.sqrt(x) ** 2, [0, 4], [1, 1]),
    "sqrt(x)^3": (lambda x: np.sqrt(x) ** 3, [0, 4], [0, 3]),
    "x sqrt(x)": (lambda x: x * np.sqrt(x), [0, 4], [0, 3]),
    "exp(log(x))": (lambda x: np.exp(np.log(x)), [0, 2], [1, 1]),
    "exp(2 log(x))": (lambda x: np.exp(2 * np.log(x)), [0, 2], [0, 4]),
    "complex sqrt(x)^2": (lambda x: np.real(np.sqrt(x + 0j) ** 2), [0, -4], [1, 1]),
    "complex exp(log(x))": (lambda x: np.real(np.exp(np.log(x + 0j))), [0, -2], [1, 1]),
    "complex x^.5^2": (lambda x: np.real(((x + 0j) ** 0.5) ** 2), [0, 2], [1, 1]),
    "cbrt(x^3)": (lambda x: np.cbrt(x**3), [0, -1], [1, 1]),
    "cbrt(x)^3": (lambda x: np.cbrt(x) ** 3, [0, 8], [1, 1]),
    "cbrt(x)": (lambda x: np.cbrt(x), [0, 8], [INF, 1 / 12]),
    "square of arccos at its edge": (lambda x: np.arccos(x) ** 2, [1, 0], [-2, -np.pi]),
    "a sum in between": (lambda x: np.sqrt(np.sum(x)) ** 2, [0, 0], [1, 1]),
    "masked beside it": (lambda x: np.where(x < 1, np.sqrt(x) ** 2, np.log(x - 5)), [0, 5], [1, INF]),
    "arctan(1 / x), which jumps": (lambda x: np.arctan(1 / x), [0, 1], [NAN, -1 / 2]),
    "log1p(exp(x)), which overflows": (lambda x: np.log1p(np.exp(x)), [800, 0], [NAN, 1 / 2]),
    "log(exp(x)), which underflows": (lambda x: np.log(np.exp(x)), [-800, 0], [NAN, 1]),
    "-log(1 - sigmoid(x)), infinite": (lambda x: -np.log(1 - scg.special.sigmoid(x)), [40, 0], [NAN, 1 / 2]),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LIMITS)
def test_a_zero_that_was_computed_does_not_swallow_a_finite_answer(name):
    """The limit is taken at distances of 1e-60, or of 1e-6 with the next order taken away: to 1e-7 of the gradient."""
    fn, x, expected = LIMITS[name]
    found = scg.grad(lambda x: np.sum(fn(x)))(np.array(x, float))
    np.testing.assert_allclose(found, expected, 1e-7, 1e-20)
    rows = scg.jacobian(fn)(np.array(x, float)).reshape(-1, 2).sum(axis=0)
    np.testing.assert_allclose(rows[np.isfinite(expected)], np.array(expected)[np.isfinite(expected)], 1e-7, 1e-20)
    for dtype in (np.float32, np.float16):
        short = scg.grad(lambda x: np.sum(fn(x)))(np.array(x, dtype))
        assert short.dtype == dtype
        expected = np.where([a == 800 or a == -800 for a in x], short, expected)
        np.testing.assert_allclose(short, expected, 10 * np.finfo(dtype).eps, 1e-12)


def test_a_plan_takes_the_same_limits():
    """Both ways: recorded where there is no limit to take, and where there is."""
    for first, second in ((4.0, 0.0), (0.0, 4.0)):
        step = scg.compile(scg.grad(lambda x: np.sqrt(x) ** 2 + x))
        for x in (first, second, first, second):
            assert step(np.array(x)) == 2


RADIAL = {
    "norm^2": (lambda x: np.linalg.norm(x) ** 2, 2.0),
    "norm^4": (lambda x: np.linalg.norm(x) ** 4, 0.0),
    "norm^3": (lambda x: np.linalg.norm(x) ** 3, 0.0),
    "two norms": (lambda x: np.linalg.norm(x) * np.linalg.norm(x), 2.0),
    "Frobenius norm^2": (lambda x: np.linalg.norm(np.stack([x, x])) ** 2, 4.0),
    "norms of rows, squared": (lambda x: np.sum(np.linalg.norm(np.stack([x, 2 * x]), axis=1) ** 2), 10.0),
    "sqrt(x.x)^2": (lambda x: np.sqrt(x @ x) ** 2, 2.0),
    "exp(-norm^2 / 2)": (lambda x: np.exp(-(np.linalg.norm(x) ** 2) / 2), -1.0),
    "cos(norm)": (lambda x: np.cos(np.linalg.norm(x)), -1.0),
    "sqrt(1 + norm^2)": (lambda x: np.sqrt(1 + np.linalg.norm(x) ** 2), 1.0),
    "Matern 3/2": (lambda x: (1 + np.linalg.norm(x)) * np.exp(-np.linalg.norm(x)), -1.0),
    "hypot^2": (lambda x: np.hypot(x[0], x[1]) ** 2, 2.0),
    "sum of |x|^2": (lambda x: np.sum(np.abs(x) ** 2), 2.0),
    "sum of |x|^2, complex": (lambda x: np.sum(np.abs(x + 1j * x) ** 2), 4.0),
    "sum of fabs(x) x": (lambda x: np.sum(np.fabs(x) ** 3), 0.0),
    "power spectrum": (lambda x: np.sum(np.abs(np.fft.fft(x)) ** 2), 4.0),
    "norm, a kink": (lambda x: np.linalg.norm(x), NAN),
    "norm + norm^2, a kink": (lambda x: np.linalg.norm(x) + np.linalg.norm(x) ** 2, NAN),
    "hypot, a kink": (lambda x: np.hypot(x[0], x[1]), NAN),
    "sum of |x|, kinks": (lambda x: np.sum(np.abs(x)), NAN),
    "norm^1.5": (lambda x: np.linalg.norm(x) ** 1.5, NAN),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", RADIAL)
def test_second_derivatives_where_a_norm_vanishes(name):
    """f(|x|) with f'(0) = 0 has the second derivative f''(0) I at 0; it has none where f'(0) is not 0."""
    fn, curvature = RADIAL[name]
    x = np.zeros(2)
    np.testing.assert_array_equal(scg.grad(fn)(x), 0)
    hessian = scg.hessian(fn)(x)
    if np.isnan(curvature):
        assert np.isnan(np.diag(hessian)).all() and not np.isfinite(scg.hvp(fn)(x, np.ones(2))).any()
        return
    np.testing.assert_allclose(hessian, curvature * np.eye(2), 1e-6, 1e-6)
    np.testing.assert_allclose(scg.hvp(fn)(x, np.array([1.0, -2.0])), [curvature, -2 * curvature], 1e-6, 1e-6)
    np.testing.assert_allclose(scg.compile(scg.hessian(fn))(x), curvature * np.eye(2), 1e-6, 1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    "distance",
    [
        lambda d: np.linalg.norm(d, axis=-1),
        lambda d: np.sqrt(np.sum(d * d, axis=-1)),
        lambda d: np.hypot(d[..., 0], d[..., 1]),
    ],
)
def test_derivatives_of_a_kernel_by_way_of_distances(distance):
    """The distance of a point from itself is zero wherever the point lies; by the squares of distances nothing is
    singular."""
    x = np.random.default_rng(0).normal(size=(3, 2))
    between = lambda x: x[:, None] - x[None]
    singular = lambda p: np.sum(np.exp(-(distance(between(p["x"])) ** 2) / p["l"] ** 2))
    smooth = lambda p: np.sum(np.exp(-np.sum(between(p["x"]) ** 2, axis=-1) / p["l"] ** 2))
    point = {"x": x, "l": np.array(1.5)}
    for derivative, tolerance in ((scg.grad, 1e-12), (scg.hessian, 1e-7)):
        for (_, found), (_, right) in zip(
            leaves(derivative(singular)(point)), leaves(derivative(smooth)(point)), strict=True
        ):
            np.testing.assert_allclose(found, right, tolerance, tolerance)
    matern = lambda x: np.sum((1 + distance(between(x))) * np.exp(-distance(between(x))))
    assert np.isfinite(scg.grad(matern)(x)).all() and np.isfinite(scg.hessian(matern)(x)).all()


def test_second_derivatives_of_the_square_of_a_standard_deviation():
    """std^2 is the variance: I / n - 1 / n^2; std itself has a kink where all elements are equal."""
    for x in (np.ones(3), np.zeros(3)):
        np.testing.assert_allclose(scg.hessian(lambda x: np.std(x) ** 2)(x), 2 * (np.eye(3) / 3 - 1 / 9), 1e-6, 1e-6)
        assert not np.isfinite(scg.hessian(lambda x: np.std(x))(x)).any()


# a bad replicate beside a good one, in every function of the catalogue


def _good_and_bad(case, bad, rng):
    """The gradients of a case by itself, and in a stack of two whose second member is made of ``bad`` and masked; None
    where NumPy takes no such stack."""
    x = [rng.uniform(d.low, d.high, (3,) if d.shape is None else d.shape) for d in case.domains]
    nodes = list(map(parameter, x))
    outs = case.fn(*[d.make(n) if d.make else n for d, n in zip(case.domains, nodes, strict=True)])
    outs = [
        o
        for _, o in leaves(list(outs) if isinstance(outs, (tuple, list)) else outs)
        if isinstance(o, Node) and o.dtype.kind in "fc" and o.size
    ]
    if not outs:
        return None
    stacks = {n: parameter(np.stack([v, np.full(v.shape, bad)])) for n, v in zip(nodes, x, strict=True)}
    try:
        new = scg.replay(outs, stacks, batched=nodes)
    except (GuardError, ValueError, ArithmeticError, np.linalg.LinAlgError):
        # the value refuses, a replicate chose otherwise: no gradient to look at
        return None
    weights = [rng.normal(size=o.shape) for o in outs]
    masked = [
        np.where(np.reshape([True, False], (2, *[1] * o.ndim)), np.real(y), 0.0) for o, y in zip(outs, new, strict=True)
    ]
    alone = scg.gradients(sum(np.sum(np.real(o) * w) for o, w in zip(outs, weights, strict=True)), nodes)
    both = scg.gradients(sum(np.sum(y * w) for y, w in zip(masked, weights, strict=True)), list(stacks.values()))
    return alone, both


@pytest.mark.slow
@pytest.mark.parametrize("bad", [NAN, 0.0])
@pytest.mark.parametrize("module", sorted({case.name.rpartition(".")[0] for case in CATALOGUE}))
def test_a_masked_replicate_leaves_no_trace_in_any_primitive(module, bad):
    rng, seen = np.random.default_rng(0), set()
    for case in CATALOGUE:
        if case.name.rpartition(".")[0] != module or case.name in seen:
            continue
        seen.add(case.name)
        found = _good_and_bad(case, bad, rng)
        for alone, both in zip(*found, strict=True) if found else ():
            np.testing.assert_allclose(both[0], alone, 1e-9, 1e-9, err_msg=case.name)
            np.testing.assert_array_equal(both[1], 0, err_msg=case.name)


@pytest.mark.parametrize(
    "fn",
    [
        lambda a: np.linalg.slogdet(a)[1],
        lambda a: np.linalg.det(a),
        lambda a: np.sum(np.linalg.qr(a)[1], axis=(-2, -1)),
    ],
)
def test_one_singular_matrix_of_a_stack_does_not_spoil_the_others(fn):
    good, singular = np.array([[2.0, 1.0], [0.5, 3.0]]), np.array([[1.0, 2.0], [2.0, 4.0]])
    stack = np.stack([good, 0 * singular, good.T, singular])
    found = scg.grad(lambda a: np.sum(np.where([True, False, True, False], fn(a), 0)))(stack)
    np.testing.assert_allclose(found, [scg.grad(fn)(good), 0 * good, scg.grad(fn)(good.T), 0 * good], 1e-12)
    assert np.isfinite(scg.grad(lambda a: np.sum(fn(a)))(stack)[[0, 2]]).all()


NESTED = {  # f at a point, and its first and second derivatives there
    "sqrt(x)^2": (lambda x: np.sqrt(x) ** 2, 0.0, 1.0, 0.0),
    "exp(log(x))": (lambda x: np.exp(np.log(x)), 0.0, 1.0, 0.0),
    "cbrt(x)^6": (lambda x: np.cbrt(x) ** 6, 0.0, 0.0, 2.0),
    "sqrt(x)^4": (lambda x: np.sqrt(x) ** 4, 0.0, 0.0, 2.0),
    "exp(2 log(expm1(x)))": (lambda x: np.exp(2 * np.log(np.expm1(x))), 0.0, 0.0, 2.0),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NESTED)
def test_a_gradient_inside_a_cost_has_the_limits_of_a_plain_one(name):
    f, at, slope, curvature = NESTED[name]
    x, w = np.full(2, at), np.array([3.0, -1.0])
    cost = lambda x: np.sum(f(x))
    seen = []

    def penalty(x):
        g = scg.grad(cost)(x)
        seen.append(g.value)
        return np.sum(w * g * np.exp(x)) + np.sum(g**2)

    with np.errstate(all="ignore"):
        node = scg.parameter(x)
        kept = scg.gradients(cost(node), node, create_graph=True)
        np.testing.assert_allclose(kept.value, np.full(2, slope), atol=1e-9)
        right = w * (curvature + slope) + 2 * slope * curvature
        np.testing.assert_allclose(scg.grad(penalty)(x), right, atol=1e-6)
        np.testing.assert_allclose(seen[0], np.full(2, slope), atol=1e-9)
        np.testing.assert_allclose(scg.hessian(cost)(x), curvature * np.eye(2), atol=1e-6)
        # elsewhere it is the gradient of there
        there = scg.replay(kept, {node: np.full(2, 0.5)})
        np.testing.assert_allclose(there, scg.grad(cost)(np.full(2, 0.5)), rtol=1e-12)
        rows = scg.replay(kept, {node: np.array([[0.5, 0.25], [at, at]])}, batched=[node])
        np.testing.assert_allclose(rows[1], np.full(2, slope), atol=1e-9)


def test_a_limit_that_was_kept_serves_no_other_point():
    """x - x^2 by way of its root has the slopes 1 at 0 and -1 at 1, both as limits."""
    node = scg.parameter(np.array(0.0))
    with np.errstate(all="ignore"):
        kept = scg.gradients(np.sqrt(node * (1 - node)) ** 2, node, create_graph=True)
        np.testing.assert_allclose(kept.value, 1.0)
        assert np.isnan(scg.replay(kept, {node: np.array(1.0)}))
        found = scg.replay(kept, {node: np.array([0.0, 0.25, 1.0])}, batched=[node])
    np.testing.assert_allclose(found, [1.0, 0.5, NAN])
