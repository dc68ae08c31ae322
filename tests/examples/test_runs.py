"""The examples as their users run them: the gradient, the bound, resuming bit for bit, interruptions, refusals."""

import importlib.util
import json
import os
import pkgutil
import random
import signal
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import pytest

import examples
import scg
from examples import __main__ as listing
from examples import training, vae
from scg import checkpoint
from scg import distributions as dist
from scg.core.tree import leaves, map_leaves
from tests.support.examples import SMALL, Mean, backward, black_and_white, forward, outcome, rebuild, run, told, write

ROOT = Path(examples.__file__).parents[1]


# the model


def hand_written(params, x, noise):
    """The mean ELBO of a minibatch and its gradient, layer by layer, by the chain rule."""
    (e, f), n = (params["encoder"], params["decoder"]), len(x)
    steps, h = forward(e, x)
    loc, log_scale = np.split(h, 2, axis=1)
    scale = np.exp(log_scale)
    z = loc + scale * noise
    inner, logits = forward(f, z)
    value = (x * logits - np.logaddexp(0, logits)).sum() - (0.5 * (loc**2 + scale**2 - 1) - log_scale).sum()
    decoder, dz = backward(f, inner, (x - 1 / (1 + np.exp(-logits))) / n)
    d = np.concatenate([dz - loc / n, dz * noise * scale - (scale**2 - 1) / n], axis=1)
    encoder, _ = backward(e, steps, d)
    return value / n, {"encoder": encoder, "decoder": decoder}


@pytest.mark.parametrize("dtype, tolerance", [(np.float64, 1e-12), (np.float32, 2e-5)])
def test_the_gradient_of_the_elbo_is_the_one_written_by_hand(monkeypatch, dtype, tolerance):
    rng, seen = np.random.default_rng(3), []

    def sample(*args, **kwargs):
        seen.append(real(*args, **kwargs))
        return seen[-1]

    real = scg.sample
    monkeypatch.setattr(vae.scg, "sample", sample)
    model = vae.VAE([7, 5], 3)
    pixels = rng.integers(0, 256, (9, 11), dtype=np.uint8)
    params = map_leaves(lambda w: (w + 0.3 * rng.standard_normal(w.shape)).astype(dtype), model.initial(pixels, rng))
    x = training.binarise(pixels, rng).astype(dtype)
    value, gradient = scg.value_and_grad(lambda p: np.mean(model.bound(p, x, rng)))(params)
    q = model.posterior(map_leaves(np.float64, params), x)
    noise = (np.float64(seen[0].value) - q.loc) / q.scale
    expected_value, expected = hand_written(map_leaves(np.float64, params), x, noise)
    assert value.dtype == dtype and abs(value - expected_value) <= tolerance * abs(expected_value)
    for (path, g), (_, e) in zip(leaves(gradient), leaves(expected), strict=True):
        assert g.dtype == dtype, path
        np.testing.assert_allclose(g, e, rtol=0, atol=tolerance * max(1, np.abs(e).max()), err_msg=path)


def test_the_closed_kl_is_the_mean_over_draws():
    rng = np.random.default_rng(0)
    q = dist.Normal(rng.standard_normal(6), np.exp(rng.standard_normal(6)))
    z = q.sample(rng, 100_000)
    draws = q.log_prob(z) - vae.VAE.prior.log_prob(z)
    error = draws.std(axis=0) / np.sqrt(len(draws))
    # six z-scores: 4e-6 of false alarms
    assert (np.abs(draws.mean(axis=0) - dist.kl_divergence(q, vae.VAE.prior)) < 5 * error).all()


def test_importance_weights_have_the_evidence_as_their_mean():
    rng = np.random.default_rng(1)
    model = vae.VAE([4], 1)
    pixels = rng.integers(0, 256, (3, 5), dtype=np.uint8)
    params = map_leaves(lambda w: np.float64(w) + 0.3 * rng.standard_normal(w.shape), model.initial(pixels, rng))
    x = np.float64(training.binarise(pixels, rng))
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    likelihood = np.sum(model.likelihood(params, nodes[:, None]).log_prob(x[:, None]), axis=-1)
    evidence = np.log(np.exp(likelihood) @ weights / np.sqrt(2 * np.pi))
    ratios = np.exp([model.log_weights(params, x, rng) - evidence for _ in range(5_000)])
    assert (np.abs(ratios.mean(axis=0) - 1) < 5 * ratios.std(axis=0) / np.sqrt(len(ratios))).all()
    report = model.report(params, x, rng)
    assert report["held-out ELBO"].value < report["held-out 100-sample bound"].value < evidence.mean() + 0.1


