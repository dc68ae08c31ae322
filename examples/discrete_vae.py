"""Discrete variational autoencoder: black and white latents, and every way to differentiate through them.

    p(z) = Bernoulli(prior)    p(x | z) = Bernoulli(logits = decoder(z))    q(z | x) = Bernoulli(logits = encoder(x))

with 200 latents of 0 and 1 in one layer. Training maximizes the ELBO, E_q[log p(x | z)] - KL(q(z | x) || p(z)), the
divergence in closed form, so that the draws meet log p(x | z) only. No gradient passes a coin: --estimator chooses what
to do about that, and after each epoch the variance of the encoder's gradient is measured, at the averaged parameters,
over --replicates draws of z for one minibatch; it is the mean of the variances of its coordinates, as in the papers on
REBAR (Tucker et al., 2017) and DisARM (Dong, Mnih and Tucker, 2020). "gradient variance" in metrics.jsonl, and a
figure.
"""

import argparse
import copy
import itertools
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

import scg
from examples import evaluation, plots, training
from examples.digits import Images
from examples.iwae import apply
from examples.training import Result
from scg import distributions as dist
from scg import nn, objectives, optim
from scg.core.tree import leaves
from scg.special import logsumexp, softplus

TAKES = "one to two minutes"


class Start(NamedTuple):
    """What an estimator is made from: the mean image, the number of latents, draws for each image, images in a
    minibatch, and random numbers."""

    mean: np.ndarray
    latents: int
    k: int
    batch: int
    rng: np.random.Generator


Make = Callable[[Start], Any]
"""Makes an estimator; a learned baseline, which is given the images of each minibatch; or None, where no single
estimator does it."""

ADAM = partial(optim.Adam, learning_rate=1e-3)


def constant(start: Start) -> scg.Constant:
    """The cost of an image where the decoder answers with the mean image, -sum log(1 - mean), in the units of a mean
    over the minibatch.

    Less x * logit(mean): no draw has an influence on that, and the engine does not count it.
    """
    return scg.Constant(-float(np.sum(np.log1p(-start.mean))) / start.batch)


def learned(start: Start) -> scg.Learned:
    """NVIL: B(x) predicts the cost of an image (Mnih and Gregor, 2014)."""
    return scg.Learned(network, nn.mlp([start.mean.size, 100, 1], start.rng), ADAM, normalize=True)


def relax(start: Start) -> scg.RELAX:
    """REBAR's control variate, and a small network of z that begins at zero."""
    phi = nn.mlp([start.latents, 100, 1], start.rng)
    phi[-1].weight[:] = 0
    return scg.RELAX(network, phi, temperature=0.5, optimizer=ADAM)


def network(phi: Any, rows: Any) -> Any:
    """A number for each row."""
    return nn.apply(phi, rows)


ESTIMATORS: dict[str, Make] = {
    "score": lambda start: scg.ScoreFunction(),
    "score+constant": lambda start: scg.ScoreFunction(constant(start)),
    "score+moving": lambda start: scg.ScoreFunction(scg.MovingAverage()),
    "score+optimal": lambda start: scg.ScoreFunction(scg.Optimal()),
    "score+learned": learned,
    "score+loo": lambda start: scg.ScoreFunction(scg.LeaveOneOut(), samples=start.k),
    "arm": lambda start: scg.ARM(),
    "disarm": lambda start: scg.DisARM(),
    "coupled": lambda start: scg.CoupledPairs(start.k),
    "double": lambda start: scg.DoubleControlVariate(start.k),
    "rodeo": lambda start: scg.RODEO(start.k, optimizer=ADAM),
    "stochastic-derivative": lambda start: scg.StochasticDerivative(prune=True),
    "rebar": lambda start: scg.REBAR(0.5, optimizer=ADAM),
    "relax": relax,
    "muprop": lambda start: scg.MuProp(),
    "gumbel": lambda start: scg.GumbelSoftmax(0.5),
    "gumbel+hard": lambda start: scg.GumbelSoftmax(0.5, hard=True),
    "st": lambda start: scg.StraightThrough(),
    "st+gap": lambda start: scg.StraightThrough(gap=1.0),
    "st+decoupled": lambda start: scg.StraightThrough(temperature=0.5),
    "gumbel+rao-blackwell": lambda start: scg.GumbelSoftmax(0.5, hard=True, rao_blackwell=10),
    "reinmax": lambda start: scg.ReinMax(),
    "enumerate": lambda start: scg.Enumerate(),
    "marginalize": lambda start: scg.Marginalize(),
    "measure-valued": lambda start: scg.MeasureValued(),
    "unordered-set": lambda start: scg.UnorderedSet(2),
    "vimco": lambda start: None,
    "exact": lambda start: None,
}
"""Every estimator of the package that takes a coin, VIMCO, which is an estimator of the K-sample bound, and the sum
over all values of z."""

