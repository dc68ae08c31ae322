"""The losses, as training code writes them: each a function of one group of G samples of at most T tokens.

Sums over tokens are masked, ``held`` is the ``detach`` of such code, and the gradient is the plain one by reverse
mode: nothing here knows that the samples depend on the policy. Whether the result is the gradient of anything is the
question.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from scg import stop_gradient as held

CLIP = 0.2  # of ratios, on both sides
CAP = 1.5  # of truncated importance weights


@dataclass(frozen=True)
class Group:
    """What a training step knows of one group: log-probabilities of the tokens, 0 behind the end, and the rewards.

    ``logp`` under the policy, differentiated, ``old`` under the older policy, ``drawn`` under what wrote the tokens
    (the older policy cut by top-p, renormalised), ``ref`` under the reference, all (G, T); ``mask`` (G, T) is 1 where
    there is a token; ``reward`` (G,); ``longest`` is T.
    """

    logp: Any
    old: Any
    drawn: Any
    ref: Any
    mask: Any
    reward: Any
    longest: int

    @property
    def length(self) -> Any:
        """Tokens of each sample, (G,)."""
        return np.sum(self.mask, -1)


Loss = Callable[[Group], Any]


# advantages


def leave_one_out(g: Group) -> Any:
    """R_i minus the mean reward of the others."""
    return g.reward - (np.sum(g.reward) - g.reward) / (g.reward.shape[0] - 1)


def from_group_mean(g: Group) -> Any:
    """R_i minus the mean reward of the group, R_i itself included."""
    return g.reward - np.mean(g.reward)


def standardised(g: Group) -> Any:
    """R_i minus the mean of the group, divided by its standard deviation."""
    return from_group_mean(g) / (np.sqrt(np.mean(from_group_mean(g) ** 2)) + 1e-4)


# the reward: on-policy forms


def reinforce(g: Group) -> Any:
    return -np.mean(np.sum(g.logp, -1) * g.reward)


def constant_baseline(g: Group) -> Any:
    return -np.mean(np.sum(g.logp, -1) * (g.reward - 0.5))


def rloo(g: Group) -> Any:
    return -np.mean(np.sum(g.logp, -1) * leave_one_out(g))


def group_mean(g: Group) -> Any:
    return -np.mean(np.sum(g.logp, -1) * from_group_mean(g))


def group_std(g: Group) -> Any:
    return -np.mean(np.sum(g.logp, -1) * standardised(g))


def mean_over_tokens(g: Group) -> Any:
    return -np.mean(np.sum(g.logp, -1) / g.length * leave_one_out(g))


def dr_grpo(g: Group) -> Any:
    return -np.mean(np.sum(g.logp, -1) * from_group_mean(g)) / g.longest


# the reward: with ratios to the older policy


def token_ratios(g: Group) -> Any:
    ratio = np.exp(g.logp - g.old) * g.mask
    return -np.mean(np.sum(ratio, -1) * leave_one_out(g))


def sequence_ratio(g: Group) -> Any:
    ratio = np.exp(np.sum(g.logp - g.old, -1))
    return -np.mean(ratio * leave_one_out(g))


def drawn_ratio(g: Group) -> Any:
    ratio = np.exp(np.sum(g.logp - g.drawn, -1))
    return -np.mean(ratio * g.reward)


def weighted_rloo(g: Group) -> Any:
    weight = held(np.exp(np.sum(g.logp - g.old, -1)))
    others = (np.sum(weight * g.reward) - weight * g.reward) / (g.reward.shape[0] - 1)
    return -np.mean(weight * np.sum(g.logp, -1) * (g.reward - others))


def truncated_weights(g: Group) -> Any:
    weight = np.minimum(held(np.exp(np.sum(g.logp - g.old, -1))), CAP)
    return -np.mean(weight * np.sum(g.logp, -1) * leave_one_out(g))


def grpo(g: Group) -> Any:
    ratio, advantage = np.exp(g.logp - g.old), standardised(g)[:, None]
    clipped = np.clip(ratio, 1 - CLIP, 1 + CLIP)
    token = np.minimum(ratio * advantage, clipped * advantage) * g.mask
    return -np.mean(np.sum(token, -1) / g.length)


def ppo_clip(g: Group) -> Any:
    ratio, advantage = np.exp(g.logp - g.old), leave_one_out(g)[:, None]
    clipped = np.clip(ratio, 1 - CLIP, 1 + CLIP)
    return -np.mean(np.sum(np.minimum(ratio * advantage, clipped * advantage) * g.mask, -1))


def gspo(g: Group) -> Any:
    ratio, advantage = np.exp(np.sum(g.logp - g.old, -1) / g.length), standardised(g)
    return -np.mean(np.minimum(ratio * advantage, np.clip(ratio, 1 - CLIP, 1 + CLIP) * advantage))


def cispo(g: Group) -> Any:
    weight = held(np.clip(np.exp(g.logp - g.old), 1 - CLIP, 1 + CLIP)) * g.mask
    return -np.mean(np.sum(weight * g.logp, -1) * leave_one_out(g))


# divergences from the reference; of a whole sample: log p(y) - log q(y)


def k1(log_ratio: Any) -> Any:
    """log p - log q."""
    return log_ratio


def k2(log_ratio: Any) -> Any:
    """(log p - log q)^2 / 2."""
    return log_ratio**2 / 2


def k3(log_ratio: Any) -> Any:
    """r - 1 - log r, r = q / p."""
    return np.exp(-log_ratio) - 1 + log_ratio


def as_loss(k: Callable[[Any], Any]) -> Loss:
    """The mean of k over the samples, differentiated as it stands."""
    return lambda g: np.mean(k(np.sum(g.logp - g.ref, -1)))


def per_token(k: Callable[[Any], Any]) -> Loss:
    """The mean of k summed over tokens, differentiated as it stands."""
    return lambda g: np.mean(np.sum(k(g.logp - g.ref) * g.mask, -1))


def in_reward(k: Callable[[Any], Any]) -> Loss:
    """k as a penalty on the reward: the score times its held value."""
    return lambda g: np.mean(np.sum(g.logp, -1) * held(k(np.sum(g.logp - g.ref, -1))))


def weighted(k: Callable[[Any], Any], live: bool) -> Loss:
    """The mean of w k with w = p(y) / p_old(y), differentiated (live) or held."""

    def loss(g: Group) -> Any:
        weight = np.exp(np.sum(g.logp - g.old, -1))
        return np.mean((weight if live else held(weight)) * k(np.sum(g.logp - g.ref, -1)))

    return loss


def weighted_in_reward(k: Callable[[Any], Any]) -> Loss:
    """The score times the held value of k, weighted by w = p(y) / p_old(y)."""
    return lambda g: np.mean(
        held(np.exp(np.sum(g.logp - g.old, -1)) * k(np.sum(g.logp - g.ref, -1))) * np.sum(g.logp, -1)
    )


@dataclass(frozen=True)
class Row:
    """A loss, what it is called, and the target whose gradient it claims to have (``sign`` times it)."""

    label: str
    loss: Loss
    claim: str = "reward"

    @property
    def sign(self) -> int:
        """-1 for the reward, which a loss lowers the negative of; 1 for a divergence."""
        return -1 if self.claim == "reward" else 1


REWARD = (
    Row("REINFORCE", reinforce),
    Row("constant baseline", constant_baseline),
    Row("RLOO", rloo),
    Row("group mean", group_mean),
    Row("group mean and std", group_std),
    Row("RLOO, 1/length", mean_over_tokens),
    Row("Dr. GRPO", dr_grpo),
    Row("GRPO", grpo),
    Row("token ratios", token_ratios),
    Row("sequence ratio", sequence_ratio),
    Row("weighted RLOO", weighted_rloo),
    Row("ratio to what was drawn", drawn_ratio),
    Row("truncated weights", truncated_weights),
    Row("PPO clip", ppo_clip),
    Row("GSPO", gspo),
    Row("CISPO", cispo),
)
DIVERGENCE = tuple(
    Row(label.format(k.__name__), make(k), "reverse KL")
    for label, make in (
        ("{} as loss", as_loss),
        ("{} per token", per_token),
        ("{} in reward", in_reward),
        ("{}, live weights", lambda k: weighted(k, live=True)),
        ("{}, held weights", lambda k: weighted(k, live=False)),
        ("{} in reward, weights", weighted_in_reward),
    )
    for k in (k1, k2, k3)
)
ROWS = REWARD + DIVERGENCE