def test_the_model_starts_at_the_mean_image():
    rng = np.random.default_rng(2)
    pixels = rng.integers(20, 230, (50, 12), dtype=np.uint8)
    params = vae.VAE([4], 2).initial(pixels, rng)
    mean = np.float32(pixels.mean(axis=0) / 255)
    np.testing.assert_allclose(mean @ params["encoder"][0].weight + params["encoder"][0].bias, 0, atol=1e-5)
    np.testing.assert_allclose(1 / (1 + np.exp(-params["decoder"][-1].bias)), mean, atol=1e-5)


# the trainer


def test_pixels_are_black_with_probability_exactly_their_intensity():
    n, rng = 20_000, np.random.default_rng(0)
    for pixel in (0, 1, 100, 254, 255):
        x = training.binarise(np.full(n, pixel, np.uint8), rng)
        p = pixel / 255
        assert x.dtype == np.float32 and set(np.unique(x)) <= {0, 1}
        assert abs(x.mean() - p) <= 5 * np.sqrt(p * (1 - p) / n)


def test_the_minibatches_of_an_epoch_add_up_to_the_sum_over_all_images():
    images = black_and_white()
    trainer = training.Trainer(Mean(), images, 0, 20, 1e-30, 0.0)
    seen = []
    real = trainer._gradient
    trainer._gradient = lambda params, x, rng: seen.append((x, *real(params, x, rng=rng))) or seen[-1][1:]
    entry = trainer.epoch()
    x = images.train.reshape(60, -1) / 255
    full = -np.sum((x - 0.25) ** 2)
    assert len(seen) == 3 and abs(entry["train"] * len(x) - full) < 1e-4 * abs(full)
    # the union of the minibatches is the data, and the scaled gradients average to that of the whole sum
    assert sorted(map(tuple, np.concatenate([s[0] for s in seen]))) == sorted(map(tuple, x.astype(np.float32)))
    total = np.mean([len(x) / 20 * (-20 * s[2]["point"]) for s in seen], axis=0)
    np.testing.assert_allclose(total, 2 * np.sum(x - 0.25, axis=0), rtol=1e-4, atol=1e-3)


def test_every_image_is_as_likely_in_every_minibatch():
    trainer = training.Trainer(Mean(), black_and_white(), 0, 20, 1e-3, 0.0)
    trainer.pixels, seen = np.arange(60, dtype=np.uint8)[:, None], []
    trainer.step = lambda pixels: seen.append(pixels.ravel()) or 0.0
    for _ in range(400):
        trainer.epoch()
    # in the first minibatch of each epoch: binomial(400, 1 / 3)
    counts = np.bincount(np.concatenate(seen[::3]), minlength=60)
    assert (np.abs(counts - 400 / 3) < 5.5 * np.sqrt(400 * 2 / 9)).all()  # sixty z-scores: 2e-6


def test_training_improves_the_held_out_bound(data, tmp_path, capsys):
    assert run(data, tmp_path, "--epochs", 60, "--learning-rate", 0.03, "--average", 0.9, "--hidden", 16) == 0
    tests = [entry["test"] for entry in outcome(tmp_path)[0]]
    start = np.mean(tests[:3])
    # with 12 held-out images and one draw for each, the bound scatters by about half a nat from epoch to epoch
    assert np.mean(tests[-3:]) > start + 2
    told = capsys.readouterr().out
    assert told.count("epoch ") >= 60 and "held-out 100-sample bound" in told and "left" in told
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["held-out 100-sample bound"]["value"] > result["held-out ELBO"]["value"] > start
    assert json.loads((tmp_path / "config.json").read_text())["learning_rate"] == 0.03


def test_the_embedded_digits_are_learned_by_the_default_model(tmp_path):
    assert vae.main(["--epochs", "1", "--out", str(tmp_path)]) == 0
    (entry,), _, _ = outcome(tmp_path)
    assert -195 < entry["test"] < -100  # the mean image alone has -206


