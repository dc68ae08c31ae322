"""The pathwise gradient of normal variables in JAX (Kingma and Welling, 2014), vmapped over keys and compiled."""

import jax
import jax.numpy as jnp

from scg.bridge import Samples


def pathwise(problem):
    """d f(loc + scale e) with e ~ N(0, 1): the gradient goes through the sample."""
    if any(draw.family != "Normal" for draw in problem.draws):
        return None

    def cost(parameters, key):
        drawn = []
        for variable, own in zip(problem.draws, jax.random.split(key, len(problem.draws)), strict=True):
            numbers = variable.parameters(parameters, *drawn)
            drawn.append(numbers["loc"] + numbers["scale"] * jax.random.normal(own, jnp.shape(numbers["loc"])))
        return problem.cost(*drawn)

    gradients = jax.jit(jax.vmap(jax.grad(cost), in_axes=(None, 0)))
    parameters = {name: jnp.asarray(x) for name, x in problem.parameters.items()}

    def draw(n, rng):
        size = 1 << max(15, (n - 1).bit_length())  # a power of two, and no small one: each size is compiled once
        keys = jax.random.split(jax.random.key(int(rng.integers(2**31))), size)
        return {name: x[:n] for name, x in gradients(parameters, keys).items()}

    return Samples(draw, evaluations=1)
