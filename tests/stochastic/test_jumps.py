"""Jumps of a cost that parameters move: refused by estimators, exact derivatives and verdicts; costs that are
continuous at their steps are not."""

import numpy as np
import pytest
import scipy.special as sp
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm

import scg
import scg.exact
import scg.testing
from scg import distributions as dist
from scg.errors import EstimatorError
from scg.stochastic.crossings import Crossing
from tests.support.drawn import drawn

PATH, SCORE = scg.Reparameterized(), scg.ScoreFunction()
T = 0.7


def fixed(f):
    """A cost of t and of a standard normal draw by its score: only the cost itself can move with t."""
    return lambda t, rng: f(scg.sample(dist.Normal(0.0, 1.0), SCORE, rng=rng), t)


def pathwise(f, shape=()):
    """A cost of pathwise draws around t, and of t."""
    return lambda t, rng: f(scg.sample(dist.Normal(t, 1.0), PATH, rng=rng, shape=shape), t)


A = np.array([1.0, 2.0, 3.5])


def mixed(z):
    """A matrix that is singular at two z."""
    return np.stack([np.stack([1 + 0 * z, z]), np.stack([z + 0.3, 2 + z])])


JUMPS = {
    "where": fixed(lambda z, t: np.where(z > t, z + 2, 0)),
    "if": fixed(lambda z, t: z + 2 if z > t else 0 * z),
    "comparison": fixed(lambda z, t: (t > z) * 1.0),
    "floor": fixed(lambda z, t: np.floor(z / t)),
    "sign": fixed(lambda z, t: np.sign(z - t)),
    "heaviside": fixed(lambda z, t: np.heaviside(z - t, 0.5)),
    "values looked up": fixed(lambda z, t: np.searchsorted(np.array([0.0, 1.0]), z + t) * 1.0),
    "bins that move": fixed(lambda z, t: np.searchsorted(np.stack([t, t + 1]), z) * 1.0),
    "argmax": fixed(lambda z, t: np.argmax(np.stack([z, t])) * 1.0),
    "remainder": pathwise(lambda z, t: np.remainder(z, 1.0)),
    "two draws": lambda t, rng: (lambda z, x: np.where(z + x > 0, 1 + z, 0))(
        scg.sample(dist.Normal(t, 1.0), PATH, rng=rng), scg.sample(dist.Normal(0.0, 1.0), SCORE, rng=rng)
    ),
    "moving end": lambda t, rng: (lambda u: np.where(u > 0.1, u + 2, u))(
        scg.sample(dist.Uniform(0.0, t), PATH, rng=rng)
    ),
    "truncated": lambda t, rng: (lambda u: np.where(u > 0.2, u + 1, 0))(
        scg.sample(dist.TruncatedNormal(0.0, 1.0, -1.0, t), PATH, rng=rng)
    ),
    "sum of a vector": pathwise(lambda z, t: np.where(np.sum(z) > 0, 1 + t, 0), 4),
    "interpolated over a gap": pathwise(lambda z, t: np.interp(z, [-1.0, 0.5, 0.5, 2.0], [0.0, 1.0, 3.0, 0.0])),
    "interpolated, with another left": pathwise(lambda z, t: np.interp(z, [0.0, 1.0], [1.0, 3.0], left=-1.0)),
    "one element of many": pathwise(lambda z, t: np.sum(np.where(z > 0, z + (np.arange(100) == 37), z)), (2, 100)),
    "one row of many": fixed(
        lambda z, t: np.sum(np.where(z > t * np.ones((9, 7)), 2.0 * (np.arange(9.0) == 5)[:, None], 0.0))
    ),
    "an angle": pathwise(lambda z, t: np.arctan2(z, -1.0)),
    "another's element": pathwise(lambda z, t: (t * np.array([1.0, 5.0, 3.0]))[np.argmax(z)], 3),
    "a direction": pathwise(lambda z, t: z / np.abs(z)),
    "a direction by the square": fixed(lambda z, t: (z - t) / np.sqrt((z - t) ** 2)),
    "a direction of sums": pathwise(lambda z, t: (lambda h: np.sum(h / np.abs(h)))(np.ones((2, 3)) @ z), 3),
    "a bounded function of a pole": pathwise(lambda z, t: np.arctan(1 / z)),
    "of a negative power": fixed(lambda z, t: np.tanh((z - t) ** -1.0)),
    "of a tangent": pathwise(lambda z, t: np.arctan(2 * np.tan(z))),
    "of a gamma function": pathwise(lambda z, t: np.tanh(sp.gamma(z))),
    "of a sum's inverse": pathwise(lambda z, t: np.arctan(1 / np.sum(z)), 4),
    "the cut of a logarithm": pathwise(lambda z, t: np.log(-1 + 1j * z).imag),
    "the cut of a root": fixed(lambda z, t: np.sqrt(-1 + 1j * (z - t)).imag),
    "the cut of a power": pathwise(lambda z, t: ((-1 + 1j * z) ** 0.5).imag),
    "the cut of an arc": pathwise(lambda z, t: np.arctan(2j + z).real),
    "the end of a cut": fixed(lambda z, t: np.log(z - t + 0j).imag),
    "the sign of a determinant": pathwise(
        lambda z, t: np.linalg.slogdet(np.stack([np.stack([z, 0 * z + 0.3]), np.stack([0 * z, 0 * z + 1.0])]))[0] + z
    ),
    "a pole of an inverse": pathwise(lambda z, t: np.arctan(np.linalg.inv(mixed(z))[0, 0])),
    "a pole of a system": pathwise(lambda z, t: np.arctan(np.linalg.solve(mixed(z), np.ones(2))[0])),
    "a pole of a pseudo-inverse": pathwise(lambda z, t: np.arctan(np.linalg.pinv(mixed(z))[0, 0])),
    "a pole of least squares": pathwise(
        lambda z, t: np.arctan(np.linalg.lstsq(mixed(z), np.ones(2), rcond=None)[0][0])
    ),
    "a rank": pathwise(lambda z, t: np.linalg.pinv(np.diag(np.stack([4 + 0 * z, np.exp(z)])), rcond=0.5)[1, 1]),
    "eigenvectors that change places": pathwise(
        lambda z, t: np.linalg.eigh(np.diag(np.stack([z, 0.2 + 0 * z])))[1][0, 0] ** 2
    ),
    "the sign of an eigenvector": pathwise(lambda z, t: np.linalg.eigh(mixed(z) + mixed(z).T)[1][0, 0]),
    "the sign of a singular vector": pathwise(lambda z, t: np.linalg.svd(mixed(z))[0][0, 0]),
    "the sign of a reflection": pathwise(lambda z, t: np.linalg.qr(mixed(z)[::-1])[0][1, 0]),
    "a cotangent of degrees": pathwise(lambda z, t: np.arctan(sp.cotdg(z))),
    "a tangent of degrees": pathwise(lambda z, t: np.arctan(sp.tandg(90 + z))),
    "turns": pathwise(lambda z, t: np.unwrap(np.stack([0 * z, z + np.pi]))[1]),
    "met by few draws": fixed(lambda z, t: np.searchsorted(np.array([3.5]), z + t) * 1.0),
    "an if that few draws meet": fixed(lambda z, t: 2 * z if z > 3 + t else z),
    "an if on a path": pathwise(lambda z, t: 1 + 0 * t if z > 0 else 0 * t),
    "the next distribution": (
        lambda t, rng: (
            1.0
            * scg.sample(
                dist.Bernoulli(probs=0.8 if scg.sample(dist.Normal(t, 1.0), PATH, rng=rng) > 0 else 0.1), SCORE, rng=rng
            )
        )
    ),
}

