"""A settings file that changes under a running process, and the words of `run`."""

from __future__ import annotations

import logging
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from common.settings.load import load
from common.settings.run import is_on, parse, state
from common.settings.watched import Watched

AT = datetime(2026, 1, 1, 12, tzinfo=UTC)


class File:
    """A settings file that was written a while ago, however often it is written."""

    def __init__(self, path: Path, text: str) -> None:
        self.path, self.age = path, 1000.0
        self.write(text)
        self.watched = Watched(load(path, {}), look_every=0)

    def write(self, text: str) -> None:
        self.path.write_text(text)
        self.age -= 10
        written = self.path.stat().st_mtime - self.age
        os.utime(self.path, (written, written))


@pytest.fixture
def file(tmp_path: Path) -> File:
    return File(tmp_path / "settings.yaml", "main: {pool: 3}\nT2_IT_Pisa: {dry: true}\n")


def test_a_change_is_in_force_at_once_and_main_but_for_a_few_after_a_restart(file: File) -> None:
    file.write("main: {pool: 5, threads: 9}\nT2_IT_Pisa: {dry: false, run: false}\n")
    settings = file.watched.settings()
    assert (settings.main.pool, settings.main.threads) == (5, 4)
    assert (settings.site("T2_IT_Pisa").dry, settings.site("T2_IT_Pisa").run) == (False, False)
    assert file.watched.notes == ["changed, but in force only after a restart: main.threads"]
    file.write("main: {pool: 5}\n")
    assert file.watched.settings().sites == {}
    assert file.watched.notes == []


@pytest.mark.parametrize(
    ("text", "says"),
    [("T2_IT_Pisa: {drie: true}", "T2_IT_Pisa.drie: unknown key"), ("main: [", "line 1"), ("", "empty")],
)
def test_a_wrong_file_is_told_once_and_changes_nothing(
    file: File, caplog: pytest.LogCaptureFixture, text: str, says: str
) -> None:
    file.write(text)
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            assert file.watched.settings().site("T2_IT_Pisa").dry is True
    assert len(caplog.records) == 1
    assert says in file.watched.notes[0]
    file.path.unlink()
    file.watched.settings()
    assert "cannot be read" in file.watched.notes[0]


def test_a_file_that_is_only_just_written_may_be_half_written(file: File) -> None:
    file.path.write_text("T2_IT_Pisa:\n")
    assert file.watched.settings().site("T2_IT_Pisa").dry is True
    assert file.watched.settings().site("T2_IT_Pisa").dry is False  # the second look finds it as the first did


def test_words_of_run() -> None:
    assert [is_on(value, AT) for value in (True, "true", False, "False", "for:5")] == [True, True, False, False, True]
    assert [state(f"since:2026-01-01:1{hour}:00:00", AT) for hour in (1, 2, 3)] == ["on", "on", "not_yet"]
    assert [state(f"until:2026-01-01:1{hour}:00:00", AT) for hour in (1, 2, 3)] == ["off", "off", "on"]
    assert [state("for:60", AT, AT - timedelta(seconds=s)) for s in (59, 60)] == ["on", "off"]
    for text in ("maybe", "since:2026-01-01", "until:2026-13-01:00:00:00", "for:-1", ""):
        with pytest.raises(ValueError, match=r"is not|does not match|month|unconverted"):
            parse(text)
