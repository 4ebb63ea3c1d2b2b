"""Rucio in a few dicts: the verbs that the gateway uses, with the behaviour seen on a real Rucio 41.5.1.

It raises rucio's own exceptions, so the gateway's table of errors is at work too. What it does not know it refuses.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from rucio.common import exception as rucio

Row = dict[str, Any]


@dataclass
class ModelFile:
    """A file's DID."""

    bytes: int
    adler32: str | None


@dataclass
class ModelRule:
    """A rule. `locks`: the files it holds, `bad` those of them that it waits for. `ends`: the cleaner may take it.

    A lock knows nothing of a replica that is deleted under it: the rule goes on saying OK.
    """

    id: str
    account: str
    name: str
    rse: str
    expression: str
    meta: str | None
    locks: set[str] = field(default_factory=set)
    ends: bool = False
    bad: set[str] = field(default_factory=set)
    state: str = "OK"


@dataclass
class RucioModel:
    """The state: who has what, and how many transfers Rucio would have queued (the sync must keep that at nought)."""

    rses: dict[str, dict[str, str]] = field(default_factory=dict)
    files: dict[str, ModelFile] = field(default_factory=dict)
    datasets: dict[str, set[str]] = field(default_factory=dict)
    containers: dict[str, set[str]] = field(default_factory=dict)
    replicas: dict[tuple[str, str], str] = field(default_factory=dict)
    rules: dict[str, ModelRule] = field(default_factory=dict)
    history: dict[str, dict[str, ModelFile]] = field(default_factory=dict)
    tombstones: set[tuple[str, str]] = field(default_factory=set)
    transfers: int = 0
    writes: int = 0
    made: int = 0

    # --- asking -----------------------------------------------------------------------------------------------

    def whoami(self) -> Row:
        return {"account": "root"}

    def list_rses(self, expression: str) -> Iterator[Row]:
        wanted = dict(part.split("=") for part in expression.split("&"))
        found = [rse for rse, attributes in self.rses.items() if wanted.items() <= attributes.items()]
        if not found:
            raise rucio.InvalidRSEExpression("RSE Expression resulted in an empty set.")
        return iter([{"rse": rse} for rse in found])

    def get_rse(self, rse: str) -> Row:
        if rse not in self.rses:
            raise rucio.RSENotFound(rse)
        return {"rse": rse, "rse_type": "TAPE" if rse.endswith("_Tape") else "DISK"}

    def list_rse_attributes(self, rse: str) -> Row:
        if rse not in self.rses:
            raise rucio.RSENotFound(rse)
        return dict(self.rses[rse])

    def get_metadata_bulk(self, dids: list[Row]) -> Iterator[Row]:
        return iter([row for did in dids if (row := self._metadata(did["name"]))])

    def _metadata(self, name: str) -> Row | None:
        if name in self.files:
            known = self.files[name]
            return self._did(name, "FILE") | {"bytes": known.bytes, "adler32": known.adler32, "is_open": None}
        kind = "DATASET" if name in self.datasets else "CONTAINER" if name in self.containers else ""
        return self._did(name, kind) | {"is_open": True, "bytes": None, "adler32": None} if kind else None

    @staticmethod
    def _did(name: str, kind: str) -> Row:
        return {"scope": "cms", "name": name, "did_type": kind}

    def bulk_list_files(self, dids: list[Row]) -> Iterator[Row]:
        for did in dids:
            for name in sorted(self.datasets.get(did["name"], ())):
                known = self.files[name]
                yield {
                    "scope": "cms",
                    "name": name,
                    "bytes": known.bytes,
                    "adler32": known.adler32,
                    "parent_name": did["name"],
                }

    def list_content(self, scope: str, name: str) -> Iterator[Row]:
        inside = self.containers.get(name, self.datasets.get(name))
        if inside is None:
            raise rucio.DataIdentifierNotFound(name)
        return iter([{"scope": scope, "name": child} for child in sorted(inside)])

    def list_account_rules(self, account: str) -> Iterator[Row]:
        return iter([self._rule(rule) for rule in self.rules.values() if rule.account == account])

    def list_did_rules(self, scope: str, name: str) -> Iterator[Row]:
        return iter([self._rule(rule) for rule in self.rules.values() if rule.name == name])

    def get_replication_rule(self, rule_id: str) -> Row:
        if rule_id not in self.rules:
            raise rucio.RuleNotFound(rule_id)
        return self._rule(self.rules[rule_id])

    def _rule(self, rule: ModelRule) -> Row:
        return self._did(rule.name, "DATASET") | {
            "id": rule.id,
            "account": rule.account,
            "rse_expression": rule.expression,
            "locks_ok_cnt": len(rule.locks - rule.bad),
            "locks_replicating_cnt": len(rule.bad),
            "locks_stuck_cnt": 0,
            "expires_at": "soon" if rule.ends else None,
            "meta": json.dumps(rule.meta) if rule.meta is not None else None,
            "state": rule.state,
        }

    def get_locks_for_dids(self, dids: list[Row]) -> Iterator[Row]:
        names = {did["name"] for did in dids}
        for rule in self.rules.values():
            if rule.name in names:
                yield {"name": rule.name, "rse": rule.rse, "rule_id": rule.id, "account": rule.account}

    def list_dataset_replicas(self, scope: str, name: str, deep: bool = False) -> Iterator[Row]:
        for rse in self.rses:
            there = sum(self.replicas.get((rse, file)) == "A" for file in self.datasets.get(name, ()))
            if there:
                yield {"rse": rse, "available_length": there}

    def list_replicas(self, dids: list[Row], resolve_parents: bool = False, **_options: object) -> Iterator[Row]:
        for did in dids:
            there = {rse: state for (rse, name), state in self.replicas.items() if name == did["name"]}
            if there:
                states = {rse: "AVAILABLE" if state == "A" else "UNAVAILABLE" for rse, state in there.items()}
                row = {"scope": "cms", "name": did["name"], "states": states}
                parents = [f"cms:{parent}" for parent in self._parents(did["name"])]
                yield row | ({"parents": parents} if resolve_parents else {})

    def _parents(self, file: str) -> list[str]:
        """All that a file is in: its datasets, and their containers."""
        inside = [name for name, files in self.datasets.items() if file in files]
        return inside + [name for name, datasets in self.containers.items() if datasets & set(inside)]

    def list_content_history(self, scope: str, name: str) -> Iterator[Row]:
        """What was detached; what `delete_replicas` tore out stands here too."""
        for file, known in self.history.get(name, {}).items():
            yield {"scope": scope, "name": file, "type": "FILE", "bytes": known.bytes, "adler32": known.adler32}

    def list_replication_rules(self, filters: Row) -> Iterator[Row]:
        """There are rules on datasets only."""
        assert filters["did_type"] == "F", filters
        return iter(())

    def list_replica_locks(self, rule_id: str) -> Iterator[Row]:
        rule = self.rules.get(rule_id)
        return iter([{"name": name, "rse": rule.rse} for name in sorted(rule.locks)] if rule else ())

    # --- writing ----------------------------------------------------------------------------------------------

    def add_dids(self, dids: list[Row]) -> bool:
        self.writes += 1
        if any(did["name"] in self.datasets or did["name"] in self.containers for did in dids):
            raise rucio.DataIdentifierAlreadyExists("Data Identifier Already Exists.")
        for did in dids:
            (self.datasets if did["type"] == "DATASET" else self.containers)[did["name"]] = set()
        return True

    def attach_dids_to_dids(self, attachments: list[Row], ignore_duplicate: bool = False) -> bool:
        """All or nothing; a known file must agree in size and, where one is given, in checksum."""
        self.writes += 1
        for one in attachments:
            self._check_attachment(one, ignore_duplicate)
        for one in attachments:
            for child in one["dids"]:
                if "rse" in one:
                    self._replicate(one["rse"], child)
                (self.datasets.get(one["name"]) or self._children(one["name"])).add(child["name"])
        return True

    def _children(self, parent: str) -> set[str]:
        return self.datasets[parent] if parent in self.datasets else self.containers[parent]

    def _check_attachment(self, one: Row, ignore_duplicate: bool) -> None:
        if one["name"] not in self.datasets and one["name"] not in self.containers:
            raise rucio.DataIdentifierNotFound(one["name"])
        for child in one["dids"]:
            known = self.files.get(child["name"])
            if "rse" in one and known is not None:
                self._check_file(child, known)
            elif "rse" not in one and self._metadata(child["name"]) is None:
                raise rucio.DataIdentifierNotFound(child["name"])
            if not ignore_duplicate and child["name"] in self._children(one["name"]):
                raise rucio.FileAlreadyExists("There is already a file with this name")

    @staticmethod
    def _check_file(child: Row, known: ModelFile) -> None:
        for key, theirs in (("bytes", known.bytes), ("adler32", known.adler32)):
            if key in child and child[key] != theirs:
                raise rucio.FileConsistencyMismatch(f"{key} mismatch for 'cms:{child['name']}': {child[key]}!={theirs}")

    def _replicate(self, rse: str, child: Row) -> None:
        self.files.setdefault(child["name"], ModelFile(child["bytes"], child.get("adler32")))
        self.replicas.setdefault((rse, child["name"]), "A")

    def add_replicas(self, rse: str, files: list[Row]) -> bool:
        """Sizes are not compared with what is known."""
        self.writes += 1
        for child in files:
            self._replicate(rse, child)
        return True

    def delete_replicas(self, rse: str, files: list[Row], **_options: object) -> bool:
        """Whole or not at all, whoever locks them. A file's last replica takes its DID and its place in datasets."""
        self.writes += 1
        names = [file["name"] for file in files]
        if len(set(names)) < len(names):
            raise rucio.DatabaseException("UniqueViolation")
        if not all((rse, name) in self.replicas for name in names):
            raise rucio.ReplicaNotFound("One or several replicas don't exist.")
        for name in names:
            del self.replicas[rse, name]
            self.tombstones.discard((rse, name))
        for name in set(names) - {name for _, name in self.replicas}:
            self._forget(name)
        return True

    def _forget(self, file: str) -> None:
        """A dataset that this empties leaves its containers; its own DID stays."""
        known = self.files.pop(file)
        for name, inside in self.datasets.items():
            if file in inside:
                inside.discard(file)
                self.history.setdefault(name, {})[file] = known
                if not inside:
                    for datasets in self.containers.values():
                        datasets.discard(name)

    def detach_dids(self, scope: str, name: str, dids: list[Row]) -> bool:
        """All were inside, or nothing is done. A file stays, and so does a dataset without any."""
        self.writes += 1
        if name not in self.datasets and name not in self.containers:
            raise rucio.DataIdentifierNotFound(name)
        inside = self._children(name)
        if not {did["name"] for did in dids} <= inside:
            raise rucio.DataIdentifierNotFound("not found under it")
        for did in dids:
            inside.discard(did["name"])
            if did["name"] in self.files:
                self.history.setdefault(name, {})[did["name"]] = self.files[did["name"]]
        return True

    def update_replicas_states(self, rse: str, files: list[Row]) -> bool:
        """Locks follow; a rule that was STUCK stays so, until a daemon that is not in here repairs it."""
        self.writes += 1
        if not all((rse, file["name"]) in self.replicas for file in files):
            raise rucio.ReplicaNotFound("No row found")
        for file in files:
            self.replicas[rse, file["name"]] = file["state"]
            for rule in self.rules.values():
                if rule.rse == rse and file["name"] in rule.locks:
                    (rule.bad.discard if file["state"] == "A" else rule.bad.add)(file["name"])
                    rule.state = "STUCK" if file["state"] != "A" else rule.state
        return True

    def add_replication_rule(
        self, dids: list[Row], copies: int, rse_expression: str, *, account: str, meta: str, **_options: object
    ) -> list[str]:
        self.writes += 1
        taken = {(rule.account, rule.name, rule.expression) for rule in self.rules.values()}
        if any((account, did["name"], rse_expression) in taken for did in dids):
            raise rucio.DuplicateRule("A duplicate rule for this account, did, rse_expression, copies already exists.")
        return [self._add_rule(did["name"], rse_expression, account, meta) for did in dids]

    def _add_rule(self, name: str, expression: str, account: str, meta: str | None) -> str:
        if name not in self.datasets:
            raise rucio.DataIdentifierNotFound(name)
        self.made += 1
        number = f"{self.made:032x}"
        rule = ModelRule(number, account, name, expression.removeprefix("rse="), expression, meta)
        self.rules[number] = rule
        self._lock(rule)
        return number

    def _lock(self, rule: ModelRule) -> None:
        """A file of the dataset that is not at the RSE would be transferred there."""
        for name in self.datasets[rule.name] - rule.locks:
            rule.locks.add(name)
            self.tombstones.discard((rule.rse, name))
            if self.replicas.get((rule.rse, name)) != "A":
                self.transfers += 1
                rule.bad.add(name)
                rule.state = "REPLICATING"

    def update_replication_rule(self, rule_id: str, options: Row) -> bool:
        self.writes += 1
        if rule_id not in self.rules:
            raise rucio.RuleNotFound(rule_id)
        rule = self.rules[rule_id]
        if "meta" in options:
            rule.meta = options["meta"]
        if "lifetime" in options:
            rule.ends = options["lifetime"] is not None
        return True

    # --- the daemons ------------------------------------------------------------------------------------------

    def judge(self) -> None:
        """The evaluator has given every rule the locks of its dataset's files; the cleaner has taken ended rules."""
        for rule in self.rules.values():
            self._unlock(rule, rule.locks - self.datasets[rule.name])
            self._lock(rule)
        for rule in [rule for rule in self.rules.values() if rule.ends]:
            del self.rules[rule.id]
            self._unlock(rule, set(rule.locks))

    def _unlock(self, rule: ModelRule, names: set[str]) -> None:
        """A replica that no lock holds any more has a tombstone: Rucio may delete the real file."""
        rule.locks -= names
        rule.bad -= names
        held = {name for other in self.rules.values() if other.rse == rule.rse for name in other.locks}
        self.tombstones |= {(rule.rse, name) for name in names - held if (rule.rse, name) in self.replicas}
