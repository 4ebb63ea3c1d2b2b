"""Settings: where they come from, and every mistake by its name."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.errors import UsageError
from common.settings import shown
from common.settings.load import BadSettings, load
from common.settings.model import Main, Settings


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    return path


def mistakes(tmp_path: Path, text: str, environ: dict[str, str] | None = None) -> str:
    with pytest.raises(UsageError) as caught:
        load(write(tmp_path, text), environ or {})
    return str(caught.value)


def test_nothing_is_configured() -> None:
    loaded = load(None, {})
    assert loaded.settings == Settings()
    assert loaded.origins == {}


def test_flag_over_environment_over_file_over_default(tmp_path: Path) -> None:
    path = write(tmp_path, "main: {threads: 2, attempts: 3, heartbeat: 11}")
    environ = {"PHEDEX_RUCIO_MAIN_THREADS": "8", "PHEDEX_RUCIO_MAIN_ATTEMPTS": "4"}
    loaded = load(path, environ, {"main.threads": 9, "main.rucio_account": None})
    main = loaded.settings.main
    assert (main.threads, main.attempts, main.heartbeat, main.grace) == (9, 4, 11, Main().grace)
    assert loaded.origins == {
        "main.threads": "flag",
        "main.attempts": "PHEDEX_RUCIO_MAIN_ATTEMPTS",
        "main.heartbeat": "file",
    }


def test_the_file_may_be_named_by_the_environment(tmp_path: Path) -> None:
    path = write(tmp_path, "main: {threads: 7}")
    assert load(None, {"PHEDEX_RUCIO_CONFIG": str(path)}).settings.main.threads == 7


def test_a_site_inherits_default_with_the_environments_changes(tmp_path: Path) -> None:
    path = write(tmp_path, "default: {chunck: 5, select: ^/Primary}\nT2_IT_Pisa: {dry: true}\nT2_US_MIT: {chunck: 9}\n")
    settings = load(path, {"PHEDEX_RUCIO_DEFAULT_BATCH_BLOCKS": "50"}).settings
    pisa, mit, other = (settings.site(node) for node in ("T2_IT_Pisa", "T2_US_MIT", "T1_US_FNAL"))
    assert (pisa.chunck, pisa.select, pisa.dry, pisa.batch_blocks) == (5, "^/Primary", True, 50)
    assert (mit.chunck, mit.dry) == (9, False)
    assert (other.chunck, other.batch_blocks) == (5, 50)


def test_an_empty_section_and_an_empty_file_change_nothing(tmp_path: Path) -> None:
    assert load(write(tmp_path, "main:\ndefault:\n"), {}).settings == Settings()
    assert load(write(tmp_path, ""), {}).settings == Settings()


@pytest.mark.parametrize(
    ("name", "value", "field", "expected"),
    [
        ("AMQP_URL", "amqps://u@mq.example.org/v", "amqp_url", "amqps://u@mq.example.org/v"),
        ("PHEDEX_URL", "https://phedex.example.org/datasvc", "phedex_url", "https://phedex.example.org/datasvc"),
        ("PHEDEX_INSTANCE", "dev", "phedex_instance", "dev"),
        ("PHEDEX_RUCIO_MAIN_ALLOW_INSECURE", "true", "allow_insecure", True),
        ("PHEDEX_RUCIO_MAIN_DEADLINE", "1.5", "deadline", 1.5),
        ("PHEDEX_RUCIO_MAIN_WAIT_DELAYS", "1, 2.5", "wait_delays", [1.0, 2.5]),
    ],
)
def test_variables(name: str, value: str, field: str, expected: object) -> None:
    assert getattr(load(None, {name: value}).settings.main, field) == expected


def test_our_own_variable_wins_over_the_short_one() -> None:
    environ = {"PHEDEX_INSTANCE": "dev", "PHEDEX_RUCIO_MAIN_PHEDEX_INSTANCE": "debug"}
    assert load(None, environ).settings.main.phedex_instance == "debug"


def test_the_brokers_password_comes_from_a_file(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("p@ss/word\n")
    environ = {"AMQP_URL": "amqps://me@a.example.org/v,amqps://me:old@b.example.org:5671/v"}
    loaded = load(None, {**environ, "AMQP_PASSWORD_FILE": str(secret)})
    assert loaded.settings.main.amqp_url == (
        "amqps://me:p%40ss%2Fword@a.example.org/v,amqps://me:p%40ss%2Fword@b.example.org:5671/v"
    )
    assert loaded.origins["main.amqp_url"] == "AMQP_PASSWORD_FILE"


def test_a_password_file_that_is_not_there_is_a_mistake(tmp_path: Path) -> None:
    text = mistakes(tmp_path, "", {"AMQP_PASSWORD_FILE": str(tmp_path / "none")})
    assert "AMQP_PASSWORD_FILE" in text
    assert "No such file" in text


def test_a_password_without_a_user_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("x")
    text = mistakes(
        tmp_path, "main: {amqp_url: 'amqps://mq.example.org/v'}", {"AMQP_PASSWORD_FILE": str(tmp_path / "password")}
    )
    assert "main.amqp_url: names no user" in text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("main: {treads: 4}", "main.treads: unknown key; known are "),
        ("default: {pool: 4}", "default.pool: a key of the original service without a meaning here, leave it out"),
        ("T2_IT_Pisa: {min_deletions: 4}", "T2_IT_Pisa.min_deletions: a key of the original service"),
        ("main: {block_verbosity: INFO}", "main.block_verbosity: a key of the original service"),
        ("main: {verbosity: LOUD}", "main.verbosity: 'LOUD' is no level"),
        ("main: {run: since:tomorrow}", "main.run: 'since:tomorrow' is not True, False, since:"),
        ("T2_IT_Pisa: {run: until:2026-13-01:00:00:00}", "T2_IT_Pisa.run: "),
        ("T2_IT_Pisa: {every: 0.5}", "T2_IT_Pisa.every: 0.5 s; at least 1"),
        ("datasets: {a: 1}", "datasets: not a list of entries"),
        ("datasets: [1]", "datasets[0]: not a mapping of keys"),
        ("datasets: [{}]", "datasets[0].dataset: missing"),
        ("datasets: [{dataset: /A/B}]", "datasets[0].dataset: "),
        ("datasets: [{dataset: /A/B/C, nodes: [T2_IT_Pisa, Pisa]}]", "datasets[0].nodes[1]: "),
        ("datasets: [{dataset: /A/B/C, select: '('}]", "datasets[0].select: '(' is no regular expression"),
        ("datasets: [{dataset: /A/B/C, ever: 4}]", "datasets[0].ever: unknown key; known are "),
        ("datasets: [{dataset: /A/B/C}, {dataset: /A/B/C}]", "datasets[1]: /A/B/C is the name of datasets[0] too"),
        (
            "schedule: [{kind: sync.sites, every: 9}]",
            "schedule[0].kind: unknown kind 'sync.sites'; known are sync.site",
        ),
        ("schedule: [{kind: sync.site, fields: {node: T2_IT_Pisa}}]", "schedule[0].every: missing"),
        ("schedule: [{kind: sync.site, every: 9}]", "schedule[0].fields.node: missing"),
        ("schedule: [{kind: sync.site, every: 9, fields: {node: Pisa}}]", "schedule[0].fields.node: "),
        ("schedule: [{kind: sync.site, every: 9, fields: {approve: x}}]", "schedule[0].fields.approve: not for the"),
        ("datasets: [{dataset: /A/B/C, approve: x}]", "datasets[0].approve: "),
        ("schedule: [{kind: sync.dataset, every: 9, fields: {dataset: /A/B/C, approve: x}}]", "approve: not for the"),
        ("T2_IT_Pisa: {sleep: 4}", "T2_IT_Pisa.sleep: unknown key"),
        ("main: {threads: four}", "main.threads: Expected `int`, got `str`"),
        ("main: {threads: 0}", "main.threads: Expected `int` >= 1"),
        ("main: {threads: '4'}", "main.threads: Expected `int`, got `str`"),
        ("T2_IT_Pisa: {dry: 3}", "T2_IT_Pisa.dry: Expected `bool`, got `int`"),
        ("T2_IT_Pisa: {batch_blocks: 101}", "T2_IT_Pisa.batch_blocks: Expected `int` <= 100"),
        ("main: {sweep_blocks: 13}", "main.sweep_blocks: Expected `int` <= 12"),
        ("main: {sweep_blocks: 0}", "main.sweep_blocks: Expected `int` >= 1"),
        ("main: {sweep_files: 1001}", "main.sweep_files: Expected `int` <= 1000"),
        ("main: {sweep_within: 0}", "main.sweep_within: Expected `float` > 0"),
        ("main: {announcement_lifetime: 0.5}", "main.announcement_lifetime: Expected `float` >= 1"),
        ("main: {approval_lifetime: -1}", "main.approval_lifetime: Expected `float` >= 0"),
        ("main: {nowhere_apart: -1}", "main.nowhere_apart: Expected `float` >= 0"),
        ("main: {rely_on: sync}", "main.rely_on: Expected `array`, got `str`"),
        ("main: {rely_on: ['a b']}", "main.rely_on: Expected `str` matching regex"),
        ("T2_IT_Pisa: {hold_nowhere: 3}", "T2_IT_Pisa.hold_nowhere: Expected `bool`, got `int`"),
        ("T2_IT_Pisa: {rse: T2_X}\nT2_US_MIT: {rse: T2_X}", "T2_US_MIT.rse: T2_X is the RSE of T2_IT_Pisa too"),
        ("default: {rse: T2_X}\nT2_IT_Pisa: {}\nT2_US_MIT: {}", "T2_US_MIT.rse: T2_X is the RSE of T2_IT_Pisa too"),
        ("main: {wait_delays: []}", "main.wait_delays: empty"),
        ("main: {probe_pause: 90}", "main.probe_pause: 90.0 s is more than main.probe_pause_max"),
        ("Pisa: {dry: true}", "Pisa: neither `main`, `default`, `datasets` nor `schedule`"),
        ("12: {dry: true}", "12: neither `main`, `default`, `datasets` nor `schedule`"),
        ("main: 4", "main: not a mapping of keys"),
        ("- main", "the file is not a mapping of sections"),
        ("default: {select: '('}", "default.select: '(' is no regular expression"),
        ("T2_IT_Pisa: {ignore: '(?=x)'}", "T2_IT_Pisa.ignore: '(?=x)' is no regular expression"),
        ("T2_IT_Pisa: {inventory_node: Pisa}", "T2_IT_Pisa.inventory_node: 'Pisa' is no node name"),
        ("main: {amqp_url: 'http://mq.example.org'}", "main.amqp_url: no URL that begins with amqp:// or amqps://"),
        ("main: {amqp_url: 'amqps://u@[x/v'}", "main.amqp_url: no URL"),
        ("main: {phedex_url: 'https://'}", "main.phedex_url: no URL"),
        ("main: {phedex_url: 'http://cmsweb.cern.ch/x'}", "main.phedex_url: http://cmsweb.cern.ch is not encrypted"),
        ("main: {amqp_url: 'amqp://u:secret@mq.example.org/v'}", "main.amqp_url: amqp://mq.example.org is not"),
        ("main: {amqp_url: 'amqps://u@a.org/v,amqp://u@b.org/v'}", "main.amqp_url: amqp://b.org is not encrypted"),
        ("main: {threads: 1, threads: 2}", "settings.yaml:1: key 'threads' stands there twice"),
        ("main: {threads: 1}\nmain: {}", "settings.yaml:2: key 'main' stands there twice"),
        ("main: &m {threads: 1}\ndefault: *m", "settings.yaml:2: aliases (*m) are not taken"),
        ("main: {threads: 1", "line 1: "),
        ("main: !!python/name:os.system x", "line 1: could not determine a constructor"),
        ("main: 2026-99-99", "month must be in 1..12"),
        ("main: " + "[" * 500 + "]" * 500, "nested too deep"),
        ("#" * (1024 * 1024 + 1), "larger than 1048576 bytes"),
    ],
)
def test_each_mistake_is_named(tmp_path: Path, text: str, expected: str) -> None:
    found = mistakes(tmp_path, text)
    assert expected in found
    assert "settings.yaml" in found
    assert "secret" not in found


def test_all_mistakes_at_once(tmp_path: Path) -> None:
    with pytest.raises(BadSettings) as caught:
        load(
            write(tmp_path, "main: {treads: 4, threads: x}\nPisa: {}\nT2_IT_Pisa: {select: '('}"),
            {"PHEDEX_RUCIO_MAIN_ATTEMPTS": "many", "PHEDEX_RUCIO_DEFAULT_POOL": "1"},
        )
    first, *others = str(caught.value).splitlines()
    assert first.endswith("6 mistakes")
    starts = ["main.treads:", "main.threads:", "Pisa:", "PHEDEX_RUCIO_DEFAULT_POOL (default.pool):"]
    starts += ["PHEDEX_RUCIO_MAIN_ATTEMPTS (main.attempts):", "T2_IT_Pisa.select:"]
    assert [line.strip().startswith(start) for line, start in zip(others, starts, strict=True)] == [True] * 6


def test_a_mistake_in_default_is_said_once_however_many_sites_inherit_it(tmp_path: Path) -> None:
    found = mistakes(tmp_path, "default: {select: '('}\nT2_IT_Pisa: {dry: true}\nT2_US_MIT: {dry: true}")
    assert found.count("no regular expression") == 1


def test_loopback_and_explicit_consent_may_go_unencrypted() -> None:
    for host in ("localhost:5672", "127.0.0.1", "[::1]:5672"):
        assert host in load(None, {"AMQP_URL": f"amqp://guest:guest@{host}/v"}).settings.main.amqp_url
    load(None, {"PHEDEX_URL": "http://phedex.example.org/d", "PHEDEX_RUCIO_MAIN_ALLOW_INSECURE": "true"})


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.yaml: cannot be read: No such file"):
        load(tmp_path / "none.yaml", {})
    (tmp_path / "latin.yaml").write_bytes(b"main: \xff")
    with pytest.raises(UsageError, match="not UTF-8 at byte 6"):
        load(tmp_path / "latin.yaml", {})


def test_settings_are_shown_with_origin_and_without_secrets(tmp_path: Path) -> None:
    path = write(tmp_path, "T2_IT_Pisa: {dry: true}")
    loaded = load(path, {"AMQP_URL": "amqps://me:geheim@mq.example.org/v"}, {"main.rucio_account": "root"})
    lines = {line.path: line for line in shown.lines(loaded)}
    assert (lines["main.amqp_url"].value, lines["main.amqp_url"].origin) == (
        "amqps://me:***@mq.example.org/v",
        "AMQP_URL",
    )
    assert lines["main.rucio_account"].origin == "flag"
    assert lines["main.threads"].origin == "default"
    assert lines["T2_IT_Pisa.dry"].origin == "file"
    assert "T2_IT_Pisa.chunck" not in lines
    assert "geheim" not in str(lines)


def test_what_holds_removals_where_nobody_says_otherwise(tmp_path: Path) -> None:
    main, site = load(None, {}).settings.main, load(None, {}).settings.site("T2_IT_Pisa")
    assert (main.approval_lifetime, main.nowhere_apart, main.announcement_lifetime) == (86_400, 3_600, 3_600)
    assert (main.sweep_within, main.sweep_blocks, main.sweep_files, main.rely_on) == (5, 10, 300, [])
    assert (site.hold_custodial, site.hold_nowhere, site.hold_unknown, site.allow_clean) == (True, True, True, False)
    path = write(tmp_path, "main: {rely_on: [rucio_prod, t0]}\nT2_IT_Pisa: {hold_nowhere: false}")
    loaded = load(path, {}).settings
    assert loaded.main.rely_on == ["rucio_prod", "t0"]
    assert not loaded.site("T2_IT_Pisa").hold_nowhere
    assert loaded.site("T2_US_MIT").hold_nowhere
