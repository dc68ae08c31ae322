"""The families of distributions of which drawn graphs are made, and the estimators that each accepts."""

import functools
import re
from dataclasses import dataclass

import numpy as np

from scg.core.backward import pull
from scg.core.leaves import parameter
from scg.distributions.base import Distribution
from scg.errors import ScgError
from scg.stochastic.surrogate import surrogate
from scg.testing.strategies.bindings import accepting, candidates, names


@dataclass(frozen=True)
class Family:
    """A family of distributions by the text of one, with ``E`` for an expression of its parameter."""

    text: str
    size: int = 0  # the number of values; 0: not finite
    kind: str = "number"  # of a sample: "number", "index" (below ``size``), "vector"
    k: int = 0  # the length of the vector that E has to be; 0: a number
    moving: bool = False  # no score function

    def example(self) -> Distribution:
        """A distribution of the family, of nodes."""
        e = parameter(np.full((self.k,) if self.k else (2,) if "Independent" in self.text else (), 0.5))
        made: Distribution = eval(self.of("e"), {**names(), "e": e})
        return made

    def of(self, parameter: str) -> str:
        """The text of the distribution with that parameter."""
        return re.sub(r"\bE\b", lambda found: parameter, self.text)


FINITE = (
    Family("dist.Bernoulli(logits=E)", 2),
    Family("dist.Categorical(logits=E)", 2, "index", 2),
    Family("dist.OneHotCategorical(logits=E)", 2, "vector", 2),
    Family("dist.Bernoulli(probs=scg.special.sigmoid(E))", 2),
    Family("dist.Categorical(logits=E)", 3, "index", 3),
    Family("dist.OneHotCategorical(logits=E)", 3, "vector", 3),
    Family("dist.Categorical(probs=scg.special.softmax(E, -1))", 3, "index", 3),
    Family("dist.OneHotCategorical(probs=scg.special.softmax(E, -1))", 2, "vector", 2),
    Family("dist.Binomial(2, logits=E)", 3),
    Family("dist.Binomial(2, probs=scg.special.sigmoid(E))", 3),
    Family("dist.Multinomial(2, logits=E)", 3, "vector", 2),
    Family("dist.Independent(dist.Bernoulli(logits=E))", 2),
)
ENDLESS = (
    Family("dist.Normal(E, 1.0)"),
    Family("dist.Normal(0.5, np.exp(E))"),
    Family("dist.Exponential(np.exp(E))"),
    Family("dist.Gamma(np.exp(E), 2.0)"),
    Family("dist.Laplace(E, 0.5)"),
    Family("dist.LogNormal(E, 0.5)"),
    Family("dist.Beta(1.5, np.exp(E))"),
    Family("dist.Uniform(E, E + 2.0)", moving=True),
    Family("dist.Poisson(np.exp(E))"),
    Family("dist.Geometric(probs=scg.special.sigmoid(E))"),
)


@functools.cache
def accepted(family: Family, texts: tuple[str, ...] | None, order: int) -> list[list[str]]:
    """The estimators that a family accepts, and that have derivatives of that order, in a list for each class."""
    found: dict[str, list[str]] = {}
    for text in accepting(family.example(), candidates(True) if texts is None else texts):
        if order == 1 or _twice(family, text):
            found.setdefault(text.partition("(")[0], []).append(text)
    return list(found.values())


def _twice(family: Family, text: str) -> bool:
    """Whether a second derivative passes a sample by an estimator."""
    x = parameter(np.full((4, 2, family.k or 1) if family.k else (4, 2), 0.5))
    space = {**names(), "x": x, "rng": np.random.default_rng(0)}
    z = eval(f"scg.sample({family.of('x')}, {text}, rng=rng, shape=(2,))", space)
    cost = np.sum(np.sin(z * np.linspace(1, 2, z.size).reshape(z.shape)))  # of which no derivative is zero by chance
    try:
        first = pull([surrogate(cost)], [np.ones(())], [x], True)
        pull(first, [np.linspace(1, 2, x.size).reshape(x.shape)], [x])
    except ScgError:
        return False
    return True
