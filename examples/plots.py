"""Pictures of image models. matplotlib is imported when a picture is made."""

from typing import Any

import numpy as np

from examples.digits import Images


def grid(rows: np.ndarray, shape: tuple[int, int], columns: int) -> np.ndarray:
    """Flat images in 0 to 1 as one picture, ``columns`` to a line, ink on white, with a grey line between them."""
    height, width = shape
    lines = -(-len(rows) // columns)
    picture = np.full((lines * (height + 1) + 1, columns * (width + 1) + 1), 0.75)
    for i, row in enumerate(rows):
        top, left = 1 + i // columns * (height + 1), 1 + i % columns * (width + 1)
        picture[top : top + height, left : left + width] = 1 - row.reshape(shape)
    return picture


def show(axes: Any, rows: np.ndarray, shape: tuple[int, int], columns: int, title: str) -> None:
    """A grid of images on matplotlib axes."""
    axes.imshow(grid(rows, shape, columns), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_title(title, loc="left", fontsize=11)
    axes.set_axis_off()


def curve(axes: Any, history: list[dict[str, Any]]) -> None:
    """The bound against the epoch, training and held-out; the steep beginning may leave the picture."""
    epochs = [entry["epoch"] for entry in history]
    for key, label, color in (("train", "training images", "0.6"), ("test", "held-out images", "tab:blue")):
        values = [entry[key] for entry in history]
        axes.plot(epochs, values, color=color, label=label, marker="." if len(values) < 10 else None)
        axes.annotate(f" {values[-1]:.1f}", (epochs[-1], values[-1]), color=color, va="center", fontsize=9)
    middle, top = np.median([entry["test"] for entry in history]), max(max(entry["train"], entry["test"]) for entry in history)
    axes.set_ylim(min(middle - 2 * (top - middle), top - 5), top + 0.1 * (top - middle) + 1)
    axes.set_xlim(0, epochs[-1] * 1.06 + 1)
    axes.set_xlabel("epoch")
    axes.set_ylabel("ELBO, nats for one image")
    axes.set_title("learning curve", loc="left", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", frameon=False)


def summary(images: Images, shown: np.ndarray, rebuilt: np.ndarray, drawn: np.ndarray, history: list[dict[str, Any]]) -> Any:
    """Held-out images over their reconstructions, samples, and the learning curve: a matplotlib figure."""
    from matplotlib.figure import Figure

    columns = 10
    pairs = [part[i : i + columns] for i in range(0, len(shown), columns) for part in (_filled(shown, columns), _filled(rebuilt, columns))]
    figure = Figure(figsize=(12, 8.5), layout="constrained")
    cells = figure.add_gridspec(2, 2, height_ratios=(1.25, 1))
    show(figure.add_subplot(cells[0, 0]), np.concatenate(pairs), images.shape, columns, "held-out images, and below each its reconstruction")
    show(figure.add_subplot(cells[0, 1]), drawn, images.shape, columns, "samples: means of p(x | z) for z from the prior")
    curve(figure.add_subplot(cells[1, :]), history)
    return figure


def _filled(rows: np.ndarray, columns: int) -> np.ndarray:
    """The rows with blank ones after them, to whole lines."""
    return np.concatenate([rows, np.zeros((-len(rows) % columns, rows.shape[1]))])
