"""Importance-weighted autoencoder, with one or two stochastic layers, and the ways to differentiate its bound.

    p(x, h) = p(h_L) p(h_{L-1} | h_L) ... p(x | h_1)    q(h | x) = q(h_1 | x) ... q(h_L | h_{L-1})

p(h_L) = N(0, I), p(x | h_1) = Bernoulli, and the others normal, with locations and scales from tanh networks. With w_k
= p(x, h_k) / q(h_k | x) for k draws h_k of q(h | x) for each image, training maximizes L_k = log (1/k) sum_k w_k, at
most log p(x) in the mean, and nearer to it the larger k is (Burda, Grosse and Salakhutdinov, 2016). With --bound elbo
it maximizes the mean of the log w_k: a VAE, with k draws for each image.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import scg
from examples import evaluation, plots, training
from examples.digits import Images
from examples.training import Result
from scg import distributions as dist
from scg import nn, objectives
from scg.core.tree import map_leaves
from scg.special import softmax

TAKES = "five minutes"

PRIOR = dist.Normal(0.0, 1.0)
SIZES = {1: ((50,), (200,)), 2: ((100, 50), (200, 100))}
"""Burda's networks: for each number of stochastic layers their latents, and the units of the two tanh layers in each
network."""


class IWAE(training.Model):
    """Parameters are {"encoder": networks, "decoder": networks}, one for each stochastic layer, the one next to the
    image first."""

    def __init__(
        self,
        latents: Sequence[int],
        hidden: Sequence[int],
        k: int = 50,
        gradient: str = "pathwise",
        bound: str = "iwae",
        evaluate: int = 5000,
    ):
        self.latents, self.hidden, self.k, self.gradient, self.evaluate = (
            list(latents),
            list(hidden),
            k,
            gradient,
            evaluate,
        )
        self.objective = {"iwae": objectives.iwae, "elbo": objectives.elbo}[bound]

    def initial(self, pixels: np.ndarray, rng: np.random.Generator) -> Any:
        """Glorot's weights, with biases that start the model at the mean image: the encoder sees x - mean, the decoder
        answers with the mean."""
        mean = np.clip(pixels.mean(axis=0, dtype=np.float32) / 255, 1e-3, 1 - 1e-3)
        below = [mean.size, *self.latents[:-1]]
        encoder = [nn.mlp([i, n, n, 2 * o], rng) for i, n, o in zip(below, self.hidden, self.latents, strict=True)]
        sizes = [mean.size, *[2 * n for n in self.latents[:-1]]]
        decoder = [nn.mlp([i, n, n, o], rng) for i, n, o in zip(self.latents, self.hidden, sizes, strict=True)]
        encoder[0][0].bias[:] = -mean @ encoder[0][0].weight
        decoder[0][-1].bias[:] = np.log(mean / (1 - mean))
        return {"encoder": encoder, "decoder": decoder}

    def draw(self, encoder: Any, x: Any, rng: np.random.Generator, k: int, estimator: Any = None) -> list[Any]:
        """k draws of (h_1, ..., h_L) from q(h | x) for each row of x, each of shape (k, rows, latents): by an
        estimator, or without one as arrays."""
        found: list[Any] = []
        for network in encoder:
            q, shape = normal(network, found[-1] if found else x), () if found else (k,)
            found.append(
                q.sample(rng, shape)
                if estimator is None
                else scg.sample(q, estimator, rng=rng, shape=shape, name=f"h{len(found) + 1}")
            )
        return found

    def log_q(self, encoder: Any, x: Any, h: Sequence[Any]) -> Any:
        """log q(h | x), of shape (k, rows)."""
        return sum(
            np.sum(normal(network, below).log_prob(above), axis=-1)
            for network, below, above in zip(encoder, (x, *h[:-1]), h, strict=True)
        )

    def log_p(self, decoder: Any, x: Any, h: Sequence[Any]) -> Any:
        """log p(x, h), of shape (k, rows)."""
        inner = [
            np.sum(normal(network, above).log_prob(below), axis=-1)
            for network, below, above in zip(decoder[1:], h[:-1], h[1:], strict=True)
        ]
        return (
            sum(inner)
            + np.sum(PRIOR.log_prob(h[-1]), axis=-1)
            + np.sum(self.likelihood(decoder, h[0]).log_prob(x), axis=-1)
        )

    def likelihood(self, decoder: Any, h: Any) -> dist.Bernoulli:
        """p(x | h_1)."""
        return dist.Bernoulli(logits=apply(decoder[0], h))

    def bound(self, params: Any, x: Any, rng: np.random.Generator) -> Any:
        return GRADIENTS[self.gradient](self, params["encoder"], params["decoder"], x, rng)

    def log_weights(self, params: Any, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """log w for one draw for each row of x."""
        h = self.draw(params["encoder"], x, rng, 1)
        return (self.log_p(params["decoder"], x, h) - self.log_q(params["encoder"], x, h))[0]

    def means(self, params: Any, x: np.ndarray, rng: np.random.Generator, k: int = 50) -> list[np.ndarray]:
        """E_q[h_l | x] for each layer, of shape (rows, latents): estimated by k draws of the layer below it."""
        totals: list[Any] = [0.0] * len(self.latents)
        for _ in range(k):
            below = (x, *self.draw(params["encoder"], x, rng, 1)[:-1])
            totals = [
                total + normal(network, h).mean.reshape(len(x), -1) / k
                for total, network, h in zip(totals, params["encoder"], below, strict=True)
            ]
        return totals

    def report(self, params: Any, x: np.ndarray, rng: np.random.Generator) -> dict[str, Result]:
        units = {
            f"active units of layer {i}": Result(evaluation.active(m), unit=f"of {m.shape[1]}")
            for i, m in enumerate(self.means(params, x, rng), 1)
        }
        return {**evaluation.results(lambda rows: self.log_weights(params, rows, rng), x, self.evaluate), **units}

    def figures(
        self, params: Any, images: Images, x: np.ndarray, history: list[dict[str, Any]], rng: np.random.Generator
    ) -> dict[str, Any]:
        def prior(n: int) -> np.ndarray:
            h = PRIOR.sample(rng, (n, self.latents[-1]))
            for network in params["decoder"][:0:-1]:
                h = normal(network, h).sample(rng)
            return h

        def decode(h: np.ndarray) -> np.ndarray:
            return self.likelihood(params["decoder"], h).mean

        return plots.model(
            images, x, history, encode=lambda rows: self.means(params, rows, rng, 1)[0], decode=decode, draw=prior
        )


def apply(network: Any, x: Any) -> Any:
    """A network's output for x of shape (..., inputs), by products of matrices: these are quicker than products of
    stacks."""
    return np.reshape(nn.apply(network, np.reshape(x, (-1, x.shape[-1]))), (*x.shape[:-1], -1))


def normal(network: Any, x: Any) -> dist.Normal:
    """The normal distribution whose locations and log-scales are a network's outputs."""
    h = apply(network, x)
    n = h.shape[-1] // 2
    return dist.Normal(h[..., :n], np.exp(h[..., n:]))


