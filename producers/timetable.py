"""What is to be done by the clock? The settings as entries."""

from __future__ import annotations

from datetime import datetime

from common.messages.commands import SyncSite
from common.settings.entries import command_of, key_of
from common.settings.model import Dataset, Scheduled, Settings, Site
from common.settings.run import state
from producers.agenda import Entry


def timetable(settings: Settings, at: datetime, started: datetime) -> list[Entry]:
    """An entry for each node that has a section, and for each entry of `datasets` and `schedule`.

    `at` is the time of day and `started` when the scheduler began: a site whose `run` says so is off.
    """
    found = [_site(node, policy, at, started) for node, policy in settings.sites.items()]
    found += [_listed(entry) for entry in settings.datasets]
    return found + [_listed(entry) for entry in settings.schedule]


def _site(node: str, policy: Site, at: datetime, started: datetime) -> Entry:
    off = "" if policy.every else "`every: 0` in its settings"
    if state(policy.run, at, started) != "on":
        off = f"`run: {policy.run}` in its settings"
    return Entry(node, SyncSite(node=node), policy.every, policy.deep, off)


def _listed(entry: Dataset | Scheduled) -> Entry:
    deep = entry.deep if isinstance(entry, Dataset) else 0
    off = "" if entry.every else "`every: 0` in its settings"
    return Entry(key_of(entry), command_of(entry), entry.every, deep, off)
