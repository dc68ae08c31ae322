"""The ufuncs of ``scipy.special``, and ``scg.special``."""

import numpy as np
import scipy
import scipy.special as sp

import scg.special
from tests.support.cases import Case, Domain

REAL, POSITIVE, PROBABILITY, UNIT = Domain(), Domain(0.3, 3.0), Domain(0.1, 0.9), Domain(-0.8, 0.8)
SHAPE, LARGE = Domain(0.5, 4.0), Domain(3.2, 6.0)
# stdtrit of older SciPy keeps eleven digits: too few for a second difference
BOOST = tuple(map(int, scipy.__version__.split(".")[:2])) >= (1, 17)


def ufuncs(domains, *names, order=2):
    return [Case(f"scipy.special.{name}", getattr(sp, name), domains, order) for name in names]


def of_order(orders, domain, *names):
    """f(n, x) in x, at fixed n; of x's dtype, since SciPy takes Python numbers to float64."""
    return [
        Case(f"scipy.special.{name}", lambda x, n=n, fn=getattr(sp, name): fn(x.dtype.type(n), x), (domain,))
        for name in names
        for n in orders
    ]


def of_degree(degrees, domain, *names):
    """f(n, x) in x, at fixed integers n (one or several), with which SciPy computes in float64."""
    return [
        Case(
            f"scipy.special.{name}",
            lambda x, n=n, fn=getattr(sp, name): fn(*map(np.int64, n), x).astype(x.dtype),
            (domain,),
        )
        for name in names
        for n in degrees
    ]


def of_last(domain, order=2, **parameters):
    """f(*parameters, x) in x, the parameters of x's dtype."""
    return [
        Case(
            f"scipy.special.{name}", lambda x, p=p, fn=getattr(sp, name): fn(*map(x.dtype.type, p), x), (domain,), order
        )
        for name, p in parameters.items()
    ]


def own(name, *domains, order=2, **statics):
    fn = getattr(scg.special, name)
    return Case(f"scg.special.{name}", lambda *x: fn(*x, **statics), domains, order)


CUBE = Domain(-2, 2, (2, 3, 2))

