"""Pictures of models of images. matplotlib is imported when a picture is made."""

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.special import ndtri

from examples.digits import Images

Map = Callable[[np.ndarray], np.ndarray]


def model(
    images: Images,
    x: np.ndarray,
    history: list[dict[str, Any]],
    *,
    encode: Map,
    decode: Map,
    draw: Callable[[int], np.ndarray] | None,
    latents: bool = True,
) -> dict[str, Any]:
    """The figures of a trained model: an overview, and, of a model with real latents, traversals and the plane, if
    there are two.

    ``encode`` maps rows of pixels to codes, ``decode`` codes to mean pixels in 0 to 1; ``draw(n)`` are n codes of the
    prior (None: it has none).
    """
    shown = x[np.linspace(0, len(x) - 1, min(30, len(x))).astype(int)]
    found = {"": summary(images, shown, decode(encode(shown)), None if draw is None else decode(draw(60)), history)}
    if latents:
        codes = encode(x)
        found["traversals"] = traversals(images, codes, decode)
        if codes.shape[1] == 2:
            found["plane"] = plane(images, codes, decode)
    return found


def summary(
    images: Images, shown: np.ndarray, rebuilt: np.ndarray, drawn: np.ndarray | None, history: list[dict[str, Any]]
) -> Any:
    """Held-out images over their reconstructions, samples if there are any, and the learning curve: a matplotlib
    figure."""
    columns = 10
    pairs = [
        part[i : i + columns]
        for i in range(0, len(shown), columns)
        for part in (_filled(shown, columns), _filled(rebuilt, columns))
    ]
    figure = _figure(12, 8.5)
    cells = figure.add_gridspec(2, 2, height_ratios=(1.25, 1))
    show(
        figure.add_subplot(cells[0, 0]),
        np.concatenate(pairs),
        images.shape,
        columns,
        "held-out images, and below each its reconstruction",
    )
    if drawn is not None:
        show(
            figure.add_subplot(cells[0, 1]),
            drawn,
            images.shape,
            columns,
            "samples: means of p(x | z) for z from the prior",
        )
    curve(figure.add_subplot(cells[1, :]), history)
    return figure


def traversals(images: Images, codes: np.ndarray, decode: Map, most: int = 6, digits: int = 3, steps: int = 11) -> Any:
    """Rows of images along one latent, which moves over the range of the codes: of several held-out images each, the
    latents that vary most first."""
    spread = codes.std(axis=0)
    chosen = np.argsort(-spread)[:most]
    starts = codes[np.linspace(0, len(codes) - 1, digits).astype(int)]
    moved = np.tile(starts[None, :, None], (len(chosen), 1, steps, 1))
    for block, d in zip(moved, chosen, strict=True):
        block[..., d] = codes[:, d].mean() + np.linspace(-2.5, 2.5, steps) * spread[d]
    height = images.shape[0] + 1
    figure = _figure(7, 0.42 * len(chosen) * digits + 1)
    axes = figure.add_subplot()
    low, high = (f"{end:.1f}".replace("-", "\N{MINUS SIGN}") for end in (-2.5, 2.5))
    title = f"{digits} held-out images, one latent at a time:\nfrom {low} to {high} standard deviations of its codes"
    show(axes, decode(moved.reshape(-1, codes.shape[1])), images.shape, steps, title)
    for block, d in enumerate(chosen):
        middle = 1 + (block + 0.5) * digits * height
        axes.text(-3, middle, f"z[{d}]  {spread[d]:.2f}", ha="right", va="center", fontsize=8)
        if block:
            axes.axhline(block * digits * height, color="black", linewidth=1)
    return figure


def plane(images: Images, codes: np.ndarray, decode: Map, side: int = 20) -> Any:
    """The two latents: codes of the held-out images, in colour by label, and the images that a grid of normal quantiles
    decodes to."""
    figure = _figure(13, 6.5)
    left, right = figure.subplots(1, 2)
    points = (
        left.scatter(*codes.T, c=images.test_labels, cmap="tab10", s=8)
        if images.test_labels is not None
        else left.scatter(*codes.T, s=8)
    )
    if images.test_labels is not None:
        figure.colorbar(points, ax=left, label="label")
    left.set_title("codes of the held-out images", loc="left", fontsize=11)
    left.set_xlabel("z[0]")
    left.set_ylabel("z[1]")
    at = ndtri((np.arange(side) + 0.5) / side)
    center, spread = codes.mean(axis=0), codes.std(axis=0)
    grid_ = np.stack(np.meshgrid(center[0] + spread[0] * at, center[1] - spread[1] * at), axis=-1).reshape(-1, 2)
    show(
        right,
        decode(grid_.astype(codes.dtype)),
        images.shape,
        side,
        "what a grid of the codes' normal quantiles decodes to",
    )
    return figure


