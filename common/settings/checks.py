"""Which settings have the right type and are wrong all the same?"""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from common import names
from common.errors import UsageError
from common.settings import entries, original
from common.settings.model import Main, Run, Settings, Site
from common.settings.run import parse
from common.settings.urls import insecure
from common.sync.selection import compiled


def mistakes_of(settings: Settings) -> list[str]:
    """What is wrong, each with the path of its key: URLs, regular expressions, names, and unencrypted roads."""
    found = list(_of_main(settings.main))
    found += _of_site("default", settings.default)
    for node, site in settings.sites.items():
        found += (m for m in _of_site(node, site) if m.replace(f"{node}.", "default.", 1) not in found)
    found += _of_rses(settings)
    return found + entries.doubled(settings.datasets, settings.schedule, list(settings.sites))


def _of_rses(settings: Settings) -> Iterator[str]:
    """Two nodes at one RSE would sweep each other's blocks."""
    owners = {node: node for node, site in settings.sites.items() if site.rse in ("", node)}
    for node, site in settings.sites.items():
        other = owners.setdefault(site.rse or node, node)
        if other != node:
            yield f"{node}.rse: {site.rse} is the RSE of {other} too: each would sweep the other's blocks; correct one"


def _of_main(main: Main) -> Iterator[str]:
    for url in main.amqp_url.split(","):
        yield from _of_url("main.amqp_url", url.strip(), ("amqp", "amqps"), main.allow_insecure)
    yield from _of_url("main.phedex_url", main.phedex_url, ("http", "https"), main.allow_insecure)
    if not main.wait_delays:
        yield "main.wait_delays: empty; a failed command needs at least one pause before the next try"
    yield from _of_run("main.run", main.run)
    if original.level_of(main.verbosity) is None:
        yield f"main.verbosity: {main.verbosity!r} is no level; known are {', '.join(original.KNOWN_LEVELS)}"
    if main.probe_pause > main.probe_pause_max:
        yield f"main.probe_pause: {main.probe_pause} s is more than main.probe_pause_max, {main.probe_pause_max} s"


def _of_run(key: str, value: Run) -> Iterator[str]:
    try:
        parse(value)
    except ValueError as error:
        yield f"{key}: {error}"


def _of_url(key: str, url: str, schemes: tuple[str, ...], allow_insecure: bool) -> Iterator[str]:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:  # its text may show a part of the password
        yield f"{key}: no URL: host or port cannot be read; a / : or @ in a password must be percent-encoded"
        return
    if parts.scheme not in schemes or not host:
        yield f"{key}: no URL that begins with {' or '.join(f'{scheme}://' for scheme in schemes)} and names a host"
    elif insecure(url) and not allow_insecure:
        yield (
            f"{key}: {parts.scheme}://{host} is not encrypted and not on this machine: "
            f"use {schemes[1]}://, or set main.allow_insecure: true"
        )


def _of_site(section: str, site: Site) -> Iterator[str]:
    yield from _of_run(f"{section}.run", site.run)
    if 0 < site.every < 1:
        yield f"{section}.every: {site.every:g} s; at least 1, or 0 for a site that the scheduler leaves alone"
    for key in ("select", "ignore"):
        try:
            compiled(getattr(site, key), f"{section}.{key}")
        except UsageError as error:
            yield str(error)
    if site.inventory_node and not names.is_node(site.inventory_node):
        yield f"{section}.inventory_node: {site.inventory_node!r} is no node name such as T1_US_FNAL_MSS"