CASES = [
    # gamma functions
    *ufuncs((POSITIVE,), "gamma", "gammaln", "loggamma", "rgamma", "digamma", "psi"),
    *ufuncs((Domain(-0.9, -0.1),), "gamma", "gammaln", "rgamma", "digamma"),
    *ufuncs((SHAPE, SHAPE), "beta", "betaln", "poch"),
    *ufuncs((LARGE, Domain(0.2, 2.8)), "binom"),
    Case("scipy.special.zeta", lambda q: sp.zeta(2.5, q), (POSITIVE,)),
    Case("scg.special.polygamma", lambda x: scg.special.polygamma(2, x), (POSITIVE,)),
    Case("scg.special.polygamma", lambda x: scg.special.polygamma(0, x), (POSITIVE,)),
    Case("scg.special.multigammaln", lambda a: scg.special.multigammaln(a, 3), (Domain(1.5, 5.0),)),
    # incomplete gamma and beta functions and their distributions
    *ufuncs((SHAPE, POSITIVE), "gammainc", "gammaincc", "chdtr", "chdtrc", order=1),
    *ufuncs((SHAPE, PROBABILITY), "gammaincinv", "gammainccinv", "stdtrit", order=1),
    *ufuncs((SHAPE, SHAPE, PROBABILITY), "betainc", "betaincc", "betaincinv", "betainccinv", order=1),
    *ufuncs((POSITIVE, SHAPE, POSITIVE), "gdtr", "gdtrc", order=1),
    *ufuncs((SHAPE, REAL), "stdtr", order=1),
    *of_last(
        POSITIVE, gammainc=(2.5,), gammaincc=(2.5,), chdtr=(3.5,), chdtrc=(3.5,), gdtr=(1.5, 2.5), gdtrc=(1.5, 2.5)
    ),
    *of_last(POSITIVE, fdtr=(3.0, 4.0), fdtrc=(3.0, 4.0), pdtr=(3.0,), pdtrc=(3.0,)),
    *of_last(
        PROBABILITY,
        gammaincinv=(2.5,),
        gammainccinv=(2.5,),
        betainc=(1.5, 2.5),
        betaincc=(1.5, 2.5),
        betaincinv=(1.5, 2.5),
    ),
    *of_last(PROBABILITY, betainccinv=(1.5, 2.5)),
    *of_last(PROBABILITY, 2 if BOOST else 1, stdtrit=(3.5,)),
    *of_degree([(2, 5)], PROBABILITY, "nbdtr", "nbdtrc"),
    *[
        Case(f"scipy.special.{fn.__name__}", lambda p, fn=fn: fn(2.0, np.int64(5), p).astype(p.dtype), (PROBABILITY,))
        for fn in (sp.bdtr, sp.bdtrc)
    ],
    *of_last(Domain(0.4, 2.0), stdtr=(3.5,)),
    own("vonmises_cdf", Domain(-3, 3), POSITIVE, order=1),
    Case("scg.special.vonmises_cdf", lambda x: scg.special.vonmises_cdf(x, 2.0), (Domain(-3, 3),)),
    # the normal distribution and its kin
    *ufuncs((REAL,), "erf", "erfc", "erfcx", "erfi", "dawsn", "ndtr", "log_ndtr"),
    *ufuncs((UNIT,), "erfinv"),
    *ufuncs((PROBABILITY,), "ndtri", "logit", "erfcinv"),
    *ufuncs((Domain(-3.0, -0.2),), "ndtri_exp"),
    *ufuncs((Domain(0.2, 1.5), Domain(0.2, 1.5)), "owens_t"),
    # logistic functions, logarithms and exponentials
    *ufuncs((REAL,), "expit", "log_expit", "exp2", "exp10", "expm1", "cosm1", "exprel"),
    *ufuncs((POSITIVE,), "log1p", "cbrt", "entr"),
    *ufuncs((REAL, POSITIVE), "xlogy", "xlog1py"),
    *ufuncs((POSITIVE, POSITIVE), "rel_entr", "kl_div"),
    *ufuncs((POSITIVE, REAL), "powm1", "boxcox", "boxcox1p"),
    *ufuncs((Domain(-0.5, 0.5), Domain(0.2, 1.5)), "inv_boxcox", "inv_boxcox1p"),
    *ufuncs((Domain(-0.5, 0.5), Domain(-1e-3, 1e-3)), "inv_boxcox"),
    *ufuncs((POSITIVE, Domain(-1e-3, 1e-3)), "boxcox"),
    # losses, angles
    *ufuncs((Domain(1.0, 2.0), Domain(2.5, 4.0)), "huber"),
    *ufuncs((Domain(1.0, 2.0), Domain(-0.8, 0.8)), "huber"),
    *ufuncs((POSITIVE, REAL), "pseudo_huber"),
    *ufuncs((Domain(-60.0, 60.0),), "sindg", "cosdg", "tandg"),
    *ufuncs((Domain(20.0, 80.0),), "cotdg"),
    *ufuncs((REAL, REAL, REAL), "radian"),
    # Bessel functions
    *ufuncs((POSITIVE,), "j0", "j1", "y0", "y1", "i0", "i1", "i0e", "i1e", "k0", "k1", "k0e", "k1e"),
    *of_order((0.0, 1.0, 2.5), POSITIVE, "jv", "jve", "yv", "yve", "iv", "ive", "kv", "kve", "struve", "modstruve"),
    *of_degree([(0,), (3,)], Domain(1.0, 3.0), "yn", "kn", "jn"),
    *ufuncs((POSITIVE,), "ber", "bei", "ker", "kei", "berp", "beip", "kerp", "keip"),
    *ufuncs((REAL,), "airy"),
    *ufuncs((POSITIVE,), "itj0y0", "iti0k0", "itstruve0", "itmodstruve0"),
    # hypergeometric functions and integrals
    *of_last(UNIT, hyp0f1=(1.5,), hyp1f1=(1.5, 2.5), hyp2f1=(0.5, 1.5, 2.5)),
    *of_last(POSITIVE, hyperu=(1.5, 2.5), wright_bessel=(0.5, 1.5)),
    *ufuncs((POSITIVE,), "expi", "exp1", "spence", "wrightomega", "sici", "shichi", "fresnel"),
    *of_degree([(0,), (1,), (2,), (4,)], POSITIVE, "expn"),
    *ufuncs((UNIT,), "ellipk", "ellipe"),
    *ufuncs((PROBABILITY,), "ellipkm1"),
    Case("scipy.special.ellipkinc", lambda phi: sp.ellipkinc(phi, phi.dtype.type(0.6)), (REAL,)),
    Case("scipy.special.ellipeinc", lambda phi: sp.ellipeinc(phi, phi.dtype.type(0.6)), (REAL,)),
    *ufuncs((POSITIVE, POSITIVE), "agm"),
    # orthogonal polynomials
    *of_order(
        (0, 1, 4), UNIT, "eval_legendre", "eval_chebyt", "eval_chebyu", "eval_chebyc", "eval_chebys", "eval_laguerre"
    ),
    *of_order((0, 1, 4), PROBABILITY, "eval_sh_legendre", "eval_sh_chebyt", "eval_sh_chebyu"),
    *of_last(UNIT, eval_gegenbauer=(3, 1.5), eval_genlaguerre=(3, 1.5), eval_jacobi=(3, 0.5, 1.5)),
    *of_degree([(0,), (1,), (4,)], UNIT, "eval_hermite", "eval_hermitenorm"),
    Case("scipy.special.gammasgn", sp.gammasgn, (REAL,), 0),
    Case("scipy.special.round", sp.round, (REAL,), 0),
    # scg.special
    own("softplus", REAL),
    own("sigmoid", REAL),
    own("log_sigmoid", REAL),
    own("log1mexp", Domain(-3.0, -0.2)),
    *[
        own(name, CUBE, axis=axis)
        for name in ("softmax", "log_softmax", "logsumexp", "logmeanexp")
        for axis in (None, 0, -1, (0, 2))
    ],
    *[own(name, CUBE, axis=(2, 0), keepdims=True) for name in ("logsumexp", "logmeanexp")],
    *[own(name, Domain(-2, 2, ())) for name in ("softmax", "log_softmax", "logsumexp", "logmeanexp")],
    Case("scg.special.logsumexp", lambda a, b: scg.special.logsumexp(a, axis=1, b=b), (CUBE, Domain(0.2, 2.0, (3, 2)))),
    Case(
        "scg.special.logsumexp",
        lambda a, b: scg.special.logsumexp(a, b=b, return_sign=True)[0],
        (CUBE, Domain(-2, -0.2, (3, 2))),
    ),
]
