"""What our gateway relies on, held against a real Rucio: each verb, twice, at once, and at its limits."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from common.errors import FileConflict, NotFound, RucioConflict, RucioError, RucioRefused, UsageError
from common.rucio import dids, replicas, rules
from common.rucio.dids import Attachment
from common.rucio.inventory import rules_at
from common.rucio.rses import Switch, find_site
from common.rucio.session import Rucio
from common.settings.model import Main, Site
from common.sync.catalogue import File
from common.sync.marks import parse_meta
from tests.stack.rucio_server import RucioServer, forget_tokens
from tests.stack.world import client_environment, make_account, make_site
from tests.two_sides import DATASET, NODE, OTHER, block

ACCOUNT = "sync_t2_it_pisa"
ROUNDS = 5


@pytest.fixture
def server(clean_rucio: RucioServer) -> Iterator[RucioServer]:
    for node in (NODE, OTHER):
        make_site(clean_rucio, node)
    with client_environment(clean_rucio):
        yield clean_rucio


@pytest.fixture
def rucio(server: RucioServer) -> Iterator[Rucio]:
    rucio = Rucio(Main())
    yield rucio
    rucio.close()


def some(name: str, count: int = 3) -> tuple[File, ...]:
    stem = name.replace("#", "/")
    return tuple(File(f"/store/data{stem}/{n}.root", 100 + n, f"{n:08x}") for n in range(count))


def put(rucio: Rucio, *names: str, rse: str = NODE) -> None:
    dids.add(rucio, [DATASET], names)
    dids.attach(rucio, [Attachment(parent=name, files=some(name), rse=rse) for name in names])
    dids.attach(rucio, [Attachment(parent=DATASET, names=names)])


def test_probe_says_who_we_are(rucio: Rucio) -> None:
    forget_tokens()
    assert rucio.probe() == "phedex_sync"
    assert (rucio.requests, rucio.logins) == (2, 1)  # whoami is redirected to the account


def test_dids_are_made_once_and_a_list_is_all_or_nothing(rucio: Rucio) -> None:
    dids.add(rucio, [DATASET], [block(1)])
    with pytest.raises(RucioConflict, match=r"add_dids .*AlreadyExists"):
        dids.add(rucio, [], [block(1), block(2)])
    names = [DATASET, block(1), block(2), "/Not/There/RAW"]
    assert dids.existing(rucio, names) == {DATASET: True, block(1): True}


def test_attaching_again_changes_nothing(rucio: Rucio) -> None:
    put(rucio, block(1))
    for _ in range(2):
        dids.attach(rucio, [Attachment(parent=block(1), files=some(block(1)), rse=NODE)])
        dids.attach(rucio, [Attachment(parent=DATASET, names=(block(1),))])
        assert dids.contents(rucio, [block(1), block(2)]) == {
            block(1): {file.name: file for file in some(block(1))},
            block(2): {},
        }
        assert dids.children(rucio, DATASET) == {block(1)}
        assert replicas.available(rucio, NODE, block(1)) == 3
        assert replicas.available(rucio, OTHER, block(1)) == 0


def test_files_are_known_wherever_they_are(rucio: Rucio) -> None:
    files = some("/a")
    replicas.add(rucio, OTHER, files[:2])
    replicas.add(rucio, OTHER, files[:2])
    assert dids.known_files(rucio, [file.name for file in files]) == {file.name: file for file in files[:2]}
    assert replicas.places(rucio, [file.name for file in files]) == {
        files[0].name: {OTHER},
        files[1].name: {OTHER},
        files[2].name: set(),
    }


@pytest.mark.parametrize("other", [File("", 7, "00000000"), File("", 100, "0000beef")])
def test_another_size_or_checksum_is_refused_whole(rucio: Rucio, other: File) -> None:
    put(rucio, block(1))
    dids.add(rucio, [], [block(2)])
    wrong = File(some(block(1))[0].name, other.bytes, other.adler32)
    with pytest.raises(FileConflict, match=wrong.name):
        dids.attach(rucio, [Attachment(parent=block(2), files=(wrong, *some(block(2))), rse=OTHER)])
    assert dids.contents(rucio, [block(2)]) == {block(2): {}}
    assert replicas.places(rucio, [wrong.name]) == {wrong.name: {NODE}}


def test_a_file_without_checksum_goes_in_without(rucio: Rucio) -> None:
    put(rucio, block(1))
    file = File("/store/data/plain.root", 5)
    dids.attach(rucio, [Attachment(parent=block(1), files=(file,), rse=NODE)])
    assert dids.contents(rucio, [block(1)])[block(1)][file.name] == file
    with pytest.raises(FileConflict, match=file.name):
        dids.attach(rucio, [Attachment(parent=block(1), files=(File(file.name, 5, "00000001"),), rse=NODE)])


def test_attaching_to_what_is_not_there(rucio: Rucio) -> None:
    with pytest.raises(NotFound):
        dids.attach(rucio, [Attachment(parent=block(1), files=some(block(1)), rse=NODE)])


def test_1000_children_are_taken_and_1001_not(rucio: Rucio) -> None:
    dids.add(rucio, [], [block(1)])
    with pytest.raises(RucioRefused, match="InvalidObject"):
        dids.attach(rucio, [Attachment(parent=block(1), files=some(block(1), 1001), rse=NODE)])
    dids.attach(rucio, [Attachment(parent=block(1), files=some(block(1), 1000), rse=NODE)])
    assert replicas.available(rucio, NODE, block(1)) == 1000


def test_rules_are_made_once_and_read_back(rucio: Rucio, server: RucioServer) -> None:
    put(rucio, block(1), block(2))
    meta = {"phedex_group": "DataOps", "phedex_custodial": True}
    rules.add(rucio, [block(2), block(1)], NODE, ACCOUNT, meta)
    with pytest.raises(RucioConflict, match="DuplicateRule"):
        rules.add(rucio, [block(1)], NODE, ACCOUNT, meta)
    site = find_site(rucio, NODE, Site())
    assert site is not None
    found = rules_at(rucio, site)
    assert sorted(found) == [block(1), block(2)]
    one = found[block(1)]
    assert (one.files, one.group, one.custodial) == (3, "DataOps", True)
    assert (one.ending, one.marked, one.keep, one.plain) == (False, False, False, True)
    assert {(lock.name, lock.rse, lock.account) for lock in rules.locks(rucio, [block(1), block(3)])} == {
        (block(1), NODE, ACCOUNT)
    }
    assert [row["id"] for row in rules.of_dataset(rucio, block(1))] == [one.id]


def test_a_rule_is_changed_and_its_end_taken_back(rucio: Rucio) -> None:
    put(rucio, block(1))
    rules.add(rucio, [block(1)], NODE, ACCOUNT, {})
    (row,) = rules.of_dataset(rucio, block(1))
    for options in ({"meta": '{"phedex_gone_since":"T"}', "lifetime": 3600}, {"meta": "{}", "lifetime": None}):
        for _ in range(2):
            rules.change(rucio, row["id"], options)
        now = rules.read(rucio, row["id"])
        assert (now["expires_at"] is None) == (options["lifetime"] is None)
        assert ("phedex_gone_since" in parse_meta(now["meta"])) == (options["lifetime"] is not None)
    assert rules.find(rucio, "0" * 32) is None
    with pytest.raises(NotFound):
        rules.change(rucio, "0" * 32, {"lifetime": None})


def test_the_inventory_takes_ours_only_and_the_better_of_two(rucio: Rucio, server: RucioServer) -> None:
    put(rucio, block(1), block(2))
    root = server.client()
    make_account(root, "somebody", NODE)
    for account, expression in ((ACCOUNT, f"rse={NODE}"), ("somebody", NODE), (ACCOUNT, NODE)):
        rules.add(rucio, [block(1)], expression, account, {})
    rules.add(rucio, [block(2)], f"rse={NODE}", ACCOUNT, {})
    root.add_replication_rule([dids.did(DATASET)], 1, NODE, account=ACCOUNT)
    site = find_site(rucio, NODE, Site())
    assert site is not None
    before = rucio.requests
    assert {name: rule.plain for name, rule in rules_at(rucio, site).items()} == {block(1): True, block(2): False}
    assert rucio.requests == before + 1
    (plain,) = [
        row for row in rules.of_dataset(rucio, block(1)) if (row["rse_expression"], row["account"]) == (NODE, ACCOUNT)
    ]
    rules.change(rucio, plain["id"], {"lifetime": 3600})
    better = rules_at(rucio, site)[block(1)]
    assert (better.plain, better.ending) == (False, False)


def test_a_site_is_found_by_its_attributes(rucio: Rucio, server: RucioServer) -> None:
    site = find_site(rucio, NODE, Site())
    assert site is not None
    assert (site.rse, site.account, site.accounts, site.switch) == (NODE, ACCOUNT, (ACCOUNT,), Switch.ON)
    assert find_site(rucio, "T2_DE_DESY", Site()) is None
    assert find_site(rucio, NODE, Site(rse="T2_XX_Nowhere")) is None
    root = server.client()
    make_site(server, "T1_US_FNAL_Buffer", "T1_US_FNAL_Tape")
    tape = find_site(rucio, "T1_US_FNAL_Buffer", Site())
    assert tape is not None
    assert (tape.rse, tape.accounts) == ("T1_US_FNAL_Tape", ("sync_t1_us_fnal_tape", "sync_t1_us_fnal_buffer"))
    root.add_rse_attribute(OTHER, "pnn", NODE)
    with pytest.raises(UsageError, match=f"{OTHER}, {NODE}"):
        find_site(rucio, NODE, Site())
    mended = find_site(rucio, NODE, Site(rse=OTHER, account="sync_mine"))
    assert mended is not None
    assert mended.accounts == ("sync_mine", f"sync_{OTHER.lower()}", ACCOUNT)


@pytest.mark.parametrize(
    ("value", "switch"),
    [
        ("on", Switch.ON),
        ("adds-only", Switch.ADDS_ONLY),
        ("frozen", Switch.FROZEN),
        ("ON", Switch.FROZEN),
        ("True", Switch.FROZEN),
    ],
)
def test_a_site_s_switch(rucio: Rucio, server: RucioServer, value: str, switch: Switch) -> None:
    server.client().add_rse_attribute(NODE, "phedex_sync", value)
    site = find_site(rucio, NODE, Site())
    assert site is not None
    assert site.switch is switch


RACES: dict[str, Callable[[Rucio, int], None]] = {
    "dids": lambda rucio, turn: dids.add(rucio, [f"/Race/{turn}/RAW"], [f"/Race/{turn}/RAW#{n}" for n in range(20)]),
    "attach": lambda rucio, turn: dids.attach(
        rucio, [Attachment(parent=block(n), files=some(f"/{turn}/{n}", 20), rse=NODE) for n in range(5)]
    ),
    "rules": lambda rucio, turn: rules.add(rucio, [block(n) for n in range(5)], NODE, f"sync_race{turn}", {}),
}


@pytest.mark.parametrize("race", RACES)
def test_who_loses_a_race_is_told_so_and_nothing_is_half_done(rucio: Rucio, server: RucioServer, race: str) -> None:
    put(rucio, *[block(n) for n in range(5)])
    root = server.client()
    for turn in range(ROUNDS):
        make_account(root, f"sync_race{turn}", NODE)
        errors = at_once(RACES[race], turn)
        assert len(errors) <= 1
        assert all(isinstance(error, RucioConflict) for error in errors), errors
        if race == "attach":
            RACES[race](rucio, turn)  # the loser's repeat
            assert all(
                len(files) == 3 + 20 * (turn + 1) for files in dids.contents(rucio, map(block, range(5))).values()
            )
        elif race == "dids":
            assert len(dids.existing(rucio, [f"/Race/{turn}/RAW#{n}" for n in range(20)])) == 20
        else:
            assert len(list(rucio.rows("list_account_rules", f"sync_race{turn}"))) == 5
    assert server.sql("SELECT count(*) FROM requests") == [(0,)]
    assert server.sql("SELECT count(*) FROM locks WHERE state <> 'O'") == [(0,)]


def at_once(action: Callable[[Rucio, int], None], turn: int) -> list[RucioError]:
    barrier = threading.Barrier(2)
    errors: list[RucioError] = []

    def run() -> None:
        rucio = Rucio(Main())
        rucio.probe()
        barrier.wait()
        try:
            action(rucio, turn)
        except RucioError as error:
            errors.append(error)
        finally:
            rucio.close()

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


def test_a_server_that_is_down_is_asked_about(rucio: Rucio, server: RucioServer, tmp_path: Path) -> None:
    rucio.probe()
    server.stop()
    with pytest.raises(RucioError) as caught:
        dids.existing(rucio, [DATASET])
    assert type(caught.value) is RucioError


def test_a_server_without_its_database_is_asked_about(rucio: Rucio, server: RucioServer) -> None:
    rucio.probe()
    server.postgres.stop()
    with pytest.raises(RucioError) as caught:
        rucio.probe()
    assert type(caught.value) is RucioError
