"""What a dead letter says, what it becomes, and what a person types about it."""

from datetime import UTC, datetime, timedelta

import pytest

from common.broker.dead_letters import Letter
from common.errors import InvalidMessage, NewerVersion, UsageError
from common.messages.codec import MAX_BYTES, encode
from common.messages.commands import SyncBlocks, SyncSite
from common.messages.meta import Failure, Meta
from phedex_rucio import letters

AT = datetime(2026, 1, 31, 12, tzinfo=UTC)
NEWER = b'{"kind":"sync.site","v":9,"node":"T2_IT_Pisa","new":1,"meta":{"id":"i","attempt":3,"new":2}}'


def letter(body: bytes, queue: str = "sync.site.dead", message_id: str = "m", error: str = "") -> Letter:
    return Letter(queue, 1, body, message_id, error, 1, 0)


def test_a_command_in_short() -> None:
    errors = [Failure(class_="A", message="a", at=AT), Failure(class_="B", message="b", at=AT + timedelta(hours=1))]
    one = letters.summary(letter(encode(SyncSite(node="T2_IT_Pisa", meta=Meta(id="i", attempt=6, errors=errors)))))
    assert (one.id, one.cycle, one.kind, one.key, one.node) == ("i", "i", "sync.site", "T2_IT_Pisa", "T2_IT_Pisa")
    assert (one.attempts, one.error, one.message, one.why_not) == (6, "B", "b", "")
    assert (one.first_at, one.last_at) == (AT, AT + timedelta(hours=1))


def test_a_newer_version_is_read_as_far_as_it_can_be_and_not_replayed() -> None:
    one = letters.summary(letter(NEWER, error="NewerVersion: v: upgrade"))
    assert (one.id, one.node, one.attempts) == ("i", "T2_IT_Pisa", 3)
    assert (one.error, one.message) == ("NewerVersion", "v: upgrade")
    assert "upgrade this worker" in one.why_not
    with pytest.raises(NewerVersion):
        letters.reborn(letter(NEWER))


def test_what_is_no_command_has_the_reason_of_the_worker_or_our_own() -> None:
    assert letters.summary(letter(b"\xff", error="InvalidMessage: was bad")).message == "was bad"
    assert letters.summary(letter(b"\xff")).message.startswith("message: not JSON")
    assert letters.summary(letter(b"\xff", message_id="")).id.startswith("body-")
    with pytest.raises(InvalidMessage):
        letters.reborn(letter(b"\xff"))


def test_a_history_too_long_for_the_wire_is_left_behind() -> None:
    blocks = [f"/{'a' * 90}/{'b' * 190}/RAW#{n:099d}" for n in range(100)]
    errors = [Failure(class_="A", message="ü" * 500, at=AT, traceback="x" * 20_000) for _ in range(5)]
    body = encode(SyncBlocks(node="T2_IT_Pisa", blocks=blocks, meta=Meta(errors=errors[:4])))
    grown = body.replace(b'"class":"A"', b'"class":"A' + b"A" * (MAX_BYTES - len(body) - 4) + b'"', 1)
    again = letters.reborn(letter(grown, "sync.blocks.dead", "m" * 50))
    assert again.meta.errors == []
    assert again.meta.id == "m" * 50


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("-2h", AT - timedelta(hours=2)),
        ("2h", AT - timedelta(hours=2)),
        ("-30m", AT - timedelta(minutes=30)),
        ("-7d", AT - timedelta(days=7)),
        ("2026-01-31", datetime(2026, 1, 31, tzinfo=UTC)),
        ("2026-01-31T12:00", AT),
        ("2026-01-31T13:00+01:00", AT),
    ],
)
def test_times(text: str, expected: datetime) -> None:
    assert letters.since(text, AT) == expected


@pytest.mark.parametrize("text", ["", "2x", "-2", "-h", "-2y", "tomorrow", "-9999999d"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--since"):
        letters.since(text, AT)


def test_a_time_before_all_times_is_refused() -> None:
    with pytest.raises(UsageError, match="--since"):
        letters.since("-999999d", AT)


def test_rates() -> None:
    assert [letters.rate(text) for text in ("5", "5/s", "30/m", "0.5/s")] == [5, 5, 0.5, 0.5]
    for text in ("0", "0/s", "-1", "5/h", "x", "", "5/s "):
        with pytest.raises(UsageError, match="--rate"):
            letters.rate(text)
