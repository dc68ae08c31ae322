"""Costs of 30 samples by every kind of estimator, with a product of matrices, whose sums may be taken in any order."""

import numpy as np

import scg
from scg import distributions as dist

W = np.random.default_rng(3).normal(size=(40, 30))
PARALLEL = {
    "score function": scg.ScoreFunction(),
    "leave-one-out": scg.ScoreFunction(samples=2, baseline=scg.LeaveOneOut()),
    "ARM": scg.ARM(),
    "DisARM": scg.DisARM(),
    "reparameterized": scg.Reparameterized(),
    "measure-valued": scg.MeasureValued(),
}


class in_parallel:
    """The cost, as an object that goes to another process."""

    def __init__(self, kind):
        self.kind = kind

    def __call__(self, theta, rng):
        pathwise = self.kind == "reparameterized"
        d = dist.Normal(theta, 1.0) if pathwise else dist.Bernoulli(logits=theta)
        return np.mean(np.tanh(W @ scg.sample(d, PARALLEL[self.kind], rng=rng) - 0.45) ** 2)
