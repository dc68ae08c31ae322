"""The shared trainer: parts of minibatches on executors, models with a state, figures on demand, disks that fill up,
damaged and killed runs."""

import importlib.util
import json
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import examples
import scg
from examples import autoencoder, compare, digits, iwae, plots, ppca, training, vae
from scg import checkpoint
from scg.core.tree import leaves
from tests.support.examples import SMALL, Mean, black_and_white, damages, outcome, run, told

ROOT = Path(examples.__file__).parents[1]


def parts(params):
    return [x.tobytes() for _, x in leaves(params)]


# minibatches that are shared out


class Inline:
    """An executor that calls; it hands the parts out in another order."""

    def map(self, fn, *columns):
        jobs = list(enumerate(zip(*columns, strict=True)))
        found = {i: fn(*job) for i, job in reversed(jobs)}
        return [found[i] for i, _ in jobs]


def trained(executor, model=None, batch=22):
    trainer = training.Trainer(model or vae.VAE([6], 2), black_and_white(), 0, batch, 1e-2, 0.5, executor=executor)
    trainer.epoch()
    return trainer


def test_a_shared_minibatch_has_the_same_gradient_on_any_executor():
    whole = parts(trained(Inline()).params)
    for executor in (ThreadPoolExecutor(1), ThreadPoolExecutor(3)):
        with executor:
            assert parts(trained(executor).params) == whole


def test_the_parts_of_a_minibatch_add_up_to_it():
    images = black_and_white()
    one, shared = (training.Trainer(Mean(), images, 0, 22, 1e-2, 0.5, executor=e) for e in (None, Inline()))
    x = images.train.reshape(60, -1)[:22] / np.float32(255)
    (value, gradient), (total, added) = one.gradient(x), shared.gradient(x)  # 22 rows in four parts: of six and of five
    assert total == pytest.approx(float(value), rel=1e-6)
    np.testing.assert_allclose(added["point"], gradient["point"], rtol=1e-5)
    assert added["point"].dtype == np.float32


def test_the_parts_have_noise_of_their_own():
    class Noise(Mean):
        def bound(self, params, x, rng):
            seen.append(rng.standard_normal(3).tolist())
            return super().bound(params, x, rng)

    seen = []
    trainer = training.Trainer(Noise(), black_and_white(), 0, 20, 1e-2, 0.5, executor=Inline())
    trainer.step(trainer.pixels[:20])
    trainer.step(trainer.pixels[:20])
    assert len(seen) == 8 and len({tuple(s) for s in seen}) == 8


def test_workers_of_any_number_leave_the_same_parameters(data, tmp_path):
    assert run(data, tmp_path / "one", "--epochs", 2, "--workers", 1) == 0
    assert run(data, tmp_path / "more", "--epochs", 1, "--workers", 2) == 0
    assert run(data, tmp_path / "more", "--epochs", 2, "--workers", 1, "--resume") == 0
    (history, one, rng), (others, more, other) = outcome(tmp_path / "one"), outcome(tmp_path / "more")
    assert one == more and len(one) > 20 and history == others and rng == other
    with pytest.raises(SystemExit):
        vae.main(["--resume", "--out", str(tmp_path / "one"), "--workers", "2", "--seed", "9"])
    assert run(data, tmp_path / "whole", "--epochs", 1) == 0
    with pytest.raises(SystemExit):
        vae.main(["--resume", "--out", str(tmp_path / "whole"), "--workers", "2"])


def test_a_nan_in_a_part_is_named(capsys):
    class Broken(Mean):
        def bound(self, params, x, rng):
            return np.log(super().bound(params, x, rng))

    trainer = training.Trainer(Broken(), black_and_white(), 0, 20, 1e-2, 0.5, executor=Inline())
    with pytest.raises(scg.errors.NonFiniteError, match="epoch 1, step 1: log made a NaN"):
        trainer.step(trainer.pixels[:20])
    assert (trainer.params["point"] == 0.25).all()


