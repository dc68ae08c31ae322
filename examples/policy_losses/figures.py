"""Pictures of the rows: a matrix of bias, and what bias and variance do as a setting moves."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from examples.plots import tidy
from examples.policy_losses.losses import DIVERGENCE, Row
from examples.policy_losses.measure import ZERO, Found, found
from examples.policy_losses.problem import problem, steady

COLORS = ("tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple", "tab:brown", "0.45")


def matrix(results: dict[str, Sequence[Found]], title: str) -> Any:
    """Losses by settings: the bias relative to the claim, white where there is none, and in brackets what the mean is
    the gradient of instead."""
    labels = [result.row.label for result in next(iter(results.values()))]
    bias = np.array([[result.bias for result in column] for column in results.values()]).T
    figure = _figure(1.25 * len(results) + 2.2, 0.23 * len(labels) + 0.9)
    axes = figure.add_subplot()
    axes.imshow(np.where(bias < ZERO, np.nan, bias), cmap="Oranges", vmin=-0.3, vmax=2, aspect="auto")
    for column, members in enumerate(results.values()):
        for line, result in enumerate(members):
            color = "tab:green" if result.unbiased else "white" if result.bias > 1.3 else "0.1"
            weight = "bold" if result.unbiased else "normal"
            text = "unbiased" if result.unbiased else _short(result)
            axes.text(column, line, text, ha="center", va="center", fontsize=7, color=color, fontweight=weight)
    axes.set_xticks(range(len(results)), list(results), fontsize=8)
    axes.xaxis.tick_top()
    axes.set_yticks(range(len(labels)), labels, fontsize=8)
    for edge in np.flatnonzero(np.diff([result.row.claim == "reward" for result in next(iter(results.values()))])):
        axes.axhline(edge + 0.5, color="0.3", linewidth=0.8)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(title, loc="left", fontsize=9)
    return figure


def _short(result: Found) -> str:
    """The bias, and in brackets what the mean is the gradient of; a number alone is a multiple of the claim."""
    if result.of in ("none", "0"):
        return f"{result.bias:.2g}" + (" (zero)" if result.of == "0" else "")
    what = result.of.removeprefix("-") if result.row.sign < 0 else result.of
    factor, _, name = what.partition(" ") if what[0].isdigit() else ("1", "", what)
    if name == result.row.claim:
        what = f"\N{MULTIPLICATION SIGN}{float(factor):.2g}"
    for long, short in (
        ("reverse KL", "rev"),
        ("forward KL", "forward"),
        (" - forward", " \N{MINUS SIGN} fwd"),
        (" reward", ""),
    ):
        what = what.replace(long, short)
    return f"{result.bias:.2g} ({what})"


def distances(name: str, size: int, steps: Sequence[float] = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)) -> Any:
    """Bias of the divergences as losses against the distance of the reference, on policy."""
    figure = _figure(8, 4.8)
    axes = figure.add_subplot()
    rows = [row for row in DIVERGENCE if "weights" not in row.label]
    curves: dict[str, list[float]] = {row.label: [] for row in rows}
    for distance in steps:
        here = problem(name, distance=distance).on_policy()
        for row in rows:
            curves[row.label].append(found(row, here, size).bias)
    biased = {label: values for label, values in curves.items() if max(values) > ZERO}
    for k, (label, values) in enumerate(biased.items()):
        marker = {"k1": "o", "k2": "s", "k3": "^"}[label[:2]]
        line = "-" if "loss" in label else "--" if "token" in label else ":"
        color = COLORS[{"k1": 6, "k2": 1, "k3": 0}[label[:2]]]
        axes.loglog(steps, values, line, color=color, marker=marker, markersize=4, label=label, zorder=3 + k)
    none = [label for label in curves if label not in biased]
    tidy(
        axes,
        "distance of the reference (scale of the difference of logits)",
        "|mean \N{MINUS SIGN} gradient| / |gradient of the reverse KL|",
        f"on policy ({name}): bias of divergences. Without any: {', '.join(none)}",
    )
    axes.legend(frameon=False, fontsize=8, ncols=2)
    return figure


def growth(rows: Sequence[Row], sizes: Sequence[int] = (2, 3, 4, 5, 6), lengths: Sequence[int] = (1, 2, 3, 4)) -> Any:
    """Variance of one group's gradient against the size of the group and against the length, off policy.

    Against the length, every state has the same table and the reward is the mean over the tokens, so that nothing but
    the length differs.
    """
    figure = _figure(11.5, 4.2)
    left, right = figure.subplots(1, 2)
    for k, row in enumerate(rows):
        style = {"color": COLORS[k % len(COLORS)], "marker": "o", "markersize": 4, "label": row.label}
        left.loglog(sizes, [found(row, problem("pair"), size).variance for size in sizes], **style)
        right.semilogy(lengths, [found(row, steady(t), 2).variance for t in lengths], **style)
    left.set_xticks(sizes, [str(size) for size in sizes])
    left.minorticks_off()
    right.set_xticks(lengths)
    tidy(left, "samples in a group", "variance of the gradient (sum over logits)", "samples of two tokens, off policy")
    tidy(right, "tokens in a sample", "", "groups of two samples, off policy")
    right.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def _figure(width: float, height: float) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")
