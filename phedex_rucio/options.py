"""Which options does every command have? The settings file, the account, and how much is told."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from common.settings.load import load
from common.telemetry import logs

R = TypeVar("R")

as_json = click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")


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
        return wrapped(loaded=load(config, flags={"main.rucio_account": account}), **others)

    return command
