"""Exact mean and variance of a loss's gradient, and whose gradient its mean is.

One group of samples is one draw from the list of all groups; ``scg.exact.moments`` sums over that list. The samples are
data to the loss, as they are in training code: what a policy gradient has to add, the loss must have written itself.
"""

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np

import scg
from examples.policy_losses.losses import Group, Row
from examples.policy_losses.problem import Problem, log_softmax
from scg import distributions as dist

ZERO = 1e-9
"""Relative size below which a difference is one of rounding."""


def table(values: np.ndarray, index: Any) -> Any:
    """``values[index]`` for an index that is drawn: the values are data, and of the index's graph."""
    found = scg.stop_gradient(scg.parameter(values.astype(float)))[index]
    return found.astype(int) if values.dtype.kind == "i" else found


def group_of(problem: Problem, members: Any, logits: Any) -> Group:
    """What a training step holds of the sequences numbered ``members`` (G,)."""
    all_of = problem.sequences
    states, tokens, mask = (table(values, members) for values in (all_of.states, all_of.tokens, all_of.mask))
    held = (problem.old, problem.sampler(), problem.reference)
    old, drawn, ref = (table(all_of.log_prob(logits), members) for logits in held)
    return Group(
        log_softmax(logits)[states, tokens] * mask,
        old,
        drawn,
        ref,
        mask,
        table(problem.rewards, members),
        all_of.tokens.shape[1],
    )


def graph(row: Row, problem: Problem, size: int) -> scg.Graph:
    """The loss of one group, the group a draw from the list of all."""
    members, probs = problem.groups(size)

    def cost(logits: Any, rng: np.random.Generator) -> Any:
        drawn = scg.sample(dist.Categorical(probs=probs / probs.sum()), scg.ScoreFunction(), rng=rng, name="group")
        return row.loss(group_of(problem, table(members, drawn), logits))

    return scg.trace(cost, problem.policy, rng=np.random.default_rng(0))


@dataclass(frozen=True)
class Found:
    """What a row is on one problem with groups of ``size``: all exact.

    ``mean`` of the loss's gradient, ``gradient`` of what it claims and ``variances`` of its coordinates have the shape
    of the policy, (states, V); ``of`` says what the mean is the gradient of.
    """

    row: Row
    size: int
    mean: np.ndarray
    gradient: np.ndarray
    variances: np.ndarray
    of: str

    @property
    def variance(self) -> float:
        """The sum of the variances of all coordinates."""
        return float(np.sum(self.variances))

    @property
    def bias(self) -> float:
        """|mean - gradient| / |gradient|."""
        return float(np.linalg.norm(self.mean - self.gradient) / np.linalg.norm(self.gradient))

    @property
    def angle(self) -> float:
        """Degrees between the mean and the gradient; NaN where the mean is zero."""
        if self.of == "0":
            return np.nan
        cosine = np.vdot(self.mean, self.gradient) / np.linalg.norm(self.mean) / np.linalg.norm(self.gradient)
        return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))

    @property
    def signal(self) -> float:
        """|mean| / sqrt(variance): of one group."""
        return float(np.linalg.norm(self.mean) / np.sqrt(self.variance)) if self.variance else np.inf

    @property
    def unbiased(self) -> bool:
        """Whether the mean is the gradient that the row claims."""
        return self.bias < ZERO


def found(row: Row, problem: Problem, size: int) -> Found:
    """The row's exact moments, and what its mean is the gradient of."""
    moments = scg.exact.moments(graph(row, problem, size))
    return _found(row, problem, size, np.asarray(moments.mean), np.asarray(moments.variance))


def found_in_torch(row: Row, problem: Problem, size: int) -> Found:
    """The same for a loss that is written in PyTorch: ``scg.bridge.enumerate`` runs it for every group."""
    import torch

    all_of = problem.sequences
    members, probs = (torch.tensor(values) for values in problem.groups(size))
    tables = (problem.old, problem.sampler(), problem.reference)
    old, drawn, ref = (torch.tensor(np.asarray(all_of.log_prob(table))) for table in tables)
    states, tokens, mask, rewards = (
        torch.tensor(values) for values in (all_of.states, all_of.tokens, all_of.mask, problem.rewards)
    )

    def gradient(logits: Any) -> Any:
        y = members[torch.multinomial(probs, 1)[0]]
        live = logits.clone().requires_grad_()
        logp = torch.log_softmax(live, -1)[states[y], tokens[y]] * mask[y]
        loss = row.loss(Group(logp, old[y], drawn[y], ref[y], mask[y], rewards[y], all_of.tokens.shape[1]))
        return torch.autograd.grad(loss, live)[0]

    outcomes = scg.bridge.enumerate(gradient, torch.tensor(problem.policy), framework="torch")
    return _found(row, problem, size, np.asarray(outcomes.mean), np.asarray(outcomes.variance))


def _found(row: Row, problem: Problem, size: int, mean: np.ndarray, variances: np.ndarray) -> Found:
    targets = problem.targets()
    scale = max(float(np.linalg.norm(target)) for target in targets.values())
    return Found(row, size, mean, row.sign * targets[row.claim], variances, name_of(mean, targets, scale))


def name_of(mean: np.ndarray, targets: dict[str, np.ndarray], scale: float) -> str:
    """What ``mean`` is the gradient of: 0, a multiple of one target, a sum or difference of two, or else "none".

    Multiples are found by least squares, and count where they leave nothing over.
    """
    if np.linalg.norm(mean) < ZERO * scale:
        return "0"
    for name, target in targets.items():
        factor = np.vdot(target, mean) / np.vdot(target, target)
        if np.linalg.norm(mean - factor * target) < ZERO * np.linalg.norm(mean):
            return _term(factor, name)
    for (a, one), (b, two) in itertools.permutations(targets.items(), 2):
        for sign, word in ((1, "+"), (-1, "-")):
            if np.linalg.norm(mean - one - sign * two) < ZERO * np.linalg.norm(mean):
                return f"{a} {word} {b}"
    return "none"


def _term(factor: float, name: str) -> str:
    sign, size = "-" if factor < 0 else "", abs(factor)
    return f"{sign}{name}" if abs(size - 1) < ZERO else f"{sign}{size:.3g} {name}"
