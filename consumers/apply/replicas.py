"""Is every file of a block available at the RSE? A rule on a block where one is not would queue a real transfer."""

from __future__ import annotations

from collections.abc import Collection

from common.rucio import replicas
from common.rucio.session import Rucio
from consumers.apply.contents import Files, Seen


def lacking(rucio: Rucio, rse: str, name: str, files: Collection[str]) -> str:
    """Which part of a block, whose content in Rucio is to be these files, is not available at the RSE; "" if none."""
    there = replicas.available(rucio, rse, name)
    return "" if there == len(files) else f"{there} of {len(files)} files are available at {rse}"


def lacking_of(rucio: Rucio, rse: str, _name: str, files: Collection[str]) -> str:
    """The same for files beside which the block has others in Rucio: each looked at. "" if none."""
    there = sum(rse in places for places in replicas.places(rucio, files).values())
    return "" if there == len(files) else f"{there} of {len(files)} files are available at {rse}"


def strangers(files: Files, inside: Files) -> str:
    """Which files are inside the block in Rucio and not in PhEDEx' list: nobody's promise; "" if none."""
    extra = sorted(inside.keys() - files.keys())
    return f"{len(extra)} files in Rucio that PhEDEx does not list, such as {extra[0]}" if extra else ""


def all_new(name: str, files: Files, seen: Seen) -> bool:
    """True if the block and all its files were new to Rucio: what was attached with the RSE is then available there.

    A file that was known may have a replica there in another state, which attaching leaves as it is (41.5.1).
    """
    return name not in seen.open_ and not any(file in seen.known for file in files)
