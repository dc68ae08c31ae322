"""The probability of data under a model that is written as a function of its samples."""

import functools

import numpy as np

from scg.core.aliases import Function, Result, Statics, Tree
from scg.core.node import Node, value_of
from scg.core.tree import leaves, rebuild
from scg.elimination.sums import Sums
from scg.errors import ScgValueError, here
from scg.exact.choice import eliminated
from scg.exact.means import expectation, slope_of, wider
from scg.exact.means import gradient as slope_over
from scg.exact.models import deadline_after, graph_of, names_of, values_in
from scg.exact.paths import guards_on_draws
from scg.exact.results import BUDGET, RTOL, Exact
from scg.stochastic.graph import Graph
from scg.stochastic.lifting import check_cost


def log_evidence(
    model: Graph | Node | Function,
    *args: object,
    gradient: bool = False,
    budget: int = BUDGET,
    rtol: float = RTOL,
    full: bool = False,
    time_limit: float | None = None,
    **kwargs: object,
) -> Tree:
    """log p(x) = log sum_z p(z) p(x | z) of a model that is written as draws and log-probabilities: a function, or its
    graph, that draws z by ``scg.sample`` and returns log p(x | z), a sum over data.

        def model(theta, x, rng):  # a hidden Markov model, as a loop
            z, total = scg.sample(dist.Categorical(logits=theta["start"]), scg.ScoreFunction(), rng=rng), 0.0
            for t in range(len(x)):
                total = total + dist.Normal(theta["loc"][z], 1.0).log_prob(x[t])
                z = scg.sample(dist.Categorical(logits=theta["step"][z]), scg.ScoreFunction(), rng=rng)
            return total

    Discrete draws are eliminated with products that are scaled, so that the evidence may be as small as it likes; that
    is the forward algorithm of the loop above. With others it is log E[exp(log p(x | z))], by enumeration and
    quadrature. With ``gradient`` the pair (log p(x), its gradient in the structure of the parameters).
    """
    graph, deadline = graph_of(model, args, kwargs), deadline_after(time_limit, budget, rtol)
    check_cost(graph.cost)
    targets = [leaf for _, leaf in leaves(graph.parameters)]

    def compute(sums: Sums) -> list[np.ndarray]:
        total = sums.log_mean_exp(gradient)
        return [value_of(total), *(slope_of(total, targets) if gradient else ())]

    cost, found = values_in(graph.cost, 1), None
    if not guards_on_draws(graph):
        found = eliminated(cost, names_of(graph), budget, deadline, compute, True, rtol)
    if found is not None:
        (value, *slopes), error, evaluations, *widths = found
    else:
        shift = float(graph.cost.raw)
        options: Statics = {"budget": budget, "rtol": rtol, "time_limit": time_limit, "full": True}
        if callable(model):

            @functools.wraps(model)
            def likelihood(*args: object, **kwargs: object) -> Result:
                return np.exp(model(*args, **kwargs) - shift)

            graph = graph_of(likelihood, args, kwargs)
        else:
            graph = Graph(np.exp(graph.cost - shift), graph.parameters)
        mean = expectation(graph, **options)
        if not mean.value > 0:
            raise ScgValueError(f"log_evidence: the data have probability zero ({here()})")
        if not np.isfinite(mean.value):
            raise ScgValueError(
                f"log_evidence: beside log p(x | z) = {shift:.6g} at the recorded samples the evidence is too large for"
                f" a number: trace the model with another generator ({here()})"
            )
        value, error, evaluations = np.log(mean.value) + shift, mean.error / max(mean.value, 1e-300), mean.evaluations
        widths = [mean.width]
        slopes = []
        if gradient:
            slope = slope_over(graph, **options)
            slopes = [g / mean.value for _, g in leaves(slope.value)]
            error, evaluations = max(error, slope.error / mean.value), evaluations + slope.evaluations
            widths.append(slope.width)
    value = np.asarray(value, graph.cost.dtype)[()]
    result: Tree = value
    if gradient:
        typed = [np.asarray(g, t.dtype) for g, t in zip(slopes, targets, strict=True)]
        result = value, rebuild(graph.parameters, iter(typed))
    return Exact(result, error, evaluations, wider(widths)) if full else result
