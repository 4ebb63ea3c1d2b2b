"""Where does each setting come from? Flag, then environment, then file, then default; every mistake is named."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from common import names
from common.errors import UsageError
from common.settings import entries
from common.settings.checks import mistakes_of
from common.settings.model import Dataset, Main, Scheduled, Settings, Site
from common.settings.original import without_meaning
from common.settings.read_yaml import read_yaml
from common.settings.urls import passwords_in, with_password
from common.telemetry.redact import hide

PREFIX = "PHEDEX_RUCIO_"
CONFIG = PREFIX + "CONFIG"
# Names that other tools use for the same thing; ours with the prefix wins over them.
SHORT = {
    "AMQP_URL": "main.amqp_url",
    "PHEDEX_URL": "main.phedex_url",
    "PHEDEX_INSTANCE": "main.phedex_instance",
}
PASSWORD_FILE = "AMQP_PASSWORD_FILE"  # noqa: S105 - the name of a variable

SECTIONS: dict[str, type[Main] | type[Site]] = {"main": Main, "default": Site}


class BadSettings(UsageError):
    """The settings have mistakes: all of them are listed, each with its key or variable."""


@dataclass(frozen=True)
class Loaded:
    """The settings in force, and for each `section.key` that is not a default where it comes from.

    `path`: of the file, if there is one. `again` reads the same places anew and raises like `load`.
    """

    settings: Settings
    origins: dict[str, str] = field(default_factory=dict)
    path: Path | None = None
    again: Callable[[], Loaded] | None = field(default=None, compare=False)


@dataclass
class _Draft:
    """What was found so far: values and origins by (section, key), and the mistakes."""

    values: dict[str, dict[str, Any]] = field(default_factory=lambda: {"main": {}, "default": {}})
    origins: dict[str, str] = field(default_factory=dict)
    mistakes: list[str] = field(default_factory=list)
    datasets: list[Dataset] = field(default_factory=list)
    schedule: list[Scheduled] = field(default_factory=list)

    def put(self, path: str, value: Any, origin: str, *, strict: bool) -> None:
        """Take one value in force over an earlier one; what does not fit becomes a mistake that names `origin`."""
        section, _, key = path.partition(".")
        wanted = _types(SECTIONS.get(section, Site)).get(key)
        if wanted is None:
            self.mistakes.append(f"{_said(origin, path)}: {_unknown(section, key)}")
            return
        try:
            self.values[section][key] = msgspec.convert(value, wanted, strict=strict)
            self.origins[path] = origin
        except msgspec.ValidationError as error:
            self.mistakes.append(f"{_said(origin, path)}: {error}")


def load(
    path: Path | None = None, environ: Mapping[str, str] | None = None, flags: Mapping[str, Any] | None = None
) -> Loaded:
    """The settings of a file (else the one that PHEDEX_RUCIO_CONFIG names, else none), the environment and flags.

    `flags`: values by path (`main.threads`), None = not given. A site's section inherits `default`, the environment's
    changes to it included. Raises UsageError for a file that is no plain YAML and BadSettings with all mistakes.
    """
    environ = os.environ if environ is None else environ
    named = path or (Path(environ[CONFIG]) if environ.get(CONFIG) else None)
    settings, origins = of_document(None if named is None else read_yaml(named), named, environ, flags)
    return Loaded(settings, origins, named, partial(load, named, environ, flags))


def of_document(
    document: Any, named: Path | None, environ: Mapping[str, str], flags: Mapping[str, Any] | None = None
) -> tuple[Settings, dict[str, str]]:
    """The settings of plain data (of the file `named`), the environment and flags, and their origins.

    Raises BadSettings with all mistakes.
    """
    draft = _Draft()
    _from_file(draft, document)
    _from_environment(draft, environ)
    for key, value in (flags or {}).items():
        if value is not None:
            draft.put(key, value, "flag", strict=True)
    settings = _settings(draft)
    for password in passwords_in([*settings.main.amqp_url.split(","), settings.main.phedex_url]):
        hide(password)
    draft.mistakes += mistakes_of(settings)
    if draft.mistakes:
        raise BadSettings(_listed(named, draft.mistakes))
    return settings, draft.origins


def _from_file(draft: _Draft, document: Any) -> None:
    if document is None:
        return
    if not isinstance(document, dict):
        draft.mistakes.append("the file is not a mapping of sections (main, default, and one a node)")
        return
    for section, content in document.items():
        if section == "datasets":
            draft.datasets = entries.datasets_in(content, draft.mistakes)
        elif section == "schedule":
            draft.schedule = entries.schedule_in(content, draft.mistakes)
        elif section not in SECTIONS and not (isinstance(section, str) and names.is_node(section)):
            draft.mistakes.append(
                f"{section}: neither `main`, `default`, `datasets` nor `schedule`, nor a node such as T2_IT_Pisa"
            )
        elif content is None:
            draft.values.setdefault(section, {})  # a node's empty section: scheduled, with the policy of `default`
        elif isinstance(content, dict):
            _section(draft, section, content)
        else:
            draft.mistakes.append(f"{section}: not a mapping of keys")


def _section(draft: _Draft, section: str, content: dict[Any, Any]) -> None:
    draft.values.setdefault(section, {})
    for key, value in content.items():
        draft.put(f"{section}.{key}", value, "file", strict=True)


def _from_environment(draft: _Draft, environ: Mapping[str, str]) -> None:
    for name, path in SHORT.items():
        if environ.get(name):
            draft.put(path, environ[name], name, strict=False)
    for name in sorted(environ):
        section, _, key = name.removeprefix(PREFIX).lower().partition("_")
        if name.startswith(PREFIX) and section in SECTIONS:
            _from_variable(draft, name, f"{section}.{key}", environ[name])
    if environ.get(PASSWORD_FILE):
        _password(draft, Path(environ[PASSWORD_FILE]))


def _from_variable(draft: _Draft, name: str, path: str, text: str) -> None:
    section, _, key = path.partition(".")
    default = getattr(SECTIONS[section](), key, None)
    value: Any = [part.strip() for part in text.split(",")] if isinstance(default, list) else text
    draft.put(path, value, name, strict=False)


def _password(draft: _Draft, path: Path) -> None:
    """The password of a file goes into the broker's URL, so that it stands in no environment and no process list."""
    url = draft.values["main"].get("amqp_url", Main().amqp_url)
    try:
        draft.put("main.amqp_url", _with_password(url, path.read_text().strip()), PASSWORD_FILE, strict=True)
    except (OSError, UnicodeDecodeError) as error:
        draft.mistakes.append(f"{PASSWORD_FILE}: {path} cannot be read: {getattr(error, 'strerror', error)}")
    except ValueError as error:
        draft.mistakes.append(f"main.amqp_url: {error}")


