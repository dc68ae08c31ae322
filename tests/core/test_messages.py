"""What a refusal advises works: each row has the call that is refused, words of the message, and the call that it
advises, whose gradient is that of the formula beside it."""

import functools
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.fft
import scipy.linalg
import scipy.sparse
import scipy.special
import scipy.stats

import scg
from scg import distributions as dist
from scg.errors import NotDifferentiable, ScgAttributeError, ScgError, ScgTypeError, location
from scg.testing import check_gradient

X = np.array([0.5, 1.5, 2.5])
A = np.array([[2.0, 0.5, 0.0], [0.5, 3.0, 0.25], [0.0, 0.25, 1.0]])
exact_abs = np.frompyfunc(abs, 1, 1)
declared_abs = scg.primitive(
    lambda x: np.asarray(exact_abs(x)).astype(float),
    scg.extend.elementwise,
    lambda g, out, x: g * np.sign(x),
    name="abs",
)


def through_eigenvalues(fn):
    def of(a):
        v, w = np.linalg.eigh((a + a.T) / 2)
        return (w * fn(v)) @ w.T

    return of


# (refused, words of the message, what it advises, the same function in plain NumPy and SciPy, the argument)
ADVICE = {
    "array @ sparse": (lambda p: p @ scipy.sparse.csr_array(A), "toarray", lambda p: p @ A, lambda p: p @ A, X),
    "sparse @ node": (lambda p: scipy.sparse.csr_array(A) @ p, "toarray", lambda p: A @ p, lambda p: A @ p, X),
    "sparse * node": (lambda p: scipy.sparse.csc_matrix(A) * p, "toarray", lambda p: A @ p, lambda p: A @ p, X),
    "array.dot": (lambda p: X.dot(p), "np.dot(array, node)", lambda p: np.dot(X, p), lambda p: X @ p, X),
    "logsumexp": (scipy.special.logsumexp, "scg.special.logsumexp", scg.special.logsumexp, scipy.special.logsumexp, X),
    "softmax": (scipy.special.softmax, "scg.special.softmax", scg.special.softmax, scipy.special.softmax, X),
    "log_softmax": (
        *(scipy.special.log_softmax, "scg.special.log_softmax"),
        *(scg.special.log_softmax, scipy.special.log_softmax, X),
    ),
    "factorial": (
        *(scipy.special.factorial, "scipy.special.gamma(node + 1)", lambda p: scipy.special.gamma(p + 1)),
        *(lambda p: scipy.special.gamma(p + 1), X),
    ),
    "comb": (
        *(lambda p: scipy.special.comb(p + 2, 2), "scipy.special.binom", lambda p: scipy.special.binom(p + 2, 2)),
        *(lambda p: (p + 2) * (p + 1) / 2, X),
    ),
    "perm": (
        *(lambda p: scipy.special.perm(p + 2, 2), "scipy.special.poch", lambda p: scipy.special.poch(p + 1, 2)),
        *(lambda p: (p + 2) * (p + 1), X),
    ),
    "r_": (
        *(lambda p: np.r_[p, X], "np.concatenate", lambda p: np.concatenate([p, X])),
        *(lambda p: np.concatenate([p, X]), X),
    ),
    "c_": (
        *(lambda p: np.c_[p, X], "np.column_stack", lambda p: np.column_stack([p, X])),
        *(lambda p: np.stack([p, X], axis=1), X),
    ),
    "solve": (
        lambda p: scipy.linalg.solve(A, p),
        "np.linalg.solve",
        lambda p: np.linalg.solve(A, p),
        lambda p: np.linalg.solve(A, p),
        X,
    ),
    "solve_triangular": (
        lambda p: scipy.linalg.solve_triangular(A, p, lower=True),
        "np.linalg.solve(np.tril(a), b)",
        lambda p: np.linalg.solve(np.tril(A), p),
        lambda p: np.linalg.solve(np.tril(A), p),
        X,
    ),
    "cho_solve": (
        lambda p: scipy.linalg.cho_solve((np.linalg.cholesky(A @ A.T), True), p),
        "np.linalg.solve(c.T, np.linalg.solve(c, b))",
        lambda p: (lambda c: np.linalg.solve(c.T, np.linalg.solve(c, p)))(np.linalg.cholesky(A @ A.T)),
        lambda p: np.linalg.solve(A @ A.T, p),
        X,
    ),
    "cholesky": (
        lambda p: scipy.linalg.cholesky(np.eye(3) + np.outer(p, p), lower=True),
        "np.linalg.cholesky",
        lambda p: np.linalg.cholesky(np.eye(3) + np.outer(p, p)),
        lambda p: np.linalg.cholesky(np.eye(3) + np.outer(p, p)),
        X,
    ),
    "scipy.stats": (
        lambda p: scipy.stats.norm.logpdf(p, 0.3, 2.0),
        "dist.Normal(loc, scale).log_prob(x)",
        lambda p: scg.distributions.Normal(0.3, 2.0).log_prob(p),
        lambda p: scipy.stats.norm.logpdf(p, 0.3, 2.0),
        X,
    ),
    "det": (scipy.linalg.det, "np.linalg.det", np.linalg.det, np.linalg.det, A),
    "expm": (
        scipy.linalg.expm,
        "np.linalg.eigh",
        through_eigenvalues(np.exp),
        lambda a: scipy.linalg.expm((a + a.T) / 2),
        A,
    ),
    "sqrtm": (
        scipy.linalg.sqrtm,
        "np.linalg.eigh",
        through_eigenvalues(np.sqrt),
        lambda a: scipy.linalg.sqrtm((a + a.T) / 2),
        A,
    ),
    "dct": (
        lambda p: abs(scipy.fft.fft(p)),
        "np.fft.fft",
        lambda p: abs(np.fft.fft(p)),
        lambda p: abs(np.fft.fft(p)),
        X,
    ),
    "polyval": (
        lambda p: np.polynomial.polynomial.polyval(2.0, p),
        "np.polyval",
        lambda p: np.polyval(p[::-1], 2.0),
        lambda p: p[0] + 2 * p[1] + 4 * p[2],
        X,
    ),
    "Polynomial": (
        lambda p: np.polynomial.Polynomial(X)(p),
        "np.polyval",
        lambda p: np.polyval(X[::-1], p),
        lambda p: X[0] + X[1] * p + X[2] * p**2,
        X,
    ),
    "full_like": (
        lambda p: np.full_like(X, p[0]),
        "broadcast_to",
        lambda p: np.broadcast_to(p[0], 3),
        lambda p: p[0] + 0 * X,
        X,
    ),
    "full": (lambda p: np.full(3, p[0]), "broadcast_to", lambda p: np.broadcast_to(p[0], 3), lambda p: p[0] + 0 * X, X),
    "frompyfunc": (exact_abs, "scg.primitive", declared_abs, np.abs, X),
    "flat": (lambda p: p.flat, "np.ravel(node)", np.ravel, np.ravel, A),
    "view": (lambda p: p.view(np.float64), "reshape", lambda p: p.reshape(9), np.ravel, A),
    "argpartition": (
        lambda p: p.argpartition(1),
        "np.argpartition",
        lambda p: p[np.argpartition(p, 1)][1],
        lambda p: np.sort(p)[1],
        X,
    ),
    "exp()": (lambda p: p.exp(), "np.exp(node)", np.exp, np.exp, X),
    "sigmoid()": (lambda p: p.sigmoid(), "scg.special.sigmoid", scg.special.sigmoid, scipy.special.expit, X),
    "permute": (lambda p: p.permute(1, 0), "np.transpose", lambda p: np.transpose(p, (1, 0)), np.transpose, A),
    "unsqueeze": (lambda p: p.unsqueeze(0), "np.expand_dims", lambda p: np.expand_dims(p, 0), lambda p: p[None], X),
    "!= None": (lambda p: p if p != None else 0, "is None", lambda p: p if p is not None else 0, lambda p: p, X),  # noqa: E711
    "== None": (lambda p: 0 if p == None else p, "is None", lambda p: 0 if p is None else p, lambda p: p, X),  # noqa: E711
    "histogram": (
        lambda p: np.histogram(p),
        "np.bincount",
        lambda p: np.bincount([0, 1, 1], p),
        lambda p: np.array([p[0], p[1] + p[2]]),
        X,
    ),
}

