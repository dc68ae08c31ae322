"""At which values of finite samples the lines of continuous samples are looked at.

What multiplies a function of z may be zero at most values of coins, as b_1 (1 - b_2) b_3 is, and hide how narrow it is.
So a line runs once for all combinations of the coins that meet there, where these are few. Elements have *colours*: two
that meet on one line differ, and combinations are those of colours, however many elements there are.
"""

import itertools
import math

import numpy as np

_MOST = 2**20  # combinations that a number of rows is compared with


def combinations(sizes: np.ndarray, meets: list[set[int]], most: int) -> np.ndarray:
    """Values of finite elements, (rows, elements) positions among those of each, in at most ``most`` rows.

    ``sizes`` has how many values each element has, ``meets`` for each line the elements that meet there. Where the
    combinations of the colours are more, coin j of row r is the parity of r & c_j, an orthogonal array (Rao, 1947):
    codes c_j are odd numbers of bits first, of which any three coins have all combinations; a first and a last row have
    the first and the last value of all.
    """
    colours = _coloured(len(sizes), meets)
    each = [int(np.max(sizes[colours == c], initial=1)) for c in range(int(np.max(colours, initial=-1)) + 1)]
    if sum(map(math.log2, each)) <= math.log2(_MOST) and math.prod(each) <= most:
        rows = np.array(list(itertools.product(*[range(n) for n in each])), int).reshape(-1, len(each))
        return np.minimum(rows[:, colours], sizes - 1)
    bits = max(1, int(math.log2(most)) - (2 ** int(math.log2(most)) > most - 2))
    codes = np.arange(1, 2**bits)
    codes = codes[np.lexsort([codes, np.bitwise_count(codes) % 2 == 0])]
    row = np.arange(2**bits)[:, None]
    coins = np.bitwise_count(row & codes[colours % len(codes)]) & 1
    drawn = np.random.default_rng(0).integers(sizes, size=(2**bits, len(sizes)))
    rows = np.where(sizes == 2, coins, drawn)
    return np.concatenate([np.zeros((1, len(sizes)), int), rows, sizes[None] - 1])


def _coloured(count: int, meets: list[set[int]]) -> np.ndarray:
    near: dict[int, set[int]] = {}
    for group in set(map(frozenset, meets)):
        for element in group:
            near.setdefault(element, set()).update(group)
    colours = np.zeros(count, int)
    for element in sorted(near):
        taken = {int(colours[other]) for other in near[element] if other < element}
        colours[element] = next(c for c in itertools.count() if c not in taken)
    return colours