def bounds(found: dict[int, tuple[float, float]], levels: dict[str, float], title: str) -> Any:
    """Bounds (mean, standard error) against their numbers of samples, under horizontal lines at exact values."""
    figure = _figure(8, 5)
    axes = figure.add_subplot()
    for i, (label, level) in enumerate(levels.items()):
        axes.axhline(level, color="0.3", linestyle=("-", "--", ":")[i % 3], label=label)
    means, errors = zip(*found.values(), strict=True)
    label = "bound from K samples (K = 1: the ELBO), +- 2 standard errors of its gap"
    axes.errorbar(list(found), means, 2 * np.array(errors), marker="o", capsize=3, color="tab:blue", label=label)
    axes.set_xscale("log")
    axes.set_xticks(list(found), [str(k) for k in found])
    axes.minorticks_off()
    tidy(axes, "K", "nats for one held-out image", title)
    axes.legend(loc="lower right", frameon=False)
    return figure


def curve(axes: Any, history: list[dict[str, Any]]) -> None:
    """The bound against the epoch, training and held-out; of ten epochs or more the steep beginning may leave the
    picture."""
    from matplotlib.ticker import MaxNLocator

    epochs, few = [entry["epoch"] for entry in history], len(history) < 10
    above = max(("train", "test"), key=lambda key: history[-1][key])
    for key, label, color in (
        ("train", "training images, as the steps met them (raw weights)", "0.6"),
        ("test", "held-out images (averaged weights)", "tab:blue"),
    ):
        values = [entry[key] for entry in history]
        axes.plot(epochs, values, color=color, label=label, marker="." if few else None)
        va = "bottom" if key == above else "top"  # so that two labels never overlap
        axes.annotate(
            f" {values[-1]:.1f}".replace("-", "\N{MINUS SIGN}"),
            (epochs[-1], values[-1]),
            color=color,
            va=va,
            fontsize=9,
        )
    middle, top = (
        np.median([entry["test"] for entry in history]),
        max(max(entry["train"], entry["test"]) for entry in history),
    )
    bottom = min(middle - 2 * (top - middle), top - 5)
    if few:
        low = min(min(entry["train"], entry["test"]) for entry in history)
        bottom = min(bottom, low - 0.05 * (top - low))
    axes.set_ylim(bottom, top + 0.06 * (top - bottom))
    axes.set_xlim(0, epochs[-1] * 1.1 + 0.2)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    tidy(axes, "epoch", "bound, nats for one image", "learning curve")
    axes.legend(loc="lower right", frameon=False)


def show(axes: Any, rows: np.ndarray, shape: tuple[int, int], columns: int, title: str) -> None:
    """A grid of images on matplotlib axes."""
    axes.imshow(grid(rows, shape, columns), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_title(title, loc="left", fontsize=11)
    axes.set_axis_off()


def grid(rows: np.ndarray, shape: tuple[int, int], columns: int) -> np.ndarray:
    """Flat images in 0 to 1 as one picture, ``columns`` to a line, ink on white, with a grey line between them."""
    height, width = shape
    lines = -(-len(rows) // columns)
    picture = np.full((lines * (height + 1) + 1, columns * (width + 1) + 1), 0.75)
    for i, row in enumerate(rows):
        top, left = 1 + i // columns * (height + 1), 1 + i % columns * (width + 1)
        picture[top : top + height, left : left + width] = 1 - row.reshape(shape)
    return picture


def tidy(axes: Any, x: str, y: str, title: str) -> None:
    """Labels, a title, a light grid and no box."""
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_title(title, loc="left", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.3)


def _figure(width: float, height: float) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _filled(rows: np.ndarray, columns: int) -> np.ndarray:
    """The rows with blank ones after them, to whole lines."""
    return np.concatenate([rows, np.zeros((-len(rows) % columns, rows.shape[1]))])
