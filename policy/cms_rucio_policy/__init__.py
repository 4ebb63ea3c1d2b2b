"""The CMS policy package for a Rucio server: names, permissions, and the paths of files at the sites."""

from collections.abc import Callable, Mapping
from typing import Any

# Rucio refuses a policy package that does not name its own version (`check_policy_module_version`).
SUPPORTED_VERSION = [">=41"]

PathAlgorithm = Callable[[str, str, str, Mapping[str, Any], Mapping[str, Any]], str]


def get_algorithms() -> dict[str, dict[str, PathAlgorithm]]:
    """The algorithms this package adds to Rucio, by kind and name: `cmstfc`, the path of a file at a site."""
    return {"lfn2pfn": {"cmstfc": _cmstfc}}


def _cmstfc(scope: str, name: str, rse: str, rse_attrs: Mapping[str, Any], proto_attrs: Mapping[str, Any]) -> str:
    """Rucio passes over a package whose import fails: so RE2, if it is missing, is missed here, by its name.

    Raises RSEFileNameNotSupported; of an error that is not Rucio's own the server would lose the text.
    """
    del scope  # all of CMS is in one
    from rucio.common.exception import RSEFileNameNotSupported  # noqa: PLC0415

    from cms_rucio_policy.lfn2pfn import path_of  # noqa: PLC0415
    from cms_rucio_policy.tfc import TfcError  # noqa: PLC0415

    try:
        return path_of(name, rse, rse_attrs, proto_attrs)
    except TfcError as error:
        raise RSEFileNameNotSupported(str(error)) from None
