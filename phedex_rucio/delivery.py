"""Which options does a command have that sets something up? How it is delivered, and whether it only looks."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click

from phedex_rucio.deliver import How
from phedex_rucio.options import as_json, with_settings


def with_delivery(wrapped: Callable[..., int]) -> Callable[..., int]:
    """Add --dry-run, --wait, --timeout, --local and --json: the command gets `how` to deliver, and whether it is `dry`.

    For commands that set something up: dry, without --wait, they are looked at here, and the differences are shown.
    """

    @click.option("--dry-run", "dry", is_flag=True, help="Show what would be written; write nothing.")
    @click.option("--wait", is_flag=True, help="Follow the work to its end; else it is only sent.")
    @click.option("--timeout", type=click.FloatRange(0), help="With --wait: give up looking after so many seconds.")
    @click.option("--local", is_flag=True, help="Do the work in this process, without broker and workers.")
    @as_json
    @with_settings
    @functools.wraps(wrapped)
    def command(*, dry: bool, wait: bool, timeout: float | None, local: bool, as_json: bool, **others: Any) -> int:
        how = How(wait=wait, timeout=timeout, local=local or (dry and not wait), as_json=as_json)
        return wrapped(how=how, dry=dry, **others)

    return command
