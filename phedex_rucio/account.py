"""How does a person have the accounts made that own the sync's rules?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from common.errors import UsageError
from common.messages.setup import Account
from common.rucio.rses import real_rses
from common.settings.load import Loaded
from common.sync.selection import whole
from phedex_rucio import deliver, wiring
from phedex_rucio.delivery import with_delivery
from phedex_rucio.roots import rooted


@click.group("account")
def command() -> None:
    """Make the accounts that own the sync's rules, one an RSE."""


@command.command("update")
@click.option("--rse", "rses", multiple=True, metavar="NAME", help="The account of this RSE (repeatable); else of all.")
@click.option("--rsefilter", default="", metavar="RE", help="Of all real RSEs whose whole name matches (RE2).")
@click.option("--identity", default="", metavar="ID", help="Who may log in as it; else those of --from-account.")
@click.option(
    "--type", default="X509", show_default=True, type=click.Choice(["X509", "USERPASS", "GSS", "SSH", "OIDC", "SAML"])
)
@click.option("--from-account", default="", metavar="ACCOUNT", help="Whose identities; else those of the worker's own.")
@click.option("--admin", is_flag=True, help="With the attribute admin; the sync does not need it.")
@with_delivery
def update(*, rses: Sequence[str], rsefilter: str, how: deliver.How, dry: bool, loaded: Loaded, **fields: Any) -> int:
    """Make or complete the account `sync_<rse>` of RSEs: identity, and no limit to what it may own there."""
    found = list(dict.fromkeys(rses)) if rses else _rses(rsefilter, loaded)
    if rses and rsefilter:
        raise UsageError("--rsefilter: chooses among all RSEs, --rse names some: give one of them")
    return deliver.deliver([rooted(Account(rse=rse, dry=dry, **fields)) for rse in found], how, loaded.settings)


def _rses(rsefilter: str, loaded: Loaded) -> list[str]:
    wanted = whole(rsefilter, "--rsefilter") if rsefilter else lambda _: True
    found = [rse for rse in real_rses(wiring.Doors(loaded.settings).rucio) if wanted(rse)]
    if not found:
        raise UsageError("--rsefilter: matches no RSE with the attribute cms_type=real")
    return found
