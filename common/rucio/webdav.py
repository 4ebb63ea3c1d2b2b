"""Rucio's WebDAV, without its habit of trusting every server, and with the checksum of what it has stored.

Rucio's own (41.5.1) turns the verification of certificates off in every call, knows `https` but not `davs`, takes a
missing folder (409) for a file that is there already, and compares nothing but sizes.
"""

from __future__ import annotations

import os
import re
import zlib
from pathlib import Path
from typing import Any

import requests
from rucio.common import exception
from rucio.rse.protocols import webdav

IMPLEMENTATION = f"{__name__}.Verified"
AUTHORITIES = "/etc/grid-security/certificates"
CHUNK = 1024 * 1024
_DIGEST = re.compile(r"(?i)\badler32=([0-9a-f]{1,8})\b")


class Verified(webdav.Default):  # type: ignore[misc]
    """Reads and writes files by WebDAV, at servers whose certificate is good."""

    @property
    def session(self) -> requests.Session:
        return self._session

    @session.setter
    def session(self, session: requests.Session) -> None:
        ask = session.request

        def verifying(*args: Any, **options: Any) -> requests.Response:
            return ask(*args, **{**options, "verify": _authorities()})

        session.request = verifying  # type: ignore[method-assign]
        self._session = session

    def path2pfn(self, path: str) -> str:
        """The URL of a path below the prefix, or of a PFN."""
        pfn: str = path if "://" in path else super().path2pfn(path)
        return f"https://{pfn.removeprefix('davs://')}" if pfn.startswith("davs://") else pfn

    def put(self, source: str, target: str, source_dir: str | None = None, **options: Any) -> None:
        """The file is stored; the folders above it that were missing are made."""
        self._make_folders(self.path2pfn(target).rpartition("/")[0])
        super().put(source, target, source_dir, **options)

    def rename(self, pfn: str, new_pfn: str) -> None:
        """The file has its other name, which was free: what is there is never replaced."""
        headers = {"Destination": self.path2pfn(new_pfn), "Overwrite": "F"}
        reply = self.session.request("MOVE", self.path2pfn(pfn), headers=headers, timeout=self.timeout, cert=self.cert)
        if reply.status_code == requests.codes.precondition_failed:
            raise exception.FileReplicaAlreadyExists(f"{new_pfn} is there already")
        if reply.status_code != requests.codes.created:
            raise exception.ServiceUnavailable(f"MOVE to {new_pfn}: {reply.status_code} {reply.reason}")

    def stat(self, path: str) -> dict[str, Any]:
        """Size and adler32: the server's own, else of what it gives back when it is read."""
        url, headers = self.path2pfn(path), {"Want-Digest": "adler32", "Accept-Encoding": "identity"}
        reply = self.session.request("HEAD", url, headers=headers, timeout=self.timeout, cert=self.cert)
        if reply.status_code != requests.codes.ok or "content-length" not in reply.headers:
            raise exception.ServiceUnavailable(f"HEAD {url}: {reply.status_code} {reply.reason}, or without a length")
        digest = _DIGEST.search(reply.headers.get("digest", ""))
        adler32 = digest[1].lower().rjust(8, "0") if digest else self._read_back(url)
        return {"filesize": int(reply.headers["content-length"]), "adler32": adler32}

    def _read_back(self, url: str) -> str:
        adler = 1
        options: dict[str, Any] = {"stream": True, "timeout": self.timeout, "cert": self.cert}
        with self.session.request("GET", url, headers={"Accept-Encoding": "identity"}, **options) as reply:
            reply.raise_for_status()
            for chunk in reply.iter_content(CHUNK):
                adler = zlib.adler32(chunk, adler)
        return f"{adler:08x}"

    def _make_folders(self, folder: str) -> None:
        if folder.count("/") <= 2 or self.exists(folder):  # the server itself is there: `connect` has asked it
            return
        self._make_folders(folder.rpartition("/")[0])
        self.mkdir(folder)


def _authorities() -> str | bool:
    """Whom to trust: X509_CERT_DIR or the grid's folder of authorities where there is one, else as the system does."""
    named = os.environ.get("X509_CERT_DIR") or AUTHORITIES
    return named if Path(named).is_dir() else True
