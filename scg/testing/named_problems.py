"""Named problems of the literature on gradient estimators, small enough to have exact answers."""

import numpy as np

from scg.core.aliases import Result
from scg.core.node import Value
from scg.testing.problem import Draw, Problem, namespace


def problems() -> list[Problem]:
    """Two dozen problems, from one coin to a hidden Markov model, each with its exact gradient.

    A problem has ``name``, ``source``, ``parameters`` (a dict of arrays), ``draws`` (families with their parameters, as
    functions of the problem's parameters), ``cost`` (for arrays of NumPy, PyTorch and JAX alike), ``value``,
    ``gradient``, ``variance(name)`` of known estimators, all exact, and ``graph()``, the same in scg: see ``Problem``.

    >>> import scg
    >>> [problem] = [p for p in scg.testing.problems() if p.name == "coin"]
    >>> problem.parameters, problem.draws[0].family
    ({'logits': array(0.)}, 'Bernoulli')
    >>> round(float(problem.gradient["logits"]), 9), round(float(problem.variance("score function")["logits"]), 9)
    (0.0005, 0.0156251...)
    """
    return [*_coins(), *_categories(), *_counts(), *_continuous(), *_mixed()]


def _bernoulli(name: str = "b", key: str = "logits") -> Draw:
    return Draw(name, "Bernoulli", lambda p, *_: {"logits": p[key]})


def _coins() -> list[Problem]:
    targets = np.array([0.2, 0.9, 0.45, 0.6])
    edges = ((0, 1), (1, 2), (2, 3), (3, 4), (4, 0), (0, 2))
    values, weights = (3.0, 4.0, 5.0, 8.0, 2.0), (2.0, 3.0, 4.0, 6.0, 1.0)

    def excess(b: Value) -> Value:
        over = sum(w * b[..., i] for i, w in enumerate(weights)) - 9.0
        return (over + abs(over)) / 2

    return [
        Problem(
            "coin",
            "Tucker et al. (2017), REBAR, and Grathwohl et al. (2018), RELAX: E[(b - t)^2] with t = 0.499",
            {"logits": np.array(0.0)},
            (_bernoulli(),),
            lambda b: (b - 0.499) ** 2,
        ),
        Problem(
            "coin, p = 0.3",
            "Tucker et al. (2017), REBAR, with t = 0.45",
            {"logits": np.log(np.array(0.3 / 0.7))},
            (_bernoulli(),),
            lambda b: (b - 0.45) ** 2,
        ),
        Problem(
            "coins apart",
            "Tucker et al. (2017), REBAR: the toy of 200 coins, here six; the cost is a mean of one term for each",
            {"logits": np.linspace(-1.5, 1.5, 6)},
            (_bernoulli(),),
            lambda b: ((b - 0.499) ** 2).sum(-1) / 6,
        ),
        Problem(
            "coins together",
            "Dong, Mnih and Tucker (2020), DisARM: a cost that all coins share",
            {"logits": np.array([0.5, -0.3, 1.2, 0.0])},
            (_bernoulli(),),
            lambda b: (sum(b[..., i] * t for i, t in enumerate(targets)) - 1.0) ** 2,
        ),
        Problem(
            "coins, likely ones",
            "Yin and Zhou (2019), ARM: probabilities near 0 and 1, where score functions vary most",
            {"logits": np.array([-4.0, 3.5, 5.0])},
            (_bernoulli(),),
            lambda b: (b.sum(-1) - 1.5) ** 2,
        ),
        Problem(
            "knapsack",
            "a relaxation by probabilities, after Karalias and Loukas (2020), Erdos goes neural: value less a penalty",
            {"logits": np.array([0.2, -0.4, 0.1, 0.8, -1.0])},
            (_bernoulli(),),
            lambda b: 2.0 * excess(b) - sum(v * b[..., i] for i, v in enumerate(values)),
        ),
        Problem(
            "max-cut",
            "a relaxation by probabilities, after Karalias and Loukas (2020), Erdos goes neural: edges that are cut",
            {"logits": np.array([0.3, -0.2, 0.5, 0.0, -0.7])},
            (_bernoulli(),),
            lambda b: -sum((b[..., i] - b[..., j]) ** 2 for i, j in edges),
        ),
        Problem(
            "binary chain",
            "a Markov chain of coins, z' ~ Bernoulli(0.2 + 0.6 z): credit that falls off by 0.6 a step",
            {"probs": np.array(0.5)},
            (
                Draw("z0", "Bernoulli", lambda p: {"probs": p["probs"]}),
                *[Draw(f"z{i}", "Bernoulli", lambda p, *z: {"probs": 0.2 + 0.6 * z[-1]}) for i in range(1, 6)],
            ),
            lambda *z: sum(z[1:], z[0]),
        ),
        _belief_network(),
    ]


