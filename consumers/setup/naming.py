"""Which RSE of which type stands for a node? CMS' names: `_Buffer` is a disk in front of tape, `_MSS` the tape."""

from __future__ import annotations

from typing import Literal, get_args

from msgspec import Struct

from common.errors import UsageError
from common.names import BUFFER, MSS, buffer_of

RseKind = Literal["real", "temp", "test"]
KINDS: tuple[RseKind, ...] = get_args(RseKind)
SUFFIX: dict[str, str] = {"real": "", "temp": "_Temp", "test": "_Test"}
ALGORITHM: dict[str, str] = {"real": "cmstfc", "temp": "hash", "test": "identity"}
TAPE = "_Tape"


class Named(Struct, frozen=True):
    """The name and type of an RSE."""

    rse: str
    rse_type: Literal["DISK", "TAPE"]


def rse_of(node: str, kind: RseKind, *, suffix: str | None = None, rse: str = "", rse_type: str = "") -> Named:
    """The RSE of a node: `X_Buffer` becomes `X_Tape` of type TAPE, everything else is DISK and keeps its name.

    `rse`, `rse_type` name it by hand, as for a T0 without a buffer. Raises UsageError for an `_MSS` node, whose files
    are counted through its buffer.
    """
    if rse:
        return Named(rse, "TAPE" if rse_type == "TAPE" else "DISK")
    if node.endswith(MSS):
        raise UsageError(
            f"{node}: a tape has no RSE of its own: name {buffer_of(node)} (or --rse and --rse-type by hand)"
        )
    end = SUFFIX[kind] if suffix is None else suffix
    if node.endswith(BUFFER):
        return Named(node.removesuffix(BUFFER) + TAPE + end, "TAPE" if kind == "real" else "DISK")
    return Named(node + end, "DISK")


def inventory_of(node: str) -> str | None:
    """The node that has what is on tape behind a buffer; whether PhEDEx has such a node is asked elsewhere."""
    return node.removesuffix(BUFFER) + MSS if node.endswith(BUFFER) else None


def tier_of(node: str) -> str:
    """The tier in a node's name, `2` of `T2_IT_Pisa`."""
    return node[1]


def country_of(node: str) -> str:
    """The country in a node's name, `IT` of `T2_IT_Pisa`."""
    return node[3:5]
