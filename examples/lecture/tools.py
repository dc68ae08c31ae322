"""What the cells of the book share: an estimate with its interval, and when it agrees with an exact number."""

from typing import Any

import numpy as np

CONFIDENT = 1.96  # standard errors: the interval holds the mean in 95% of all runs
SURE = 6.0  # standard errors: a right estimate is further out once in 5e8 runs


def error(samples: Any) -> Any:
    """The standard error of the mean over the first axis, s / sqrt(n)."""
    samples = np.asarray(samples)
    return samples.std(axis=0, ddof=1) / np.sqrt(len(samples))


def beside(label: str, exact: Any, samples: Any) -> str:
    """A line for each number: the exact one, and the mean of the samples with its 95% interval."""
    mean, half = np.atleast_1d(np.mean(samples, axis=0)), np.atleast_1d(CONFIDENT * error(samples))
    exact = np.broadcast_to(exact, mean.shape)
    lines = []
    for index in np.ndindex(mean.shape):
        name = label if mean.size == 1 else f"{label}[{', '.join(map(str, index))}]"
        varies = half[index] > 1e-12 * np.abs(mean[index])
        digits = int(np.clip(1 - np.floor(np.log10(half[index])), 0, 12)) if varies else 6  # two of the error
        estimate = f"{mean[index]:.{digits}f} ± {half[index]:.{digits}f}"
        lines.append(f"{name:<22} exact {exact[index]:<10.6g} estimate {estimate}")
    return "\n".join(lines)


def agrees(exact: Any, samples: Any) -> bool:
    """Whether the mean of the samples is within SURE standard errors of the exact number, in each element."""
    mean = np.mean(samples, axis=0)
    return bool(np.all(np.abs(mean - exact) <= SURE * error(samples) + 1e-12 * (1 + np.max(np.abs(exact)))))
