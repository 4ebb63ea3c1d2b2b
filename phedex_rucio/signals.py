"""How does a signal to end reach a process whose main thread waits?"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable

STOP = (signal.SIGTERM, signal.SIGINT)


def on_stop(stop: Callable[[], None]) -> None:
    """Calls `stop`, on a thread of its own, at each SIGTERM and SIGINT from now on. Once a process, on its main thread.

    Python runs a signal's handler between two steps of the main thread. If the signal comes just before that thread
    begins to wait for a lock, or to another thread, the handler waits as long as the lock does: for ever, in a worker
    that is idle. The descriptor of `set_wakeup_fd` is written to at once, whatever the main thread does.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for number in STOP:
        signal.signal(number, lambda *_: None)  # without a handler of Python's the descriptor is not written to
    threading.Thread(target=_listen, args=(reading, stop), name="signals", daemon=True).start()


def _listen(reading: int, stop: Callable[[], None]) -> None:
    while True:
        (number,) = os.read(reading, 1)
        if number in STOP:
            stop()
