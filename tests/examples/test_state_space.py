"""The level of the Nile: the particle filter beside Kalman's, what is learned, and the command line."""

import json

import numpy as np
import pytest

from examples import state_space
from scg import distributions as dist

pytestmark = pytest.mark.usefixtures("figures")

SCALES = np.log([40.0, 120.0])


def rng(seed=0):
    return np.random.default_rng(seed)


def test_the_series_is_that_of_the_literature():
    assert state_space.NILE.shape == (100,) and state_space.NILE.sum() == 91935 and state_space.NILE[42] == 456
    # Durbin and Koopman: the most likely variances are 1469.1 and 15098.5 (for a prior without an end)
    near = state_space.kalman(np.log(np.sqrt([1469.1, 15098.5])))[0]
    for factor in (0.9, 1.1):
        assert state_space.kalman(np.log(np.sqrt([1469.1 * factor, 15098.5])))[0] < near
        assert state_space.kalman(np.log(np.sqrt([1469.1, 15098.5 * factor])))[0] < near


def test_kalman_is_a_multivariate_normal():
    q, r = np.exp(2 * SCALES)
    t = np.arange(100)
    cover = 500.0**2 + q * np.minimum(t[:, None], t) + r * np.eye(100)
    exact = dist.MultivariateNormal(np.full(100, 1000.0), np.linalg.cholesky(cover)).log_prob(state_space.NILE)
    total, means, variances = state_space.kalman(SCALES)
    assert abs(total - exact) < 1e-8
    gain = (cover - r * np.eye(100))[:, :] @ np.linalg.solve(cover, state_space.NILE - 1000)
    np.testing.assert_allclose(state_space.smoother(SCALES), 1000 + gain, rtol=1e-9)


def test_the_particle_filter_agrees_with_kalman():
    found = state_space.run(SCALES, rng(), "normal", 5000, "none")
    total, means, variances = state_space.kalman(SCALES)
    assert abs(found.log_evidence.value - total) < 0.5
    assert np.max(np.abs(found.filtered().value - means)) < 8  # of standard deviations of about 60
    paths = found.smoothed(lambda t, z: state_space.moves("normal", 40.0, z), paths=300, rng=rng(1))
    assert np.sqrt(np.mean((paths.mean(axis=1) - state_space.smoother(SCALES)) ** 2)) < 6


@pytest.mark.parametrize("kind", ["normal", "student"])
def test_the_command_learns_draws_and_writes(kind, tmp_path, capsys):
    given = ["--steps", kind, "--particles", "30", "--updates", "10", "--out", str(tmp_path)]
    assert state_space.main(given) == 0
    result = json.loads((tmp_path / "result.json").read_text())
    assert len(result["curve"]) == 10 and result["curve"][-1] > result["curve"][0]
    assert (tmp_path / "level.png").read_bytes().startswith(b"\x89PNG") and "learned" in capsys.readouterr().out
    assert ("kalman" in result) == (kind == "normal")


def test_options_are_checked(capsys):
    for given, message in (
        (["--seed", "-1"], "at least 0"),
        (["--correction", "score function"], "multinomial"),
        (["--particles", "0"], "integer from 1"),
    ):
        with pytest.raises(SystemExit):
            state_space.main(given)
        assert message in capsys.readouterr().err
