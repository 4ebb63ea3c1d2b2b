"""Which files and variables tell Rucio's server, its daemons and its client where they are?"""

from pathlib import Path

from . import processes

ROOT_ACCOUNT = "root"
SERVICE_ACCOUNT = "phedex_sync"
PASSWORD = "stack-secret"  # the same for both accounts; each one's user name is the account's name
PACKAGE = "cms_rucio_policy"
POLICY = Path(__file__).parents[2] / "policy"

SERVER = """\
[common]
logdir = {folder}
loglevel = INFO
mailtemplatedir = {folder}

[database]
default = {database}
pool_size = 10
max_overflow = 20

[bootstrap]
userpass_identity = {root}
userpass_pwd = {password}
userpass_email = root@example.org

[cache]
url = 127.0.0.1:1

[policy]
package = {package}

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

CLIENT = """\
[client]
rucio_host = {url}
auth_host = {url}
account = {account}
auth_type = userpass
username = {account}
password = {password}
request_retries = 3
"""


def write_server(folder: Path, server: Path, database: str) -> dict[str, str]:
    """The configuration files are in `folder/etc`; the environment for the server and its daemons to find them."""
    etc = folder / "etc"
    etc.mkdir(exist_ok=True)
    values = {"folder": folder, "database": database, "root": ROOT_ACCOUNT, "password": PASSWORD, "package": PACKAGE}
    (etc / "rucio.cfg").write_text(SERVER.format(**values))
    migrations = next(server.glob("lib/python3*/site-packages/rucio/db/sqla/migrate_repo"))
    (etc / "alembic.ini").write_text(ALEMBIC.format(migrations=migrations, database=database))
    return processes.clean_environment() | {
        "RUCIO_HOME": str(folder),
        "RUCIO_CONFIG": str(etc / "rucio.cfg"),
        "PYTHONPATH": str(POLICY),
        "STACK_SERVICE_ACCOUNT": SERVICE_ACCOUNT,
        "STACK_PASSWORD": PASSWORD,
    }


def write_client(path: Path, url: str, account: str) -> dict[str, str]:
    """The client's configuration is in the file `path`; the variables to find it."""
    path.write_text(CLIENT.format(url=url, account=account, password=PASSWORD))
    return {"RUCIO_CONFIG": str(path), "RUCIO_HOME": str(path.parent), "RUCIO_ACCOUNT": account}