CONTINUOUS = {
    "leaky rectifier": pathwise(lambda x, t: np.sum(np.where(x > 0, x, 0.1 * x)), 7),
    "by masks": pathwise(lambda x, t: np.sum((x > 0) * x + (x <= 0) * 0.1 * x), 7),
    "all but zero": pathwise(lambda x, t: np.sum(x * (np.abs(x) > 0)), 7),
    "x log x": pathwise(lambda x, t: np.sum(np.where(x != 0, x * np.log(np.abs(np.where(x != 0, x, 1))), 0)), 7),
    "a safe direction": pathwise(lambda x, t: (lambda n: np.sum(np.where(n > 0, x / n, 0)))(np.linalg.norm(x)), 7),
    "newsvendor": fixed(lambda z, t: np.maximum(z - t, 0)),
    "newsvendor by where": fixed(lambda z, t: np.where(z - t > 0, z - t, 0)),
    "Huber": pathwise(lambda e, t: np.mean(np.where(np.abs(e) <= 1, 0.5 * e**2, np.abs(e) - 0.5)), 5),
    "clip by where": pathwise(lambda x, t: np.where((x > 0) & (x < 1), x, np.where(x > 1, 1.0, 0.0))),
    "softplus by where": pathwise(
        lambda x, t: np.where(x > 2, x + np.log1p(np.exp(-x)), np.log1p(np.exp(np.minimum(x, 2))))
    ),
    "sorted": pathwise(lambda x, t: np.sort(x)[-2], 7),
    "median": pathwise(lambda x, t: np.median(x), 7),
    "own largest": pathwise(lambda x, t: x[np.argmax(x)], 7),
    "own top three": pathwise(lambda x, t: np.sum(np.take_along_axis(x, np.argsort(x)[-3:], 0)), 7),
    "interpolated": pathwise(lambda x, t: np.interp(x, np.array([-1.0, 0.0, 1.0]), np.array([0.0, 1.0, 0.0]))),
    "a turn": pathwise(lambda x, t: np.cos(np.remainder(x, 2 * np.pi))),
    "clipped by norm": pathwise(lambda v, t: np.sum(np.where(np.linalg.norm(v) > 1, v / np.linalg.norm(v), v)), 4),
    "two poles": pathwise(lambda z, t: np.sum(1 / z * z * z), 3),
    "a direction times its length": pathwise(lambda z, t: np.sum(z / np.abs(z) * np.abs(z)), 3),
    "sin x / x": fixed(lambda z, t: np.sin(z - t) / (z - t)),
    "one value on both sides of a pole": pathwise(lambda z, t: np.arctan(1 / z) ** 2),
    "flat at a pole": pathwise(lambda z, t: np.exp(-1 / z**2)),
    "a unit vector": pathwise(lambda z, t: np.sum(z / np.linalg.norm(z)), 3),
    "shares": pathwise(lambda z, t: np.max(np.exp(z) / np.sum(np.exp(z))), 3),
    "standardised": pathwise(lambda z, t: np.sum(((z - np.mean(z)) / np.std(z)) ** 4), 5),
    "far from its pole": pathwise(lambda z, t: 1 / (40 + np.sum(z)), 3),
    "a positive branch": fixed(lambda z, t: np.log(1 + 1j * (z - t)).imag),
    "the modulus across a cut": pathwise(lambda z, t: np.abs(np.log(-1 + 1j * z))),
    "the real part across a cut": fixed(lambda z, t: np.sqrt(-1 + 1j * (z - t)).real),
    "a logarithm of a determinant": pathwise(lambda z, t: np.linalg.slogdet(np.eye(2) + z * z)[1]),
    "an inverse of what is regular": pathwise(lambda z, t: np.sum(np.linalg.inv(np.outer(z, z) + np.eye(3))), 3),
    "a system whose right side is drawn": pathwise(lambda z, t: np.sum(np.linalg.solve(np.eye(3) * t, z)), 3),
    "an inverse without its pole": pathwise(
        lambda z, t: (lambda a: np.sum(np.tanh(np.linalg.det(a) * np.linalg.inv(a))))(mixed(z))
    ),
    "a function of a matrix": pathwise(
        lambda z, t: (lambda w, v: np.sum((v * np.exp(-w)) @ v.T))(*np.linalg.eigh(np.outer(z, z) + np.diag(A))), 3
    ),
    "eigenvalues": pathwise(lambda z, t: np.sum(np.linalg.eigh(np.outer(z, z) + np.diag(A))[0] ** 3), 3),
    "least squares of a tall matrix": pathwise(
        lambda z, t: np.sum(np.linalg.lstsq(np.reshape(z, (4, 2)), A[:1] * np.ones(4), rcond=None)[0]), 8
    ),
    "a polar factor": pathwise(
        lambda z, t: (lambda u, s, vh: np.sum(A[:2] * (u @ vh)))(
            *np.linalg.svd(2 * np.eye(2) + 0.3 * np.tanh(mixed(z)))
        )
    ),
    "a projection": pathwise(
        lambda z, t: (lambda q: np.sum(np.sin(q @ q.T)))(np.linalg.qr(np.reshape(z, (4, 2)))[0]), 8
    ),
    "whole turns of an angle": pathwise(lambda z, t: np.cos(np.unwrap(np.stack([0 * z, z + np.pi]))[1])),
    "step of the parameter": fixed(lambda z, t: np.sign(t) * z),
    "if on the parameter": pathwise(lambda z, t: z * t if t > 0 else z),
    "step of a draw": lambda t, rng: np.where(scg.sample(dist.Normal(t, 1.0), SCORE, rng=rng) > 0, 1.0, t),
    "discrete draw": lambda t, rng: np.where(scg.sample(dist.Bernoulli(logits=t), SCORE, rng=rng) > t, 1.0, t),
    "finite": pathwise(lambda z, t: (lambda x: np.where(np.isfinite(x), x, 0))(np.exp(z))),
    "a check": pathwise(lambda z, t: z if not np.isnan(z) else 0 * z),
    "promised": pathwise(lambda x, t: x if scg.stop_gradient(x) > 0 else 0.1 * x),
    "density of a gamma": lambda t, rng: (lambda q: q.log_prob(scg.sample(q, PATH, rng=rng)))(
        dist.Gamma(np.exp(t), 1.0)
    ),
    "density on a simplex": lambda t, rng: (lambda q: q.log_prob(scg.sample(q, PATH, rng=rng)))(
        dist.Dirichlet(np.exp(np.stack([t, t, t])))
    ),
    "density up to an end": lambda t, rng: (lambda q: q.log_prob(scg.sample(q, PATH, rng=rng)))(dist.Uniform(0.0, t)),
}