# going on


def test_two_epochs_and_two_more_are_four_bit_for_bit(data, tmp_path):
    assert run(data, tmp_path / "four", "--epochs", 4) == 0
    assert run(data, tmp_path / "two", "--epochs", 2) == 0
    assert vae.main(["--out", str(tmp_path / "two"), "--resume", "--epochs", "4"]) == 0
    assert outcome(tmp_path / "two") == outcome(tmp_path / "four")
    assert run(data, tmp_path / "other", "--epochs", 4, "--seed", 1) == 0
    assert outcome(tmp_path / "other")[1] != outcome(tmp_path / "four")[1]


def test_a_finished_run_resumes_to_itself(data, tmp_path):
    assert run(data, tmp_path, "--epochs", 2) == 0
    before, result = outcome(tmp_path), (tmp_path / "result.json").read_text()
    (tmp_path / "metrics.jsonl").write_text("half a li")
    assert run(data, tmp_path, "--epochs", 2, "--resume") == 0
    assert outcome(tmp_path) == before and (tmp_path / "result.json").read_text() == result


def test_a_time_limit_ends_after_an_epoch_and_the_rest_follows(data, tmp_path):
    assert run(data, tmp_path / "a", "--epochs", 3, "--time-limit", 1e-9) == 0
    assert len(outcome(tmp_path / "a")[0]) == 1
    assert run(data, tmp_path / "a", "--resume") == 0
    assert run(data, tmp_path / "b", "--epochs", 3) == 0
    assert outcome(tmp_path / "a") == outcome(tmp_path / "b")


