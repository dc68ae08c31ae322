"""JAX's discrete samples, made to branch for ``enumerate``.

While a call lasts, and in its thread only, the functions of ``jax.random`` that are listed here take the next value of
the tree. Keys are of an implementation whose random bits are a refusal, so that no other sample goes unseen.
``jax.jit`` and its kin are off; inside ``jax.vmap`` samples are made one by one, by callbacks.
"""

import contextlib
import math
import threading
from collections.abc import Callable, Iterator, Sequence

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np

from scg.bridge import chances
from scg.bridge.branching import Paths
from scg.bridge.lines import user_line
from scg.bridge.numpy_draws import only_its_own_draws
from scg.core.aliases import Foreign, Function
from scg.core.tree import leaves, rebuild
from scg.errors import ScgError, ScgTypeError, ScgValueError


@contextlib.contextmanager
def program(fn: Function, args: Sequence[Foreign], paths: Paths, tail: float) -> Iterator[Callable[[], Foreign]]:
    """``fn(key, *args)`` with a key of which only listed samples are made."""
    draws = Branching(paths, tail)
    key = jax.random.key(0, impl=_implementation())
    drawing = [name for name in dir(jax.random) if callable(getattr(jax.random, name)) and name not in _OF_KEYS]
    kept = {name: getattr(jax.random, name) for name in drawing if not name.startswith("_")}

    def run() -> Foreign:
        draws.seen.clear()
        result = fn(key, *args)
        return rebuild(result, iter([_array(leaf) for _, leaf in leaves(result)]))

    with only_its_own_draws(), jax.disable_jit():
        try:
            for name, function in kept.items():
                setattr(jax.random, name, _in_this_thread(getattr(draws, name, None) or _refuse(name), function))
            yield run
        finally:
            for name, function in kept.items():
                setattr(jax.random, name, function)


_OF_KEYS = {
    "PRNGKey", "clone", "fold_in", "key", "key_data", "key_dtype", "key_impl", "random_gamma_p", "split",
    "wrap_key_data",
}  # fmt: skip
"""What ``jax.random`` has beside samples."""


def _refuse(name: str) -> Function:
    def refused(*args: object, **kwargs: object) -> Foreign:
        raise ScgTypeError(
            f"enumerate: jax.random.{name} is a sample whose outcomes cannot be listed: draw from a discrete"
            " distribution (in jax.random.uniform(key) < p the p cannot be seen: write jax.random.bernoulli(key, p)),"
            " draw what is constant outside of the function, or judge the estimator as scg.bridge.Samples"
            f" ({user_line()})"
        )

    return refused


def _in_this_thread(ours: Function, theirs: Function) -> Function:
    here = threading.get_ident()

    def function(*args: object, **kwargs: object) -> Foreign:
        return (ours if threading.get_ident() == here else theirs)(*args, **kwargs)

    return function


def _array(leaf: Foreign) -> Foreign:
    return np.asarray(leaf) if isinstance(leaf, jax.Array) else leaf


def _implementation() -> Foreign:
    """Keys that split and fold as JAX's do, and have no bits."""
    theirs = lambda data: jax.random.wrap_key_data(data, impl="threefry2x32")

    def bits(key: Foreign, width: int, shape: Foreign) -> Foreign:
        raise ScgTypeError(
            "enumerate: a sample that is not seen: by a function of jax.random that was imported by its own name (write"
            f" jax.random.bernoulli(...) in full), or from bits ({user_line()})"
        )

    return jax.extend.random.define_prng_impl(
        key_shape=(2,),
        seed=lambda seed: jax.random.key_data(jax.random.key(seed, impl="threefry2x32")),
        split=lambda data, shape: jax.random.key_data(jax.random.split(theirs(data), shape)),
        random_bits=bits,
        fold_in=lambda data, number: jax.random.key_data(jax.random.fold_in(theirs(data), number)),
        name="enumerated",
        tag="enumerated",
    )


