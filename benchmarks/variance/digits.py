"""The encoder of a variational autoencoder with 200 binary latents, on the embedded digits: variance of its gradient,
as it is and for equal work.

    p(b) = Bernoulli(1/2)^200    p(x | b) = Bernoulli(logits = decoder(b))    q(b | x) = Bernoulli(logits = encoder(x))

Both networks have one hidden layer of 200 tanh units. The cost is the negative ELBO, in nats an image, averaged over a
fixed minibatch of 50 binarised images; its KL is in closed form. Measured at Glorot's initial weights and after a short
training with DisARM; the variance is summed over the 197,000 weights of the encoder.
"""

import functools
import statistics
import time
from typing import Any

import numpy as np

import scg
from benchmarks.variance.estimates import entry, interval, markdown, number, timeless
from examples import digits
from scg import distributions as dist
from scg import nn, optim

BATCH, LATENTS, HIDDEN, PIXELS = 50, 200, 200, 784
PRIOR = dist.Bernoulli(logits=np.float32(0))
ROUNDS, TIMED = 9, 8
STATES = ("initial", "trained")
ROWS = (
    "score function",
    "score function, moving average",
    "score function, learned baseline",
    "leave-one-out, 2 samples",
    "leave-one-out, 4 samples",
    "ARM",
    "DisARM",
    "MuProp",
    "REBAR, as it is",
    "REBAR, trained",
    "RELAX, trained",
)

FIRST = "leave-one-out, 2 samples"
"""What work is compared with."""


def cost(encoder: Any, decoder: Any, x: Any, rng: Any, estimator: Any = scg.DisARM()) -> Any:
    """The negative ELBO of a minibatch, in nats an image."""
    q = dist.Bernoulli(logits=nn.apply(encoder, x))
    b = scg.sample(q, estimator, rng=rng, name="b")
    log_p = np.sum(dist.Bernoulli(logits=nn.apply(decoder, b)).log_prob(x), axis=-1)
    return np.mean(np.sum(dist.kl_divergence(q, PRIOR), axis=-1) - log_p)


@functools.cache
def networks(state: str, steps: int) -> tuple[Any, Any, Any]:
    """(encoder, decoder, the minibatch that is measured): the same in all parts, computed once in a process."""
    rng = np.random.default_rng(1)
    images = digits.load().train.reshape(-1, PIXELS)
    params = {"encoder": nn.mlp([PIXELS, HIDDEN, LATENTS], rng), "decoder": nn.mlp([LATENTS, HIDDEN, PIXELS], rng)}
    mean = np.clip(images.mean(axis=0, dtype=np.float32) / 255, 1e-3, 1 - 1e-3)
    params["decoder"][-1].bias[:] = np.log(mean / (1 - mean))

    def minibatch() -> Any:
        shown = images[rng.choice(len(images), BATCH, replace=False)]
        return (rng.random(shown.shape, np.float32) * 255 < shown).astype(np.float32)

    measured = minibatch()
    if state == "trained":
        optimizer = optim.Adam(params, learning_rate=1e-3)
        step = scg.value_and_grad(lambda p, x, rng: cost(p["encoder"], p["decoder"], x, rng))
        for _ in range(steps):
            optimizer.step(step(params, minibatch(), rng=rng)[1])
    for array in (*[a for layer in params["decoder"] for a in layer], measured):
        array.flags.writeable = False
    return params["encoder"], params["decoder"], measured


def estimator(name: str, graph: scg.Graph, x: Any, steps: int, rng: np.random.Generator) -> Any:
    """The estimator of a row; what learns has learned from so many runs, one step each, and is held then."""
    adam = functools.partial(optim.Adam, learning_rate=3e-3)
    simple = {
        "score function": scg.ScoreFunction(),
        "leave-one-out, 2 samples": scg.ScoreFunction(samples=2, baseline=scg.LeaveOneOut()),
        "leave-one-out, 4 samples": scg.ScoreFunction(samples=4, baseline=scg.LeaveOneOut()),
        "ARM": scg.ARM(),
        "DisARM": scg.DisARM(),
        "MuProp": scg.MuProp(),
        "REBAR, as it is": scg.REBAR(),
    }
    if name in simple:
        return simple[name]
    if name == "REBAR, trained":
        made: Any = scg.REBAR(optimizer=adam)
    elif name == "RELAX, trained":
        made = scg.RELAX(
            control,
            {"level": np.zeros((), np.float32), "slope": np.zeros(LATENTS, np.float32)},
            temperature=0.5,
            optimizer=adam,
        )
    elif name == "score function, moving average":
        made = scg.ScoreFunction(baseline=scg.MovingAverage(0.95))
    else:
        made = scg.ScoreFunction(
            baseline=scg.Learned(predicted, nn.mlp([PIXELS, 100, 1], rng), adam, normalize=True)(x)
        )
    learning = graph.bind(b=made)
    for _ in range(steps):
        learning.gradients(rng=rng)
    if name == "REBAR, trained":
        return scg.REBAR(made.temperature, float(made.parameters["scale"]))
    if name == "RELAX, trained":
        return scg.RELAX(control, made.parameters["fn"], made.temperature, float(made.parameters["scale"]))
    return made


def control(phi: Any, z: Any) -> Any:
    """RELAX's free part, beside that of REBAR: for each image a constant and a line in tanh(z), in nats."""
    return (phi["level"] + np.tanh(z) @ phi["slope"]) / np.float32(BATCH)


def predicted(phi: Any, x: Any) -> Any:
    """The learned baseline: a cost for each image."""
    return nn.apply(phi, x)


