"""Gradients that a function from outside draws, and what is checked of them."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from scg.core.aliases import Function, Operand, Tree
from scg.core.generators import GLOBAL, PYTHON, held_generators, state_of
from scg.core.options import number
from scg.core.tree import leaves, rebuild
from scg.errors import ScgTypeError, ScgValueError, here

_LOOK, _AGAIN = 16, 4  # draws that are looked at first; times that other seeds must give the same, to be no chance


class Samples:
    """Independent draws of a gradient, from a function of one's own: NumPy, PyTorch, JAX, a simulator.

    ``draw(n, rng)`` returns n draws: an array of shape (n, ...), or a structure of arrays (dicts, lists, tuples,
    dataclasses), each with a leading axis n. What has ``__array__`` or speaks DLPack is an array, so a tensor is.
    Elements are real numbers; structure, shapes and dtypes stay from call to call.

    All randomness is taken from ``rng``, a ``numpy.random.Generator``, so that draws are a function of its seed: the
    same for any executor and number of workers. For processes ``draw`` must be picklable, as is a function at the top
    level of a module, or an object of a class there; a lambda is not, and is refused there by name. A ``draw`` whose
    numbers come from elsewhere, or that keeps a state from call to call, is refused where that shows: two calls with
    one seed must agree, and with two seeds must not.

    ``evaluations`` of the cost that one gradient takes, where that is known: a comparison shows it, and else "–".
    ``method`` says in a few words how draws are made, as ``scg.bridge.torch`` does.
    """

    def __init__(
        self,
        draw: Callable[[int, np.random.Generator], Tree],
        evaluations: float | None = None,
        *,
        method: str = "",
    ):
        if not callable(draw):
            raise ScgTypeError(
                f"Samples needs a function draw(n, rng) that returns n draws of a gradient, got {type(draw).__name__}"
                f" ({here()})"
            )
        require_parameters(draw, "draw(n, rng)", 1, None)
        self.draw, self.method = draw, method
        self.evaluations = None if evaluations is None else number("evaluations", evaluations, 0)

    def __repr__(self) -> str:
        name = getattr(self.draw, "__name__", None) or repr(self.draw)
        counted = "" if self.evaluations is None else f", evaluations={self.evaluations:g}"
        return f"Samples({name}{counted})" + (f" by {self.method}" if self.method else "")

    def take(self, n: int, rng: np.random.Generator) -> Tree:
        """n draws as NumPy arrays in their structure, checked: real, each with a leading axis n."""
        given = self.draw(n, rng)
        return rebuild(given, iter([_array(path, leaf, n) for path, leaf in leaves(given)]))


def require_parameters(fn: Function, call: str, *args: object, **kwargs: object) -> None:
    """Raise ScgTypeError unless ``fn`` has parameters for the ``call`` that is made of it, where it tells them."""
    try:
        inspect.signature(fn).bind(*args, **kwargs)
    except ValueError:
        return  # a function written in C, whose signature is not known
    except TypeError as error:
        raise ScgTypeError(
            f"{name_of(fn)} is called as {call}, and does not take that ({error}): write a lambda with these parameters"
            f" around it ({here()})"
        ) from error


def name_of(fn: object) -> str:
    """What a function is called in a message."""
    return getattr(fn, "__name__", None) or type(fn).__name__


@dataclass(frozen=True, eq=False)
class Sampled:
    """Samples whose structure is known: what a graph is to those who look at its gradients alone.

    ``parameters`` is the structure with an array of zeros in each place, of a gradient's shape and dtype;
    ``constant`` is whether no number was taken to make a gradient, which then cannot vary.
    """

    samples: Samples
    parameters: Tree
    constant: bool

    @classmethod
    def of(cls, samples: Samples, rng: np.random.Generator) -> "Sampled":
        """Look at a few draws, whose seeds are taken from ``rng``.

        Raises ScgValueError where they are no function of the seed, or the same for any seed while they vary, which
        draws of one rng do by chance with probability 2^-64 where each of 16 is as likely to differ as not.
        """
        seed, *others = (int(s) for s in rng.integers(2**63, size=1 + _AGAIN))
        own = np.random.default_rng(seed)
        before = state_of(own)
        first = samples.take(_LOOK, own)
        constant = state_of(own) == before
        if not any(leaf.size for _, leaf in leaves(first)):
            raise ScgValueError(f"{samples!r} draws no numbers: there is no gradient ({here()})")
        # on the second call, as the first may import a library that draws for its own ends
        elsewhere = [GLOBAL, *held_generators(samples.draw)]
        states = [state_of(g) for g in elsewhere]
        again = samples.take(_LOOK, np.random.default_rng(seed))
        for generator, state in zip(elsewhere, states, strict=True):
            if state_of(generator) != state:
                known = {id(GLOBAL): "NumPy's global generator", id(PYTHON): "Python's global generator"}
                which = known.get(id(generator), f"a {type(generator).__name__} of its own")
                raise ScgValueError(f"{samples!r} takes numbers from {which}: {_WAY_OUT} ({here()})")
        if not _alike(first, again):
            raise ScgValueError(
                f"{samples!r} gave other numbers for the same seed, so that it draws elsewhere or keeps a state from"
                f" call to call (a baseline that learns: freeze it): {_WAY_OUT} ({here()})"
            )
        varies = any(np.any((x != x[:1]) & ~np.isnan(x)) for _, x in leaves(first))
        if varies and all(_same(first, samples.take(_LOOK, np.random.default_rng(s))) for s in others):
            raise ScgValueError(
                f"{samples!r} gave the same numbers for {1 + _AGAIN} seeds, so that it seeds a generator itself:"
                f" {_WAY_OUT} ({here()})"
            )
        floating = (x if x.dtype.kind == "f" else x.astype(float) for _, x in leaves(first))
        return cls(samples, rebuild(first, (np.zeros(x.shape[1:], x.dtype) for x in floating)), constant)

    def gradients(self, *, rng: np.random.Generator, replicates: int) -> Tree:
        """n draws in the structure; raises ScgValueError where that is another than it was."""
        found = self.samples.take(replicates, rng)
        wanted, given = list(leaves(self.parameters)), list(leaves(found))
        if [path for path, _ in wanted] != [path for path, _ in given] or any(
            one.shape != other.shape[1:] for (_, one), (_, other) in zip(wanted, given, strict=True)
        ):
            raise ScgValueError(
                f"{self.samples!r}: draws must keep their structure and shapes, {_described(wanted, 0)}, got"
                f" {_described(given, 1)} ({here()})"
            )
        for (path, one), (_, other) in zip(wanted, given, strict=True):
            if (other.dtype if other.dtype.kind == "f" else np.dtype(float)) != one.dtype:
                raise ScgTypeError(
                    f"{self.samples!r}: draws must keep their dtype, {one.dtype}, got {other.dtype}"
                    f"{' at ' + path if path else ''} ({here()})"
                )
        return found


_WAY_OUT = "take all randomness from rng, the second argument of draw (of fn, as rng=, in scg.bridge.numpy)"


def _described(pairs: list[tuple[str, np.ndarray]], leading: int) -> str:
    return ", ".join(f"{path}{' ' if path else ''}{x.shape[leading:]}" for path, x in pairs)


def _alike(one: Tree, other: Tree) -> bool:
    """The same but for rounding, of which threads have a say."""
    a, b = ([x for _, x in leaves(tree)] for tree in (one, other))
    return [x.shape for x in a] == [x.shape for x in b] and all(
        np.allclose(x, y, rtol=1e-4, atol=1e-5 * float(np.max(np.abs(np.nan_to_num(x)), initial=0)), equal_nan=True)
        for x, y in zip(a, b, strict=True)
    )


def _same(one: Tree, other: Tree) -> bool:
    a, b = ([x for _, x in leaves(tree)] for tree in (one, other))
    return len(a) == len(b) and all(np.array_equal(x, y, equal_nan=True) for x, y in zip(a, b, strict=True))


def _array(path: str, leaf: Operand, n: int) -> np.ndarray:
    where = f"draw({n}, rng){path}"
    try:
        array = np.asarray(leaf) if hasattr(leaf, "__array__") or np.isscalar(leaf) else np.from_dlpack(leaf)
    except Exception as error:
        raise ScgTypeError(
            f"{where} must be an array or a tensor in this computer's memory, got {type(leaf).__name__}, of which NumPy"
            f" makes none: {error} ({here()})"
        ) from error
    if array.dtype.kind not in "biuf":
        raise ScgTypeError(f"{where} must be of real numbers, got {type(leaf).__name__} of {array.dtype} ({here()})")
    if array.shape[:1] != (n,):
        raise ScgValueError(
            f"{where} must have a leading axis of {n}, one gradient each, got shape {array.shape} ({here()})"
        )
    return array
