"""How gunicorn serves Rucio: loaded once, then forked, so that new workers are there in milliseconds."""

from typing import Any

preload_app = True
workers = 2
worker_class = "gthread"  # a client that reads a long answer slowly must not hold up the others
threads = 4
keepalive = 65  # longer than any pause in a test: an idle connection is not closed under a client's next request
graceful_timeout = 1  # idle connections would hold a worker for the whole of it
timeout = 300
control_socket_disable = True  # its place is one file a user, whatever the server


def post_fork(server: Any, worker: Any) -> None:
    """The worker has no database connection in common with its parent: importing Rucio makes the engine."""
    from rucio.db.sqla.session import get_engine

    get_engine().dispose(close=False)
