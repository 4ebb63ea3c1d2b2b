"""What does each error of Rucio's client mean for us? One table over its classes and those of its transport."""

from __future__ import annotations

import re

import requests
import urllib3
from rucio.common import exception as rucio

from common.errors import FileConflict, NotAuthenticated, NotFound, RucioConflict, RucioError, RucioRefused
from common.telemetry.redact import redact

MESSAGE_LENGTH = 400

_REFUSED = (
    "AccessDenied RSEAccessDenied ScopeAccessDenied SourceAccessDenied CannotAuthorize ManualRuleApprovalBlocked "
    "InputValidationError InvalidMetadata InvalidObject InvalidReplicationRule InvalidRSEExpression InvalidRuleWeight "
    "InvalidType InvalidValueForKey InvalidRequest InvalidPath InvalidAccountType InvalidSourceReplicaExpression "
    "InvalidAlgorithmName NameTypeError InsufficientAccountLimit InsufficientTargetRSEs "
    "MetadataSchemaMismatchError DIDError DIDFilterSyntaxError DuplicateCriteriaInDIDFilter "
    "RSEFileNameNotSupported RSEOperationNotSupported RSEProtocolDomainNotSupported RSEProtocolNotSupported "
    "RSEProtocolPriorityError RSEWriteBlocked ScratchDiskLifetimeConflict SortingAlgorithmNotSupported "
    "StagingAreaRuleRequiresLifetime SubscriptionWrongParameter UnsupportedAccountName UnsupportedDIDType "
    "UnsupportedKeyType UnsupportedMetadataPlugin UnsupportedOperation UnsupportedRequestedContentType "
    "UnsupportedStatus UnsupportedValueType UndefinedPolicy InvalidPolicyPackageAlgorithmType "
    "OpenDataInvalidState OpenDataInvalidStateUpdate"
)
_CONFLICT = (
    "DataIdentifierAlreadyExists Duplicate DuplicateContent DuplicateRule DuplicateFileTransferSubmission "
    "FileAlreadyExists FileReplicaAlreadyExists LifetimeExceptionDuplicate ReplicaIsLocked RuleReplaceFailed "
    "SubscriptionDuplicate OpenDataDataIdentifierAlreadyExists OpenDataDuplicateDOI OpenDataDuplicateRecordID"
)
_NOT_FOUND = (
    "AccountNotFound CounterNotFound KeyNotFound DataIdentifierNotFound IdentityNotFound LifetimeExceptionNotFound "
    "OpenDataDataIdentifierNotFound ReplicaNotFound RequestNotFound RSEAttributeNotFound RSENotFound RuleNotFound "
    "ScopeNotFound SubscriptionNotFound VONotFound"
)
# What the client raises by itself where its configuration or credentials are wrong. A policy package is the
# server's matter, except that the client needs it too when it runs in the server's environment.
_CREDENTIALS = (
    "CannotAuthenticate ClientParameterMismatch ClientProtocolNotFound ClientProtocolNotSupported ConfigLoadingError "
    "ConfigNotFound ErrorLoadingCredentials IdentityError MissingClientParameter MissingModuleException "
    "NoAuthInformation"
)
_NOT_LET_IN = ("CannotAuthenticate", "IdentityError")

TABLE: dict[str, type[RucioError]] = {
    "FileConsistencyMismatch": FileConflict,
    **dict.fromkeys(_REFUSED.split(), RucioRefused),
    **dict.fromkeys(_CONFLICT.split(), RucioConflict),
    **dict.fromkeys(_NOT_FOUND.split(), NotFound),
    **dict.fromkeys(_CREDENTIALS.split(), NotAuthenticated),
}

TRANSPORT = (requests.RequestException, urllib3.exceptions.HTTPError, OSError)
OURS = (rucio.RucioException, *TRANSPORT)

# A database's "no": the loser of a race gets 500 with one of these in its text, and a repeat is fine (seen on 41.5.1).
_RACE = re.compile(r"UniqueViolation|UNIQUE constraint|duplicate key|deadlock", re.IGNORECASE)
_STATUS = re.compile(r"http status code: (\d+)\)")
_MISMATCH = re.compile(r"(bytes|adler32|md5) mismatch for '\w+:([^']+)': ?(\S+?)!=(\S+)")
_ABOUT_ALL = (
    "AccessDenied ScopeAccessDenied RSEAccessDenied CannotAuthorize RSENotFound AccountNotFound ScopeNotFound "
    "InsufficientAccountLimit InvalidRSEExpression InsufficientTargetRSEs RSEWriteBlocked ServerConnectionException "
    "ServiceUnavailable ResourceTemporaryUnavailable ReplicationRuleCreationTemporaryFailed"
)


def translated(error: Exception, what: str) -> RucioError:
    """Our error for one of `OURS`; its text says which call about what, and what Rucio said (cut: it may hold a list).

    What the table does not name is RucioError: whether Rucio is away is asked next.
    """
    name = type(error).__name__
    text = " ".join(str(error).split()) or "no message"
    text = text if len(text) <= MESSAGE_LENGTH else f"{text[:MESSAGE_LENGTH]} … ({len(text)} characters)"
    kind = _class_of(error)
    said = "Rucio refuses our credentials" if name in _NOT_LET_IN else "Rucio"
    return kind(redact(f"{said}: {what}: {name}: {text}"))


def _class_of(error: Exception) -> type[RucioError]:
    known = next((TABLE[c.__name__] for c in type(error).__mro__ if c.__name__ in TABLE), RucioError)
    return RucioConflict if known is RucioError and is_race(error) else known


def is_race(error: BaseException | None) -> bool:
    """True for a server error that only says that another client was in the way at that moment."""
    return isinstance(error, rucio.RucioException) and _RACE.search(str(error)) is not None


def is_about_all(error: RucioError) -> bool:
    """True where a smaller request would meet the same: no answer, credentials, permission, quota, RSE or account."""
    cause = error.__cause__
    if cause is None or isinstance(error, NotAuthenticated) or isinstance(cause, TRANSPORT):
        return True
    status = _STATUS.search(str(cause))
    if status is not None:
        return status[1] != "413"
    return type(cause).__name__ in _ABOUT_ALL.split()


def is_unanswered(error: RucioError) -> bool:
    """True where the request may have been carried out or not: no answer came, or only one of something in between."""
    cause = error.__cause__
    if cause is None or isinstance(cause, TRANSPORT):
        return True
    return _STATUS.search(str(cause)) is not None


def mismatch(error: FileConflict) -> tuple[str, str]:
    """The file that a FileConflict is about, and the difference as `bytes 5, in Rucio 7`; ("", "") if it says none."""
    found = _MISMATCH.search(str(error.__cause__ or error))
    return (found[2], f"{found[1]} {found[3]}, in Rucio {found[4]}") if found else ("", "")
