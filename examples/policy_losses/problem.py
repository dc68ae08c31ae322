"""Small policies whose samples can be listed: tables of logits over three to five tokens, one to four tokens long.

A policy is a table of logits, (states, V): a state is what has been written so far, and its row gives the next token.
Everything that a loss may claim to be the gradient of is then a finite sum over the sequences y:

    reward       J(p) = sum_y p(y) R(y)
    kept reward  the same sum over the y that top-p sampling can write
    reverse KL   KL(p, q) = sum_y p(y) (log p(y) - log q(y))
    forward KL   KL(q, p) = sum_y q(y) (log q(y) - log p(y))
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import comb, factorial
from typing import Any

import numpy as np

import scg

Table = np.ndarray


def log_softmax(logits: Any) -> Any:
    """Log-probabilities of the tokens, for each row of logits."""
    return logits - scg.special.logsumexp(logits, axis=-1, keepdims=True)


@dataclass(frozen=True)
class Sequences:
    """All sequences of at most ``length`` tokens from 0 to V - 1; where ``ends``, token 0 ends a sequence.

    ``tokens``, ``states`` and ``mask`` have shape (N, T): the token at each place, the state that it is drawn in, and 1
    where there is one, 0 behind the end.
    """

    tokens: np.ndarray
    states: np.ndarray
    mask: np.ndarray

    @classmethod
    def all(cls, vocabulary: int, length: int, ends: bool) -> "Sequences":
        """Every sequence once, in lexical order."""
        found = []
        for row in itertools.product(range(vocabulary), repeat=length):
            size = row.index(0) + 1 if ends and 0 in row else length
            if not any(row[size:]):  # behind the end stand zeros only, so that each sequence comes once
                found.append((row, size))
        names: dict[tuple[int, ...], int] = {}
        states = [[names.setdefault(row[:t], len(names)) if t < n else 0 for t in range(length)] for row, n in found]
        mask = [[float(t < n) for t in range(length)] for _, n in found]
        return cls(np.array([row for row, _ in found]), np.array(states), np.array(mask))

    @property
    def count(self) -> int:
        """N."""
        return len(self.tokens)

    def log_prob(self, logits: Any) -> Any:
        """log p of each token of each sequence, (N, T); 0 behind the end."""
        return log_softmax(logits)[self.states, self.tokens] * self.mask


@dataclass(frozen=True)
class Problem:
    """One exact problem: a policy, the older one that wrote the samples, a reference, and a reward for each sequence.

    ``policy``, ``old`` and ``reference`` are tables of logits, (states, V), ``rewards`` has shape (N,). Of the older
    policy's tokens only the likeliest are written, until their probabilities add up to ``top_p``.
    """

    name: str
    sequences: Sequences
    policy: Table
    old: Table
    reference: Table
    rewards: np.ndarray
    top_p: float = 1.0

    def on_policy(self) -> "Problem":
        """The same, with samples from the policy itself."""
        return replace(self, old=self.policy)

    def truncated(self, top_p: float) -> "Problem":
        """The same, with samples from the likeliest tokens of the older policy only."""
        return replace(self, top_p=top_p)

    def sampler(self) -> Table:
        """Logits of what wrote the samples: the older policy, without the tokens that top-p sampling leaves out."""
        if self.top_p == 1:
            return self.old
        probs = np.exp(log_softmax(self.old))
        order = np.argsort(-probs, axis=-1, kind="stable")
        before = np.cumsum(np.take_along_axis(probs, order, -1), -1) - np.take_along_axis(probs, order, -1)
        kept = np.empty(probs.shape, bool)
        np.put_along_axis(kept, order, before < self.top_p, -1)
        return np.where(kept, self.old, -1e3)

    # what a loss may be the gradient of

    def targets(self) -> dict[str, np.ndarray]:
        """Gradients for the policy's logits, (states, V) each: of the reward, the reverse and the forward KL."""
        reference = np.sum(self.sequences.log_prob(self.reference), -1)

        def of(value: Callable[[Any], Any]) -> np.ndarray:
            return scg.grad(lambda logits: np.sum(value(np.sum(self.sequences.log_prob(logits), -1))))(self.policy)

        kept = np.exp(np.sum(self.sequences.log_prob(self.sampler()), -1)) > 0
        found = {"reward": of(lambda logp: np.exp(logp) * self.rewards)}
        if not kept.all():
            found["kept reward"] = of(lambda logp: np.exp(logp) * self.rewards * kept)
        return found | {
            "reverse KL": of(lambda logp: np.exp(logp) * (logp - reference)),
            "forward KL": of(lambda logp: np.exp(reference) * (reference - logp)),
        }

    def groups(self, size: int) -> tuple[np.ndarray, np.ndarray]:
        """All groups of ``size`` samples that can be, without their order, (M, size), and their probabilities, (M,).

        A group with counts n_i has probability size! prod_i p_i^n_i / n_i!; there are C(N + size - 1, size).
        """
        count = comb(self.sequences.count + size - 1, size)
        if count > MOST_GROUPS:
            raise ValueError(
                f"{self.name}: {self.sequences.count} sequences make {count:,} groups of {size}, and at most"
                f" {MOST_GROUPS:,} are enumerated: take a smaller --group"
            )
        found = np.array(list(itertools.combinations_with_replacement(range(self.sequences.count), size)))
        probs = np.exp(np.sum(self.sequences.log_prob(self.sampler()), -1))
        counts = np.stack([np.sum(found == k, axis=1) for k in range(self.sequences.count)])
        repeats = np.prod(np.array([factorial(n) for n in range(size + 1)])[counts], axis=0)
        weights = factorial(size) / repeats * np.prod(probs[found], axis=1)
        return found[weights > 0], weights[weights > 0]


MOST_GROUPS = 50_000
SIZES = {"bandit": (5, 1, False), "pair": (3, 2, False), "ending": (3, 3, True), "long": (3, 4, False)}
"""Tokens, length, and whether token 0 ends a sequence."""


def problem(name: str, *, distance: float = 1.0, drift: float = 0.6) -> Problem:
    """A named problem with tables from a fixed seed; the reference lies ``distance`` times as far from the policy as in
    the tables, and the older policy ``drift`` times a table of normal numbers."""
    vocabulary, most, ends = SIZES[name]
    sequences = Sequences.all(vocabulary, most, ends)
    rng = np.random.default_rng(20)
    shape = (int(sequences.states.max()) + 1, vocabulary)
    policy = 0.5 * rng.standard_normal(shape)
    reference, old = rng.standard_normal(shape), rng.standard_normal(shape)
    rewards = rng.uniform(0, 1, sequences.count)
    return Problem(name, sequences, policy, policy + drift * old, policy + distance * reference, rewards)


def steady(length: int) -> Problem:
    """Three tokens drawn ``length`` times from one table, whatever came before; the reward is the mean of 0, .5 and 1
    for the tokens."""
    sequences = Sequences.all(3, length, False)
    states = int(sequences.states.max()) + 1
    policy, old, reference = (
        np.tile(row, (states, 1)) for row in np.array([[0, 0.2, -0.2], [0.4, 0, -0.3], [0, 0, 0]])
    )
    return Problem("steady", sequences, policy, old, reference, np.mean(sequences.tokens / 2, axis=1))
