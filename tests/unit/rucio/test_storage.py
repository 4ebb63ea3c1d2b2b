"""Which protocol of an RSE is used, and which PFNs are places? No server is asked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rucio.common import config

from common.errors import UsageError
from common.rucio import storage, webdav


@pytest.fixture(autouse=True)
def _configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Rucio's protocols look into rucio.cfg when they are imported."""
    (tmp_path / "rucio.cfg").write_text("[client]\nrucio_host = http://127.0.0.1:9\n")
    monkeypatch.setenv("RUCIO_CONFIG", str(tmp_path / "rucio.cfg"))
    config.clean_cached_config()
    yield
    config.clean_cached_config()


def protocol(scheme: str, write: int | None, impl: str = "rucio.rse.protocols.posix.Default") -> dict[str, Any]:
    return {"scheme": scheme, "impl": impl, "domains": {"wan": {"read": 1, "write": write}}}


def chosen(protocols: list[dict[str, Any]], scheme: str = "") -> dict[str, Any]:
    found: dict[str, Any] = storage._usable(storage._writing({"protocols": protocols}, scheme), "T2_X", scheme)
    return found


GFAL = "rucio.rse.protocols.gfal.Default"
WEBDAV = "rucio.rse.protocols.webdav.Default"


def test_the_first_choice_that_works_here_is_used() -> None:
    assert chosen([protocol("a", 2), protocol("b", 1), protocol("c", 0), protocol("d", None)])["scheme"] == "b"
    assert chosen([protocol("srm", 1, GFAL), protocol("file", 2)])["scheme"] == "file"
    assert chosen([protocol("a", 1), protocol("davs", 2, WEBDAV)], "davs")["impl"] == webdav.IMPLEMENTATION


@pytest.mark.parametrize(
    ("protocols", "scheme", "says"),
    [
        ([], "", "T2_X: has no protocol to write by"),
        ([protocol("file", 0)], "", "has no protocol to write by"),
        ([protocol("file", 1)], "srm", "has no protocol srm to write by"),
        ([protocol("srm", 1, GFAL)], "", "T2_X: srm needs gfal2, which is not installed here"),
        ([protocol("s3", 1, "os.system")], "", "s3 needs the implementation os.system"),
        ([protocol("globus", 1, "rucio.rse.protocols.globus.GlobusRSEProtocol")], "", "globus needs rucio.core"),
        ([protocol("new", 1, "rucio.rse.protocols.new.Default")], "", "new needs rucio.rse.protocols.new"),
    ],
)
def test_what_is_missing_is_named(protocols: list[dict[str, Any]], scheme: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        chosen(protocols, scheme)


PLACES = [
    "file://localhost/store/temp/a",
    "davs://se.example.org:2880/store/temp/a..b/c",
    "srm://se.example.org:8443/srm/managerv2?SFN=/pnfs/cms/store/temp/a",
    "http://127.0.0.1:80/store/a",
    "https://se.example.org/store/%41",
]
NO_PLACES = [
    "",
    "/store/a",
    "file://localhost/rse/../etc/passwd",
    "file://localhost/rse/..",
    "file://localhost/rse/%2e%2e/etc/passwd",
    "file://localhost/rse/%2E./etc/passwd",
    "srm://se:8443/srm/managerv2?SFN=../x",
    "https://se.example.org/a\r\nX-Y: z",
    "https://se.example.org/a%0d%0aX-Y: z",
    "https://se.example.org/a\0",
    "http://se.example.org/store/a",
]


def test_a_pfn_is_a_place_below_and_not_sent_in_clear() -> None:
    for pfn in PLACES:
        storage._check_pfn(pfn, insecure_too=False)
    for pfn in NO_PLACES:
        with pytest.raises(UsageError, match="pfn") as caught:
            storage._check_pfn(pfn, insecure_too=False)
        assert str(caught.value).isprintable()
    storage._check_pfn("http://se.example.org/store/a", insecure_too=True)
