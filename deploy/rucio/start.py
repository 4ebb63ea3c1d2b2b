# ruff: noqa: S108, S606, S608, PLC0415 - inside a container: its own /tmp, it becomes the program, Rucio is set up first
"""Which part of Rucio runs in this container? `server`, or `daemon NAME ARGUMENT…`; passwords come from files.

`alive` is the daemons' health: exit code 0 where this container's daemon has told the database so lately.
"""

import os
import runpy
import socket
import sys
from pathlib import Path

FOLDER = Path(os.environ.get("RUCIO_HOME", "/tmp/rucio"))
HERE = Path(__file__).parent

CONFIGURATION = """\
[common]
logdir = /tmp
loglevel = {loglevel}
mailtemplatedir = /tmp

[database]
default = {database}
pool_size = 10
max_overflow = 20

[bootstrap]
userpass_identity = root
userpass_pwd = {password}
userpass_email = root@example.org

[policy]
package = cms_rucio_policy

[alembic]
cfg = {folder}/etc/alembic.ini
"""

ALEMBIC = """\
[alembic]
script_location = {migrations}
sqlalchemy.url = {database}

[loggers]
keys = root

[handlers]
keys = console

[formatters]
keys = plain

[logger_root]
level = WARN
handlers = console

[handler_console]
class = StreamHandler
args = (sys.stderr,)
formatter = plain

[formatter_plain]
format = %(message)s
"""


def main() -> None:
    """The process has become the server, with its database made if it was empty, or the daemon."""
    role, *arguments = sys.argv[1:] or ["server"]
    if role == "alive":
        sys.exit(0 if beats() else 1)
    configure()
    if role == "daemon":
        name, *options = arguments
        os.execvp(f"rucio-{name}", [f"rucio-{name}", *options])
    bootstrap()
    os.execvp("gunicorn", ["gunicorn", "--config", str(HERE / "gunicorn_conf.py"), "rucio.web.rest.main:application"])


def configure() -> None:
    """Rucio's configuration is written, readable for us alone, and the environment says where."""
    os.umask(0o077)
    etc = FOLDER / "etc"
    etc.mkdir(parents=True, exist_ok=True)
    database = f"postgresql+psycopg://rucio:{secret('RUCIO_DB_PASSWORD_FILE')}@postgres/rucio"
    values = {
        "database": database,
        "folder": FOLDER,
        "password": secret("RUCIO_PASSWORD_FILE"),
        "loglevel": os.environ.get("RUCIO_LOG_LEVEL", "WARNING"),
        "migrations": next(Path(sys.prefix).glob("lib/python3*/site-packages/rucio/db/sqla/migrate_repo")),
    }
    (etc / "rucio.cfg").write_text(CONFIGURATION.format(**values))
    (etc / "alembic.ini").write_text(ALEMBIC.format(**values))
    os.environ |= {"RUCIO_HOME": str(FOLDER), "RUCIO_CONFIG": str(etc / "rucio.cfg")}


def bootstrap() -> None:
    """The schema, `root`, the sync's service account and the scope `cms` exist. What is there stays."""
    import sqlalchemy
    from rucio.db.sqla.session import get_engine

    engine = get_engine()
    # The scope is the last thing that is made, all in one transaction after the schema.
    if sqlalchemy.inspect(engine).has_table("scopes"):
        with engine.connect() as connection:
            if connection.execute(sqlalchemy.text("SELECT count(*) FROM scopes WHERE scope = 'cms'")).scalar():
                return
    os.environ |= {"STACK_SERVICE_ACCOUNT": "phedex_sync", "STACK_PASSWORD": secret("RUCIO_PASSWORD_FILE")}
    runpy.run_path(str(HERE / "rucio_bootstrap.py"), run_name="__main__")


def beats() -> bool:
    """A daemon of this host wrote its heartbeat in the last five minutes, as Rucio's daemons do every round."""
    import psycopg

    password = secret("RUCIO_DB_PASSWORD_FILE")
    with psycopg.connect(
        host="postgres", dbname="rucio", user="rucio", password=password, connect_timeout=5
    ) as database:
        young = "updated_at > (now() AT TIME ZONE 'utc') - interval '5 minutes'"
        query = f"SELECT count(*) FROM heartbeats WHERE hostname LIKE %s AND {young}"
        row = database.execute(query, [socket.gethostname() + "%"]).fetchone()
    return bool(row and row[0])


def secret(variable: str) -> str:
    """What stands in the file that this variable names."""
    return Path(os.environ[variable]).read_text().strip()


if __name__ == "__main__":
    main()
