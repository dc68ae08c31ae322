"""Samples from outside: what is taken of a function that draws gradients, and what is refused."""

import numpy as np
import pytest

import scg
from scg.bridge import Samples
from scg.errors import ScgTypeError, ScgValueError

pytestmark = pytest.mark.fast


class OnlyDLPack:
    """An array that speaks DLPack and nothing else."""

    def __init__(self, x):
        self.x = x

    def __dlpack__(self, **options):
        return self.x.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.x.__dlpack_device__()


class OnlyArray:
    """An array by ``__array__`` alone."""

    def __init__(self, x):
        self.x = x

    def __array__(self, dtype=None, copy=None):
        return self.x


def test_structures_of_whatever_is_an_array_are_taken():
    def draw(n, rng):
        x = rng.standard_normal((n, 3))
        return {"w": OnlyDLPack(x), "b": (OnlyArray(x[:, 0].astype(np.float32)), x[:, 1] > 0)}

    found = Samples(draw, evaluations=4).take(5, np.random.default_rng(0))
    x = np.random.default_rng(0).standard_normal((5, 3))
    np.testing.assert_array_equal(found["w"], x)
    assert found["b"][0].dtype == np.float32 and found["b"][1].dtype == bool


@pytest.mark.parametrize(
    "draw, error, words",
    [
        (lambda n, rng: np.zeros(n + 1), ScgValueError, r"leading axis of 5.*\(6,\)"),
        (lambda n, rng: 0.0, ScgValueError, r"leading axis of 5"),
        (lambda n, rng: {"w": np.zeros(n), "b": np.zeros((2, n))}, ScgValueError, r"\['b'\].*leading axis of 5"),
        (lambda n, rng: np.zeros(n, complex), ScgTypeError, "real numbers.*complex128"),
        (lambda n, rng: np.array(["a"] * n), ScgTypeError, "real numbers"),
        (lambda n, rng: object(), ScgTypeError, "got object"),
    ],
)
def test_what_is_no_row_of_gradients_is_refused(draw, error, words):
    with pytest.raises(error, match=words):
        Samples(draw).take(5, np.random.default_rng(0))


@pytest.mark.parametrize(
    "make, call",
    [
        (lambda: scg.bridge.numpy(lambda x: x, 1.0), r"fn\(\*args, rng=rng\)"),
        (
            lambda: scg.bridge.torch(lambda params: params.sum(), pytest.importorskip("torch").ones(2)),
            r"loss\(params, generator",
        ),
        (lambda: pytest.importorskip("jax") and scg.bridge.jax(lambda key: key, 1.0), r"fn\(key, \*args\)"),
    ],
)
def test_a_function_that_lacks_a_parameter_is_told_how_it_is_called(make, call):
    with pytest.raises(ScgTypeError, match=f"<lambda> is called as {call}.*does not take that"):
        make()


@pytest.mark.parametrize("given", [{"draw": np.zeros(3)}, {"draw": np.sum, "evaluations": -1}])
def test_what_is_no_function_or_no_count_is_refused(given):
    with pytest.raises(scg.ScgError):
        Samples(**given)
