"""Why each loss has the gradient that it has: the derivations, every line of which is run.

p is the policy with the parameters t, q the reference, p_old the policy that wrote the samples, y a sequence of tokens,
s(y) = d log p(y) / dt its score. A loss is a function L(y_1 ... y_G) of a group of G samples, and training takes dL.

    >>> import numpy as np
    >>> from examples.policy_losses.losses import ROWS, k1, k2, k3
    >>> from examples.policy_losses.measure import found
    >>> from examples.policy_losses.problem import problem
    >>> rows = {row.label: row for row in ROWS}
    >>> away = problem("ending")                  # one to three tokens, the samples from an older policy
    >>> here = away.on_policy()                   # p_old = p
    >>> def gradient_of(label, where, size=3):
    ...     return found(rows[label], where, size).of

## The reward

J(p) = sum_y p(y) R(y), so dJ = sum_y p(y) R(y) s(y) = E_p[R s]: REINFORCE. Because E_p[s] = d sum_y p(y) = 0, anything
that does not depend on y_i may be taken from R(y_i): a constant, or the mean of the other samples (RLOO).

    >>> [gradient_of(label, here) for label in ("REINFORCE", "constant baseline", "RLOO")]
    ['-reward', '-reward', '-reward']

The mean of the whole group holds R(y_i) / G: what is left is (1 - 1/G) R(y_i), and the gradient shrinks by (G - 1) / G.
Dr. GRPO divides by the longest length T as well, which is a constant; dividing by the length of each sample is none.

    >>> gradient_of("group mean", here, size=4), gradient_of("Dr. GRPO", here, size=4)
    ('-0.75 reward', '-0.25 reward')
    >>> gradient_of("RLOO, 1/length", here), gradient_of("group mean and std", here)
    ('none', 'none')

Where all samples are equally long, dividing by the length is dividing by a constant again.

    >>> gradient_of("RLOO, 1/length", problem("pair").on_policy())
    '-0.5 reward'

The standard deviation of the group depends on y_i, and the gradient of no target is left: the smaller the spread of a
group's rewards, the more it counts.

## Older samples

E_p_old[w f] = E_p[f] for w = p / p_old, and dw = w s. The ratio has to be that of the sequence: a ratio of
each token alone leaves what comes before and after it to the older policy.

    >>> [gradient_of(label, away) for label in ("REINFORCE", "sequence ratio", "token ratios")]
    ['none', '-reward', 'none']

One token has no prefix, and there both are the same. Clipping and capping bias whatever they reach; on policy, where
every ratio is 1, they reach nothing.

    >>> gradient_of("token ratios", problem("bandit"))
    '-reward'
    >>> [gradient_of(label, away) for label in ("PPO clip", "CISPO", "truncated weights")]
    ['none', 'none', 'none']
    >>> [gradient_of(label, here) for label in ("PPO clip", "CISPO", "truncated weights")]
    ['-reward', '-reward', '-reward']

A baseline of older samples: E_old[w_i s_i] = 0, so the others may enter by R_j or by w_j R_j. Both are unbiased, and
which of them has less variance depends on the policies.

    >>> for where in (away, problem("bandit")):
    ...     a, b = found(rows["sequence ratio"], where, 3), found(rows["weighted RLOO"], where, 3)
    ...     print(a.unbiased, b.unbiased, a.variance < b.variance)
    True True True
    True True False

Top-p sampling writes kept tokens only. Ratios to what wrote them give sum over kept y of p(y) R(y) s(y), the gradient
of the kept reward: what is never written is never learned about. Ratios of the full policies lack the mass Z that was
kept.

    >>> gradient_of("ratio to what was drawn", here.truncated(0.8)), gradient_of("REINFORCE", here.truncated(0.8))
    ('-kept reward', '-1.22 kept reward')

## The divergence from the reference

With l = log p(y) - log q(y), KL(p, q) = E_p[l], and

    d KL(p, q) = E_p[s l] + E_p[dl] = E_p[s l],                     as dl = s has mean zero.

As a loss, the mean of k(l) over samples has the gradient E_p[k'(l) s], because samples are data to it:

    k1 = l              k1' = 1           E_p[s] = 0: it teaches nothing, and adds noise
    k2 = l^2 / 2        k2' = l           E_p[l s]: the reverse KL
    k3 = e^-l - 1 + l   k3' = 1 - e^-l    -E_p[s q/p] = -sum_y q(y) s(y): the forward KL

    >>> [gradient_of(f"{k.__name__} as loss", here) for k in (k1, k2, k3)]
    ['0', 'reverse KL', 'forward KL']

All three have values that serve as estimates (of k1 and k3 the mean is the KL itself): a good estimate of a value
need not have a good gradient. In the reward, k is held and multiplies the score, E_p[k s]: right for k1. For k3 it is
the reverse minus the forward KL, for the part E_p[k3'(l) s] is missing.

    >>> [gradient_of(f"{k.__name__} in reward", here) for k in (k1, k2, k3)]
    ['reverse KL', 'none', 'reverse KL - forward KL']

Older samples with the weight w: held, w only restores the mean of what was on policy; live, d(w k) = w (s k + k' s),
which is the gradient of the value E_p[k], and both k1 and k3 have the value KL(p, q). So k3 is neither the only one
that works with importance weights, nor does it work with held ones; k1 works with live, k2 with held weights.

    >>> [gradient_of(f"{k.__name__}, live weights", away) for k in (k1, k2, k3)]
    ['reverse KL', 'none', 'reverse KL']
    >>> [gradient_of(f"{k.__name__}, held weights", away) for k in (k1, k2, k3)]
    ['0', 'reverse KL', 'forward KL']

d(w k3) = w s (k3 + k3') = w s l: live weights make the same of k3 as held weights make of k2, and k1 in the reward with
weights is that gradient, too: one mean and one variance.

    >>> labels = ("k3, live weights", "k2, held weights", "k1 in reward, weights")
    >>> same = [found(rows[label], away, 2) for label in labels]
    >>> [bool(np.allclose(one.variances, same[0].variances, rtol=1e-9)) for one in same]
    [True, True, True]

## Token by token

sum_t k(l_t), l_t of one token, has the gradient E_p[sum_t k'(l_t) s_t]: each token answers for its own divergence,
given its prefix, and not for where it leads. One token is right, more are not: what is missing is E_p[sum_t s_t
sum_{u > t} l_u], the divergence further on.

    >>> gradient_of("k2 per token", problem("bandit").on_policy()), gradient_of("k2 per token", here)
    ('reverse KL', 'none')
    >>> gradient_of("k3 per token", problem("bandit").on_policy()), gradient_of("k3 per token", here)
    ('forward KL', 'none')

The bias of k3 as a loss is of first order in the distance of the reference, that of k1 is all of the gradient at every
distance.

    >>> near, far = (found(rows["k3 as loss"], problem("ending", distance=d).on_policy(), 2).bias for d in (0.01, 0.02))
    >>> round(far / near, 1)
    2.0
"""
