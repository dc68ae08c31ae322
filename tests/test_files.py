"""Files: whole or not at all, regular ones only, through links, with their mode; what killed writers left is removed,
and nothing else."""

import collections
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import scg
from scg import checkpoint, variance
from scg.files import FileWriteError, write

pytestmark = pytest.mark.fast

posix = pytest.mark.skipif(os.name != "posix", reason="links, modes and locks of POSIX")
ROOT = Path(scg.__file__).parents[1]


def report():
    graph = scg.trace(
        lambda t, rng: scg.sample(scg.distributions.Bernoulli(logits=t), scg.ScoreFunction(), rng=rng),
        np.zeros(()),
        rng=np.random.default_rng(0),
    )
    return variance.compare(graph, {"r": {}}, replicates=16, rng=np.random.default_rng(0), _timed=0.0)


WRITERS = {
    "write": lambda path: write(path, b"new"),
    "checkpoint": lambda path: checkpoint.save(path, {"step": 1}),
    "csv": lambda path: report().to_csv(path),
    "json": lambda path: report().to_json(path),
}


@posix
@pytest.mark.parametrize("writer", WRITERS)
def test_what_is_no_regular_file_is_refused_and_left_as_it_is(writer, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "directory").mkdir()
    (tmp_path / "nowhere").symlink_to(tmp_path / "nothing")
    (tmp_path / "device").symlink_to("/dev/null")
    before = {name: os.lstat(tmp_path / name) for name in os.listdir(tmp_path)}
    for name, what in {
        "pipe": "a pipe",
        "directory": "a directory",
        "nowhere": "a link to",
        "device": "a device",
    }.items():
        with pytest.raises(scg.ScgError, match=what) as caught:
            WRITERS[writer](tmp_path / name)
        assert isinstance(caught.value, checkpoint.CheckpointWriteError if writer == "checkpoint" else FileWriteError)
    after = {name: os.lstat(tmp_path / name) for name in os.listdir(tmp_path)}
    assert {n: (s.st_ino, s.st_mode) for n, s in after.items()} == {n: (s.st_ino, s.st_mode) for n, s in before.items()}
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


@posix
@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o755])
def test_a_link_is_followed_to_its_end_and_the_mode_is_kept(writer, mode, tmp_path):
    (tmp_path / "store").mkdir()
    target = tmp_path / "store" / "file"
    target.write_bytes(b"old")
    target.chmod(mode)
    (tmp_path / "inner").symlink_to("store/file")
    (tmp_path / "outer").symlink_to(tmp_path / "inner")
    WRITERS[writer](tmp_path / "outer")
    assert (tmp_path / "outer").is_symlink() and (tmp_path / "inner").is_symlink() and not target.is_symlink()
    assert target.read_bytes() != b"old" and stat.S_IMODE(target.stat().st_mode) == mode
    assert sorted(os.listdir(tmp_path)) == ["inner", "outer", "store"] and os.listdir(target.parent) == ["file"]


@posix
def test_a_new_file_has_the_mode_of_any_new_file(tmp_path):
    (tmp_path / "plain").write_bytes(b"")
    write(tmp_path / "whole", b"")
    assert (tmp_path / "whole").stat().st_mode == (tmp_path / "plain").stat().st_mode


_HOLDS = """
import os, sys, time
from scg.files import write
def replace(*names):
    print("written", flush=True)
    time.sleep(60)
os.replace = replace
write(sys.argv[1], b"never there")
"""


