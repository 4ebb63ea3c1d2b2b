"""What our rule remembers of a removal: the reason, the mark and the hold (in its meta), a person's keep (its comment).

Rucio has no way to change a rule's meta only if nobody else has changed it, so each kind of writer has a register of
its own: the engine writes the meta, a person's `undo` the comment, and a sweep announces itself in an attribute of the
RSE (`common.rucio.announcements`). Two of them at once never erase each other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from enum import StrEnum

import msgspec
from msgspec import Struct

GONE_SINCE = "phedex_gone_since"  # epoch seconds, as `moment` gives them
GONE_CYCLE = "phedex_gone_cycle"
GONE_WHY = "phedex_gone_why"
GONE_BY = "phedex_gone_by"
GONE_APPROVED = "phedex_gone_approved"  # the approval that a person gave, for marks that one covers
GONE_CUSTODIAL = "phedex_gone_custodial"  # it was custodial as it was marked: an approval covers that
GONE_HELD = "phedex_gone_held"  # why a mark that was due was not acted on: said by the cycle that finds it
SWEEPING = "phedex_sweeping"  # {"at": epoch seconds, "file", "more": hashes of files}: a sweep was about to begin
SEEN = "phedex_seen"  # when (epoch seconds) it was back, or was to stay: a deletion before that proves nothing
MARK = (SWEEPING, GONE_SINCE, GONE_CYCLE, GONE_WHY, GONE_BY, GONE_APPROVED, GONE_CUSTODIAL, GONE_HELD)
HOLD = "phedex_hold"  # {"since", "plan": epoch seconds, "why": reason, "custodial"}: a person is asked before a mark
KEEP = "phedex_keep"  # in metas of before: today's `undo` writes the comment
LEFT = "phedex_left"  # {epoch seconds: hashes}: files that PhEDEx lists no more in the block, by when that was read
GROUP = "phedex_group"
CUSTODIAL = "phedex_custodial"

COMMENT = "phedex-rucio: as PhEDEx has it"
_KEPT = "phedex-rucio: kept "
_CLEARED = "phedex-rucio: cleared "
COMMENT_LENGTH = 250  # Rucio's
HASH = 8  # hexadecimal digits that a name is remembered by
NEVER = 253_402_300_799  # the end of the year 9999: what lies beyond is no time
PLAN_COUNTS = 300  # seconds after a plan began to read that a hold is also of what it showed
LEFT_FILES = 300  # so many hashes fit into a rule's meta (3,999 characters) beside the rest

Meta = Mapping[str, object]


class Removal(StrEnum):
    """Why a block that Rucio has should not be there: what PhEDEx says, and what would be left of it.

    `moved`: complete at another node, and in Rucio there. `waiting`: complete at another node, and not (safely) in
    Rucio there. `partly`: complete nowhere, but some node has files of it or is to get them. `incomplete`: here, but
    not whole. `nowhere`: known, and positive word that it is gone everywhere. `unproven`: known and listed nowhere, and
    nothing tells that it was deleted. `unknown`: PhEDEx does not know it. `gone`: not here; where else it is was not
    asked, or (in a mark of before) not written down.
    """

    MOVED = "moved"
    WAITING = "waiting"
    PARTLY = "partly"
    INCOMPLETE = "incomplete"
    NOWHERE = "nowhere"
    UNPROVEN = "unproven"
    UNKNOWN = "unknown"
    GONE = "gone"


# Those that destroy what no other place holds; a block of another reason leaves only file by file as it is elsewhere.
DESTROYING = frozenset({Removal.NOWHERE, Removal.UNPROVEN, Removal.UNKNOWN})
_SEVERITY = {Removal.INCOMPLETE: 1, Removal.NOWHERE: 2, Removal.UNPROVEN: 3, Removal.UNKNOWN: 4}


def severity(why: Removal) -> int:
    """How much a removal for this reason destroys, compared with another's."""
    return _SEVERITY.get(why, 0)


