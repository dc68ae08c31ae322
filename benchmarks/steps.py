"""Training steps of the autoencoders of ``benchmarks.training_step``, as a user of each library writes them: loss,
gradient and Adam, float32.

Each entry of ``PEERS`` makes, for a ``Model``, a function without arguments that takes one step and returns the loss.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

RATE, B1, B2, EPSILON = 1e-3, 0.9, 0.999, 1e-8
Step = Callable[[], Any]


class Model(NamedTuple):
    """784 inputs, tanh layers of ``hidden`` units, ``latents`` dimensions; ``samples`` draws of z for an importance
    bound, 0 for the ELBO."""

    hidden: tuple[int, ...]
    latents: int
    batch: int
    samples: int = 0


MODELS = {
    "VAE 784-400-20, batch 100": Model((400,), 20, 100),
    "VAE 784-200-200-50, batch 20": Model((200, 200), 50, 20),
    "IWAE 784-200-200-50, batch 20, k=50": Model((200, 200), 50, 20, 50),
}


def start(model: Model) -> tuple[list[list[np.ndarray]], list[list[np.ndarray]], np.ndarray]:
    """Encoder and decoder as lists of [weight, bias], and a minibatch."""
    rng = np.random.default_rng(0)

    def network(sizes: list[int]) -> list[list[np.ndarray]]:
        limits = [math.sqrt(6 / (m + n)) for m, n in zip(sizes[:-1], sizes[1:], strict=True)]
        return [
            [rng.uniform(-a, a, (m, n)).astype(np.float32), np.zeros(n, np.float32)]
            for a, m, n in zip(limits, sizes[:-1], sizes[1:], strict=True)
        ]

    encoder = network([784, *model.hidden, 2 * model.latents])
    decoder = network([model.latents, *model.hidden[::-1], 784])
    return encoder, decoder, (rng.random((model.batch, 784)) < 0.3).astype(np.float32)


def loss_of(model: Model, np_: Any, softplus: Any, logsumexp: Any) -> Callable[..., Any]:
    """The loss in the words of a library with NumPy's names."""

    def apply(layers: Any, h: Any) -> Any:
        for i, (weight, bias) in enumerate(layers):
            h = h @ weight + bias
            h = np_.tanh(h) if i + 1 < len(layers) else h
        return h

    def loss(encoder: Any, decoder: Any, x: Any, noise: Any) -> Any:
        h = apply(encoder, x)
        loc, log_scale = h[:, : model.latents], h[:, model.latents :]
        z = loc + np_.exp(log_scale) * noise
        logits = apply(decoder, z)
        likelihood = np_.sum(x * logits - softplus(logits), axis=-1)
        if not model.samples:
            divergence = np_.sum(0.5 * (np_.exp(2 * log_scale) + loc * loc - 1) - log_scale, axis=-1)
            return -np_.mean(likelihood - divergence)
        weights = likelihood + np_.sum(0.5 * (noise * noise - z * z) + log_scale, axis=-1)
        return -np_.mean(logsumexp(weights) - math.log(model.samples))

    return loss


def shape_of_noise(model: Model) -> tuple[int, ...]:
    return (model.samples, model.batch, model.latents) if model.samples else (model.batch, model.latents)


class Adam:
    """By hand, for the libraries that bring none: five lines an array."""

    def __init__(self, arrays: list[np.ndarray]):
        self.arrays, self.t = arrays, 0
        self.m, self.v = [np.zeros_like(a) for a in arrays], [np.zeros_like(a) for a in arrays]

    def step(self, gradients: Any) -> None:
        self.t += 1
        rate = RATE * math.sqrt(1 - B2**self.t) / (1 - B1**self.t)
        for x, g, m, v in zip(self.arrays, gradients, self.m, self.v, strict=True):
            m *= B1
            m += (1 - B1) * g
            v *= B2
            v += (1 - B2) * (g * g)
            x -= rate * m / (np.sqrt(v) + EPSILON)


def _flat(*networks: Any) -> list[Any]:
    return [array for network in networks for layer in network for array in layer]


