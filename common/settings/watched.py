"""Which settings are in force just now? The file is read again when it changes; a wrong one changes nothing."""

from __future__ import annotations

import logging
import os
import threading
import time

import msgspec
from msgspec.structs import replace

from common.errors import UsageError
from common.settings.load import Loaded
from common.settings.model import Main, Settings
from common.telemetry import metrics
from common.telemetry.redact import redact

log = logging.getLogger("phedex_rucio.settings")

LOOK_EVERY = 2.0  # seconds between two looks at the file
# Many editors empty a file and then write it: what is younger may be half of it.
SETTLED = 1.0
# What the scheduler obeys at once; connections, clients and threads are made of the rest when a process starts.
LIVE = ("pool", "sleep", "run", "jitter", "stalled_after")

Signature = tuple[int, int, int]


class Watched:
    """The settings of a file that a person may change at any time. Any thread may ask."""

    def __init__(self, loaded: Loaded, look_every: float = LOOK_EVERY) -> None:
        self._loaded = loaded
        self._settings = loaded.settings
        self._look_every = look_every
        self._lock = threading.Lock()
        self._looked = time.monotonic()
        self._seen = self._last_look = self._signature()
        self._wrong = ""
        self._restart: list[str] = []

    def settings(self) -> Settings:
        """The last good settings: `main` as at the start but for what is obeyed at once, all else as the file has it.

        The file is looked at (one `stat`) at most every `look_every` seconds. One that is wrong is logged once.
        """
        with self._lock:
            if self._loaded.path is not None and time.monotonic() - self._looked >= self._look_every:
                self._look()
            return self._settings

    @property
    def notes(self) -> list[str]:
        """What a person should know: that the file is wrong, and what of it waits for a restart."""
        waiting = f"changed, but in force only after a restart: {', '.join(self._restart)}"
        return [*([self._wrong] if self._wrong else []), *([waiting] if self._restart else [])]

    def _look(self) -> None:
        self._looked = time.monotonic()
        signature = self._signature()
        before, self._last_look = self._last_look, signature
        if signature != self._seen and (signature == before or _is_settled(signature)):
            self._read(signature)

    def _read(self, signature: Signature | None) -> None:
        assert self._loaded.again is not None
        error = ""
        try:
            found = self._loaded.again().settings
            if signature is not None and signature[1] == 0:
                error = f"{self._loaded.path}: empty; if that is meant, restart"
        except UsageError as wrong:
            error = str(wrong)
        if self._signature() != signature:
            return  # it was written meanwhile: the next look reads it
        self._seen = signature
        metrics.SETTINGS_BAD.set(bool(error))
        if error:
            metrics.RELOADS_FAILED.inc()
            self._wrong = redact(f"the settings file is wrong, the last good one stays in force: {error}")
            log.error("%s", self._wrong)
        else:
            self._take(found)

    def _take(self, found: Settings) -> None:
        self._wrong = ""
        main = replace(self._settings.main, **{key: getattr(found.main, key) for key in LIVE})
        self._restart = _differing(main, found.main)
        self._settings = replace(found, main=main)
        log.warning("settings read again", extra={"file": str(self._loaded.path), "restart_for": self._restart})

    def _signature(self) -> Signature | None:
        """What changes when the file does; None where it cannot be looked at."""
        try:
            found = os.stat(self._loaded.path) if self._loaded.path else None
        except OSError:
            return None
        return None if found is None else (found.st_mtime_ns, found.st_size, found.st_ino)


def _is_settled(signature: Signature | None) -> bool:
    """True for a file that nobody is writing any more, or whose clock is not ours."""
    age = SETTLED if signature is None else time.time() - signature[0] / 1e9
    return not 0 <= age < SETTLED


def _differing(old: Main, new: Main) -> list[str]:
    return [f"main.{key}" for key, value in msgspec.structs.asdict(new).items() if getattr(old, key) != value]
