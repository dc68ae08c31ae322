"""Threads of a plan: the one entrance of the room.

pool      threads beside the caller's, each with a list of steps
waiting   which steps of several threads wait for which
busy      whether other threads of the process leave a processor for one more
blas      the threads of the BLAS, kept to one meanwhile
"""

from scg.plans.threads.blas import BLAS, set_threads, width, with_one_thread
from scg.plans.threads.busy import Watch
from scg.plans.threads.pool import Step, Threads, borrow, let_go, park, run_steps
from scg.plans.threads.waiting import Access, Task, hold, step_lists

__all__ = [
    "BLAS",
    "Access",
    "Step",
    "Task",
    "Threads",
    "Watch",
    "borrow",
    "hold",
    "let_go",
    "park",
    "run_steps",
    "step_lists",
    "width",
    "set_threads",
    "with_one_thread",
]
