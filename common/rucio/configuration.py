"""Which file tells Rucio's client where it is and who we are, and what is wrong with it?

The client looks into the file as soon as it is imported, so the import itself may fail.
"""

from __future__ import annotations

import configparser
import os
from collections.abc import Iterator
from contextlib import contextmanager

from rucio.common import exception

from common.errors import BadRucioConfiguration

FOLDERS = ("RUCIO_HOME", "VIRTUAL_ENV", "CONDA_PREFIX")
# What the client raises by itself, before it has asked anybody.
BY_CONFIGURATION = (
    exception.ClientParameterMismatch,
    exception.ClientProtocolNotFound,
    exception.ClientProtocolNotSupported,
    exception.ConfigLoadingError,
    exception.ConfigNotFound,
    exception.ErrorLoadingCredentials,
    exception.MissingClientParameter,
    exception.MissingModuleException,
    exception.NoAuthInformation,
    configparser.Error,
    UnicodeDecodeError,
)


@contextmanager
def explained() -> Iterator[None]:
    """What the client says of its configuration in the block becomes one line: which file, what, what to do."""
    try:
        yield
    except BY_CONFIGURATION as error:
        raise BadRucioConfiguration(text_of(error)) from None


def text_of(error: Exception) -> str:
    """The line about one of BY_CONFIGURATION. Never a line of the file itself: it may be that of the password."""
    if isinstance(error, exception.ConfigNotFound):
        return f"Rucio's configuration: no rucio.cfg in {', '.join(_folders())}: write one, or set RUCIO_CONFIG"
    if isinstance(error, exception.ConfigLoadingError):
        return f"Rucio's configuration: {_file()} cannot be read: write it, or set RUCIO_CONFIG to another"
    if isinstance(error, configparser.Error | UnicodeDecodeError):
        line = getattr(error, "lineno", None)
        where = f" in line {line}" if line else ""
        return f"Rucio's configuration: {_file()} is not of [sections] and name = value lines{where}: correct it"
    said = " ".join(str(error).split())
    return f"Rucio's configuration: {_file()}, section [client]: {said}; correct it, or set the RUCIO_* variable"


def _file() -> str:
    """The file that the client reads, as it looks for it."""
    if "RUCIO_CONFIG" in os.environ:
        return os.environ["RUCIO_CONFIG"] or "the empty name in RUCIO_CONFIG"
    paths = [os.path.join(folder, "rucio.cfg") for folder in _folders()]
    return next((path for path in paths if os.path.exists(path)), "rucio.cfg")


def _folders() -> list[str]:
    return [os.path.join(os.environ[name], "etc") for name in FOLDERS if name in os.environ] + ["/opt/rucio/etc"]
