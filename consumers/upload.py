"""What does `upload` do? A file of the spool is at the temporary RSE, and a rule asks for it at the destination."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from functools import partial

from common import names, spool
from common.errors import UsageError
from common.messages.events import Change
from common.messages.upload import Upload
from common.outcome import Outcome
from common.rucio import storage, uploads
from common.rucio.one_block import has_account
from common.rucio.session import Rucio
from common.rucio.uploads import Errand
from common.spool import Content
from consumers.engine.result import Result
from consumers.engine.world import World

AVAILABLE = "AVAILABLE"


def handle(command: Upload, world: World) -> Result:
    """Storage first, then the replica, then the rule, so that Rucio never knows what is not there; each if it lacks.

    The file leaves the spool when this command is settled for good. Raises UsageError for what cannot be: RSEs, PFN,
    another file of this name, a scope or quota that is not there, a file that is not the one announced.
    """
    errand = _errand(command, world.rucio)
    way = uploads.way(world.rucio, errand.temp, errand.dest, command.pfn)
    known = uploads.known(world.rucio, errand)
    _check_same(command, errand, known)
    changes = [*_owner(command, world.rucio, errand, known), *_changes(errand, known)]
    if _lacks("replica", changes):
        where = storage.place(world.rucio, way.temp, errand.scope, errand.name, command.pfn)
        _to_temp(command, world, where, is_known=bool(known and known.state))
    if _lacks("rule", changes) and not command.dry:
        uploads.ask_for(world.rucio, errand)
    stays = command.keep or command.dry
    return Result(
        Outcome.CHANGED if changes else Outcome.IN_SYNC,
        counts={"files": 1, "bytes": command.bytes} if _lacks("replica", changes) else {},
        notes=way.notes,
        changes=changes,
        after=None if stays else partial(spool.remove, _spool(world), command.file),
    )


def _errand(command: Upload, rucio: Rucio) -> Errand:
    if not names.is_lfn(command.name):
        raise UsageError(f"name: {command.name}: no name of a file below /store/")
    account = command.account or rucio.probe()
    return Errand(
        scope=command.scope or f"user.{account}",
        name=command.name,
        temp=command.temp_rse,
        dest=command.dest_rse,
        account=account,
    )


def _check_same(command: Upload, errand: Errand, known: uploads.Known | None) -> None:
    if known is None or known.content == _announced(command):
        return
    have = known.content
    raise UsageError(
        f"{errand}: Rucio has another file of this name: {have.bytes:,} bytes, adler32 {have.adler32}, "
        f"not {command.bytes:,}, {command.adler32}; choose another name"
    )


def _announced(command: Upload) -> Content:
    return Content(command.bytes, command.adler32)


def _changes(errand: Errand, known: uploads.Known | None) -> Iterator[Change]:
    state = known.state if known else ""
    if state != AVAILABLE:
        yield Change(what="replica", name=errand.temp, was=state, wants=AVAILABLE)
    if not (known and known.ruled):
        yield Change(what="rule", name=errand.dest, wants=errand.account)


def _lacks(what: str, changes: list[Change]) -> bool:
    return any(change.what == what for change in changes)


def _owner(command: Upload, rucio: Rucio, errand: Errand, known: uploads.Known | None) -> Iterator[Change]:
    """Account and scope are there before anything is sent; only a user's own scope is made where it is not."""
    if not (known and known.ruled) and not has_account(rucio, errand.account):
        raise UsageError(f"{errand.account}: no such account in Rucio")
    if known is not None or uploads.scope_exists(rucio, errand.scope):
        return
    if errand.scope != f"user.{errand.account}":
        raise UsageError(f"{errand.scope}: no such scope in Rucio, and it is not {errand.account}'s own, to be made")
    if not command.dry:
        uploads.add_scope(rucio, errand.account, errand.scope)
    yield Change(what="scope", name=errand.scope, wants=errand.account)


def _to_temp(command: Upload, world: World, where: storage.Place, *, is_known: bool) -> None:
    """The file is on the storage and Rucio knows it. Dry: it could be, as far as that can be seen without reading it.

    The deadline is looked at before the transfer and not after: what follows it takes two requests.
    """
    with spool.opened(_spool(world), command.file) as descriptor:
        if command.dry:
            return
        with spool.claimed(descriptor, command.file) as alone:
            world.checkpoint()
            _store(command, world.rucio, where, descriptor, alone=alone)
    uploads.register(world.rucio, where, _announced(command))
    if is_known:
        uploads.make_available(world.rucio, where)


def _store(command: Upload, rucio: Rucio, where: storage.Place, descriptor: int, *, alone: bool) -> None:
    """Where an earlier try ended between storage and Rucio, what it has stored is looked at and not sent again.

    A second worker that is at it as well may have begun to write what the first one then gives its name: where that
    cannot be ruled out, it is looked at once more.
    """
    content = _announced(command)
    before = spool.verified(descriptor, command.file, content)
    there = storage.stored(rucio, where)
    if there is None:
        storage.store(rucio, where, spool.path_of(descriptor), content)
        spool.unchanged(descriptor, command.file, before)
        if not alone and storage.stored(rucio, where) != content:
            raise storage.StorageError(f"{where.rse}: somebody else writes to {where.pfn} at this moment")
    elif there != content:
        raise UsageError(
            f"{where.rse}: has another file at {where.pfn}: {there.bytes:,} bytes, "
            f"adler32 {there.adler32 or 'unknown'}, not {content.bytes:,}, {content.adler32}; "
            "nothing is replaced: remove it, or choose another place"
        )


def _spool(world: World) -> str:
    if not world.settings.main.spool:
        raise UsageError(f"main.spool: not set for the worker on {socket.gethostname()}: it does no uploads")
    return world.settings.main.spool