@pytest.mark.parametrize("name", JUMPS)
def test_an_estimator_refuses_a_jump_that_moves(name):
    for s in range(3):
        with pytest.raises(
            EstimatorError, match=r"(moves with the parameters|only through steps).*(use|let|write|smooth).*test_jumps"
        ):
            scg.grad(JUMPS[name])(np.array(T), rng=np.random.default_rng(s))


@pytest.mark.parametrize("name", CONTINUOUS)
def test_a_cost_that_is_continuous_is_not_refused(name):
    for s in range(3):
        assert np.isfinite(scg.grad(CONTINUOUS[name])(np.array(T), rng=np.random.default_rng(s)))


@pytest.mark.parametrize("unit, offset", [(1e-20, 0.0), (1e-9, 0.0), (1e9, 0.0), (1.0, 1e8), (1e-3, -1e4)])
@pytest.mark.parametrize("costs", ["jump", "are continuous"])
def test_a_jump_is_one_in_any_units_and_beside_any_number(costs, unit, offset):
    """c(z, t) jumps where unit c + offset does: what is small is small against the range of the cost, not against 1."""
    for name, cost in (JUMPS if costs == "jump" else CONTINUOUS).items():
        run = scg.grad(lambda t, rng, cost=cost: offset + unit * cost(t, rng))
        if costs == "jump":
            with pytest.raises(EstimatorError):
                run(np.array(T), rng=np.random.default_rng(0))
                pytest.fail(name)
        else:
            run(np.array(T), rng=np.random.default_rng(0))


