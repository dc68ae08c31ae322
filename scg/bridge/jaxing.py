"""Gradients of JAX programs."""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from scg.bridge.calls import stacked
from scg.bridge.samples import Samples, name_of, require_parameters
from scg.bridge.torching import MissingError
from scg.core.aliases import Foreign, Function
from scg.core.operands import described
from scg.core.tree import leaves, rebuild
from scg.errors import ScgTypeError, ScgValueError, here

_SIZES, _ENTRIES = (2048, 256, 32), 2**20  # draws of one call, so that few shapes are compiled; numbers of its result


def jax(fn: Function, *args: object, evaluations: float | None = None) -> Samples:
    """``Samples`` of a JAX function that computes one gradient: ``fn(key, *args)``, an array or a pytree of arrays.

    Draws are made together, ``jax.jit(jax.vmap(fn))`` over keys that are split from one, which is seeded from ``rng``;
    where ``fn`` cannot be traced, by a loop over the keys: ``samples.method`` says which, and why. ``args`` are
    constants. Randomness comes from ``key`` alone: a function that takes numbers from elsewhere would have them frozen
    when it is traced, and is refused where that shows. Whether JAX computes in 64 bits is as it was when the bridge was
    made, for the time of a draw, in other processes too; whatever ``fn`` sets is put back.

    Raises ScgTypeError where ``fn`` is no function, ScgValueError where it gives other numbers for the same key, and
    whatever ``fn`` raises.
    """
    draw = Jax(fn, args)
    return Samples(draw, evaluations, method=draw.method)


class Jax:
    """draw(n, rng) of gradients; it travels to other processes where ``fn`` and ``args`` do."""

    def __init__(self, fn: Function, args: tuple[object, ...]):
        lib = _jax()
        if not callable(fn):
            raise ScgTypeError(f"scg.bridge.jax needs a function fn(key, *args), got {type(fn).__name__} ({here()})")
        require_parameters(fn, "fn(key, *args)", None, *args)
        self.fn, self.args, self.wide, self.together = fn, args, bool(lib.config.jax_enable_x64), True
        self.compiled: dict[int, Foreign] = {}
        self.method = "jax.jit(jax.vmap(...))"
        with self._kept(lib):
            keys = lib.random.split(lib.random.key(0), 2)
            one = _numbers(self._one(keys[0]))  # what the function itself raises comes as it is
            try:
                pair = [_numbers(lib.vmap(self._one)(keys)) for _ in range(2)]
                self._jitted(lib, 2)(keys[0], 0)
            except Exception as error:
                self.together = False
                self.method = f"a loop, since JAX cannot trace it: {type(error).__name__}"
                pair = [one, _numbers(self._one(keys[0]))]
            self.random = not self.together or _uses_its_argument(lib.make_jaxpr(self._one)(keys[0]).jaxpr)
            if any(not np.array_equal(a, b, equal_nan=True) for a, b in zip(*pair, strict=True)):
                raise ScgValueError(
                    f"{self!r} gave other numbers for the same key: take all randomness from key, the first argument of"
                    f" fn, and keep no state ({here()})"
                )
        self.compiled = {}
        coordinates = sum(x.size for x in one)
        self.sizes = [max(1, min(size, _ENTRIES // max(1, coordinates))) for size in _SIZES]

    def __repr__(self) -> str:
        return name_of(self.fn)

    def __getstate__(self) -> dict[str, Foreign]:
        return {**vars(self), "compiled": {}}

    def __call__(self, n: int, rng: np.random.Generator) -> Foreign:
        lib = _jax()
        with self._kept(lib):
            before = rng.bit_generator.state
            low, high = (int(x) for x in rng.integers(2**31, size=2))
            if not self.random:
                rng.bit_generator.state = before  # no number is taken: the gradient is a constant
            key = lib.random.fold_in(lib.random.key(low), high)
            if not self.together:
                found = [self._one(k) for k in lib.random.split(key, n)]
                return stacked([rebuild(each, iter(_numbers(each))) for each in found], repr(self))
            parts = [self._jitted(lib, size)(key, i) for i, size in enumerate(_cut(n, self.sizes))]
            columns = zip(*[_numbers(part) for part in parts], strict=True)
            return rebuild(parts[0], (np.concatenate(column)[:n] for column in columns))

    def _one(self, key: Foreign) -> Foreign:
        return self.fn(key, *self.args)

    def _jitted(self, lib: Foreign, size: int) -> Foreign:
        """Of a key and the number of a part: ``size`` draws."""
        if size not in self.compiled:
            split, fold = lib.random.split, lib.random.fold_in
            self.compiled[size] = lib.jit(lambda key, i: lib.vmap(self._one)(split(fold(key, i), size)))
        return self.compiled[size]

    @contextmanager
    def _kept(self, lib: Foreign) -> Iterator[None]:
        before = bool(lib.config.jax_enable_x64)
        try:
            with _precision(lib)(self.wide):
                yield
        finally:
            if bool(lib.config.jax_enable_x64) != before:
                lib.config.update("jax_enable_x64", before)


def _uses_its_argument(jaxpr: Foreign) -> bool:
    (key,) = jaxpr.invars
    return any(key is x for equation in jaxpr.eqns for x in equation.invars) or any(key is x for x in jaxpr.outvars)


def _cut(n: int, sizes: list[int]) -> list[int]:
    """Sizes whose sum is n or a little more: as many of the first as go in, then of the others, the last rounded up."""
    found = []
    for size in sizes:
        found += [size] * (n // size)
        n %= size
    return found + [sizes[-1]] * (n > 0)


def _numbers(tree: Foreign) -> list[Foreign]:
    """The leaves as NumPy's arrays, in float32 what NumPy has no number for; ScgTypeError where they are no numbers."""
    arrays = [np.asarray(x) for _, x in leaves(tree)]
    for x in arrays:
        if x.dtype.kind not in "biufV":
            raise ScgTypeError(f"a gradient by JAX must be of real numbers, got {described((x,))} ({here()})")
    return [x.astype(np.float32) if x.dtype.kind == "V" else x for x in arrays]


def _precision(lib: Foreign) -> Foreign:
    """The context manager that sets whether JAX computes in 64 bits, which older versions have elsewhere."""
    return lib.enable_x64 if hasattr(lib, "enable_x64") else importlib.import_module("jax.experimental").enable_x64


def _jax() -> Foreign:
    try:
        return importlib.import_module("jax")
    except ImportError as error:
        raise MissingError(f"scg.bridge.jax needs JAX, which is not installed: {error} ({here()})") from error