def test_what_cannot_be_shared_out_is_told():
    class Learning(Mean):
        state = {"baseline": 1.0}

    with pytest.raises(scg.ScgError, match="--workers"):
        training.Trainer(Learning(), black_and_white(), 0, 20, 1e-2, 0.5, executor=Inline())
    with pytest.raises(scg.ScgError, match="4 parts"):
        training.Trainer(Mean(), black_and_white(), 0, 3, 1e-2, 0.5, executor=Inline())


def children(pid):
    return [int(c) for path in Path(f"/proc/{pid}/task").glob("*/children") for c in path.read_text().split()]


def test_workers_end_with_a_run_that_is_killed(data, tmp_path):
    command = [
        sys.executable,
        "-m",
        "examples.vae",
        "--data",
        data,
        "--out",
        str(tmp_path),
        *SMALL,
        "--epochs",
        "100000",
        "--workers",
        "1",
    ]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    next(line for line in process.stdout if line.startswith("epoch"))
    workers = children(process.pid)
    assert workers
    process.kill()
    process.communicate(timeout=60)
    until = time.monotonic() + 30
    while any(alive(pid) for pid in workers) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(alive(pid) for pid in workers)


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# models that remember


class Counting(Mean):
    """Its bound depends on how often it was taken; as a baseline's level would, this comes back with the checkpoint."""

    def __init__(self):
        self.count = 0

    def bound(self, params, x, rng):
        self.count += 1
        return super().bound(params, x, rng) * (1 + self.count / 100)

    @property
    def state(self):
        return {"count": self.count}

    @state.setter
    def state(self, state):
        self.count = state["count"]


def test_what_a_model_remembers_is_saved_and_restored(tmp_path):
    def fresh():
        return training.Trainer(Counting(), black_and_white(), 0, 20, 1e-2, 0.5)

    whole, first, second = fresh(), fresh(), fresh()
    for _ in range(4):
        whole.epoch()
    first.epoch()
    checkpoint.save(tmp_path / "c.npz", first.state)
    second.state = checkpoint.load(tmp_path / "c.npz", like=second.state)
    for _ in range(3):
        second.epoch()
    assert parts(second.params) == parts(whole.params) and second.model.count == whole.model.count


# data


def test_thresholds_and_grey_values():
    pixels = np.array([[0, 127, 128, 255]], np.uint8)
    rng = np.random.default_rng(0)
    assert training.binarise(pixels, rng, "threshold").tolist() == [[0, 0, 1, 1]]
    grey = training.binarise(pixels, rng, "none")
    np.testing.assert_allclose(grey, pixels / 255, rtol=1e-6)
    assert grey.dtype == np.float32 and rng.bit_generator.state == np.random.default_rng(0).bit_generator.state


def test_every_binarisation_trains_and_is_remembered(data, tmp_path):
    for how, decoder in (("threshold", "bernoulli"), ("none", "gaussian"), ("dynamic", "gaussian")):
        out = tmp_path / f"{how}-{decoder}"
        assert run(data, out, "--epochs", 1, "--binarise", how, "--decoder", decoder) == 0
        assert json.loads((out / "config.json").read_text())["binarise"] == how
    assert run(data, tmp_path / "grey", "--epochs", 1, "--decoder", "gaussian") == 0
    assert json.loads((tmp_path / "grey" / "config.json").read_text())["binarise"] == "none"


# every model that it trains

RUNS = {
    "vae": (vae.main, ["--hidden", "6", "--latents", "2", "--decoder", "gaussian"], {"plane", "traversals"}),
    "vae-score": (
        vae.main,
        ["--hidden", "6", "--latents", "3", "--estimator", "score+baseline", "--binarise", "threshold"],
        {"traversals"},
    ),
    "autoencoder": (
        autoencoder.main,
        ["--hidden", "6", "--latents", "2", "--prior", "normal"],
        {"plane", "traversals"},
    ),
    "ppca": (ppca.main, ["--latents", "3"], {"bounds", "traversals"}),
    "iwae": (
        iwae.main,
        ["--hidden", "6", "--latents", "3", "--k", "3", "--evaluate", "5", "--gradient", "dreg"],
        {"traversals"},
    ),
    "iwae-2": (
        iwae.main,
        ["--layers", "2", "--hidden", "6", "5", "--latents", "3", "2", "--k", "3", "--evaluate", "5"],
        {"traversals"},
    ),
}