SERIES = {
    np.polynomial.chebyshev.chebval: scipy.special.eval_chebyt,
    np.polynomial.legendre.legval: scipy.special.eval_legendre,
    np.polynomial.laguerre.lagval: scipy.special.eval_laguerre,
    np.polynomial.hermite.hermval: scipy.special.eval_hermite,
    np.polynomial.hermite_e.hermeval: scipy.special.eval_hermitenorm,
}
for _series, _term in SERIES.items():
    ADVICE[_series.__name__] = (
        lambda p, series=_series: series(0.3, p),
        f"sum(c * scipy.special.{_term.__name__}(k, x) for k, c in enumerate(coefficients))",
        lambda p, term=_term: sum(c * term(k, 0.3) for k, c in enumerate(p)),
        lambda p, series=_series: series(0.3, p),
        X,
    )


@pytest.mark.parametrize("name", ADVICE)
def test_what_a_message_advises_is_the_function_that_was_meant(name):
    refused, words, advised, meant, at = ADVICE[name]
    with pytest.raises(ScgError) as caught:
        refused(scg.parameter(at, name="p"))
    message = str(caught.value)
    assert words in message and __file__ in message, message
    assert len(message) < 700
    np.testing.assert_allclose(advised(at), meant(at), rtol=1e-12)
    check_gradient(lambda p: np.real(advised(p)), at)


