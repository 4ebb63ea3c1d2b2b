"""Which errors are there, and what does each mean for the command that met it?"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar


class Verdict(StrEnum):
    """What an error means for the command: die at once, try again later, or ask first whether a system is away."""

    DIE = "die"
    RETRY = "retry"
    ASK = "ask"


class System(StrEnum):
    """The systems that a worker needs."""

    PHEDEX = "phedex"
    RUCIO = "rucio"
    BROKER = "broker"


class PhedexRucioError(Exception):
    """Something went wrong and the message says what, with which object, and what to do next."""

    verdict: ClassVar[Verdict] = Verdict.RETRY
    system: ClassVar[System | None] = None


class InvalidMessage(PhedexRucioError):
    """A message is not what its kind wants: the text names the field."""

    verdict = Verdict.DIE


class NewerVersion(PhedexRucioError):
    """A message was written by a newer program: a rolling deploy ends, so it is tried again later."""


class UsageError(PhedexRucioError):
    """What was asked for cannot be: an option, a setting or a name is wrong."""

    verdict = Verdict.DIE


class UnknownNode(PhedexRucioError):
    """PhEDEx does not know the node."""

    verdict = Verdict.DIE


class NotOurs(PhedexRucioError):
    """The sync has nothing to do at a node: it has no RSE, is frozen, or is switched off. Not a failure."""

    verdict = Verdict.DIE


class DeadlineExceeded(PhedexRucioError):
    """A handler reached its time limit without one finished piece of work."""


class KilledWorker(PhedexRucioError):
    """Every worker that took the command died of it, the last one with nothing else in hand."""

    verdict = Verdict.DIE


class PhedexError(PhedexRucioError):
    """The PhEDEx data service did not answer as it should."""

    verdict = Verdict.ASK
    system = System.PHEDEX


class PhedexUnreachable(PhedexError):
    """No answer from the PhEDEx data service: refused, cut, or slower than the time limit."""


class PhedexStatus(PhedexError):
    """The PhEDEx data service answered another status than 200."""


class PhedexBadRequest(PhedexError):
    """PhEDEx refused the question itself (400, 404): the option or name in the text is wrong."""

    verdict = Verdict.DIE


class Untrusted(PhedexError):
    """A PhEDEx reply is not whole, not fresh, or not about what was asked: nothing is concluded from it."""


class RucioError(PhedexRucioError):
    """Rucio did not do what it was asked; whether it is away is asked next."""

    verdict = Verdict.ASK
    system = System.RUCIO


class RucioRefused(RucioError):
    """Rucio refuses this command for good: a permission, a limit or a name."""

    verdict = Verdict.DIE


class RucioConflict(RucioError):
    """Somebody else was faster, or what exists differs: read again and repeat."""

    verdict = Verdict.RETRY


class FileConflict(RucioConflict):
    """Rucio has a file with another size or checksum than PhEDEx; the text names the file."""


class NotFound(RucioConflict):
    """Rucio does not have what the call needs."""


class NotAuthenticated(RucioError):
    """Rucio does not accept the credentials: look at RUCIO_ACCOUNT, the auth type and rucio.cfg."""


class BadRucioConfiguration(NotAuthenticated):
    """Rucio's client cannot begin: rucio.cfg or a RUCIO_* variable is missing or wrong. The text names the file."""


class BrokerError(PhedexRucioError):
    """The broker did not take or bring a message."""

    verdict = Verdict.ASK
    system = System.BROKER


class BrokerAway(BrokerError):
    """No connection to RabbitMQ: it is down, unreachable, or refuses this user or vhost."""


class BrokerRefused(BrokerAway):
    """RabbitMQ is there and does not let this user into this vhost: waiting does not help, the settings are wrong."""


class BrokerBlocked(BrokerError):
    """RabbitMQ holds publishers back (memory or disk alarm) or confirms too slowly; the message may be stored."""


class Unroutable(BrokerError):
    """No queue takes the message: the topology is not declared, or the kind has no queue."""


class PublishRefused(BrokerError):
    """The broker refused the message: the queue is full or could not store it."""