def _belief_network() -> Problem:
    x = (1.0, -1.0)
    rng = np.random.default_rng(0)

    def layer(weights: Value, below: Value) -> Value:
        return sum(weights[i] * below[..., i : i + 1] for i in range(weights.shape[0] - 1)) + weights[-1]

    def first(p: Result) -> Result:
        return {"logits": sum(p["first"][i] * value for i, value in enumerate(x)) + p["first"][-1]}

    def cost(one: Result, two: Result) -> Result:
        xp = namespace(two)
        score = 1.4 * two[..., 0] - 0.9 * two[..., 1] - 0.1
        return xp.log(1 + xp.exp(-score))

    return Problem(
        "sigmoid belief network",
        "Gu et al. (2016), MuProp, and Tang and Salakhutdinov (2013): stochastic layers of 3 and 2 units that predict",
        {"first": rng.normal(size=(3, 3)), "second": rng.normal(size=(4, 2))},
        (
            Draw("one", "Bernoulli", first),
            Draw("two", "Bernoulli", lambda p, one: {"logits": layer(p["second"], one)}),
        ),
        cost,
    )


def _categories() -> list[Problem]:
    rewards = np.array([0.1, -0.4, 0.7, 0.2])
    table = np.random.default_rng(1).normal(size=(3, 3))

    def looked_up(z: Value) -> Value:
        """The reward of each arm, as the polynomial through them: any framework's numbers will do."""
        coefficients = np.polyfit(np.arange(4), rewards, 3).tolist()
        return ((coefficients[0] * z + coefficients[1]) * z + coefficients[2]) * z + coefficients[3]

    def after(*drawn: Result) -> Result:
        p, last = drawn[0], drawn[-1]
        return {"logits": p["next"][last]}

    start = Draw("z0", "Categorical", lambda p: {"logits": p["start"]})
    return [
        Problem(
            "category",
            "Yin, Yue and Zhou (2019), ARSM: the toy with cost 0.5 + z/(C R), R = 30, here of C = 6 categories",
            {"logits": np.zeros(6)},
            (Draw("z", "Categorical", lambda p: {"logits": p["logits"]}),),
            lambda z: 0.5 + (z + 1) / (6 * 30.0),
        ),
        Problem(
            "bandit",
            "Sutton and Barto (2018), chapter 2.8: a softmax policy on four arms",
            {"logits": np.array([0.2, 0.0, -0.5, 0.4])},
            (Draw("arm", "Categorical", lambda p: {"logits": p["logits"]}),),
            lambda z: -looked_up(z),
        ),
        Problem(
            "categorical chain",
            "Schulman et al. (2015), a chain of stochastic nodes: three categories, a table of transitions",
            {"start": np.array([0.3, -0.2, 0.0]), "next": table},
            (start, Draw("z1", "Categorical", after), Draw("z2", "Categorical", after)),
            lambda a, b, c: (a - b) ** 2 + 0.5 * (b - c - 1.0) ** 2,
        ),
        Problem(
            "three tokens",
            "Ahmadian et al. (2024), Back to basics: a policy of three tokens, rewarded as a whole",
            {"start": np.array([0.1, 0.4, -0.3]), "next": table.T},
            (start, Draw("z1", "Categorical", after), Draw("z2", "Categorical", after)),
            lambda a, b, c: (a + 2.0 * b + 3.0 * c - 5.0) ** 2 / 10.0,
        ),
    ]


def _counts() -> list[Problem]:
    def served(*drawn: Result) -> Result:
        """The length of a queue, slot by slot: what comes, less what is served, and never below zero."""
        length, waited = 0.0, 0.0
        for arrived, done in zip(drawn[::2], drawn[1::2], strict=True):
            left = length + arrived - done
            length = (left + abs(left)) / 2
            waited = waited + length
        return waited

    slots = [
        Draw(f"{name}{i}", "Bernoulli", lambda p, *_, key=name: {"logits": p[key]})
        for i in range(4)
        for name in ("arrival", "service")
    ]
    return [
        Problem(
            "poisson",
            "Mohamed et al. (2020), section 3: a count, E[(n - 3)^2] = r + (r - 3)^2 for its log-rate",
            {"log_rate": np.array(0.7)},
            (Draw("n", "Poisson", lambda p: {"rate": namespace(p["log_rate"]).exp(p["log_rate"])}),),
            lambda n: (n - 3.0) ** 2,
        ),
        Problem(
            "queue",
            "Glasserman (1991), Gradient estimation via perturbation analysis: a queue in discrete time, four slots",
            {"arrival": np.array(-0.3), "service": np.array(0.2)},
            tuple(slots),
            served,
        ),
    ]


