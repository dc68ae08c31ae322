"""What is said of a trained latent-variable model: bounds on the evidence from importance weights, and the latents in use."""

from collections.abc import Callable

import numpy as np

from examples.training import Result

Weights = Callable[[np.ndarray], np.ndarray]
"""Rows of data -> log p(x, z) - log q(z | x) for a fresh draw of z for each row."""


def bounds(log_weights: Weights, x: np.ndarray, samples: int, rows: int = 250) -> tuple[np.ndarray, np.ndarray]:
    """For each row of ``x`` the mean of ``samples`` log-weights, and log (1/K) sum_k w_k, the K-sample bound (Burda et al., 2016).

    One draw at a time of one block of rows: memory does not grow with the number of samples.
    """
    elbo, bound = np.zeros(len(x)), np.full(len(x), -np.inf)
    for start in range(0, len(x), rows):
        block = slice(start, start + rows)
        for _ in range(samples):
            weight = log_weights(x[block]).astype(float)
            elbo[block] += weight
            bound[block] = np.logaddexp(bound[block], weight)
    return elbo / samples, bound - np.log(samples)


def results(log_weights: Weights, x: np.ndarray, samples: int) -> dict[str, Result]:
    """The ELBO and the K-sample bound of held-out rows; standard errors are over the rows."""
    elbo, bound = bounds(log_weights, x, samples)
    found = {"ELBO": elbo} if samples == 1 else {"ELBO": elbo, f"{samples}-sample bound": bound}
    return {f"held-out {name}": Result(float(b.mean()), float(b.std() / np.sqrt(len(b)))) for name, b in found.items()}


def active(means: np.ndarray, threshold: float = 0.01) -> int:
    """How many latents u are active: Var_x(E_q[u | x]) > threshold, over the rows of ``means`` (Burda et al., 2016)."""
    return int(np.sum(np.var(means, axis=0) > threshold))
