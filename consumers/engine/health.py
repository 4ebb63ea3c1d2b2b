"""Does everything die? Then something is wrong here, not with the commands: stop taking them, and try one at a time."""

from __future__ import annotations

import logging
import threading
import time

from common.telemetry import metrics

log = logging.getLogger("phedex_rucio.worker")

LIMIT = 20
PAUSE = 60.0


class DeadRun:
    """Dead letters in a row. At `limit` different keys without a success between, one command a `pause` (seconds) is
    tried, by one thread; the others keep theirs in hand. The first success ends that."""

    def __init__(self, limit: int = LIMIT, pause: float = PAUSE) -> None:
        self._limit, self._pause = limit, pause
        self._keys: set[str] = set()
        self._changed = threading.Condition()
        self._next = 0.0
        self._stopped = False

    @property
    def is_flood(self) -> bool:
        """True while commands are only tried now and then."""
        return len(self._keys) >= self._limit

    def enter(self) -> None:
        """Returns when a command may be tried: at once, or when it is this thread's minute; or we stop."""
        with self._changed:
            while self.is_flood and not self._stopped:
                left = self._next - time.monotonic()
                if left <= 0:
                    self._next = time.monotonic() + self._pause
                    return
                self._changed.wait(left)

    def note(self, key: str, *, dead: bool) -> None:
        """A command of this key died, or ended well."""
        with self._changed:
            was_flood = self.is_flood
            if dead:
                self._keys.add(key)
            else:
                self._keys.clear()
            if self.is_flood and not was_flood:
                self._next = time.monotonic() + self._pause
                metrics.FLOOD.set(1)
                log.error("everything dies: one command a minute is tried", extra={"dead_in_a_row": len(self._keys)})
            if was_flood and not self.is_flood:
                metrics.FLOOD.set(0)
                log.warning("commands succeed again")
                self._changed.notify_all()

    def stop(self) -> None:
        """Nobody waits any more."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
