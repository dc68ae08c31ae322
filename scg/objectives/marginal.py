"""Discrete latent variables summed out of a log-probability."""

from scg.core.node import Node
from scg.core.operands import described
from scg.elimination.means import log_mean_exp
from scg.errors import ScgValueError, here
from scg.estimators import Marginalize
from scg.stochastic.analysis import Analysis, leading


def log_marginal(log_p: Node) -> Node:
    """log E[exp(log_p)] = log sum_z p(z | y) exp(log_p(z, y)), element by element, over the samples z that have the
    estimator ``Marginalize()``, given all others, y: log p(x | y) of a model that draws z and adds up log p(x | z, y).

        def bound(params, x, rng):  # a hidden Markov model, as a loop
            z, total = scg.sample(dist.Categorical(logits=params["start"]), scg.Marginalize(), rng=rng), 0.0
            for t in range(len(x)):
                total = total + dist.Normal(params["loc"][z], 1.0).log_prob(x[t])
                z = scg.sample(dist.Categorical(logits=params["step"][z]), scg.Marginalize(), rng=rng)
            return scg.objectives.log_marginal(total)

    The samples are summed out one after the other with products that are scaled (the forward algorithm, for the loop
    above), so that the evidence may be as small as it likes. The value depends on no z; it has derivatives of any
    order. Other samples, as continuous ones of a guide, may lead to z and to log_p: log_marginal(log p(x, y | z)) -
    log q(y) is a bound that has no variance by z. ``scg.exact.log_evidence`` sums out all samples of a model.

    Raises ScgValueError where ``log_p`` depends on no such sample, and what ``Marginalize`` raises.
    """
    found = Analysis([log_p], leading([log_p])).sites if type(log_p) is Node else []
    samples = [node for node in found if isinstance(node.statics["site"].estimator, Marginalize)]
    if not samples:
        raise ScgValueError(
            "log_marginal needs log-probabilities that depend on samples by Marginalize(), got"
            f" {described((log_p,))}: draw them by scg.sample(distribution, scg.Marginalize(), rng=rng) ({here()})"
        )
    return log_mean_exp(log_p, samples, min([node.statics["site"].estimator.budget for node in samples]))