def start(data, out, *more):
    command = [
        sys.executable,
        "-m",
        "examples.vae",
        "--data",
        data,
        "--out",
        str(out),
        *SMALL,
        "--epochs",
        "400",
        *more,
    ]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_killed_at_any_moment_a_run_goes_on_bit_for_bit(data, tmp_path):
    assert run(data, tmp_path / "whole", "--epochs", 250) == 0
    moments, killed = random.Random(0), 0
    for _ in range(2):
        process = start(data, tmp_path / "killed", "--epochs", "250", "--resume")
        while not (tmp_path / "killed" / "metrics.jsonl").exists() and process.poll() is None:
            time.sleep(0.01)
        time.sleep(moments.uniform(0.02, 0.25))
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        killed += process.returncode == -signal.SIGKILL
        (tmp_path / "killed" / "metrics.jsonl").unlink(missing_ok=True)
    assert killed
    process = start(data, tmp_path / "killed", "--epochs", "250", "--resume")
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert outcome(tmp_path / "killed") == outcome(tmp_path / "whole")
    assert not list((tmp_path / "killed").glob(".*.tmp"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_kill_say_how_to_go_on(data, tmp_path, number):
    process = start(data, tmp_path, "--epochs", "100000")
    next(line for line in process.stdout if line.startswith("epoch"))
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number and f"--resume --out {tmp_path} goes on" in err and "Traceback" not in err
    assert len(json.loads(checkpoint.load(tmp_path / "checkpoint.npz")["history"])) >= 1


# refusals


def test_an_earlier_run_is_neither_mixed_with_a_new_one_nor_lost(data, tmp_path, capsys):
    assert run(data, tmp_path, "--epochs", 2, "--seed", 3) == 0
    before = outcome(tmp_path)
    capsys.readouterr()
    again = run(data, tmp_path, "--epochs", 1)
    told(capsys, again, "seed 3, 2 of 2 epochs", "--resume", "--overwrite", "--out DIR")
    assert outcome(tmp_path) == before
    assert run(data, tmp_path, "--epochs", 1, "--overwrite") == 0
    assert len(outcome(tmp_path)[0]) == 1
    with pytest.raises(SystemExit):
        run(data, tmp_path, "--overwrite", "--resume")
    assert "leave one of them out" in capsys.readouterr().err


def test_a_run_that_was_stopped_before_its_first_epoch_holds_nothing_up(data, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "metrics.jsonl").write_text("")
    assert run(data, tmp_path, "--epochs", 1) == 0


def test_a_worker_that_dies_is_told_with_the_command_that_goes_on(data, tmp_path, capsys, monkeypatch):
    def dies(*args, **more):
        raise BrokenProcessPool("a process was killed")

    assert run(data, tmp_path, "--epochs", 1) == 0
    monkeypatch.setattr(training.Trainer, "epoch", dies)
    capsys.readouterr()
    words = "worker process has died", f"python -m examples.vae --resume --out {tmp_path} goes on"
    told(capsys, run(data, tmp_path, "--epochs", 2, "--resume"), *words)


def test_an_example_is_not_an_argument(capsys):
    assert listing.main(["vae", "--epochs", "2"]) == 2
    assert "python -m examples.vae --epochs 2" in capsys.readouterr().err
    assert listing.main(["casino"]) == 2
    assert "python -m examples lists them" in capsys.readouterr().err


def test_a_damaged_checkpoint_is_told(data, tmp_path, capsys):
    assert run(data, tmp_path, "--epochs", 1) == 0
    path = tmp_path / "checkpoint.npz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    told(capsys, run(data, tmp_path, "--resume"), "checkpoint.npz", "damaged", "--overwrite")
    checkpoint.save(path, {"other": 1})
    told(capsys, run(data, tmp_path, "--resume"), "no checkpoint of an example")


def test_a_run_goes_on_with_its_own_settings_and_images_only(data, tmp_path, capsys):
    assert run(data, tmp_path, "--epochs", 1) == 0
    before = outcome(tmp_path)
    for other in (["--seed", 1], ["--latents", 3], ["--learning-rate", 0.1], ["--average", 0.5]):
        with pytest.raises(SystemExit) as caught:
            run(data, tmp_path, "--resume", *other)
        assert caught.value.code == 2 and f"{other[0]} {other[1]}" in capsys.readouterr().err
    (tmp_path / "other").mkdir()
    elsewhere = write(tmp_path / "other", train_images=black_and_white().train)
    told(
        capsys,
        vae.main(["--resume", "--out", str(tmp_path), "--data", str(elsewhere), "--epochs", "2"]),
        "other images",
    )
    assert outcome(tmp_path) == before


def test_bad_data_are_told_in_a_line(tmp_path, capsys):
    told(capsys, vae.main(["--data", str(tmp_path), "--out", str(tmp_path / "out")]), "train-images-idx3-ubyte")
    (tmp_path / "train-images-idx3-ubyte").write_bytes(rebuild.idx(np.zeros((60, 3, 3), np.uint8))[:-4])
    told(capsys, vae.main(["--data", str(tmp_path), "--out", str(tmp_path / "out")]), "truncated")
    (tmp_path / "train-images-idx3-ubyte").write_bytes(rebuild.idx(np.zeros((60, 3, 3), np.uint8)))
    told(capsys, vae.main(["--data", str(tmp_path), "--out", str(tmp_path / "out")]), "minibatch of 100", "48")
    assert not (tmp_path / "out").exists()


def test_an_output_directory_that_cannot_be_made_is_told(data, tmp_path, capsys):
    (tmp_path / "file").write_text("x")
    told(capsys, run(data, tmp_path / "file", "--epochs", 1), "--out", "file", "expected a directory")


def test_no_epochs_and_nothing_to_evaluate_is_told(data, tmp_path, capsys):
    told(capsys, run(data, tmp_path / "none", "--epochs", 0), "--epochs 0", "--epochs 1 or more")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    "option",
    [
        ["--epochs", "-1"],
        ["--batch", "0"],
        ["--learning-rate", "nan"],
        ["--average", "1"],
        ["--seed", "x"],
        ["--time-limit", "0"],
        ["--out", ""],
        ["--threads", "4097"],
    ],
)
def test_options_out_of_range_are_told(option, capsys):
    with pytest.raises(SystemExit):
        vae.main(option)
    assert f"argument {option[0]}: expected a" in capsys.readouterr().err


@pytest.mark.parametrize("more", [[], ["--no-compile"]])
def test_a_nan_stops_the_run_with_its_operation_and_leaves_the_checkpoint(data, tmp_path, capsys, monkeypatch, more):
    class Broken(vae.VAE):
        """Adam takes the fuse down by the learning rate in each step, and through zero in the fourth."""

        def initial(self, pixels, rng):
            return {**super().initial(pixels, rng), "fuse": np.array(0.035, np.float32)}

        def bound(self, params, x, rng):
            return super().bound(params, x, rng) - np.log(params["fuse"])

    monkeypatch.setattr(vae, "VAE", Broken)
    told(
        capsys,
        run(data, tmp_path, "--epochs", 3, "--learning-rate", 0.01, *more),
        "epoch 2, step 5",
        "log made a NaN",
        "intact",
    )
    history, arrays, _ = outcome(tmp_path)
    assert len(history) == 1 and all(
        np.isfinite(x).all() for _, x in leaves(checkpoint.load(tmp_path / "checkpoint.npz")["params"])
    )


def test_a_compiled_step_is_the_plain_one(data, tmp_path):
    """To rounding; each goes on bit for bit in its own way, and not in the other's."""
    for name, more in (("compiled", []), ("plain", ["--no-compile"]), ("threads", ["--threads", 2])):
        assert run(data, tmp_path / name, "--epochs", 2, *more) == 0
    (compiled, _, rng), *others = [outcome(tmp_path / name) for name in ("compiled", "plain", "threads")]
    for found, _, other in others:
        assert rng == other
        for a, b in zip(compiled, found, strict=True):
            assert a == pytest.approx(b, rel=1e-4)
    with pytest.raises(SystemExit):
        run(data, tmp_path / "compiled", "--resume", "--no-compile")


# what a person sees


def test_the_listing_names_every_example():
    folder = Path(examples.__path__[0])
    runnable = {
        m.name
        for m in pkgutil.iter_modules(examples.__path__)
        if (
            (folder / m.name / "__main__.py").exists()
            if m.ispkg
            else "__main__" in (folder / f"{m.name}.py").read_text()
        )
    }
    assert runnable - {"__main__"} == set(listing.EXAMPLES)


def test_the_listing_has_a_line_and_a_time_for_each(capsys):
    assert listing.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name in listing.EXAMPLES:
        (line,) = [line for line in lines if f"examples.{name} " in line]
        assert line.endswith("]") and "minute" in line


@pytest.mark.parametrize("width", [60, 80, 200])
@pytest.mark.parametrize("name", listing.EXAMPLES)
def test_help_descriptions_fit_the_terminal(name, width, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    module = importlib.import_module(f"examples.{name}")
    command = importlib.import_module(f"examples.{name}.__main__") if hasattr(module, "__path__") else module
    with pytest.raises(SystemExit):
        command.main(["--help"])
    description = capsys.readouterr().out.partition("\n\n")[2].partition("\noptions:")[0]
    assert max(map(len, description.splitlines())) <= width and module.__doc__.split()[-1] in description
    # no word is lost, and none changes its place
    assert description.split("\npositional")[0].split() == module.__doc__.split()


def test_help_shows_the_model_and_the_defaults(capsys):
    with pytest.raises(SystemExit) as caught:
        vae.main(["--help"])
    text = capsys.readouterr().out
    assert caught.value.code == 0 and "python -m examples.vae" in text and "N(0, I)" in text
    assert all(
        word in " ".join(text.split())
        for word in ("--resume", "(default: 300)", "(default: 0.001)", "(default: 0)", "(default: runs/vae)")
    )


def test_the_figure_is_drawn_where_matplotlib_is_and_missed_where_it_is_not(
    data, tmp_path, capsys, monkeypatch, figures
):
    installed = importlib.util.find_spec("matplotlib") is not None
    assert run(data, tmp_path / "a", "--epochs", 1) == 0
    assert (tmp_path / "a" / "a.png").exists() == installed
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert run(data, tmp_path / "b", "--epochs", 1) == 0
    assert "matplotlib is not installed" in capsys.readouterr().out and not (tmp_path / "b" / "b.png").exists()


def test_one_blas_thread_unless_the_user_says_otherwise():
    for given in ({}, {"OPENBLAS_NUM_THREADS": "2"}):
        clean = {k: v for k, v in os.environ.items() if k != "OPENBLAS_NUM_THREADS"}
        command = [sys.executable, "-c", "import examples, os; print(os.environ['OPENBLAS_NUM_THREADS'])"]
        shown = subprocess.run(
            command, cwd=ROOT, env={**clean, **given}, capture_output=True, text=True, timeout=60
        ).stdout
        assert shown.strip() == given.get("OPENBLAS_NUM_THREADS", "1")
