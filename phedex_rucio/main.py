"""Which commands are there? Each is imported when it is called, so that `--help` starts at once."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import sys
from types import TracebackType

import click

from common.errors import PhedexRucioError
from common.outcome import Exit

# name: (module, what `--help` says); the module's `command` is the click command or group.
COMMANDS = {
    "sync": ("phedex_rucio.sync", "Bring Rucio to PhEDEx's state: a site, a dataset, or blocks."),
    "plan": ("phedex_rucio.plan", "Show what a sync of a node would do; write nothing."),
    "undo": ("phedex_rucio.undo", "Take marks for removal back, while they last."),
    "verify": ("phedex_rucio.verify", "Compare every file of a site with PhEDEx; write nothing."),
    "wait": ("phedex_rucio.wait", "Follow cycles that were sent earlier until they are finished."),
    "send": ("phedex_rucio.send", "Send any command, field by field."),
    "dead": ("phedex_rucio.dead", "Look at the commands that failed for good; replay, drop, save or load them."),
    "worker": ("phedex_rucio.worker", "Take commands from the queues and carry them out."),
    "setup": ("phedex_rucio.setup", "Declare the exchanges and queues that are missing."),
    "check": ("phedex_rucio.check", "Ask the broker, PhEDEx and Rucio whether they answer."),
    "config": ("phedex_rucio.config", "Show the settings and where they come from; check a file."),
    "datasvc": ("phedex_rucio.datasvc", "Serve a snapshot of PhEDEx: the data service's calls, offline."),
}


class Lazy(click.Group):
    """A group whose commands stand in a table and are imported one by one."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click calls it
        """The names of the table whose module is installed."""
        return [name for name, (module, _) in COMMANDS.items() if importlib.util.find_spec(module)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command itself, imported now."""
        if cmd_name not in self.list_commands(ctx):
            return None
        command: click.Command = importlib.import_module(COMMANDS[cmd_name][0]).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The table of commands, written without importing one."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][1]) for name in self.list_commands(ctx)])


def _version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        click.echo(f"phedex-rucio {importlib.metadata.version('phedex-rucio')}")
        ctx.exit()


@click.group(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"]}, no_args_is_help=True)
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version.")
def cli() -> None:
    """Keep Rucio equal to PhEDEx.

    Exit codes: 0 done or in sync, 1 failed, 2 wrong usage or settings, 3 differences found, 4 held back,
    5 a system is away, 6 not authenticated, 130 interrupted.
    """


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and leave with its exit code; an error is one line, its traceback shown with --debug."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not (debug := "--debug" in arguments):
        sys.excepthook = _one_line
    try:
        code = cli.main(args=arguments, prog_name="phedex-rucio", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        code = Exit.INTERRUPTED
    except PhedexRucioError as error:
        code = _failed(error, debug)
    sys.exit(code if isinstance(code, int) else Exit.DONE)


def _failed(error: PhedexRucioError, debug: bool) -> int:
    output = importlib.import_module("phedex_rucio.output")
    if debug:
        sys.__excepthook__(type(error), error, error.__traceback__)
    click.echo(output.error_line(error), err=True)
    code: int = output.exit_code_of(error)
    return code


def _one_line(kind: type[BaseException], error: BaseException, _: TracebackType | None) -> None:
    """An error that nobody foresaw: one line for people; --debug leaves Python's own way in place."""
    redact = importlib.import_module("common.telemetry.redact").redact
    click.echo(redact(f"phedex-rucio: unexpected {kind.__name__}: {error}; run it again with --debug"), err=True)


if __name__ == "__main__":
    main()
