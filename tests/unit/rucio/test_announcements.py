"""How does a sweep say what it is about to delete, and how do others read it?"""

from __future__ import annotations

import json
from typing import Any

import pytest

from common.rucio import announcements
from common.rucio.announcements import PREFIX, VALUE_LENGTH, Announcement, about, new_key, of, parted
from common.rucio.session import Rucio
from common.settings.model import Main
from common.sync.marks import hash_of
from tests.model.rucio_model import RucioModel

RSE = "T2_IT_Pisa"
NAMES = [f"/A/B-v1/RAW#{n}" for n in range(12)]
HOUR = 3600


@pytest.fixture
def modelled() -> Rucio:
    rucio = Rucio(Main())
    rucio._client = RucioModel(rses={RSE: {"pnn": RSE}})
    return rucio


def announce(rucio: Rucio, key: str, blocks: list[str], **fields: Any) -> None:
    usual: dict[str, Any] = {"by": "w1", "cycle": "c1", "at": 100.9}
    announcements.announce(rucio, RSE, key, blocks, **(usual | fields))


def seen(rucio: Rucio) -> list[Announcement]:
    return of(rucio.client.list_rse_attributes(RSE))


def test_what_was_announced_is_read_until_it_is_taken_back(modelled: Rucio) -> None:
    announce(modelled, PREFIX + "a", NAMES[:2])
    announce(modelled, PREFIX + "b", NAMES[2:3], by="w2", cycle="c2", at=200)
    one, two = seen(modelled)
    assert one == Announcement(PREFIX + "a", "w1", "c1", 100, frozenset(map(hash_of, NAMES[:2])))
    assert two == Announcement(PREFIX + "b", "w2", "c2", 200, frozenset({hash_of(NAMES[2])}))
    assert about([one, two], NAMES) == set(NAMES[:3])
    assert about([one, two], NAMES, besides=PREFIX + "a") == {NAMES[2]}
    assert about([one, two], []) == about([], NAMES) == set()
    announcements.withdraw(modelled, RSE, PREFIX + "a")
    assert seen(modelled) == [two]


def test_what_an_earlier_version_announced_is_read() -> None:
    """Workers of two versions share an RSE while one is rolled out."""
    value = '{"at":1543365910,"blocks":"0123abcd4567ef01","by":"worker-1","cycle":"c1"}'
    (one,) = of({"phedex_sweeping.00a1b2c3d4e5": value, "pnn": RSE})
    hashes = frozenset({"0123abcd", "4567ef01"})
    assert one == Announcement("phedex_sweeping.00a1b2c3d4e5", "worker-1", "c1", 1543365910, hashes)
    assert PREFIX == "phedex_sweeping."
    assert VALUE_LENGTH == 255


def test_one_that_is_gone_may_be_taken_back_again(modelled: Rucio) -> None:
    announce(modelled, PREFIX + "a", NAMES[:1])
    for _ in range(2):
        announcements.withdraw(modelled, RSE, PREFIX + "a")
    assert seen(modelled) == []


@pytest.mark.parametrize(
    ("by", "cycle"), [("x" * 500, "y" * 500), ("é\u202e" * 50, '"\\' * 50), ("🙂" * 100, "🙂" * 100), ("", "")]
)
def test_it_fits_into_an_attribute_whoever_speaks(modelled: Rucio, by: str, cycle: str) -> None:
    announce(modelled, new_key(), NAMES, by=by, cycle=cycle, at=99_999_999_999)
    (value,) = (text for key, text in modelled.client.list_rse_attributes(RSE).items() if key.startswith(PREFIX))
    assert len(value.encode()) <= VALUE_LENGTH
    (one,) = seen(modelled)
    assert all(one.is_about(name) for name in NAMES)
    assert len(one.by) == min(len(by), 40)
    assert len(one.cycle) == min(len(cycle), 40)
    assert one.by == "".join(letter if letter.isascii() else "?" for letter in by[:40])
    assert one.cycle == "".join("?" if letter in '"\\🙂' else letter for letter in cycle[:40])


def test_who_speaks_is_printable_ascii(modelled: Rucio) -> None:
    announce(modelled, PREFIX + "a", NAMES[:1], by=" a~\x7f\x1f", cycle='a"\\b')
    (one,) = seen(modelled)
    assert (one.by, one.cycle) == (" a~??", "a??b")
    value = modelled.client.list_rse_attributes(RSE)[PREFIX + "a"]
    assert value == f'{{"at":100,"blocks":"{hash_of(NAMES[0])}","by":" a~??","cycle":"a??b"}}'


def test_the_hashes_stand_in_one_order(modelled: Rucio) -> None:
    announce(modelled, PREFIX + "a", NAMES)
    announce(modelled, PREFIX + "b", NAMES[::-1])
    told = modelled.client.list_rse_attributes(RSE)
    assert told[PREFIX + "a"] == told[PREFIX + "b"]


def test_names_of_announcements_are_nobody_elses() -> None:
    keys = {new_key() for _ in range(100)}
    assert len(keys) == 100
    assert {len(key) for key in keys} == {len(PREFIX) + 12}
    assert all(key.startswith(PREFIX) for key in keys)


def test_other_attributes_are_none() -> None:
    assert of({"pnn": RSE, "phedex_sync": "on", "phedex_sweeping": "{}", "a.phedex_sweeping.b": "{}"}) == []


def test_a_sweep_is_live_as_long_as_a_server_may_carry_it_out() -> None:
    one = Announcement(PREFIX + "a", at=1_000, hashes=frozenset())
    assert one.is_live(1_000 + HOUR - 1, HOUR)
    assert not one.is_live(1_000 + HOUR, HOUR)


def test_what_may_still_be_carried_out_is_parted_from_what_is_over() -> None:
    times = {f"{PREFIX}{at}": json.dumps({"at": at, "blocks": "0123abcd"}) for at in (3_000, 1_000, 2_000)}
    found = of(times | {PREFIX + "x": "by hand"})
    assert [one.key.removeprefix(PREFIX) for one in found] == ["1000", "2000", "3000", "x"]
    live, over = parted(found, 2_000 + HOUR, HOUR)
    assert [one.key.removeprefix(PREFIX) for one in live] == ["3000", "x"]
    assert [one.at for one in over] == [1_000, 2_000]


@pytest.mark.parametrize(
    "value",
    ["by hand", "", True, None, "{}", '{"at": 5}', '{"at": "5", "blocks": ""}', '{"at": 5, "blocks": 7}', "[]"],
)
def test_what_nobody_can_read_is_about_every_block_and_never_over(value: object) -> None:
    (one,) = of({PREFIX + "a": value})
    assert one == Announcement(PREFIX + "a", by="", cycle="", at=0, hashes=None)
    assert one.is_about(NAMES[0])
    assert one.is_live(10**12, HOUR)
    assert about([one], NAMES[:2]) == set(NAMES[:2])
    assert about([one], NAMES[:2], besides=PREFIX + "a") == set()


def test_a_value_without_who_and_cycle_is_read() -> None:
    value = json.dumps({"at": 5, "blocks": hash_of(NAMES[0]), "new": 1})
    (one,) = of({PREFIX + "a": value})
    assert (one.by, one.cycle, one.at) == ("", "", 5)
    assert one.is_about(NAMES[0])
    assert not one.is_about(NAMES[1])