def graph_of(fn):
    return scg.grad(lambda p: np.sum(fn(p)))(X)


OTHER_LIBRARIES = {
    "backward": ("scg.value_and_grad", lambda: scg.value_and_grad(np.sum)(X)[1], np.ones(3)),
    "grad": ("scg.gradients", lambda: scg.gradients(np.sum(p := scg.parameter(X)), p), np.ones(3)),
    "detach": ("scg.stop_gradient", lambda: graph_of(lambda p: p * scg.stop_gradient(p)), X),
    "numpy": ("node.value", lambda: np.asarray(scg.parameter(X).value), X),
    "requires_grad_": ("scg.parameter", lambda: scg.parameter(X).value, X),
}


@pytest.mark.parametrize("name", OTHER_LIBRARIES)
def test_attributes_of_other_libraries_say_what_is_written_here(name):
    words, advised, value = OTHER_LIBRARIES[name]
    node = scg.parameter(X)
    with pytest.raises(ScgAttributeError, match=words):
        getattr(node, name)
    assert not hasattr(node, name) and getattr(node, name, None) is None
    np.testing.assert_array_equal(advised(), value)


def test_an_unknown_attribute_is_python_s_own_error():
    with pytest.raises(AttributeError, match="no attribute 'colour'") as caught:
        _ = scg.parameter(X).colour
    assert not isinstance(caught.value, ScgError)


METHODS = {  # by what PyTorch, Distrax or SciPy call it: the value for the half-normal distribution of scale 2
    "rsample": None,
    "has_rsample": True,
    "sample_n": None,
    "rvs": None,
    "expand": None,
    "sample_and_log_prob": None,
    "to_event": None,
    "stddev": scipy.stats.halfnorm(scale=2.0).std(),
    "var": scipy.stats.halfnorm(scale=2.0).var(),
    "quantile": scipy.stats.halfnorm(scale=2.0).ppf(0.3),
    "log_cdf": scipy.stats.halfnorm(scale=2.0).logcdf(0.7),
    "survival_function": scipy.stats.halfnorm(scale=2.0).sf(0.7),
    "kl_divergence": 0.0,
    **{
        name: getattr(scipy.stats.halfnorm(scale=2.0), name)(at)
        for name, at in {"logpdf": 0.7, "pdf": 0.7, "ppf": 0.3, "logcdf": 0.7, "sf": 0.7}.items()
    },
}