def _with_password(urls: str, password: str) -> str:
    return ",".join(with_password(url.strip(), password) for url in urls.split(","))


def _settings(draft: _Draft) -> Settings:
    sites = {section: values for section, values in draft.values.items() if section not in SECTIONS}
    return Settings(
        main=Main(**draft.values["main"]),
        default=Site(**draft.values["default"]),
        sites={node: Site(**{**draft.values["default"], **values}) for node, values in sites.items()},
        datasets=draft.datasets,
        schedule=draft.schedule,
    )


def _types(struct: type[Main] | type[Site]) -> dict[str, Any]:
    return {each.encode_name: each.type for each in msgspec.structs.fields(struct)}


def _unknown(section: str, key: str) -> str:
    """What to do about a key that is not there: of the original service's keys each has its own answer."""
    if (reason := without_meaning(section, key)) is not None:
        return (
            f"a key of the original service without a meaning here, leave it out: {reason} "
            "(`phedex-rucio config convert` does that for a whole file)"
        )
    return f"unknown key; known are {', '.join(sorted(_types(SECTIONS.get(section, Site))))}"


def _said(origin: str, path: str) -> str:
    return path if origin in ("file", "flag") else f"{origin} ({path})"


def _listed(path: Path | None, mistakes: list[str]) -> str:
    where = str(path) if path else "settings"
    if len(mistakes) == 1:
        return f"{where}: {mistakes[0]}"
    return f"{where}: {len(mistakes)} mistakes\n" + "\n".join(f"  {mistake}" for mistake in mistakes)