# gradients of the bound; W_k = w_k / sum_j w_j, and phi are the encoder's parameters


def pathwise(model: IWAE, encoder: Any, decoder: Any, x: Any, rng: np.random.Generator) -> Any:
    """sum_k W_k d log w_k, through the draws (Burda et al., 2016)."""
    h = model.draw(encoder, x, rng, model.k, scg.Reparameterized())
    return model.objective(model.log_p(decoder, x, h) - model.log_q(encoder, x, h), axis=0)


def score(model: IWAE, encoder: Any, decoder: Any, x: Any, rng: np.random.Generator) -> Any:
    """sum_k L d log q(h_k) + sum_k W_k d log w_k at held draws."""
    h = model.draw(encoder, x, rng, model.k, scg.ScoreFunction())
    return model.objective(model.log_p(decoder, x, h) - model.log_q(encoder, x, h), axis=0)


def stl(model: IWAE, encoder: Any, decoder: Any, x: Any, rng: np.random.Generator) -> Any:
    """Sticking the landing: the pathwise one without the scores d log q(h; phi)/dphi at fixed h; biased for k > 1
    (Roeder et al., 2017)."""
    h = model.draw(encoder, x, rng, model.k, scg.Reparameterized())
    return model.objective(
        model.log_p(decoder, x, h) - model.log_q(map_leaves(scg.stop_gradient, encoder), x, h), axis=0
    )


def dreg(model: IWAE, encoder: Any, decoder: Any, x: Any, rng: np.random.Generator) -> Any:
    """Doubly reparameterized: sum_k W_k^2 (d log w_k/dh_k) dh_k/dphi for phi, sum_k W_k d log p for the decoder (Tucker
    et al., 2019)."""
    h, held = model.draw(encoder, x, rng, model.k, scg.Reparameterized()), map_leaves(scg.stop_gradient, encoder)
    log_w = scg.stop_gradient(model.log_p(decoder, x, h) - model.log_q(held, x, h))
    weight = softmax(log_w, axis=0)
    # h with W times its derivative
    squared = [value + weight[..., None] * (z - value) for z, value in zip(h, map(scg.stop_gradient, h), strict=True)]
    return objectives.iwae(log_w) + derivative(
        np.sum(weight * (model.log_p(decoder, x, squared) - model.log_q(held, x, squared)), axis=0)
    )


