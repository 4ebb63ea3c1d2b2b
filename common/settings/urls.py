"""What does a URL say about safety? Where it leads, whether it is encrypted, and how a password gets into it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from ipaddress import ip_address
from urllib.parse import quote, urlsplit

_ENCRYPTED = ("https", "amqps")


def with_password(url: str, password: str) -> str:
    """The URL with this password for its user; raises ValueError where it names no user or is no URL."""
    parts = urlsplit(url)
    if not parts.username or not parts.hostname:
        raise ValueError("names no user, to whom the password would belong")
    userinfo, _, host = parts.netloc.rpartition("@")
    user = userinfo.partition(":")[0]
    return parts._replace(netloc=f"{user}:{quote(password, safe='')}@{host}").geturl()


def passwords_in(urls: Iterable[str]) -> Iterator[str]:
    """The passwords of some URLs, as they are written there."""
    for url in urls:
        with suppress(ValueError):  # no URL
            if password := urlsplit(url.strip()).password:
                yield password


def insecure(url: str) -> bool:
    """True where passwords or data would travel in clear: not encrypted and not to this machine itself."""
    parts = urlsplit(url)
    return parts.scheme not in _ENCRYPTED and not _is_loopback(parts.hostname or "")


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
