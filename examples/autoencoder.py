"""The deterministic autoencoder as the limit of the variational one: the same model, with another q and another prior.

    q(z | x) = Delta(mu1(x))    p(z) = Flat()    p(x | z) = N(mu2(z), I)

turns the ELBO of examples.vae into -|x - mu2(mu1(x))|^2 / 2, up to the constant -(D/2) log 2 pi: KL(Delta(m) || p) =
-log p(m), which is zero where p is flat. With --prior normal a proper prior adds |mu1(x)|^2 / 2 to the loss, a penalty
on the codes: they stay near the origin, and there is a distribution to draw new codes from. As q has no width, nothing
keeps the decoder from taking ever smaller codes apart: their spread, which is told at the end beside the prior's one,
is not held where the prior is. That is what the entropy of a wider q is for.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from examples import training
from examples.digits import Images
from examples.training import Result
from examples.vae import VAE, add_networks
from scg import distributions as dist
from scg import nn

TAKES = "a third of a minute"

PRIORS = {"flat": dist.Flat(), "normal": dist.Normal(0.0, 1.0)}


class Autoencoder(VAE):
    """The VAE with a point for q and unit normals for the pixels."""

    def __init__(self, hidden: Sequence[int], latents: int, prior: str = "flat"):
        super().__init__(hidden, latents, decoder="unit normal")
        self.prior = PRIORS[prior]

    def initial(self, pixels: np.ndarray, rng: np.random.Generator) -> Any:
        """As in the VAE; beside it the best linear autoencoder, which is PCA, to compare with at the end."""
        x = pixels.astype(float) / 255
        self.mean = x.mean(axis=0)
        _, vectors = np.linalg.eigh(np.cov(x.T, bias=True))
        self.axes = vectors[:, -self.latents :]
        return super().initial(pixels, rng)

    def linear_error(self, x: np.ndarray) -> np.ndarray:
        """|x - m - U U^T (x - m)|^2 of each row, U the leading principal axes of the training images."""
        away = x - self.mean
        return np.sum(away * away, axis=-1) - np.sum((away @ self.axes) ** 2, axis=-1)

    @property
    def codes(self) -> int:
        return self.latents

    def posterior(self, params: Any, x: Any) -> dist.Delta:
        return dist.Delta(nn.apply(params["encoder"], x))

    def likelihood(self, params: Any, z: Any) -> dist.Normal:
        return dist.Normal(nn.apply(params["decoder"], z), 1.0)

    def report(self, params: Any, x: np.ndarray, rng: np.random.Generator) -> dict[str, Result]:
        z = self.posterior(params, x).mean
        error = np.sum((x - self.likelihood(params, z).mean) ** 2, axis=-1)
        linear = self.linear_error(x)
        return {
            "held-out squared error of an image": Result(
                float(error.mean()), float(error.std() / np.sqrt(len(x))), "grey levels^2"
            ),
            "the same of PCA with as many components": Result(
                float(linear.mean()), float(linear.std() / np.sqrt(len(x))), "grey levels^2"
            ),
            "|code|^2 / 2": Result(float(np.mean(np.sum(z * z, axis=-1)) / 2)),
            "standard deviation of a latent": Result(float(np.mean(z.std(axis=0))), unit="(the normal prior's: 1)"),
        }

    def figures(
        self, params: Any, images: Images, x: np.ndarray, history: list[dict[str, Any]], rng: np.random.Generator
    ) -> dict[str, Any]:
        found = super().figures(params, images, x, history, rng)
        if isinstance(self.prior, dist.Flat):  # then the bound is the squared error: -error / 2 - (D / 2) log 2 pi
            constant = x.shape[1] / 2 * math.log(2 * math.pi)
            level = -float(self.linear_error(x).mean()) / 2 - constant
            axes = found[""].axes[-1]
            bottom, top = axes.get_ylim()
            pad = 0.06 * (top - bottom)
            axes.axhline(level, color="tab:red", linestyle="--", label="PCA, held-out images")
            axes.set_ylim(min(bottom, level - pad), max(top, level + pad))
            axes.legend(loc="lower right", frameon=False)
        return found


def parser() -> argparse.ArgumentParser:
    """The options of this example."""
    made = training.parser("autoencoder", __doc__, epochs=100, binarise="none", evaluate=1)
    model = made.add_argument_group("the model")
    add_networks(model)
    model.add_argument("--prior", choices=PRIORS, default="flat", help="p(z): improper and flat, or N(0, I)")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run the example; the exit status."""
    return training.main(parser(), lambda options: Autoencoder(options.hidden, options.latents, options.prior), argv)


if __name__ == "__main__":
    sys.exit(main())