def vimco(model: IWAE, encoder: Any, decoder: Any, x: Any, rng: np.random.Generator) -> Any:
    """sum_k (L - L_k) d log q(h_k) + sum_k W_k d log w_k, L_k the bound with w_k the geometric mean of the others (Mnih
    and Rezende, 2016)."""
    h = model.draw(map_leaves(scg.stop_gradient, encoder), x, rng, model.k, scg.Reparameterized())
    log_q = model.log_q(encoder, x, h)
    log_w = model.log_p(decoder, x, h) - log_q
    value, bound = scg.stop_gradient(log_w), objectives.iwae(log_w)
    others = (np.sum(value, axis=0) - value) / (model.k - 1)
    same = np.eye(model.k, dtype=bool)[..., None]
    # [j, k]: the j-th weight of the bound that does without the k-th
    without = objectives.iwae(np.where(same, others, value[:, None]), axis=0)
    return bound + np.sum((scg.stop_gradient(bound) - without) * derivative(log_q), axis=0)


def rws(model: IWAE, encoder: Any, decoder: Any, x: Any, rng: np.random.Generator) -> Any:
    """Reweighted wake-sleep: sum_k W_k d log p for the decoder; sum_k W_k d log q lowers KL(p(h | x) || q(h | x)) for
    phi (Bornschein and Bengio, 2015)."""
    h = model.draw(map_leaves(scg.stop_gradient, encoder), x, rng, model.k, scg.Reparameterized())
    log_q = model.log_q(encoder, x, h)
    log_w = model.log_p(decoder, x, h) - scg.stop_gradient(log_q)
    return objectives.iwae(log_w) + np.sum(softmax(scg.stop_gradient(log_w), axis=0) * derivative(log_q), axis=0)


def derivative(y: Any) -> Any:
    """Zero, with the derivative of y."""
    return y - scg.stop_gradient(y)


Gradient = Callable[[IWAE, Any, Any, Any, np.random.Generator], Any]
GRADIENTS: dict[str, Gradient] = {
    "pathwise": pathwise,
    "dreg": dreg,
    "stl": stl,
    "score": score,
    "vimco": vimco,
    "rws": rws,
}
OF_THE_ELBO = ("pathwise", "stl", "score")


def parser() -> argparse.ArgumentParser:
    """The options of this example."""
    made = training.parser("iwae", __doc__, epochs=50, evaluate=5000)
    model = made.add_argument_group("the model")
    model.add_argument("--k", metavar="N", type=training.natural, default=50, help="draws for each image")
    model.add_argument("--gradient", choices=GRADIENTS, default="pathwise", help="of the bound")
    model.add_argument(
        "--bound",
        choices=("iwae", "elbo"),
        default="iwae",
        help="what is maximized: log of the mean weight, or mean of the log-weights",
    )
    model.add_argument("--layers", type=int, choices=SIZES, default=1, help="stochastic layers")
    model.add_argument(
        "--latents",
        metavar="N",
        type=training.natural,
        nargs="+",
        help="latents in each of them, the one next to the image first (default: 50, or 100 50)",
    )
    model.add_argument(
        "--hidden",
        metavar="N",
        type=training.natural,
        nargs="+",
        help="units in both tanh layers of their networks (default: 200, or 200 100)",
    )
    return made


def make(options: argparse.Namespace) -> IWAE:
    """The model of some options, which are completed."""
    latents, hidden = SIZES[options.layers]
    options.latents, options.hidden = list(options.latents or latents), list(options.hidden or hidden)
    for name in ("latents", "hidden"):
        if len(given := getattr(options, name)) != options.layers:
            raise scg.errors.ScgValueError(
                f"--{name} needs a number for each of the {options.layers} stochastic layers, got"
                f" {' '.join(map(str, given))}"
            )
    if options.bound == "elbo" and options.gradient not in OF_THE_ELBO:
        raise scg.errors.ScgValueError(
            f"--gradient {options.gradient} is one of the importance-weighted bound: with --bound elbo use"
            f" {', '.join(OF_THE_ELBO)}"
        )
    if options.gradient == "vimco" and options.k < 2:
        raise scg.errors.ScgValueError(
            f"--gradient vimco holds each draw against the others: it needs --k 2 or more, got {options.k}"
        )
    if options.binarise == "none":
        raise scg.errors.ScgValueError(
            "the Bernoulli decoder needs black and white images, got --binarise none: use dynamic or threshold"
        )
    return IWAE(options.latents, options.hidden, options.k, options.gradient, options.bound, options.evaluate)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the example; the exit status."""
    return training.main(parser(), make, argv)


if __name__ == "__main__":
    sys.exit(main())