def scg_step(compiled: bool, outside: bool = False) -> Callable[[Model], Step]:
    """The step as one function, plain or compiled, or with ``outside`` the optimizer's part of it after a compiled
    gradient."""

    def make(model: Model) -> Step:
        import scg
        from scg import distributions as dist

        encoder, decoder, x = start(model)
        params = {
            "encoder": [scg.nn.Layer(*layer) for layer in encoder],
            "decoder": [scg.nn.Layer(*layer) for layer in decoder],
        }
        prior = dist.Normal(np.float32(0), np.float32(1))

        def loss(params: Any, x: Any, rng: Any) -> Any:
            h = scg.nn.apply(params["encoder"], x)
            q = dist.Normal(h[:, : model.latents], np.exp(h[:, model.latents :]))
            z = scg.sample(q, scg.Reparameterized(), rng=rng, shape=(model.samples,) if model.samples else ())
            likelihood = np.sum(dist.Bernoulli(logits=scg.nn.apply(params["decoder"], z)).log_prob(x), axis=-1)
            if not model.samples:
                return -np.mean(likelihood - np.sum(dist.kl_divergence(q, prior), axis=-1))
            return -np.mean(
                scg.objectives.iwae(likelihood + np.sum(prior.log_prob(z) - q.log_prob(z), axis=-1), axis=0)
            )

        optimizer, rng = scg.optim.Adam(params, RATE, B1, B2, EPSILON), np.random.default_rng(1)

        def step(params: Any, x: Any, rng: Any) -> Any:
            value, gradient = scg.value_and_grad(loss)(params, x, rng=rng)
            optimizer.step(gradient)
            return value

        gradient_of = scg.compile(scg.value_and_grad(loss))

        def apart(params: Any, x: Any, rng: Any) -> Any:
            value, gradient = gradient_of(params, x, rng=rng)
            optimizer.step(gradient)
            return value

        run = apart if outside else scg.compile(step) if compiled else step
        take = lambda: run(params, x, rng)
        take.compiled = (gradient_of if outside else run) if compiled else None  # type: ignore[attr-defined]
        return take

    return make


def torch_step(model: Model) -> Step:
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits

    encoder, decoder, x = start(model)
    encoder, decoder = (
        [[torch.tensor(a, requires_grad=True) for a in layer] for layer in network] for network in (encoder, decoder)
    )
    x = torch.tensor(x)
    optimizer = torch.optim.Adam(_flat(encoder, decoder), RATE, (B1, B2), EPSILON)
    shape = shape_of_noise(model)

    def apply(layers: Any, h: Any) -> Any:
        for i, (weight, bias) in enumerate(layers):
            h = h @ weight + bias
            h = torch.tanh(h) if i + 1 < len(layers) else h
        return h

    def step() -> Any:
        h = apply(encoder, x)
        loc, log_scale = h[:, : model.latents], h[:, model.latents :]
        noise = torch.randn(shape)
        z = loc + torch.exp(log_scale) * noise
        logits = apply(decoder, z)
        likelihood = -binary_cross_entropy_with_logits(logits, x.expand_as(logits), reduction="none").sum(-1)
        if model.samples:
            weights = likelihood + (0.5 * (noise * noise - z * z) + log_scale).sum(-1)
            loss = -(torch.logsumexp(weights, 0) - math.log(model.samples)).mean()
        else:
            loss = -(likelihood - (0.5 * (torch.exp(2 * log_scale) + loc * loc - 1) - log_scale).sum(-1)).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def jax_step(model: Model) -> Step:
    import jax
    import jax.numpy as jnp

    encoder, decoder, x = start(model)
    loss = loss_of(model, jnp, jax.nn.softplus, lambda w: jax.scipy.special.logsumexp(w, axis=0))
    params = jax.tree.map(jnp.asarray, (encoder, decoder))
    zeros = jax.tree.map(jnp.zeros_like, params)
    shape = shape_of_noise(model)

    def step(params: Any, m: Any, v: Any, t: Any, key: Any, x: Any) -> Any:
        key, draw = jax.random.split(key)
        noise = jax.random.normal(draw, shape)
        value, g = jax.value_and_grad(lambda p: loss(*p, x, noise))(params)
        t = t + 1
        m = jax.tree.map(lambda m, g: B1 * m + (1 - B1) * g, m, g)
        v = jax.tree.map(lambda v, g: B2 * v + (1 - B2) * g * g, v, g)
        rate = RATE * jnp.sqrt(1 - B2**t) / (1 - B1**t)
        params = jax.tree.map(lambda p, m, v: p - rate * m / (jnp.sqrt(v) + EPSILON), params, m, v)
        return value, params, m, v, t, key

    compiled = jax.jit(step, donate_argnums=(0, 1, 2))
    state = [params, zeros, jax.tree.map(jnp.zeros_like, params), jnp.float32(0), jax.random.PRNGKey(0)]
    data = jnp.asarray(x)

    def take() -> float:
        value, *state[:] = compiled(*state, data)
        jax.block_until_ready(state[0])
        return float(value)

    return take


def autograd_step(model: Model) -> Step:
    import autograd.numpy as anp
    from autograd import value_and_grad
    from autograd.scipy.special import logsumexp

    encoder, decoder, x = start(model)
    softplus = lambda l: anp.maximum(l, 0) + anp.log1p(anp.exp(-anp.abs(l)))
    loss = loss_of(model, anp, softplus, lambda w: logsumexp(w, axis=0))
    gradient = value_and_grad(lambda params, noise: loss(*params, x, noise))
    optimizer, rng, shape = Adam(_flat(encoder, decoder)), np.random.default_rng(1), shape_of_noise(model)

    def step() -> Any:
        value, g = gradient((encoder, decoder), rng.standard_normal(shape, dtype=np.float32))
        optimizer.step(_flat(*g))
        return value

    return step


