"""Where do files wait for their upload, and how is one of them opened so that it is that file and no other?

Paths come from messages, so nothing is believed of them: each part is opened below the one before, links are not
followed, only a plain file with one name is read, and from then on it is known by its descriptor alone. Whoever swaps
the path afterwards swaps nothing for us.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import socket
import stat
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from msgspec import Struct

from common.errors import PhedexRucioError, UsageError

CHUNK = 1024 * 1024
PART_LENGTH = 255  # bytes of one name, Linux'
PATH_LENGTH = 1024
_SEARCH = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC  # opens nothing yet: no device wakes up, no fifo waits

log = logging.getLogger("phedex_rucio.spool")
Tell = Callable[[int], None]


class SpoolRefused(UsageError):
    """A file for an upload is not there, is no plain file of the spool, or is not the one that was announced."""


class InUse(PhedexRucioError):
    """Somebody else uploads the same file at this moment: tried again later, when it is done or given up."""


class Content(Struct, frozen=True):
    """What a file holds: its length and its adler32, 8 hex digits."""

    bytes: int
    adler32: str


class Stamp(Struct, frozen=True):
    """What changes when somebody writes to an open file. Links made and names given change it too."""

    size: int
    modified: int
    changed: int


def parts(file: str) -> list[str]:
    """The path inside the spool, part by part; SpoolRefused for all that leads out, or that no name of ours has."""
    found = file.split("/")
    if len(file) > PATH_LENGTH:
        raise SpoolRefused(f"{file[:80]!r}…: no path inside the spool: it has {len(file)} characters")
    for part in found:
        if part in ("", ".", ".."):
            raise SpoolRefused(f"{file!r:.200}: no path inside the spool: it begins, ends or goes on with {part!r}")
        if not part.isprintable() or len(part.encode(errors="replace")) > PART_LENGTH:
            raise SpoolRefused(f"{file!r:.200}: no path inside the spool: {part!r:.80} is no name of a file")
    return found


@contextmanager
def opened(spool: str, file: str) -> Iterator[int]:
    """A descriptor to read the file by; it stays the same file whatever happens to its path.

    Raises SpoolRefused where there is none, or it is anything but a plain file with one name below the spool.
    """
    *folders, name = parts(file)
    with ExitStack() as stack:
        folder = _folder(stack, spool, folders, file)
        found = _kept(stack, _found(spool, file, name, _SEARCH, folder))
        _check_plain(os.fstat(found), file)
        yield _kept(stack, _readable(found, spool, file))


@contextmanager
def claimed(descriptor: int, file: str) -> Iterator[bool]:
    """Nobody else who asks has the file meanwhile; InUse if somebody has it already. False where that cannot be told.

    A broker that waits too long for an acknowledgement gives the command to a second worker while the first is at it.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InUse(f"{file}: another worker is uploading it") from None
    except OSError as error:  # NFS has no such locks for those who only read
        log.info("files of the spool cannot be locked: %s", error, extra={"file": file})
        yield False
        return
    try:
        yield True
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)


def verified(descriptor: int, file: str, announced: Content) -> Stamp:
    """The file holds what was announced; its stamp, by which a later change is seen. Raises SpoolRefused."""
    before = stamp(descriptor)
    if before.size != announced.bytes:
        raise SpoolRefused(f"{file}: has {before.size:,} bytes, {announced.bytes:,} were announced")
    found = _adler32(descriptor)
    unchanged(descriptor, file, before)
    if found != announced.adler32:
        raise SpoolRefused(f"{file}: its adler32 is {found}, {announced.adler32} was announced")
    return before


