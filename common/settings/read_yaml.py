"""Is this YAML text plain data? Large, aliased, doubled or deep documents are refused before anything reads them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from common.errors import UsageError

MAX_BYTES = 1024 * 1024


def read_yaml(path: Path) -> Any:
    """The document in a file as plain data; None for an empty one.

    Raises UsageError, with file and line, for what cannot be read or is not plain: over 1 MiB, not UTF-8, not YAML,
    an alias (a few of them make a document of gigabytes), a key twice (the last would win silently), nested too deep.
    """
    text = _text(path)
    try:
        _refuse_aliases(path, text)
        _refuse_doubles(path, yaml.compose(text, yaml.SafeLoader))
        return yaml.safe_load(text)
    except RecursionError:
        raise UsageError(f"{path}: nested too deep") from None
    except yaml.YAMLError as error:
        raise UsageError(f"{path}: {_where(error)}") from None
    except ValueError as error:  # a date such as 2026-99-99, or a number of too many digits
        raise UsageError(f"{path}: {error}") from None


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            body = file.read(MAX_BYTES + 1)
        if len(body) > MAX_BYTES:
            raise UsageError(f"{path}: larger than {MAX_BYTES} bytes, which no settings file is")
        return body.decode()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8 at byte {error.start}") from None


def _refuse_aliases(path: Path, text: str) -> None:
    for event in yaml.parse(text, yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            line = event.start_mark.line + 1 if event.start_mark else 0
            raise UsageError(f"{path}:{line}: aliases (*{event.anchor}) are not taken: write it out")


def _refuse_doubles(path: Path, node: yaml.Node | None) -> None:
    for mapping in _mappings(node):
        seen: set[str] = set()
        for key in (key for key, _ in mapping.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise UsageError(f"{path}:{key.start_mark.line + 1}: key {key.value!r} stands there twice")
            seen.add(key.value)


def _mappings(node: yaml.Node | None) -> Iterator[yaml.MappingNode]:
    if isinstance(node, yaml.MappingNode):
        yield node
        for _, value in node.value:
            yield from _mappings(value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from _mappings(value)


def _where(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"line {error.problem_mark.line + 1}: {error.problem or error.context}"
    return " ".join(str(error).split())
