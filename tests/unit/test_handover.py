"""Whose do our rules become, and what stands in the way?"""

import pytest

from common.errors import UsageError
from common.rucio.rses import Switch
from common.rucio.switch import Note, note_text, state_of
from common.sync.handover import Held, Targets, check_owners, in_short, obstacles, parse_targets, share_out


def rule(number: int, group: str = "", **fields: bool | str) -> Held:
    return Held(str(number), f"/a/b/RAW#{number}", 1, group, "sync_x", **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "targets"),
    [
        ("ops", Targets({}, "ops")),
        ("*=ops", Targets({}, "ops")),
        (" Higgs = higgs , *=ops", Targets({"Higgs": "higgs"}, "ops")),
        ("Tau-POG=tau,e-gamma_ecal=tau", Targets({"Tau-POG": "tau", "e-gamma_ecal": "tau"})),
    ],
)
def test_targets(text: str, targets: Targets) -> None:
    assert parse_targets(text) == targets


@pytest.mark.parametrize("text", ["", " ", ",", "a,b", "g=", "=a", "g=A", "g=a,g=b", "g=a,", "g=" + "a" * 26, "g=a b"])
def test_wrong_targets(text: str) -> None:
    with pytest.raises(UsageError, match="--to: "):
        parse_targets(text)


@pytest.mark.parametrize("account", ["cms_pisa", "sync_t2_ch_cern"])
def test_no_account_of_the_sync_is_a_new_owner(account: str) -> None:
    with pytest.raises(UsageError, match=account):
        check_owners(Targets({"g": account}, "ops"), ["cms_pisa"])
    check_owners(Targets({"g": "higgs"}, "ops"), ["cms_pisa"])


def test_every_rule_has_one_place() -> None:
    rules = [rule(3, "Top"), rule(1, "Higgs"), rule(2), rule(4, "Higgs", ending=True), rule(5, "Higgs")]
    shares = share_out(rules, Targets({"Higgs": "higgs"}))
    assert {owner: [one.id for one in some] for owner, some in shares.moves.items()} == {"higgs": ["1", "5"]}
    assert {group: [one.id for one in some] for group, some in shares.stay.items()} == {"": ["2"], "Top": ["3"]}
    assert [one.id for one in shares.ending] == ["4"]
    everything = share_out(rules, Targets({"Higgs": "higgs"}, "ops"))
    assert [one.id for one in everything.moves["ops"]] == ["2", "3"]
    assert everything.stay == {}


def test_what_stands_in_the_way() -> None:
    assert obstacles("T2_IT_Pisa", "frozen", [rule(1)]) == []
    (frozen,) = obstacles("T2_IT_Pisa", "adds-only", [rule(1)])
    assert "site freeze T2_IT_Pisa" in frozen
    (marked,) = obstacles(
        "T2_IT_Pisa", "frozen", [rule(1, marked=True, cycle="c-1"), rule(2, marked=True, cycle="c-1")]
    )
    assert "2 rules marked" in marked
    assert "undo c-1 --node T2_IT_Pisa" in marked
    (nameless,) = obstacles("T2_IT_Pisa", "frozen", [rule(1, marked=True)])
    assert "undo '/a/b/RAW#1'" in nameless


def test_many_accounts_in_few_characters() -> None:
    assert in_short(["b", "a", "b"], 255) == "a,b"
    many = in_short([f"account_{n:03}" for n in range(100)], 255)
    assert len(many) <= 255
    assert many.endswith(",… 100 accounts")


def test_a_note_fits_what_rucio_keeps() -> None:
    full = Note("2026-11-25T02:00:00Z", "ana@" + "x" * 200, "y" * 140)
    assert len(note_text(full)) <= 255
    assert state_of("X", {"phedex_sync_note": note_text(full)}).note.why == "y" * 140
    for reason in ("y" * 200, "é" * 100, '"' * 120):
        with pytest.raises(UsageError, match="shorter"):
            note_text(Note(full.at, full.by, reason))


def test_what_attributes_say() -> None:
    plain = state_of("X", {})
    assert (plain.switch, plain.note, plain.handed_over, plain.unreadable) == (Switch.ON, Note(), "", "")
    odd = state_of("X", {"phedex_sync": True, "phedex_sync_note": "by hand"})
    assert (odd.switch, odd.unreadable, odd.note.why) == (Switch.FROZEN, "True", "by hand")
    handed = state_of("X", {"phedex_sync": "on", "phedex_handed_over": "ops"})
    assert (handed.switch, handed.handed_over) == (Switch.FROZEN, "ops")
