"""How are settings shown? Every key with its value and origin, without secrets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from common.settings.load import Loaded
from common.settings.model import Site
from common.telemetry.redact import redact


@dataclass(frozen=True)
class Line:
    """One setting in force: its path, its value fit to be seen, and where it comes from."""

    path: str
    value: Any
    origin: str


def lines(loaded: Loaded) -> list[Line]:
    """All settings of `main` and `default`, and of each site those that its section changes; the lists."""
    found = _section(loaded, "main", msgspec.to_builtins(loaded.settings.main))
    found += _section(loaded, "default", msgspec.to_builtins(loaded.settings.default))
    for node, site in sorted(loaded.settings.sites.items()):
        found += [line for line in _section(loaded, node, _plain(site)) if line.origin != "default"]
    for name in ("datasets", "schedule"):
        entries = msgspec.to_builtins(getattr(loaded.settings, name))
        found += [Line(f"{name}[{number}]", entry, "file") for number, entry in enumerate(entries)]
    return found


def _plain(site: Site) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(site)
    return plain


def _section(loaded: Loaded, section: str, values: dict[str, Any]) -> list[Line]:
    return [
        Line(path, redact(value) if isinstance(value, str) else value, loaded.origins.get(path, "default"))
        for path, value in ((f"{section}.{key}", value) for key, value in values.items())
    ]
