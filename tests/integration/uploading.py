"""RSEs that files are uploaded to: folders of this machine, a WebDAV server, one whose program nobody has."""

from __future__ import annotations

import subprocess
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from rucio.client import Client

TEMP, PLACED, DAVS, SRM, DEST = (
    "T2_IT_Pisa_Temp",
    "T2_IT_Rome_Temp",
    "T2_DE_DESY_Temp",
    "T2_IT_Legnaro_Temp",
    "T2_IT_Pisa",
)
ACCOUNT = "dciangot"
WRITES = {"read": 1, "write": 1, "delete": 1, "third_party_copy_read": 1, "third_party_copy_write": 1}
SE = "t2-srm-02.lnl.infn.it"


def protocol(scheme: str, host: str, port: int, prefix: str, implementation: str) -> dict[str, Any]:
    domains = {"lan": WRITES, "wan": WRITES}
    impl = f"rucio.rse.protocols.{implementation}.Default"
    return {"scheme": scheme, "hostname": host, "port": port, "prefix": prefix, "impl": impl, "domains": domains}


def make_rses(root: Client, folder: Path) -> None:
    """Two RSEs in folders (one tells where a file belongs), one by srm, a destination, and who may have files there."""
    root.add_rse(TEMP, deterministic=False)
    root.add_protocol(TEMP, protocol("file", "localhost", 0, f"{folder}/temp", "posix"))
    root.add_rse(PLACED, deterministic=True)
    root.add_rse_attribute(PLACED, "lfn2pfn_algorithm", "identity")
    root.add_protocol(PLACED, protocol("file", "localhost", 0, f"{folder}/placed", "posix"))
    root.add_rse(SRM, deterministic=False)
    srm = protocol("srm", SE, 8443, "/pnfs/lnl.infn.it/data/cms/store/temp", "gfal")
    root.add_protocol(SRM, {**srm, "extended_attributes": {"web_service_path": "/srm/managerv2?SFN="}})
    root.add_rse(DEST)
    root.add_distance(TEMP, DEST, {"distance": 1})
    root.add_account(ACCOUNT, "USER", "d@example.org")
    root.set_local_account_limit(ACCOUNT, DEST, 10_000_000)


def make_davs(root: Client, port: int, scheme: str = "davs") -> None:
    root.add_rse(DAVS, deterministic=False)
    root.add_protocol(DAVS, protocol(scheme, "127.0.0.1", port, "/store/temp", "webdav"))


@contextmanager
def webdav(folder: Path, certificate: Path | None = None, *, digests: bool = False) -> Iterator[int]:
    """A WebDAV server on this machine that keeps its files in the folder; its port.

    `digests`: it tells checksums as storages do (RFC 3230), and gives no file back.
    """
    wsgi = pytest.importorskip("cheroot.wsgi")
    app = pytest.importorskip("wsgidav.wsgidav_app")
    share = {"/": {"root": str(folder), "readonly": False}}
    quiet = {"verbose": 0, "logging": {"enable": False}}
    config = {"provider_mapping": share, "simple_dc": {"user_mapping": {"*": True}}, "dir_browser": {"enable": True}}
    served = app.WsgiDAVApp({**config, **quiet})
    server = wsgi.Server(("127.0.0.1", 0), _digesting(served, folder) if digests else served, numthreads=4)
    if certificate is not None:
        ssl = pytest.importorskip("cheroot.ssl.builtin")
        server.ssl_adapter = ssl.BuiltinSSLAdapter(str(certificate), str(certificate))
    server.prepare()
    thread = threading.Thread(target=server.serve, daemon=True)
    thread.start()
    try:
        yield int(server.bind_addr[1])
    finally:
        server.stop()
        thread.join()


def _digesting(served: Any, folder: Path) -> Any:
    def answer(environ: dict[str, Any], start: Any) -> Any:
        path = folder / environ["PATH_INFO"].lstrip("/")

        def telling(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
            wanted = environ.get("HTTP_WANT_DIGEST") == "adler32" and path.is_file()
            told = [("Digest", f"adler32={zlib.adler32(path.read_bytes()):x}")] if wanted else []
            return start(status, headers + told, *more)

        if environ["REQUEST_METHOD"] == "GET":
            start("403 Forbidden", [("Content-Length", "0")])
            return [b""]
        return served(environ, telling)

    return answer


def certificate(folder: Path) -> Path:
    """A key and its certificate, which is its own authority, in one file."""
    found = folder / "server.pem"
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", *subject]
    subprocess.run([*command, "-keyout", found, "-out", folder / "c.pem"], check=True, capture_output=True)
    found.write_text(found.read_text() + (folder / "c.pem").read_text())
    return found
