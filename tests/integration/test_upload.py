"""A file of the spool gets to a storage, into Rucio, and on its way, on a real Rucio: once, whole, or not at all."""

from __future__ import annotations

import errno
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
from rucio.client import Client

from common import spool
from common.errors import PhedexRucioError, UsageError
from common.messages.upload import Upload
from common.outcome import Outcome
from common.rucio import storage, uploads
from common.rucio.session import Rucio
from common.rucio.storage import StorageError
from common.settings.model import Main, Settings
from common.spool import InUse, SpoolRefused
from consumers import upload
from consumers.engine.result import Result
from consumers.engine.world import World
from tests.integration.uploading import (
    ACCOUNT,
    DAVS,
    DEST,
    PLACED,
    SE,
    SRM,
    TEMP,
    certificate,
    make_davs,
    make_rses,
    webdav,
)
from tests.stack.rucio_server import RucioServer
from tests.stack.world import client_environment

NAME = f"/store/user/{ACCOUNT}/repl14.txt"
CONTENT = b"of a user" * 1000
SCOPE = f"user.{ACCOUNT}"


@dataclass
class Uploading:
    """Rucio with its RSEs, the folders of the storages, and a spool."""

    server: RucioServer
    folder: Path
    root: Client
    main: Main
    seen: list[Rucio] = field(default_factory=list)

    def put(self, content: bytes = CONTENT, name: str = "a.upload") -> dict[str, Any]:
        """The file waits in the spool; what a message says of it."""
        (self.folder / "spool" / name).write_bytes(content)
        return {"file": name, "bytes": len(content), "adler32": f"{zlib.adler32(content):08x}"}

    def asked(self, temp: str = TEMP, **fields: Any) -> Upload:
        where = {"pfn": self.pfn()} if temp == TEMP else {}
        fields = {"name": NAME, "dest_rse": DEST, "account": ACCOUNT, **where, **fields}
        return Upload(temp_rse=temp, **({} if "file" in fields else self.put()), **fields)

    def do(self, command: Upload) -> Result:
        rucio = Rucio(self.main)
        world = World(cast(Any, None), rucio, Settings(main=self.main), lambda: None)
        try:
            result = upload.handle(command, world)
        finally:
            rucio.close()
        return result

    def pfn(self, name: str = "repl14.txt") -> str:
        return f"file://localhost{self.folder}/temp/user/{ACCOUNT}/{name}"

    @property
    def there(self) -> Path:
        return self.folder / "temp/user" / ACCOUNT / "repl14.txt"

    def rows(self) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
        """The replicas (but those that the rules want to make) and the rules, as Rucio's tables have them."""
        rses = f"rses ON rses.id = rse_id AND rse <> '{DEST}'"
        replicas = f"SELECT scope, name, bytes, adler32, state, rse FROM replicas JOIN {rses}"
        rules = "SELECT account, name, rse_expression, source_replica_expression, state FROM rules"
        return self.server.sql(replicas), self.server.sql(rules)


@pytest.fixture
def side(clean_rucio: RucioServer, tmp_path: Path) -> Iterator[Uploading]:
    for name in ("spool", "temp", "placed"):
        (tmp_path / name).mkdir()
    root = clean_rucio.client()
    make_rses(root, tmp_path)
    with client_environment(clean_rucio):
        yield Uploading(clean_rucio, tmp_path, root, Main(spool=f"{tmp_path}/spool"))


REPLICA = (SCOPE, NAME, len(CONTENT), f"{zlib.adler32(CONTENT):08x}", "A", TEMP)
RULE = (ACCOUNT, NAME, DEST, TEMP, "R")


def test_once_is_enough_and_again_changes_nothing(side: Uploading) -> None:
    asked = side.asked()
    dry = side.do(side.asked(dry=True))
    assert [change.what for change in dry.changes] == ["scope", "replica", "rule"]
    assert (side.rows(), dry.after, side.there.exists()) == (([], []), None, False)
    made = side.do(asked)
    assert (made.outcome, made.counts, made.notes) == (Outcome.CHANGED, {"files": 1, "bytes": len(CONTENT)}, [])
    assert side.there.read_bytes() == CONTENT
    assert side.rows() == ([REPLICA], [RULE])
    written = side.there.stat()
    made.done()
    assert list((side.folder / "spool").iterdir()) == []
    again = side.do(asked)
    assert (again.outcome, again.changes) == (Outcome.IN_SYNC, []), "the file is not needed any more"
    again.done()
    assert (side.rows(), side.there.stat()) == (([REPLICA], [RULE]), written)
    locations = side.root.list_replicas([{"scope": SCOPE, "name": NAME}])
    assert [row["rses"] for row in locations] == [{TEMP: [side.pfn()]}]


