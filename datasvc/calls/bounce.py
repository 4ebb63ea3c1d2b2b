"""Is the service there? The call bounce gives back what it was given."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Any

from datasvc.calls.call import Call
from datasvc.options import Query, Spec
from datasvc.refusal import Refusal


def _bounce(_: sqlite3.Connection, query: Query) -> Mapping[str, Any]:
    if query.one("die") is not None:
        raise Refusal(400, "error requested, dying")
    return {"bounce": {name: texts[0] if len(texts) == 1 else texts for name, texts in query.values.items()}}


BOUNCE = Call(Spec("PHEDEX::Web::API::Bounce::bounce", {}, open=True), _bounce, 0)
