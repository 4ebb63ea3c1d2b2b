"""The original service's file: converted, and what became of each of its keys."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from common.errors import UsageError
from common.settings.load import load
from common.settings.original import convert, level_of
from phedex_rucio.config import command

OLD = Path(__file__).parent / "synccmssites.yaml"


def test_a_converted_file_passes_the_check_and_names_every_change(tmp_path: Path) -> None:
    result = CliRunner().invoke(command, ["convert", str(OLD)])
    assert result.exit_code == 0, result.output
    path = tmp_path / "new.yaml"
    path.write_text(result.stdout)
    settings = load(path, {}).settings
    assert (settings.main.pool, settings.main.sleep, settings.main.verbosity) == (2, 60, "INFO")
    assert sorted(settings.sites) == ["T1_FR_CCIN2P3_Buffer", "T1_IT_CNAF_Disk", "T2_FR_GRIF_LLR", "T2_IT_Pisa"]
    tape = settings.sites["T1_FR_CCIN2P3_Buffer"]
    assert (tape.multi_das_calls, tape.chunck, tape.rse) == (True, 3000, "T1_FR_CCIN2P3_Tape")
    assert settings.sites["T1_IT_CNAF_Disk"].run is False  # its expression is lost, and with it what it protected
    assert settings.sites["T2_FR_GRIF_LLR"].run == "until:2019-12-31:23:59:59"
    noted = {line.split(": ")[0] for line in result.stdout.splitlines() if line.startswith("# ")}
    assert noted == {
        f"# {key}"
        for key in (
            "main.pool",
            "main.sleep",
            "main.verbosity",
            "main.block_verbosity",
            "default.pool",
            "default.chunck",
            "default.min_deletions",
            "default.select",
            "default.verbosity",
            "T1_FR_CCIN2P3_Buffer.chunck",
            "T1_IT_CNAF_Disk.ignore",
            "T2_IT_Pisa.allow_clean",
            "T2_IT_Pisa.color",
            "Somewhere",
        )
    }


def test_the_check_of_an_old_file_names_each_key_without_a_meaning() -> None:
    with pytest.raises(UsageError) as caught:
        load(OLD, {})
    found = {line.strip().split(": ")[0] for line in str(caught.value).splitlines()[1:]}
    keys = {"main.block_verbosity", "default.pool", "default.min_deletions", "default.verbosity", "default.select"}
    assert found == keys | {"T1_IT_CNAF_Disk.ignore", "T2_IT_Pisa.color", "Somewhere"}


def test_a_doubt_in_default_switches_every_site_off() -> None:
    new, notes = convert(yaml.safe_load("default: {ignore: '(', run: True}\nT2_IT_Pisa: {run: True}\nT2_US_MIT:\n"))
    assert {section: values["run"] for section, values in new.items()} == dict.fromkeys(
        ("default", "T2_IT_Pisa", "T2_US_MIT"), False
    )
    assert "switched off" in notes[0]


def test_what_is_no_such_file_is_refused() -> None:
    with pytest.raises(UsageError, match="no mapping of sections"):
        convert(["main"])


@pytest.mark.parametrize(
    ("said", "meant"), [("", ""), ("summary", "INFO"), ("Debug", "DEBUG"), ("NOTICE", "INFO"), ("LOUD", None)]
)
def test_levels(said: str, meant: str | None) -> None:
    assert level_of(said) == meant
