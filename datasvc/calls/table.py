"""Which calls are there?"""

from __future__ import annotations

from datasvc.calls import (
    agentlogs,
    blockreplicas,
    bounce,
    data,
    deletions,
    filereplicas,
    links,
    nodes,
    subscriptions,
    tfc,
)
from datasvc.calls.call import Call

CALLS: dict[str, Call] = {
    "agentlogs": agentlogs.AGENTLOGS,
    "blockreplicas": blockreplicas.BLOCKREPLICAS,
    "blockreplicasummary": blockreplicas.SUMMARY,
    "bounce": bounce.BOUNCE,
    "data": data.DATA,
    "deletions": deletions.DELETIONS,
    "filereplicas": filereplicas.FILEREPLICAS,
    "groups": nodes.GROUPS,
    "lfn2pfn": tfc.LFN2PFN,
    "links": links.LINKS,
    "nodes": nodes.NODES,
    "senames": nodes.SENAMES,
    "subscriptions": subscriptions.SUBSCRIPTIONS,
    "tfc": tfc.TFC,
}

# Calls that change PhEDEx: POST only and with a certificate, which this service never accepts.
WRITING = frozenset({"inject", "subscribe", "delete", "updaterequest", "updatesubscription", "approve"})
