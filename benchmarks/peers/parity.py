"""The first steps of training, side by side with PyTorch: losses and gradients of the same model from the same
parameters, minibatches and noise.

The models are those of ``examples.vae`` and ``examples.iwae``, once as they stand and once written in PyTorch, each
with its own library's Adam. Two comparisons:

    each on its own       both start from the same parameters and go their own way for all steps
    from the same place   before each step PyTorch is given scg's parameters: differences do not add up

The loss differs by |a - b| / |b|, and a gradient by the largest |a - b| of any array of it, over the largest |b| of
that array. In float32 both are also compared with scg in float64 from the same (float32) parameters, pixels and noise:
what rounding alone does to either library.
"""

import argparse
import os
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

import scg
from benchmarks.timing import RESULTS, save, table, versions
from examples import digits, iwae, training, vae
from scg import optim
from scg.core.tree import leaves, map_leaves

LIMITS = {"float32": 1e-5, "float64": 1e-10}
BATCH, LATENTS, HIDDEN, K = 100, 50, 200, 5


class Here:
    """The model in scg, in some precision; ``step`` is one step of Adam and returns the loss and the gradient before
    it."""

    def __init__(self, model: Any, params: Any, dtype: Any):
        self.params = map_leaves(lambda x: x.astype(dtype), params)
        self.optimizer, self.gradient = optim.Adam(self.params), scg.value_and_grad(model.cost)

    def step(self, x: np.ndarray, noise: np.ndarray) -> tuple[float, list[np.ndarray]]:
        value, gradient = self.gradient(self.params, x, rng=Given(noise))
        self.optimizer.step(gradient)
        return float(value), [g for _, g in leaves(gradient)]

    @property
    def arrays(self) -> list[np.ndarray]:
        """The parameters."""
        return [x for _, x in leaves(self.params)]


class Given(np.random.Generator):
    """A generator whose normal numbers are given."""

    def __init__(self, noise: np.ndarray):
        super().__init__(np.random.PCG64(0))
        self.noise = noise

    def standard_normal(self, size: Any = None, dtype: Any = np.float64, out: Any = None) -> Any:
        if size != self.noise.shape or np.dtype(dtype) != self.noise.dtype:
            raise ValueError(
                f"expected normal numbers of shape {self.noise.shape} and {self.noise.dtype}, asked for {size} and"
                f" {np.dtype(dtype)}"
            )
        return self.noise


class There:
    """The same in PyTorch: parameters as a flat list, in the order of scg's."""

    def __init__(self, cost: Callable[[list[Any], Any, Any], Any], arrays: list[np.ndarray]):
        import torch

        self.torch, self.cost = torch, cost
        self.params = [torch.tensor(x, requires_grad=True) for x in arrays]
        self.optimizer = torch.optim.Adam(self.params, lr=1e-3)

    def move(self, arrays: list[np.ndarray]) -> None:
        """Take these parameters."""
        with self.torch.no_grad():
            for p, x in zip(self.params, arrays, strict=True):
                p.copy_(self.torch.from_numpy(x))

    def step(self, x: np.ndarray, noise: np.ndarray) -> tuple[float, list[np.ndarray]]:
        self.optimizer.zero_grad()
        loss = self.cost(self.params, self.torch.from_numpy(x), self.torch.from_numpy(noise))
        loss.backward()
        gradient = [p.grad.numpy().copy() for p in self.params]
        self.optimizer.step()
        return loss.item(), gradient


def perceptron(layers: list[Any], h: Any) -> Any:
    """tanh layers in PyTorch; ``layers`` are weights and biases in turn."""
    while len(layers) > 2:
        h, layers = (h @ layers[0] + layers[1]).tanh(), layers[2:]
    return h @ layers[0] + layers[1]


def split(params: list[Any]) -> tuple[list[Any], list[Any]]:
    """(encoder, decoder): dicts have their leaves in the order in which they were made, and the encoder has six."""
    return params[:6], params[6:]


def vae_in_torch(params: list[Any], x: Any, noise: Any) -> Any:
    """Minus the ELBO with the divergence in closed form."""
    from torch.distributions import Normal, kl_divergence
    from torch.nn.functional import binary_cross_entropy_with_logits

    encoder, decoder = split(params)
    loc, log_scale = perceptron(encoder, x).chunk(2, dim=-1)
    q = Normal(loc, log_scale.exp(), validate_args=False)
    logits = perceptron(decoder, loc + log_scale.exp() * noise)
    divergence = kl_divergence(q, Normal(x.new_zeros(()), x.new_ones(())))
    return (binary_cross_entropy_with_logits(logits, x, reduction="sum") + divergence.sum()) / len(x)