class Branching:
    """Functions of ``jax.random`` that take the next values of a path; a key that comes again gives the same again."""

    def __init__(self, paths: Paths, tail: float):
        self._paths, self._tail = paths, tail
        self.seen: dict[bytes, tuple[Foreign, Foreign]] = {}

    def bernoulli(
        self, key: Foreign, p: Foreign = 0.5, shape: Foreign = None, mode: str = "low", **options: object
    ) -> Foreign:
        """``jax.random.bernoulli``."""
        shape = jnp.shape(p) if shape is None else shape
        return self._each("bernoulli", key, shape, bool, lambda p: chances.bernoulli(min(max(p, 0.0), 1.0)), p)

    def binomial(self, key: Foreign, n: Foreign, p: Foreign, shape: Foreign = None, dtype: Foreign = None) -> Foreign:
        """``jax.random.binomial``."""
        shape = jnp.broadcast_shapes(jnp.shape(n), jnp.shape(p)) if shape is None else shape
        draw = lambda n, p: chances.binomial(int(n), p)
        return self._each("binomial", key, shape, dtype or float, draw, n, p)

    def geometric(
        self, key: Foreign, p: Foreign, shape: Foreign = None, dtype: Foreign = None, **options: object
    ) -> Foreign:
        """``jax.random.geometric``."""
        shape = jnp.shape(p) if shape is None else shape
        return self._each("geometric", key, shape, dtype or int, lambda p: chances.geometric(p, self._tail), p)

    def poisson(
        self, key: Foreign, lam: Foreign, shape: Foreign = None, dtype: Foreign = None, **options: object
    ) -> Foreign:
        """``jax.random.poisson``."""
        shape = jnp.shape(lam) if shape is None else shape
        return self._each("poisson", key, shape, dtype or int, lambda rate: chances.poisson(rate, self._tail), lam)

    def rademacher(self, key: Foreign, shape: Foreign = (), dtype: Foreign = None, **options: object) -> Foreign:
        """``jax.random.rademacher``."""
        make = lambda: [2 * k - 1 for k in self._paths.choose([chances.uniform(2)] * math.prod(shape))]
        return self._draw("rademacher", key, tuple(shape), dtype or int, make)

    def randint(
        self, key: Foreign, shape: Foreign, minval: Foreign, maxval: Foreign, dtype: Foreign = None, **options: object
    ) -> Foreign:
        """``jax.random.randint``."""

        def make(low: Foreign, high: Foreign) -> list[int]:
            flat = [np.broadcast_to(x, shape).reshape(-1).tolist() for x in (low, high)]
            # where there are no integers between, JAX returns the lower bound
            ranges = [(int(a), max(1, int(b) - int(a))) for a, b in zip(*flat, strict=True)]
            self._paths.foresee(math.prod([count for _, count in ranges]))
            drawn = self._paths.choose([chances.uniform(count) for _, count in ranges])
            return [a + k for (a, _), k in zip(ranges, drawn, strict=True)]

        return self._draw("randint", key, tuple(shape), dtype or int, make, minval, maxval)

    def categorical(
        self,
        key: Foreign,
        logits: Foreign,
        axis: int = -1,
        shape: Foreign = None,
        replace: bool = True,
        mode: Foreign = None,
        **options: object,
    ) -> Foreign:
        """``jax.random.categorical``."""
        logits = jnp.asarray(logits) if isinstance(logits, jax.Array) else np.asarray(logits)
        n = logits.shape[axis]
        batch = tuple(np.delete(logits.shape, axis).tolist())
        shape = batch if shape is None else tuple(shape)
        prefix = shape[: len(shape) - len(batch)]
        if jnp.broadcast_shapes(shape[len(prefix) :], batch) != shape[len(prefix) :]:
            raise ScgValueError(f"enumerate: categorical: shape {shape} must end in that of the batch, {batch}"
                                f" ({user_line()})")  # fmt: skip

        def make(logits: Foreign) -> Foreign:
            rows = np.moveaxis(np.asarray(logits, float), axis, -1)
            if replace:
                rows = np.broadcast_to(rows, (*shape, n)).reshape(-1, n)
                return self._paths.choose([chances.softmax(row) for row in rows])
            rows = np.broadcast_to(rows, (*shape[len(prefix) :], n)).reshape(-1, n)
            k = math.prod(prefix)
            taken = [self._paths.without_replacement(chances.softmax(row).probabilities.tolist(), k) for row in rows]
            return np.array(taken).T

        return self._draw(f"categorical{axis}{replace}", key, shape, int, make, logits)

    def choice(
        self,
        key: Foreign,
        a: Foreign,
        shape: Foreign = (),
        replace: bool = True,
        p: Foreign = None,
        axis: int = 0,
        mode: Foreign = None,
    ) -> Foreign:
        """``jax.random.choice``."""
        whole = np.ndim(a) == 0
        n, shape = (int(a) if whole else np.shape(a)[axis]), tuple(shape)
        k = math.prod(shape)

        def make(*p: Foreign) -> list[int]:
            if replace:
                draw = chances.categorical(p[0]) if p else chances.uniform(n)
                self._paths.foresee(draw.count**k)
                return self._paths.choose([draw] * k)
            return self._paths.without_replacement(np.asarray(p[0], float).tolist() if p else n, k)

        places = self._draw(f"choice{n}{replace}", key, shape, int, make, *(() if p is None else (p,)))
        return places if whole else jnp.take(jnp.asarray(a), places, axis=axis)

    def permutation(
        self, key: Foreign, x: Foreign, axis: int = 0, independent: bool = False, **options: object
    ) -> Foreign:
        """``jax.random.permutation``."""
        array = jnp.arange(int(x)) if np.ndim(x) == 0 else jnp.asarray(x)
        n = array.shape[axis]
        rest = tuple(np.delete(array.shape, axis).tolist()) if independent and array.ndim > 1 else ()
        make = lambda: [self._paths.without_replacement(n, n) for _ in range(math.prod(rest))]
        order = self._draw(f"permutation{axis}", key, (*rest, n), int, make)
        if not rest:
            return jnp.take(array, order, axis=axis)
        return jnp.take_along_axis(array, jnp.moveaxis(order, -1, axis), axis=axis)

    def _each(
        self, name: str, key: Foreign, shape: Foreign, dtype: Foreign, draw: Function, *parameters: Foreign
    ) -> Foreign:
        """Independent elements, each of its own distribution."""

        def make(*given: Foreign) -> list[int]:
            flat = [np.broadcast_to(np.asarray(p, float), shape).reshape(-1).tolist() for p in given]
            return self._paths.choose([draw(*values) for values in zip(*flat, strict=True)])

        return self._draw(name, key, tuple(shape), dtype, make, *parameters)

    def _draw(
        self, name: str, key: Foreign, shape: tuple[int, ...], dtype: Foreign, make: Function, *parameters: Foreign
    ) -> Foreign:
        """What ``make`` draws, given the numbers of the parameters, also those that JAX traces for ``vmap``."""
        dtype = jax.dtypes.canonicalize_dtype(dtype)
        data = jax.random.key_data(key) if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else key
        # a gradient goes not through a sample; and numbers of Python and NumPy keep their 64 bits
        given = [jax.lax.stop_gradient(p) if isinstance(p, jax.Array) else np.asarray(p) for p in parameters]

        if not any([isinstance(x, jax.core.Tracer) for x in (data, *given)]):
            return jnp.asarray(self._once(name, data, shape, make, given).astype(dtype))
        refusals: list[ScgError] = []

        def draw(data: Foreign, *numbers: Foreign) -> Foreign:
            try:  # JAX would log what is raised here, and wrap it
                return (
                    np.zeros(shape, dtype) if refusals else self._once(name, data, shape, make, numbers).astype(dtype)
                )
            except ScgError as error:
                refusals.append(error)
                return np.zeros(shape, dtype)

        result = jax.pure_callback(draw, jax.ShapeDtypeStruct(shape, dtype), data, *given, vmap_method="sequential")
        if refusals:
            raise refusals[0]
        return result

    def _once(self, name: str, data: Foreign, shape: tuple[int, ...], make: Function, numbers: Foreign) -> Foreign:
        arrays = [np.asarray(x) for x in numbers]
        call = (name, shape, [(x.shape, x.tobytes()) for x in arrays])
        at = np.asarray(data).tobytes()
        if at in self.seen:
            known, value = self.seen[at]
            if known != call:
                raise ScgValueError(
                    f"enumerate: a key that was used before is used again, by jax.random.{name} with other arguments:"
                    " the two samples depend on one another in a way that is not enumerated. Split the key, with a new"
                    f" one for each sample ({user_line()})"
                )
            return value
        value = np.asarray(make(*arrays), dtype=np.int64).reshape(shape)
        self.seen[at] = call, value
        return value
