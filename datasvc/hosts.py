"""Which storage hosts does a catalogue name?"""

from __future__ import annotations

import re

_HOST = re.compile(r"\w+://([^/:]+)(?::\d+)?/")


def host_in(result: str) -> str | None:
    """The host of a rule's result that looks like `proto://host[:port]/…`, else None (PhEDEx' `senames`)."""
    found = _HOST.match(result)
    return None if found is None else found.group(1)