@pytest.mark.parametrize("name", RUNS)
def test_every_model_is_trained_drawn_and_goes_on_bit_for_bit(data, tmp_path, name, figures, monkeypatch):
    """Whether figures are drawn or not."""
    main, argv, names = RUNS[name]
    argv = ["--data", data, "--batch", "20", *argv, "--out"]
    assert main([*argv, str(tmp_path / "whole"), "--epochs", "3"]) == 0
    with monkeypatch.context() as undrawn:
        undrawn.setitem(sys.modules, "matplotlib", None)
        assert main([*argv, str(tmp_path / "parts"), "--epochs", "1"]) == 0
        assert main(["--resume", "--epochs", "3", "--out", str(tmp_path / "parts")]) == 0
    assert outcome(tmp_path / "parts") == outcome(tmp_path / "whole")
    result = json.loads((tmp_path / "whole" / "result.json").read_text())
    assert result.pop("epochs") == 3 and all(np.isfinite(told["value"]) for told in result.values())
    if importlib.util.find_spec("matplotlib"):
        assert {path.stem for path in (tmp_path / "whole").glob("*.png")} == names | {"whole"}


def test_a_model_does_not_go_on_with_the_checkpoint_of_another(data, tmp_path, capsys):
    assert run(data, tmp_path, "--epochs", 1) == 0
    before = (tmp_path / "checkpoint.npz").read_bytes()
    told(
        capsys,
        autoencoder.main(["--resume", "--out", str(tmp_path)]),
        "checkpoint of python -m examples.vae",
        "examples.autoencoder",
    )
    assert (tmp_path / "checkpoint.npz").read_bytes() == before


# figures on demand


def test_figures_are_drawn_without_training(data, tmp_path, capsys, monkeypatch, figures):
    told(capsys, run(data, tmp_path / "none", "--figures"), "checkpoint.npz", "there is none")
    assert run(data, tmp_path, "--epochs", 2) == 0
    before, result = outcome(tmp_path), (tmp_path / "result.json").read_bytes()
    for picture in tmp_path.glob("*.png"):
        picture.unlink()
    monkeypatch.setattr(training.Trainer, "step", None)
    assert vae.main(["--figures", "--epochs", "4", "--out", str(tmp_path)]) == 0
    assert outcome(tmp_path) == before and (tmp_path / "result.json").read_bytes() == result
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        assert "matplotlib is not installed" in capsys.readouterr().out
    else:
        assert {p.name for p in tmp_path.glob("*.png")} == {f"{tmp_path.name}.png", "traversals.png", "plane.png"}


def test_a_picture_holds_its_images_in_their_places():
    rows = np.arange(3 * 6).reshape(3, 6) / 18
    picture = plots.grid(rows, (2, 3), 2)
    assert picture.shape == (7, 9)
    np.testing.assert_allclose(picture[1:3, 5:8], 1 - rows[1].reshape(2, 3))
    np.testing.assert_allclose(picture[4:6, 1:4], 1 - rows[2].reshape(2, 3))
    assert (picture[0] == 0.75).all() and (picture[4:6, 5:8] == 0.75).all()


# a full disk

LIMITED = """
import resource, signal, sys
from examples import training, vae
{before}
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
{after}
"""


