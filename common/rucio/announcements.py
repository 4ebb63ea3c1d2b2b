"""Announcements of sweeps: attributes of an RSE that tell everybody which blocks somebody is about to delete there.

Rucio has no lock that a client could take, and no way to change a rule only if nobody else has. So whoever deletes
says so first, in an attribute of his own at the RSE, which everybody sees at once (some 3 ms, 41.5.1), then looks, and
deletes only if the look says that he may. Two who announce before they look cannot both miss each other.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Collection, Iterable, Mapping

import msgspec
from msgspec import Struct

from common.errors import NotFound
from common.rucio.session import Rucio
from common.sync.marks import HASH, hash_of

PREFIX = "phedex_sweeping."
VALUE_LENGTH = 255  # of an attribute in Rucio's database
_TEXT = 40  # characters of who and of the cycle


class _Value(Struct):
    at: int
    blocks: str
    by: str = ""
    cycle: str = ""


class Announcement(Struct, frozen=True):
    """One sweep that was announced: its attribute, who, of which cycle, when (epoch seconds), and the blocks' hashes.

    One that nobody can read is about every block and never expires: somebody wrote it, and a person must look.
    """

    key: str
    by: str = ""
    cycle: str = ""
    at: int = 0
    hashes: frozenset[str] | None = None

    def is_about(self, block: str) -> bool:
        """True if the block is among those announced."""
        return self.hashes is None or hash_of(block) in self.hashes

    def is_live(self, at: float, lifetime: float) -> bool:
        """True while its sweep may still be carried out: longer than any server keeps a request."""
        return self.hashes is None or abs(at - self.at) < lifetime


def of(attributes: Mapping[str, object]) -> list[Announcement]:
    """The announcements among the attributes of an RSE."""
    return [_read(key, value) for key, value in sorted(attributes.items()) if key.startswith(PREFIX)]


def _read(key: str, value: object) -> Announcement:
    try:
        found = msgspec.json.decode(str(value), type=_Value)
    except msgspec.MsgspecError:
        return Announcement(key)
    hashes = frozenset(found.blocks[at : at + HASH] for at in range(0, len(found.blocks), HASH))
    return Announcement(key, found.by, found.cycle, found.at, hashes)


def about(found: Iterable[Announcement], blocks: Collection[str], *, besides: str = "") -> set[str]:
    """The blocks that any of the announcements is about, but for one's own."""
    others = [one for one in found if one.key != besides]
    return {block for block in blocks if any(one.is_about(block) for one in others)}


def parted(found: Iterable[Announcement], at: float, lifetime: float) -> tuple[list[Announcement], list[Announcement]]:
    """Those whose sweep may still be carried out at this time, and those that are over."""
    live: list[Announcement] = []
    over: list[Announcement] = []
    for one in found:
        (live if one.is_live(at, lifetime) else over).append(one)
    return live, over


def new_key() -> str:
    """The name of an announcement's attribute, nobody else's."""
    return PREFIX + secrets.token_hex(6)


def announce(rucio: Rucio, rse: str, key: str, blocks: Iterable[str], *, by: str, cycle: str, at: float) -> None:
    """Everybody who reads the RSE's attributes sees that these blocks (at most 12) are about to go there."""
    hashes = "".join(sorted(map(hash_of, blocks)))
    text = msgspec.json.encode(_Value(int(at), hashes, _short(by), _short(cycle))).decode()
    assert len(text) <= VALUE_LENGTH, text
    rucio.call("add_rse_attribute", rse, key, text, about=f"{rse} {key}")


def _short(text: str) -> str:
    """Plain ASCII, so that no character takes more room than it seems to."""
    return "".join(one if " " <= one <= "~" and one not in '"\\' else "?" for one in text)[:_TEXT]


def withdraw(rucio: Rucio, rse: str, key: str) -> None:
    """The announcement is gone; it may have been before."""
    with contextlib.suppress(NotFound):
        rucio.call("delete_rse_attribute", rse, key, about=f"{rse} {key}")
