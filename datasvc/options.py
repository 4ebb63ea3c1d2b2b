"""Which options does a call take, and is this query allowed?"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import unquote_plus

import msgspec

from datasvc import times
from datasvc.refusal import Refusal

# The service's own checks (PHEDEX::Web::Util). The oddities are its own: a lone `*` is no node, a host has no hyphen.
_CHECKS = {
    "node": re.compile(r"!?T\d?[A-Za-z0-9_*%?]+|\d+"),
    "dataset": re.compile(r"!?(/[^/#<>]+){3}"),
    "block": re.compile(r"!?(/[^/#<>]+){3}#[^/#<>]+|[*%]"),
    "lfn": re.compile(r"/[A-Za-z\-_\d#./*%?]*"),
    "yesno": re.compile(r"[yn]"),
    "protocol": re.compile(r"[A-Za-z][A-Za-z0-9]*"),
    "hostname": re.compile(r"[A-Za-z0-9.]+"),
    "number": re.compile(r"\d+"),
    "float": re.compile(r"\d+(\.\d+)?"),
    "priority": re.compile(r"high|normal|low|reserved"),
    "level": re.compile(r"block|file"),
    "status": re.compile(r"ok|deactivated|to_excluded|from_excluded|to_down|from_down"),
    "kind": re.compile(r"WAN|Local|Staging|Migration"),
    "text": re.compile(r"[^\x00-\x1f]+"),
}


class Option(msgspec.Struct, frozen=True):
    """How one option is checked; `time` is checked by its form."""

    check: str
    many: bool = False


class Spec(msgspec.Struct, frozen=True):
    """The options of a call. `place` is the name that its error texts have."""

    place: str
    options: dict[str, Option]
    required: tuple[str, ...] = ()
    one_of: tuple[str, ...] = ()
    open: bool = False  # any option at all


class Query(msgspec.Struct, frozen=True):
    """A query that passed its check: values by option, and when it was asked (epoch seconds)."""

    values: dict[str, list[str]]
    ops: dict[str, str]
    now: float

    def all(self, name: str) -> list[str]:
        """The option's values, none if it was not given."""
        return self.values.get(name, [])

    def one(self, name: str) -> str | None:
        """The value of a single-valued option."""
        return next(iter(self.all(name)), None)

    def since(self, name: str) -> int | None:
        """The epoch second that a `*_since` option means."""
        text = self.one(name)
        return None if text is None else times.moment(text, self.now)


def pairs(text: str) -> list[tuple[str, str]]:
    """Name and value of each option of a query string or form, in order; `&` and `;` part them."""
    split = [part.partition("=") for part in re.split("[&;]", text) if part]
    return [(unquote_plus(name).lower(), unquote_plus(value)) for name, _, value in split]


def checked(spec: Spec, given: list[tuple[str, str]], now: float) -> Query:
    """The query, or a Refusal (400) in the service's words. An option without a value is as if not given."""
    values: dict[str, list[str]] = {}
    for name, value in given:
        if value != "":
            values.setdefault(name, []).append(value)
    values.pop("nocache", None)
    ops = dict(_op(text) for text in values.pop("op", []))
    _refuse_unknown(spec, values)
    _refuse_missing(spec, values)
    for name, texts in values.items():
        _check(spec, name, texts, now)
    return Query(values, ops, now)


def _op(text: str) -> tuple[str, str]:
    name, _, op = text.rpartition(":")
    if op.lower() not in {"and", "or"}:
        raise Refusal(400, f"invalid operator '{text}': NAME:and or NAME:or")
    return name.lower(), op.lower()


def _refuse_unknown(spec: Spec, values: Mapping[str, list[str]]) -> None:
    unknown = [name for name in values if name not in spec.options]
    if not unknown or spec.open:
        return
    was = "parameter was" if len(unknown) == 1 else "parameters were"
    raise Refusal(
        400,
        f"The following {was} passed in the call to {spec.place} but was not listed in the validation options: "
        + " ".join(unknown),
    )


def _refuse_missing(spec: Spec, values: Mapping[str, list[str]]) -> None:
    missing = [name for name in spec.required if name not in values]
    if missing:
        noun = "parameter" if len(missing) == 1 else "parameters"
        listed = ", ".join(f"'{name}'" for name in missing)
        raise Refusal(400, f"Mandatory {noun} {listed} missing in call to {spec.place}")
    if spec.one_of and not set(spec.one_of) & set(values):
        raise Refusal(400, f"invalid parameters: one of ({', '.join(spec.one_of)}) are required")


def _check(spec: Spec, name: str, texts: list[str], now: float) -> None:
    option = spec.options.get(name)
    if option is None:
        return
    if len(texts) > 1 and not option.many:
        raise Refusal(
            400,
            f"The '{name}' parameter (\"ARRAY\") to {spec.place} was an 'arrayref', "
            "which is not one of the allowed types: scalar",
        )
    for text in texts:
        if not _passes(option.check, text, now):
            raise Refusal(
                400, f"The '{name}' parameter (\"{text}\") to {spec.place} did not pass the '{name}' callback"
            )


def _passes(check: str, text: str, now: float) -> bool:
    if check == "time":
        return times.moment(text, now) is not None
    return check == "any" or _CHECKS[check].fullmatch(text) is not None
