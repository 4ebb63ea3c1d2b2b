"""How are DAS queries answered? By CMS' own `dasgoclient` where it is installed, else by the data service.

With `system=phedex` DAS only translated: each query form below is one call of the data service.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from common.errors import PhedexError, UsageError, Verdict
from common.phedex.client import Phedex

CLIENT = "dasgoclient"
TIMEOUT = 600.0  # seconds; the client itself retries

# What is asked, by which keys, and the call and its options that answer it. `dataset` and `site` come of blockreplicas.
FORMS: dict[tuple[str, frozenset[str]], str] = {
    ("block", frozenset({"dataset"})): "blockreplicas",
    ("block", frozenset({"site"})): "blockreplicas",
    ("block", frozenset({"dataset", "site"})): "blockreplicas",
    ("block", frozenset({"block"})): "blockreplicas",
    ("block", frozenset({"block", "site"})): "blockreplicas",
    ("file", frozenset({"block"})): "filereplicas",
    ("file", frozenset({"block", "site"})): "filereplicas",
    ("file", frozenset({"dataset"})): "filereplicas",
    ("file", frozenset({"dataset", "site"})): "filereplicas",
    ("file", frozenset({"file"})): "filereplicas",
    ("dataset", frozenset({"site"})): "blockreplicasummary",
    ("site", frozenset({"dataset"})): "blockreplicas",
    ("site", frozenset({"block"})): "blockreplicas",
}
OPTIONS = {"dataset": "dataset", "block": "block", "site": "node", "file": "lfn"}


class DasFailed(PhedexError):
    """The external client failed; its own words are in the text."""

    verdict = Verdict.DIE


class Query(Struct, frozen=True):
    """A query taken apart: what is asked for, and the values that it is asked by."""

    wanted: str
    by: dict[str, str]

    @property
    def call(self) -> str:
        """The call of the data service that answers it."""
        return FORMS[self.wanted, frozenset(self.by)]


def parse(text: str) -> Query:
    """The query `WANTED KEY=VALUE … system=phedex`. UsageError for a form that the data service has not."""
    wanted, *conditions = text.split() or [""]
    by = dict(condition.partition("=")[::2] for condition in conditions)
    system = by.pop("system", "phedex")
    if system != "phedex" or (wanted, frozenset(by)) not in FORMS or not all(by.values()):
        known = "; ".join(f"{what} {' '.join(f'{key}=…' for key in sorted(keys))}" for what, keys in FORMS)
        raise UsageError(f"{text!r}: without {CLIENT} only these are answered, with system=phedex: {known}")
    return Query(wanted, by)


def external(query: str, program: str = CLIENT) -> list[dict[str, Any]] | None:
    """The records as the external client gives them; None where it is not installed. Raises DasFailed."""
    path = shutil.which(program)
    if path is None:
        return None
    try:
        done = subprocess.run(
            [path, f"-query={query}", "-json"], capture_output=True, text=True, timeout=TIMEOUT, check=False
        )
        found: list[dict[str, Any]] = msgspec.json.decode(done.stdout)
    except subprocess.TimeoutExpired:
        raise DasFailed(f"{path}: no answer to {query!r} within {TIMEOUT:g} s") from None
    except msgspec.DecodeError:
        # It prints `ERROR: …` behind its records, which then are no JSON: an outage must not look like "nothing there".
        said = (done.stderr or done.stdout).strip().splitlines() or [f"exit code {done.returncode}"]
        raise DasFailed(f"{path}: {query!r} failed: {said[-1][:300]}") from None
    if done.returncode:
        raise DasFailed(f"{path}: {query!r} failed with exit code {done.returncode}: {done.stderr.strip()[:300]}")
    return found


def by_data_service(phedex: Phedex, query: Query) -> list[dict[str, Any]]:
    """The records in DAS' own nesting. `site=` is one node, not all whose names begin like it, as DAS had it."""
    options = {OPTIONS[key]: value for key, value in query.by.items()}
    rows = phedex.raw(query.call, **options)["block"]
    return [_record(query, item) for item in _items(query, rows)]


def _items(query: Query, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    if query.wanted == "block":
        return [{**row, "nfiles": row["files"], "size": row["bytes"]} for row in rows]
    if query.wanted == "file":
        files = (each for row in rows for each in row["file"])
        return [{**each, "size": each["bytes"], "creation_time": each["time_create"]} for each in files]
    if query.wanted == "dataset":
        return [{"name": name} for name in sorted({row["name"].partition("#")[0] for row in rows})]
    places = {(replica["node"], replica.get("se")) for row in rows for replica in row["replica"]}
    return [{"name": node, "se": se} for node, se in sorted(places, key=str)]


def _record(query: Query, item: Mapping[str, Any]) -> dict[str, Any]:
    about = {"primary_key": f"{query.wanted}.name", "record": 1, "services": [f"phedex:{query.call}"]}
    return {query.wanted: [item], "das": about}
