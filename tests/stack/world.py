"""What does a test or the demo find in Rucio to begin with? Sites, ready to hold replicas and rules."""

from contextlib import suppress

from rucio.client import Client
from rucio.common.exception import Duplicate

PROTOCOL = {
    "scheme": "root",
    "hostname": "storage.example.org",
    "port": 1094,
    "prefix": "/cms",
    "impl": "rucio.rse.protocols.xrootd.Default",
    "domains": {
        "lan": {"read": 1, "write": 1, "delete": 1},
        "wan": {"read": 1, "write": 1, "delete": 1, "third_party_copy_read": 1, "third_party_copy_write": 1},
    },
}


def make_site(client: Client, node: str, rse: str | None = None, kind: str = "DISK", cms_type: str = "real") -> str:
    """The RSE of a node with its sync account, as the sync expects to find them; the RSE's name.

    `rse` is the node's name unless given. The RSE is deterministic (`identity`), carries `pnn`, `cms_type` and its
    own name as attributes, and a protocol. The account has no limit there. Nothing happens if it is all there.
    """
    rse = rse or node
    with suppress(Duplicate):
        client.add_rse(rse, deterministic=True, rse_type=kind)
        client.add_protocol(rse, PROTOCOL)
    attributes = {"pnn": node, "cms_type": cms_type, rse: "True", "lfn2pfn_algorithm": "identity"}
    for key, value in attributes.items():
        client.add_rse_attribute(rse, key, value)
    make_account(client, sync_account(rse), rse)
    return rse


def make_account(client: Client, account: str, rse: str) -> None:
    """The account exists and may have any number of bytes at the RSE."""
    with suppress(Duplicate):
        client.add_account(account, "USER", "sync@example.org")
    client.set_local_account_limit(account, rse, -1)


def sync_account(rse: str) -> str:
    """The account that owns the sync's rules at an RSE."""
    return f"sync_{rse.lower()}"