def moment(at: datetime) -> float:
    """A time as holds and marks tell it, and a person's approval too: epoch seconds, to the millisecond before."""
    return at.replace(microsecond=at.microsecond // 1000 * 1000).timestamp()


def permits(given: Removal, now: Removal) -> bool:
    """True where what was decided for one reason holds for the reason read now: the same one or a milder one."""
    return severity(now) <= severity(given)


def reason_of(text: object) -> Removal:
    """The reason that a mark or hold has, also one of before (`incomplete (2 of 3 files left)`)."""
    word = str(text).partition(" ")[0]
    return Removal(word) if word in list(Removal) else Removal.GONE


class Hold(Struct, frozen=True, omit_defaults=True):
    """Since when a person is asked about a block (epoch seconds), and for which reason it was held then.

    `plan`: when the plan began to read that found it so: who looked at that plan has seen it. `custodial`: it was so.
    """

    since: float
    why: Removal
    plan: float = 0
    custodial: bool = False


def hold_of(meta: Meta) -> Hold | None:
    """The hold that a rule's meta tells of; None for none, and for what nobody can read."""
    found = meta.get(HOLD)
    if not isinstance(found, Mapping):
        return None
    since, plan = _time(found.get("since")), _time(found.get("plan"))
    return Hold(since, reason_of(found.get("why")), plan, found.get("custodial") is True) if since else None


def _time(value: object) -> float:
    """Epoch seconds, 0 for what is no time."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < NEVER else 0


def is_held_as(hold: Hold | None, why: Removal, *, custodial: bool) -> bool:
    """True for a hold for a reason that destroys as much, of a block that was custodial then if it is now."""
    return hold is not None and severity(hold.why) == severity(why) and hold.custodial >= custodial


def with_hold(
    meta: Meta, since: float, why: Removal, *, plan: float, custodial: bool = False
) -> dict[str, object] | None:
    """The meta with a hold; None where it has one for a reason that destroys as much, or was to stay since the plan.

    A block that is custodial since is held anew: who looked before has not seen that. A plan of long ago is not told:
    the block may have been back since, and left again.
    """
    if is_held_as(hold_of(meta), why, custodial=custodial) or plan < seen_at(meta):
        return None
    note: dict[str, object] = {"since": since, "why": str(why)}
    note |= {"plan": plan} if since - plan <= PLAN_COUNTS else {}
    return {**meta, HOLD: note | ({"custodial": True} if custodial else {})}


def seen_at(meta: Meta) -> float:
    """When the block was last known to be here (epoch seconds), 0 where that was never written down."""
    return _time(meta.get(SEEN))


def softened(meta: Meta, why: Removal) -> dict[str, object] | None:
    """The meta whose mark is for this milder reason, and so permits no worse one any more; None where it is not.

    Its age stays, and no approval that was given for the worse one.
    """
    if GONE_SINCE not in meta or severity(why) >= severity(reason_of(meta.get(GONE_WHY))):
        return None
    return {key: value for key, value in meta.items() if key != GONE_APPROVED} | {GONE_WHY: str(why)}


def with_mark(meta: Meta, mark: Meta) -> dict[str, object] | None:
    """The meta with a mark, whose hold it ends; None where it has a mark that permits this reason, or an old keep.

    A mark for a milder reason is replaced: the time of grace begins anew.
    """
    if KEEP in meta or (GONE_SINCE in meta and permits(reason_of(meta.get(GONE_WHY)), reason_of(mark.get(GONE_WHY)))):
        return None
    return {key: value for key, value in meta.items() if key not in (*MARK, HOLD)} | dict(mark)


def as_custodial(meta: Meta, at: float) -> dict[str, object] | None:
    """The meta whose mark is of a custodial block, made at this time (epoch seconds); None where it is, or has none.

    Its time of grace begins anew, and whoever approved it before has not seen that.
    """
    if GONE_SINCE not in meta or GONE_CUSTODIAL in meta:
        return None
    rest = {key: value for key, value in meta.items() if key != GONE_APPROVED}
    return rest | {GONE_SINCE: at, GONE_CUSTODIAL: True}


def unmarked(meta: Meta, at: float, *, keep: bool = False) -> dict[str, object]:
    """The meta of a block that is to stay: without mark and hold, and (unless `keep`) without a keep of before.

    Where one of them was there, `at` (epoch seconds) is when it was known to stay.
    """
    ended = (*MARK, HOLD) if keep else (*MARK, HOLD, KEEP)
    rest = {key: value for key, value in meta.items() if key not in ended}
    return rest | ({SEEN: at} if len(rest) < len(meta) else {})


# --- a sweep that is about to begin --------------------------------------------------------------------------------


def with_sweeping(meta: Meta, at: int, files: Collection[str]) -> dict[str, object]:
    """The meta that says that a sweep is about to take these files, in one request with others: whole or not at all."""
    first, *more = sorted(map(hash_of, files))
    return {**meta, SWEEPING: {"at": at, "file": first, "more": "".join(more)}}


def named_of(meta: Meta) -> frozenset[str] | None:
    """The hashes of the files by which it shows whether a sweep that was about to begin did; None where none was.

    Empty where none is told: workers of before wrote the time alone, or one file.
    """
    if SWEEPING not in meta:
        return None
    noted = meta[SWEEPING]
    text = "".join(str(noted.get(key) or "") for key in ("file", "more")) if isinstance(noted, Mapping) else ""
    return frozenset(text[at : at + HASH] for at in range(0, len(text), HASH))


# --- a person's word: the comment ----------------------------------------------------------------------------------


class Keep(Struct, frozen=True, omit_defaults=True):
    """Who keeps a block, since when (ISO, UTC), and the cycle whose mark that was."""

    by: str = ""
    at: str = ""
    cycle: str = ""


def keep_of(meta: Meta, comment: str | None) -> Keep | None:
    """A person's keep: in the rule's comment, or, from before, in its meta."""
    if comment and comment.startswith(_KEPT):
        return _read(comment.removeprefix(_KEPT))
    if KEEP not in meta:
        return None
    note = meta[KEEP]
    if not isinstance(note, Mapping):
        return Keep(by=str(note))
    return Keep(*(str(note.get(key) or "") for key in ("by", "at", "cycle")))


def _read(text: str) -> Keep:
    """What cannot be read is a keep all the same: somebody wrote it."""
    try:
        return msgspec.json.decode(text, type=Keep)
    except msgspec.MsgspecError:
        return Keep(by=text)


def keep_text(keep: Keep) -> str:
    """The comment of a rule whose block a person keeps."""
    for length in (60, 40, 20, 0):
        cut = Keep(keep.by[:length], keep.at, keep.cycle[: 2 * length])
        text = _KEPT + msgspec.json.encode(cut).decode()
        if len(text.encode()) <= COMMENT_LENGTH:
            break
    return text


def cleared_text(at: int) -> str:
    """The comment of a rule whose keep was taken back: a mark's time of grace begins here, if it is older."""
    return f"{_CLEARED}{at}"


def cleared_at(comment: str | None) -> int:
    """When a person last took a keep back (epoch seconds), 0 for never."""
    if comment is None or not comment.startswith(_CLEARED):
        return 0
    text = comment.removeprefix(_CLEARED)
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 12 else 0


# --- files that left a block ---------------------------------------------------------------------------------------


def hash_of(name: str) -> str:
    """The few digits by which a name is remembered where there is little room."""
    return hashlib.sha256(name.encode()).hexdigest()[:HASH]


def left_of(meta: Meta) -> dict[str, int]:
    """Since when (epoch seconds) each file, by its hash, was read as no longer listed."""
    found: dict[str, int] = {}
    noted = meta.get(LEFT)
    for since, hashes in noted.items() if isinstance(noted, Mapping) else ():
        if str(since).isascii() and str(since).isdigit() and isinstance(hashes, str):
            for at in range(0, len(hashes), HASH):
                found.setdefault(hashes[at : at + HASH], int(str(since)))
    return found


def with_left(meta: Meta, left: Mapping[str, int]) -> dict[str, object]:
    """The meta that remembers exactly these files (hash to epoch seconds)."""
    by_time: dict[str, list[str]] = {}
    for digest, since in sorted(left.items()):
        by_time.setdefault(str(since), []).append(digest)
    rest = {key: value for key, value in meta.items() if key != LEFT}
    return rest | ({LEFT: {since: "".join(some) for since, some in by_time.items()}} if by_time else {})


def still_left(noted: Mapping[str, int], names: Iterable[str], at: int) -> dict[str, int]:
    """What is to be remembered now: those of the names that were noted before with their time, new ones with this."""
    return {digest: noted.get(digest, at) for digest in map(hash_of, names)}


def parse_meta(meta: object) -> dict[str, object]:
    """A rule's meta as a dict; {} for none or for what is not ours to read.

    Rucio gives a text back JSON-encoded once more than it was given, and a dict once (seen on 41.5.1).
    """
    for _ in range(2):
        if not isinstance(meta, str):
            break
        try:
            meta = msgspec.json.decode(meta)
        except msgspec.DecodeError:
            return {}
    return dict(meta) if isinstance(meta, dict) else {}
