"""A switching state-space model: an image as the sequence of its rows.

    p(s_t | s_{t-1}) = Categorical(P[s_{t-1}])    p(z_t | z_{t-1}, s_t) = N(A[s_t] z_{t-1} + b[s_t], c[s_t]^2)    p(x_t
    | s_t, z_t) = Bernoulli(logits = E[s_t] + L z_t)

with a regime s_t and a state z_t for each row x_t. The guide, q(z_t | z_{t-1}, x) q(s_t | s_{t-1}, x), has seen the
whole image. States are reparameterized; for regimes --estimator chooses. Each of the draws meets the terms of its own
and of later rows only, the cost-to-go: nobody says so, the engine follows it from draw to cost. What this is worth is
told at the end, beside the score function with the total cost (--estimator total).

The regimes can also be summed out: --estimator marginal draws them from the model by ``scg.Marginalize()`` and takes
``scg.objectives.log_marginal``, which finds the forward algorithm (Rabiner, 1989) in the loop. Without states, the
default, the model is a hidden Markov model, of which this sum is the exact log p(x), and no bound lies above it. With
--state 4 the draws are of both kinds, and it is a bound that is at least the ELBO.

With --objective fivo the guide proposes to a particle filter (Maddison et al., 2017): K paths for each image, of which
after every row some go on and some do not, and log Z-hat is the bound.
"""

import argparse
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

import scg
from examples import digits, evaluation, plots, training
from examples.digits import Images
from examples.discrete_vae import gradient_variance, variance_figure
from examples.training import Result
from scg import distributions as dist
from scg import nn
from scg.special import log_softmax, logsumexp, softplus

TAKES = "one minute, two with states"

ESTIMATORS: dict[str, Callable[[], Any]] = {
    "score": scg.ScoreFunction,
    "score+moving": lambda: scg.ScoreFunction(scg.MovingAverage()),
    "score+loo": lambda: scg.ScoreFunction(scg.LeaveOneOut(), samples=2),
    "disarm": scg.DisARM,
    "enumerate": scg.Enumerate,
    "gumbel": lambda: scg.GumbelSoftmax(0.5),
    "st": scg.StraightThrough,
    "reinmax": scg.ReinMax,
    "total": lambda: None,
    "marginal": scg.Marginalize,
}
"""An estimator for the regime of each row; "total" is none of a draw, and stands in ``bound``."""


