"""Rucio in a few dicts: the verbs that the sync uses, with the behaviour seen on a real Rucio 41.5.1.

It raises rucio's own exceptions, so the gateway's table of errors is at work too. What it does not know it refuses.
It knows of no quota, no closed datasets, and of no daemons but the evaluator and the cleaner.

A DID's key is its name where it is of the scope `cms`, else `scope:name`.
"""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from fnmatch import fnmatchcase
from typing import Any, Concatenate, ParamSpec, TypeVar

from rucio.common import exception as rucio

Row = dict[str, Any]
Replica = tuple[str, str]  # RSE, file
P = ParamSpec("P")
T = TypeVar("T")
BEGINNING = "Thu, 01 Jan 1970 00:00:00 UTC"
KINDS = {"F": "FILE", "D": "DATASET", "C": "CONTAINER"}
STATES = {
    "A": "AVAILABLE",
    "U": "UNAVAILABLE",
    "C": "COPYING",
    "B": "BEING_DELETED",
    "D": "BAD",
    "T": "TEMPORARY_UNAVAILABLE",
}
PRESENT = "ACT"  # what the evaluator counts as there; a new rule counts all but BEING_DELETED
NOT_LEAVING = "ACTUD"
RSE_SETTINGS = {"availability_read": True, "availability_write": True, "availability_delete": True}
CHANGEABLE = {"meta", "comment", "lifetime", "locked", "state", "cancel_requests", "account", "priority", "activity"}
VALUE = 255  # the longest value of an RSE attribute
COMMENT = 255  # the longest comment of a rule


def key(did: Row) -> str:
    """A DID's key."""
    scope: str = did.get("scope", "cms")
    return str(did["name"]) if scope == "cms" else f"{scope}:{did['name']}"


def parts(of: str) -> tuple[str, str]:
    """The scope and name of a key. Names of the scope `cms` begin with a slash, and may have colons."""
    scope, colon, name = of.partition(":")
    return ("cms", of) if of.startswith("/") or not colon else (scope, name)


def named(of: str) -> Row:
    """The scope and name of a key, as rows have them."""
    scope, name = parts(of)
    return {"scope": scope, "name": name}


@dataclass
class ModelFile:
    """A file's DID."""

    bytes: int
    adler32: str | None
    account: str = "root"  # who made it


@dataclass
class ModelRule:
    """A rule on the DID `name` (a key).

    A lock knows nothing of a replica that is deleted under it: the rule goes on saying OK.
    """

    id: str
    account: str
    name: str
    rse: str  # the expression without `rse=`: the RSE, if it is the expression of one
    expression: str
    meta: str | Row | None
    copies: int = 1
    grouping: str = "DATASET"
    comment: str | None = None
    locked: bool = False
    created_at: datetime | None = None
    expires_at: datetime | None = None
    state: str = "OK"
    # file → RSE → O (good), R (a transfer is queued) or S (stuck)
    held: dict[str, dict[str, str]] = field(default_factory=dict)
    # dataset locks as (RSE, dataset): where Rucio put the dataset; locks of shared files may be elsewhere
    datasets: set[Replica] = field(default_factory=set)
    # Rucio's own counters of O, R and S, which a cancelled transfer leaves wrong
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def locks(self) -> set[str]:
        """The files that it holds, wherever."""
        return set(self.held)

    @property
    def bad(self) -> set[str]:
        """Those of them that it waits for."""
        return {name for name, states in self.held.items() if set(states.values()) != {"O"}}

    @property
    def ends(self) -> bool:
        """True if it has an end, come or not."""
        return self.expires_at is not None

    def replicas(self) -> set[Replica]:
        """Its locks one by one."""
        return {(rse, name) for name, states in self.held.items() for rse in states}


def write(
    verb: Callable[Concatenate[RucioModel, P], T],
) -> Callable[Concatenate[RucioModel, P], T]:
    """The verb is counted, and stands in the log once it is done."""

    @functools.wraps(verb)
    def counted(model: RucioModel, /, *args: P.args, **options: P.kwargs) -> T:
        model.writes += 1
        words = [*model._about(args[0] if args else None), *_words([*args, *options.values()])]
        try:
            result = verb(model, *args, **options)
        except rucio.RucioException as error:
            model.refused.append((verb.__name__, type(error).__name__, *words))
            raise
        model.log.append((verb.__name__, *words))
        return result

    return counted


