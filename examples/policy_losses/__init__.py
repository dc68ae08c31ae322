"""Policy losses of language models: whose gradient is which, with what bias and variance, exactly.

Training code takes the plain gradient of a loss of sampled sequences. Whether that is the gradient of the expected
reward, or of a divergence from a reference policy, depends on baselines, ratios, clipping, normalisation, and on what
is detached. Here policies are small enough to list every group of samples, so each mean and variance is a finite sum.

    claims         whose gradient the loss means to take: of minus the reward, or of the divergence
    its mean       what it takes: sought among the gradients of the reward, the reverse and the forward KL
    bias           |mean - claim| / |claim|; angle: between the two, in degrees
    variance       of the gradient of one group, summed over logits; signal: |mean| / sqrt(variance)
    vs RLOO        its variance relative to that of leave-one-out with as many samples

A loss is a function of one group of samples, ten lines of NumPy: see losses.py, and add yours by --loss.
"""

TAKES = "a tenth of a minute"
