"""Where is the RabbitMQ of another Debian release? In a folder to `chroot` into, made once and kept."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from . import processes
from .processes import NotHere, StackError
from .rucio_install import cache, locked

RELEASES = {"trixie": "4.0", "forky": "4.3"}

# Debian's own archive among apt's sources, without naming a host: updates and security carry other codenames or labels.
SOURCES = ["apt-get", "indextargets", "--format", "$(ORIGIN) $(LABEL) $(COMPONENT) $(REPO_URI)", "Created-By: Packages"]
# What this machine's apt is told about fetching holds for the new one too: proxies, an archive that is a frozen copy.
FETCHING = ("Acquire::http", "Acquire::Retries", "Acquire::Check-Valid-Until")

# A mount namespace of its own, which ends with the process. Without /proc the memory monitor of 4.0 crashes; the
# folder with our data and logs has the same name inside; /dev because the cache may be mounted without devices.
ENTER = """\
root=$1 shared=$2; shift 2
mount -t proc proc "$root/proc" && mount --rbind /dev "$root/dev" && mkdir -p "$root$shared" \\
    && mount --bind "$shared" "$root$shared" && exec chroot "$root" "$@"
"""


def enter(root: Path | None, shared: Path, command: Sequence[str | Path]) -> list[str | Path]:
    """`command` inside `root`, where the folder `shared` is what it is outside; without a root `command` as it is."""
    if root is None:
        return list(command)
    return ["unshare", "--mount", "sh", "-c", ENTER, "enter", root, shared, *command]


def broker_root(release: str) -> Path:
    """The folder with RabbitMQ of a Debian release, made at the first call (half a minute, 240 MB).

    NotHere, with the reason, where it cannot be: it is no failure to lack it.
    """
    folder = cache() / f"debian-{release}"
    with locked(folder):
        _check_rights()
        if not folder.exists():
            _build(release, folder)
    return folder


def _check_rights() -> None:
    if os.geteuid() != 0:
        raise NotHere("RabbitMQ of another Debian release needs root: it runs in a chroot")
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        raise NotHere("RabbitMQ of another Debian release needs the right to mount, which this container lacks")


def _build(release: str, folder: Path) -> None:
    if not shutil.which("mmdebstrap"):
        raise NotHere("RabbitMQ of another Debian release is installed by mmdebstrap: apt-get install mmdebstrap")
    begun = folder.with_name(f"{folder.name}.begun")  # what has the right name is complete
    processes.remove(begun)
    mirror, settings = _mirror(), [f"--aptopt={line}" for line in _fetching()]
    options = ["--variant=minbase", "--include=rabbitmq-server", *settings]
    try:
        processes.run(["mmdebstrap", *options, release, begun, mirror], processes.clean_environment(), cache())
    except StackError as error:
        processes.remove(begun)
        why = " ".join(str(error).splitlines()[1:][-4:])  # not the command, where a proxy's password may stand
        raise NotHere(f"RabbitMQ of Debian {release} cannot be installed: {why}") from None
    (begun / "etc/hosts").write_text("127.0.0.1 localhost\n")  # 4.3 does not start without it: nxdomain
    begun.rename(folder)


def _mirror() -> str:
    """The address of the Debian archive that this machine's apt is set up with."""
    if not shutil.which("apt-get"):
        raise NotHere("RabbitMQ of another Debian release comes from apt's mirror, and this system has no apt")
    for line in _apt(SOURCES):
        if line.startswith("Debian Debian main "):
            return line.split()[-1]
    raise NotHere("apt knows no Debian mirror here (perhaps after `apt-get update`)")


def _fetching() -> list[str]:
    return [line for line in _apt(["apt-config", "dump", "Acquire"]) if line.startswith(FETCHING)]


def _apt(command: list[str]) -> list[str]:
    return processes.run(command, processes.clean_environment(), cache()).splitlines()
