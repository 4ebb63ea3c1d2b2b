"""A colleague: somebody with an account of his own who writes to Rucio himself while a run goes on.

He makes rules on our blocks and containers and on containers of his own that have our blocks and files in them, at one
RSE and at either of two; locks rules of ours; puts files of ours into his datasets, and a file of his into our blocks.
He takes each of it back after a while, and all of it in `put_back`. What he is about to change of his own he tells the
watcher before, so that a change by anybody else is seen.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import psycopg
import requests
from rucio.client import Client
from rucio.common.exception import Duplicate, DuplicateRule, RucioException

from scripts.watching import Watcher
from tests.stack.rucio_server import PASSWORD, ROOT_ACCOUNT, RucioServer

ACCOUNT = "colleague"
SCOPE = "user.colleague"
OURS = "cms"
MOST = 4  # of each sort at once
LONGEST = 15.0  # seconds that anything of his stays, if he gets at Rucio
_NO_WAY = (RucioException, requests.RequestException, psycopg.Error, OSError)  # Rucio is away, or refuses
_AT = """SELECT s.rse FROM contents c JOIN replicas r ON r.scope = c.child_scope AND r.name = c.child_name
    JOIN rses s ON s.id = r.rse_id WHERE c.scope = %(scope)s AND c.name = %(name)s AND r.state = 'A'
    GROUP BY s.rse HAVING count(*) = (SELECT count(*) FROM contents WHERE scope = %(scope)s AND name = %(name)s)"""
_TOMBSTONES = """SELECT r.scope, r.name, s.rse FROM replicas r JOIN rses s ON s.id = r.rse_id
    WHERE r.tombstone IS NOT NULL
    AND NOT EXISTS (SELECT 1 FROM locks l WHERE (l.scope, l.name, l.rse_id) = (r.scope, r.name, r.rse_id))"""
_OUR_RULES = r"""SELECT u.id::text, u.name, u.rse_expression FROM rules u
    WHERE u.account LIKE 'sync\_%' AND u.expires_at IS NULL AND NOT u.locked"""

Did = dict[str, str]


@dataclass(frozen=True)
class Standing:
    """Something that he did, and how he takes it back."""

    what: str
    since: float
    undo: Callable[[], None]


def make_account(rucio: RucioServer) -> None:
    """The colleague can log in, may make rules without a quota and has a scope of his own."""
    root = rucio.client(ROOT_ACCOUNT)
    steps: list[Callable[[], object]] = [
        lambda: root.add_account(ACCOUNT, "USER", "colleague@example.org"),
        lambda: root.add_identity(ACCOUNT, ACCOUNT, "USERPASS", "colleague@example.org", password=PASSWORD),
        lambda: root.add_account_attribute(ACCOUNT, "admin", "True"),
        lambda: root.add_scope(ACCOUNT, SCOPE),
    ]
    for step in steps:
        with suppress(Duplicate):
            step()


@dataclass
class Colleague:
    """Acts now and then in a thread of its own, from `start` to `stop`; then `put_back`."""

    rucio: RucioServer
    watcher: Watcher
    rng: random.Random
    pause: tuple[float, float] = (0.3, 1.5)  # seconds between two acts
    did: Counter[str] = field(default_factory=Counter)
    standing: list[Standing] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        make_account(self.rucio)
        self._numbers = iter(range(1, 1_000_000))
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._go_on, name=ACCOUNT, daemon=True)
        self._client: Client | None = None
        self._acts = [
            self._rule_on_block, self._rule_on_block, self._rule_on_either, self._rule_on_container,
            self._container_of_his_own, self._container_of_his_own, self._lock, self._attach, self._attach,
            self._stranger,
        ]  # fmt: skip

    @property
    def client(self) -> Client:
        if self._client is None:
            self._client = self.rucio.client(ACCOUNT, timeout=20)
        return self._client

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """He does nothing any more; what he did stands."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    def _go_on(self) -> None:
        while not self._ended.wait(self.rng.uniform(*self.pause)):
            self._try(self.act)

    def act(self) -> None:
        """One thing that he does, or takes back."""
        old = [one for one in self.standing if time.monotonic() - one.since > self.rng.uniform(0, LONGEST)]
        if old and self.rng.random() < 0.6:
            self._take_back(self.rng.choice(old))
            return
        act = self.rng.choice(self._acts)
        if sum(one.what == act.__name__ for one in self.standing) < MOST:
            act()

    def _take_back(self, one: Standing) -> None:
        one.undo()
        self.standing.remove(one)
        self.did[f"undone: {one.what.strip('_').replace('_', ' ')}"] += 1

    def _try(self, act: Callable[[], None]) -> None:
        try:
            act()
        except _NO_WAY as error:
            self.did[f"refused: {type(error).__name__}"] += 1
            self.errors.append(f"{getattr(act, '__name__', 'act')}: {type(error).__name__}: {str(error)[:200]}")
            self._client = None

    def _stands(self, act: str, undo: Callable[[], None]) -> None:
        self.standing.append(Standing(act, time.monotonic(), undo))
        self.did[act.strip("_").replace("_", " ")] += 1

    # --- what he does ---------------------------------------------------------------------------------------------

    def _rule_on_block(self) -> None:
        if (block := self._block()) and (places := self._places(block)):
            self._rule(self._rule_on_block.__name__, block, self.rng.choice(places))

    def _rule_on_either(self) -> None:
        """Whichever of two sites has it: Rucio takes one."""
        if (block := self._block()) and (places := self._places(block)):
            self._rule(self._rule_on_either.__name__, block, self._either(places))

    def _rule_on_container(self) -> None:
        """On all blocks of a dataset, each wherever it is."""
        if block := self._block():
            container = block | {"name": block["name"].partition("#")[0]}
            self._rule(self._rule_on_container.__name__, container, "|".join(self._sites()), "DATASET")

    def _container_of_his_own(self) -> None:
        """One of our blocks, and a dataset of his with one of its files: they may be held at different sites."""
        block = self._block()
        files = self._files(block) if block else []
        if not block or not files or not (places := self._places(block)):
            return
        number = next(self._numbers)
        dataset = self._new("dataset", f"/his/d{number}/USER")
        container = self._new("container", f"/his/c{number}/USER")
        self._put_in(dataset, self.rng.choice(files))
        self.client.attach_dids(**container, dids=[block, dataset])
        self._stands("_container", lambda: self._empty(container))
        self._rule(
            self._container_of_his_own.__name__, container, self._either(places), self.rng.choice(["NONE", "ALL"])
        )

    def _attach(self) -> None:
        """A file of ours is in a dataset of his as well."""
        if (block := self._block()) and (files := self._files(block)):
            dataset = self._new("dataset", f"/his/d{next(self._numbers)}/USER")
            if self.rng.random() < 0.5 and (places := self._places(block)):
                self._rule("_rule_on_his_dataset", dataset, self.rng.choice(places))
            self._put_in(dataset, self.rng.choice(files))

    def _lock(self) -> None:
        """He locks a rule of ours: it must stay."""
        if rules := self.rucio.sql(_OUR_RULES):
            number = str(self.rng.choice(rules)[0]).replace("-", "")
            self._stands(self._lock.__name__, lambda: self._unlock(number))
            self.client.update_replication_rule(number, {"locked": True})

    def _stranger(self) -> None:
        """A file of his joins a block of ours; at all sites that hold the block, or at one site only."""
        block = self._block()
        places = [] if block is None else self._places(block)
        if block is None or not places:
            return
        file = {"scope": SCOPE, "name": f"/store/user/colleague/{next(self._numbers)}.root"}
        for rse in places if self.rng.random() < 0.6 else places[:1]:
            self.client.add_replicas(rse, [file | {"bytes": 5, "adler32": "00000005"}])
        self._stands(self._stranger.__name__, lambda: self._detach(block, file))
        self.client.attach_dids(**block, dids=[file])

    # --- how ------------------------------------------------------------------------------------------------------

    def _rule(self, act: str, what: Did, expression: str, grouping: str = "DATASET") -> None:
        with suppress(DuplicateRule):
            (number,) = self.client.add_replication_rule(
                [what], 1, expression, account=ACCOUNT, grouping=grouping, ignore_availability=True
            )
            self._stands(act, lambda: self._end(str(number)))

    def _end(self, number: str) -> None:
        """The rule is over; Rucio's cleaner takes it."""
        self.watcher.theirs(number)
        with suppress(RucioException):  # gone already
            self.client.update_replication_rule(number, {"lifetime": 0})

    def _unlock(self, number: str) -> None:
        self.watcher.theirs(number)
        self.client.update_replication_rule(number, {"locked": False})

    def _new(self, kind: str, name: str) -> Did:
        made = {"scope": SCOPE, "name": name}
        (self.client.add_dataset if kind == "dataset" else self.client.add_container)(**made)
        return made

    def _put_in(self, dataset: Did, file: Did) -> None:
        """The file is in his dataset, until he takes it out."""
        self._stands(self._attach.__name__, lambda: self._detach(dataset, file))
        self.client.attach_dids(**dataset, dids=[file])

    def _detach(self, parent: Did, child: Did) -> None:
        self.watcher.theirs(f"{_text(parent)} {_text(child)}")
        if child["name"] in {row[0] for row in self.rucio.sql(_INSIDE, parent)}:
            self.client.detach_dids(**parent, dids=[child])

    def _empty(self, container: Did) -> None:
        for scope, name in self.rucio.sql(
            "SELECT child_scope, child_name FROM contents WHERE scope = %(scope)s AND name = %(name)s", container
        ):
            self._detach(container, {"scope": scope, "name": name})

    # --- what he looks at -----------------------------------------------------------------------------------------

    def _block(self) -> Did | None:
        """A block under a rule of ours."""
        rules = self.rucio.sql(_OUR_RULES)
        return {"scope": OURS, "name": str(self.rng.choice(rules)[1])} if rules else None

    def _files(self, block: Did) -> list[Did]:
        return [{"scope": OURS, "name": str(name)} for (name,) in sorted(self.rucio.sql(_INSIDE, block))]

    def _places(self, block: Did) -> list[str]:
        """The RSEs that have all of it: a rule there orders no transfer."""
        return sorted(str(rse) for (rse,) in self.rucio.sql(_AT, block))

    def _sites(self) -> list[str]:
        return sorted(str(rse) for (rse,) in self.rucio.sql("SELECT rse FROM rses WHERE NOT deleted"))

    def _either(self, places: list[str]) -> str:
        sure = self.rng.choice(places)
        others = [rse for rse in self._sites() if rse != sure]
        return "|".join(sorted([sure, self.rng.choice(others)])) if others else sure

    # --- the end --------------------------------------------------------------------------------------------------

    def put_back(self, limit: float = 120) -> None:
        """Nothing of his is left but empty datasets. Raises TimeoutError where Rucio does not let him.

        A request that got no answer may have been carried out: so he looks for what is there, not at what he remembers.
        """
        deadline = time.monotonic() + limit
        while True:
            try:
                self._put_all_back()
                return
            except _NO_WAY as error:
                self._client = None
                if time.monotonic() > deadline:
                    raise TimeoutError(f"the colleague could not take back what he did: {error}") from error
                time.sleep(1)  # the pace of trying again

    def _put_all_back(self) -> None:
        for one in list(self.standing):
            with suppress(RucioException):
                self._take_back(one)
        self.standing.clear()
        for number, account, locked in self.rucio.sql("SELECT id::text, account, locked FROM rules"):
            if locked:
                self._unlock(str(number).replace("-", ""))
            if account == ACCOUNT:
                self._end(str(number).replace("-", ""))
        for scope, name, child_scope, child in self.rucio.sql(
            "SELECT scope, name, child_scope, child_name FROM contents WHERE scope = %(s)s OR child_scope = %(s)s",
            {"s": SCOPE},
        ):
            self._detach({"scope": scope, "name": name}, {"scope": child_scope, "name": child})

    def reap(self) -> int:
        """What Rucio's reaper would delete is gone: replicas with a tombstone and without a lock. How many they were.

        Only to be called while nothing else writes: it does not look again.
        """
        found = [(str(scope), str(name), str(rse)) for scope, name, rse in self.rucio.sql(_TOMBSTONES)]
        self.watcher.theirs(*(f"{scope}:{name}@{rse}" for scope, name, rse in found))
        for rse in sorted({rse for _, _, rse in found}):
            files = [{"scope": scope, "name": name} for scope, name, at in found if at == rse]
            self.client.delete_replicas(rse, files, ignore_availability=True)
        return len(found)


_INSIDE = "SELECT child_name FROM contents WHERE scope = %(scope)s AND name = %(name)s"


def _text(did: Did) -> str:
    return f"{did['scope']}:{did['name']}"
