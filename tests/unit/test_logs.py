"""Logs: one line a record, fields kept, secrets out."""

from __future__ import annotations

import io
import json
import logging
import sys
import warnings
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.telemetry import logs
from common.telemetry.redact import hide, redact

SECRETS = [
    "amqp://guest:geheim@127.0.0.1:5672/v",
    "amqps://me:geheim@with@at@mq.example.org/v",
    "X-Rucio-Auth-Token: root-/CN=x-unknown-geheim",
    "{'X-Rucio-Password': 'geheim with blanks', 'X-Rucio-Account': 'root'}",
    '"X-Rucio-Auth-Token": "geheim"',
    "Authorization: Bearer geheimgeheim",
    "password=geheim&user=me",
    "-----BEGIN RSA PRIVATE KEY-----\ngeheim\ngeheim\n-----END RSA PRIVATE KEY-----",
    "-----BEGIN CERTIFICATE-----\ngeheim cut off",
    "token eyJhbGciOiJSUzI1NiJ9.geheimgeheim.geheim_-geheim",
]


@pytest.fixture(autouse=True)
def root_logger() -> Iterator[None]:
    """The root logger as it was, whatever a test sets up."""
    root, handlers = logging.getLogger(), list(logging.getLogger().handlers)
    level = root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)


@pytest.mark.parametrize("text", SECRETS)
def test_secrets_are_hidden(text: str) -> None:
    assert "geheim" not in redact(text)
    assert "***" in redact(text)


@given(st.text(min_size=1))
def test_no_password_survives_in_a_url(password: str) -> None:
    url = f"amqps://me:{quote('geheim' + password, safe='')}@mq.example.org/v"
    assert redact(f"cannot reach {url}: refused") == "cannot reach amqps://me:***@mq.example.org/v: refused"


@pytest.mark.parametrize(
    "text",
    [
        "amqp://guest@127.0.0.1:5672/%2F",
        "https://cmsweb.cern.ch/phedex/datasvc",
        "/Primary/Processed-v1/AOD#abc at T2_IT_Pisa: 12 of 13 files",
        "see T2_US_MIT: mail to me@example.org",
    ],
)
def test_other_text_stays(text: str) -> None:
    assert redact(text) == text


def test_redacting_twice_is_redacting_once() -> None:
    for text in SECRETS:
        assert redact(redact(text)) == redact(text)


def logged(environ: dict[str, str], level: str = "INFO") -> tuple[io.StringIO, logging.Logger]:
    stream = io.StringIO()
    logs.setup(level, stream=stream, environ=environ)
    return stream, logging.getLogger("phedex_rucio.test")


def test_key_value_lines() -> None:
    stream, log = logged({})
    log.info("handled", extra={"queue": "sync.site", "key": "T2_IT_Pisa /a b", "attempt": 2})
    line = stream.getvalue()
    assert 'event=handled queue=sync.site key="T2_IT_Pisa /a b" attempt=2\n' in line
    assert "level=info logger=phedex_rucio.test" in line


def test_json_lines() -> None:
    stream, log = logged({"PHEDEX_RUCIO_LOG_FORMAT": "json"})
    log.info("handled %s", "x", extra={"seconds": 0.5, "url": "amqp://u:geheim@h/v", "nothing": None})
    fields = json.loads(stream.getvalue())
    assert (fields["event"], fields["seconds"], fields["url"]) == ("handled x", 0.5, "amqp://u:***@h/v")
    assert fields["nothing"] is None


@pytest.mark.parametrize("format_", ["", "json"])
def test_a_value_cannot_forge_a_line(format_: str) -> None:
    stream, log = logged({"PHEDEX_RUCIO_LOG_FORMAT": format_})
    log.info("a\nlevel=error b", extra={"key": "x\nlevel=error"})
    assert stream.getvalue().count("\n") == 1


def test_a_traceback_carries_no_secret() -> None:
    stream, log = logged({})
    try:
        raise OSError("amqp://u:geheim@h/v")
    except OSError:
        log.exception("failed")
    assert "traceback=" in stream.getvalue()
    assert "geheim" not in stream.getvalue()


def test_libraries_are_under_the_one_handler() -> None:
    library = logging.getLogger("pika")
    library.addHandler(logging.StreamHandler(sys.stderr))
    stream, _ = logged({})
    logging.getLogger("pika.adapters").critical("gone")
    logging.getLogger("urllib3.connectionpool").warning("retrying")
    logging.getLogger("urllib3.connectionpool").info("quiet")
    assert [line.split("event=")[1] for line in stream.getvalue().splitlines()] == ["gone", "retrying"]
    assert library.handlers == []


def test_pika_s_event_loop_is_never_heard() -> None:
    logged({}, "DEBUG")
    assert logging.getLogger("pika.adapters").getEffectiveLevel() == logging.INFO


def test_rucio_is_never_heard_at_debug_where_it_writes_passwords() -> None:
    logged({}, "DEBUG")
    assert logging.getLogger("rucio.client").getEffectiveLevel() == logging.INFO


def test_warnings_are_logged_too() -> None:
    stream, _ = logged({})
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    assert "py.warnings" in stream.getvalue()


def test_a_secret_that_is_known_is_hidden_wherever_it_is() -> None:
    hide("geheim/mit schräg")
    assert redact("he said geheim/mit schräg") == "he said ***"
    assert redact("x=geheim%2Fmit%20schr%C3%A4g&y") == "x=***&y"


def test_a_short_password_hides_no_words() -> None:
    hide("guest")
    assert redact("guest@127.0.0.1") == "guest@127.0.0.1"


class Full(io.StringIO):
    def write(self, _: str) -> int:
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize("stream", [Full(), None])
def test_a_line_that_cannot_be_written_is_counted_and_raises_nothing(
    stream: io.StringIO | None, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    lost: list[int] = []
    monkeypatch.setattr(logs, "on_loss", [lambda: lost.append(1)])
    monkeypatch.setattr(sys, "stderr", stream)
    logs.setup("INFO", stream=stream, environ={})
    logging.getLogger("phedex_rucio.test").info("a line", extra={"n": 1})
    assert lost == [1]
    assert capfd.readouterr().err == ""


def test_the_format_of_the_settings_gives_way_to_the_variable() -> None:
    stream = io.StringIO()
    logs.setup("INFO", stream=stream, environ={}, form="json")
    logging.getLogger("phedex_rucio.test").info("x")
    logs.setup("INFO", stream=stream, environ={"PHEDEX_RUCIO_LOG_FORMAT": "text"}, form="json")
    logging.getLogger("phedex_rucio.test").info("y")
    first, second = stream.getvalue().splitlines()
    assert json.loads(first)["event"] == "x"
    assert second.endswith("event=y")


def test_a_secret_within_another_leaves_nothing_of_either() -> None:
    hide("inner-secret")
    hide("outer-inner-secret-outer")
    assert redact("said outer-inner-secret-outer and inner-secret") == "said *** and ***"
