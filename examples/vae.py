"""Variational autoencoder: a deep latent Gaussian model of images.

    p(z) = N(0, I)    p(x | z) = Bernoulli(logits = decoder(z))    q(z | x) = N(loc(x), scale(x)^2), both from
    encoder(x)

maximizes the ELBO, E_q[log p(x | z)] - KL(q(z | x) || p(z)), by the doubly stochastic procedure: minibatches drawn
uniformly, and one draw of z for each image (Kingma and Welling, 2014; Rezende, Mohamed and Wierstra, 2014). With
--decoder gaussian the images are grey and p(x | z) = N(loc(z), scale^2), a scale learned for each pixel.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

import scg
from examples import evaluation, plots, training
from examples.digits import Images
from examples.training import Result
from scg import distributions as dist
from scg import nn

TAKES = "one to two minutes"

ESTIMATORS = {
    "pathwise": scg.Reparameterized(),
    "score": scg.ScoreFunction(),
    "score+baseline": scg.ScoreFunction(samples=2, baseline=scg.LeaveOneOut()),
    "stl": scg.Reparameterized(),  # and the score of q is dropped in ``divergence``
}

SMALLEST = 0.05
"""No grey pixel's scale is smaller: else those that are never inked, which say nothing, would have densities without
bound."""


class VAE(training.Model):
    """Two tanh networks; parameters are {"encoder": layers, "decoder": layers}, and "log_scale" of the pixels where
    they are Gaussian."""

    prior: Any = dist.Normal(0.0, 1.0)

    def __init__(
        self,
        hidden: Sequence[int],
        latents: int,
        decoder: str = "bernoulli",
        estimator: str = "pathwise",
        kl: str = "analytic",
        evaluate: int = 100,
    ):
        self.hidden, self.latents, self.decoder, self.estimator, self.kl = list(hidden), latents, decoder, estimator, kl
        self.evaluate = evaluate

    def initial(self, pixels: np.ndarray, rng: np.random.Generator) -> Any:
        """Glorot's weights, with biases that start the model at the mean image: the encoder sees x - mean, the decoder
        answers with the mean."""
        mean = np.clip(pixels.mean(axis=0, dtype=np.float32) / 255, 1e-3, 1 - 1e-3)
        encoder = nn.mlp([mean.size, *self.hidden, self.codes], rng)
        decoder = nn.mlp([self.latents, *self.hidden[::-1], mean.size], rng)
        encoder[0].bias[:] = -mean @ encoder[0].weight
        decoder[-1].bias[:] = mean if self.decoder != "bernoulli" else np.log(mean / (1 - mean))
        params: dict[str, Any] = {"encoder": encoder, "decoder": decoder}
        if self.decoder == "gaussian":
            params["log_scale"] = np.full(mean.size, math.log(0.3), np.float32)
        return params

    @property
    def codes(self) -> int:
        """Outputs of the encoder: locations and log-scales."""
        return 2 * self.latents

    def posterior(self, params: Any, x: Any) -> Any:
        """q(z | x), for each row of x."""
        h = nn.apply(params["encoder"], x)
        return dist.Normal(h[:, : self.latents], np.exp(h[:, self.latents :]))

    def likelihood(self, params: Any, z: Any) -> Any:
        """p(x | z), for each row of z."""
        h = nn.apply(params["decoder"], z)
        return (
            dist.Bernoulli(logits=h)
            if self.decoder == "bernoulli"
            else dist.Normal(h, SMALLEST + np.exp(params["log_scale"]))
        )

    def divergence(self, q: Any, z: Any) -> Any:
        """KL(q || p) for each row, or an estimate of it at the draws z."""
        if self.kl == "analytic":
            return np.sum(dist.kl_divergence(q, self.prior), axis=-1)
        # sticking the landing: the score of q has mean zero (Roeder et al., 2017)
        held = q.stop_gradient() if self.estimator == "stl" else q
        return np.sum(held.log_prob(z) - self.prior.log_prob(z), axis=-1)

    def bound(self, params: Any, x: Any, rng: np.random.Generator) -> Any:
        q = self.posterior(params, x)
        z = scg.sample(q, ESTIMATORS[self.estimator], rng=rng, name="z")
        return np.sum(self.likelihood(params, z).log_prob(x), axis=-1) - self.divergence(q, z)

    def log_weights(self, params: Any, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """log p(x, z) / q(z | x) for one draw of z from q(z | x) for each row of x."""
        q = self.posterior(params, x)
        z = q.sample(rng)
        return np.sum(self.likelihood(params, z).log_prob(x), axis=-1) + np.sum(
            self.prior.log_prob(z) - q.log_prob(z), axis=-1
        )

    def report(self, params: Any, x: np.ndarray, rng: np.random.Generator) -> dict[str, Result]:
        units = evaluation.active(self.posterior(params, x).mean)
        told = evaluation.results(lambda rows: self.log_weights(params, rows, rng), x, self.evaluate)
        return {**told, "active units": Result(units, unit=f"of {self.latents}")}

    def figures(
        self, params: Any, images: Images, x: np.ndarray, history: list[dict[str, Any]], rng: np.random.Generator
    ) -> dict[str, Any]:
        return plots.model(
            images,
            x,
            history,
            encode=lambda rows: self.posterior(params, rows).mean,
            decode=lambda z: np.clip(self.likelihood(params, z).mean, 0, 1),
            # nothing to draw from
            draw=None if isinstance(self.prior, dist.Flat) else lambda n: self.prior.sample(rng, (n, self.latents)),
        )


def parser() -> argparse.ArgumentParser:
    """The options of this example."""
    # epochs and the decay of the average were chosen on every tenth of the training digits, left out for that; the
    # held-out digits had no part in it
    made = training.parser("vae", __doc__, epochs=300, binarise=None)
    model = made.add_argument_group("the model")
    add_networks(model)
    model.add_argument(
        "--decoder",
        choices=("bernoulli", "gaussian"),
        default="bernoulli",
        help=(
            "p(x | z); images are binarised for the first (dynamically) and grey for the second, unless --binarise says"
            " otherwise"
        ),
    )
    model.add_argument(
        "--estimator", choices=ESTIMATORS, default="pathwise", help="how the gradient passes the draw of z"
    )
    model.add_argument(
        "--kl",
        choices=("analytic", "sampled"),
        help="in closed form, or log q(z) - log p(z) at the draw (default: analytic; sampled with stl)",
    )
    return made


def add_networks(group: Any) -> None:
    """The options of the two networks."""
    group.add_argument(
        "--hidden",
        metavar="N",
        type=training.natural,
        nargs="+",
        default=[200, 200],
        help="units in the layers of the encoder; the decoder has them in reverse",
    )
    group.add_argument("--latents", metavar="N", type=training.natural, default=50, help="dimensions of z")


def make(options: argparse.Namespace) -> VAE:
    """The model of some options, which are completed."""
    options.binarise = options.binarise or ("none" if options.decoder == "gaussian" else "dynamic")
    options.kl = options.kl or ("sampled" if options.estimator == "stl" else "analytic")
    if options.decoder == "bernoulli" and options.binarise == "none":
        raise scg.errors.ScgValueError(
            "a Bernoulli decoder needs black and white images, got --binarise none: use dynamic or threshold, or"
            " --decoder gaussian"
        )
    if options.estimator == "stl" and options.kl == "analytic":
        raise scg.errors.ScgValueError(
            "--estimator stl drops a term of the sampled KL, and --kl analytic has no such term: use --kl sampled, or"
            " --estimator pathwise"
        )
    return VAE(options.hidden, options.latents, options.decoder, options.estimator, options.kl, options.evaluate)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the example; the exit status."""
    return training.main(parser(), make, argv)


if __name__ == "__main__":
    sys.exit(main())
