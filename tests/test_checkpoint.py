"""Checkpoints: what goes in comes out, whole or refused; what stood there survives a failed write."""

import dataclasses
import errno
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import scg
from scg import ScgError, checkpoint
from scg.checkpoint import CheckpointError, CheckpointWriteError
from scg.errors import ScgTypeError
from tests.support.drawn import drawn

pytestmark = pytest.mark.fast


class Layer(NamedTuple):
    weight: object
    bias: object


@dataclasses.dataclass(frozen=True)
class Law:
    loc: object
    scale: object

    def __post_init__(self):
        raise AssertionError("a container is restored, not made anew")


def distribution(loc, scale):
    new = object.__new__(Law)
    object.__setattr__(new, "loc", loc)
    object.__setattr__(new, "scale", scale)
    return new


def same(a, b):
    """Equal in type, structure, dtype and every bit (generators: in their state)."""
    if isinstance(a, np.random.Generator):
        return type(a) is type(b) and same(a.bit_generator.state, b.bit_generator.state)
    if isinstance(a, (np.ndarray, np.generic)):
        return type(a) is type(b) and a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, Law):
        return same(vars(a), vars(b))
    return a == b or (isinstance(a, float) and math.isnan(a) and math.isnan(b))


GENERATORS = [np.random.PCG64, np.random.PCG64DXSM, np.random.MT19937, np.random.Philox, np.random.SFC64]
dtypes = st.sampled_from(["f4", "f8", ">f4", "f2", "i1", "u8", "?", "c8", "U3", "S2", "M8[s]"])
arrays = dtypes.flatmap(
    lambda d: hnp.arrays(np.dtype(d), hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3))
)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4)
generators = st.builds(
    lambda kind, seed: np.random.Generator(kind(seed)), st.sampled_from(GENERATORS), st.integers(0, 9)
)
leaf = arrays | scalars | generators | st.builds(np.float32, st.floats(width=32))
plain_trees = st.recursive(
    leaf,
    lambda t: st.lists(t, max_size=3) | st.dictionaries(st.text(max_size=3), t, max_size=3) | st.tuples(t, t),
    max_leaves=6,
)
trees = st.recursive(
    plain_trees,
    lambda t: st.builds(Layer, t, t) | st.builds(distribution, t, t) | st.lists(t, max_size=2),
    max_leaves=4,
)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("checkpoints") / "c.npz"


@drawn(60)
@given(tree=plain_trees)
def test_a_plain_tree_comes_back_bit_for_bit(file, tree):
    checkpoint.save(file, tree)
    assert same(checkpoint.load(file), tree)
    first = file.read_bytes()
    checkpoint.save(file, tree)
    assert file.read_bytes() == first  # equal trees, equal files


@drawn(60)
@given(tree=trees)
def test_a_tree_comes_back_in_the_containers_of_like(file, tree):
    checkpoint.save(file, tree)
    assert same(checkpoint.load(file, like=tree), tree)


def test_restored_generators_go_on_and_are_new(file):
    for kind in GENERATORS:
        rng = np.random.Generator(kind(3))
        rng.standard_normal(5, dtype=np.float32)  # leaves half a word in the buffer
        checkpoint.save(file, {"rng": rng})
        restored = checkpoint.load(file)["rng"]
        np.testing.assert_array_equal(
            restored.integers(0, 2**16, 9, dtype=np.uint16), rng.integers(0, 2**16, 9, dtype=np.uint16)
        )
        np.testing.assert_array_equal(restored.standard_normal(3), rng.standard_normal(3))


def test_numpy_reads_the_arrays_without_pickle(file):
    checkpoint.save(file, {"params": [Layer(np.eye(2), np.ones(3, np.float32))], "epoch": 4})
    with np.load(file, allow_pickle=False) as archive:
        assert set(archive.files) == {"structure", "params.0.weight", "params.0.bias"}
        np.testing.assert_array_equal(archive["params.0.weight"], np.eye(2))
        assert '"epoch": 4' in str(archive["structure"])


@pytest.mark.parametrize("keys", [("a.b", "a"), ("structure", "s"), ("ü", "array 1"), ("../x", "x"), ("", "0")])
def test_names_never_collide(file, keys):
    tree = {keys[0]: np.zeros(1), keys[1]: {"b": np.ones(2), "": np.zeros(3)}, "structure": np.arange(4)}
    checkpoint.save(file, tree)
    assert same(checkpoint.load(file), tree)


def small():
    return {"w": np.arange(6.0).reshape(2, 3), "epoch": 3, "rng": np.random.default_rng(0), "name": "x"}