@pytest.mark.parametrize("name", METHODS)
def test_methods_of_the_distributions_of_other_libraries_say_what_is_written_here(name):
    """The words after "write" run as they stand."""
    given = dist.HalfNormal(2.0)
    with pytest.raises(ScgAttributeError, match=f"HalfNormal has no .{name}: write") as caught:
        getattr(given, name)
    assert not hasattr(given, name) and __file__ in str(caught.value)
    around = {
        "scg": scg,
        "np": np,
        "distribution": given,
        "other": given,
        "estimator": scg.Reparameterized(),
        "ndim": 0,
    }
    around |= {"rng": np.random.default_rng(0), "shape": (2,), "value": 0.7, "probability": 0.3}
    *before, last = str(caught.value).split(": write ")[1].rsplit(" (", 1)[0].split("; ")
    exec("; ".join(before), around)
    found = eval(last, around)
    if METHODS[name] is not None:
        np.testing.assert_allclose(found, METHODS[name], rtol=1e-12)


def test_what_no_distribution_has_is_python_s_own_error():
    with pytest.raises(AttributeError, match="'HalfNormal' object has no attribute 'colour'") as caught:
        _ = dist.HalfNormal(2.0).colour
    assert not isinstance(caught.value, ScgError)


# what a draw decides


def count(rate, rng, shape=()):
    return scg.sample(dist.Poisson(rate), scg.ScoreFunction(), rng=rng, shape=shape, name="n")


SIZES = {
    "range": lambda n: range(n),
    "int": lambda n: int(n),
    "zeros": lambda n: np.zeros(n),
    "ones of a tuple": lambda n: np.ones((2, n)),
    "reshape": lambda n: np.ones(4).reshape(n),
    "linspace": lambda n: np.linspace(0, 1, n),
    "arange": lambda n: np.arange(n),
    "slice": lambda n: X[:n],
    "slice of a node": lambda n: scg.parameter(X)[:n],
    "list": lambda n: [1.0, 2.0][n],
    "array": lambda n: X[n],
    "generator": lambda n: np.random.default_rng(0).normal(size=n),
    "sample": lambda n: scg.sample(dist.Normal(0.0, 1.0), scg.Reparameterized(), rng=np.random.default_rng(0), shape=n),
    "sample of a tuple": lambda n: dist.Normal(0.0, 1.0).sample(np.random.default_rng(0), (2, n)),
    "float": lambda n: float(n),
    "item": lambda n: n.item(),
    "tolist": lambda n: n.tolist(),
    "asarray": lambda n: np.asarray(n),
    "unique": lambda n: np.unique(n),
    "unknown": lambda n: exact_abs(n),
    "of an expression": lambda n: range(2 * n + 1),
}


@pytest.mark.parametrize("name", SIZES)
def test_nobody_is_told_to_take_the_number_of_what_a_draw_decides(name):
    """Its influence would be lost: the gradient of E[sum of n terms] would be 0."""
    with pytest.raises(ScgError) as caught:
        SIZES[name](count(scg.parameter(2.0), np.random.default_rng(1)))
    assert ".value" not in str(caught.value)
    assert __file__ in str(caught.value)


@pytest.mark.parametrize("size", [lambda n: range(n), lambda n: int(n), lambda n: np.ones((3, 2)).sum(axis=n)])
def test_a_node_that_no_draw_decides_may_give_its_number(size):
    with pytest.raises(ScgError, match="node.value"):
        size(scg.parameter(1.0))


def by_comparison(rate, rng):
    n, total, i = count(rate, rng), 0.0, 0
    while n > i:
        total, i = total + rng.exponential(0.5), i + 1
    return total + 0 * rate


