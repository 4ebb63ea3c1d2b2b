"""Am I the one? A queue that belongs to one connection alone: who has it is the active scheduler.

What is published goes over that same connection, so who loses the lease cannot publish. Nothing is unsafe without it:
a second scheduler's cycles have the same names.
"""

from __future__ import annotations

import logging
from typing import Literal

import pika
from pika.adapters.select_connection import SelectConnection
from pika.channel import Channel

from common.broker.connection import Connection
from common.broker.topology import SCHEDULER
from common.errors import BrokerError
from common.settings.model import Main

log = logging.getLogger("phedex_rucio.broker")

AGAIN = 1.0  # seconds between two tries
State = Literal["asking", "standby", "held", "lost"]


class Lease:
    """Tried each second until it is held. `state` is `lost` for good once its connection is: make a new one."""

    def __init__(self, main: Main, name: str) -> None:
        self.state: State = "asking"
        self.connection = Connection(main, name)
        self.connection.attach(self)

    def close(self) -> None:
        """The lease is given back."""
        self.connection.close()

    # What happens on the I/O thread

    def opened(self, connection: SelectConnection) -> None:
        """A fresh connection has no lease yet."""
        connection.channel(on_open_callback=self._channel_open)

    def closed(self, _reason: BrokerError) -> None:
        """A lease that was held went with its connection, which must not come back without it."""
        if self.state == "held":
            self.state = "lost"
            self.connection.end()

    def _channel_open(self, channel: Channel) -> None:
        channel.add_on_close_callback(self._refused)
        channel.queue_declare(SCHEDULER, exclusive=True, callback=self._declared)

    def _declared(self, _frame: pika.frame.Method) -> None:
        self.state = "held"

    def _refused(self, channel: Channel, reason: Exception) -> None:
        """Somebody else has it (405), or it is being released."""
        if self.state in ("held", "lost") or not channel.connection.is_open:
            return
        if getattr(reason, "reply_code", 0) != 405 and self.state != "standby":
            log.warning("the broker does not give us the lease: %s", reason, extra={"queue": SCHEDULER})
        self.state = "standby"
        self.connection.later(AGAIN, lambda: self._again(channel.connection))

    def _again(self, connection: SelectConnection) -> None:
        if connection.is_open and self.state == "standby":
            connection.channel(on_open_callback=self._channel_open)
