"""For which commands is a reading of Rucio's RSEs and distances fresh enough?"""

from datetime import UTC, datetime, timedelta

import pytest

from common.messages.meta import Failure, Meta, now
from consumers.setup import readings

SENT = "20260314T031200-0a1b2c3d4e"


def test_an_id_tells_when_a_command_was_sent_to_the_end_of_its_second() -> None:
    at = datetime(2026, 3, 14, 3, 12, 1, tzinfo=UTC)
    assert readings.sent(Meta(id=SENT)) == at
    assert readings.sent(Meta(id=f"{SENT}/0011223344556677")) == at


@pytest.mark.parametrize(
    "meta",
    [
        Meta(),
        Meta(id="by hand"),
        Meta(id=SENT, attempt=2),
        Meta(id=SENT, errors=[Failure(class_="UsageError", message="no RSE", at=now())]),
    ],
)
def test_what_does_not_tell_or_failed_before_is_read_for_anew(meta: Meta) -> None:
    before = now()
    assert before <= readings.sent(meta) <= now() + timedelta(seconds=1)
