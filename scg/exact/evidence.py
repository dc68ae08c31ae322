"""The probability of data under a model that is written as a function of its samples."""

import functools

import numpy as np

from scg.core.aliases import Function, Numbers, Result, Statics, Tree
from scg.core.ancestry import ancestors
from scg.core.node import Node, value_of
from scg.core.replay import replay
from scg.core.tree import leaves, rebuild
from scg.distributions.base import Discrete
from scg.elimination.sums import Sums
from scg.errors import ScgError, ScgValueError, here
from scg.exact.choice import eliminated
from scg.exact.leaf import ConvergenceError
from scg.exact.means import expectation, slope_of, wider
from scg.exact.means import gradient as slope_over
from scg.exact.models import deadline_after, graph_of, names_of, values_in
from scg.exact.paths import guards_on_draws
from scg.exact.results import BUDGET, RTOL, resulting
from scg.stochastic.graph import Graph
from scg.stochastic.lifting import check_cost
from scg.stochastic.resampling import resample
from scg.stochastic.sites import is_draw

_SAMPLES, _BEST = 256, 8  # at which the largest log-probability is looked for, and of these the ones that are improved
_ELEMENTS, _ROUNDS = 32, 2  # of continuous samples, which move in turn, and how often each


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
    quadrature. Near sharp data samples may be drawn from others, z ~ q, p.log_prob(z) - q.log_prob(z) added to what
    is returned. With ``gradient`` the pair (log p(x), its gradient in the structure of the parameters).
    """
    graph, deadline = graph_of(model, args, kwargs), deadline_after(time_limit, budget, rtol)
    check_cost(graph.cost)
    targets = [leaf for _, leaf in leaves(graph.parameters)]

    def compute(sums: Sums) -> list[np.ndarray]:
        total = sums.log_mean_exp(gradient)
        return [value_of(total), *(slope_of(total, targets) if gradient else ())]

    cost, found = values_in(graph.cost, 1), None
    if not guards_on_draws(graph):
        try:
            found = eliminated(cost, names_of(graph), budget, deadline, compute, True, rtol)
        except ConvergenceError as refused:
            raise ConvergenceError(
                f"log_evidence: {refused}; where data are sharp, draw each sample near its own, z ~ q, and add"
                " p.log_prob(z) - q.log_prob(z) to what the model returns"
            ) from None
    if found is not None:
        (value, *slopes), error, evaluations, *widths = found
    else:
        shift = _about_the_largest(cost)
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
                f"log_evidence: beside log p(x | z) = {shift:.6g}, the most that was found at samples, the evidence is"
                f" too large for a number: write the model with samples closer to the data ({here()})"
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
    return resulting(result, error, evaluations, wider(widths)) if full else result


def _about_the_largest(cost: Node) -> float:
    """About the largest log p(x | z), which others are held against: that of samples, and of what steps to the tops of
    parabolas make of the best ones, one element of a continuous sample after the other. An observation x ~ N(z, .001)
    is e^-500,000 times less likely one standard deviation of z away.
    """
    draws = [n for n in ancestors([cost], guards=True) if is_draw(n)]
    largest = float(cost.raw)
    try:
        found = resample(draws, {}, rng=np.random.default_rng(0), size=_SAMPLES, create_graph=False)
        values = {n: np.array(v, n.dtype) for n, v in zip(draws, found, strict=True)}

        def at(values: dict[Node, np.ndarray]) -> np.ndarray:
            return np.nan_to_num(np.asarray(replay(cost, values, list(values)), float), nan=-np.inf, posinf=-np.inf)

        with np.errstate(all="ignore"):
            logs = at(values)
            kept = np.argsort(-logs)[:_BEST]
            best, most = {n: v[kept] for n, v in values.items()}, logs[kept]
            moving = [(n, k) for n in draws if n.dtype.kind == "f" and not _is_listed(n) for k in range(n.size)]
            for n, k in moving[:_ELEMENTS] * _ROUNDS:
                column = np.reshape(values[n], (_SAMPLES, -1))[:, k]
                h = 0.1 * float(np.std(column))
                x = np.reshape(best[n], (len(kept), -1))

                def moved(step: Numbers, n: Node = n, k: int = k, x: np.ndarray = x) -> dict[Node, np.ndarray]:
                    other = x.copy()
                    other[:, k] += step
                    return {**best, n: other.reshape(best[n].shape)}

                above, below = at(moved(h)), at(moved(-h))
                step = 0.5 * h * (above - below) / (2 * most - above - below)
                other = moved(np.where(np.isfinite(step), step, 0.0))
                there = at(other)
                better = there > most
                best[n] = np.where(better.reshape(-1, *[1] * n.ndim), other[n], best[n])
                most = np.maximum(most, there)
    except ScgError:
        return largest
    return float(np.max([largest, *most[np.isfinite(most)]]))


def _is_listed(node: Node) -> bool:
    return bool(node.statics["site"].distribution.has(Discrete))
