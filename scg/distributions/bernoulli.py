"""The law of a coin."""

from dataclasses import dataclass
from typing import Any, final

import numpy as np

from scg.distributions.base import Distribution, FiniteSupport, FixedSupport, Shape
from scg.distributions.constraints import boolean, real, unit_interval
from scg.errors import ScgTypeError, here
from scg.special import sigmoid, softplus


@final
@dataclass(frozen=True, eq=False, repr=False)
class Bernoulli(Distribution, FiniteSupport, FixedSupport):
    """log p(b) = b l - log(1 + exp l) for b in {0, 1}, with l the logit of the probability: ``logits`` or ``probs``, never both."""

    probs: Any = None
    logits: Any = None
    constraints = {"probs": unit_interval, "logits": real}
    support = boolean  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if (self.probs is None) == (self.logits is None):
            raise ScgTypeError(f"Bernoulli takes probs or logits, one of the two ({here()})")
        super().__post_init__()

    @property
    def p(self) -> Any:
        """P(b = 1)."""
        return sigmoid(self.logits) if self.probs is None else self.probs

    def sample(self, rng: np.random.Generator, shape: int | Shape = ()) -> Any:
        p, dtype = self.detached().p, self.dtype
        return (rng.random(self.full_shape(shape), dtype=dtype if dtype in (np.float32, np.float64) else float) < p).astype(dtype)

    def atoms(self) -> np.ndarray:
        return np.array([0, 1], self.dtype).reshape(2, *[1] * len(self.batch_shape))

    def log_prob(self, value: Any) -> Any:
        if self.probs is None:
            return value * self.logits - softplus(self.logits)
        return np.log(np.where(np.equal(value, 1), self.probs, 1 - self.probs))

    @property
    def mean(self) -> Any:
        return self.p

    @property
    def variance(self) -> Any:
        return self.p * (1 - self.p)
