"""What the chapters share that train a model: digits of 14 x 14 pixels, and the loop."""

from collections.abc import Callable
from typing import Any

import numpy as np

import scg
from examples import digits
from examples.lecture.tools import CONFIDENT, error
from scg import optim

SIDE = 14
BATCH = 100


def small(images: np.ndarray) -> np.ndarray:
    """Rows of 196 grey levels from 0 to 1: the means over 2 x 2 pixels."""
    means = images.reshape(-1, SIDE, 2, SIDE, 2).mean(axis=(2, 4)) / 255
    return means.reshape(-1, SIDE * SIDE).astype(np.float32)


def load() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """4,000 digits to train on, 1,000 held out, and the labels of both."""
    images = digits.embedded()
    assert images.train_labels is not None and images.test_labels is not None
    return small(images.train), small(images.test), images.train_labels, images.test_labels


def interval(label: str, samples: Any) -> str:
    """A line with the mean of the samples and its 95% interval, where there is no exact number."""
    return f"{label:<30} {np.mean(samples):.2f} ± {CONFIDENT * error(samples):.2f}"


def train(
    bound: Callable[..., Any],
    params: Any,
    x: np.ndarray,
    *,
    epochs: int,
    rng: np.random.Generator,
    rate: float = 3e-3,
    prepare: Callable[[np.ndarray], np.ndarray] = lambda rows: rows,
) -> list[float]:
    """Climb a bound by stochastic gradients; the mean bound of each epoch, while the parameters changed.

    ``bound(params, rows, rng)`` has one number for each row. A step takes 100 rows of ``x``, each once in an epoch, as
    ``prepare`` makes them (binary, say), and new samples. The rate of Adam falls linearly to zero. Parameters are
    changed in place.
    """
    climb = scg.compile(scg.value_and_grad(lambda params, rows, rng: -np.mean(bound(params, rows, rng))))
    optimizer, steps, curve = optim.Adam(params, rate), len(x) // BATCH, []
    for epoch in range(epochs):
        order, total = rng.permutation(len(x)), 0.0
        for k in range(steps):
            optimizer.learning_rate = rate * (1 - (epoch * steps + k) / (epochs * steps))
            cost, gradient = climb(params, prepare(x[order[k * BATCH : (k + 1) * BATCH]]), rng=rng)
            optimizer.step(gradient)
            total -= float(cost)
        curve.append(total / steps)
    return curve
