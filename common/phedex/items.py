"""What is a data item, and which items are where? Datasets, blocks and their files, as people ask for them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Literal

import re2

from common import names
from common.errors import UsageError
from common.phedex.client import Phedex

_DATASET = re2.compile(r"(/[^/#<>\s]+){3}")


def check_item(item: str) -> dict[str, Any]:
    """Dataset or block? `pds` the dataset, `fbhash` the id behind the `#` (`*`: every block), `pfb` both.

    Raises UsageError for a name that is neither; `*` may stand in it.
    """
    dataset, found, ident = item.partition("#")
    if not _DATASET.fullmatch(dataset) or (found and (not ident or "#" in ident)):
        raise UsageError(
            f"{item}: neither /Primary/Processed/TIER nor /Primary/Processed/TIER#id (quote it for the shell)"
        )
    return {"isblock": bool(found), "pds": dataset, "fbhash": ident or "*", "pfb": f"{dataset}#{ident or '*'}"}


def list_items(
    phedex: Phedex, item: str, node: str | None, outtype: Literal["block", "dataset"]
) -> list[dict[str, Any]]:
    """The blocks or datasets that match, at a node or anywhere: bytes, files, open, and where they are."""
    asked = _asked(item)
    if node is not None:
        phedex.check_node(node)
        asked["node"] = node
    rows = phedex.raw("blockreplicas", **asked)["block"]
    blocks = [
        {
            "name": row["name"],
            "files": int(row["files"]),
            "bytes": int(row["bytes"]),
            "is_open": row["is_open"],
            "complete": sorted(each["node"] for each in row["replica"] if each["complete"] == "y"),
            "incomplete": sorted(each["node"] for each in row["replica"] if each["complete"] != "y"),
        }
        for row in rows
    ]
    return blocks if outtype == "block" else _by_dataset(blocks)


def _asked(item: str) -> dict[str, str]:
    about = check_item(item)
    return {"block": about["pfb"]} if about["isblock"] else {"dataset": about["pds"]}


def _by_dataset(blocks: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Summed; a dataset is complete where all of its blocks are, of those that were found."""
    found: dict[str, list[dict[str, Any]]] = {}
    for block in blocks:
        found.setdefault(names.dataset_of(block["name"]), []).append(block)
    return [_dataset(name, parts) for name, parts in sorted(found.items())]


def _dataset(name: str, parts: list[dict[str, Any]]) -> dict[str, Any]:
    complete = set.intersection(*(set(part["complete"]) for part in parts))
    somewhere = {node for part in parts for node in (*part["complete"], *part["incomplete"])}
    return {
        "name": name,
        "blocks": len(parts),
        "files": sum(part["files"] for part in parts),
        "bytes": sum(part["bytes"] for part in parts),
        "is_open": "y" if any(part["is_open"] == "y" for part in parts) else "n",
        "complete": sorted(complete),
        "incomplete": sorted(somewhere - complete),
    }


def files_of(phedex: Phedex, item: str, node: str | None) -> dict[str, list[dict[str, Any]]]:
    """The files of a block, or of every block of a dataset, by block: name, size, checksum (adler32 of 8 digits).

    With a node those that are there. A file without an adler32 has none.
    """
    asked = _asked(item)
    if node is not None:
        phedex.check_node(node)
        asked["node"] = node
    rows = phedex.raw("filereplicas", **asked)["block"]
    return {row["name"]: [_file(each) for each in row["file"]] for row in rows}


def _file(row: dict[str, Any]) -> dict[str, Any]:
    return {"name": row["name"], "size": int(row["bytes"]), "checksum": names.adler32_of(row["checksum"])}


def subscriptions(phedex: Phedex, node: str, item: str | None, since: str | None) -> list[dict[str, Any]]:
    """What is meant to be at a node and is there whole, block by block; open blocks are left out.

    Without `since` of all time: PhEDEx itself would take the last day. Raises UnknownNode.
    """
    phedex.check_node(node)
    asked = {"node": node, "collapse": "n", "percent_min": "100", "create_since": since or "0"}
    rows = phedex.raw("subscriptions", **asked, **({"block": check_item(item)["pfb"]} if item else {}))["dataset"]
    blocks = (block for row in rows for block in row.get("block", []) if block["is_open"] != "y")
    return [_subscription(block) for block in blocks]


def _subscription(block: dict[str, Any]) -> dict[str, Any]:
    first = block["subscription"][0]
    kept = ("group", "custodial", "percent_files", "time_create", "time_update")
    return {
        "block": block["name"],
        "files": block["files"],
        "bytes": block["bytes"],
        **{key: first.get(key) for key in kept},
    }


def deletions(phedex: Phedex, item: str, node: str | None) -> list[dict[str, Any]]:
    """What was to be deleted of a block, or of every block of a dataset: asked for when and done when (UTC), by node.

    Oldest first. `completed` is None where it is not done, or was asked for again after that. Raises UnknownNode.
    """
    asked = _asked(item)
    if node is not None:
        phedex.check_node(node)
        asked["node"] = node
    blocks = [block for dataset in phedex.raw("deletions", **asked)["dataset"] for block in dataset["block"]]
    rows = [_deletion(block["name"], row) for block in blocks for row in block["deletion"]]
    return sorted(rows, key=lambda row: (row["requested"], row["block"], row["node"]))


def _deletion(block: str, row: dict[str, Any]) -> dict[str, Any]:
    done = _time(row["time_complete"]) if row["complete"] == "y" else None
    return {"block": block, "node": row["node"], "requested": _time(row["time_request"]), "completed": done}


def _time(seconds: Any) -> str:
    return f"{datetime.fromtimestamp(float(seconds), UTC):%Y-%m-%d %H:%M:%S}"