def points(quick: bool) -> list[dict[str, Any]]:
    """A point is a state and a row; the last one measures the times of all rows together."""
    n, training, learning = (20, 20, 3) if quick else (600, 600, 300)
    common = {"replicates": n, "training": training, "learning": learning}
    rows = (ROWS[0], *ROWS[3::3]) if quick else ROWS
    return [{"state": state, "estimator": name, **common} for state in STATES for name in reversed(rows)] + [
        {"state": "times", "estimator": list(rows), **common}
    ]


def measure(point: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """variance, low, high, evaluations of a row; or seconds of processor time by row, medians of interleaved rounds:
    those do not mind what else the machine does."""
    times = point["state"] == "times"
    encoder, decoder, x = networks("initial" if times else point["state"], point["training"])
    graph = scg.trace(cost, encoder, decoder, x, rng=rng)
    if times:
        rows = {name: graph.bind(b=estimator(name, graph, x, 2, rng)) for name in point["estimator"]}
        seconds: dict[str, list[float]] = {name: [] for name in rows}
        for _ in range(1 + ROUNDS):
            for name, row in rows.items():
                start = time.process_time()
                row.gradients(rng=rng, replicates=TIMED)
                seconds[name].append((time.process_time() - start) / TIMED)
        return {"seconds": {name: statistics.median(each[1:]) for name, each in seconds.items()}}
    bound = graph.bind(b=estimator(point["estimator"], graph, x, point["learning"], rng))
    total = scg.variance.compare(bound, {"": {}}, replicates=point["replicates"], rng=rng, budget=0)[""].total
    return {**entry(total), "signal-to-noise": total.snr}


def tables(results: list[tuple[Any, Any]]) -> dict[str, list[dict[str, Any]]]:
    """One CSV: variances, and variances for equal evaluations of the cost over that of leave-one-out."""
    rows = [{**p, **timeless(r)} for p, r in results if p["state"] != "times"]
    first = {r["state"]: r["variance"] * r["evaluations"] for r in rows if r["estimator"] == FIRST}
    return {
        "digits": [
            {**r, "work": r["variance"] * r["evaluations"] / first[r["state"]]} for r in sorted(rows, key=_place)
        ]
    }


def report(results: list[tuple[Any, Any]]) -> str:
    """A table for each state, with the times."""
    seconds = next(r["seconds"] for p, r in results if p["state"] == "times")
    texts = []
    for state in STATES:
        found = sorted([{**p, **r} for p, r in results if p["state"] == state], key=_place)
        first = next(r for r in found if r["estimator"] == FIRST)
        rows: list[list[Any]] = [
            [
                f"{state} weights",
                "variance",
                "95% interval",
                "signal-to-noise",
                "evaluations",
                "ms",
                "variance x evaluations, ratio",
                "variance x time, ratio",
            ]
        ]
        for r in found:
            work = [
                r["variance"] * w / (first["variance"] * v)
                for w, v in (
                    (r["evaluations"], first["evaluations"]),
                    (seconds[r["estimator"]], seconds[first["estimator"]]),
                )
            ]
            name = r["estimator"]
            rows.append(
                [
                    name,
                    number(r["variance"], 3),
                    interval(r, 3),
                    number(r["signal-to-noise"], 2),
                    number(r["evaluations"], 2),
                    number(1e3 * seconds[name], 2),
                    *[number(w, 2) for w in work],
                ]
            )
        texts.append(markdown(rows))
    return "\n\n".join(texts)


def figures(results: list[tuple[Any, Any]]) -> dict[str, Any]:
    """Variance against the time of a gradient; on a falling line the work is the same."""
    from benchmarks.variance import plots

    seconds = next(r["seconds"] for p, r in results if p["state"] == "times")
    figure, axes = plots.panels(1, 2, (14, 6))
    for each, state in zip(axes[0], STATES, strict=True):
        first, *found = sorted([{**p, **r} for p, r in results if p["state"] == state], key=_place)
        x = [1e3 * seconds[r["estimator"]] for r in found]
        ends = [
            plots.line(each, [at], [r["variance"]], ROWS.index(r["estimator"]) - 1, entries=[r])
            for at, r in zip(x, found, strict=True)
        ]
        each.set_xscale("log")
        each.set_yscale("log")
        grid = np.geomspace(min(x) / 1.2, max(x) * 1.2, 2)
        bottom, top = (f(r["variance"] for r in found) for f in (min, max))
        for level in np.geomspace(bottom * min(x), top * max(x), 8):
            each.plot(grid, level / grid, color="0.8", linewidth=0.7, zorder=0)
        each.set_xlim(*grid)
        each.set_ylim(bottom / 2, top * 2)
        each.set_xticks(
            ticks := [t for t in (1, 2, 3, 5, 10, 20, 50, 100) if min(x) / 1.2 < t < max(x) * 1.2],
            [str(t) for t in ticks],
        )
        each.minorticks_off()
        each.set_xlabel("ms of processor time a gradient; grey: equal variance x time", fontsize=plots.SIZE)
        each.set_title(
            f"{state} weights; without a baseline {first['variance']:.1e}", loc="left", fontsize=plots.SIZE + 1
        )
        plots.label(each, ends, [r["estimator"] for r in found])
    axes[0, 0].set_ylabel("variance of one gradient of the encoder, summed", fontsize=plots.SIZE)
    return {"digits": figure}


def _place(row: Any) -> tuple[int, int]:
    return STATES.index(row["state"]), ROWS.index(row["estimator"])
