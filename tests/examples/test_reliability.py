"""Runs of the examples whose estimators learn, killed, starved and fed with nonsense; what a person meets who compares
with PyTorch and has none."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import examples
from benchmarks.peers import parity
from examples import autoencoder, discrete_vae, iwae, ppca, sequence, vae
from scg import checkpoint
from scg.core.tree import leaves
from tests.support.examples import damages, outcome, rebuild, told

ROOT = Path(examples.__file__).parents[1]
ALL = {
    "ppca": ppca,
    "autoencoder": autoencoder,
    "vae": vae,
    "iwae": iwae,
    "discrete_vae": discrete_vae,
    "sequence": sequence,
}
RUNS = {
    "discrete_vae": [
        "--estimator",
        "score+learned",
        "--latents",
        "4",
        "--batch",
        "20",
        "--replicates",
        "2",
        "--evaluate",
        "2",
    ],
    "sequence": [
        "--regimes",
        "3",
        "--state",
        "1",
        "--hidden",
        "5",
        "--batch",
        "20",
        "--replicates",
        "2",
        "--evaluate",
        "2",
    ],
}


def run(name, data, out, *more):
    return ALL[name].main(["--data", data, "--out", str(out), *RUNS[name], *map(str, more)])


# kill -9


def killed_and_resumed(name, data, tmp_path, times, epochs, kills=1):
    """How many of ``times`` runs were killed at some moment; each must end in the bits of the one that was left
    alone."""
    assert run(name, data, tmp_path / "whole", "--epochs", epochs) == 0
    whole, moments, killed = outcome(tmp_path / "whole"), random.Random(2), 0
    for i in range(times):
        out = tmp_path / f"killed-{i}"
        for _ in range(kills):
            command = [
                sys.executable,
                "-m",
                f"examples.{name}",
                "--data",
                data,
                "--out",
                str(out),
                *RUNS[name],
                "--epochs",
                str(epochs),
                "--resume",
            ]
            process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            if i % 5 != 4:  # else at any moment, of its beginning too
                while not (out / "metrics.jsonl").exists() and process.poll() is None:
                    time.sleep(0.005)
            time.sleep(moments.uniform(0.01, 1.0 if i % 5 == 4 else 0.4))
            process.send_signal(signal.SIGKILL)
            process.communicate(timeout=60)
            killed += process.returncode == -signal.SIGKILL
        assert run(name, data, out, "--epochs", epochs, "--resume") == 0
        assert outcome(out) == whole
        assert not list(out.glob(".*.tmp"))
    return killed


@pytest.mark.long
def test_what_learns_goes_on_bit_for_bit_after_kills(data, tmp_path):
    assert killed_and_resumed("discrete_vae", data, tmp_path, 1, 120)  # over a second: kills come within 0.4 s


@pytest.mark.long
@pytest.mark.parametrize("name, epochs", [("discrete_vae", 40), ("sequence", 25)])
def test_killed_at_fifty_random_moments_what_learns_ends_in_the_same_bits(name, epochs, data, tmp_path):
    killed = killed_and_resumed(name, data, tmp_path, 50, epochs)
    print(f"{name}: {killed} of 50 runs killed")
    assert killed >= 40


# checkpoints


def damaged(name, data, tmp_path, capsys, trials):
    """Bits flipped and ends cut off: each a line that names the file, and nothing loaded or written."""
    assert run(name, data, tmp_path, "--epochs", 1) == 0
    path = tmp_path / "checkpoint.npz"
    whole, before = path.read_bytes(), {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    capsys.readouterr()
    for content in damages(whole, trials, np.random.default_rng(3)):
        path.write_bytes(content)
        told(capsys, run(name, data, tmp_path, "--resume", "--epochs", 2), "checkpoint.npz")
        assert path.read_bytes() == content
    path.write_bytes(whole)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
    assert run(name, data, tmp_path, "--resume", "--epochs", 2) == 0


@pytest.mark.parametrize("name", RUNS)
def test_damaged_checkpoints_with_what_was_learned_are_refused(name, data, tmp_path, capsys):
    damaged(name, data, tmp_path, capsys, 40)


@pytest.mark.long
@pytest.mark.parametrize("name", RUNS)
def test_a_thousand_damaged_checkpoints_with_what_was_learned_are_refused(name, data, tmp_path, capsys):
    damaged(name, data, tmp_path, capsys, 1000)


def test_a_checkpoint_of_another_estimator_is_refused(data, tmp_path, capsys):
    assert run("discrete_vae", data, tmp_path, "--epochs", 1) == 0
    with pytest.raises(SystemExit):
        run("discrete_vae", data, tmp_path, "--resume", "--estimator", "relax")
    assert "--estimator relax" in capsys.readouterr().err
    content = checkpoint.load(tmp_path / "checkpoint.npz")
    checkpoint.save(tmp_path / "checkpoint.npz", {**content, "model": {}})
    told(capsys, run("discrete_vae", data, tmp_path, "--resume", "--epochs", 2), "checkpoint.npz", "model")


# data


def idx(pixels):
    return rebuild.idx(np.asarray(pixels, np.uint8))


GOOD = idx(np.zeros((60, 4, 4)))
FILES = {
    "nothing": (None, "train-images-idx3-ubyte"),
    "empty": (b"", "an empty file"),
    "another magic number": (b"\x89PNG" + GOOD[4:], "two zero bytes"),
    "signed bytes": (GOOD[:2] + b"\x09" + GOOD[3:], "type 0x09"),
    "two axes": (GOOD[:3] + b"\x02" + GOOD[4:], "axes"),
    "too short": (GOOD[:-1], "truncated"),
    "too long": (GOOD + b"\0", "something follows"),
    "no pixels": (idx(np.zeros((60, 0, 4))), "expected data"),
    "four images": (idx(np.zeros((4, 4, 4))), "at least five"),
    "a minibatch of them": (idx(np.zeros((20, 4, 4))), "minibatch"),
}


@pytest.mark.parametrize("name", ALL)
def test_no_example_trains_on_a_bad_file(name, tmp_path, capsys):
    for content, words in FILES.values():
        if content is not None:
            (tmp_path / "train-images-idx3-ubyte").write_bytes(content)
        told(capsys, ALL[name].main(["--data", str(tmp_path), "--out", str(tmp_path / "out")]), words)
        assert not (tmp_path / "out").exists()
    told(
        capsys,
        ALL[name].main(["--data", str(tmp_path / "elsewhere"), "--out", str(tmp_path / "out")]),
        "does not exist",
    )


# a full disk

LIMITED = """
import resource, sys
from examples import {name}
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
sys.exit({name}.main({argv!r}))
"""


@pytest.mark.parametrize("name", RUNS)
def test_a_full_disk_leaves_the_last_checkpoint(name, data, tmp_path):
    assert run(name, data, tmp_path, "--epochs", 1) == 0
    kept = outcome(tmp_path)
    argv = ["--resume", "--epochs", "3", "--out", str(tmp_path)]
    found = subprocess.run(
        [sys.executable, "-c", LIMITED.format(name=name, limit=4000, argv=argv)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (
        found.returncode == 1
        and found.stderr.startswith("error: ")
        and "cannot write" in found.stderr
        and found.stderr.count("\n") == 1
    ), found.stderr
    assert outcome(tmp_path) == kept and not list(tmp_path.glob(".*.tmp"))
    assert (
        run(name, data, tmp_path, "--resume", "--epochs", 3) == 0
        and run(name, data, tmp_path / "whole", "--epochs", 3) == 0
    )
    assert outcome(tmp_path) == outcome(tmp_path / "whole")


# NaN


@pytest.mark.parametrize("name, made", [("discrete_vae", "DiscreteVAE"), ("sequence", "Switching")])
def test_a_nan_names_its_operation_and_leaves_the_last_checkpoint(name, made, data, tmp_path, capsys, monkeypatch):
    class Broken(getattr(ALL[name], made)):
        """Adam takes the fuse down by the learning rate in each step, and through zero in the fourth: three make an
        epoch."""

        def initial(self, pixels, rng):
            return {**super().initial(pixels, rng), "fuse": np.array(0.035, np.float32)}

        def bound(self, params, x, rng):
            return super().bound(params, x, rng) - np.log(params["fuse"])

    monkeypatch.setattr(ALL[name], made, Broken)
    with np.errstate(invalid="ignore"):
        told(
            capsys,
            run(name, data, tmp_path, "--epochs", 3, "--learning-rate", 0.01),
            "epoch 2, step 5",
            "log made a NaN",
            "intact",
        )
    kept = checkpoint.load(tmp_path / "checkpoint.npz")
    assert len(json.loads(kept["history"])) == 1 and all(np.isfinite(x).all() for _, x in leaves(kept["params"]))


# beside PyTorch


def test_the_comparison_gives_the_model_its_noise_and_takes_steps_of_adam():
    model, _, _ = parity.MODELS["VAE"]
    rng = np.random.default_rng(0)
    params = model.initial(rng.integers(0, 256, (9, 12), dtype=np.uint8), rng)
    x, noise = np.float64(rng.integers(0, 2, (5, 12))), rng.standard_normal((5, 50))
    one, two = parity.Here(model, params, np.float64), parity.Here(model, params, np.float64)
    first, again = one.step(x, noise), two.step(x, noise)
    assert parity.apart(first, again) == (0, 0) and all(g.dtype == np.float64 for g in first[1])
    assert parity.apart(one.step(x, noise), two.step(x, noise + 1))[1] > 1e-3
    moved = [
        np.abs(a - b).max()
        for a, (_, b) in zip(parity.Here(model, params, np.float64).arrays, leaves(params), strict=True)
    ]
    assert max(moved) == 0 and all(
        np.abs(a - b).max() > 1e-4 for a, (_, b) in zip(one.arrays, leaves(params), strict=True)
    )
    with pytest.raises(ValueError, match="expected normal numbers of shape"):
        one.step(x[:4], noise)


def test_without_pytorch_the_comparison_says_so(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr(sys, "argv", ["parity", "--out", str(tmp_path / "parity.json")])
    assert parity.main() == 1 and "not installed" in capsys.readouterr().out and not list(tmp_path.iterdir())
