"""Which types do the fields of commands have? Checked on arrival, at every door."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta as Constraint

from common import names
from common.errors import System

Node = Annotated[str, Constraint(pattern=names.NODE, max_length=names.NODE_LENGTH)]
Block = Annotated[str, Constraint(pattern=names.BLOCK, max_length=names.NAME_LENGTH)]
Pattern = Annotated[str, Constraint(pattern=rf"^(\*|(/{names.PATTERN_PART}){{3}})\Z", max_length=names.NAME_LENGTH)]
Regex = Annotated[str, Constraint(max_length=64 * 1024)]
Reason = Annotated[str, Constraint(max_length=500)]
# Rucio's own limits with the policy package (schema.py).
RSE = r"^T[0-9]_[A-Za-z0-9_]+\Z"
RseName = Annotated[str, Constraint(pattern=RSE, max_length=255)]
AccountName = Annotated[str, Constraint(pattern=r"^[a-z0-9_-]{0,25}\Z")]
Text = Annotated[str, Constraint(max_length=4096)]

# For people, in place of the pattern that a name breaks.
SUCH_AS = {
    names.NODE: "node such as T2_IT_Pisa",
    names.BLOCK: "block such as /Primary/Processed/TIER#id",
    names.LFN: "name such as /store/user/somebody/file.root",
    RSE: "RSE such as T2_IT_Pisa_Test",
}

# Which systems a kind needs: while one of them is away, its queue is left alone.
BOTH = frozenset({System.PHEDEX, System.RUCIO})
RUCIO_ALONE = frozenset({System.RUCIO})
