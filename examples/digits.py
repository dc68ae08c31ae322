"""Images to learn from: the embedded digits, or any set in IDX format (MNIST, Fashion-MNIST, ...)."""

import bz2
import gzip
import hashlib
import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

EMBEDDED = {
    "mnist5k-images-idx3-ubyte.bz2": "51c869de65ea82bc4c6d2516396f0ba26859d6eeba6f61b7e69a7b5b52c86bed",
    "mnist5k-labels-idx1-ubyte.bz2": "87ce5931444e998ddcd5e8ae7a3a32e6956bbfaa2f9339e63d2f8df7178561d8",
}
"""The SHA-256 of each embedded file."""

DATA = Path(__file__).with_name("data")
FASHION = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package dataset-fashion-mnist puts its files."""

_OPENERS: dict[str, Callable[[bytes], bytes]] = {"": bytes, ".gz": gzip.decompress, ".bz2": bz2.decompress}


class DataError(ValueError):
    """A data file that is missing, damaged or of another kind: the message names it, what was expected and what
    came."""


@dataclass(frozen=True)
class Images:
    """Grey images, shape (number, height, width), 0 to 255, with labels where they are known; ``test`` is what no
    training step sees."""

    name: str
    train: np.ndarray
    test: np.ndarray
    train_labels: np.ndarray | None = None
    test_labels: np.ndarray | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return self.train.shape[1:]  # type: ignore[return-value]

    @property
    def checksum(self) -> str:
        """SHA-256 of the images: what a resumed run compares."""
        digest = hashlib.sha256(repr((self.train.shape, self.test.shape)).encode())
        for part in (self.train, self.test):
            digest.update(np.ascontiguousarray(part).data)
        return digest.hexdigest()


def load(source: str | None = None) -> Images:
    """The embedded digits (None or ``digits``), ``fashion`` where Debian's package is installed, or a directory of IDX
    files.

    A directory holds ``train-images-idx3-ubyte`` and, if it likes, ``t10k-images-idx3-ubyte`` (held out; without it,
    every fifth image is) and ``...-labels-idx1-ubyte``, each plain or with ``.gz`` or ``.bz2``. Raises DataError.
    """
    if source is None or source == "digits" and not Path(source).exists():
        return embedded()
    directory = Path(source)
    if source in ("fashion", "fashion-mnist") and not directory.exists():
        directory = FASHION
        if not directory.is_dir():
            raise DataError(
                f"{source}: {FASHION} does not exist; install Debian's dataset-fashion-mnist, or give the directory of"
                " your copy"
            )
    return from_directory(directory)


def embedded(folder: str | Path = DATA) -> Images:
    """5,000 MNIST digits: 4,000 to train on and 1,000, every fifth (100 of each class), held out. Raises DataError if a
    file is damaged."""
    arrays = []
    for name, checksum in EMBEDDED.items():
        path = Path(folder) / name
        found = hashlib.sha256(_bytes(path)).hexdigest()
        if found != checksum:
            raise DataError(
                f"{path} is damaged: expected SHA-256 {checksum}, got {found}; examples/data/rebuild.py makes it anew"
            )
        arrays.append(read_idx(path))
    return _split("mnist5k", *arrays)


def from_directory(directory: str | Path) -> Images:
    """Images and labels of a directory in IDX format; see ``load``."""
    directory = Path(directory)
    if not directory.is_dir():
        raise DataError(
            f"{directory}: expected a directory of IDX files, got"
            f" {'a file' if directory.exists() else 'nothing: it does not exist'}"
        )
    train, labels = _pair(directory, "train")
    test, test_labels = _pair(directory, "t10k")
    if train is None:
        holds = ", ".join(sorted(p.name for p in directory.iterdir())[:6]) or "nothing"
        raise DataError(
            f"{directory}: expected train-images-idx3-ubyte, plain or with .gz or .bz2; the directory holds {holds}"
        )
    if test is None:
        return _split(directory.resolve().name, train, labels)
    if test.shape[1:] != train.shape[1:]:
        raise DataError(f"{directory}: expected test images of {_size(train)} as in training, got {_size(test)}")
    return Images(directory.resolve().name, train, test, labels, test_labels)


def read_idx(path: str | Path, ndim: int | None = None) -> np.ndarray:
    """The array in an IDX file of unsigned bytes, plain, ``.gz`` or ``.bz2``; with ``ndim``, of that many axes. Raises
    DataError."""
    path = Path(path)
    raw = _bytes(path)
    try:
        data = _OPENERS.get(path.suffix, bytes)(raw)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(
            f"{path}: expected a whole {path.suffix} file, got one that is damaged or truncated ({error})"
        ) from error
    if len(data) < 4 or data[:2] != b"\0\0":
        raise DataError(
            f"{path}: expected an IDX file, which begins with two zero bytes, a type and a number of axes; got"
            f" {data[:4].hex(' ') or 'an empty file'}"
        )
    if data[2] != 8:
        raise DataError(f"{path}: expected unsigned bytes (IDX type 0x08), got type 0x{data[2]:02x}")
    axes, start = data[3], 4 + 4 * data[3]
    if not axes or ndim not in (None, axes):
        raise DataError(f"{path}: expected an array of {ndim or 'one or more'} axes, got {axes}")
    if len(data) < start:
        raise DataError(
            f"{path}: expected {axes} axis lengths in the first {start} bytes, got {len(data)} bytes in all"
        )
    shape = tuple(int(n) for n in np.frombuffer(data, ">u4", axes, 4))
    expected, got = math.prod(shape), len(data) - start
    if got != expected:
        fault = "the file is truncated" if got < expected else "something follows the data"
        raise DataError(f"{path}: expected {expected} bytes of data for shape {shape}, got {got}: {fault}")
    if not expected:
        raise DataError(f"{path}: expected data, got an array of shape {shape}")
    return np.frombuffer(data, np.uint8, expected, start).reshape(shape)


def _pair(directory: Path, part: str) -> tuple[np.ndarray | None, np.ndarray | None]:
    images, labels = _find(directory, f"{part}-images", 3), _find(directory, f"{part}-labels", 1)
    if images is None or labels is None:
        return images, labels
    if len(images) != len(labels):
        raise DataError(
            f"{directory}: expected a label for each of the {len(images)} images of {part}, got {len(labels)} labels"
        )
    return images, labels


def _find(directory: Path, name: str, ndim: int) -> np.ndarray | None:
    for stem in (f"{name}-idx{ndim}-ubyte", f"{name}.idx{ndim}-ubyte"):
        for suffix in _OPENERS:
            if (path := directory / (stem + suffix)).exists():
                return read_idx(path, ndim)
    return None


def _split(name: str, images: np.ndarray, labels: np.ndarray | None) -> Images:
    if len(images) < 5:
        raise DataError(f"{name}: expected at least five images, to hold out every fifth, got {len(images)}")
    held = np.arange(len(images)) % 5 == 4
    return Images(
        name, images[~held], images[held], *((None, None) if labels is None else (labels[~held], labels[held]))
    )


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: expected a readable file, got: {error.strerror}") from error


def _size(images: np.ndarray) -> str:
    return " x ".join(map(str, images.shape[1:]))