def test_a_thousand_damages_are_a_thousand_errors(file):
    checkpoint.save(file, small())
    whole, rng = file.read_bytes(), np.random.default_rng(0)
    for trial in range(1000):
        data = bytearray(whole)
        at = int(rng.integers(len(data)))
        if trial % 4 == 0:
            del data[at:]
        elif trial % 4 == 1:
            data[at] ^= 1 << int(rng.integers(8))
        elif trial % 4 == 2:
            data[at] = (data[at] + int(rng.integers(1, 256))) % 256
        else:
            data[at:at] = rng.bytes(1 + trial % 3)
        file.write_bytes(data)
        with pytest.raises(CheckpointError) as caught:
            checkpoint.load(file)
        assert str(file) in str(caught.value)
    file.write_bytes(whole)
    assert same(checkpoint.load(file), small())


@pytest.mark.slow
def test_every_byte_is_covered(file):
    checkpoint.save(file, small())
    whole = file.read_bytes()
    for at in range(len(whole)):
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 0x20]) + whole[at + 1 :])
        with pytest.raises(CheckpointError):
            checkpoint.load(file)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"hello" * 100])
def test_what_is_no_checkpoint_is_refused(file, content):
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match="no checkpoint") as caught:
        checkpoint.load(file)
    assert isinstance(caught.value, ScgError) and isinstance(caught.value, ValueError)


def test_an_archive_of_numpys_own_is_refused(file):
    np.savez(file, w=np.eye(2))
    with pytest.raises(CheckpointError, match="no checkpoint"):
        checkpoint.load(file)


def test_a_missing_file_is_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        checkpoint.load(tmp_path / "none.npz")


LIKE = {"layers": [Layer(np.zeros((2, 3), np.float32), np.zeros(3, np.float32))], "epoch": 0, "pair": (1.0, "a")}


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda t: t.pop("epoch"), "the top"),
        (lambda t: t.update(more=1), "the top"),
        (lambda t: t.update(epoch=1.5), "epoch should be int, and is float"),
        (lambda t: t.update(epoch=np.int64(1)), "epoch"),
        (lambda t: t.update(pair=[1.0, "a"]), "pair"),
        (lambda t: t.update(pair=(1.0,)), "pair"),
        (lambda t: t.update(layers=t["layers"] * 2), "layers"),
        (
            lambda t: t.update(layers=[Layer(np.zeros((3, 2), np.float32), np.zeros(3, np.float32))]),
            r"layers.0.weight.*\(2, 3\).*\(3, 2\)",
        ),
        (lambda t: t.update(layers=[Layer(np.zeros((2, 3)), np.zeros(3, np.float32))]), "float32.*float64"),
        (lambda t: t.update(layers=[{"weight": 1}]), "layers.0"),
    ],
)
def test_another_structure_than_like_is_refused(file, spoil, message):
    tree = dict(LIKE)
    spoil(tree)
    checkpoint.save(file, tree)
    with pytest.raises(CheckpointError, match=message):
        checkpoint.load(file, like=LIKE)


@pytest.mark.parametrize(
    "tree",
    [
        {1: 2.0},
        {"a": object()},
        {"a": np.array([None])},
        {"a": 1j},
        {"a": {1, 2}},
        {"a": np.ma.masked_array([1.0], [True])},
        {"a": b"x"},
        {"a": scg.parameter(np.ones(1))},
        {"a": [lambda: 0]},
    ],
)
def test_what_a_file_cannot_hold_is_refused_before_the_file_is_touched(file, tree):
    checkpoint.save(file, small())
    before = file.read_bytes()
    with pytest.raises(ScgTypeError, match="a checkpoint"):
        checkpoint.save(file, tree)
    assert file.read_bytes() == before and os.listdir(file.parent) == [file.name]


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, failing):
    path = tmp_path / "c.npz"
    checkpoint.save(path, small())

    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, failing, full)
        with pytest.raises(CheckpointWriteError, match="No space left.*unchanged") as caught:
            checkpoint.save(path, {"other": 1})
    assert isinstance(caught.value, OSError) and caught.value.errno == errno.ENOSPC
    assert os.listdir(tmp_path) == ["c.npz"] and same(checkpoint.load(path), small())


@pytest.mark.slow
def test_a_real_limit_on_file_size_leaves_the_old_file(tmp_path):
    path = tmp_path / "c.npz"
    checkpoint.save(path, small())
    program = """
import resource, signal, sys
import numpy as np
from tests.support.drawn import drawn
from scg import checkpoint
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try:
    checkpoint.save(sys.argv[1], {"w": np.zeros(100_000)})
except checkpoint.CheckpointWriteError as error:
    print(error)
"""
    root = Path(scg.__file__).parents[1]
    told = subprocess.run(
        [sys.executable, "-c", program, str(path)], cwd=root, capture_output=True, text=True, timeout=60
    )
    assert "unchanged" in told.stdout, told.stderr
    assert os.listdir(tmp_path) == ["c.npz"] and same(checkpoint.load(path), small())


def test_a_directory_that_does_not_exist_is_told(tmp_path):
    with pytest.raises(CheckpointWriteError, match="none"):
        checkpoint.save(tmp_path / "none" / "c.npz", {})