def mygrad_step(model: Model) -> Step:
    import mygrad as mg

    encoder, decoder, x = start(model)
    optimizer, rng, shape = Adam(_flat(encoder, decoder)), np.random.default_rng(1), shape_of_noise(model)
    softplus = lambda l: mg.maximum(l, np.float32(0)) + mg.log1p(mg.exp(-mg.abs(l)))

    def logsumexp(w: Any) -> Any:
        top = np.max(w.data, axis=0)
        return mg.log(mg.sum(mg.exp(w - top), axis=0)) + top

    loss = loss_of(model, mg, softplus, logsumexp)

    def step() -> Any:
        tensors = [[[mg.tensor(a, copy=False) for a in layer] for layer in network] for network in (encoder, decoder)]
        value = loss(*tensors, x, rng.standard_normal(shape, dtype=np.float32))
        value.backward()
        gradients = [t.grad for t in _flat(*tensors)]
        number = value.item()
        del value, tensors  # their memory guard lets go of the arrays
        optimizer.step(gradients)
        return number

    return step


def hand_step(model: Model) -> Step:
    """NumPy alone, forward and backward written out."""
    encoder, decoder, x = start(model)
    optimizer, rng, shape = Adam(_flat(encoder, decoder)), np.random.default_rng(1), shape_of_noise(model)

    def forward(layers: Any, h: Any) -> list[Any]:
        kept = [h]
        for i, (weight, bias) in enumerate(layers):
            h = kept[-1] @ weight
            h += bias
            kept.append(np.tanh(h, out=h) if i + 1 < len(layers) else h)
        return kept

    def backward(layers: Any, kept: list[Any], g: Any, first: bool) -> tuple[Any, list[Any]]:
        found: list[Any] = []
        for i in reversed(range(len(layers))):
            found[:0] = [kept[i].T @ g, g.sum(axis=0)]
            if i or not first:
                g = g @ layers[i][0].T
            if i:
                g *= 1 - kept[i] * kept[i]
        return g, found

    def step() -> Any:
        noise = rng.standard_normal(shape, dtype=np.float32)
        hidden = forward(encoder, x)
        loc, log_scale = hidden[-1][:, : model.latents], hidden[-1][:, model.latents :]
        scale = np.exp(log_scale)
        z = loc + scale * noise
        flat = forward(decoder, z.reshape(-1, model.latents))
        logits = flat[-1].reshape(*shape[:-1], 784)
        e = np.exp(-np.abs(logits))
        likelihood = (x * logits - np.maximum(logits, 0) - np.log1p(e)).sum(axis=-1)
        slope = x - np.where(logits >= 0, 1, e) / (1 + e)
        if model.samples:
            weights = likelihood + (0.5 * (noise * noise - z * z) + log_scale).sum(axis=-1)
            top = weights.max(axis=0)
            w = np.exp(weights - top)
            total = w.sum(axis=0)
            value = -np.mean(np.log(total) + top - math.log(model.samples))
            w *= -1 / (total * model.batch)
            slope *= w[..., None]
        else:
            value = -np.mean(likelihood - (0.5 * (scale * scale + loc * loc - 1) - log_scale).sum(axis=-1))
            slope *= -1 / model.batch
        g, of_decoder = backward(decoder, flat, slope.reshape(-1, 784), False)
        g = g.reshape(shape)
        if model.samples:
            g -= w[..., None] * z
            d_loc, d_log = g.sum(axis=0), (g * noise).sum(axis=0) * scale + w.sum(axis=0)[:, None]
        else:
            d_loc, d_log = g + loc / model.batch, g * noise * scale + (scale * scale - 1) / model.batch
        _, of_encoder = backward(encoder, hidden, np.concatenate([d_loc, d_log], axis=1).astype(np.float32), True)
        optimizer.step([*of_encoder, *of_decoder])
        return value

    return step


def floor_step(model: Model) -> Step:
    """The matrix products of the step alone, into arrays that are there."""
    encoder, decoder, x = start(model)
    products = []
    for network, rows, first in ((encoder, model.batch, True), (decoder, model.batch * max(model.samples, 1), False)):
        for i, (weight, _) in enumerate(network):
            m, n = weight.shape
            a, g = np.ones((rows, m), np.float32), np.ones((rows, n), np.float32)
            products.append((a, weight, np.empty((rows, n), np.float32)))
            products.append((a.T, g, np.empty((m, n), np.float32)))
            if i or not first:
                products.append((g, weight.T, np.empty((rows, m), np.float32)))

    def step() -> float:
        for a, b, out in products:
            np.matmul(a, b, out)
        return 0.0

    return step


PEERS: dict[str, Callable[[Model], Step]] = {
    "products alone": floor_step,
    "scg, compiled": scg_step(True),
    "scg, optimizer outside": scg_step(True, outside=True),
    "scg": scg_step(False),
    "JAX, jit": jax_step,
    "PyTorch": torch_step,
    "autograd": autograd_step,
    "MyGrad": mygrad_step,
    "NumPy by hand": hand_step,
}
