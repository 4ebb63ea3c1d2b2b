"""Which options does every command have? The settings file, the account, and how much is told."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from common.errors import UsageError
from common.settings.load import load
from common.telemetry import logs

R = TypeVar("R")

as_json = click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")


def pairs(option: str, texts: Iterable[str], form: str = "KEY=VALUE") -> list[tuple[str, str]]:
    """`["a=1", "b=x=y"]` → `[("a", "1"), ("b", "x=y")]`; raises UsageError that names the option."""
    found = []
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise UsageError(f"{option} {text}: not {form}")
        found.append((key, value))
    return found


def typed(option: str, text: str, kind: Any) -> Any:
    """What an option says as JSON, of that type; raises UsageError that names the option and the place."""
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.DecodeError as error:
        raise UsageError(f"{option}: {error}") from None


def with_settings(wrapped: Callable[..., R]) -> Callable[..., R]:
    """Add --config, --account and --debug; the command gets the loaded settings as `loaded`, and logs are set up."""

    @click.option(
        "--config",
        type=click.Path(path_type=Path, dir_okay=False),
        help="Settings file (YAML); else PHEDEX_RUCIO_CONFIG.",
    )
    @click.option("--account", help="Rucio account that writes; else main.rucio_account or rucio.cfg.")
    @click.option("--debug", is_flag=True, help="Log everything, show tracebacks.")
    @functools.wraps(wrapped)
    def command(*, config: Path | None, account: str | None, debug: bool, **others: Any) -> R:
        logs.setup("DEBUG" if debug else "")
        loaded = load(config, flags={"main.rucio_account": account})
        if loaded.settings.main.log_format != "text":
            logs.setup("DEBUG" if debug else "", form=loaded.settings.main.log_format)
        return wrapped(loaded=loaded, **others)

    return command
