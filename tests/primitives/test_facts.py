"""What primitives declare of themselves is true of them, nothing that is linear keeps silent about it, and a primitive
from outside with the same facts is treated as one from inside."""

import warnings
import zlib

import numpy as np
import pytest

import scg
import scg.exact
from scg import distributions as dist
from scg.core.ancestry import ancestors
from scg.core.cotangents import unbroadcast
from scg.core.node import Node
from scg.errors import ScgTypeError
from scg.extend import contraction, elementwise, mixed, primitive, reduction
from tests.support.cases import all_cases


def nodes():
    """A few nodes of each primitive of the catalogue, by primitive, with the values of their operands."""
    found: dict = {}
    for case in all_cases():
        rng = np.random.default_rng(zlib.crc32(case.name.encode()))
        shapes = [(3,) if d.shape is None else d.shape for d in case.domains]
        leaves = [scg.parameter(rng.uniform(d.low, d.high, s)) for d, s in zip(case.domains, shapes, strict=True)]
        with np.errstate(all="ignore"), warnings.catch_warnings(action="ignore"):
            made = [x if d.make is None else d.make(x) for x, d in zip(leaves, case.domains, strict=True)]
            result = case.fn(*made)
        roots = [r for r in (result if isinstance(result, (tuple, list)) else [result]) if type(r) is Node]
        for node in ancestors(roots):
            if node.operands and len(found.setdefault(node.primitive, [])) < 6:
                found[node.primitive].append(node)
    return found


NODES = nodes()
ROUGHLY = {"nextafter", "heaviside", "xlogy", "xlog1py", "irfft"}
"""Linear but for rounding, but in a point, or but where log 0 stands beside 0; of complex numbers."""


def arrays(node):
    return [o.raw if type(o) is Node else o for o in node.operands]


def is_real(x):
    return not isinstance(x, tuple) and np.asarray(x).dtype.kind in "fiub"


def values(node, operands):
    with np.errstate(all="ignore"), warnings.catch_warnings(action="ignore"):
        return np.asarray(node.primitive.fn(*operands, **node.statics), float)


def is_linear(node, group, rng):
    """Whether f(2 a - 3 b) = 2 f(a) - 3 f(b) in the operands of the group together, the others as they are."""
    own = arrays(node)

    def at(parts):
        return values(node, [parts[k] if k in parts else x for k, x in enumerate(own)])

    a, b = [{k: rng.normal(size=np.shape(own[k])) for k in group} for _ in range(2)]
    try:
        with np.errstate(all="ignore"):
            both = at({k: 2 * a[k] - 3 * b[k] for k in group})
            apart = 2 * at(a) - 3 * at(b)
    except (ValueError, TypeError, IndexError, np.linalg.LinAlgError):
        return False
    return both.shape == apart.shape and np.allclose(
        both, apart, rtol=1e-9, atol=1e-9 * (1 + np.nan_to_num(np.abs(apart)).max(initial=0))
    )


DECLARED = [p for p in NODES if p.linear is not None]


@pytest.mark.parametrize("primitive", DECLARED, ids=lambda p: p.name)
def test_what_says_that_it_is_linear_is_and_its_vjps_are_the_weights(primitive):
    """sum(g f(x)) = sum_k sum(vjp_k(g) x_k); the VJPs taken at other values of the group's operands."""
    rng, checked = np.random.default_rng(1), 0
    for node in NODES[primitive]:
        own = arrays(node)
        if not is_real(node.raw) or not all(map(is_real, own)):
            continue
        for group in primitive.groups(len(own)):
            assert is_linear(node, group, rng), node
            x = [rng.normal(size=np.shape(o)) if k in group else o for k, o in enumerate(own)]
            out, g, total = values(node, x), rng.normal(size=node.shape), 0.0
            for k in group:
                d = (
                    primitive.vjps[k](g, node.raw, *own, **node.statics)
                    if primitive.vjps
                    else primitive.every(g, k, node.raw, *own, **node.statics)
                )
                total += np.sum(unbroadcast(d, np.shape(own[k]), np.float64) * x[k])
            assert total == pytest.approx(np.sum(g * out), rel=1e-9, abs=1e-9 * (1 + np.sum(np.abs(g * out))))
            checked += 1
    assert checked


