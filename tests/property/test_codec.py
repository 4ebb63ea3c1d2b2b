"""No body, however made, does more than be refused by a named error."""

import contextlib

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from common.errors import InvalidMessage, NewerVersion
from common.messages.codec import decode, decode_event, encode
from common.messages.commands import SyncBlocks, SyncSite
from common.messages.meta import Meta

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)
GOOD = encode(SyncBlocks(node="T2_IT_Pisa", blocks=["/A/B-v1/AOD#1", "/A/B-v1/AOD#2"], meta=Meta(id="a", cycle="a")))


@given(st.binary(max_size=300))
def test_any_bytes(body: bytes) -> None:
    with contextlib.suppress(InvalidMessage, NewerVersion):
        decode(body)
    decode_event(body)


@given(st.dictionaries(st.sampled_from(["kind", "node", "blocks", "v", "meta", "dataset", "x"]), json_values))
def test_any_json(fields: dict[str, object]) -> None:
    body = msgspec.json.encode({"kind": "sync.site"} | fields)
    with contextlib.suppress(InvalidMessage, NewerVersion):
        assert isinstance(decode(body), SyncSite)


@given(st.integers(0, len(GOOD) - 1), st.binary(max_size=3))
def test_a_damaged_message_is_refused_or_still_a_message(at: int, junk: bytes) -> None:
    with contextlib.suppress(InvalidMessage, NewerVersion):
        decode(GOOD[:at] + junk + GOOD[at + 1 :])
