# ruff: noqa: S108, ARG001, PLC0415 - gunicorn calls it; Rucio is imported after the fork
"""How gunicorn serves Rucio in its container: loaded once, then forked."""

import os
from typing import Any

bind = os.environ.get("RUCIO_BIND", "0.0.0.0:8080")
certfile = os.environ.get("RUCIO_TLS_CERT") or None
keyfile = os.environ.get("RUCIO_TLS_KEY") or None
preload_app = True
workers = 2
worker_class = "gthread"  # a client that reads a long answer slowly must not hold up the others
threads = 8
keepalive = 65
graceful_timeout = 10
timeout = 300
worker_tmp_dir = "/dev/shm"
control_socket_disable = True


def post_fork(server: Any, worker: Any) -> None:
    """The worker has no database connection in common with its parent: importing Rucio makes the engine."""
    from rucio.db.sqla.session import get_engine

    get_engine().dispose(close=False)
