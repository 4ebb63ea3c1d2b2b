"""A message is what its kind wants, or is refused by the name of the field."""

import json
from datetime import UTC, datetime

import pytest

from common.errors import InvalidMessage, NewerVersion
from common.messages.beats import Beat
from common.messages.codec import (
    MAX_BYTES,
    build,
    checked,
    decode,
    decode_beat,
    decode_event,
    encode,
    encode_beat,
    encode_event,
)
from common.messages.commands import KINDS, SyncBlocks, SyncDataset, SyncSite, kind_of, queue_of
from common.messages.events import Asked
from common.messages.meta import Meta
from common.messages.setup import Account, Link, Rse
from common.messages.upload import Upload

SITE = {"kind": "sync.site", "node": "T2_IT_Pisa"}
UPLOAD = {
    "file": "a.upload",
    "bytes": 1,
    "adler32": "00620062",
    "name": "/store/user/me/a",
    "temp_rse": "T2_IT_Pisa_Temp",
    "dest_rse": "T2_IT_Pisa",
}
BLOCKS = {"kind": "sync.blocks", "node": "T2_IT_Pisa", "blocks": ["/A/B-v1/AOD#1"]}


def test_a_message_written_by_hand_needs_only_its_question() -> None:
    assert decode(b'{"kind": "sync.site", "node": "T2_IT_Pisa"}') == SyncSite(node="T2_IT_Pisa")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        (b"null", "message: Expected `object`"),
        (b"{}", "kind: missing"),
        (b'{"kind": "sync.site"}', "node: missing"),
        (json.dumps({**SITE, "kind": "nope"}).encode(), "kind: unknown kind 'nope'"),
        (json.dumps({**SITE, "kind": 7}).encode(), "kind: Expected `str`"),
        (json.dumps({**SITE, "nodes": []}).encode(), "nodes: unknown field"),
        (json.dumps({**SITE, "node": "T2_IT_Pisa\n"}).encode(), r"node: 'T2_IT_Pisa\n' is no node such as T2_IT_Pisa"),
        (json.dumps({**SITE, "node": "../../etc"}).encode(), "node: '../../etc' is no node such as "),
        (json.dumps({**BLOCKS, "blocks": ["/A/B-v1/AOD#1", "x"]}).encode(), "blocks[1]: 'x' is no block such as /"),
        (
            b'{"kind":"rse","node":"T2_IT_Pisa","options":{"rse":"?"},"options":1}',
            "options.rse: this is no RSE such as ",
        ),
        (json.dumps({**SITE, "deep": "yes"}).encode(), "deep: Expected `bool`"),
        (json.dumps({**SITE, "limit": 0}).encode(), "limit: "),
        (json.dumps({**SITE, "dataset": "/A/B"}).encode(), "dataset: "),
        (json.dumps({**SITE, "meta": {"attempts": 1}}).encode(), "meta.attempts: unknown field"),
        (json.dumps({**SITE, "meta": {"lane": "fast"}}).encode(), "meta.lane: "),
        (json.dumps({**SITE, "node": [[[[[[]]]]]]}).encode(), "node: Expected `str`"),
        (json.dumps({**BLOCKS, "blocks": []}).encode(), "blocks: "),
        (json.dumps({**BLOCKS, "blocks": ["/A/B-v1/AOD#1"] * 101}).encode(), "blocks: "),
        (json.dumps({**BLOCKS, "blocks": ["/A/B-v1/AOD"]}).encode(), "blocks[0]: "),
        (json.dumps({**BLOCKS, "removable_until": "soon"}).encode(), "removable_until: "),
        (b'{"a":' * 20_000, "nested too deep"),
        (b"[" * 100_000, "message: "),
        (b" " * (MAX_BYTES + 1), "at most 131072"),
    ],
)
def test_a_wrong_message_is_refused_by_the_name_of_its_field(body: bytes, reason: str) -> None:
    with pytest.raises(InvalidMessage) as refused:
        decode(body)
    assert reason in str(refused.value)


def test_a_newer_version_waits_for_the_upgrade() -> None:
    with pytest.raises(NewerVersion, match="version 99"):
        decode(json.dumps({**SITE, "v": 99, "something_new": True}).encode())


# What a worker of this version reads. A number only ever rises, together with a field that is new in its kind: lower,
# and workers refuse what planners of this very version send.
VERSIONS = {"sync.site": 1, "sync.dataset": 2, "sync.blocks": 4, "rse": 1, "account": 1, "link": 1, "upload": 1}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_read_up_to_its_version(kind: str) -> None:
    fields = {kind_of(struct(**needed)): needed for struct, needed in _samples()}[kind]
    for version in range(1, VERSIONS[kind] + 1):
        assert build(kind, {**fields, "v": version}).v == version
    with pytest.raises(NewerVersion, match=f"v: {kind} of version {VERSIONS[kind] + 1}, this program knows"):
        build(kind, {**fields, "v": VERSIONS[kind] + 1})


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"{}", "kind: missing"),
        (b'{"kind": "sync.site"}', "node: missing"),
        (json.dumps({**SITE, "nodes": []}).encode(), "nodes: unknown field"),
        (json.dumps({**SITE, "meta": {"attempts": 1}}).encode(), "meta.attempts: unknown field"),
        (json.dumps({**SITE, "meta": {"errors": [{"class": "E"}]}}).encode(), "meta.errors[0].message: missing"),
        (json.dumps({**SITE, "deep": "yes"}).encode(), "deep: Expected `bool`, got `str`"),
        (json.dumps({**SITE, "node": "x"}).encode(), "node: 'x' is no node such as T2_IT_Pisa"),
    ],
)
def test_the_text_begins_with_the_path_of_the_field(body: bytes, reason: str) -> None:
    with pytest.raises(InvalidMessage) as refused:
        decode(body)
    assert str(refused.value) == reason


