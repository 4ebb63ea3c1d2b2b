"""How do logs look? Events with fields on one handler: key=value for people, JSON for machines, no secrets."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TextIO

from common.telemetry.redact import redact

FORMAT = "PHEDEX_RUCIO_LOG_FORMAT"
LEVEL = "PHEDEX_RUCIO_LOG_LEVEL"
# Libraries with loggers of their own, and from which level they are heard unless everything is to be seen. Pika calls
# each refused connection seven errors and rucio's client each failed request several, which our errors tell in one.
# At DEBUG pika tells each turn of its event loop, forty lines a connection; rucio's client writes the password of a
# login (seen on 41.5.1): neither is ever heard below INFO.
LIBRARIES = {
    "pika": ("CRITICAL", "INFO"),
    "urllib3": ("WARNING", "DEBUG"),
    "rucio": ("WARNING", "INFO"),
    "user": ("WARNING", "INFO"),
    "baseclient": ("WARNING", "INFO"),
    "dogpile": ("WARNING", "INFO"),
    "common.rucio.client": ("CRITICAL", "INFO"),
}
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


on_loss: list[Callable[[], None]] = []  # called for each line that is lost; the metrics count here


def setup(
    level: str = "",
    default: str = "ERROR",
    stream: TextIO | None = None,
    environ: Mapping[str, str] | None = None,
    form: str = "",
) -> None:
    """From here on there is one handler, on the root: key=value, or JSON where PHEDEX_RUCIO_LOG_FORMAT (else `form`)
    is `json`.

    `level` (else PHEDEX_RUCIO_LOG_LEVEL, else `default`) is ours; libraries are quiet unless it is DEBUG.
    A device that takes no line (full, or its reader is gone) costs that line and nothing else.
    Raises ValueError for a level that logging does not have.
    """
    environ = os.environ if environ is None else environ
    level = (level or environ.get(LEVEL, "") or default).upper()
    handler = Lines(stream or sys.stderr)
    handler.setFormatter(Fields(json_lines=(environ.get(FORMAT, "") or form).lower() == "json"))
    logging.basicConfig(handlers=[handler], level=level, force=True)
    logging.captureWarnings(True)
    for name, (quiet, loud) in LIBRARIES.items():
        _under_root(logging.getLogger(name), loud if level == "DEBUG" else quiet)


def _under_root(library: logging.Logger, level: str) -> None:
    for handler in list(library.handlers):
        library.removeHandler(handler)
    library.propagate = True
    library.setLevel(level)


class Lines(logging.Handler):
    """Writes each line at once and whole to a stream, which may be none, full or closed: what is lost is counted.

    Past Python's own buffer where there is a descriptor: what stays in a buffer of a device that was full is written
    again and again, and makes the exit code of the process 120.
    """

    def __init__(self, stream: TextIO | None) -> None:
        super().__init__()
        self._stream = stream
        self._descriptor = _descriptor(stream)

    def emit(self, record: logging.LogRecord) -> None:
        """The line is written, or counted as lost."""
        try:
            self._write(self.format(record) + "\n")
        except Exception:  # noqa: BLE001 - a log must never be the end of what it tells about
            for tell in on_loss:
                tell()

    def _write(self, line: str) -> None:
        if self._descriptor is not None:
            left = line.encode(errors="backslashreplace")
            while left:
                left = left[os.write(self._descriptor, left) :]
        elif self._stream is not None:
            self._stream.write(line)
            self._stream.flush()
        else:
            raise OSError("no stream to write to")


def _descriptor(stream: TextIO | None) -> int | None:
    """The file descriptor of the process' own stderr, or none: other streams keep their own order."""
    if sys.__stderr__ is None or stream is not sys.__stderr__:
        return None
    try:
        return sys.__stderr__.fileno()
    except (OSError, ValueError):
        return None


class Fields(logging.Formatter):
    """A record as one line: time, level, logger, event, and whatever the caller gave as `extra`."""

    def __init__(self, *, json_lines: bool) -> None:
        super().__init__()
        self.json_lines = json_lines

    def format(self, record: logging.LogRecord) -> str:
        """One line, whatever is in the values: a name from outside cannot forge a second one."""
        fields = {name: _visible(value) for name, value in fields_of(record).items()}
        if self.json_lines:
            return json.dumps(fields, ensure_ascii=False)
        return " ".join(f"{name}={_bare(value)}" for name, value in fields.items())


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """The fields of a record in their order; the traceback last."""
    at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
    fields = {"at": at, "level": record.levelname.lower(), "logger": record.name, "event": record.getMessage()}
    fields |= {name: value for name, value in vars(record).items() if name not in _STANDARD}
    if record.exc_info:
        fields["traceback"] = logging.Formatter().formatException(record.exc_info)
    return fields


def _visible(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    return redact(value if isinstance(value, str) else str(value))


def _bare(value: Any) -> str:
    text = str(value)
    plain = text and text.isprintable() and not set(text) & set(' "=\\')
    return text if plain else json.dumps(text, ensure_ascii=not text.isprintable())
