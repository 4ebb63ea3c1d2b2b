"""How does a person upload a file? Looked at, put into the spool, and sent; or uploaded from where it is."""

from __future__ import annotations

import dataclasses
import stat
from functools import partial
from pathlib import Path

import click
from msgspec.structs import replace

from common import names, spool
from common.errors import BrokerError, UsageError
from common.messages.upload import Upload
from common.rucio import uploads
from common.rucio.session import Rucio
from common.settings.load import Loaded, load
from common.settings.model import Settings
from common.spool import Content
from phedex_rucio import broker, deliver, output, wiring
from phedex_rucio.delivery import with_delivery
from phedex_rucio.progress import Steps
from phedex_rucio.roots import rooted


@click.command("upload")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("name")
@click.argument("temp_rse")
@click.argument("dest_rse")
@click.option("--pfn", default="", metavar="URL", help="Where it is to lie at TEMP_RSE; needed where that cannot tell.")
@click.option("--scope", default="", help="Rucio scope; else user.<account>.")
@with_delivery
def command(file: Path, how: deliver.How, loaded: Loaded, **fields: str | bool) -> int:
    """Upload FILE to TEMP_RSE, register it as NAME (/store/...), and ask for its transfer to DEST_RSE.

    The file is copied into the spool, from where a worker uploads it; with --local it is uploaded from where it is.
    """
    settings = load(loaded.path).settings  # who logs in; --account says whose file it is
    owner = loaded.settings.main.rucio_account
    how = dataclasses.replace(how, local=how.local or bool(fields["dry"]))
    size = _size(file)
    asked = _asked(owner, size, how, fields)
    asked = _looked_at(asked, wiring.Doors(settings).rucio, tell=not (how.local or how.wait))
    settings, place, content = _here(file, size, settings) if how.local else _spooled(file, size, asked, settings)
    root = rooted(replace(asked, file=place, bytes=content.bytes, adler32=content.adler32))
    try:
        return deliver.deliver([root], how, settings)
    except BrokerError:
        output.note(f"The copy stays in the spool, for the command may have been sent: {settings.main.spool}/{place}")
        raise


next(each for each in command.params if each.name == "account").help = "Whose file it is; else the account we are."


def _size(file: Path) -> int:
    """Raises UsageError for what is no plain file, or empty: Rucio's client takes an empty one for one that failed."""
    status = file.stat()
    if not stat.S_ISREG(status.st_mode):
        raise UsageError(f"{file}: is no plain file")
    if not status.st_size:
        raise UsageError(f"{file}: is empty: Rucio takes no files without content")
    return status.st_size


def _asked(owner: str, size: int, how: deliver.How, fields: dict[str, str | bool]) -> Upload:
    """What was asked for, checked as far as words go; what the file holds is not known yet."""
    asked = rooted(Upload(file="-", bytes=size, adler32="0" * 8, account=owner, keep=how.local, **fields))  # type: ignore[arg-type]
    assert isinstance(asked, Upload)
    if not names.is_lfn(asked.name):
        raise UsageError(f"{asked.name}: no name of a file below /store/")
    return asked


def _looked_at(asked: Upload, rucio: Rucio, *, tell: bool) -> Upload:
    """The same with its account; Rucio has been asked whether it can be, before anything is read or copied."""
    account = asked.account or rucio.probe()
    notes = uploads.way(rucio, asked.temp_rse, asked.dest_rse, asked.pfn).notes
    for note in notes if tell else ():
        output.note(note)
    if not uploads.has_quota(rucio, account, asked.dest_rse):
        output.note(f"{account} has no quota at {asked.dest_rse}: Rucio will refuse the rule until it has")
    return replace(asked, account=account)


def _here(file: Path, size: int, settings: Settings) -> tuple[Settings, str, Content]:
    """The file's own directory is the spool of this process; links to it are the person's own business."""
    found = file.resolve()
    with Steps() as steps:
        content = spool.looked_through(found, partial(steps.show, f"read {file.name}", of=size))
    return replace(settings, main=replace(settings.main, spool=str(found.parent))), found.name, content


def _spooled(file: Path, size: int, asked: Upload, settings: Settings) -> tuple[Settings, str, Content]:
    """The copy has the name of the command, so that one that is left over tells whose it is."""
    if not settings.main.spool:
        raise UsageError("main.spool: not set, so workers have no place to find a file: set it, or give --local")
    broker.declare(settings.main)  # a broker that is away says so before the file is copied
    place = f"{asked.meta.id}.upload"
    with Steps() as steps:
        content = spool.put(file, settings.main.spool, place, partial(steps.show, f"copied {file.name}", of=size))
    return settings, place, content
