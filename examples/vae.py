"""Variational autoencoder: a deep latent Gaussian model of binary images.

    p(z) = N(0, I)    p(x | z) = Bernoulli(logits = decoder(z))    q(z | x) = N(loc(x), scale(x)^2), both from encoder(x)

maximizes the ELBO, E_q[log p(x | z)] - KL(q(z | x) || p(z)), by the doubly stochastic procedure: minibatches drawn uniformly, and one
reparameterized draw of z for each image (Kingma and Welling, 2014; Rezende, Mohamed and Wierstra, 2014).
"""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

import scg
from examples import plots, training
from examples.digits import Images
from scg import distributions as dist
from scg import nn

TAKES = "one to two minutes"

PRIOR = dist.Normal(np.float32(0), np.float32(1))


class VAE(training.Model):
    """Two tanh networks; parameters are {"encoder": layers, "decoder": layers}."""

    def __init__(self, hidden: Sequence[int], latents: int):
        self.hidden, self.latents = list(hidden), latents

    def initial(self, pixels: np.ndarray, rng: np.random.Generator) -> Any:
        """Glorot's weights, with biases that start the model at the mean image: the encoder sees x - mean, the decoder answers with the mean."""
        mean = np.clip(pixels.mean(axis=0, dtype=np.float32) / 255, 1e-3, 1 - 1e-3)
        encoder = nn.mlp([mean.size, *self.hidden, 2 * self.latents], rng)
        decoder = nn.mlp([self.latents, *self.hidden[::-1], mean.size], rng)
        encoder[0].bias[:] = -mean @ encoder[0].weight
        decoder[-1].bias[:] = np.log(mean / (1 - mean))
        return {"encoder": encoder, "decoder": decoder}

    def posterior(self, params: Any, x: Any) -> dist.Normal:
        """q(z | x), for each row of x."""
        h = nn.apply(params["encoder"], x)
        return dist.Normal(h[:, : self.latents], np.exp(h[:, self.latents :]))

    def likelihood(self, params: Any, z: Any) -> dist.Bernoulli:
        """p(x | z), for each row of z."""
        return dist.Bernoulli(logits=nn.apply(params["decoder"], z))

    def bound(self, params: Any, x: Any, rng: np.random.Generator) -> Any:
        q = self.posterior(params, x)
        z = scg.sample(q, scg.Reparameterized(), rng=rng, name="z")
        return np.sum(self.likelihood(params, z).log_prob(x), axis=-1) - np.sum(dist.kl_divergence(q, PRIOR), axis=-1)

    def test(self, params: Any, x: np.ndarray, rng: np.random.Generator) -> float:
        q = self.posterior(params, x)
        likelihood = self.likelihood(params, q.sample(rng))
        return float(np.mean(np.sum(likelihood.log_prob(x), axis=-1) - np.sum(dist.kl_divergence(q, PRIOR), axis=-1)))

    def log_weights(self, params: Any, x: np.ndarray, rng: np.random.Generator, samples: int) -> np.ndarray:
        """log p(x, z) / q(z | x) for ``samples`` draws of z from q(z | x): shape (samples, rows of x). One draw at a time, in bounded memory."""
        q = self.posterior(params, x)
        weights = np.empty((samples, len(x)))
        for k in range(samples):
            z = q.sample(rng)
            weights[k] = np.sum(self.likelihood(params, z).log_prob(x), axis=-1) + np.sum(PRIOR.log_prob(z) - q.log_prob(z), axis=-1)
        return weights

    def report(self, params: Any, x: np.ndarray, rng: np.random.Generator) -> dict[str, tuple[float, float]]:
        """The ELBO and the importance bound log (1/K) sum_k w_k (Burda, Grosse and Salakhutdinov, 2016); errors are over the images."""
        weights = self.log_weights(params, x, rng, samples := 100)
        bounds = {"ELBO": weights.mean(axis=0), f"{samples}-sample bound": np.logaddexp.reduce(weights, axis=0) - np.log(samples)}
        return {f"held-out {name}": (float(b.mean()), float(b.std() / np.sqrt(len(b)))) for name, b in bounds.items()}

    def figure(self, params: Any, images: Images, x: np.ndarray, history: list[dict[str, Any]], rng: np.random.Generator) -> Any:
        shown = x[np.linspace(0, len(x) - 1, min(30, len(x))).astype(int)]
        rebuilt = self.likelihood(params, self.posterior(params, shown).mean).mean
        drawn = self.likelihood(params, rng.standard_normal((60, self.latents), dtype=np.float32)).mean
        return plots.summary(images, shown, rebuilt, drawn, history)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the example; the exit status."""
    # epochs and the decay of the average were chosen on every tenth of the training digits, left out for that; the held-out digits had no part in it
    parser = training.parser("vae", __doc__, epochs=300)
    model = parser.add_argument_group("the model")
    model.add_argument("--hidden", metavar="N", type=training.natural, nargs="+", default=[200, 200], help="units in the layers of the encoder; the decoder has them in reverse")
    model.add_argument("--latents", metavar="N", type=training.natural, default=50, help="dimensions of z")

    def make(options: argparse.Namespace) -> VAE:
        return VAE(options.hidden, options.latents)

    return training.main(parser, make, argv)


if __name__ == "__main__":
    sys.exit(main())
