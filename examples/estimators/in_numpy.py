"""DisARM of coins in NumPy (Dong, Mnih and Tucker, 2020), and a mistake to compare it with."""

import numpy as np

from scg.bridge import Samples


def disarm(problem):
    """E[(f(b) - f(b')) (-1)^b' 1[b != b'] sigmoid(|l|) / 2]: b = [u < p] and b' = [1 - u < p] for one uniform u."""
    if [(draw.family, set(problem.parameters)) for draw in problem.draws] != [("Bernoulli", {"logits"})]:
        return None
    logits = problem.parameters["logits"]
    p = 1 / (1 + np.exp(-logits))

    def draw(n, rng):
        u = rng.random((n, *logits.shape))
        b, other = (u < p) * 1.0, (1 - u < p) * 1.0
        difference = (problem.cost(b) - problem.cost(other)).reshape(n, *[1] * logits.ndim)
        return {"logits": difference / 2 * (b - other) * np.maximum(p, 1 - p)}

    return Samples(draw, evaluations=2)


def straight_through(problem):
    """Biased: the slope of the cost at the sample, times that of the probability."""
    if [(draw.family, set(problem.parameters)) for draw in problem.draws] != [("Bernoulli", {"logits"})]:
        return None
    logits = problem.parameters["logits"]
    p = 1 / (1 + np.exp(-logits))

    def draw(n, rng):
        b = (rng.random((n, *logits.shape)) < p) * 1.0
        flat = b.reshape(n, -1)
        slopes = np.empty_like(flat)
        for i in range(flat.shape[1]):
            step = np.zeros(flat.shape[1])
            step[i] = 1e-3
            up, down = (problem.cost((flat + sign * step).reshape(b.shape)) for sign in (1, -1))
            slopes[:, i] = (up - down) / 2e-3
        return {"logits": slopes.reshape(b.shape) * p * (1 - p)}

    return Samples(draw, evaluations=2)
