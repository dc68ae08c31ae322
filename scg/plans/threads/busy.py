"""Whether other threads of the process are busy, so that a thread more would wait for a processor."""

import threading
import time

WINDOW = 8_000_000
"""Nanoseconds over which it is looked how busy others are: the system adds up what running threads take every few
milliseconds."""


class Watch:
    """Whether other threads of this process are busy: those of a BLAS, say, which wait for its next product for 30 ms,
    and do so spinning.

    A helper that shares its processor with one of them keeps the caller waiting, for a time slice of some milliseconds
    at each hand-over.
    """

    def __init__(self) -> None:
        self.crowded = False
        self.start = self.before = self.thread = 0

    def look(self) -> bool:
        """What was so in the last window; a new one begins when that is over, or another thread calls."""
        now, thread = time.perf_counter_ns(), threading.get_ident()
        if thread != self.thread or now - self.start > WINDOW:
            others = time.process_time_ns() - time.thread_time_ns() - taken[0]
            if thread == self.thread:
                self.crowded = others - self.before > 0.3 * (now - self.start)
            self.start, self.before, self.thread = now, others, thread
        return self.crowded


taken = [0]
"""Nanoseconds of processor time of all helpers."""