LEARNING = ("score+moving", "score+optimal", "score+learned", "rodeo", "rebar", "relax")
"""Those that remember something from one step to the next."""

IN_TURN = ("enumerate", "measure-valued", "unordered-set")
"""Those that evaluate the decoder at both values of each latent, with the others as drawn."""

MOST_IN_TURN, MOST_EXACT = 2**14, 12
"""Evaluations of the decoder in one step, and latents of which all 2^n values are summed over: more would take
gigabytes."""


class DiscreteVAE(training.Model):
    """Parameters are {"prior": logits, "encoder": layers, "decoder": layers}."""

    def __init__(
        self,
        latents: int = 200,
        estimator: str = "disarm",
        encoder: Sequence[int] = (),
        decoder: Sequence[int] = (),
        k: int = 2,
        batch: int = 100,
        replicates: int = 10,
        evaluate: int = 100,
    ):
        self.latents, self.estimator, self.hidden, self.k = latents, estimator, (list(encoder), list(decoder)), k
        self.batch, self.replicates, self.evaluate = batch, replicates, evaluate
        self.chosen: Any = None

    def initial(self, pixels: np.ndarray, rng: np.random.Generator) -> Any:
        """Glorot's weights, with biases that start the model at the mean image: the encoder sees x - mean, the decoder
        answers with the mean."""
        mean = np.clip(pixels.mean(axis=0, dtype=np.float32) / 255, 1e-3, 1 - 1e-3)
        encoder = nn.mlp([mean.size, *self.hidden[0], self.latents], rng)
        decoder = nn.mlp([self.latents, *self.hidden[1], mean.size], rng)
        encoder[0].bias[:] = -mean @ encoder[0].weight
        decoder[-1].bias[:] = np.log(mean / (1 - mean))
        self.chosen = ESTIMATORS[self.estimator](Start(mean, self.latents, self.k, self.batch, rng))
        return {"prior": np.zeros(self.latents, np.float32), "encoder": encoder, "decoder": decoder}

    @property
    def state(self) -> Any:  # type: ignore[override]
        return getattr(self.chosen, "state", {})

    @state.setter
    def state(self, state: Any) -> None:
        if self.chosen is not None:
            self.chosen.state = state

    def posterior(self, params: Any, x: Any) -> dist.Bernoulli:
        """q(z | x), for each row of x."""
        return dist.Bernoulli(logits=nn.apply(params["encoder"], x))

    def likelihood(self, params: Any, z: Any) -> dist.Bernoulli:
        """p(x | z), for z of shape (..., latents)."""
        return dist.Bernoulli(logits=apply(params["decoder"], z))

    def bound(self, params: Any, x: Any, rng: np.random.Generator) -> Any:
        if self.estimator == "vimco":
            return self.vimco(params, x, rng)
        if self.estimator == "exact":
            return self.exact_elbo(params, x)
        return self.elbo(
            params, x, rng, scg.ScoreFunction(self.chosen(x)) if isinstance(self.chosen, scg.Learned) else self.chosen
        )

    def elbo(self, params: Any, x: Any, rng: np.random.Generator, estimator: Any) -> Any:
        """log p(x | z) - KL(q(z | x) || p(z)), for one draw of z for each row of x."""
        q = self.posterior(params, x)
        z = scg.sample(q, estimator, rng=rng, name="z")
        divergence = dist.kl_divergence(q, dist.Bernoulli(logits=params["prior"]))
        return np.sum(self.likelihood(params, z).log_prob(x), axis=-1) - np.sum(divergence, axis=-1)

    def vimco(self, params: Any, x: Any, rng: np.random.Generator) -> Any:
        """log (1/K) sum_k p(x, z_k) / q(z_k | x), each draw held against the others (Mnih and Rezende, 2016)."""
        prior, q = dist.Bernoulli(logits=params["prior"]), dist.Independent(self.posterior(params, x), 1)

        def log_p(z: Any) -> Any:
            return np.sum(prior.log_prob(z), axis=-1) + np.sum(self.likelihood(params, z).log_prob(x), axis=-1)

        return objectives.iwae(log_p, guide=q, samples=self.k, rng=rng, gradient="VIMCO", name="z")

    def every(self, params: Any, x: Any) -> tuple[Any, Any, Any]:
        """(z, log p(z), log p(x | z)) for all 2^n values z, of shapes (2^n, n), (2^n,) and (rows, 2^n)."""
        z = np.array(list(itertools.product((0, 1), repeat=self.latents)), x.dtype)
        logits = nn.apply(params["decoder"], z)
        log_p = np.sum(dist.Bernoulli(logits=params["prior"]).log_prob(z), axis=-1)
        return z, log_p, x @ np.transpose(logits) - np.sum(softplus(logits), axis=-1)

    def exact_elbo(self, params: Any, x: Any) -> Any:
        """sum_z q(z | x) (log p(x, z) - log q(z | x)): nothing is drawn."""
        z, log_p, likelihood = self.every(params, x)
        logits = nn.apply(params["encoder"], x)
        log_q = logits @ z.T - np.sum(softplus(logits), axis=-1, keepdims=True)
        return np.sum(np.exp(log_q) * (log_p + likelihood - log_q), axis=-1)

    def log_evidence(self, params: Any, x: np.ndarray) -> np.ndarray:
        """log p(x), by the sum over all values of z."""
        _, log_p, likelihood = self.every(params, x)
        return logsumexp(log_p + likelihood, axis=-1)

    def log_weights(self, params: Any, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """log p(x, z) / q(z | x) for one draw of z from q(z | x) for each row of x."""
        q = self.posterior(params, x)
        z = q.sample(rng)
        prior = dist.Bernoulli(logits=params["prior"])
        return np.sum(self.likelihood(params, z).log_prob(x), axis=-1) + np.sum(
            prior.log_prob(z) - q.log_prob(z), axis=-1
        )

    def test(self, params: Any, x: np.ndarray, rng: np.random.Generator, rows: int = 200) -> float:
        """The ELBO by draws of 0 and 1, whatever bound is trained and by whatever relaxation."""
        blocks = [self.elbo(params, x[i : i + rows], rng, scg.ScoreFunction()) for i in range(0, len(x), rows)]
        return sum(float(np.sum(getattr(bound, "value", bound))) for bound in blocks) / len(x)

    def metrics(self, params: Any, x: np.ndarray, rng: np.random.Generator) -> dict[str, float]:
        return (
            {"gradient variance": gradient_variance(self, params, x, rng, self.replicates)}
            if self.replicates > 1
            else {}
        )

    def report(self, params: Any, x: np.ndarray, rng: np.random.Generator) -> dict[str, Result]:
        told = evaluation.results(lambda rows: self.log_weights(params, rows, rng), x, self.evaluate)
        if self.latents <= MOST_EXACT:
            exact = self.log_evidence(params, x)
            told["held-out log-likelihood, exact"] = Result(float(exact.mean()), float(exact.std() / np.sqrt(len(x))))
        return told

    def figures(
        self, params: Any, images: Images, x: np.ndarray, history: list[dict[str, Any]], rng: np.random.Generator
    ) -> dict[str, Any]:
        prior = dist.Bernoulli(logits=params["prior"])
        found = plots.model(
            images,
            x,
            history,
            encode=lambda rows: self.posterior(params, rows).sample(rng),
            decode=lambda z: self.likelihood(params, z).mean,
            draw=lambda n: prior.sample(rng, n),
            latents=False,
        )
        return {**found, **variance_figure(history, f"the encoder's gradient by {self.estimator}")}


def gradient_variance(
    model: Any, params: Any, x: np.ndarray, rng: np.random.Generator, replicates: int, part: str = "encoder"
) -> float:
    """The variance of the gradient for ``params[part]`` over draws at the same images, as a mean over coordinates;
    unbiased.

    Each replicate starts from a copy of the model: what learns from one step to the next is held at what it has learned
    so far.
    """
    gradient = scg.grad(lambda inner, at: at.cost({**params, part: inner}, x, rng))
    count, mean, squares = 0, [], []
    for _ in range(replicates):
        found = [g.astype(float) for _, g in leaves(gradient(params[part], copy.deepcopy(model)))]
        count += 1
        mean = mean or [np.zeros_like(g) for g in found]
        squares = squares or [np.zeros_like(g) for g in found]
        for g, m, s in zip(found, mean, squares, strict=True):  # Welford's updates
            change = g - m
            m += change / count
            s += change * (g - m)
    return sum(float(s.sum()) for s in squares) / (count - 1) / sum(s.size for s in squares)


def variance_figure(history: list[dict[str, Any]], title: str) -> dict[str, Any]:
    """The variance after each epoch, on a logarithmic scale; nothing where it was not measured."""
    points = [
        (entry["epoch"], entry["gradient variance"]) for entry in history if entry.get("gradient variance", 0) > 0
    ]
    if not points:
        return {}
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.add_subplot()
    axes.semilogy(*zip(*points, strict=True), color="tab:blue", marker="." if len(points) < 10 else None)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    plots.tidy(axes, "epoch", "variance, mean over coordinates", f"variance of {title}")
    return {"gradient-variance": figure}


def parser() -> argparse.ArgumentParser:
    """The options of this example."""
    made = training.parser("discrete_vae", __doc__, epochs=100)
    model = made.add_argument_group("the model")
    model.add_argument("--latents", metavar="N", type=training.natural, default=200, help="coins in z")
    model.add_argument(
        "--encoder",
        choices=("linear", "nonlinear"),
        default="linear",
        help="one affine map, or two tanh layers before it",
    )
    model.add_argument("--decoder", choices=("linear", "nonlinear"), help="likewise (default: as the encoder)")
    model.add_argument(
        "--hidden", metavar="N", type=training.natural, default=200, help="units in the layers of what is nonlinear"
    )
    gradient = made.add_argument_group("the gradient")
    gradient.add_argument(
        "--estimator",
        choices=ESTIMATORS,
        default="disarm",
        metavar="NAME",
        help=f"how the gradient passes z: {', '.join(ESTIMATORS)}",
    )
    gradient.add_argument(
        "--k", metavar="N", type=training.natural, default=2, help="draws for each image with score+loo and vimco"
    )
    gradient.add_argument(
        "--replicates",
        metavar="N",
        type=training.natural,
        default=10,
        help="gradients of which the variance is taken after each epoch; 1 takes none",
    )
    return made


def make(options: argparse.Namespace) -> DiscreteVAE:
    """The model of some options, which are completed."""
    options.decoder = options.decoder or options.encoder
    if options.binarise == "none":
        raise scg.errors.ScgValueError(
            "the Bernoulli decoder needs black and white images, got --binarise none: use dynamic or threshold"
        )
    if options.estimator in ("score+loo", "vimco") and options.k < 2:
        raise scg.errors.ScgValueError(
            f"--estimator {options.estimator} holds each draw against the others: it needs --k 2 or more, got"
            f" {options.k}"
        )
    if options.estimator in ("exact", "marginalize") and options.latents > MOST_EXACT:
        raise scg.errors.ScgValueError(
            f"--estimator {options.estimator} sums over all 2^n values of z: it takes --latents up to {MOST_EXACT}, got"
            f" {options.latents}; enumerate takes the latents in turn, and disarm has two evaluations for any number of"
            " them"
        )
    evaluations = 2 * options.latents * options.batch
    if options.estimator in IN_TURN and evaluations > MOST_IN_TURN:
        raise scg.errors.ScgValueError(
            f"--estimator {options.estimator} evaluates the decoder at both values of each of {options.latents} latents"
            f" of {options.batch} images, {evaluations} times in a step, and up to {MOST_IN_TURN} are feasible: use"
            f" --latents {max(MOST_IN_TURN // (2 * options.batch), 1)} or --batch"
            f" {max(MOST_IN_TURN // (2 * options.latents), 1)}, or disarm, which has two for any number of latents"
        )
    if options.estimator in LEARNING and options.workers:
        raise scg.errors.ScgValueError(
            f"--estimator {options.estimator} learns from one step to the next and cannot be shared out to processes:"
            " leave --workers out"
        )
    hidden = {"linear": (), "nonlinear": (options.hidden, options.hidden)}
    return DiscreteVAE(
        options.latents,
        options.estimator,
        hidden[options.encoder],
        hidden[options.decoder],
        options.k,
        options.batch,
        options.replicates,
        options.evaluate,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the example; the exit status."""
    return training.main(parser(), make, argv)


if __name__ == "__main__":
    sys.exit(main())