@pytest.mark.parametrize("far", [dist.StudentT(3.0, 0.0, 1.0), dist.Cauchy(0.0, 1.0), dist.Laplace(0.0, 3.0)], ids=repr)
@pytest.mark.parametrize("step", [np.floor, np.round, np.trunc, lambda x: np.remainder(x, 1.0)])
def test_a_cost_that_jumps_at_many_places_is_refused_though_it_vanishes_far_out(far, step):
    """floor(z - t) exp(-z^2): the first of the places on the line are so far out that no jump is left there."""
    with pytest.raises(EstimatorError, match="moves with the parameters"):
        scg.grad(lambda t, rng: (lambda z: step(z - t) * np.exp(-z * z))(scg.sample(far, SCORE, rng=rng)))(
            np.array(T), rng=np.random.default_rng(0)
        )


@pytest.mark.parametrize(
    "name",
    ["where", "if", "comparison", "floor", "sign", "bins that move", "moving end", "truncated"]
    + ["a direction by the square", "of a negative power", "the cut of a root", "an if that few draws meet"],
)
def test_exact_gradients_and_verdicts_take_no_wrong_reference(name):
    cost = JUMPS[name]
    with pytest.raises(scg.exact.ConvergenceError, match="moves with the parameters"):
        scg.exact.gradient(cost, np.array(T))
    with pytest.raises(EstimatorError):
        scg.testing.judge(cost, np.array(T), rng=np.random.default_rng(0))


