"""What is said of a trained latent-variable model: bounds on the evidence from importance weights, and the latents in
use."""

import sys
import time
from collections.abc import Callable

import numpy as np

from examples.training import Result, clock

LONG = 1000
"""Draws for each row from which the way to fewer is told before they are taken."""

Weights = Callable[[np.ndarray], np.ndarray]
"""Rows of data -> log p(x, z) - log q(z | x) for a fresh draw of z for each row."""


def bounds(
    log_weights: Weights,
    x: np.ndarray,
    samples: int,
    rows: int = 250,
    tick: Callable[[float], None] = lambda done: None,
) -> tuple[np.ndarray, np.ndarray]:
    """For each row of ``x`` the mean of ``samples`` log-weights, and log (1/K) sum_k w_k, the K-sample bound (Burda et
    al., 2016).

    One draw at a time of one block of rows: memory does not grow with the number of samples. After each ``tick`` is
    told the part that is done.
    """
    elbo, bound = np.zeros(len(x)), np.full(len(x), -np.inf)
    for start in range(0, len(x), rows):
        block = slice(start, start + rows)
        for k in range(samples):
            weight = log_weights(x[block]).astype(float)
            elbo[block] += weight
            bound[block] = np.logaddexp(bound[block], weight)
            tick((start + (k + 1) / samples * len(x[block])) / len(x))
    return elbo / samples, bound - np.log(samples)


def results(log_weights: Weights, x: np.ndarray, samples: int) -> dict[str, Result]:
    """The ELBO and the K-sample bound of held-out rows; standard errors are over the rows. What takes long says how far
    it is."""
    if samples >= LONG:
        print(
            f"{samples} draws for each: --evaluate K takes K, which is quicker (after Ctrl-C: with --resume)",
            flush=True,
        )
    elbo, bound = bounds(log_weights, x, samples, tick=_progress())
    found = {"ELBO": elbo} if samples == 1 else {"ELBO": elbo, f"{samples}-sample bound": bound}
    return {f"held-out {name}": Result(float(b.mean()), float(b.std() / np.sqrt(len(b)))) for name, b in found.items()}


def _progress() -> Callable[[float], None]:
    """Tells the part that is done and the time left: a line every ten seconds, or on a terminal one line that
    changes."""
    started, terminal = time.monotonic(), sys.stderr.isatty()
    period = 0.5 if terminal else 10.0
    due = started + period

    def tick(done: float) -> None:
        nonlocal due
        if (now := time.monotonic()) < due and not (terminal and done == 1 and due > started + period):
            return
        due = now + period
        line = f"evaluated {done:4.0%}   {clock((now - started) * (1 / done - 1)):>5} left"
        if terminal:
            print(f"\r{line}" if done < 1 else f"\r{'':{len(line)}}\r", end="", file=sys.stderr, flush=True)
        elif done < 1:
            print(line, flush=True)

    return tick


def active(means: np.ndarray, threshold: float = 0.01) -> int:
    """How many latents u are active: Var_x(E_q[u | x]) > threshold, over the rows of ``means`` (Burda et al., 2016)."""
    return int(np.sum(np.var(means, axis=0) > threshold))
