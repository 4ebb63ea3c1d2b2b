"""What is in a new Rucio before anybody uses it? Run by the server's own Python, with its RUCIO_CONFIG set."""

import os

from rucio.common.types import InternalAccount, InternalScope
from rucio.core.account import add_account, add_account_attribute
from rucio.core.identity import add_account_identity, add_identity
from rucio.core.scope import add_scope
from rucio.db.sqla.constants import AccountType, DatabaseOperationType, IdentityType
from rucio.db.sqla.session import db_session
from rucio.db.sqla.util import build_database, create_base_vo, create_root_account


def main() -> None:
    """The schema, the accounts `root` and the service account (attribute admin), and the scope `cms` exist."""
    build_database()
    create_base_vo()
    create_root_account()
    with db_session(DatabaseOperationType.WRITE) as session:
        service = InternalAccount(os.environ["STACK_SERVICE_ACCOUNT"])
        add_account(service, AccountType.SERVICE, "sync@example.org", session=session)
        add_account_attribute(service, "admin", True, session=session)
        add_identity(
            service.external, IdentityType.USERPASS, "sync@example.org", os.environ["STACK_PASSWORD"], session=session
        )
        add_account_identity(
            service.external, IdentityType.USERPASS, service, "sync@example.org", default=True, session=session
        )
        add_scope(InternalScope("cms"), InternalAccount("root"), session=session)


if __name__ == "__main__":
    main()
