"""How does the command line speak? Tables, JSON, one clear line for an error, and its exit code."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.table import Table

from common.errors import (
    BadRucioConfiguration,
    BrokerRefused,
    InvalidMessage,
    NotAuthenticated,
    PhedexRucioError,
    UnknownNode,
    Unroutable,
    UsageError,
    Verdict,
)
from common.outcome import Exit
from common.telemetry.redact import redact

NAME = "phedex-rucio"


def say(text: str = "") -> None:
    """One line on stdout."""
    click.echo(text)


def note(text: str) -> None:
    """One line on stderr: for people, in the way of no program that reads stdout."""
    click.echo(redact(text), err=True)


def show_json(value: Any) -> None:
    """A value as JSON on stdout, indented, keys as they come."""
    click.echo(msgspec.json.format(msgspec.json.encode(value, enc_hook=str), indent=2).decode())


def show_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table: drawn on a terminal, plain columns where the output is piped."""
    cells = [[_cell(value) for value in row] for row in rows]
    if sys.stdout.isatty():
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name, *column in zip(header, *cells, strict=True):
            table.add_column(name, justify="right" if _are_numbers(column) else "left", overflow="fold")
        for row in cells:
            table.add_row(*row)
        Console(markup=False, highlight=False).print(table)
        return
    for line in aligned([list(header), *cells]):
        say(line)


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of equal length as lines with columns of equal width, two spaces apart; columns of numbers to the right."""
    columns = [_column(column) for column in zip(*rows, strict=True)]
    return ["  ".join(row).rstrip() for row in zip(*columns, strict=True)]


def _column(cells: Sequence[str]) -> list[str]:
    """The cells of a column, the header first, all as wide as the widest."""
    width = max(map(len, cells))
    numbers = _are_numbers(cells[1:])
    return [cell.rjust(width) if numbers else cell.ljust(width) for cell in cells]


def _are_numbers(cells: Sequence[str]) -> bool:
    return bool(cells) and all(cell.replace(",", "").isdigit() for cell in cells)


def _cell(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def error_line(error: BaseException) -> str:
    """`phedex-rucio: what, which object, what next`, without secrets."""
    return redact(f"{NAME}: {error}" if str(error) else f"{NAME}: {type(error).__name__}")


def exit_code_of(error: PhedexRucioError) -> int:
    """The exit code of an error that ended the command; where a system is in doubt, 5: try again later."""
    if isinstance(error, UsageError | UnknownNode | InvalidMessage | BadRucioConfiguration):
        return Exit.USAGE
    if isinstance(error, NotAuthenticated | BrokerRefused):
        return Exit.AUTHENTICATION
    if error.verdict is Verdict.ASK and not isinstance(error, Unroutable):
        return Exit.AWAY
    return Exit.FAILED
