"""Whose do our rules at a site become when Rucio takes over? Targets as typed, and who gets what. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from msgspec import Struct

from common.errors import UsageError
from common.names import ACCOUNT_LENGTH, SYNC_ACCOUNT
from common.sync.words import count

ANY = "*"
_account = re.compile(rf"[a-z0-9_-]{{1,{ACCOUNT_LENGTH}}}")  # what Rucio takes for an account's name


class Held(Struct, frozen=True, gc=False):
    """One of our rules, as much of it as a change of owner needs. `cycle`: that marked it for removal, or ""."""

    id: str
    name: str
    files: int
    group: str
    account: str
    cycle: str = ""
    marked: bool = False
    ending: bool = False


class Targets(Struct, frozen=True):
    """The new owner of each group's rules, and of all others'; `other` is "" where these stay."""

    groups: Mapping[str, str]
    other: str = ""

    def owner_of(self, group: str) -> str:
        """Whose rules of this group become, "" for nobody's."""
        return self.groups.get(group, self.other)

    @property
    def accounts(self) -> list[str]:
        """All new owners, by name."""
        return sorted({*self.groups.values(), self.other} - {""})


@dataclass
class Shares:
    """The rules by new owner; those whose group has none by group; and those that Rucio's cleaner will take anyway."""

    moves: dict[str, list[Held]] = field(default_factory=dict)
    stay: dict[str, list[Held]] = field(default_factory=dict)
    ending: list[Held] = field(default_factory=list)


def parse_targets(text: str) -> Targets:
    """The targets of `ACCOUNT` or `group=ACCOUNT,group=ACCOUNT,*=ACCOUNT`. Raises UsageError that names the part."""
    groups: dict[str, str] = {}
    for part in text.split(","):
        group, equals, account = (word.strip() for word in part.rpartition("="))
        group = group if equals else ANY
        if not group or not _account.fullmatch(account):
            raise UsageError(f"--to: {part.strip()!r} is neither ACCOUNT nor GROUP=ACCOUNT (a-z 0-9 - _, at most 25)")
        if group in groups:
            raise UsageError(f"--to: {_words(group)} twice: {groups[group]} and {account}")
        groups[group] = account
    other = groups.pop(ANY, "")
    return Targets(groups, other)


def check_owners(targets: Targets, former: Iterable[str]) -> None:
    """No new owner is one whose rules the sync takes for its own. Raises UsageError."""
    for account in targets.accounts:
        if account in former or account.startswith(SYNC_ACCOUNT):
            raise UsageError(f"--to: {account} is an account of the sync: it would take the rules for its own again")


def share_out(rules: Iterable[Held], targets: Targets) -> Shares:
    """Every rule in its place, each list in order of name."""
    shares = Shares()
    for rule in sorted(rules, key=lambda rule: (rule.name, rule.id)):
        owner = targets.owner_of(rule.group)
        if rule.ending:
            shares.ending.append(rule)
        elif owner:
            shares.moves.setdefault(owner, []).append(rule)
        else:
            shares.stay.setdefault(rule.group, []).append(rule)
    return shares


def obstacles(node: str, switch: str, rules: Iterable[Held]) -> list[str]:
    """Why the site cannot be handed over now, each with what to do; nothing where it can."""
    marked = [rule for rule in rules if rule.marked]
    found = []
    if switch != "frozen":
        found.append(f"{node}: its switch says {switch}: phedex-rucio site freeze {node} --reason …")
    if marked:
        cycles = sorted({rule.cycle for rule in marked if rule.cycle})
        names = cycles or sorted(rule.name for rule in marked)
        shown = shlex.join(names[:5]) + (" …" if len(names) > 5 else "")
        found.append(
            f"{node}: {count(len(marked), 'rule')} marked for removal: take that back (phedex-rucio undo {shown} "
            f"--node {node}), or resume the site until they are swept"
        )
    return found


def in_short(accounts: Iterable[str], length: int) -> str:
    """The accounts in one text of at most so many characters; the number of all where they are too many."""
    names = sorted(set(accounts))
    text = ",".join(names)
    while len(text) > length and len(names) > 1:
        names.pop()
        text = ",".join(names) + f",… {len(set(accounts))} accounts"
    return text


def _words(group: str) -> str:
    return "the owner of all else is given" if group == ANY else f"group {group} is given"
