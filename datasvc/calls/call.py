"""What is a call of the data service?"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from datasvc.options import Query, Spec

DAY = 86400
Answer = Callable[[sqlite3.Connection, Query], Mapping[str, Any]]


class Call(msgspec.Struct, frozen=True):
    """A call: its options, its answer (the payload beside the envelope), and how long a reply may be cached (s).

    A spooled reply is written while it is read, and says `call_time` as a string.
    """

    spec: Spec
    answer: Answer
    max_age: int
    spooled: bool = False
