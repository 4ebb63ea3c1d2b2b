"""Which paths of a spool are opened? Those of plain files in it; and what was opened stays what it is."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import shutil
import socket
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from common import spool
from common.spool import Content, InUse, SpoolRefused

GOOD = b"what may be read"
SECRET = b"what may not be read"
CONTENT = Content(len(GOOD), f"{zlib.adler32(GOOD):08x}")

# By their words alone: no part may lead anywhere but down, be nothing, or be no name.
WORDS = [
    "",
    "/",
    "//",
    ".",
    "..",
    "../outside/secret",
    "../spool/good",
    "a/../../outside/secret",
    "a/../good",
    "./good",
    "a/./good",
    "a//good",
    "/good",
    "good/",
    "good/.",
    "good/..",
    "/etc/passwd",
    "//etc/passwd",
    "/proc/self/environ",
    "/dev/zero",
    "{outside}/secret",
    "{spool}/good",
    "good\0",
    "good\0/../../x",
    "go\nod",
    "go\rod",
    "go\x1b[2Jod",
    "go\u202eod",
    "go\ud800od",
    "x" * 256,
    "é" * 128,
    "a/" * 2000 + "x",
]
# By what is there; made by `spoiled`.
THERE = [
    "link",
    "link-to-good",
    "link-to-nothing",
    "link-to-itself",
    "linked-folder/secret",
    "linked-spool/good",
    "a/link-up/good",
    "hard-link",
    "fifo",
    "socket",
    "folder",
    "good/below-a-file",
    "device",
    "~/good",
    "..%2foutside%2fsecret",
    "%2e%2e/outside/secret",
    "..\\outside\\secret",
    "missing",
    "a/missing",
]


@pytest.fixture
def spoiled(tmp_path: Path) -> Iterator[Path]:
    """A spool with one good file, and all that somebody might put there to have something else read."""
    outside, inside = tmp_path / "outside", tmp_path / "spool"
    for folder in (outside, inside, inside / "a", inside / "folder"):
        folder.mkdir()
    (outside / "secret").write_bytes(SECRET)
    (inside / "good").write_bytes(GOOD)
    (inside / "a/good").write_bytes(GOOD)
    for name, target in [
        ("link", outside / "secret"),
        ("link-to-good", "good"),
        ("link-to-nothing", "nothing"),
        ("link-to-itself", "link-to-itself"),
        ("linked-folder", outside),
        ("linked-spool", "."),
        ("a/link-up", ".."),
        ("device", "/dev/zero"),
    ]:
        (inside / name).symlink_to(target)
    with suppress(PermissionError):  # only root makes devices: for others the link to one must do
        os.mknod(inside / "made-device", 0o020644, os.makedev(1, 5))
        (inside / "device").unlink()
        (inside / "made-device").rename(inside / "device")
    os.link(outside / "secret", inside / "hard-link")
    os.mkfifo(inside / "fifo")
    here = Path.cwd()
    with closing(socket.socket(socket.AF_UNIX)) as listening:
        os.chdir(inside)  # a socket's whole path may not be long
        listening.bind("socket")
        os.chdir(here)
        yield inside


def read(root: Path, file: str) -> bytes:
    with spool.opened(str(root), file) as descriptor:
        return Path(spool.path_of(descriptor)).read_bytes()


def test_only_plain_files_inside_are_opened(spoiled: Path) -> None:
    assert len(WORDS) + len(THERE) >= 50
    for template in WORDS + THERE:
        file = template.replace("{spool}", str(spoiled)).replace("{outside}", str(spoiled.parent / "outside"))
        with pytest.raises(SpoolRefused) as caught:
            read(spoiled, file)
        assert len(str(caught.value)) < 600
        assert str(caught.value).isprintable()
    assert (read(spoiled, "good"), read(spoiled, "a/good")) == (GOOD, GOOD)


def test_nothing_outside_is_removed(spoiled: Path) -> None:
    for template in [*WORDS, "linked-folder/secret", "a/link-up/good", "good/below-a-file"]:
        file = template.replace("{spool}", str(spoiled)).replace("{outside}", str(spoiled.parent / "outside"))
        with pytest.raises(SpoolRefused):
            spool.remove(str(spoiled), file)
    spool.remove(str(spoiled), "link")
    spool.remove(str(spoiled), "link")
    spool.remove(str(spoiled), "a/good")
    assert (spoiled.parent / "outside/secret").read_bytes() == SECRET
    assert not (spoiled / "a/good").exists()
    assert (spoiled / "good").exists()


def test_swapped_between_look_and_use_it_is_the_file_that_was_looked_at(spoiled: Path) -> None:
    with spool.opened(str(spoiled), "a/good") as descriptor:
        shutil.rmtree(spoiled / "a")
        (spoiled / "a").symlink_to(spoiled.parent / "outside")
        (spoiled.parent / "outside/good").write_bytes(SECRET)
        spool.verified(descriptor, "a/good", CONTENT)
        copied = spoiled.parent / "copied"
        shutil.copy(spool.path_of(descriptor), copied)
    assert copied.read_bytes() == GOOD


def test_swapped_all_the_time_nothing_else_is_ever_read(spoiled: Path) -> None:
    """Somebody exchanges the file and a link to a secret, as fast as they can, while it is opened again and again."""
    ends, target, other = threading.Event(), spoiled / "swapped", spoiled / "other"
    target.write_bytes(GOOD)

    def swap() -> None:
        while not ends.is_set():
            other.symlink_to(spoiled.parent / "outside/secret")
            other.rename(target)
            other.write_bytes(GOOD)
            other.rename(target)

    swapping = threading.Thread(target=swap)
    swapping.start()
    found = {GOOD: 0, b"refused": 0}
    try:
        while min(found.values()) < 20:
            try:
                found[read(spoiled, "swapped")] += 1  # a KeyError is an escape
            except SpoolRefused:
                found[b"refused"] += 1
    finally:
        ends.set()
        swapping.join()


def appended(path: Path) -> None:
    with path.open("ab") as more:
        more.write(b"more")


def overwritten(path: Path) -> None:
    with path.open("r+b") as same:
        same.write(b"W")


@pytest.mark.parametrize("change", [appended, overwritten, lambda path: os.truncate(path, 3)])
def test_a_file_that_changes_meanwhile_is_refused(spoiled: Path, change: Callable[[Path], None]) -> None:
    with spool.opened(str(spoiled), "good") as descriptor:
        before = spool.verified(descriptor, "good", CONTENT)
        spool.unchanged(descriptor, "good", before)
        change(spoiled / "good")
        with pytest.raises(SpoolRefused, match="was changed while"):
            spool.unchanged(descriptor, "good", before)
        with pytest.raises(SpoolRefused, match="announced"):
            spool.verified(descriptor, "good", CONTENT)


def _holds(root: str, began: multiprocessing.synchronize.Event, ends: multiprocessing.synchronize.Event) -> None:
    with spool.opened(root, "good") as descriptor, spool.claimed(descriptor, "good"):
        began.set()
        ends.wait(60)


def test_two_do_not_upload_one_file(spoiled: Path) -> None:
    context = multiprocessing.get_context("spawn")
    began, ends = context.Event(), context.Event()
    other = context.Process(target=_holds, args=(str(spoiled), began, ends), daemon=True)
    other.start()
    assert began.wait(60)
    with spool.opened(str(spoiled), "good") as descriptor:
        with pytest.raises(InUse, match="another worker"), spool.claimed(descriptor, "good"):
            pass
        ends.set()
        other.join()
        with spool.claimed(descriptor, "good"), pytest.raises(BlockingIOError), (spoiled / "good").open() as again:
            fcntl.flock(again, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_what_is_put_appears_whole_under_a_name_of_its_own(tmp_path: Path) -> None:
    source, root = tmp_path / "my file.txt", tmp_path / "spool"
    source.write_bytes(GOOD * 200_000)
    root.mkdir()
    told: list[int] = []
    name, content = "1.upload", spool.put(source, str(root), "1.upload", told.append)
    assert content == Content(len(GOOD) * 200_000, f"{zlib.adler32(GOOD * 200_000):08x}")
    assert [path.name for path in root.iterdir()] == [name]
    assert (told[-1], (root / name).stat().st_mode & 0o777) == (content.bytes, 0o644)
    with spool.opened(str(root), name) as descriptor:
        spool.verified(descriptor, name, content)
    with pytest.raises(SpoolRefused, match="was changed while"):
        spool.put(source, str(root), "2.upload", lambda _: appended(source))
    assert [path.name for path in root.iterdir()] == [name], "what was not finished is gone"
    assert spool.looked_through(source, told.append).bytes == source.stat().st_size


def test_a_spool_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(SpoolRefused, match=r"main\.spool: .*/none on .*: No such file"):
        read(tmp_path / "none", "good")
    with pytest.raises(SpoolRefused, match=r"main\.spool: .*: Not a directory"):
        spool.put(Path(__file__), __file__, "1.upload", lambda _: None)