@pytest.mark.slow
@posix
def test_what_killed_writers_left_is_removed_and_what_a_live_one_writes_is_not(tmp_path):
    path = tmp_path / "file.npz"
    others = [".other.npz.0123abcd.tmp", ".file.npz.tmp", "file.npz.0123abcd.tmp", ".file.npz.0123abcd.tmp.bak"]
    for name in others:
        (tmp_path / name).write_bytes(b"not ours")
    writers = [
        subprocess.Popen([sys.executable, "-c", _HOLDS, path], cwd=ROOT, stdout=subprocess.PIPE) for _ in range(2)
    ]
    try:
        for writer in writers:
            assert writer.stdout.readline() == b"written\n"
        write(path, b"first")  # beside two that are alive
        assert len(os.listdir(tmp_path)) == len(others) + 3
        writers[0].send_signal(signal.SIGKILL)
        writers[0].wait()
        write(path, b"second")
        assert len(os.listdir(tmp_path)) == len(others) + 2 and path.read_bytes() == b"second"
    finally:
        for writer in writers:
            writer.kill()
            writer.wait()
            writer.stdout.close()
    write(path, b"third")
    assert sorted(os.listdir(tmp_path)) == sorted([*others, "file.npz"])


def test_a_name_as_long_as_a_name_may_be(tmp_path):
    write(tmp_path / ("n" * 255), b"x")
    assert os.listdir(tmp_path) == ["n" * 255]


@pytest.mark.parametrize(
    "path, kind",
    [
        ("", scg.errors.ScgValueError),
        ("a\0b", scg.errors.ScgValueError),
        (None, scg.errors.ScgTypeError),
        (3, scg.errors.ScgTypeError),
    ],
)
def test_what_is_no_path_is_refused(path, kind):
    for use in (lambda: write(path, b""), lambda: checkpoint.save(path, 1), lambda: checkpoint.load(path)):
        with pytest.raises(kind, match="a path is"):
            use()


# checkpoints of odd trees


def test_a_tree_that_holds_itself_is_refused_and_one_that_holds_a_thing_twice_is_not(tmp_path):
    loop: list = []
    loop.append({"x": (loop,)})
    with pytest.raises(scg.errors.ScgValueError, match="holds itself, at 0.x.0"):
        checkpoint.save(tmp_path / "c", loop)
    deep: list = []
    for _ in range(20_000):
        deep = [deep]
    with pytest.raises(scg.errors.ScgValueError, match="so deeply"):
        checkpoint.save(tmp_path / "c", deep)
    assert not os.listdir(tmp_path)
    part = [np.ones(2)]
    checkpoint.save(tmp_path / "c", {"a": part, "b": part})
    assert [x.tolist() for x in checkpoint.load(tmp_path / "c")["b"]] == [[1.0, 1.0]]


@pytest.mark.parametrize(
    "keys",
    [("k" * 70_000, "a"), ("array 2", "x", "ü"), ("array 1", "ü", "array 2", "ä"), ("ü", "array 0", "array 1", "ä")],
)
def test_arrays_under_any_keys_come_back_under_their_own(keys, tmp_path):
    checkpoint.save(tmp_path / "c", {key: np.full(2, i) for i, key in enumerate(keys)})
    found = checkpoint.load(tmp_path / "c")
    assert list(found) == list(keys) and all((found[key] == i).all() for i, key in enumerate(keys))


class Picky(collections.UserDict):
    def __init__(self, one, two):
        super().__init__(one=one, two=two)

    def clear(self):
        raise TypeError("it is never empty")


def test_like_may_be_any_mapping(tmp_path):
    checkpoint.save(tmp_path / "c", {"one": np.ones(2), "two": 3})
    found = checkpoint.load(tmp_path / "c", collections.defaultdict(list, one=np.zeros(2), two=0))
    assert (
        type(found) is collections.defaultdict
        and found.default_factory is list
        and found["two"] == 3
        and found["one"].tolist() == [1.0, 1.0]
    )
    assert (
        type(checkpoint.load(tmp_path / "c", collections.OrderedDict(one=np.zeros(2), two=0)))
        is collections.OrderedDict
    )
    with pytest.raises(checkpoint.CheckpointError, match="no Picky can be made .*: it is never empty"):
        checkpoint.load(tmp_path / "c", Picky(np.zeros(2), 0))


@posix
def test_a_device_is_no_checkpoint():
    with pytest.raises(checkpoint.CheckpointError, match="a device"):
        checkpoint.load("/dev/zero")
