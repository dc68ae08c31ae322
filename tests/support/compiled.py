"""Compiled functions beside the plain ones: results that agree, from the same draws, and programs to compile."""

from collections import Counter

import numpy as np

import scg
from scg import distributions as dist
from scg.core.tree import leaves, map_leaves
from scg.errors import PlanError, ScgError

NORMAL = dist.Normal(np.float32(0), np.float32(1))


def agree(got, expected, what, ulps=2**10, least=0.0):
    """Equal structure, shapes and dtypes; values to ``ulps`` units of rounding at the largest of each array (at
    ``least``, where that is more)."""
    pairs = list(zip(leaves(got), leaves(expected), strict=True))
    for (path, a), (other, b) in pairs:
        assert path == other, what
        kinds = type(a), type(b)
        assert kinds[0] is kinds[1] or not {np.ndarray}.issubset(kinds), f"{what}{path}: {kinds[0]}, not {kinds[1]}"
        a, b = np.asarray(a), np.asarray(b)
        assert (a.dtype, a.shape) == (
            b.dtype,
            b.shape,
        ), f"{what}{path}: {a.dtype}{a.shape}, expected {b.dtype}{b.shape}"
        if b.dtype.kind not in "fc":
            np.testing.assert_array_equal(a, b, what + path)
            continue
        size = np.max(np.abs(b[np.isfinite(b)]), initial=least)
        np.testing.assert_allclose(a, b, 0, ulps * np.finfo(b.dtype).eps * size, err_msg=what + path)


def both(fn, compiled, args, kwargs=None, seeds=(1, 2, 3), **tolerance):
    """Calls of a function and its compiled form from the same generators: equal results, and generators that stand at
    the same place."""
    for seed in seeds:
        first, second = np.random.default_rng(seed), np.random.default_rng(seed)
        made = args(seed) if callable(args) else args
        expected = fn(*made, rng=first, **(kwargs or {}))
        agree(compiled(*made, rng=second, **(kwargs or {})), expected, f"seed {seed}", **tolerance)
        assert first.bit_generator.state == second.bit_generator.state


MOVES = (0.0, 1e-3, -2e-3)


def moved(args, by):
    return tuple(
        [
            map_leaves(
                lambda x: (x + by).astype(x.dtype) if isinstance(x, np.ndarray) and x.dtype.kind == "f" else x, arg
            )
            for arg in args
        ]
    )


def outcome(fn, *args, **kwargs):
    """What a call returns, or its error."""
    try:
        with np.errstate(all="ignore"):
            return fn(*args, **kwargs)
    except (ScgError, ArithmeticError, ValueError) as error:  # the last of NumPy's generators, where a rate overflows
        return error


CALLS = Counter()
"""How the calls of ``is_kept`` ended, since somebody began to count."""


def is_kept(plain, compiled, args, ulps, rngs=None, least=0.0):
    """A compiled function returns what the plain one returns, and by a plan wherever all that comes out is finite."""
    for k, by in enumerate(MOVES):
        planned = compiled.planned
        first, second = ({"rng": np.random.default_rng(k)} if rngs else {} for _ in range(2))
        found = outcome(compiled, *moved(args, by), **second)
        if isinstance(found, PlanError) and "learns" in str(found):
            CALLS["learns"] += 1
            return  # what it learned would be in the next call's result
        if isinstance(found, PlanError) and "comes out otherwise at other values of a sample" in str(found):
            CALLS["otherwise"] += 1
            return  # where the plain one runs its function again
        expected = outcome(plain, *moved(args, by), **first)
        if isinstance(expected, Exception) or isinstance(found, Exception):
            assert type(found) is type(expected), f"call {k}: {found!r}, expected {expected!r}"
            CALLS["error"] += 1
            return
        agree(found, expected, f"call {k}", ulps, least)
        ran = compiled.planned == planned + 1
        assert ran or not all([np.isfinite(x).all() for _, x in leaves(expected)]), f"call {k}: no plan ran"
        CALLS["planned" if ran else "not finite"] += 1
        if rngs:
            assert first["rng"].bit_generator.state == second["rng"].bit_generator.state


def autoencoder(sizes, latents, batch, samples, dtype=np.float32):
    rng = np.random.default_rng(0)
    params = {
        "encoder": scg.nn.mlp([30, *sizes, 2 * latents], rng, dtype),
        "decoder": scg.nn.mlp([latents, *sizes, 30], rng, dtype),
    }

    def loss(params, x, rng):
        h = scg.nn.apply(params["encoder"], x)
        q = dist.Normal(h[:, :latents], np.exp(h[:, latents:]))
        z = scg.sample(q, scg.Reparameterized(), rng=rng, shape=(samples,) if samples else ())
        likelihood = np.sum(dist.Bernoulli(logits=scg.nn.apply(params["decoder"], z)).log_prob(x), axis=-1)
        if not samples:
            return -np.mean(likelihood - np.sum(dist.kl_divergence(q, NORMAL), axis=-1))
        return -np.mean(scg.objectives.iwae(likelihood + np.sum(NORMAL.log_prob(z) - q.log_prob(z), axis=-1), axis=0))

    return params, loss, lambda k: (np.random.default_rng(k).random((batch, 30)) < 0.4).astype(dtype)


def plans_of(compiled):
    return [plan for plans, _ in compiled._plans.values() for plan in plans]


def _softmax_loss(params, x, rng):
    logits = np.tanh(x @ params["w"]) @ params["v"]
    return -np.mean(
        np.sum(scg.special.log_softmax(logits, axis=-1) * (logits > 0), axis=-1)
        - scg.special.logsumexp(logits, axis=-1)
    )


def _mixed(params, x, rng):
    z = scg.sample(dist.Normal(x @ params["w"], 1.0), scg.Reparameterized(), rng=rng, shape=(6,))
    b = scg.sample(dist.Bernoulli(logits=np.mean(z, axis=0)), scg.DisARM(), rng=rng)
    return np.sum(NORMAL.log_prob(z)) / 100 + np.mean(np.sum(b @ params["v"], axis=-1) ** 2)


def programs():
    rng = np.random.default_rng(0)
    params, loss, data = autoencoder([64, 64], 8, 70, 9, np.float64)
    yield "importance bound", loss, params, data(0)
    params, loss, data = autoencoder([300], 8, 150, 0, np.float64)
    yield "evidence bound", loss, params, data(0)
    params, loss, data = autoencoder([30], 8, 40, 5)
    yield "importance bound, single precision", loss, params, data(0)
    arrays = {"w": 0.2 * rng.standard_normal((20, 40)), "v": 0.2 * rng.standard_normal((40, 30))}
    yield "classifier", _softmax_loss, arrays, rng.standard_normal((50, 20))
    yield "draws", _mixed, arrays, rng.standard_normal((50, 20))


PROGRAMS = {name: rest for name, *rest in programs()}
