"""What a command asked and waited for is counted where it is told, whichever of its threads asked."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from common.errors import System
from common.telemetry import spent


def test_work_that_another_thread_does_for_us_is_ours() -> None:
    before = spent.so_far(System.RUCIO)
    spent.note(System.RUCIO, 1.0)
    with ThreadPoolExecutor(1) as other:
        other.submit(spent.note, System.RUCIO, 10.0).result()
        other.submit(spent.as_ours(spent.note), System.RUCIO, 2.0).result()
    used = spent.so_far(System.RUCIO).since(before)
    assert (used.requests, used.seconds) == (2, 3.0)