def test_a_step_on_a_path_of_known_density_is_exact():
    """P(z > 0), z ~ N(t, 1): phi(t); a next distribution of .8 and .1: .7 phi(t)."""
    assert scg.exact.gradient(JUMPS["an if on a path"], np.array(T)) == pytest.approx(norm.pdf(T), rel=1e-8)
    assert scg.exact.gradient(JUMPS["the next distribution"], np.array(T)) == pytest.approx(0.7 * norm.pdf(T), rel=1e-8)


def test_a_pole_on_a_path_of_known_density_is_exact():
    """E arctan(1 / z), z ~ N(t, 1), by parts: the flux pi phi(t) and the mean of -1 / (1 + z^2)."""
    smooth = quad(lambda z: -norm.pdf(z - T) / (1 + z * z), -12, 12, epsabs=1e-13)[0]
    truth = np.pi * norm.pdf(T) + smooth
    assert scg.exact.gradient(JUMPS["a bounded function of a pole"], np.array(T)) == pytest.approx(truth, rel=1e-8)


@pytest.mark.parametrize("name", ["Huber", "leaky rectifier", "softplus by where", "sin x / x", "newsvendor by where"])
def test_a_formula_is_looked_at_once(name, monkeypatch):
    """Whether it is continuous is known from its operations, whatever its arrays hold: at no call are they moved."""
    monkeypatch.setattr(Crossing, "run", lambda *_: pytest.fail("moved"))
    for s in range(3):
        scg.grad(CONTINUOUS[name])(np.array(T + s), rng=np.random.default_rng(s))


@pytest.mark.parametrize("name", ["shares", "a unit vector", "standardised", "leaky rectifier"])
def test_a_denominator_that_is_positive_is_not_searched_for_zeros(name, monkeypatch):
    met = []
    monkeypatch.setattr("scg.stochastic.jumps.is_continuous", lambda *_: met.append(1) or True)
    scg.grad(CONTINUOUS[name])(np.array(T), rng=np.random.default_rng(0))
    assert bool(met) == (name == "leaky rectifier")


@pytest.mark.parametrize("seen", [3.0, 37.0])
def test_a_formula_is_looked_at_anew_where_its_arrays_choose(seen):
    """z + (labels == 37) jumps with z > 0 where a label is 37, and nowhere else."""
    cost = pathwise(lambda z, t: np.sum(np.where(z > 0, z + (labels + 0 * t == 37), z)), 4)
    labels = np.array([1.0, 2.0, 3.0, 4.0])
    scg.grad(cost)(np.array(T), rng=np.random.default_rng(0))
    labels = np.array([1.0, 2.0, seen, 4.0])
    if seen != 37:
        scg.grad(cost)(np.array(T), rng=np.random.default_rng(0))
        return
    with pytest.raises(EstimatorError, match="moves with the parameters"):
        scg.grad(cost)(np.array(T), rng=np.random.default_rng(0))


@pytest.mark.parametrize("delta", [0.3, 1.0, 7.5])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_continuous_choice_is_settled_in_a_few_runs(delta, dtype, monkeypatch):
    """Where two numbers that are compared are equal, a secant finds within a few runs of a few numbers: no search."""
    monkeypatch.setattr("scg.stochastic.jumps.is_continuous", lambda *_: False)  # which needs no run at all
    runs = []
    one = Crossing.run
    monkeypatch.setattr(Crossing, "run", lambda self, *args: runs.append(1) or one(self, *args))

    def loss(w, rng):
        z = scg.sample(dist.Normal(np.tanh(w), 1.0), PATH, rng=rng, shape=(6,))
        e = z @ np.linspace(-1, 1, 12, dtype=dtype).reshape(3, 4) - 0.2
        huber = np.where(np.abs(e) < delta, 0.5 * e**2, delta * (np.abs(e) - 0.5 * delta))
        cubic = np.where(e**3 + e > delta, (e**3 + e) / delta, 1.0)
        return np.sum(huber) + np.sum(np.where(e > 0, e, 0.1 * e)) + np.sum(cubic)

    g = scg.grad(loss)(np.linspace(0, 1, 3, dtype=dtype), rng=np.random.default_rng(0))
    assert g.dtype == dtype and len(runs) <= 20  # of 24 and more where a search goes on to neighbouring numbers


