"""Which commands are there? Each is imported when it is called, so that `--help` starts at once."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import logging
import sys
import threading
import traceback
from types import TracebackType

import click

from common.errors import PhedexRucioError
from common.outcome import Exit
from common.telemetry.redact import redact

# name: (module, what `--help` says); the module's `command` is the click command or group.
COMMANDS = {
    "sync": ("phedex_rucio.sync", "Bring Rucio to PhEDEx's state: a site, a dataset, or blocks."),
    "plan": ("phedex_rucio.plan", "Show what a sync of a node would do; write nothing."),
    "undo": ("phedex_rucio.undo", "Take marks for removal back, while they last."),
    "explain": ("phedex_rucio.explain", "Tell why a block is as it is at a node, and what would be done about it."),
    "verify": ("phedex_rucio.verify", "Compare every file of a site with PhEDEx; write nothing."),
    "site": ("phedex_rucio.site", "A site's switch: freeze, adds-only, resume, list; and its hand-over."),
    "adopt": ("phedex_rucio.adopt", "Find what older tools left at a site; --repair makes it ours."),
    "status": ("phedex_rucio.status", "How is it? What is wrong first, with what to type next."),
    "history": ("phedex_rucio.history", "What was done at a site, with a dataset or block, or in a cycle."),
    "wait": ("phedex_rucio.wait", "Follow cycles that were sent earlier until they are finished."),
    "send": ("phedex_rucio.send", "Send any command, field by field."),
    "dead": ("phedex_rucio.dead", "Look at the commands that failed for good; replay, drop, save or load them."),
    "worker": ("phedex_rucio.worker", "Take commands from the queues and carry them out."),
    "scheduler": ("phedex_rucio.scheduler", "Send what is due by the clock, for every site of the settings."),
    "setup": ("phedex_rucio.setup", "Declare missing queues; set sites up and sync them."),
    "check": ("phedex_rucio.check", "Ask the broker, PhEDEx and Rucio whether they answer."),
    "config": ("phedex_rucio.config", "Show the settings and where they come from; check a file."),
    "rse": ("phedex_rucio.rse", "Make RSEs of PhEDEx nodes, and correct them."),
    "account": ("phedex_rucio.account", "Make the accounts that own the sync's rules."),
    "link": ("phedex_rucio.link", "Set the distances between RSEs."),
    "upload": ("phedex_rucio.upload", "Upload a file of a user and ask for its transfer."),
    "phedex": ("phedex_rucio.phedex", "Ask PhEDEx by hand: nodes, links, files, catalogues, any call."),
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

    Exit codes: 0 done or in sync, 1 failed, 2 wrong usage or settings, 3 differences found
    (status: something is wrong), 4 held back, 5 a system is away, 6 not authenticated, 130 interrupted.
    """


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and leave with its exit code; an error is one line, its traceback shown with --debug."""
    arguments = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in arguments
    sys.excepthook = _in_full if debug else _one_line
    threading.excepthook = _of_a_thread
    try:
        code = cli.main(args=arguments, prog_name="phedex-rucio", standalone_mode=False)
    except click.ClickException as error:
        _show_usage(error)
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        code = Exit.INTERRUPTED
    except PhedexRucioError as error:
        code = _failed(error, debug)
    sys.exit(code if isinstance(code, int) else Exit.DONE)


def _show_usage(error: click.ClickException) -> None:
    """One line: what is wrong, and where help is. Of a group alone, its help."""
    context = error.ctx if isinstance(error, click.UsageError) else None
    if context is None or isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
        return
    says = " ".join(error.format_message().split())
    click.echo(f"phedex-rucio: {says} ({context.command_path} --help explains)", err=True)


def _failed(error: PhedexRucioError, debug: bool) -> int:
    output = importlib.import_module("phedex_rucio.output")
    if debug:
        _in_full(type(error), error, error.__traceback__)
    click.echo(output.error_line(error), err=True)
    code: int = output.exit_code_of(error)
    return code


def _one_line(kind: type[BaseException], error: BaseException, _: TracebackType | None) -> None:
    """An error that nobody foresaw: one line for people."""
    click.echo(redact(f"phedex-rucio: unexpected {kind.__name__}: {error}; run it again with --debug"), err=True)


def _in_full(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """An error with its traceback and all that led to it, without secrets."""
    click.echo(redact("".join(traceback.format_exception(kind, error, trace))), err=True, nl=False)


def _of_a_thread(died: threading.ExceptHookArgs) -> None:
    """A thread that ended by a mistake of ours, as a line of the log."""
    name = died.thread.name if died.thread else "unknown"
    error = died.exc_value or died.exc_type()
    logging.getLogger("phedex_rucio").error("a thread ended by a mistake", exc_info=error, extra={"ended": name})


if __name__ == "__main__":
    main()