@pytest.mark.parametrize(
    "primitive", [p for p in NODES if p.differentiable and p.name not in ROUGHLY], ids=lambda p: p.name
)
def test_what_is_linear_says_so(primitive):
    rng, seen = np.random.default_rng(2), {}
    for node in NODES[primitive]:
        own = arrays(node)
        if not is_real(node.raw) or node.size < 2 or not all(map(is_real, own)):
            continue
        declared = {k for group in primitive.groups(len(own)) for k in group}
        for k, o in enumerate(own):
            carries = primitive.every is not None or primitive.vjps[k] is not None
            if carries and k not in declared and np.asarray(o).dtype.kind == "f" and np.size(o) > 1:
                seen.setdefault(k, []).append(np.any(node.raw) and is_linear(node, (k,), rng))
    assert not any([all(found) for found in seen.values()]), seen  # a polynomial of degree one is linear, for once


@pytest.mark.parametrize("primitive", [p for p in NODES if p.moves or p.picks], ids=lambda p: p.name)
def test_what_moves_elements_has_no_others(primitive):
    for node in NODES[primitive]:
        own = arrays(node)
        elements = np.concatenate([np.ravel(x) for x in (own if primitive.moves else own[:1])])
        assert np.isin(node.raw, elements).all()


def test_what_is_the_same_has_the_value_of_its_first_operand_and_what_is_constant_never_changes():
    from scg.core.backward import estimate
    from scg.estimators.relaxed import straight
    from scg.objectives import weighted
    from scg.stochastic.dependence import accounted
    from scg.stochastic.formulas import box, first_order, only_once

    x, y = np.array([[0.3, -2.0]]), np.array([[0.1], [5.0]])
    for one in (estimate, straight, weighted, accounted, only_once):
        assert one.same and not one.constant
        whose = {"whose": ""} if one is only_once else {}
        np.testing.assert_array_equal(np.broadcast_to(one.fn(x, y, **whose), (2, 2)), np.broadcast_to(x, (2, 2)))
    zero = first_order(scg.parameter(x), y)
    for one, statics, operands, others in (
        (box, {}, (x,), (-x,)),
        (zero.primitive, zero.statics, (x, y), (x + 1, -y)),
    ):
        assert one.constant
        np.testing.assert_array_equal(one.fn(*operands, **statics), one.fn(*others, **statics))


@pytest.mark.parametrize("linear", ["sum", [], [(1,)], [(2,)], [("x",)], 3, True])
def test_a_fact_that_cannot_be_true_is_refused(linear):
    with pytest.raises(ScgTypeError, match="linear="):
        primitive(lambda x, y: x * 2, elementwise, lambda g, out, x, y: 2 * g, None, linear=linear)


# a primitive from outside with the same facts


THETA, W = np.array([0.3, -0.2, 0.9]), np.array([[1.0, -2.0, 3.0], [0.5, 2.0, 0.25]])

PAIRS = {
    "a factor": (
        primitive(lambda x: 2 * x, elementwise, lambda g, out, x: 2 * g, name="huber", linear="together"),
        lambda x: 2 * x,
        lambda twice, b: twice(np.sum(b)) + np.sum(twice(b * b)),
    ),
    "a difference": (
        primitive(
            *(lambda x, y: x - y, elementwise, lambda g, out, x, y: g, lambda g, out, x, y: -g),
            linear="together",
            name="remainder",
        ),
        lambda x, y: x - y,
        lambda minus, b: np.sum(minus(b, np.roll(b, 1) * 0.3)),
    ),
    "a product": (
        primitive(
            *(lambda x, y: x * y, elementwise, lambda g, out, x, y: g * y, lambda g, out, x, y: g * x),
            linear="each",
            name="maximum",
        ),
        lambda x, y: x * y,
        lambda times, b: times(b[0] + b[2], 3.0) + times(b[0], b[1]),
    ),
    "a matrix": (
        primitive(
            lambda a, x: (a @ x[..., None])[..., 0],
            contraction("ij,j->i"),
            lambda g, out, a, x: g[..., None] * x[..., None, :],
            lambda g, out, a, x: (np.swapaxes(a, -1, -2) @ g[..., None])[..., 0],
            linear="each",
            name="median",
        ),
        lambda a, x: a @ x,
        lambda product, b: np.sum(product(W, b)),
    ),
    "a choice": (
        primitive(
            *(lambda c, x, y: np.where(c, x, y), elementwise, None),
            *(lambda g, out, c, x, y: g * c, lambda g, out, c, x, y: g * ~c),
            linear=[(1, 2)],
        ),
        lambda c, x, y: np.where(c, x, y),
        lambda where, b: np.sum(where(W[0] > 0, b * 5.0, b * 7.0)) + np.sum(where(b > 0.5, b, 0.5)),
    ),
}