def stamp(descriptor: int) -> Stamp:
    """The file's stamp now."""
    status = os.fstat(descriptor)
    return Stamp(status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def unchanged(descriptor: int, file: str, before: Stamp) -> None:
    """Nobody has written to the file since the stamp; else SpoolRefused."""
    if stamp(descriptor) != before:
        raise SpoolRefused(f"{file}: was changed while it was read: send it again when nobody writes to it any more")


def path_of(descriptor: int) -> str:
    """A path to exactly this open file, for code that wants one; also for programs that are started with it."""
    return f"/proc/{os.getpid()}/fd/{descriptor}"


def looked_through(source: Path, tell: Tell) -> Content:
    """What a file of this machine holds; `tell` is called with the number of bytes read so far."""
    with source.open("rb") as reading:
        return _through(reading.fileno(), source.name, tell, lambda _: None)


def put(source: Path, spool: str, name: str, tell: Tell) -> Content:
    """A copy is in the spool, on disk, under this name, which nothing there has; what it holds.

    It appears whole or not at all: what is still being written has another name, which goes if anything fails.
    """
    with ExitStack() as stack:
        folder = _kept(stack, _opened_spool(spool))
        reading = stack.enter_context(source.open("rb")).fileno()
        part = f".{name}.part"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            writing = _kept(stack, os.open(part, flags, 0o644, dir_fd=folder))
        except OSError as error:
            raise SpoolRefused(f"main.spool: cannot write to {spool}: {error.strerror}") from None
        try:
            os.fchmod(writing, 0o644)  # the worker is another user, as often as not
            content = _through(reading, source.name, tell, lambda chunk: _write(writing, chunk))
            os.fsync(writing)
            os.rename(part, name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            os.unlink(part, dir_fd=folder)
            raise
        os.fsync(folder)
    return content


def remove(spool: str, file: str) -> None:
    """The spool has the file no more; nothing outside of it is touched."""
    *folders, name = parts(file)
    with ExitStack() as stack:
        folder = _folder(stack, spool, folders, file)
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=folder)


def _through(reading: int, file: str, tell: Tell, each: Callable[[bytes], None]) -> Content:
    before, size, adler = stamp(reading), 0, 1
    while chunk := os.read(reading, CHUNK):
        each(chunk)
        size, adler = size + len(chunk), zlib.adler32(chunk, adler)
        tell(size)
        if size > before.size:  # somebody still writes: the end would never come
            break
    unchanged(reading, file, before)
    return Content(size, f"{adler:08x}")


def _adler32(descriptor: int) -> str:
    adler, at = 1, 0
    while chunk := os.pread(descriptor, CHUNK, at):
        adler, at = zlib.adler32(chunk, adler), at + len(chunk)
    return f"{adler:08x}"


def _write(descriptor: int, chunk: bytes) -> None:
    view = memoryview(chunk)
    while view:
        view = view[os.write(descriptor, view) :]


def _kept(stack: ExitStack, descriptor: int) -> int:
    stack.callback(os.close, descriptor)
    return descriptor


def _opened_spool(spool: str) -> int:
    try:
        return os.open(spool, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise SpoolRefused(f"main.spool: {spool} on {socket.gethostname()}: {error.strerror}") from None


def _folder(stack: ExitStack, spool: str, folders: list[str], file: str) -> int:
    folder = _kept(stack, _opened_spool(spool))
    for name in folders:
        folder = _kept(stack, _found(spool, file, name, _SEARCH | os.O_DIRECTORY, folder))
    return folder


def _found(spool: str, file: str, name: str, flags: int, folder: int) -> int:
    try:
        return os.open(name, flags, dir_fd=folder)
    except FileNotFoundError:
        where = f"{spool} on {socket.gethostname()}"
        raise SpoolRefused(
            f"{file}: is not in {where}: the spool (main.spool) must be one directory for the sender and every worker"
        ) from None
    except OSError as error:
        why = "is no folder, or a link" if error.errno in (errno.ENOTDIR, errno.ELOOP) else error.strerror
        raise SpoolRefused(f"{file}: {name}: {why}") from None


def _check_plain(status: os.stat_result, file: str) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise SpoolRefused(f"{file}: is no plain file but {_word(status.st_mode)}")
    if status.st_nlink != 1:
        raise SpoolRefused(f"{file}: has {status.st_nlink} names (hard links), so it may be somebody else's: copy it")


def _word(mode: int) -> str:
    kinds = {stat.S_IFLNK: "a symbolic link", stat.S_IFDIR: "a folder", stat.S_IFIFO: "a fifo"}
    return kinds.get(stat.S_IFMT(mode), "a device or socket")


def _readable(found: int, spool: str, file: str) -> int:
    """The same file again, now to be read: by its descriptor, not by its name."""
    try:
        return os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise SpoolRefused(f"{file}: {error.strerror} in {spool} on {socket.gethostname()}") from None
