"""Programs to run, read in one sitting and change: ``python -m examples`` lists them."""

import os

# Products of a minibatch are small: a second BLAS thread gains little, and loses tenfold where another process wants
# its core. With one,
# results do not depend on the number of cores either. NumPy reads these when it is first imported; what the user has
# set stays.
for _variable in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"):
    os.environ.setdefault(_variable, "1")