@pytest.mark.parametrize("more", ['"options": 1', '"options": {}', '"options": []', '"x": "\udcff"', '"x": 1e999'])
def test_a_wrong_name_is_told_though_it_cannot_be_shown(more: str) -> None:
    """The same key again, or what only a look at all of the message finds wrong: the name of the field stays."""
    body = '{"kind": "rse", "node": "T2_IT_Pisa", "options": {"rse": "?"}, ' + more + "}"
    with pytest.raises(InvalidMessage, match=r"^options\.rse: this is no RSE such as T2_IT_Pisa_Test$"):
        decode(body.encode("utf-8", "surrogateescape"))


def test_the_largest_message_is_taken_and_a_larger_one_never_sent() -> None:
    body = encode(SyncSite(node="T2_IT_Pisa"))
    assert decode(body.ljust(MAX_BYTES)) == SyncSite(node="T2_IT_Pisa")
    with pytest.raises(InvalidMessage, match=f"message: {MAX_BYTES + 1} bytes"):
        decode(body.ljust(MAX_BYTES + 1))
    with pytest.raises(InvalidMessage, match="at most 131072 are taken"):
        encode(SyncSite(node="T2_IT_Pisa", select="x" * 65_000, ignore="x" * 66_100))


EVENT = Asked(id="a", cycle="a", command={"kind": "sync.site"}, at=datetime(2026, 11, 24, tzinfo=UTC))
BEAT = Beat(role="worker", name="w", version="1", state="ready", started=EVENT.at, at=EVENT.at, every=15)


def test_events_and_beats_are_read_back() -> None:
    assert decode_event(encode_event(EVENT)) == EVENT
    assert decode_beat(encode_beat(BEAT)) == BEAT


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not JSON",
        b'{"event": "news"}',
        b'{"event": "asked"}',
        b'{"event": "beat", "role": "cook"}',
        b'{"event": "asked", "x": ' + b"[" * 100_000,
        b'{"event": "beat", "x": ' + b"[" * 100_000,
    ],
)
def test_an_event_or_beat_of_somebody_else_is_none(body: bytes) -> None:
    assert decode_event(body) is None
    assert decode_beat(body) is None


def test_what_is_written_is_read_back() -> None:
    command = SyncBlocks(node="T2_IT_Pisa", blocks=["/A/B-v1/AOD#1"], meta=Meta(id="x", lane="now"))
    assert decode(encode(command)) == command


def test_defaults_do_not_travel() -> None:
    assert json.loads(encode(SyncSite(node="T2_IT_Pisa"))) == SITE


def test_structs_made_in_code_are_checked_like_those_from_the_wire() -> None:
    good = SyncBlocks(node="T2_IT_Pisa", blocks=["/A/B-v1/AOD#1"], meta=Meta(id="x", lane="now"))
    assert checked(good) == good
    with pytest.raises(InvalidMessage, match="node: 'nonsense' is no node"):
        checked(SyncSite(node="nonsense"))


def test_a_command_of_plain_data_has_the_fields_of_its_kind() -> None:
    assert build("sync.site", {"node": "T2_IT_Pisa", "deep": True}) == SyncSite(node="T2_IT_Pisa", deep=True)
    assert build("sync.dataset", {"dataset": "/A_%/B-v?.1/*"}) == SyncDataset(dataset="/A_%/B-v?.1/*")
    with pytest.raises(InvalidMessage, match=r"^kind: unknown kind 'nope'; known are sync\.site"):
        build("nope", SITE)


def test_people_and_timetable_have_lanes() -> None:
    now = Meta(lane="now")
    assert queue_of(SyncSite(node="T2_IT_Pisa", meta=now)) == "sync.site.now"
    assert queue_of(SyncSite(node="T2_IT_Pisa")) == "sync.site"
    assert queue_of(SyncDataset(dataset="/A/*/*", meta=now)) == "sync.dataset"


def test_every_kind_is_named_by_its_struct() -> None:
    assert {kind_of(struct(**needed)) for struct, needed in _samples()} == set(KINDS)  # type: ignore[arg-type]


def _samples() -> list[tuple[type, dict[str, object]]]:
    return [
        (SyncSite, {"node": "T2_IT_Pisa"}),
        (SyncDataset, {"dataset": "*"}),
        (SyncBlocks, {k: BLOCKS[k] for k in ("node", "blocks")}),
        (Rse, {"node": "T2_IT_Pisa"}),
        (Account, {"rse": "T2_IT_Pisa"}),
        (Link, {"source_rse": "T2_IT_Pisa"}),
        (Upload, UPLOAD),
    ]
