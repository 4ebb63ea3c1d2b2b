"""What does a site's switch say, since when and why, and how is it turned? Attributes of its RSE, so they last."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from common.errors import NotFound, UsageError
from common.rucio.rses import HANDED_OVER, SWITCH, Switch, attributes_of, switch_of
from common.rucio.session import Rucio

NOTE = "phedex_sync_note"
VALUE_LENGTH = 255  # of an attribute in Rucio's database; more is a 500 without a word (41.5.1)
BY_LENGTH = 60


class Note(Struct, frozen=True):
    """Who turned the switch, when (ISO, UTC) and why."""

    at: str = ""
    by: str = ""
    why: str = ""


class State(Struct, frozen=True):
    """A site's switch. `unreadable`: what its attribute says where that is no switch. `handed_over`: to whom, or ""."""

    rse: str
    switch: Switch
    note: Note = Note()
    handed_over: str = ""
    unreadable: str = ""


def read_state(rucio: Rucio, rse: str) -> State:
    """What the RSE's attributes say now. Raises NotFound where there is no such RSE."""
    attributes = attributes_of(rucio, rse)
    if attributes is None:
        raise NotFound(f"Rucio: no RSE {rse}")
    return state_of(rse, attributes)


def state_of(rse: str, attributes: dict[str, object]) -> State:
    """What the attributes of an RSE say of its switch."""
    value = str(attributes.get(SWITCH, Switch.ON))
    handed_over = str(attributes.get(HANDED_OVER, ""))
    unreadable = "" if value in list(Switch) else value
    return State(rse, switch_of(attributes), _note(attributes.get(NOTE)), handed_over, unreadable)


def note_text(note: Note) -> str:
    """The note as it is kept. Raises UsageError where the reason is too long for it."""
    text = _encoded(note)
    over = len(text.encode()) - VALUE_LENGTH
    if over > 0:
        raise UsageError(f"--reason: Rucio has no room for the last {over} bytes of it: say it shorter")
    return text


def turn(rucio: Rucio, rse: str, switch: Switch, note: Note) -> None:
    """The switch says so, and why. The note first: what is cut between the two is done again when it is repeated."""
    _set(rucio, rse, NOTE, note_text(note))
    _set(rucio, rse, SWITCH, switch)


def hand_over(rucio: Rucio, rse: str, to: str, note: Note) -> None:
    """The site is frozen until `take_back`, whatever its switch says, and tells to whom its rules went."""
    _set(rucio, rse, HANDED_OVER, to)
    turn(rucio, rse, Switch.FROZEN, note)


def take_back(rucio: Rucio, rse: str) -> None:
    """The site is not handed over any more: only its switch counts."""
    try:
        rucio.call("delete_rse_attribute", rse, HANDED_OVER, about=rse)
    except NotFound:
        return


def _set(rucio: Rucio, rse: str, key: str, value: str) -> None:
    rucio.call("add_rse_attribute", rse, key, str(value), about=f"{rse} {key}")


def _note(value: object) -> Note:
    """What somebody wrote by hand is the reason, all of it."""
    if value is None:
        return Note()
    try:
        return msgspec.json.decode(str(value), type=Note)
    except msgspec.MsgspecError:
        return Note(why=str(value))


def _encoded(note: Note) -> str:
    return msgspec.json.encode(Note(note.at, note.by[:BY_LENGTH], note.why)).decode()
