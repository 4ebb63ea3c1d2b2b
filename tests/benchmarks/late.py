"""Every request of this process to Rucio begins so much later: `LATE` seconds, from the environment.

In the process that asks, for a proxy between would take its share of the processors from those that are measured.
"""

from __future__ import annotations

import os
import time
from typing import Any

from requests import PreparedRequest, Response
from requests.adapters import HTTPAdapter

SECONDS, URL = "LATE", "LATE_URL"


def install() -> None:
    """Does nothing where the environment does not ask for it."""
    seconds, url = float(os.environ.get(SECONDS, "0")), os.environ.get(URL, "")
    send = HTTPAdapter.send

    def late(adapter: HTTPAdapter, request: PreparedRequest, *args: Any, **options: Any) -> Response:
        if request.url and request.url.startswith(url):
            time.sleep(seconds)
        return send(adapter, request, *args, **options)

    if seconds and url:
        HTTPAdapter.send = late  # type: ignore[method-assign]
