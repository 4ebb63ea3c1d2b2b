"""Who may do what? Rucio's generic permissions, plus what the sync's service account needs."""

from typing import TYPE_CHECKING, Any

from rucio.core.account import has_account_attribute
from rucio.core.permission import generic

if TYPE_CHECKING:
    from rucio.common.types import InternalAccount
    from sqlalchemy.orm import Session

# Generic denies `delete_replicas` to everyone, root included, and lets only root add an account and read all distances
# at once. The sync deletes the replicas that PhEDEx has no more, and makes one account a site; distances are compared.
ADMIN_ACTIONS = frozenset({"add_account", "delete_replicas", "export"})


def has_permission(
    issuer: "InternalAccount", action: str, kwargs: dict[str, Any], *, session: "Session | None" = None
) -> Any:
    """True if the account may do it: root and accounts with the attribute `admin` may do what `ADMIN_ACTIONS` names.

    Every other action is decided by `rucio.core.permission.generic`.
    """
    if action in ADMIN_ACTIONS:
        return issuer.external == "root" or has_account_attribute(account=issuer, key="admin", session=session)
    return generic.has_permission(issuer, action, kwargs, session=session)
