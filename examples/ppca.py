"""Probabilistic PCA by the ELBO, beside everything that is known about it in closed form.

    p(z) = N(0, I)    p(x | z) = N(W z + m, s^2 I)    q(z | x) = N(A (x - m), diag(c)^2)

W, m, s, A and c are learned by the doubly stochastic procedure: minibatches, and one reparameterized draw of z for each
image. Exactly, log p(x) = log N(x; m, W W^T + s^2 I); at the maximum of the likelihood m is the mean, s^2 the mean of
the D - M smaller eigenvalues of the data's covariance, and W = U (L - s^2 I)^{1/2} R for its M leading eigenvectors U,
eigenvalues L and any rotation R (Tipping and Bishop, 1999). The posterior has covariance s^2 (W^T W + s^2 I)^{-1}:
where the columns of W are orthogonal a diagonal q can be exact, the ELBO turns W that way, and then it is the
log-likelihood. To have something to see, the K-sample bounds at the end, K = 1 to 1000, are those of a q that is
--widen times as wide as the learned one. The learned subspace is compared with that of U by the largest angle between
them.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

import scg
from examples import evaluation, plots, training
from examples.digits import Images
from examples.training import Result
from scg import distributions as dist

TAKES = "a quarter of a minute"

PRIOR = dist.Normal(0.0, 1.0)
SAMPLES = (1, 2, 5, 10, 50, 100, 1000)


class Linear(NamedTuple):
    """What p(x) depends on: ``weight`` of shape (D, M), ``mean`` of shape (D,), and the scale s of the noise."""

    weight: np.ndarray
    mean: np.ndarray
    scale: float

    def log_likelihood(self, x: np.ndarray) -> np.ndarray:
        """log N(x; mean, weight weight^T + scale^2 I) for each row, with the inverse and the determinant of an M x M
        matrix."""
        W, x, variance = np.float64(self.weight), np.float64(x) - self.mean, float(self.scale) ** 2
        (D, M), inner = W.shape, W.T @ W
        K = inner + variance * np.eye(M)
        projected = x @ W
        square = (np.sum(x * x, axis=1) - np.sum(projected * np.linalg.solve(K, projected.T).T, axis=1)) / variance
        return -0.5 * (square + np.linalg.slogdet(K)[1] + (D - M) * math.log(variance) + D * math.log(2 * math.pi))


def closed_form(x: np.ndarray, latents: int) -> Linear:
    """The parameters of greatest likelihood (Tipping and Bishop, 1999)."""
    mean = np.mean(x, axis=0, dtype=float)
    values, vectors = np.linalg.eigh(np.cov(x.T, bias=True))
    noise = values[:-latents].mean()
    return Linear(
        vectors[:, : -latents - 1 : -1] * np.sqrt(values[: -latents - 1 : -1] - noise), mean, math.sqrt(noise)
    )


def angle(a: np.ndarray, b: np.ndarray) -> float:
    """The largest angle, in degrees, between the spaces that the columns span."""
    sine = np.linalg.norm(
        (np.eye(len(a)) - (q := np.linalg.qr(np.float64(a))[0]) @ q.T) @ np.linalg.qr(np.float64(b))[0], 2
    )
    return math.degrees(math.asin(min(1.0, sine)))


class PPCA(training.Model):
    """Parameters are {"weight": W, "mean": m, "log_scale": log s, "guide": A^T, "log_width": log c}."""

    def __init__(self, latents: int, widen: float = 3.0):
        self.latents, self.widen = latents, widen

    def initial(self, pixels: np.ndarray, rng: np.random.Generator) -> Any:
        """Small random directions; beside them what is known in closed form, to compare with at the end."""
        x = training.binarise(pixels, rng, "none")
        if self.latents >= min(x.shape):
            raise scg.errors.ScgValueError(
                f"--latents must be below the number of pixels and of images, {min(x.shape)}, got {self.latents}"
            )
        self.best = closed_form(x, self.latents)
        weight = 0.1 * rng.standard_normal((x.shape[1], self.latents), dtype=np.float32)
        return {
            "weight": weight,
            "mean": x.mean(axis=0),
            "log_scale": np.array(math.log(0.3), np.float32),
            "guide": 0.1 * weight,
            "log_width": np.zeros(self.latents, np.float32),
        }

    def posterior(self, params: Any, x: Any) -> dist.Normal:
        """q(z | x)."""
        return dist.Normal((x - params["mean"]) @ params["guide"], np.exp(params["log_width"]))

    def likelihood(self, params: Any, z: Any) -> dist.Normal:
        """p(x | z)."""
        return dist.Normal(z @ params["weight"].T + params["mean"], np.exp(params["log_scale"]))

    def bound(self, params: Any, x: Any, rng: np.random.Generator) -> Any:
        q = self.posterior(params, x)
        z = scg.sample(q, scg.Reparameterized(), rng=rng, name="z")
        return np.sum(self.likelihood(params, z).log_prob(x), axis=-1) - np.sum(dist.kl_divergence(q, PRIOR), axis=-1)

    def log_weights(self, params: Any, x: np.ndarray, rng: np.random.Generator, widen: float = 1.0) -> np.ndarray:
        """log p(x, z) / q(z | x) for one draw of z for each row of x, from a q that is ``widen`` times as wide."""
        q = self.posterior({**params, "log_width": params["log_width"] + math.log(widen)}, x)
        z = q.sample(rng)
        return np.sum(self.likelihood(params, z).log_prob(x), axis=-1) + np.sum(
            PRIOR.log_prob(z) - q.log_prob(z), axis=-1
        )

    def metrics(self, params: Any, x: np.ndarray, rng: np.random.Generator) -> dict[str, float]:
        return {"degrees": angle(params["weight"], self.best.weight)}

    def bounds(self, params: Any, x: np.ndarray, rng: np.random.Generator) -> dict[int, np.ndarray]:
        """The K-sample bound of each row with the wide q, by K: means over all groups of K of the same draws."""
        weights = np.stack([self.log_weights(params, x, rng, self.widen).astype(float) for _ in range(max(SAMPLES))])
        return {
            k: np.mean(np.logaddexp.reduce(weights.reshape(-1, k, len(x)), axis=1) - math.log(k), axis=0)
            for k in SAMPLES
        }

    def learned(self, params: Any) -> Linear:
        """The learned model of x."""
        return Linear(params["weight"], params["mean"], math.exp(params["log_scale"]))

    def report(self, params: Any, x: np.ndarray, rng: np.random.Generator) -> dict[str, Result]:
        learned = self.learned(params)
        exact, best = learned.log_likelihood(x), self.best.log_likelihood(x)
        elbo, _ = evaluation.bounds(lambda rows: self.log_weights(params, rows, rng), x, 100)
        gaps = {
            "ELBO": elbo,
            **{f"with q {self.widen:g} times as wide, K = {k}": b for k, b in self.bounds(params, x, rng).items()},
        }
        told = {"held-out log-likelihood, closed form": best, "held-out log-likelihood, learned": exact}
        # differences: how images differ is in both, and cancels
        told |= {f"below it: {name}": exact - bound for name, bound in gaps.items()}
        found = {name: Result(float(v.mean()), float(v.std() / math.sqrt(len(x)))) for name, v in told.items()}
        found["largest angle between the subspaces"] = Result(angle(learned.weight, self.best.weight), unit="degrees")
        found["scale of the noise"] = Result(learned.scale, unit=f"(closed form: {self.best.scale:.4f})")
        return found

    def figures(
        self, params: Any, images: Images, x: np.ndarray, history: list[dict[str, Any]], rng: np.random.Generator
    ) -> dict[str, Any]:
        exact, best = (model.log_likelihood(x) for model in (self.learned(params), self.best))
        # errors are those of the gaps: how images differ is in the bound and in the likelihood, and cancels
        bounds = {
            k: (float(b.mean()), float((exact - b).std() / math.sqrt(len(x))))
            for k, b in self.bounds(params, x, rng).items()
        }
        found = plots.model(
            images,
            x,
            history,
            encode=lambda rows: self.posterior(params, rows).mean,
            decode=lambda z: np.clip(self.likelihood(params, z).mean, 0, 1),
            draw=lambda n: PRIOR.sample(rng, (n, self.latents)),
        )
        return {
            **found,
            "bounds": plots.bounds(
                bounds,
                {"log-likelihood, learned": exact.mean(), "log-likelihood, closed form": best.mean()},
                f"exact log-likelihood and bounds by a q that is {self.widen:g} times as wide as the learned one",
            ),
        }


def parser() -> argparse.ArgumentParser:
    """The options of this example."""
    made = training.parser("ppca", __doc__, epochs=120, average=0.995, binarise="none", rate=3e-3)
    model = made.add_argument_group("the model")
    model.add_argument("--latents", metavar="N", type=training.natural, default=6, help="dimensions of z")
    model.add_argument(
        "--widen",
        metavar="R",
        type=training.positive,
        default=3.0,
        help="factor on the scales of q in the K-sample bounds at the end",
    )
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run the example; the exit status."""
    return training.main(parser(), lambda options: PPCA(options.latents, options.widen), argv)


if __name__ == "__main__":
    sys.exit(main())
