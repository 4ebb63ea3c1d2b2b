"""The command line with a real broker and no worker: sending, following, mistakes, outages."""

from __future__ import annotations

import json
import signal
import socket
from pathlib import Path

import pytest

from common.broker.topology import topology
from common.settings.model import Main
from tests.acceptance.command import ended, run, started, until

FIELDS = ("--field", "node=T2_US_MIT")


@pytest.fixture
def env(amqp_url: str) -> dict[str, str]:
    """The environment of a deployment whose queues are declared."""
    env = {"AMQP_URL": amqp_url}
    assert run("setup", env=env).returncode == 0
    return env


def test_setup_declares_what_is_missing_and_may_be_repeated(amqp_url: str) -> None:
    env = {"AMQP_URL": amqp_url}
    first, again = (json.loads(run("setup", "--json", env=env).stdout)["created"] for _ in range(2))
    assert set(first) >= {queue.name for queue in topology(Main()).queues}
    assert again == []


def test_whoever_starts_first_declares_the_queues(amqp_url: str) -> None:
    env = {"AMQP_URL": amqp_url}
    followed = run("wait", "x", "--timeout", "5", env=env)
    assert followed.returncode != 0
    assert "phedex-rucio setup" in followed.stderr
    sent = run("send", "sync.site", *FIELDS, env=env)
    assert sent.returncode == 0, sent.stderr
    assert json.loads(run("setup", "--json", env=env).stdout)["created"] == []


def test_what_was_sent_is_followed_by_its_name(env: dict[str, str]) -> None:
    sent = run("send", "sync.site", *FIELDS, env=env)
    assert sent.returncode == 0, sent.stderr
    (cycle,) = sent.stdout.splitlines()
    waited = run("wait", cycle, "--timeout", "3", env=env)
    assert waited.returncode == 1, waited.stderr
    assert "0 of 1 commands are closed" in waited.stderr
    assert "is its name right" not in waited.stderr
    assert f"phedex-rucio wait {cycle}" in waited.stderr


def test_a_cycle_that_nobody_sent_is_doubted(env: dict[str, str]) -> None:
    result = run("wait", "20260101T000000-nothing", "--timeout", "1", "--json", env=env)
    assert result.returncode == 1
    assert "is its name right?" in result.stderr
    assert json.loads(result.stdout)["finished"] is False


def test_sync_without_wait_tells_how_to_follow(env: dict[str, str]) -> None:
    result = run("sync", "site", "T2_US_MIT", "T2_IT_Pisa", "--dry-run", env=env)
    assert result.returncode == 0, result.stderr
    cycles = result.stdout.splitlines()
    assert len(set(cycles)) == 2
    assert f"phedex-rucio wait {' '.join(cycles)}" in result.stderr


@pytest.mark.parametrize(("more", "lines"), [((), 1), (("--debug",), 60)])
def test_a_broker_that_is_away_is_said_in_one_line(more: tuple[str, ...], lines: int) -> None:
    """With --debug there are pika's own errors and a traceback too, but not each turn of its event loop."""
    result = run("send", "sync.site", *FIELDS, *more, env={"AMQP_URL": "amqp://guest:s3cret@127.0.0.1:9/%2F"})
    assert result.returncode == 5
    said = result.stderr.splitlines()
    assert said[-1] == "phedex-rucio: no connection to broker guest@127.0.0.1:9 vhost /: Connection refused"
    assert len(said) <= lines
    assert "call_later" not in result.stderr
    assert "s3cret" not in result.stderr


def test_a_worker_that_waits_for_its_broker_ends_in_order(tmp_path: Path) -> None:
    configuration = tmp_path / "rucio.cfg"  # a worker looks into it when it starts, and asks nobody yet
    configuration.write_text(
        "[client]\nrucio_host = http://127.0.0.1:9\nauth_host = http://127.0.0.1:9\nauth_type = userpass\n"
        "username = u\npassword = p\naccount = root\n"
    )
    env = {"AMQP_URL": "amqp://127.0.0.1:9/%2F", "RUCIO_CONFIG": str(configuration)}
    with started("worker", env=env) as process:
        said = until(process, "the broker is not ready: no connection to broker guest@127.0.0.1:9")
        assert "pika" not in said
        code, _ = ended(process, signal.SIGTERM)
    assert code == 0


def test_ctrl_c_ends_the_looking_and_says_that_the_work_goes_on(env: dict[str, str]) -> None:
    (cycle,) = run("send", "sync.site", *FIELDS, env=env).stdout.splitlines()
    with started("wait", cycle, "--debug", env=env) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "event=following" in line:
                break
        code, errors = ended(process, signal.SIGINT)
    assert code == 130
    assert f"The work goes on. Follow it: phedex-rucio wait {cycle}" in errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("send", "sync.site"), "phedex-rucio: node: missing"),
        (("send", "sync.site", "--field", "node=Pisa"), "phedex-rucio: node: "),
        (("send", "sync.site", *FIELDS, "--field", "limti=1"), "phedex-rucio: limti: unknown field"),
        (("send", "sync.site", *FIELDS, "--field", "meta.lane=fast"), "phedex-rucio: meta.lane: "),
        (("send", "sync.site", *FIELDS, "--field", "limit"), "phedex-rucio: --field limit: not NAME=VALUE"),
        (("sync", "site", "Pisa"), "phedex-rucio: node: "),
        (("sync", "block", "/A/B/AOD", "--node", "T2_US_MIT"), "phedex-rucio: /A/B/AOD: no block name"),
        (("config", "check", "/nowhere.yaml"), "phedex-rucio: /nowhere.yaml: cannot be read"),
        (("send", "nonsense"), "phedex-rucio: Invalid value for "),
        (("sync",), "Usage: "),
    ],
)
def test_wrong_usage_is_one_clear_line_and_exit_code_2(arguments: tuple[str, ...], message: str) -> None:
    result = run(*arguments)
    assert result.returncode == 2
    assert result.stderr.startswith(message)
    assert "Traceback" not in result.stderr


def test_mistakes_in_a_file_are_all_listed(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("main: {treads: 4, threads: x}\nPisa: {}\n")
    for arguments in (("config", "check", str(path)), ("sync", "site", "T2_US_MIT", "--config", str(path))):
        result = run(*arguments)
        assert result.returncode == 2
        assert all(text in result.stderr for text in ("3 mistakes", "main.treads", "main.threads", "Pisa"))


def test_config_show_hides_the_password() -> None:
    for arguments in (("config", "show"), ("config", "show", "--json")):
        result = run(*arguments, env={"AMQP_URL": "amqps://me:geheim@mq.example.org/v"})
        assert result.returncode == 0, result.stderr
        assert "amqps://me:***@mq.example.org/v" in result.stdout
        assert "geheim" not in result.stdout + result.stderr


def test_a_broker_that_is_away_is_exit_code_5() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    env = {"AMQP_URL": f"amqp://guest:geheim@127.0.0.1:{port}/v", "PHEDEX_RUCIO_MAIN_CONNECT_TIMEOUT": "1"}
    for arguments in (("send", "sync.site", *FIELDS), ("wait", "x"), ("setup",)):
        result = run(*arguments, env=env)
        assert result.returncode == 5, result.stderr
        assert result.stderr.startswith(f"phedex-rucio: no connection to broker guest@127.0.0.1:{port}")
        assert len(result.stderr.splitlines()) == 1


def test_the_version() -> None:
    assert run("--version").stdout.startswith("phedex-rucio 0.")