@pytest.mark.parametrize(
    "estimator", [scg.ScoreFunction(), scg.DisARM(), scg.ScoreFunction(baseline=scg.LeaveOneOut(), samples=2)]
)
@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
def test_a_primitive_from_outside_is_taken_apart_as_one_from_inside(pair, estimator):
    """The same estimates draw by draw, so the same exact variance; replicates, plans and second derivatives too."""
    mine, theirs, use = pair

    def cost(fn):
        def program(theta, rng):
            return use(fn, scg.sample(dist.Bernoulli(logits=theta), estimator, rng=rng, name="b"))

        return program

    outside, inside = [scg.trace(cost(fn), THETA, rng=np.random.default_rng(0)) for fn in (mine, theirs)]
    one, two = scg.exact.moments(outside), scg.exact.moments(inside)
    np.testing.assert_allclose(one.variance, two.variance, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(one.mean, scg.exact.gradient(inside), rtol=1e-9, atol=1e-12)
    runs = [g.gradients(rng=np.random.default_rng(3), replicates=50) for g in (outside, inside)]
    np.testing.assert_allclose(*runs, rtol=1e-9, atol=1e-12)
    step = scg.compile(scg.grad(cost(mine)))
    rngs = np.random.default_rng(4), np.random.default_rng(4)
    for _ in range(3):
        np.testing.assert_allclose(
            step(THETA, rng=rngs[0]), scg.grad(cost(theirs))(THETA, rng=rngs[1]), rtol=1e-9, atol=1e-12
        )
    if type(estimator) is scg.ScoreFunction:
        pair = [scg.hessian(cost(fn))(THETA, rng=np.random.default_rng(5)) for fn in (mine, theirs)]
        np.testing.assert_allclose(*pair, rtol=1e-9, atol=1e-12)


def variance(use, theta=THETA):
    def cost(theta, rng):
        return use(scg.sample(dist.Bernoulli(logits=theta), scg.ScoreFunction(), rng=rng))

    graph = scg.trace(cost, theta, rng=np.random.default_rng(0))
    found = scg.exact.moments(graph)
    np.testing.assert_allclose(found.mean, scg.exact.gradient(graph), rtol=1e-10, atol=1e-12)
    return found.variance


@pytest.mark.parametrize(
    "use, weights",
    [
        (lambda b: W[0] @ b, W[0]),
        (lambda b: np.sum(W @ b), W.sum(axis=0)),
        (lambda b: np.sum(W.T @ (W @ b)), (W.T @ W).sum(axis=0)),
        (lambda b: np.einsum("ij,j->", W, b), W.sum(axis=0)),
        (lambda b: np.sum(np.cumsum(b)), np.array([3.0, 2.0, 1.0])),
        (lambda b: np.sum(np.convolve(b, W[0])), np.full(3, W[0].sum())),
        (lambda b: np.sum(np.linalg.solve(np.diag([2.0, 4.0, 5.0]), b)), 1 / np.array([2.0, 4.0, 5.0])),
        (lambda b: np.sum(np.where(W[0] > 0, b, 2 * b)), np.where(W[0] > 0, 1.0, 2.0)),
        (lambda b: np.sum(np.take_along_axis(b, np.array([0, 0, 2]), 0)), np.array([2.0, 0.0, 1.0])),
    ],
)
def test_what_is_linear_in_draws_is_a_sum_over_them(use, weights):
    """The variance of w b d log p / d logit, b ~ Bernoulli(p): w^2 p (1 - p)^2 (1 - p), for each draw alone."""
    p = 1 / (1 + np.exp(-THETA))
    np.testing.assert_allclose(variance(use), weights**2 * p * (1 - p) ** 2 * (1 - p), rtol=1e-10)


def test_a_product_stays_whole_where_another_term_mixes_its_draws_anyway():
    """W b and log(1 + exp(W b)) move together: the one without a part of the other varies more."""
    w = 3 * W
    whole = primitive(lambda x: x.copy(), mixed, lambda g, out, x: g)
    loss = lambda logits: np.sum(logits) - np.sum(np.logaddexp(0, logits))
    np.testing.assert_allclose(variance(lambda b: loss(w @ b)), variance(lambda b: loss(whole(w @ b))), rtol=1e-10)


def test_a_sum_of_truths_is_no_sum():
    """True + True is True: P(a or b) is not P(a) + P(b)."""
    variance(lambda b: np.mean((b[:2] > 0.5) + (b[1:] > 0.5)))
    variance(lambda b: np.sum(((b > 0.5) + (b[::-1] > 0.5)) * np.array([1.0, 2.0, 5.0])))


def test_elements_that_nobody_takes_may_be_infinite():
    """log 0 stands where nothing is chosen: its weight is zero by structure, and so is its part of the cost."""
    shift, theta = np.array([0.0, 1.0, 2.0]), np.array([-1.0, 0.5, 0.2])
    want = None
    with np.errstate(divide="ignore"):
        for use in (
            lambda x: np.sum(x[1:]),
            lambda x: np.sum(x[np.array([1, 2])]),
            lambda x: np.sum(np.where(shift > 0, x, 0.0)),
            lambda x: 0.5 * np.sum(np.where(shift > 0, x + x, 0.0)),
            lambda x: np.sum(np.take_along_axis(x, np.array([1, 2]), 0)),
        ):

            def cost(theta, rng, use=use):
                return use(np.log(scg.sample(dist.Bernoulli(logits=theta), scg.ScoreFunction(), rng=rng) + shift))

            graph = scg.trace(cost, theta, rng=np.random.default_rng(0))
            one = scg.grad(cost)(theta, rng=np.random.default_rng(1))
            runs = graph.gradients(rng=np.random.default_rng(2), replicates=20)
            want = (one, runs) if want is None else want
            np.testing.assert_allclose(one, want[0], rtol=1e-12)
            np.testing.assert_allclose(runs, want[1], rtol=1e-12)
            assert np.all(runs[:, 0] == 0) and np.any(runs[:, 1:])


def test_a_weight_that_happens_to_be_zero_has_its_derivative():
    """E[theta exp(s b)] = theta (1 - p + p e^s), p' = p (1 - p): a zero of a parameter is no zero by structure."""

    def cost(x, rng):
        b = scg.sample(dist.Bernoulli(logits=x[1]), scg.Enumerate(), rng=rng, shape=(2,))
        return np.sum(np.where(np.array([True, False]), np.exp(b * x[1]), 0.0) * x[0])

    x, p = np.array([0.0, 0.4]), 1 / (1 + np.exp(-0.4))
    for seed in range(4):  # enumerated for p', at the value that was drawn for the derivative of e^(s b)
        found = scg.hessian(cost)(x, rng=np.random.default_rng(seed)) - p * (1 - p) * (np.exp(0.4) - 1)
        assert np.isclose(found[0, 1], [0.0, np.exp(0.4)]).any() and found[0, 1] == pytest.approx(found[1, 0])


def test_a_total_from_outside_is_a_sum():
    total = primitive(
        lambda x, axis, keepdims: np.sum(x, axis, keepdims=keepdims),
        reduction,
        lambda g, out, x, axis, keepdims: g if keepdims else np.expand_dims(g, axis),
        linear="together",
    )
    mine = variance(lambda b: total(W * b, axis=1, keepdims=False)[0])
    np.testing.assert_allclose(mine, variance(lambda b: np.sum(W * b, axis=1)[0]), rtol=1e-12)
