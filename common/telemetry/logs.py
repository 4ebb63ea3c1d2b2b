"""How do logs look? Events with fields on one handler: key=value for people, JSON for machines, no secrets."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Mapping
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


def setup(
    level: str = "", default: str = "ERROR", stream: TextIO | None = None, environ: Mapping[str, str] | None = None
) -> None:
    """From here on there is one handler, on the root: key=value, or JSON where PHEDEX_RUCIO_LOG_FORMAT=json.

    `level` (else PHEDEX_RUCIO_LOG_LEVEL, else `default`) is ours; libraries are quiet unless it is DEBUG.
    Raises ValueError for a level that logging does not have.
    """
    environ = os.environ if environ is None else environ
    level = (level or environ.get(LEVEL, "") or default).upper()
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(Fields(json_lines=environ.get(FORMAT, "").lower() == "json"))
    logging.basicConfig(handlers=[handler], level=level, force=True)
    logging.captureWarnings(True)
    for name, (quiet, loud) in LIBRARIES.items():
        _under_root(logging.getLogger(name), loud if level == "DEBUG" else quiet)


def _under_root(library: logging.Logger, level: str) -> None:
    for handler in list(library.handlers):
        library.removeHandler(handler)
    library.propagate = True
    library.setLevel(level)


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
