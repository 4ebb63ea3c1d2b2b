"""The CMS policy package for a Rucio server: names, permissions and (later) the paths of files at the sites."""

from collections.abc import Callable
from typing import Any

# Rucio refuses a policy package that does not name its own version (`check_policy_module_version`).
SUPPORTED_VERSION = [">=41"]

PathAlgorithm = Callable[[str, str, str, dict[str, Any], dict[str, Any]], str]


def get_algorithms() -> dict[str, dict[str, PathAlgorithm]]:
    """The algorithms this package adds to Rucio, by kind and name: none yet.

    `lfn2pfn`, the path of a file at a site, comes with the trivial file catalogues. Until then an RSE must use
    one that Rucio ships (`identity`, `hash`), or be non-deterministic.
    """
    return {}