def test_interpolation_is_one_operation_with_kinks():
    """E f(z), z ~ N(t, 1), f linear between knots: d/dt E f = E f'(z), d2/dt2 E f = sum of the kinks' (f'+ - f'-) phi;
    a sampled Hessian has no flux through the kinks."""
    xp, fp = np.array([-1.0, 0.0, 0.5, 2.0]), np.array([1.0, 0.0, 3.0, -1.0])
    cost = pathwise(lambda z, t: np.interp(z, xp, fp))
    slopes = np.concatenate([[0], np.diff(fp) / np.diff(xp), [0]])
    assert scg.exact.gradient(cost, np.array(T)) == pytest.approx(slopes[1:-1] @ np.diff(norm.cdf(xp - T)), rel=1e-8)
    assert scg.exact.hessian(cost, np.array(T)) == pytest.approx(np.diff(slopes) @ norm.pdf(xp - T), rel=1e-8)
    with pytest.raises(EstimatorError, match="moves with the parameters"):
        scg.hessian(cost)(np.array(T), rng=np.random.default_rng(0))
    nodes = scg.trace(cost, np.array(T), rng=np.random.default_rng(0)).nodes
    assert not any(n.primitive.jumps and n.operands for n in nodes)  # of which each would be searched for jumps


def test_a_second_derivative_refuses_a_pole_of_the_slope():
    """log |z|, z ~ N(t, 1): E 1/z is a principal value, and E -1/z^2 does not exist."""
    cost = pathwise(lambda z, t: np.log(np.abs(z)))
    with pytest.raises(EstimatorError, match="moves with the parameters"):
        scg.hessian(cost)(np.array(T), rng=np.random.default_rng(0))


def test_a_second_derivative_refuses_a_kink_that_moves():
    """E max(z - t, 0) has the second derivative phi(t); the cost's own is 0."""
    cost, rng = CONTINUOUS["newsvendor"], np.random.default_rng(0)
    with pytest.raises(EstimatorError, match="moves with the parameters"):
        scg.hessian(cost)(np.array(T), rng=rng)
    with pytest.raises(EstimatorError, match="moves with the parameters"):
        scg.hvp(cost)(np.array(T), np.array(1.0), rng=rng)
    with pytest.raises(scg.exact.ConvergenceError, match="moves with the parameters"):
        scg.exact.hessian(cost, np.array(T))
    assert scg.exact.gradient(cost, np.array(T)) == pytest.approx(-norm.sf(T), rel=1e-8)


SIDES = (
    lambda u: 0 * u,
    lambda u: u,
    lambda u: u * u,
    lambda u: 0 * u + 1,
    lambda u: np.sin(u),
    lambda u: np.exp(0.3 * u) - 1,
)


@drawn(50)
@given(
    st.sampled_from(range(len(SIDES))),
    st.sampled_from(range(len(SIDES))),
    st.sampled_from([0.5, 1.0, -2.0]),
    st.sampled_from([-0.4, 0.0, 0.9]),
    st.booleans(),
)
def test_drawn_steps_are_right_or_refused(left, right, slope, place, along):
    """where(u > place, a(u), b(u)), u = z + slope t (z held) or z + t (along the path): the gradient against quadrature
    over the pieces of u."""
    a, b = SIDES[left], SIDES[right]

    def choice(u):
        return np.where(u > place, a(u), b(u))

    cost = pathwise(lambda z, t: choice(z)) if along else fixed(lambda z, t: choice(z + slope * t))
    slope = 1.0 if along else slope

    def mean(t):
        inside = [
            quad(lambda u: choice(np.array(u)) * norm.pdf(u - slope * t), lo, hi, epsabs=1e-13)[0]
            for lo, hi in ((slope * t - 12, place), (place, slope * t + 12))
        ]
        return sum(inside)

    h = 1e-3
    truth = (8 * (mean(T + h) - mean(T - h)) - (mean(T + 2 * h) - mean(T - 2 * h))) / (12 * h)
    size = abs(float(a(np.array(place)) - b(np.array(place))))
    if left == right or size < 1e-12:
        assert scg.exact.gradient(cost, np.array(T), rtol=1e-7) == pytest.approx(truth, rel=1e-6, abs=1e-9)
        scg.grad(cost)(np.array(T), rng=np.random.default_rng(0))
        return
    with pytest.raises(EstimatorError):
        scg.grad(cost)(np.array(T), rng=np.random.default_rng(0))
    try:
        assert scg.exact.gradient(cost, np.array(T), rtol=1e-7) == pytest.approx(truth, rel=1e-6, abs=1e-9)
    except scg.exact.ConvergenceError:
        assert not along  # along a path of known density the step stands still


