"""See ``benchmarks.variance.command``."""

import os
import sys

# one to a worker, and read when NumPy is loaded
for _name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

if __name__ == "__main__":
    from benchmarks.variance.command import main

    sys.exit(main())
