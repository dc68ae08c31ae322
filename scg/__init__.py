"""scg: stochastic computation graphs in NumPy."""

from scg import axes, distributions, errors, primitives, special
from scg.calculus import grad, gradients, hessian, hvp, jacobian, value_and_grad, vjp
from scg.errors import ScgError
from scg.estimators import Reparameterized
from scg.graph import Node, detect_nan, parameter, primitive
from scg.primitives.layout import stop_gradient
from scg.replay import replay
from scg.sample import sample
