"""The table of Rucio's errors: every class of its client has a verdict, and texts are fit to be shown."""

from __future__ import annotations

import inspect

import pytest
import requests
import urllib3
from rucio.common import exception

from common.errors import FileConflict, NotAuthenticated, NotFound, RucioConflict, RucioError, RucioRefused, Verdict
from common.rucio.errors import MESSAGE_LENGTH, OURS, TABLE, is_about_all, is_race, mismatch, translated

CLASSES = sorted(
    name for name, one in inspect.getmembers(exception, inspect.isclass) if issubclass(one, exception.RucioException)
)


def made(name: str, text: str = "text") -> Exception:
    """An instance of any class, whatever its constructor wants."""
    one = getattr(exception, name)
    error: Exception = one.__new__(one)
    exception.RucioException.__init__(error, text)  # type: ignore[arg-type]
    error._message = text  # type: ignore[attr-defined]
    return error


def raised(cause: Exception) -> RucioError:
    error = translated(cause, "verb object")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize("name", CLASSES)
def test_every_class_has_a_verdict_that_suits_its_name(name: str) -> None:
    error = translated(made(name), "add_dids /A/B/C")
    assert error.verdict in Verdict
    said = "Rucio refuses our credentials" if name in ("CannotAuthenticate", "IdentityError") else "Rucio"
    assert str(error).startswith(f"{said}: add_dids /A/B/C: {name}: ")
    if name.endswith("NotFound") and name not in ("ConfigNotFound", "SourceNotFound") and name in TABLE:
        assert isinstance(error, NotFound | NotAuthenticated)
    if name.endswith(("AlreadyExists", "Duplicate")):
        assert isinstance(error, RucioConflict)
    if "Denied" in name or name.startswith("Invalid"):
        assert isinstance(error, RucioRefused)


def test_the_table_names_only_classes_that_exist() -> None:
    assert set(TABLE) <= set(CLASSES)


@pytest.mark.parametrize(
    ("cause", "verdict", "kind"),
    [
        (made("DatabaseException"), Verdict.ASK, RucioError),
        (made("RucioException"), Verdict.ASK, RucioError),
        (made("ServerConnectionException"), Verdict.ASK, RucioError),
        (made("ServiceUnavailable"), Verdict.ASK, RucioError),
        (made("CannotAuthenticate"), Verdict.ASK, NotAuthenticated),
        (made("FileConsistencyMismatch"), Verdict.RETRY, FileConflict),
        (made("DuplicateRule"), Verdict.RETRY, RucioConflict),
        (made("AccessDenied"), Verdict.DIE, RucioRefused),
        (made("InvalidObject"), Verdict.DIE, RucioRefused),
        (made("InsufficientAccountLimit"), Verdict.DIE, RucioRefused),
        (requests.exceptions.ReadTimeout("slow"), Verdict.ASK, RucioError),
        (requests.exceptions.ChunkedEncodingError("cut"), Verdict.ASK, RucioError),
        (requests.exceptions.ConnectionError("refused"), Verdict.ASK, RucioError),
        (urllib3.exceptions.ProtocolError("cut"), Verdict.ASK, RucioError),
    ],
)
def test_what_matters_most(cause: Exception, verdict: Verdict, kind: type[RucioError]) -> None:
    assert isinstance(cause, OURS)
    error = translated(cause, "verb")
    assert (type(error), error.verdict) == (kind, verdict)


def test_a_class_of_a_newer_rucio_is_asked_about() -> None:
    newer = type("BrandNewError", (exception.RucioException,), {})
    assert type(translated(newer("text"), "verb")) is RucioError


@pytest.mark.parametrize("text", ["(psycopg.errors.UniqueViolation) duplicate key value", "deadlock detected"])
def test_a_lost_race_is_a_conflict(text: str) -> None:
    cause = made("RucioException", text)
    assert is_race(cause)
    assert type(translated(cause, "verb")) is RucioConflict


def test_a_message_with_a_whole_list_is_cut() -> None:
    error = translated(made("InvalidObject", "x" * 100_000), "verb")
    assert MESSAGE_LENGTH < len(str(error)) < MESSAGE_LENGTH + 100


@pytest.mark.parametrize(
    ("cause", "about_all"),
    [
        (made("AccessDenied"), True),
        (made("AccountNotFound"), True),
        (made("InsufficientAccountLimit"), True),
        (made("CannotAuthenticate"), True),
        (requests.exceptions.ReadTimeout("slow"), True),
        (made("RucioException", "no error information passed (http status code: 503)"), True),
        (made("RucioException", "no error information passed (http status code: 413)"), False),
        (made("InvalidObject"), False),
        (made("UnsupportedOperation"), False),
        (made("DatabaseException"), False),
        (made("DataIdentifierNotFound"), False),
    ],
)
def test_what_halving_cannot_help(cause: Exception, about_all: bool) -> None:
    assert is_about_all(raised(cause)) is about_all


def test_a_mismatch_names_file_and_difference() -> None:
    text = "bytes mismatch for 'cms:/store/a.root': 5!=7"
    error = raised(made("FileConsistencyMismatch", text))
    assert isinstance(error, FileConflict)
    assert mismatch(error) == ("/store/a.root", "bytes 5, in Rucio 7")