def _normal() -> Draw:
    return Draw("x", "Normal", lambda p: {"loc": p["loc"], "scale": namespace(p["log_scale"]).exp(p["log_scale"])})


def _continuous() -> list[Problem]:
    at = {"loc": np.array(1.0), "log_scale": np.array(0.0)}
    mohamed = "Mohamed et al. (2020), Monte Carlo gradient estimation in machine learning, section 3"
    return [
        Problem("gaussian, square", f"{mohamed}: (x - k)^2, k = -3", at, (_normal(),), lambda x: (x + 3.0) ** 2),
        Problem(
            "gaussian, cosine",
            f"{mohamed}: cos(k x), k = 2",
            {"loc": np.array(0.4), "log_scale": np.array(-0.2)},
            (_normal(),),
            lambda x: namespace(x).cos(2.0 * x),
        ),
        Problem(
            "gaussian, bell",
            f"{mohamed}: exp(-k x^2), k = 1",
            {"loc": np.array(0.5), "log_scale": np.array(0.1)},
            (_normal(),),
            lambda x: namespace(x).exp(-(x**2)),
        ),
        Problem(
            "gaussian, two wells",
            "Wierstra et al. (2014), Natural evolution strategies: (x^2 - 1)^2 through a search distribution",
            {"loc": np.array(-0.3), "log_scale": np.array(-0.5)},
            (_normal(),),
            lambda x: (x**2 - 1.0) ** 2,
        ),
        Problem(
            "gamma",
            "Figurnov, Mohamed and Mnih (2018), Implicit reparameterization: a gamma variable, E[(x - 1)^2]",
            {"log_concentration": np.array(0.6), "log_rate": np.array(0.2)},
            (
                Draw(
                    "x",
                    "Gamma",
                    lambda p: {
                        "concentration": namespace(p["log_rate"]).exp(p["log_concentration"]),
                        "rate": namespace(p["log_rate"]).exp(p["log_rate"]),
                    },
                ),
            ),
            lambda x: (x - 1.0) ** 2,
        ),
        Problem(
            "exponential",
            "Rubinstein (1992), Sensitivity analysis of discrete event systems: a service time, E[(x - 2)^2]",
            {"log_rate": np.array(-0.3)},
            (Draw("x", "Exponential", lambda p: {"rate": namespace(p["log_rate"]).exp(p["log_rate"])}),),
            lambda x: (x - 2.0) ** 2,
        ),
        Problem(
            "beta",
            "Jankowiak and Obermeyer (2018), Pathwise derivatives beyond the reparameterization trick: E[(x - 0.3)^2]",
            {"log_a": np.array(0.5), "log_b": np.array(0.9)},
            (
                Draw(
                    "x",
                    "Beta",
                    lambda p: {
                        "concentration1": namespace(p["log_a"]).exp(p["log_a"]),
                        "concentration0": namespace(p["log_b"]).exp(p["log_b"]),
                    },
                ),
            ),
            lambda x: (x - 0.3) ** 2,
        ),
    ]


def _mixed() -> list[Problem]:
    observed = (0.8, 1.1, -0.2, 0.4)
    return [
        Problem(
            "mixture",
            "Graves (2016), Stochastic backpropagation through mixture density distributions",
            {"logits": np.array([0.3, -0.1, 0.5]), "loc": np.array([-1.0, 0.2, 1.5])},
            (
                Draw("k", "Categorical", lambda p: {"logits": p["logits"]}),
                Draw("x", "Normal", lambda p, k: {"loc": p["loc"][k], "scale": 0.5 + 0.0 * p["loc"][k]}),
            ),
            lambda k, x: (x - 0.7) ** 2 + 0.1 * k,
        ),
        Problem(
            "hidden Markov model",
            "Rabiner (1989): four hidden coins, z' ~ Bernoulli(sigmoid(stay z + bias)), and a squared error",
            {"start": np.array(0.2), "stay": np.array(1.3), "bias": np.array(-0.6)},
            (
                Draw("z0", "Bernoulli", lambda p: {"logits": p["start"]}),
                *[
                    Draw(f"z{i}", "Bernoulli", lambda p, *z: {"logits": p["stay"] * z[-1] + p["bias"]})
                    for i in range(1, 4)
                ],
            ),
            lambda *z: sum((value - 1.2 * state) ** 2 for value, state in zip(observed, z, strict=True)),
        ),
    ]
