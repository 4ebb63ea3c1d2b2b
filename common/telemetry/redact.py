"""Which parts of a text are secrets? Passwords in URLs, tokens, password headers, private keys, and what we know."""

from __future__ import annotations

import re
from collections import deque
from urllib.parse import quote, unquote

HIDDEN = "***"
SHORTEST = 6  # a shorter password may be part of any word
KEPT = 64  # tokens are renewed for ever

_RULES = (
    # scheme://user:password@host; the greedy middle takes a password with an @ in it too
    (re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*://[^\s/:@\"']*):[^\s/\"']*@"), rf"\1:{HIDDEN}@"),
    (re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----.*?(?:-----END \1-----|\Z)", re.DOTALL), rf"-----BEGIN \1----- {HIDDEN}"),
    (re.compile(r"\beyJ[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]+(?:\.[A-Za-z0-9_\-]*)?"), HIDDEN),
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=\-]{8,}"), rf"\1 {HIDDEN}"),
    # Rucio's own tokens: account-subject-client-hash
    (
        re.compile(
            r"(?i)((?:x-rucio-(?:auth-token|password)|authorization|password|passwd|secret|bearer_token|auth_token|token)"
            r"[\"']?\s*[:=]\s*)(?:\"[^\"]*\"|'[^']*'|(?!\*\*\*)[^\s,;&\"'}]+)"
        ),
        rf"\1{HIDDEN}",
    ),
)

# No rule matches a text without one of these, and most fields of a log line are such: a look first costs a tenth.
_needed = re.compile(r"[\s:=]|eyJ")

_known: deque[str] = deque(maxlen=KEPT)


def hide(secret: str) -> None:
    """From here on this process shows the secret nowhere, in whatever text: as it is, or as URLs write it."""
    for form in {secret, quote(secret, safe=""), unquote(secret)}:
        if len(form) >= SHORTEST and form not in _known:
            _known.append(form)


def redact(text: str) -> str:
    """The text with every secret that it is known to carry replaced by `***`."""
    for secret in sorted(_known, key=len, reverse=True):  # one may be a part of another
        if secret in text:
            text = text.replace(secret, HIDDEN)
    if _needed.search(text) is None:
        return text
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return text
