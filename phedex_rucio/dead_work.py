"""How is a choice of dead letters worked off? Each is acknowledged only when what becomes of it is safe."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from common.broker.dead_letters import Letter, Look, look
from common.broker.publisher import Publisher, command_message, event_message
from common.broker.topology import COMMANDS, dead_name
from common.errors import InvalidMessage, NewerVersion, PhedexRucioError, UsageError
from common.settings.model import Main
from phedex_rucio import letters
from phedex_rucio.letters import Summary, Wanted

BATCH = 256
BATCH_BYTES = 8 * 1024 * 1024
# With --rate a look must end long before the broker's limit for an acknowledgement (30 minutes).
ROUND = 300.0  # seconds

Settle = Callable[[Look, Sequence[Letter]], None]


@dataclass
class Tally:
    """What has been done so far; it tells the truth also after an error in the middle."""

    done: int = 0
    matched: int = 0
    totals: dict[str, int] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Choice:
    """Which letters of which kinds are worked on."""

    kinds: Sequence[str]
    wanted: Wanted


@dataclass(frozen=True)
class Kept:
    """Who drops, and the file that keeps what is dropped, if any."""

    by: str
    file: Path | None


def chosen(main: Main, choice: Choice, tally: Tally) -> Iterator[tuple[Letter, Summary]]:
    """The letters that are meant, kind by kind, each as it passes; all stay where they are."""
    for kind in choice.kinds:
        with look(main, dead_name(kind)) as view:
            tally.totals[kind] = view.count
            for letter in view.letters():
                one = letters.summary(letter)
                if choice.wanted.takes(one):
                    tally.matched += 1
                    yield letter, one


def replay(main: Main, publisher: Publisher, choice: Choice, rate: float | None, tally: Tally) -> None:
    """The letters are commands again, published and confirmed before they are acknowledged.

    What is no command stays, with the reason in `tally.refused`. `rate`: at most so many a second.
    """

    def settle(view: Look, batch: Sequence[Letter]) -> None:
        publisher.publish(command_message(letters.reborn(letter), COMMANDS) for letter in batch)
        _forget(view, batch, tally)

    def takes(one: Summary) -> bool:
        if not _takes(choice.wanted, one, tally):
            return False
        if one.why_not:
            tally.refused[one.id] = one.why_not
        return not one.why_not

    for kind in choice.kinds:
        if rate is None:
            _work(main, kind, takes, settle)
        else:
            _work_slowly(main, kind, takes, settle, rate)


def drop(main: Main, publisher: Publisher, choice: Choice, kept: Kept, tally: Tally) -> None:
    """The letters are gone: first in the file and on the disk, then their `dropped` events, then acknowledged."""
    with _appended(kept.file) as write:

        def settle(view: Look, batch: Sequence[Letter]) -> None:
            write([letters.saved(letter, kept.by) for letter in batch])
            publisher.publish(event_message(letters.dropped(letter, kept.by)) for letter in batch)
            _forget(view, batch, tally)

        for kind in choice.kinds:
            _work(main, kind, lambda one: _takes(choice.wanted, one, tally), settle)


def load(publisher: Publisher | None, found: Sequence[tuple[int, Letter | UsageError]], tally: Tally) -> None:
    """The letters of a file are commands again, confirmed; a line that is none is refused with the reason.

    Without a publisher nothing is sent.
    """
    batch: list[Letter] = []
    for number, item in found:
        try:
            if isinstance(item, UsageError):
                raise item
            letters.reborn(item)
            batch.append(item)
        except (InvalidMessage, NewerVersion, UsageError) as error:
            tally.refused[f"line {number}"] = str(error).removeprefix(f"line {number}: ")
    for start in range(0, len(batch), BATCH):
        part = batch[start : start + BATCH]
        if publisher is not None:
            publisher.publish(command_message(letters.reborn(letter), COMMANDS) for letter in part)
        tally.done += len(part)


def _takes(wanted: Wanted, one: Summary, tally: Tally) -> bool:
    if not wanted.takes(one):
        return False
    if wanted.ids is not None:
        tally.seen.add(one.id)
    return True


def _forget(view: Look, batch: Sequence[Letter], tally: Tally) -> None:
    view.ack(*batch)
    tally.done += len(batch)


def _work(main: Main, kind: str, takes: Callable[[Summary], bool], settle: Settle) -> None:
    """One look; batches as they come, so that no more than a batch of bodies is in memory."""
    with look(main, dead_name(kind)) as view:
        for batch in _batches(letter for letter in view.letters() if takes(letters.summary(letter))):
            settle(view, batch)


def _batches(found: Iterable[Letter]) -> Iterator[list[Letter]]:
    batch, size = list[Letter](), 0
    for letter in found:
        batch.append(letter)
        size += len(letter.body)
        if len(batch) >= BATCH or size > BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _work_slowly(main: Main, kind: str, takes: Callable[[Summary], bool], settle: Settle, rate: float) -> None:
    """Look after look, each for what can be done in `ROUND`. What was done and has died again meanwhile is left."""
    most = max(1, int(rate * ROUND))
    done: set[str] = set()
    while True:
        with look(main, dead_name(kind)) as view:
            batch = _first(view, most, lambda one: one.id not in done and takes(one))
            for number, part in enumerate(_parts(batch, max(1, int(rate / 10)))):
                if number:
                    view.pause(len(part) / rate)
                settle(view, part)
        done.update(letters.summary(letter).id for letter in batch)
        if len(batch) < most:
            return


def _first(view: Look, most: int, takes: Callable[[Summary], bool]) -> list[Letter]:
    """The first so many letters that are meant; all others have passed, so that nothing piles up during pauses."""
    found: list[Letter] = []
    for letter in view.letters():
        if len(found) < most and takes(letters.summary(letter)):
            found.append(letter)
    return found


def _parts(batch: Sequence[Letter], size: int) -> Iterator[Sequence[Letter]]:
    return (batch[start : start + size] for start in range(0, len(batch), size))


@contextmanager
def _appended(path: Path | None) -> Iterator[Callable[[Sequence[bytes]], None]]:
    """A function whose lines are on the disk when it returns, after what the file has already."""
    if path is None:
        yield lambda _: None
        return
    with _opened(path) as file:
        _end_line(file)
        yield lambda lines: _write(file, lines)


def _opened(path: Path) -> BinaryIO:
    """The file for reading and appending, for its owner alone: letters may name what is not everybody's business."""
    try:
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600), "r+b")
        _sync_folder(path)
    except OSError as error:
        raise UsageError(f"{path}: cannot be opened for appending: {error.strerror or error}") from error
    return file


def _write(file: BinaryIO, lines: Sequence[bytes]) -> None:
    try:
        file.write(b"".join(lines))
        file.flush()
        os.fsync(file.fileno())
    except OSError as error:
        reason = error.strerror or str(error)
        raise PhedexRucioError(
            f"letters file: cannot be written: {reason}; what is not on disk is not dropped"
        ) from error


def _end_line(file: BinaryIO) -> None:
    """A line that a crash cut short does not swallow the next one."""
    if file.seek(0, os.SEEK_END):
        file.seek(-1, os.SEEK_END)
        if file.read(1) != b"\n":
            _write(file, [b"\n"])


def _sync_folder(path: Path) -> None:
    """The file's name is on the disk, too."""
    folder = os.open(path.absolute().parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