def killed(*_: object) -> None:
    raise KeyboardInterrupt


def test_each_step_that_lacks_is_made_good(side: Uploading, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between any two steps, the command comes again: nothing is sent twice, and the end is the same."""
    asked = side.asked()
    leftover = Path(f"{side.there}.rucio.upload")
    leftover.parent.mkdir(parents=True)
    leftover.write_bytes(b"half of an ear")
    for step in ("register", "ask_for"):
        with monkeypatch.context() as patch:
            patch.setattr(uploads, step, killed)
            with pytest.raises(KeyboardInterrupt):
                side.do(asked)
        assert not leftover.exists()
    stored = side.there.stat()
    side.do(asked)
    assert side.there.stat() == stored
    assert side.rows() == ([REPLICA], [RULE])
    side.server.sql("UPDATE replicas SET state = 'U'")
    assert [change.was for change in side.do(asked).changes] == ["UNAVAILABLE"]
    assert side.rows() == ([REPLICA], [RULE])


def no_locks(*_: object) -> None:
    raise OSError(errno.EBADF, "as on NFS")


def test_what_is_stored_is_what_was_checked(side: Uploading, monkeypatch: pytest.MonkeyPatch) -> None:
    """Written to between the check and its use, the file does not get the name, let alone into Rucio."""
    asked, waiting = side.asked(), side.folder / "spool/a.upload"

    def and_then_written_to(*given: Any) -> Any:
        found = verified(*given)
        waiting.write_bytes(CONTENT[::-1])
        return found

    verified = spool.verified
    with monkeypatch.context() as patch:
        patch.setattr(spool, "verified", and_then_written_to)
        with pytest.raises(StorageError, match="Checksum mismatch"):
            side.do(asked)
    assert (side.rows(), side.there.exists()) == (([], []), False)
    with pytest.raises(SpoolRefused, match="announced"):
        side.do(asked)
    waiting.write_bytes(CONTENT)
    with spool.opened(side.main.spool, "a.upload") as held, spool.claimed(held, "a.upload"), pytest.raises(InUse):
        side.do(asked)
    with monkeypatch.context() as patch:
        patch.setattr(spool.fcntl, "flock", no_locks)
        patch.setattr(storage, "store", lambda *_: side.there.write_bytes(b"what another has begun"))
        with pytest.raises(StorageError, match="somebody else writes"):
            side.do(asked)
    side.there.unlink()
    side.do(asked)
    assert side.rows() == ([REPLICA], [RULE])
    assert [path.read_bytes() for path in side.there.parent.iterdir()] == [CONTENT]


def test_an_rse_that_places_files_itself_needs_no_pfn(side: Uploading) -> None:
    made = side.do(side.asked(PLACED))
    assert made.notes == [
        f"no distance leads from {PLACED} to {DEST}: the rule will wait until there is one (`link update`)"
    ]
    (row,) = side.root.list_replicas([{"scope": SCOPE, "name": NAME}])
    assert row["rses"] == {PLACED: [f"file://localhost{side.folder}/placed/user/{ACCOUNT}/{NAME}"]}
    assert (side.folder / f"placed/user/{ACCOUNT}{NAME}").read_bytes() == CONTENT


def test_by_webdav_to_a_server_whose_certificate_is_good(
    side: Uploading, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pem = certificate(tmp_path)
    folder = tmp_path / "davs"
    (folder / "store/temp").mkdir(parents=True)
    monkeypatch.setenv("X509_USER_PROXY", str(pem))
    with webdav(folder, pem) as port:
        make_davs(side.root, port)
        pfn = f"davs://127.0.0.1:{port}/store/temp/a/b/c/d/e.txt"
        asked = side.asked(DAVS, pfn=pfn)
        with pytest.raises(PhedexRucioError, match="CERTIFICATE_VERIFY_FAILED"):
            side.do(asked)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(pem))
        side.do(asked)
        stored = folder / "store/temp/a/b/c/d/e.txt"
        assert stored.read_bytes() == CONTENT
        assert [path.name for path in stored.parent.iterdir()] == ["e.txt"]
        assert [row[-1] for row in side.rows()[0]] == [DAVS]
        other = side.asked(DAVS, pfn=pfn, name="/store/user/other", **side.put(b"x" * len(CONTENT), "b.upload"))
        with pytest.raises(UsageError, match="has another file at"):
            side.do(other)
    assert stored.read_bytes() == CONTENT
    with webdav(folder, pem, digests=True) as port:
        row = side.root.get_protocols(DAVS)[0]
        side.root.update_protocols(DAVS, "davs", {"port": port}, row["hostname"], row["port"])
        side.do(side.asked(DAVS, name=f"{NAME}.2", pfn=f"davs://127.0.0.1:{port}/store/temp/by-digest"))
    assert (folder / "store/temp/by-digest").read_bytes() == CONTENT


def test_what_cannot_be_is_one_line_and_writes_nothing(side: Uploading) -> None:
    srm = f"srm://{SE}:8443/srm/managerv2?SFN=/pnfs/lnl.infn.it/data/cms/store/temp/user/{ACCOUNT}/repl14.txt"
    for fields, says in [
        ({"temp": SRM, "pfn": srm}, "srm needs gfal2, which is not installed here"),
        ({"pfn": ""}, r"not deterministic\): give its PFN"),
        ({"temp": PLACED, "pfn": "file://x/y"}, "leave out --pfn"),
        ({"pfn": srm}, "has no protocol srm to write by"),
        ({"pfn": side.pfn("../../../x")}, r"part that is `\.\.`"),
        ({"pfn": side.pfn("%2e%2e/%2e%2e/%2e%2e/x")}, r"part that is `\.\.`"),
        ({"pfn": "file://localhost/etc/x"}, "cannot be at file://localhost/etc/x: .*Invalid prefix"),
        ({"dest_rse": TEMP}, "both the temporary RSE and the destination"),
        ({"temp": "T2_XX_None"}, "T2_XX_None: no such RSE"),
        ({"dest_rse": "T2_XX_None"}, "T2_XX_None: no such RSE"),
        ({"scope": "group.none"}, "no such scope in Rucio, and it is not dciangot's own"),
        ({"account": "nobody"}, "nobody: no such account"),
        ({"account": "nobody", "scope": "cms"}, "nobody: no such account"),
        ({"name": "/store/user/../x"}, "no name of a file"),
        ({"file": "b.upload", "bytes": 5, "adler32": "0" * 8}, "b.upload: is not in .*the spool"),
        ({**side.put(name="c.upload"), "bytes": 5}, "has 9,000 bytes, 5 were announced"),
        ({**side.put(name="c.upload"), "adler32": "0" * 8}, "adler32 is .*, 00000000 was announced"),
    ]:
        with pytest.raises(UsageError, match=says) as caught:
            side.do(side.asked(**fields))
        assert "\n" not in str(caught.value)
    asked, side.main = side.asked(), Main()
    with pytest.raises(UsageError, match=r"main\.spool: not set"):
        side.do(asked)
    assert side.rows() == ([], [])
    assert list((side.folder / "temp").iterdir()) == []


def test_another_file_of_the_same_name_is_a_conflict(side: Uploading) -> None:
    side.do(side.asked())
    with pytest.raises(UsageError, match="Rucio has another file of this name: 9,000 bytes"):
        side.do(side.asked(**side.put(b"other", "b.upload")))
    elsewhere = side.asked(pfn=side.pfn(), name=f"{NAME}.2", **side.put(b"other", "b.upload"))
    with pytest.raises(UsageError, match=r"has another file at .*nothing is replaced"):
        side.do(elsewhere)
    assert side.there.read_bytes() == CONTENT
    assert side.rows() == ([REPLICA], [RULE])


def test_without_quota_the_file_waits_for_its_rule(side: Uploading) -> None:
    side.root.set_local_account_limit(ACCOUNT, DEST, 10)
    asked = side.asked()
    with pytest.raises(UsageError, match="dciangot: has no quota left at T2_IT_Pisa; the file is at T2_IT_Pisa_Temp"):
        side.do(asked)
    side.root.set_local_account_limit(ACCOUNT, DEST, 10**9)
    assert [change.what for change in side.do(asked).changes] == ["rule"]
    assert side.rows() == ([REPLICA], [RULE])
