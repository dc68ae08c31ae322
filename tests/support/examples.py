"""Small runs of the examples: data, models, what a run leaves, what it prints when it fails, damaged files."""

import bz2
import functools
import gzip
import importlib.util
import json
from pathlib import Path

import numpy as np

from examples import digits, training, vae
from scg import checkpoint
from scg.core.tree import leaves

DATA = Path(digits.__file__).with_name("data")


WRITERS = {"": bytes, ".gz": functools.partial(gzip.compress, mtime=0), ".bz2": bz2.compress}


def script(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


rebuild = script(DATA / "rebuild.py")


def write(directory, suffix="", **files):
    """Files in IDX format: train_images=array, t10k_labels=array, ..."""
    for name, array in files.items():
        part, kind = name.split("_")
        path = Path(directory) / f"{part}-{kind}-idx{array.ndim}-ubyte{suffix}"
        path.write_bytes(WRITERS[suffix](rebuild.idx(array)))
    return directory


SMALL = ["--hidden", "8", "6", "--latents", "2", "--batch", "20"]


def run(data, out, *more):
    return vae.main(["--data", data, "--out", str(out), *SMALL, *map(str, more)])


def outcome(out):
    """What a run leaves, without the times that it took."""
    tree = checkpoint.load(Path(out) / "checkpoint.npz")
    history = [{k: v for k, v in entry.items() if k != "seconds"} for entry in json.loads(tree["history"])]
    metrics = [json.loads(line) for line in (Path(out) / "metrics.jsonl").read_text().splitlines()]
    assert [{k: v for k, v in entry.items() if k != "seconds"} for entry in metrics] == history
    arrays = {path: x.tobytes() for path, x in leaves(tree) if isinstance(x, np.ndarray)}
    return history, arrays, tree["rng"].bit_generator.state


def forward(layers, h):
    steps = [h]
    for weight, bias in layers[:-1]:
        steps.append(np.tanh(steps[-1] @ weight + bias))
    return steps, steps[-1] @ layers[-1][0] + layers[-1][1]


def backward(layers, steps, d):
    found = []
    for k in reversed(range(len(layers))):
        found.append((steps[k].T @ d, d.sum(axis=0)))
        d = (d @ layers[k][0].T) * (1 - steps[k] ** 2 if k else 1)
    return found[::-1], d


class Mean(training.Model):
    """Squared distance to one point: no noise, so that minibatches can be added up."""

    def initial(self, pixels, rng):
        return {"point": np.full(pixels.shape[1], 0.25, np.float32)}

    def bound(self, params, x, rng):
        return -np.sum((x - params["point"]) ** 2, axis=-1)

    report = figures = None


def black_and_white(seed=0):
    pixels = 255 * np.random.default_rng(seed).integers(0, 2, (60, 3, 2), dtype=np.uint8)
    return digits.Images("black and white", pixels, pixels[:5])


def told(capsys, status, *words):
    assert status == 1
    err = capsys.readouterr().err
    assert err.startswith("error: ") and all(word in err for word in words), err


def damages(whole, trials, rng):
    """Contents with a bit flipped or the end cut off, in turn."""
    for trial in range(trials):
        content = bytearray(whole)
        at = int(rng.integers(len(content)))
        if trial % 2:
            del content[at:]
        else:
            content[at] ^= 1 << int(rng.integers(8))
        yield content