@pytest.mark.parametrize(
    "cost, is_right",
    [
        (lambda a, b: (np.where(b > 0, 1.5, -0.5) - 0.45) ** 2, True),  # a step of what is sampled given a
        (lambda a, b: np.where(b > 0, a, 2 * a * a), True),
        (lambda a, b: (a > 0) * b, False),  # a step of a itself
        (lambda a, b: np.round(a) + b, False),
    ],
)
def test_a_step_of_a_sample_below_a_pathwise_one_is_its_own_estimators_business(cost, is_right):
    def program(t, rng):
        a = scg.sample(dist.Normal(t, 1.0), scg.Reparameterized(), rng=rng, name="a")
        return cost(a, scg.sample(dist.Bernoulli(logits=0.7 * a), scg.Enumerate(), rng=rng, name="b"))

    graph = scg.trace(program, np.array(0.5), rng=np.random.default_rng(0))
    if not is_right:
        with pytest.raises(EstimatorError, match="only through steps"):
            graph.gradients(rng=np.random.default_rng(0))
        return
    found = graph.gradients(rng=np.random.default_rng(1), replicates=40_000)
    assert abs(found.mean() - scg.exact.gradient(graph)) < 5 * found.std() / 200


def test_a_parameter_that_jumps_with_a_pathwise_sample_is_refused():
    def program(t, rng):
        a = scg.sample(dist.Normal(t, 1.0), scg.Reparameterized(), rng=rng, name="a")
        b = scg.sample(dist.Normal(a, np.where(a > 0, 1.0, 2.0)), scg.ScoreFunction(), rng=rng, name="b")
        return b * b

    with pytest.raises(EstimatorError):
        scg.trace(program, np.array(0.5), rng=np.random.default_rng(0)).gradients(rng=np.random.default_rng(0))


@pytest.mark.parametrize(
    ("cost", "harmless", "harmful"),
    [
        (lambda z, b: np.sum(b / np.max(z) + z), 0.0, 0.5),  # no pole for b = 0
        (lambda z, b: np.sum(z / np.sqrt(b * b + z * z)), 0.3, 0.0),  # the sign of z for b = 0
    ],
)
def test_costs_that_do_not_jump_for_some_numbers_are_not_remembered_for_others(cost, harmless, harmful):
    slope = scg.grad(lambda t, b, rng: cost(scg.sample(dist.Uniform(-4.0, t + 5.0), PATH, rng=rng, shape=3), b), (0, 1))
    for seed in range(6):
        slope(np.array(0.5), np.array(harmless), np.random.default_rng(seed))
    with pytest.raises(EstimatorError, match="the cost jumps"):
        slope(np.array(0.5), np.array(harmful), np.random.default_rng(0))


def test_what_parameters_alone_move_has_the_sign_of_its_values(monkeypatch):
    """b^2 + z^2 has no zero for b = 0.3: none is sought."""
    monkeypatch.setattr("scg.stochastic.jumps.Ways", lambda *_: pytest.fail("a search"))

    def cost(b, rng):
        z = scg.sample(dist.Normal(b, 1.0), PATH, rng=rng)
        return z / np.sqrt(b * b + z * z)

    slope = scg.grad(cost)
    assert np.isfinite(slope(np.array(0.3), np.random.default_rng(0)))
