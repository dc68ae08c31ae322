"""Every outcome of a run that draws from distributions of finitely many values, whoever draws: the program or its
estimators."""

import numpy as np

from scg.distributions.base import atoms_of
from scg.distributions.bernoulli import Bernoulli
from scg.distributions.categorical import Categorical
from scg.distributions.coupling import Kept, Turned

FINITE = (Bernoulli, Categorical, Kept, Turned)


def outcomes(monkeypatch, run):
    """(probability, result) of every outcome: ``sample`` of the finite distributions takes each of its values in
    turn."""
    path, place, probability = [], 0, 1.0

    def sample(self, rng, shape=()):
        nonlocal place, probability
        plain = self.detached()
        full = plain.full_shape(shape)
        atoms = np.unique(atoms_of(plain))
        masses = np.stack([np.broadcast_to(plain.masses(np.full(full, a)), full) for a in atoms], axis=-1)
        found = np.empty(full, plain.dtype)
        for index in np.ndindex(full):
            values = np.flatnonzero(masses[index] > 0)
            if place == len(path):
                path.append([0, len(values)])
            k = values[path[place][0]]
            found[index], place = atoms[k], place + 1
            probability *= masses[(*index, k)]
        return found

    with monkeypatch.context() as patch:
        for kind in FINITE:
            patch.setattr(kind, "sample", sample)
        found = []
        while True:
            place, probability = 0, 1.0
            result = run()
            found.append((probability, result))
            del path[place:]
            while path and path[-1][0] + 1 == path[-1][1]:
                path.pop()
            if not path:
                break
            path[-1][0] += 1
    np.testing.assert_allclose(sum(p for p, _ in found), 1, rtol=1e-12)
    return found


def mean_and_variance(found):
    mean = sum(p * np.asarray(g) for p, g in found)
    return mean, sum(p * (np.asarray(g) - mean) ** 2 for p, g in found)
