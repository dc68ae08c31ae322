"""Images for runs of the examples, which draw figures where a test asks for them: one takes longer than a run."""

import os
import sys

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


@pytest.fixture(scope="session")
def without_matplotlib(tmp_path_factory):
    """A folder for the paths of processes, on which matplotlib cannot be imported."""
    folder = tmp_path_factory.mktemp("path")
    (folder / "matplotlib.py").write_text("raise ImportError('a test without figures')\n")
    return str(folder)


@pytest.fixture(autouse=True)
def undrawn(request, without_matplotlib, monkeypatch):
    """As where matplotlib is not installed, but for tests that ask for ``figures``."""
    if "figures" not in request.fixturenames:
        monkeypatch.setitem(sys.modules, "matplotlib", None)
        monkeypatch.syspath_prepend(without_matplotlib)  # spawned processes take it over
        monkeypatch.setenv("PYTHONPATH", without_matplotlib, prepend=os.pathsep)


@pytest.fixture
def figures():
    """Asked for by tests whose runs draw figures."""
