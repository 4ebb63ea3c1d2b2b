"""What is in a delivery?"""

import json

import pytest

from common.errors import InvalidMessage, NewerVersion
from common.messages import codec
from common.messages.commands import SyncSite
from common.messages.meta import Meta
from consumers.engine.incoming import identified, read, rewritten, unreadable

BODY = b'{"kind":"sync.site","node":"T2_IT_Pisa"}'


def test_a_message_written_by_hand_has_the_same_id_each_time_it_comes() -> None:
    first, second = (identified(codec.decode(BODY), "sync.site", "", BODY) for _ in range(2))
    assert first == second
    assert first.meta.id.startswith("body-")
    assert first.meta.cycle == first.meta.id


def test_the_message_id_property_is_preferred_to_a_hash() -> None:
    assert identified(codec.decode(BODY), "sync.site", "mine", BODY).meta.id == "mine"


def test_an_id_in_the_body_beats_both() -> None:
    command = SyncSite(node="T2_IT_Pisa", meta=Meta(id="own", cycle="c"))
    assert identified(command, "sync.site", "other", b"").meta == Meta(id="own", cycle="c")


def test_the_queue_of_people_makes_the_lane_theirs() -> None:
    assert identified(codec.decode(BODY), "sync.site.now", "", BODY).meta.lane == "now"
    assert identified(codec.decode(BODY), "sync.site", "", BODY).meta.lane == "bulk"


@pytest.mark.parametrize(
    "meta",
    ['"text"', "[1]", '{"id": 7}', '{"id": "ok", "attempt": -3}', '{"errors": [{"class": "X"}]}', '{"zz": 1}'],
)
def test_of_a_broken_meta_what_is_valid_is_kept(meta: str) -> None:
    message = unreadable(b'{"kind":"x","meta":%s}' % meta.encode(), "fallback", InvalidMessage("x"))
    assert message.meta.id == ("ok" if "ok" in meta else "fallback")
    assert message.meta.attempt == 1


@pytest.mark.parametrize("body", [b"", b"\xff\xfe", b"[" * 100_000, b"7", b"x" * 300_000])
def test_of_no_command_at_all_there_is_an_id(body: bytes) -> None:
    message = unreadable(body, "", InvalidMessage("x"))
    assert message.meta.id.startswith("body-")
    assert rewritten(message, message.meta) is None


def test_a_newer_version_keeps_all_that_this_program_does_not_know() -> None:
    body = b'{"kind":"sync.site","v":9,"new":[1.5,{"a":null}],"meta":{"id":"i","color":"red","attempt":2}}'
    message = unreadable(body, "", NewerVersion("v"))
    assert message.meta.attempt == 2
    written = json.loads(rewritten(message, Meta(id="i", cycle="i", attempt=3)) or b"")
    assert written == {
        "kind": "sync.site",
        "v": 9,
        "new": [1.5, {"a": None}],
        "meta": {"id": "i", "cycle": "i", "color": "red", "attempt": 3},
    }


def test_what_has_no_room_for_an_identity_is_invalid() -> None:
    full = b'{"kind":"sync.site","node":"T2_IT_Pisa","meta":{"by":"%s"}}'
    assert read(full % (b"x" * (codec.MAX_BYTES - 10_000)), "sync.site", "").meta.id
    with pytest.raises(InvalidMessage, match="bytes"):
        read(full % (b"x" * (codec.MAX_BYTES - len(full))), "sync.site", "")
