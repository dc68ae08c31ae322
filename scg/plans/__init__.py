"""Compiled plans: a recorded run of a function, turned into NumPy calls on preallocated buffers.

recording   one plain run with its arguments as nodes, its draws, its choices by values
program     what it computed, as operations
passes      what makes a program shorter
buffers     which result lives where
kernels     how an operation runs into a buffer
machine     bound steps
waiting     which steps of several threads wait for which
crew        threads beside the caller's
compiled    ``scg.compile``: signatures, the cache, what to do where a plan does not hold
"""

from scg.plans.compiled import Compiled, compile
