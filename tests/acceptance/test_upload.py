"""A person uploads a file: by a worker that shares the spool, by this process, and what is said where it cannot be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.acceptance.command import run, worker
from tests.integration.messaging import eventually
from tests.integration.uploading import ACCOUNT, DEST, PLACED, SE, SRM, TEMP, make_rses
from tests.stack.rucio_server import RucioServer

CONTENT = b"of a user" * 100_000
NAME = f"/store/user/{ACCOUNT}/repl14.txt"
SAID = ("--scope", f"user.{ACCOUNT}", "--account", ACCOUNT)
Env = dict[str, str]


@pytest.fixture
def env(amqp_url: str, clean_rucio: RucioServer, tmp_path: Path) -> Env:
    """A deployment with a spool of its own, and a file that is to be uploaded."""
    make_rses(clean_rucio.client(), tmp_path)
    for folder in ("spool", "temp", "placed", "elsewhere"):
        (tmp_path / folder).mkdir()
    (tmp_path / "replica23.txt").write_bytes(CONTENT)
    found = {"AMQP_URL": amqp_url, "PHEDEX_RUCIO_MAIN_SPOOL": f"{tmp_path}/spool", "PHEDEX_URL": "http://127.0.0.1:9/x"}
    return {**found, **clean_rucio.client_environment()}


def test_by_way_of_the_spool(env: Env, tmp_path: Path, clean_rucio: RucioServer) -> None:
    source, stored = tmp_path / "replica23.txt", tmp_path / "temp/user/repl14.txt"
    asked = ("upload", str(source), NAME, TEMP, DEST, "--pfn", f"file://localhost{stored}", *SAID)
    with worker(env, "--queue", "upload"):
        done = run(*asked, "--wait", "--json", env=env)
        assert done.returncode == 0, done.stdout + done.stderr
        (row,) = json.loads(done.stdout)["sites"]
        assert (row["outcome"], row["counts"]) == ("changed", {"files": 1, "bytes": len(CONTENT)})
        assert stored.read_bytes() == CONTENT
        again = run(*asked, "--wait", env=env)
        assert (again.returncode, again.stdout) == (0, f"Nothing to change: {DEST}, upload\n"), again.stderr
    assert list((tmp_path / "spool").iterdir()) == [], "settled, so the spool has it no more"
    assert source.read_bytes() == CONTENT
    assert clean_rucio.sql("SELECT account, scope, name FROM rules") == [(ACCOUNT, f"user.{ACCOUNT}", NAME)]

    other = {**env, "PHEDEX_RUCIO_MAIN_SPOOL": f"{tmp_path}/elsewhere"}
    with worker(other, "--queue", "upload"):
        blind = run("upload", str(source), f"{NAME}.2", PLACED, DEST, *SAID, "--wait", env=env)
    assert blind.returncode == 1
    assert f"is not in {tmp_path}/elsewhere on" in blind.stderr
    assert len(list((tmp_path / "spool").iterdir())) == 1, "kept for the replay"
    with worker(env, "--queue", "upload"):
        replayed = run("dead", "replay", "--queue", "upload", "--all", "--json", env=env)
        assert replayed.returncode == 0, replayed.stdout + replayed.stderr
        eventually(lambda: not list((tmp_path / "spool").iterdir()), "the replay is settled")
    assert (tmp_path / f"placed/user/{ACCOUNT}{NAME}.2").read_bytes() == CONTENT


def test_from_where_it_is_and_what_cannot_be(env: Env, tmp_path: Path, clean_rucio: RucioServer) -> None:
    (tmp_path / "my link").symlink_to("replica23.txt")
    here = ("upload", f"{tmp_path}/my link", NAME, PLACED, DEST, *SAID)
    dry = run(*here, "--dry-run", env=env)
    assert (dry.returncode, clean_rucio.sql("SELECT count(*) FROM replicas")) == (0, [(0,)]), dry.stderr
    assert "scope" in dry.stdout
    assert f"no distance leads from {PLACED} to {DEST}" in dry.stdout
    done = run(*here, "--local", env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / f"placed/user/{ACCOUNT}{NAME}").read_bytes() == CONTENT
    assert (tmp_path / "replica23.txt").read_bytes() == CONTENT

    source, bare = f"{tmp_path}/replica23.txt", {**env, "PHEDEX_RUCIO_MAIN_SPOOL": ""}
    srm = f"srm://{SE}:8443/srm/managerv2?SFN=/pnfs/lnl.infn.it/data/cms/store/temp/user/dciangot/repl14.txt"
    original = ("upload", source, NAME, SRM, DEST, "--pfn", srm, *SAID)
    (tmp_path / "empty").touch()
    for words, where, code, says in [
        ((*original, "--local"), env, 1, "srm needs gfal2, which is not installed here"),
        (("upload", source, NAME, TEMP, DEST, *SAID), env, 2, "not deterministic): give its PFN there, --pfn"),
        (("upload", source, NAME, PLACED, DEST, *SAID), bare, 2, "main.spool: not set"),
        (("upload", source, NAME, PLACED, PLACED, *SAID), env, 2, "both the temporary RSE and the destination"),
        (("upload", source, NAME, "T2_XX_None", DEST, *SAID), env, 2, "no such RSE in Rucio"),
        (("upload", source, "/tmp/x", PLACED, DEST, *SAID), env, 2, "name"),
        (("upload", source, "/store/a/../x", PLACED, DEST, *SAID), env, 2, "no name of a file below /store/"),
        (("upload", f"{tmp_path}/empty", NAME, PLACED, DEST, *SAID), env, 2, "is empty"),
        (("upload", "/dev/null", NAME, PLACED, DEST, *SAID), env, 2, "no plain file"),
        (("upload", source, NAME, PLACED, DEST, "--account", "nobody"), env, 2, "nobody: no such account"),
    ]:
        result = run(*words, env=where)
        said = result.stdout + result.stderr
        assert (result.returncode, says in said) == (code, True), said
        assert "Traceback" not in said
    assert list((tmp_path / "spool").iterdir()) == []
