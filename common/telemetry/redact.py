"""Which parts of a text are secrets? Passwords in URLs, tokens, password headers, private keys."""

from __future__ import annotations

import re

HIDDEN = "***"

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


def redact(text: str) -> str:
    """The text with every secret that it is known to carry replaced by `***`."""
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return text
