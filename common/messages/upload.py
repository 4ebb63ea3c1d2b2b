"""Which command uploads a file? It names a file of the spool, what it must be, and where it is to go."""

from __future__ import annotations

from typing import Annotated, ClassVar

from msgspec import Meta as Constraint
from msgspec import Struct

from common import names
from common.errors import System
from common.messages.fields import RUCIO_ALONE, AccountName, RseName, Text
from common.messages.meta import Meta, Positive

Scope = Annotated[str, Constraint(pattern=r"^((cms|(user|group)\.[a-z0-9_.-]+))?\Z", max_length=25)]


class Upload(
    Struct, tag_field="kind", tag="upload", forbid_unknown_fields=True, omit_defaults=True, frozen=True, kw_only=True
):
    """A file is at the temporary RSE, known to Rucio, and a rule asks for it at the destination.

    `file`: its path inside the spool of whoever carries this out; `bytes` and `adler32` are what it must be.
    `account` owns the rule, without it that of the worker; `scope` is `user.<account>` unless given. `pfn`: where it is
    to lie, for an RSE that does not tell that by itself. `keep`: the file stays where it is; else it leaves the spool.
    """

    lanes: ClassVar[bool] = False
    needs: ClassVar[frozenset[System]] = RUCIO_ALONE

    v: Positive = 1
    file: Annotated[str, Constraint(min_length=1, max_length=1024)]
    bytes: Positive
    adler32: Annotated[str, Constraint(pattern=r"^[0-9a-f]{8}\Z")]
    name: Annotated[str, Constraint(pattern=names.LFN, max_length=names.NAME_LENGTH)]
    temp_rse: RseName
    dest_rse: RseName
    scope: Scope = ""
    account: AccountName = ""
    pfn: Text = ""
    keep: bool = False
    dry: bool = False
    meta: Meta = Meta()

    @property
    def key(self) -> str:
        """What the command is about: the destination and the name."""
        return f"{self.dest_rse} {self.name}"