def limited(limit, after, before=""):
    """A process that cannot make a file longer than ``limit`` bytes: what it meets is what a full disk gives it."""
    return subprocess.run(
        [sys.executable, "-c", LIMITED.format(limit=limit, before=before, after=after)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_a_full_disk_is_told_and_leaves_what_was_there(data, tmp_path):
    assert run(data, tmp_path, "--epochs", 2) == 0
    kept = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    history, arrays, rng = outcome(tmp_path)
    for limit in (0, 300, 5000):  # too little for config.json, for metrics.jsonl, for checkpoint.npz
        found = limited(limit, f"sys.exit(vae.main(['--resume', '--epochs', '4', '--out', {str(tmp_path)!r}]))")
        assert found.returncode == 1 and found.stderr.startswith("error: ") and found.stderr.count("\n") == 1, (
            found.stderr
        )
        assert "cannot write" in found.stderr and str(tmp_path) in found.stderr and "unchanged" in found.stderr
        assert {path.name for path in tmp_path.iterdir()} == set(kept)
        assert outcome(tmp_path) == (history, arrays, rng)
    assert vae.main(["--resume", "--epochs", "4", "--out", str(tmp_path)]) == 0
    assert run(data, tmp_path / "whole", "--epochs", 4) == 0
    assert outcome(tmp_path) == outcome(tmp_path / "whole")


def test_a_line_is_appended_whole_or_not_at_all(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("one\n")
    found = limited(8, f"training._append(training.Path({str(path)!r}), 'a longer line\\n')")
    assert "OSError" in found.stderr and "cannot write" in found.stderr and path.read_text() == "one\n"
    training._append(path, "two\n")
    assert path.read_text() == "one\ntwo\n"
    if Path("/dev/full").exists():
        with pytest.raises(OSError, match="/dev/full"):
            training._append(Path("/dev/full"), "line\n")


# damaged checkpoints and killed runs


def damaged(data, tmp_path, capsys, trials):
    assert run(data, tmp_path, "--epochs", 1) == 0
    path = tmp_path / "checkpoint.npz"
    whole, metrics = path.read_bytes(), (tmp_path / "metrics.jsonl").read_bytes()
    capsys.readouterr()
    for content in damages(whole, trials, np.random.default_rng(0)):
        path.write_bytes(content)
        told(capsys, vae.main(["--resume", "--epochs", "2", "--out", str(tmp_path)]), "checkpoint.npz")
    assert (tmp_path / "metrics.jsonl").read_bytes() == metrics and path.read_bytes() == bytes(content)


def test_a_run_refuses_a_damaged_checkpoint(data, tmp_path, capsys):
    damaged(data, tmp_path, capsys, 60)


@pytest.mark.long
def test_a_run_refuses_a_thousand_damaged_checkpoints(data, tmp_path, capsys):
    damaged(data, tmp_path, capsys, 1000)


@pytest.mark.long
def test_killed_at_fifty_random_moments_each_run_ends_in_the_same_bits(data, tmp_path):
    assert run(data, tmp_path / "whole", "--epochs", 25) == 0
    whole, moments, killed = outcome(tmp_path / "whole"), random.Random(1), 0
    command = [sys.executable, "-m", "examples.vae", "--data", data, *SMALL, "--epochs", "25", "--resume", "--out"]
    for i in range(50):
        out = tmp_path / f"killed-{i}"
        process = subprocess.Popen(
            [*command, str(out)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        if i % 5:  # else at any moment, of its beginning too
            while not (out / "metrics.jsonl").exists() and process.poll() is None:
                time.sleep(0.005)
        time.sleep(moments.uniform(0, 1.2 if i % 5 == 0 else 0.3))
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        killed += process.returncode == -signal.SIGKILL
        assert vae.main([*command[3:-2], "--resume", "--out", str(out)]) == 0
        assert outcome(out) == whole
        assert not list(out.glob(".*.tmp"))
    assert killed >= 40


# the comparison


def test_the_comparison_trains_evaluates_and_goes_on(data, tmp_path, capsys):
    argv = [
        "--data",
        data,
        "--out",
        str(tmp_path),
        "--seeds",
        "2",
        "--k",
        "2",
        "--epochs",
        "1",
        "--hidden",
        "4",
        "--latents",
        "2",
        "--evaluate",
        "3",
        "--images",
        "5",
    ]
    assert compare.main([*argv, "--processes", "1"]) == 0
    first = capsys.readouterr().out.partition("\n\n")[2]
    assert first.count("VAE, k=1 ") == 2 and "95% interval" in first and (tmp_path / "table.txt").read_text() in first
    assert len(list(tmp_path.glob("*/checkpoint.npz"))) == 6
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/bounds.npz")}
    (tmp_path / "iwae-2-seed-1" / "bounds.npz").unlink()
    assert compare.main([*argv, "--processes", "1"]) == 0
    assert capsys.readouterr().out.partition("\n\n")[2] == first
    assert sum(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items()) == 5
    with pytest.raises(digits.DataError, match="--latents.*made with"):
        compare.train(compare.rows(2)[0], 0, compare.parser().parse_args([*argv, "--latents", "3"]))


def test_a_comparison_does_not_call_longer_runs_shorter_ones(data, tmp_path):
    small = ["--hidden", "4", "--latents", "2", "--evaluate", "3", "--images", "5", "--k", "2"]
    argv = ["--data", data, "--out", str(tmp_path), *small, "--epochs"]
    row = compare.rows(2)[0]
    compare.train(row, 0, compare.parser().parse_args([*argv, "3"]))
    with pytest.raises(digits.DataError, match="holds 3 epochs, and --epochs 2 asks for fewer: use --epochs 3"):
        compare.train(row, 0, compare.parser().parse_args([*argv, "2"]))


@pytest.mark.parametrize(
    "gap, words",
    [
        ({"gap": 2.0, "low": 1.0, "high": 3.0}, "IWAE, k=2 is better than VAE, k=1, as published"),
        ({"gap": -5.0, "low": -7.3, "high": -3.3}, "IWAE, k=2 is worse than VAE, k=1"),
        ({"gap": 0.1, "low": -1.0, "high": 1.2}, "do not tell IWAE, k=2 from VAE, k=1"),
        ({"gap": 0.1}, "use --seeds 3"),
    ],
)
def test_the_order_is_claimed_where_an_interval_shows_it(gap, words):
    (line,) = compare.order({"VAE, k=1 - IWAE, k=2": gap}, compare.rows(2)[-1])
    assert words in line


def test_ctrl_c_ends_the_comparison_and_its_runs(data, tmp_path):
    command = [
        sys.executable,
        "-m",
        "examples.compare",
        "--data",
        data,
        "--out",
        str(tmp_path),
        "--epochs",
        "100000",
        "--batch",
        "20",
        "--k",
        "2",
        "--processes",
        "1",
    ]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 60
    while not list(tmp_path.glob("*/checkpoint.npz")) and time.monotonic() < until:
        time.sleep(0.05)
    workers = children(process.pid)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "the same command goes on" in err and workers
    while any(alive(pid) for pid in workers) and time.monotonic() < until + 60:
        time.sleep(0.05)
    assert not any(alive(pid) for pid in workers)


def test_the_table_has_gaps_and_their_intervals():
    bounds = {
        row: -np.full((3, 4), value) - [[0.0], [1.0], [2.0]]
        for row, value in zip(compare.rows(50), (90.0, 89.0, 85.0), strict=True)
    }
    bounds[compare.rows(50)[0]] -= [[0.0], [0.3], [0.6]]
    text, gaps = compare.table(bounds)
    gap = gaps["VAE, k=1 - IWAE, k=50"]
    assert gap["gap"] == pytest.approx(5.3) and gap["high"] - gap["gap"] == pytest.approx(4.302653 * 0.3 / 3**0.5)
    one, alone = compare.table({row: values[:1] for row, values in bounds.items()})
    assert "of one seed" in one and "nan" not in one and set(alone["VAE, k=1 - IWAE, k=50"]) == {"gap"}
    assert "86.76" in text and "84.78" in text and "1.98" in text and "1.57" in text


def test_the_comparison_gives_every_objective_as_many_updates():
    made = [iwae.make(iwae.parser().parse_args(["--bound", row.bound, "--k", str(row.k)])) for row in compare.rows(50)]
    assert [(model.k, model.objective.__name__) for model in made] == [(1, "elbo"), (50, "elbo"), (50, "iwae")]
    assert len({(tuple(model.latents), tuple(model.hidden)) for model in made}) == 1
