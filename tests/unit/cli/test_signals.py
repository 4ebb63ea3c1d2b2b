"""Does a signal end a process whose main thread waits without a limit?"""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

# The signal goes to another thread than the one that waits, as it does now and then on a busy machine.
WAITS = """
import queue, signal, threading
from phedex_rucio.signals import on_stop

orders, told = queue.SimpleQueue(), threading.Semaphore(0)
on_stop(lambda: orders.put("stop"))

def send():
    for _ in range(2):
        signal.pthread_kill(threading.get_ident(), {number})
        told.acquire()

threading.Thread(target=send, daemon=True).start()
for _ in range(2):
    print(orders.get(), flush=True)
    told.release()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_acted_on_while_the_main_thread_waits(number: signal.Signals) -> None:
    program = [sys.executable, "-c", WAITS.format(number=number.value)]
    ended = subprocess.run(program, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout) == (0, "stop\nstop\n"), ended.stderr
