"""An independent judge: does Rucio's database hold what PhEDEx says? It shares no code with the sync."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import requests

Sql = Callable[[str], list[tuple]]  # type: ignore[type-arg]
Files = dict[str, tuple[int, str | None]]

_REPLICAS = """SELECT s.rse, r.name, r.bytes, r.adler32, r.state, r.tombstone IS NOT NULL
    FROM replicas r JOIN rses s ON s.id = r.rse_id WHERE r.scope = 'cms'"""
_RULES = """SELECT account, name, rse_expression, state, locks_ok_cnt, locks_replicating_cnt, locks_stuck_cnt,
    expires_at IS NOT NULL, meta FROM rules WHERE scope = 'cms'"""


@dataclass
class Expected:
    """What should be at one RSE: the files of every complete block, and what our rule should say of it."""

    rse: str
    account: str
    blocks: dict[str, Files] = field(default_factory=dict)
    meta: dict[str, tuple[str, bool]] = field(default_factory=dict)


@dataclass
class Tables:
    """Rucio's tables as plain dicts. Names are those of scope `cms`."""

    replicas: dict[str, dict[str, tuple[int, str | None, str, bool]]]
    contents: dict[str, set[str]]
    parents: dict[str, set[str]]
    rules: dict[tuple[str, str], list[tuple[str, str, int, int, int, bool, str]]]
    requests: int


def expected(phedex_url: str, node: str, rse: str, account: str) -> Expected:
    """What the data service says is complete at a node, asked with plain requests, a dataset at a time."""
    rows = _ask(phedex_url, "blockreplicas", node=node, create_since=0)["block"]
    found = Expected(rse, account)
    for row in rows:
        (replica,) = row["replica"]
        if replica["complete"] == "y" and row["files"] and _three_parts(row["name"]):
            found.meta[row["name"]] = (replica["group"] or "", replica["custodial"] == "y")
    for dataset in sorted({name.partition("#")[0] for name in found.meta}):
        for row in _ask(phedex_url, "filereplicas", dataset=dataset, node=node)["block"]:
            if row["name"] in found.meta:
                found.blocks[row["name"]] = {f["name"]: (f["bytes"], _adler32(f["checksum"])) for f in row["file"]}
    return found


def _ask(url: str, call: str, **options: object) -> dict[str, list[dict[str, Any]]]:
    reply = requests.get(f"{url}/json/prod/{call}", params=options, timeout=300)  # type: ignore[arg-type]
    reply.raise_for_status()
    payload: dict[str, list[dict[str, Any]]] = reply.json()["phedex"]
    return payload


def _three_parts(block: str) -> bool:
    return block.partition("#")[0].count("/") == 3


def _adler32(checksum: str | None) -> str | None:
    parts = dict(part.split(":") for part in (checksum or "").split(",") if part)
    return parts["adler32"].zfill(8) if "adler32" in parts else None


def read_tables(sql: Sql) -> Tables:
    """Read what matters in five plain queries."""
    replicas: dict[str, dict[str, tuple[int, str | None, str, bool]]] = defaultdict(dict)
    for rse, name, size, adler, state, tomb in sql(_REPLICAS):
        replicas[rse][name] = (int(size), adler, state, bool(tomb))
    contents: dict[str, set[str]] = defaultdict(set)
    parents: dict[str, set[str]] = defaultdict(set)
    for name, child, kind in sql("SELECT name, child_name, child_type FROM contents WHERE scope = 'cms'"):
        if kind == "F":
            contents[name].add(child)
        else:
            parents[child].add(name)
    rules = defaultdict(list)
    for row in sql(_RULES):
        rules[row[0], row[1]].append(row[2:])
    (requests,) = sql("SELECT count(*) FROM requests")[0]
    return Tables(replicas, contents, parents, rules, int(requests))


def differences(tables: Tables, sites: Mapping[str, Expected]) -> list[str]:
    """Every way in which Rucio differs from PhEDEx, a line each; [] where the two are equal."""
    found = [f"{tables.requests} transfer requests: the sync must never cause one"] if tables.requests else []
    for node, expected in sorted(sites.items()):
        found += (f"{node}: {text}" for text in _site(tables, expected))
    return found


def _site(tables: Tables, expected: Expected) -> Iterator[str]:
    here = tables.replicas.get(expected.rse, {})
    for block, files in sorted(expected.blocks.items()):
        yield from (f"{block}: {text}" for text in _block(tables, expected, block, files, here))
    known = {name for files in expected.blocks.values() for name in files}
    yield from (f"{name}: a replica that PhEDEx does not know" for name in sorted(here.keys() - known))
    for account, block in sorted(tables.rules):
        if account == expected.account and block not in expected.blocks:
            yield f"{block}: a rule that PhEDEx gives no reason for"


def _block(
    tables: Tables, expected: Expected, block: str, files: Files, here: dict[str, tuple[int, str | None, str, bool]]
) -> Iterator[str]:
    if tables.contents.get(block, set()) != files.keys():
        yield f"the dataset has {len(tables.contents.get(block, ()))} files, PhEDEx {len(files)}, or others"
    if block.partition("#")[0] not in tables.parents.get(block, set()):
        yield "is not in its container"
    for name, (size, adler) in sorted(files.items()):
        if here.get(name) != (size, adler, "A", False):
            yield f"{name}: replica {here.get(name)}, PhEDEx has {(size, adler)}"
    yield from _rules(tables.rules.get((expected.account, block), []), expected, block, len(files))


def _rules(
    rules: list[tuple[str, str, int, int, int, bool, str]], expected: Expected, block: str, files: int
) -> Iterator[str]:
    if len(rules) != 1:
        yield f"{len(rules)} rules instead of one"
        return
    expression, state, good, moving, stuck, ending, meta = rules[0]
    if (expression, state, good, moving, stuck, ending) != (expected.rse, "O", files, 0, 0, False):
        yield f"rule {rules[0]}, PhEDEx has {files} files at {expected.rse}"
    group, custodial = expected.meta.get(block, ("", False))
    if block in expected.meta and not (
        f'"{group}"' in str(meta).replace("\\", "") and str(custodial).lower() in str(meta)
    ):
        yield f"rule's meta {meta}, PhEDEx has group {group!r}, custodial {custodial}"
