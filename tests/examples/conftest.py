"""Images for runs of the examples."""

import numpy as np
import pytest

from tests.support.examples import write


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Sixty bars of 6 x 5 pixels, lying or standing, and twelve more."""
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 10, (72, 6, 5), dtype=np.uint8)
    for i, picture in enumerate(pictures):
        (picture if i % 2 else picture.T)[i % 5] += 240
    return str(write(tmp_path_factory.mktemp("bars"), train_images=pictures[:60], t10k_images=pictures[60:]))