def _words(value: object) -> Iterator[str]:
    """What a call was about, flat: names of DIDs as keys, what else a row says as key=value, options as JSON."""
    if isinstance(value, list | tuple):
        for one in value:
            yield from _words(one)
    elif isinstance(value, dict) and "name" in value:
        yield key(value)
        yield from (f"{word}={value[word]}" for word in ("rse", "state", "type") if word in value)
        yield from _words(value.get("dids", []))
    elif isinstance(value, dict):
        yield json.dumps(value, sort_keys=True, default=str)
    elif value is not None:
        yield str(value)


@dataclass
class RucioModel:
    """The state: who has what, and how many transfers Rucio would have queued (the sync must keep that at nought)."""

    rses: dict[str, dict[str, str]] = field(default_factory=dict)
    files: dict[str, ModelFile] = field(default_factory=dict)
    datasets: dict[str, set[str]] = field(default_factory=dict)
    containers: dict[str, set[str]] = field(default_factory=dict)
    replicas: dict[Replica, str] = field(default_factory=dict)
    rules: dict[str, ModelRule] = field(default_factory=dict)
    history: dict[str, dict[str, ModelFile]] = field(default_factory=dict)
    tombstones: set[Replica] = field(default_factory=set)
    transfers: int = 0
    writes: int = 0
    made: int = 0
    # RSE → what `update_rse` has changed
    settings: dict[str, Row] = field(default_factory=dict)
    # each replica's own count of its locks; it differs from them where a replica came back under an old lock
    lock_counts: Counter[Replica] = field(default_factory=Counter)
    # what was written, call by call: the verb, then names, words and options. Refused calls have the error second.
    log: list[tuple[str, ...]] = field(default_factory=list)
    refused: list[tuple[str, ...]] = field(default_factory=list)
    # how far the model's clock is ahead of this machine's
    ahead: timedelta = timedelta(0)
    # (parent, child) → when it was attached, and those that the evaluator has not seen yet
    attached: dict[tuple[str, str], int] = field(default_factory=dict)
    fresh: set[tuple[str, str]] = field(default_factory=set)
    # what the evaluator has to look at: (parent, whether it lost something)
    changed: list[tuple[str, bool]] = field(default_factory=list)

    def now(self) -> datetime:
        """Rucio's time: UTC without saying so."""
        return datetime.now(UTC).replace(tzinfo=None) + self.ahead

    # --- asking: RSEs -----------------------------------------------------------------------------------------

    def whoami(self) -> Row:
        return {"account": "root"}

    def list_rses(self, expression: str) -> Iterator[Row]:
        return iter([{"rse": rse} for rse in self._rses(expression)])

    def _rses(self, expression: str) -> list[str]:
        """The RSEs of an expression of names and `key=value`, with `&` before `|`."""
        terms = [part.split("&") for part in expression.split("|")]
        found = [rse for rse in self.rses if any(all(self._is(rse, term) for term in some) for some in terms)]
        if not found:
            raise rucio.InvalidRSEExpression("RSE Expression resulted in an empty set.")
        return found

    def _is(self, rse: str, term: str) -> bool:
        name, _, value = term.partition("=")
        return (
            rse == (value if name == "rse" else name)
            if name == "rse" or not value
            else (self.rses[rse].get(name) == value)
        )

    def _known_rse(self, rse: str) -> str:
        if rse not in self.rses:
            raise rucio.RSENotFound(f"RSE '{rse}' cannot be found in vo 'def'")
        return rse

    def get_rse(self, rse: str) -> Row:
        kind = "TAPE" if self._known_rse(rse).endswith("_Tape") else "DISK"
        return {"rse": rse, "rse_type": kind} | RSE_SETTINGS | self.settings.get(rse, {})

    def list_rse_attributes(self, rse: str) -> Row:
        words = {"true": True, "false": False}
        own = self.rses[self._known_rse(rse)]
        return {rse: True} | {name: words.get(text.lower(), text) for name, text in own.items()}

    # --- asking: DIDs -----------------------------------------------------------------------------------------

    def get_metadata_bulk(self, dids: list[Row]) -> Iterator[Row]:
        return iter([row for did in dids if (row := self._metadata(key(did)))])

    def _metadata(self, of: str) -> Row | None:
        if of in self.files:
            known = self.files[of]
            about = {"bytes": known.bytes, "adler32": known.adler32, "is_open": None, "account": known.account}
            return self._did(of) | about
        return self._did(of) | {"is_open": True, "bytes": None, "adler32": None} if self._kind(of) else None

    def _kind(self, of: str) -> str:
        """FILE, DATASET, CONTAINER; nothing for a DID that is not there."""
        places = (("FILE", self.files), ("DATASET", self.datasets), ("CONTAINER", self.containers))
        return next((kind for kind, place in places if of in place), "")

    def _did(self, of: str) -> Row:
        return named(of) | {"did_type": self._kind(of)}

    def _known(self, scope: str, name: str) -> str:
        """The key of a DID that is there."""
        of = key({"scope": scope, "name": name})
        if not self._kind(of):
            raise rucio.DataIdentifierNotFound(f"Data identifier '{scope}:{name}' not found")
        return of

    def list_dids(self, scope: str, filters: Row, did_type: str = "collection") -> Iterator[str]:
        assert set(filters) == {"name"}, filters
        kinds = {"collection": ("DATASET", "CONTAINER"), "all": tuple(KINDS.values())}.get(
            did_type, (did_type.upper(),)
        )
        for of in [*self.files, *self.datasets, *self.containers]:
            if parts(of)[0] == scope and self._kind(of) in kinds and fnmatchcase(parts(of)[1], filters["name"]):
                yield parts(of)[1]

    def bulk_list_files(self, dids: list[Row]) -> Iterator[Row]:
        for did in dids:
            for file in sorted(self.datasets.get(key(did), ())):
                known = self.files[file]
                row = {"bytes": known.bytes, "adler32": known.adler32, "parent_name": did["name"]}
                yield named(file) | row

    def list_content(self, scope: str, name: str) -> Iterator[Row]:
        of = self._known(scope, name)
        return iter([self._typed(child) for child in sorted(self._children(of))])

    def list_parent_dids(self, scope: str, name: str) -> Iterator[Row]:
        of = key({"scope": scope, "name": name})
        return iter([self._typed(parent) for parent in self._parents(of)])

    def _typed(self, of: str) -> Row:
        return named(of) | {"type": self._kind(of)}

    def list_content_history(self, scope: str, name: str) -> Iterator[Row]:
        """What was detached; what `delete_replicas` tore out stands here too."""
        for file, known in self.history.get(key({"scope": scope, "name": name}), {}).items():
            kind = {"type": "FILE", "bytes": known.bytes, "adler32": known.adler32}
            yield named(file) | kind

    def _children(self, parent: str) -> set[str]:
        return self.datasets[parent] if parent in self.datasets else self.containers[parent]

    def _parents(self, of: str) -> list[str]:
        """What it is in directly."""
        return [name for place in (self.datasets, self.containers) for name, inside in place.items() if of in inside]

    def _ancestors(self, of: str) -> list[str]:
        """All that it is in; twice what leads to it in two ways."""
        return [name for parent in self._parents(of) for name in (parent, *self._ancestors(parent))]

    def _datasets_under(self, of: str) -> set[str]:
        """The datasets of a container, and of those in it; a dataset itself; none of a file."""
        if of in self.datasets:
            return {of}
        return {name for child in self.containers.get(of, ()) for name in self._datasets_under(child)}

    def _files_under(self, of: str) -> set[str]:
        """The files of a container or dataset; a file itself."""
        return {of} if of in self.files else {f for name in self._datasets_under(of) for f in self.datasets[name]}

    # --- asking: rules and locks ------------------------------------------------------------------------------

    def list_account_rules(self, account: str) -> Iterator[Row]:
        return iter([self._rule(rule) for rule in self.rules.values() if rule.account == account])

    def list_did_rules(self, scope: str, name: str) -> Iterator[Row]:
        of = self._known(scope, name)
        return iter([self._rule(rule) for rule in self.rules.values() if rule.name == of])

    def list_replication_rules(self, filters: Row) -> Iterator[Row]:
        wanted = filters | ({"did_type": KINDS[filters["did_type"]]} if "did_type" in filters else {})
        after = parsedate_to_datetime(wanted.pop("created_after", BEGINNING).replace("UTC", "-0000"))
        wanted |= {"grouping": {"N": "NONE", "D": "DATASET"}[wanted["grouping"]]} if "grouping" in wanted else {}
        assert set(wanted) <= {"scope", "name", "did_type", "account", "rse_expression", "state", "grouping"}, filters
        rules = [rule for rule in self.rules.values() if (rule.created_at or self.now()) >= after]
        return iter([row for row in map(self._rule, rules) if wanted.items() <= row.items()])

    def list_associated_rules_for_file(self, scope: str, name: str) -> Iterator[Row]:
        """The rules that hold a file, by whatever it is in."""
        of = self._known(scope, name)
        return iter([self._rule(rule) for rule in self.rules.values() if of in rule.held])

    def get_replication_rule(self, rule_id: str) -> Row:
        return self._rule(self._known_rule(rule_id))

    def _known_rule(self, rule_id: str) -> ModelRule:
        if rule_id not in self.rules:
            raise rucio.RuleNotFound(f"No rule with the id {rule_id} found")
        return self.rules[rule_id]

    def _rule(self, rule: ModelRule) -> Row:
        return self._did(rule.name) | {
            "id": rule.id,
            "account": rule.account,
            "rse_expression": rule.expression,
            "copies": rule.copies,
            "grouping": rule.grouping,
            "locks_ok_cnt": rule.counts["O"],
            "locks_replicating_cnt": rule.counts["R"],
            "locks_stuck_cnt": rule.counts["S"],
            "locked": rule.locked,
            "comments": rule.comment,
            "created_at": rule.created_at and rule.created_at.replace(microsecond=0),  # as it comes over the wire
            "expires_at": rule.expires_at,
            "meta": json.dumps(rule.meta) if rule.meta is not None else None,
            "state": rule.state,
        }

    def get_locks_for_dids(self, dids: list[Row]) -> Iterator[Row]:
        """The locks of datasets, and of the datasets in containers; what is in several comes several times."""
        for name in (name for did in dids for name in sorted(self._datasets_under(key(did)))):
            for rule in self.rules.values():
                for rse, locked in sorted(rule.datasets):
                    if locked == name:
                        yield named(name) | {"rse": rse, "rule_id": rule.id, "account": rule.account}

    def list_replica_locks(self, rule_id: str) -> Iterator[Row]:
        states = {"O": "OK", "R": "REPLICATING", "S": "STUCK"}
        for name, locks in sorted(self.rules[rule_id].held.items() if rule_id in self.rules else ()):
            for rse, state in locks.items():
                yield named(name) | {"rse": rse, "rule_id": rule_id, "state": states[state]}

    def list_request_by_did(self, name: str, rse: str, scope: str = "cms") -> Row:
        """The transfer that is queued for a lock. Of rules alone: nobody declares a replica bad here."""
        file = key({"scope": scope, "name": name})
        if not any(rule.held.get(file, {}).get(rse) == "R" for rule in self.rules.values()):
            raise rucio.RequestNotFound("Request not found")
        return named(file) | {"activity": "User Subscriptions"}

    # --- asking: replicas -------------------------------------------------------------------------------------

    def list_dataset_replicas(self, scope: str, name: str, deep: bool = False) -> Iterator[Row]:
        inside = self.datasets.get(key({"scope": scope, "name": name}), set())
        for rse in self.rses:
            there = sum(self.replicas.get((rse, file)) == "A" for file in inside)
            if there:
                yield {"rse": rse, "available_length": there}

    def list_replicas(
        self, dids: list[Row], all_states: bool = False, resolve_parents: bool = False, **_options: object
    ) -> Iterator[Row]:
        """A row a file that has any replica, also where none is in a state that was asked for."""
        there: dict[str, dict[str, str]] = {}
        for (rse, name), state in self.replicas.items():
            there.setdefault(name, {})[rse] = STATES[state]
        for file in (file for did in dids for file in sorted(self._files_under(key(did)) & there.keys())):
            states = {rse: state for rse, state in there[file].items() if all_states or state == "AVAILABLE"}
            parents = [":".join(parts(parent)) for parent in self._ancestors(file)]
            yield named(file) | {"states": states} | ({"parents": parents} if resolve_parents else {})

    # --- writing: RSEs ----------------------------------------------------------------------------------------

    @write
    def add_rse_attribute(self, rse: str, key: str, value: object) -> bool:
        """Set, or overwritten."""
        if len(str(value)) > VALUE:
            raise rucio.DatabaseException("value too long for type character varying(255)")
        self.rses[self._known_rse(rse)][key] = str(value)
        return True

    @write
    def delete_rse_attribute(self, rse: str, key: str) -> bool:
        if key not in self.rses[self._known_rse(rse)]:
            raise rucio.RSEAttributeNotFound(f"RSE attribute '{key}' cannot be found")
        del self.rses[rse][key]
        return True

    @write
    def update_rse(self, rse: str, parameters: Row) -> bool:
        assert set(parameters) <= {*RSE_SETTINGS, "rse_type"}, parameters
        self.settings.setdefault(self._known_rse(rse), {}).update(parameters)
        return True

    # --- writing: DIDs ----------------------------------------------------------------------------------------

    def add_dataset(self, scope: str, name: str) -> bool:
        return self.add_dids([{"scope": scope, "name": name, "type": "DATASET"}])

    def add_container(self, scope: str, name: str) -> bool:
        return self.add_dids([{"scope": scope, "name": name, "type": "CONTAINER"}])

    def add_did(self, scope: str, name: str, did_type: str, dids: list[Row] | None = None) -> bool:
        self.add_dids([{"scope": scope, "name": name, "type": did_type}])
        return self.attach_dids(scope, name, dids) if dids else True

    def attach_dids(self, scope: str, name: str, dids: list[Row], rse: str | None = None) -> bool:
        one = {"scope": scope, "name": name, "dids": dids} | ({"rse": rse} if rse else {})
        return self.attach_dids_to_dids([one])

    @write
    def add_dids(self, dids: list[Row]) -> bool:
        if any(self._kind(key(did)) for did in dids):
            raise rucio.DataIdentifierAlreadyExists("Data Identifier Already Exists.")
        for did in dids:
            (self.datasets if did["type"] == "DATASET" else self.containers)[key(did)] = set()
        return True

    @write
    def attach_dids_to_dids(self, attachments: list[Row], ignore_duplicate: bool = False) -> bool:
        """All or nothing; a known file must agree in size and, where one is given, in checksum."""
        for one in attachments:
            self._check_attachment(one, ignore_duplicate)
        for one in attachments:
            for child in one["dids"]:
                if "rse" in one:
                    self._replicate(one["rse"], child)
                self._attach(key(one), key(child))
            self.changed.append((key(one), False))
        return True

    def _attach(self, parent: str, child: str) -> None:
        if child not in self._children(parent):
            self._children(parent).add(child)
            self.attached[parent, child] = len(self.attached) + self.writes
            self.fresh.add((parent, child))

    def _check_attachment(self, one: Row, ignore_duplicate: bool) -> None:
        if self._kind(key(one)) not in ("DATASET", "CONTAINER"):
            raise rucio.DataIdentifierNotFound(one["name"])
        if "rse" in one:
            self._known_rse(one["rse"])
        for child in one["dids"]:
            known = self.files.get(key(child))
            if self._kind(key(child)) and (known is not None) != (key(one) in self.datasets):
                raise rucio.UnsupportedOperation("files go into datasets, datasets and containers into containers")
            if known is not None:
                self._check_file(child, known)
            elif "rse" not in one and not self._kind(key(child)):
                raise rucio.DataIdentifierNotFound(child["name"])
            if not ignore_duplicate and key(child) in self._children(key(one)):
                is_file = self._kind(key(child)) == "FILE"
                raise (rucio.FileAlreadyExists if is_file else rucio.DuplicateContent)(
                    "There is already one with this name"
                )

    @staticmethod
    def _check_file(child: Row, known: ModelFile) -> None:
        for what, theirs in (("bytes", known.bytes), ("adler32", known.adler32)):
            if what in child and child[what] != theirs:
                raise rucio.FileConsistencyMismatch(
                    f"{what} mismatch for 'cms:{child['name']}': {child[what]}!={theirs}"
                )

    @write
    def detach_dids(self, scope: str, name: str, dids: list[Row]) -> bool:
        """All were inside, or nothing is done. A file stays, and so does a dataset without any."""
        of = self._known(scope, name)
        inside, names = self._children(of), [key(did) for did in dids]
        if not set(names) <= inside:
            raise rucio.DataIdentifierNotFound("not found under it")
        for child in names:
            self._detach(of, child)
        self.changed.append((of, True))
        return True

    def _detach(self, parent: str, child: str) -> None:
        self._children(parent).discard(child)
        self.attached.pop((parent, child), None)
        self.fresh.discard((parent, child))
        if child in self.files:
            self.history.setdefault(parent, {})[child] = self.files[child]

    # --- writing: replicas ------------------------------------------------------------------------------------

    def _replicate(self, rse: str, child: Row) -> None:
        """A replica that is there stays as it is, in whatever state. A new one counts no locks, whoever holds it."""
        self.files.setdefault(key(child), ModelFile(child["bytes"], child.get("adler32")))
        self.replicas.setdefault((rse, key(child)), "A")

    @write
    def add_replicas(self, rse: str, files: list[Row]) -> bool:
        """Sizes are not compared with what is known."""
        self._known_rse(rse)
        for child in files:
            self._replicate(rse, child)
        return True

    @write
    def delete_replicas(self, rse: str, files: list[Row], ignore_availability: bool = True) -> bool:
        """Whole or not at all, whoever locks them. A file's last replica takes its DID and its place in datasets.

        Refused where a file that would be forgotten has a rule of its own.
        """
        if not ignore_availability and not self.get_rse(rse)["availability_delete"]:
            raise rucio.ResourceTemporaryUnavailable(f"{rse} is temporary unavailable for deleting")
        names = [key(file) for file in files]
        if len(set(names)) < len(names):
            raise rucio.DatabaseException("UniqueViolation")
        if not all((self._known_rse(rse), name) in self.replicas for name in names):
            raise rucio.ReplicaNotFound("One or several replicas don't exist.")
        last = {name for name in names if self._rses_of(name) == {rse}}
        if any(rule.name in last for rule in self.rules.values()):
            raise rucio.DatabaseException("a rule's DID cannot go")
        for name in names:
            del self.replicas[rse, name]
            del self.lock_counts[rse, name]
            self.tombstones.discard((rse, name))
        for name in last:
            self._tear_out(name)
            del self.files[name]
        return True

    def _rses_of(self, file: str) -> set[str]:
        return {rse for rse in self.rses if (rse, file) in self.replicas}

    def _tear_out(self, of: str) -> None:
        """Its datasets lose it, and leave their containers, and these theirs, whatever else is in them.

        The evaluator is told nothing, so locks of all that stay until something is detached there.
        """
        for parent in self._parents(of):
            self._detach(parent, of)
            self._tear_out(parent)

    @write
    def update_replicas_states(self, rse: str, files: list[Row]) -> bool:
        """Locks follow A and U; a rule that was STUCK stays so, until a daemon that is not in here repairs it."""
        if not all((self._known_rse(rse), key(file)) in self.replicas for file in files):
            raise rucio.ReplicaNotFound("No row found")
        assert {file["state"] for file in files} <= STATES.keys() - {"C"}, files
        for file in files:
            self.replicas[rse, key(file)] = file["state"]
            if file["state"] == "B":
                self.tombstones.add((rse, key(file)))
            for rule in self.rules.values():
                if rse in rule.held.get(key(file), {}) and file["state"] in ("A", "U"):
                    self._relock(rule, rse, key(file), "O" if file["state"] == "A" else "S")
        return True

    @staticmethod
    def _relock(rule: ModelRule, rse: str, file: str, state: str) -> None:
        before, rule.held[file][rse] = rule.held[file][rse], state
        if before == state:
            return
        rule.counts[before] -= 1
        rule.counts[state] += 1
        if state == "S" and rule.state != "SUSPENDED":
            rule.state = "STUCK"
        elif rule.state == "REPLICATING" and rule.counts["S"] <= 0 and rule.counts["R"] == 0:
            rule.state = "OK"

    # --- writing: rules ---------------------------------------------------------------------------------------

    @write
    def add_replication_rule(
        self,
        dids: list[Row],
        copies: int,
        rse_expression: str,
        *,
        account: str = "root",
        meta: str | None = None,
        comment: str | None = None,
        lifetime: int | None = None,
        locked: bool = False,
        grouping: str = "DATASET",
        ignore_availability: bool = False,
        activity: str | None = None,
        priority: int = 3,
    ) -> list[str]:
        """A rule a DID, all or none. At tape one without end is locked."""
        assert grouping in ("DATASET", "NONE"), grouping
        rses = self._rses(rse_expression)
        if len(rses) < copies:
            raise rucio.InsufficientTargetRSEs("There are not enough target RSEs to fulfil the request at this time.")
        taken = {(rule.account, rule.name, rule.expression, rule.copies) for rule in self.rules.values()}
        names = [self._known(did["scope"], did["name"]) for did in dids]
        if any((account, name, rse_expression, copies) in taken for name in names):
            raise rucio.DuplicateRule("A duplicate rule for this account, did, rse_expression, copies already exists.")
        at_tape = lifetime is None and any(self.get_rse(rse)["rse_type"] == "TAPE" for rse in rses)
        end = None if lifetime is None else self.now() + timedelta(seconds=lifetime)
        for name in names:
            self.made += 1
            rule = ModelRule(
                f"{self.made:032x}",
                account,
                name,
                rse_expression.removeprefix("rse="),
                rse_expression,
                meta,
                copies,
                grouping,
                comment,
                locked or at_tape,
                self.now(),
                end,
            )
            self.rules[rule.id] = rule
            self._apply(rule)
        return list(self.rules)[-len(names) :]

    @write
    def update_replication_rule(self, rule_id: str, options: Row) -> bool:
        if set(options) - CHANGEABLE:
            raise rucio.InputValidationError(f"{set(options) - CHANGEABLE} is not a valid option to set.")
        rule = self._known_rule(rule_id)
        if len(options.get("comment") or "") > COMMENT:
            raise rucio.RucioException("value too long for type character varying(255)")
        rule.meta = options.get("meta", rule.meta)
        rule.comment = options.get("comment", rule.comment)
        rule.locked = options.get("locked", rule.locked)
        rule.account = options.get("account", rule.account)
        if "lifetime" in options:
            life = options["lifetime"]
            rule.expires_at = None if life is None else self.now() + timedelta(seconds=life)
        if "state" in options:
            self._set_state(rule, options["state"].upper(), options.get("cancel_requests", False))
        return True

    def _set_state(self, rule: ModelRule, state: str, cancel: bool) -> None:
        """What waits for a transfer is stuck, others' locks on it too if that is cancelled. No count follows."""
        assert state in ("STUCK", "SUSPENDED"), state
        waiting = {(rse, file) for file, locks in rule.held.items() for rse in locks if locks[rse] == "R"}
        for rse, file in waiting if cancel or state == "STUCK" else ():
            for other in self.rules.values() if cancel else (rule,):
                if other.held.get(file, {}).get(rse) == "R":
                    other.held[file][rse] = "S"
                    other.state = "STUCK" if other.state != "SUSPENDED" else other.state
            if cancel:
                self.replicas[rse, file] = "U"
        rule.state = state

    @write
    def delete_replication_rule(self, rule_id: str, purge_replicas: bool | None = None) -> bool:
        """It ends in an hour, or when it would have before."""
        assert not purge_replicas
        rule = self._known_rule(rule_id)
        if rule.locked:
            raise rucio.UnsupportedOperation(
                "The replication rule is locked and has to be unlocked before it can be deleted."
            )
        soon = self.now() + timedelta(hours=1)
        rule.expires_at = min(soon, rule.expires_at or soon)
        return True

    # --- locks ------------------------------------------------------------------------------------------------

    def _apply(self, rule: ModelRule) -> None:
        """A new rule has its locks."""
        if rule.name in self.files:
            self._hold(rule, {rule.name}, self._choose(rule, {rule.name}))
        for dataset in sorted(self._datasets_under(rule.name), key=parts):
            self._lock_dataset(rule, dataset, self.datasets[dataset], NOT_LEAVING)
        rule.state = "REPLICATING" if rule.counts["R"] else "OK"

    def _lock_dataset(
        self, rule: ModelRule, dataset: str, files: set[str], states: str, near: str | None = None
    ) -> None:
        """Grouped by dataset all go where most of them are, or beside `near`, but for those held by way of another."""
        if rule.grouping == "NONE":
            for file in sorted(files):
                self._hold(rule, {file}, self._choose(rule, {file}, states))
            return
        rses = sorted(rule.held.get(near or "", {})) or self._choose(rule, files, states)
        rule.datasets |= {(rse, dataset) for rse in rses}
        self._hold(rule, files, rses)

    def _choose(self, rule: ModelRule, files: set[str], states: str = NOT_LEAVING) -> list[str]:
        """The RSEs of the expression that have most of the files' bytes. Rucio rolls a die where they have the same."""
        sizes = {
            rse: sum(self.files[file].bytes for file in files if self.replicas.get((rse, file), "-") in states)
            for rse in self._rses(rule.expression)
        }
        return sorted(sizes, key=lambda rse: -sizes[rse])[: rule.copies]

    def _hold(self, rule: ModelRule, files: Iterable[str], rses: list[str]) -> None:
        for file in sorted(files):
            for rse in rses if len(rule.held.get(file, {})) < rule.copies else ():
                if rse not in rule.held.get(file, {}):
                    self._lock(rule, rse, file)

    def _lock(self, rule: ModelRule, rse: str, file: str) -> None:
        """A file that is not at the RSE is transferred there; a BAD one is waited for, though nobody sends it."""
        there = self.replicas.get((rse, file))
        lock = "O" if there in ("A", "T") else "R"
        if lock == "R":
            self.replicas[rse, file] = "C"
            self.transfers += there in (None, "U")
        rule.held.setdefault(file, {})[rse] = lock
        rule.counts[lock] += 1
        self.lock_counts[rse, file] += 1
        self.tombstones.discard((rse, file))

    def _unlock(self, rule: ModelRule, rse: str, file: str) -> str:
        """A replica whose last lock this was has a tombstone: Rucio may delete the real file. The lock's state."""
        lock = rule.held[file].pop(rse)
        if not rule.held[file]:
            del rule.held[file]
        if (rse, file) in self.replicas:
            self.lock_counts[rse, file] -= 1
            if self.lock_counts[rse, file] == 0:
                self.tombstones.add((rse, file))
                self.replicas[rse, file] = "U" if lock == "R" else self.replicas[rse, file]
        return lock

    # --- the daemons ------------------------------------------------------------------------------------------

    def judge(self) -> None:
        """Evaluator and cleaner have made a round each."""
        self.evaluate()
        self.clean()

    def evaluate(self) -> None:
        """Rules hold what was attached and let go what was detached; nobody has told it of what was torn out."""
        for parent, lost in self.changed:
            above = {parent, *self._ancestors(parent)}
            rules = [rule for rule in self.rules.values() if rule.name in above]
            if lost:
                self._evaluate_detached(parent, rules)
            else:
                self._evaluate_attached(parent, [rule for rule in rules if rule.state != "SUSPENDED"])
        self.changed.clear()

    def _evaluate_detached(self, parent: str, rules: list[ModelRule]) -> None:
        for rule in rules:
            files = self._files_under(rule.name)
            for rse, file in rule.replicas():
                if file not in files:
                    rule.counts[self._unlock(rule, rse, file)] -= 1
            if parent in self.containers:
                under = self._datasets_under(rule.name)
                rule.datasets = {(rse, name) for rse, name in rule.datasets if name in under}
            if rule.state not in ("SUSPENDED", "STUCK") and not rule.counts["R"] and not rule.counts["S"]:
                rule.state = "OK"

    def _evaluate_attached(self, parent: str, rules: list[ModelRule]) -> None:
        new = {child for child in self._children(parent) if (parent, child) in self.fresh}
        self.fresh -= {(parent, child) for child in new}
        for rule in rules if new else ():
            if parent in self.datasets:
                oldest = min(self.datasets[parent], key=lambda file: self.attached[parent, file])
                self._lock_dataset(rule, parent, new, PRESENT, oldest)
            for dataset in sorted(name for child in new for name in self._datasets_under(child)):
                self._lock_dataset(rule, dataset, self.datasets[dataset], PRESENT)
            if rule.state != "STUCK" and rule.counts["S"] <= 0:
                rule.state = "REPLICATING" if rule.counts["R"] > 0 else "OK"

    def clean(self) -> None:
        """Rules whose end has come are gone with their locks, but for those that are locked."""
        for rule in [rule for rule in self.rules.values() if rule.ends and not rule.locked]:
            if rule.expires_at is not None and rule.expires_at <= self.now():
                del self.rules[rule.id]
                for rse, file in rule.replicas():
                    self._unlock(rule, rse, file)

    # --- what must hold ---------------------------------------------------------------------------------------

    def available_copies(self, file: str) -> set[str]:
        """The RSEs where the file is AVAILABLE."""
        return {rse for rse in self.rses if self.replicas.get((rse, file)) == "A"}

    def locks_without_replica(self) -> set[tuple[str, str, str]]:
        """Rule, RSE and file of each lock that holds nothing."""
        return {
            (rule.id, rse, file)
            for rule in self.rules.values()
            for rse, file in rule.replicas()
            if (rse, file) not in self.replicas
        }

    def replicas_without_lock_under_rule(self) -> set[tuple[str, str, str]]:
        """Rule, RSE and file of each replica that a rule should hold by now, and does not hold enough copies of."""
        return {
            (rule.id, rse, file)
            for rule in self.rules.values()
            for file in self._files_under(rule.name)
            if len(rule.held.get(file, {})) < rule.copies
            for rse in self._rses(rule.expression)
            if (rse, file) in self.replicas and rse not in rule.held.get(file, {})
        }

    def miscounted_replicas(self) -> set[Replica]:
        """Replicas whose count of locks is not that of their locks: no later end of a rule treats them rightly."""
        locks = Counter(lock for rule in self.rules.values() for lock in rule.replicas())
        return {replica for replica in self.replicas if self.lock_counts[replica] != locks[replica]}

    def _about(self, rule_id: object) -> tuple[str, ...]:
        """The DID and the RSE of a rule, for the log: the rule may be gone when it is read."""
        rule = self.rules.get(rule_id) if isinstance(rule_id, str) else None
        return (rule.name, rule.rse) if rule else ()