class Switching(training.Model):
    """Parameters are {"encoder": ..., "switch": ..., "decoder": ...}: those of the guide, its table of transitions
    aside, and those of the model above.

    Regimes are one-hot vectors, so that a table over them is looked up by a product.
    """

    def __init__(
        self,
        width: int,
        regimes: int = 10,
        state: int = 0,
        hidden: int = 200,
        estimator: str = "score+moving",
        replicates: int = 10,
        evaluate: int = 100,
        particles: int = 0,
    ):
        self.width, self.regimes, self.dimensions, self.hidden = width, regimes, state, hidden
        self.estimator, self.replicates, self.evaluate, self.particles = estimator, replicates, evaluate, particles
        self.estimators: list[Any] = []

    def initial(self, pixels: np.ndarray, rng: np.random.Generator) -> Any:
        """Regimes start half-way between the mean row and some row of the images each."""
        k, d, rows = self.regimes, self.dimensions, pixels.reshape(-1, self.width)
        steps = pixels.shape[1] // self.width
        mean = rows.mean(axis=0) / 255
        seen = rows[rng.choice(np.flatnonzero(rows.any(axis=1)), k)] / 255
        emission = np.clip((mean + seen) / 2, 0.01, 0.99)
        network = nn.mlp([pixels.shape[1], self.hidden, steps * (k + 2 * d)], rng)
        network[0].bias[:] = -(pixels.mean(axis=0, dtype=np.float32) / 255) @ network[0].weight
        network[-1].weight[:] *= 0.1
        decoder = {"first": np.zeros(k), "transition": np.eye(k), "emission": np.log(emission / (1 - emission))}
        encoder: dict[str, Any] = {"network": network}
        if d:
            decoder |= {
                "dynamics": np.tile(0.9 * np.eye(d), (k, 1, 1)),
                "shift": np.zeros((k, d)),
                "log_scale": np.full((k, d), -0.5),
            }
            decoder |= {"loading": 0.3 * rng.standard_normal((d, self.width))}
            encoder["carry"] = np.zeros((d, d), np.float32)
        # one for each row: baselines of their own
        self.estimators = [ESTIMATORS[self.estimator]() for _ in range(steps)]
        return {
            "encoder": encoder,
            "switch": np.eye(k, dtype=np.float32),
            "decoder": {name: value.astype(np.float32) for name, value in decoder.items()},
        }

    @property
    def state(self) -> Any:  # type: ignore[override]
        return [estimator.state for estimator in self.estimators] if self.estimator == "score+moving" else {}

    @state.setter
    def state(self, state: Any) -> None:
        for estimator, part in zip(self.estimators, state or (), strict=False):
            estimator.state = part

    def bound(self, params: Any, x: Any, rng: np.random.Generator) -> Any:
        if self.particles:
            return self.filtered(params, x, rng, self.particles)
        if self.estimator == "marginal":
            return self.summed_out(params, x, rng)
        if self.estimator == "total":
            bound, log_q = self.elbo(params, x, rng, None)
            return bound + scg.stop_gradient(bound) * (log_q - scg.stop_gradient(log_q))
        return self.elbo(params, x, rng, self.estimators)[0]

    def elbo(self, params: Any, x: Any, rng: np.random.Generator, estimators: Any) -> tuple[Any, Any]:
        """log p(x, z, s) - log q(z, s | x) for one draw for each image, as a sum over its rows, and log q(s | x).
        Without estimators regimes are held."""
        p = params["decoder"]
        h, table, log_q_z = self.states(p, params["encoder"], x, rng)
        first, transition = log_softmax(p["first"], -1), log_softmax(p["transition"], -1)
        s, bound, log_q_s = None, -log_q_z, 0
        for t in range(table.shape[1]):
            distribution = dist.OneHotCategorical(
                logits=h[:, t, : self.regimes] + (0 if s is None else s @ params["switch"])
            )
            arrival = first if s is None else s @ transition
            s = (
                distribution.stop_gradient().sample(rng)
                if estimators is None
                else scg.sample(distribution, estimators[t], rng=rng, name=f"s{t + 1}")
            )
            log_q = np.sum(s * distribution.log_p, axis=-1)
            bound = bound + np.sum(s * (arrival + table[:, t]), axis=-1) - log_q
            log_q_s = log_q_s + log_q
        return bound, log_q_s

    def filtered(self, params: Any, x: Any, rng: np.random.Generator, particles: int) -> Any:
        """log Z-hat of a particle filter whose proposal is the guide (FIVO, Maddison et al., 2017): states and regimes
        of row t go on by their weights."""
        p, q, k, d = params["decoder"], params["encoder"], self.regimes, self.dimensions
        rows = np.reshape(x, (len(x), -1, self.width))
        h = np.reshape(nn.apply(q["network"], x), (*rows.shape[:2], -1))
        first, transition = log_softmax(p["first"], -1), log_softmax(p["transition"], -1)

        def step(t: int, before: Any, rng: np.random.Generator) -> Any:
            shape = () if before else (particles,)
            chosen = before or {"s": None, "z": None}
            now, log_w, lift = {}, 0, 0
            if d:
                loc = h[:, t, k : k + d] + (chosen["z"] @ q["carry"] if before else 0)
                guide = dist.Normal(loc, np.exp(h[:, t, k + d :]))
                now["z"] = scg.sample(guide, scg.Reparameterized(), rng=rng, shape=shape, name=f"z{t + 1}")
                lift = (now["z"] @ p["loading"])[..., None, :]
                log_w = -np.sum(guide.log_prob(now["z"]), axis=-1)
            regime = dist.OneHotCategorical(logits=h[:, t, :k] + (chosen["s"] @ params["switch"] if before else 0))
            now["s"] = scg.sample(regime, self.estimators[t], rng=rng, shape=shape, name=f"s{t + 1}")
            table = np.sum(rows[:, t, None] * (p["emission"] + lift) - softplus(p["emission"] + lift), axis=-1)
            if d:
                at = np.einsum("...d,kde->...ke", chosen["z"], p["dynamics"]) if before else 0
                moved = dist.Normal(at + p["shift"], np.exp(p["log_scale"]))
                table = table + np.sum(moved.log_prob(now["z"][..., None, :]), axis=-1)
            arrival = chosen["s"] @ transition if before else first
            return now, log_w + np.sum(now["s"] * (arrival + table), axis=-1) - regime.log_prob(now["s"])

        return scg.objectives.smc(step, rows.shape[1], rng=rng).log_evidence

    def summed_out(self, params: Any, x: Any, rng: np.random.Generator) -> Any:
        """log sum_s p(x, z, s) - log q(z | x), with its gradient: regimes are drawn from the model, and summed out."""
        p = params["decoder"]
        _, table, log_q_z = self.states(p, params["encoder"], x, rng)
        first, transition = log_softmax(p["first"], -1), log_softmax(p["transition"], -1)
        s, total = None, 0
        for t in range(table.shape[1]):
            logits = np.broadcast_to(first, table[:, t].shape) if s is None else s @ transition
            s = scg.sample(dist.OneHotCategorical(logits=logits), scg.Marginalize(), rng=rng, name=f"s{t + 1}")
            total = total + np.sum(s * table[:, t], axis=-1)
        return scg.objectives.log_marginal(total) - log_q_z

    def marginal(self, params: Any, x: Any, rng: np.random.Generator) -> Any:
        """The value of ``summed_out`` by the forward algorithm, which needs no draws of the regimes: for evaluation."""
        p = params["decoder"]
        _, table, log_q_z = self.states(p, params["encoder"], x, rng)
        return forward(log_softmax(p["first"], -1), log_softmax(p["transition"], -1), table) - log_q_z

    def states(self, p: Any, q: Any, x: Any, rng: np.random.Generator) -> tuple[Any, Any, Any]:
        """Features of shape (images, T, K + 2d), of which the first K are logits of regimes; tables; log q(z | x) at a
        draw of z.

        Tables, of shape (images, T, K), are log p(x_t | s_t, z_t) + log p(z_t | z_{t-1}, s_t).
        """
        k, d, rows = self.regimes, self.dimensions, np.reshape(x, (len(x), -1, self.width))
        h = np.reshape(nn.apply(q["network"], x), (*rows.shape[:2], -1))
        table = rows @ np.transpose(p["emission"])
        if not d:
            return h, table - np.sum(softplus(p["emission"]), axis=-1), 0
        z, log_q = [], 0
        for t in range(rows.shape[1]):
            distribution = dist.Normal(h[:, t, k : k + d] + (z[-1] @ q["carry"] if z else 0), np.exp(h[:, t, k + d :]))
            z.append(scg.sample(distribution, scg.Reparameterized(), rng=rng, name=f"z{t + 1}"))
            log_q = log_q + np.sum(distribution.log_prob(z[-1]), axis=-1)
        path = np.stack(z, axis=1)
        before = np.concatenate([np.zeros_like(path[:, :1]), path[:, :-1]], axis=1)  # z_0 = 0
        lift = path @ p["loading"]
        loc = np.einsum("ntd,kde->ntke", before, p["dynamics"]) + p["shift"]
        table = (
            table
            + np.sum(rows * lift, axis=-1, keepdims=True)
            - np.sum(softplus(p["emission"] + lift[:, :, None]), axis=-1)
        )
        return h, table + np.sum(dist.Normal(loc, np.exp(p["log_scale"])).log_prob(path[:, :, None]), axis=-1), log_q

    def log_weights(self, params: Any, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """log p(x, z, s) / q(z, s | x) for one draw for each image."""
        found = self.elbo(params, x, rng, None)[0]
        return getattr(found, "value", found)

    def filter_weights(self, params: Any, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """log Z-hat of the particles, for each image."""
        return self.filtered(params, x, rng, self.particles).value  # type: ignore[no-any-return]

    def marginal_weights(self, params: Any, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """log p(x, z) / q(z | x) for one draw for each image; log p(x), where there are no states."""
        found = self.marginal(params, x, rng)
        return getattr(found, "value", found)

    @property
    def summed(self) -> bool:
        """Whether regimes are summed out, so that their guide has no part in the bound and is not trained."""
        return self.estimator == "marginal"

    def test(self, params: Any, x: np.ndarray, rng: np.random.Generator, rows: int = 200) -> float:
        """What is trained, without relaxation: the ELBO, or the bound whose regimes are summed out."""
        weights = self.marginal_weights if self.summed else self.filter_weights if self.particles else self.log_weights
        return sum(float(np.sum(weights(params, x[i : i + rows], rng))) for i in range(0, len(x), rows)) / len(x)

    def metrics(self, params: Any, x: np.ndarray, rng: np.random.Generator) -> dict[str, float]:
        if self.replicates < 2 or self.summed and not self.dimensions:  # no draw is left
            return {}
        return {"gradient variance": gradient_variance(self, params, x, rng, self.replicates)}

    def report(self, params: Any, x: np.ndarray, rng: np.random.Generator) -> dict[str, Result]:
        told = (
            {}
            if self.summed
            else evaluation.results(lambda rows: self.log_weights(params, rows, rng), x, self.evaluate)
        )
        if self.particles:
            filtered = np.concatenate([self.filter_weights(params, x[i : i + 100], rng) for i in range(0, len(x), 100)])
            told[f"held-out bound of {self.particles} particles"] = Result(
                float(filtered.mean()), float(filtered.std() / np.sqrt(len(x)))
            )
        if self.dimensions:
            summed = evaluation.results(lambda rows: self.marginal_weights(params, rows, rng), x, self.evaluate)
            told |= {f"{name}, regimes summed out": result for name, result in summed.items()}
        else:
            exact = self.marginal_weights(params, x, rng)
            told["held-out log-likelihood, exact"] = Result(float(exact.mean()), float(exact.std() / np.sqrt(len(x))))
        if self.summed or self.particles:
            return told
        found = {}
        for estimator in ("score", "total"):
            other = Switching(self.width, self.regimes, self.dimensions, self.hidden, estimator)
            other.estimators = [ESTIMATORS[estimator]() for _ in range(x.shape[1] // self.width)]
            # which no states have a part in
            found[estimator] = gradient_variance(other, params, x[:100], rng, 10 * max(self.replicates, 2), "switch")
        told["variance with the cost-to-go"] = Result(
            found["score"], unit="(score function; the gradient for the guide's transitions)"
        )
        told["variance with the total cost"] = Result(
            found["total"], unit=f"({found['total'] / found['score']:.1f} times as much)"
        )
        return told

    def figures(
        self, params: Any, images: Images, x: np.ndarray, history: list[dict[str, Any]], rng: np.random.Generator
    ) -> dict[str, Any]:
        from matplotlib.figure import Figure

        shown = x[np.linspace(0, len(x) - 1, min(50, len(x))).astype(int)]
        figure = Figure(figsize=(12, 7.5), layout="constrained")
        cells = figure.add_gridspec(2, 2, height_ratios=(0.85, 1))
        left, right = figure.add_subplot(cells[0, 0]), figure.add_subplot(cells[0, 1])
        pictures(
            left,
            shown,
            self.paths(params, shown, rng),
            images.shape,
            "held-out images, each row in the colour of its regime",
        )
        pictures(
            right,
            *self.dream(params, 50, shown.shape[1] // self.width, rng),
            images.shape,
            "samples: means of p(x | s, z), likewise",
        )
        plots.curve(figure.add_subplot(cells[1, 0]), history)
        axes = figure.add_subplot(cells[1, 1])
        p = np.exp(log_softmax(params["decoder"]["transition"], -1))
        figure.colorbar(axes.imshow(p, cmap="Blues", vmin=0, vmax=1, aspect="auto"), ax=axes)
        axes.set_title("probability of the next regime after one", loc="left", fontsize=11)
        axes.set_xlabel("next regime")
        axes.set_ylabel("regime")
        for ticks in (axes.set_xticks, axes.set_yticks):
            ticks(range(self.regimes))
        for i, label in enumerate(axes.get_yticklabels()):
            label.set_color(colours(np.array(i)))
        return {"": figure, **variance_figure(history, f"the guide's gradient by {self.estimator}")}

    def paths(self, params: Any, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A draw of the regimes, as numbers, of shape (images, rows): from the guide, or, where they are summed out,
        from p(s | x, z)."""
        q, found = params["encoder"], []
        if self.summed:
            p = params["decoder"]
            _, table, _ = self.states(p, q, x, rng)
            table = np.asarray(getattr(table, "value", table))
            return backward_sample(log_softmax(p["first"], -1), log_softmax(p["transition"], -1), table, rng)
        h = np.reshape(nn.apply(q["network"], x), (len(x), x.shape[1] // self.width, -1))
        for t in range(h.shape[1]):
            logits = h[:, t, : self.regimes] + (found[-1] @ params["switch"] if found else 0)
            found.append(dist.OneHotCategorical(logits=logits).sample(rng))
        return np.argmax(np.stack(found, axis=1), axis=-1)

    def dream(self, params: Any, n: int, steps: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Mean pixels and regimes of n draws of the model."""
        p, rows, regimes, s, z = params["decoder"], [], [], None, None
        for _ in range(steps):
            s = dist.Categorical(logits=np.tile(p["first"], (n, 1)) if s is None else p["transition"][s]).sample(rng)
            logits = p["emission"][s]
            if self.dimensions:
                loc = p["shift"][s] + (0 if z is None else np.einsum("nd,nde->ne", z, p["dynamics"][s]))
                z = dist.Normal(loc, np.exp(p["log_scale"][s])).sample(rng)
                logits = logits + z @ p["loading"]
            rows.append(dist.Bernoulli(logits=logits).mean)
            regimes.append(s)
        return np.concatenate(rows, axis=1), np.stack(regimes, axis=1)


def forward(first: Any, transition: Any, table: Any) -> Any:
    """log sum_s exp(first[s_1] + sum_t transition[s_t, s_{t+1}] + sum_t table[:, t, s_t]), in T steps of K^2 instead of
    K^T sums."""
    alpha = first + table[:, 0]
    for t in range(1, table.shape[1]):
        alpha = logsumexp(alpha[:, :, None] + transition, axis=1) + table[:, t]
    return logsumexp(alpha, axis=-1)


def backward_sample(first: Any, transition: Any, table: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Regimes drawn from their posterior, of shape (images, T): forward sums alpha_t, then s_T ~ alpha_T and s_t given
    s_{t+1} with log-probabilities alpha_t[s] + transition[s, s_{t+1}] up to a constant."""
    alphas = [first + table[:, 0]]
    for t in range(1, table.shape[1]):
        alphas.append(logsumexp(alphas[-1][:, :, None] + transition, axis=1) + table[:, t])
    found = [dist.Categorical(logits=alphas[-1]).sample(rng)]
    for alpha in alphas[-2::-1]:
        found.append(dist.Categorical(logits=alpha + transition.T[found[-1]]).sample(rng))
    return np.stack(found[::-1], axis=1)


def colours(numbers: np.ndarray) -> np.ndarray:
    """An RGB colour for each number."""
    import matplotlib

    palette = matplotlib.colormaps["tab10" if numbers.max() < 10 else "tab20"]
    return np.asarray(palette(numbers % 20))[..., :3]


def pictures(
    axes: Any, rows: np.ndarray, regimes: np.ndarray, shape: tuple[int, int], title: str, columns: int = 10
) -> None:
    """A grid of images whose ink has the colour of the row's regime."""
    ink = rows.reshape(len(rows), *shape)[..., None]
    pale = 0.12  # rows without ink show their regime too
    painted = 1 - (pale + (1 - pale) * ink) * (1 - colours(regimes)[:, :, None])
    layers = [plots.grid(1 - painted[..., c].reshape(len(rows), -1), shape, columns) for c in range(3)]
    axes.imshow(np.stack(layers, axis=-1), interpolation="nearest")
    axes.set_title(title, loc="left", fontsize=11)
    axes.set_axis_off()


def parser() -> argparse.ArgumentParser:
    """The options of this example."""
    made = training.parser("sequence", __doc__, epochs=30, rate=3e-3)
    model = made.add_argument_group("the model")
    model.add_argument("--regimes", metavar="K", type=training.natural, default=10, help="values of s_t")
    model.add_argument(
        "--state",
        metavar="D",
        type=training.whole,
        default=0,
        help="dimensions of z_t; with 0 the model is a hidden Markov model, 4 make the images much better",
    )
    model.add_argument(
        "--hidden", metavar="N", type=training.natural, default=200, help="units in the tanh layer of the guide"
    )
    model.add_argument(
        "--width", metavar="N", type=training.natural, help="pixels in a row (default: as the images have)"
    )
    model.add_argument(
        "--estimator", choices=ESTIMATORS, default="score+moving", help="how the gradient passes the regimes"
    )
    model.add_argument(
        "--objective",
        choices=("elbo", "fivo"),
        default="elbo",
        help="one path of the guide for each image, or a particle filter that the guide proposes to (FIVO)",
    )
    model.add_argument(
        "--particles", metavar="K", type=training.natural, default=4, help="of each image, with --objective fivo"
    )
    model.add_argument(
        "--replicates",
        metavar="N",
        type=training.natural,
        default=5,
        help="gradients of which the variance is taken after each epoch, 1 takes none; ten times as many at the end",
    )
    return made


def make(options: argparse.Namespace) -> Switching:
    """The model of some options, which are completed."""
    height, width = digits.load(options.data).shape
    options.width = options.width or width
    if height * width % options.width:
        raise scg.errors.ScgValueError(
            f"--width {options.width} does not divide the {height} x {width} = {height * width} pixels of an image: use"
            f" {width}"
        )
    if options.binarise == "none":
        raise scg.errors.ScgValueError(
            "the Bernoulli rows need black and white images, got --binarise none: use dynamic or threshold"
        )
    if options.regimes < 2:
        raise scg.errors.ScgValueError("one regime never switches: use --regimes 2 or more")
    if options.estimator == "score+moving" and options.workers:
        raise scg.errors.ScgValueError(
            "--estimator score+moving learns from one step to the next and cannot be shared out to processes: leave"
            " --workers out"
        )
    if options.objective == "fivo" and options.estimator in ("marginal", "total", "gumbel"):
        raise scg.errors.ScgValueError(
            f"--objective fivo weighs and chooses regimes that are drawn one by one, and has no --estimator"
            f" {options.estimator}: use score, score+moving, disarm or st"
        )
    return Switching(
        options.width,
        options.regimes,
        options.state,
        options.hidden,
        options.estimator,
        options.replicates,
        options.evaluate,
        options.particles if options.objective == "fivo" else 0,
    )


def main(argv: Any = None) -> int:
    """Run the example; the exit status."""
    return training.main(parser(), make, argv)


if __name__ == "__main__":
    sys.exit(main())