def by_mask(rate, rng):
    n = count(rate, rng)
    return np.sum(np.where(np.arange(30) < n, rng.exponential(0.5, 30), 0.0))


def by_index(rate, rng):
    n = count(rate, rng)
    return scg.parameter(np.arange(40) / 2)[n.astype(int)]


@pytest.mark.parametrize("way", [by_comparison, by_mask, by_index])
def test_the_ways_for_a_drawn_size_have_the_gradient_of_the_mean(way):
    """Each is a sum of n ~ Poisson(r) terms of mean 1/2: d/dr E = 1/2. One score-function gradient is (n/r - 1) S; a
    z-score of 5 is a false alarm in two million."""
    rng = np.random.default_rng(7)
    found = np.array([scg.grad(way)(np.array(2.0), rng=rng) for _ in range(3000)])
    assert abs(found.mean() - 0.5) < 5 * found.std() / len(found) ** 0.5


def test_a_float_as_an_index_is_told_to_become_an_integer():
    with pytest.raises(ScgTypeError, match=r"astype\(int\)"):
        scg.parameter(X)[scg.parameter(1.0)]


# arguments and costs

CALLS = {
    "keyword only": (
        lambda: scg.grad(lambda *, p: p**2)(p=2.0),
        r"through lambda p: fn\(p=p\) where fn takes them as keywords only",
        lambda: scg.grad(lambda p: (lambda *, p: p**2)(p=p))(2.0),
    ),
    "integer in a structure": (
        lambda: scg.grad(lambda p: p["w"] ** 2 * p["n"])({"w": 2.0, "n": 1}),
        r"p\['n'\].*another argument",
        lambda: scg.grad(lambda p, n: p["w"] ** 2 * n)({"w": 2.0}, 1)["w"],
    ),
    "string in a structure": (
        lambda: scg.grad(lambda p: p[0] ** 2)([2.0, "relu"]),
        r"p\[1\].*outside of the structure",
        lambda: scg.grad(lambda p: p[0] ** 2)([2.0])[0],
    ),
    "complex cost": (
        lambda: scg.grad(lambda p: (p + 1j) ** 2)(2.0),
        "np.real or np.abs",
        lambda: scg.grad(lambda p: np.real((p + 1j) ** 2))(2.0),
    ),
    "complex number": (lambda: scg.grad(lambda p: 1j)(2.0), "np.real or np.abs", lambda: 4.0),
    "tuple": (
        lambda: scg.grad(lambda p: (p**2, p))(2.0),
        "has_aux=True",
        lambda: scg.grad(lambda p: (p**2, p), has_aux=True)(2.0)[0],
    ),
    "no tuple": (
        lambda: scg.grad(lambda p: p**2, has_aux=True)(2.0),
        r"\(cost, aux\)",
        lambda: scg.grad(lambda p: (p**2, None), has_aux=True)(2.0)[0],
    ),
    "covariance": (
        lambda: dist.MultivariateNormal(np.zeros(3), covariance_matrix=A),
        r"scale_tril=np\.linalg\.cholesky",
        lambda: 4.0 + dist.MultivariateNormal(np.zeros(3), scale_tril=np.linalg.cholesky(A)).covariance[0, 0] - A[0, 0],
    ),
    "another name": (lambda: dist.Normal(mu=0.0, scale=1.0), "loc, scale", lambda: 4 * dist.Normal(0.0, 1.0).scale),
}


@pytest.mark.parametrize("name", CALLS)
def test_calls_are_told_how_to_be_made(name):
    refused, words, advised = CALLS[name]
    with pytest.raises(ScgTypeError if name != "keyword only" else ScgError, match=words):
        refused()
    np.testing.assert_allclose(advised(), 4.0, rtol=1e-12)


