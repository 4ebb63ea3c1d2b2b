"""Runs Rucio's daemons once, on demand: imports Rucio one time, then a fork for each run. For the server's Python.

A request is a line of JSON on stdin, `[log, script, argument, …]`; the answer is a line with the exit code.
A daemon started the ordinary way spends two seconds on imports before it looks at the database, and most of them one
more on waiting for others of their kind to be seen (`partition_wait_time`): here there are none.
"""

import functools
import importlib
import json
import logging
import os
import runpy
import sys
from typing import Any

from rucio.daemons import common
from rucio.db.sqla import session

IMPORTED_ONCE = ("judge.cleaner", "judge.evaluator", "abacus.collection_replica", "abacus.account", "abacus.rse")


def main() -> None:
    """Every request has been answered, until stdin ends."""
    common.run_daemon = _without_waiting(common.run_daemon)
    for name in IMPORTED_ONCE:
        importlib.import_module(f"rucio.daemons.{name}")
    for line in sys.stdin:
        log, script, *arguments = json.loads(line)
        child = os.fork()
        if child == 0:
            _become(log, script, arguments)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _without_waiting(run_daemon: Any) -> Any:
    @functools.wraps(run_daemon)
    def run(*arguments: Any, **options: Any) -> None:
        run_daemon(*arguments, **options | {"partition_wait_time": 0})

    return run


def _become(log: str, script: str, arguments: list[str]) -> None:
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(output, 1)
    os.dup2(output, 2)
    logging.getLogger().handlers.clear()  # or Rucio's own set-up (`logging.basicConfig`) does nothing
    _drop_connections()
    sys.argv = [script, *arguments]
    code = 1
    try:
        runpy.run_path(script, run_name="__main__")
        code = 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _drop_connections() -> None:
    """A connection from before the fork is the parent's: two children on it fail, and say so in a log only."""
    engine = session._ENGINE
    if engine is not None:
        engine.dispose(close=False)


if __name__ == "__main__":
    main()