def iwae_in_torch(params: list[Any], x: Any, noise: Any) -> Any:
    """Minus log (1/K) sum_k w_k."""
    import torch
    from torch.distributions import Bernoulli, Normal

    encoder, decoder = split(params)
    loc, log_scale = perceptron(encoder, x).chunk(2, dim=-1)
    q, prior = Normal(loc, log_scale.exp(), validate_args=False), Normal(x.new_zeros(()), x.new_ones(()))
    h = loc + log_scale.exp() * noise
    likelihood = Bernoulli(logits=perceptron(decoder, h), validate_args=False).log_prob(x)
    log_w = likelihood.sum(-1) + prior.log_prob(h).sum(-1) - q.log_prob(h).sum(-1)
    return -(torch.logsumexp(log_w, 0) - np.log(len(noise))).mean()


MODELS: dict[str, tuple[Any, Any, tuple[int, ...]]] = {
    "VAE": (vae.VAE([HIDDEN, HIDDEN], LATENTS), vae_in_torch, (BATCH, LATENTS)),
    "IWAE": (iwae.IWAE([LATENTS], [HIDDEN], k=K), iwae_in_torch, (K, BATCH, LATENTS)),
}


def apart(a: tuple[float, list[np.ndarray]], b: tuple[float, list[np.ndarray]]) -> tuple[float, float]:
    """(loss, gradient): how far a is from b."""
    gradients = [float(np.abs(g - h).max() / np.abs(h).max()) for g, h in zip(a[1], b[1], strict=True)]
    return abs(a[0] - b[0]) / abs(b[0]), max(gradients)


def compare(name: str, dtype: str, steps: int, seed: int) -> dict[str, list[tuple[float, float]]]:
    """For each comparison the distances at each step."""
    model, cost, shape = MODELS[name]
    pixels, rng = digits.load().train.reshape(4000, -1), np.random.default_rng(seed)
    params = model.initial(pixels, rng)
    here, exact = Here(model, params, dtype), Here(model, params, np.float64)
    own, led = There(cost, here.arrays), There(cost, here.arrays)
    found: dict[str, list[tuple[float, float]]] = {"each on its own": [], "from the same place": []}
    if dtype == "float32":
        found |= {"scg from float64": [], "PyTorch from float64": []}
    for _ in range(steps):
        x = training.binarise(pixels[rng.choice(len(pixels), BATCH, replace=False)], rng).astype(dtype)
        noise = rng.standard_normal(shape).astype(dtype)
        led.move(here.arrays)
        a, b, c = here.step(x, noise), own.step(x, noise), led.step(x, noise)
        found["each on its own"].append(apart(a, b))
        found["from the same place"].append(apart(a, c))
        if dtype == "float32":
            truth = exact.step(x.astype(np.float64), noise.astype(np.float64))
            found["scg from float64"].append(apart(a, truth))
            found["PyTorch from float64"].append(apart(b, truth))
    return found


def main() -> int:
    """Print the table, write the numbers; 0 where all that is asked for holds."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers.parity",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--steps", type=int, default=100, metavar="N", help="of Adam (default 100)")
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of parameters, minibatches and noise (default 0)"
    )
    parser.add_argument(
        "--out",
        default=RESULTS / "parity.json",
        metavar="FILE",
        help="where the numbers go as JSON (default benchmarks/results/parity.json)",
    )
    options = parser.parse_args()
    try:
        import torch
    except ImportError:
        print('PyTorch is not installed: pip install -e ".[bench]"')
        return 1
    torch.set_num_threads(1)
    marks = sorted({1, 10, 30, options.steps} & set(range(1, options.steps + 1)))
    rows, numbers, missed = [], {}, []
    for name in MODELS:
        for dtype, limit in LIMITS.items():
            for how, distances in compare(name, dtype, options.steps, options.seed).items():
                numbers[f"{name}, {dtype}, {how}"] = distances
                for part, values in zip(("loss", "gradient"), zip(*distances, strict=True), strict=True):
                    largest = max(values)
                    rows.append([name, dtype, how, part, *[f"{max(values[:mark]):.1e}" for mark in marks]])
                    if "from float64" not in how and not largest <= limit:
                        missed.append(
                            f"{name}, {dtype}, {how}: {part}s differ by up to {largest:.1e}, more than {limit:g}, first"
                            f" at step {next(i for i, v in enumerate(values, 1) if v > limit)}"
                        )
    used = versions("numpy", "scg", "torch")
    print(
        ", ".join(f"{package} {version}" for package, version in used.items() if version), f"on {os.cpu_count()} cores"
    )
    print("\nlargest relative difference so far, after so many steps")
    print(table([["model", "precision", "comparison", "of", *map(str, marks)], *rows]))
    print("\n".join(missed) or f"all within {', '.join(f'{limit:g} ({dtype})' for dtype, limit in LIMITS.items())}")
    save(
        {
            "versions": used,
            "steps": options.steps,
            "seed": options.seed,
            "limits": LIMITS,
            "distances (loss, gradient)": numbers,
        },
        options.out,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