ODD = {
    "jacobian of nothing": lambda g, p: scg.jacobian(lambda q: p * 2)({}),
    "hvp of nothing": lambda g, p: scg.hvp(lambda q: np.sum(p))({}, {}),
    "values": lambda g, p: g.run(values=1.5),
    "replay": lambda g, p: scg.replay(np.sum(p), [p]),
    "surrogate": lambda g, p: scg.surrogate(X),
    "parameters": lambda g, p: scg.Graph(g.cost, parameters={"t": 3.0}),
    "axis": lambda g, p: scg.special.log_softmax(X, 1.5),
    "activation": lambda g, p: scg.nn.apply(scg.nn.mlp([3, 4, 2], np.random.default_rng(0)), np.ones((5, 3)), 1.0),
    "row": lambda g, p: scg.variance.compare(g, {"a": {}}, replicates=300, rng=np.random.default_rng(0))[[]],
    "order": lambda g, p: scg.testing.check_gradient(np.sum, X, order="a"),
    "rate": lambda g, p: scg.testing.check_distribution(dist.Normal(0.0, 1.0), rng=np.random.default_rng(0), alpha=3),
    "axis of weights": lambda g, p: scg.objectives.iwae(X, axis=1.5),
    "no such axis of weights": lambda g, p: scg.objectives.iwae(p, axis=1),
    "aux": lambda g, p: scg.grad(np.sum, has_aux=1),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_arguments_are_refused_with_the_user_s_line(name):
    graph = scg.trace(lambda t, rng: np.mean(count(t, rng)), np.ones(3), rng=np.random.default_rng(0))
    with pytest.raises(ScgError, match=r"test_messages\.py"):
        ODD[name](graph, scg.parameter(X))


# the user's own line


def test_the_line_is_the_user_s_behind_python_s_own_library():
    class Lazy:
        def __init__(self, node):
            self.node = node

        cost = functools.cached_property(lambda self: scg.gradients(self.node, self.node))

    @functools.singledispatch
    def dispatched(node):
        return node + np.ones(4)

    step = lambda t, rng: np.where(
        scg.sample(dist.Normal(t, 1.0), scg.Reparameterized(), rng=rng, name="z") > 0, 1.0, 0.0
    )
    graph = scg.trace(step, np.array(0.3), rng=np.random.default_rng(0))
    for call in (
        lambda: graph.gradients(rng=np.random.default_rng(0), replicates=10),
        lambda: Lazy(scg.parameter(X)).cost,
        lambda: dispatched(scg.parameter(X)),
    ):
        with pytest.raises(ScgError) as caught:
            call()
        assert __file__ in str(caught.value).rpartition("(")[2]


def test_a_cell_of_a_notebook_is_called_as_ipython_calls_it(monkeypatch):
    """IPython's compiler knows which file names are cells: ``format_code_name`` is what its own tracebacks ask."""
    names = {"/tmp/ipykernel_12/34.py": 6}

    def format_code_name(name):
        return ("Cell", f"In[{names[name]}]") if name in names else None

    shell = SimpleNamespace(compile=SimpleNamespace(format_code_name=format_code_name))
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    cell = compile("def f(x):\n    return x + np.ones(4)\ny = f(x)", "/tmp/ipykernel_12/34.py", "exec")
    with pytest.raises(ScgError, match=r"\(Cell In\[6\], line 2, in f\)"):
        exec(cell, {"np": np, "x": scg.parameter(X)})
    assert location(sys._getframe().f_code, 0).startswith(__file__)
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: None))
    assert location(cell, 0).startswith("/tmp/ipykernel_12/34.py:")


def test_the_methods_that_refuse_are_those_of_detaching():
    """``__index__`` of a draw raises what NumPy does not replace; of other nodes, and elsewhere, NotDifferentiable."""
    n = count(scg.parameter(2.0), np.random.default_rng(0))
    with pytest.raises(ScgError, match="np.arange"):
        np.zeros(n)
    with pytest.raises(NotDifferentiable):
        int(n)
    with pytest.raises(NotDifferentiable):
        range(scg.parameter(1.0))
