"""Which names are well formed? Parsed once at the edge, then trusted."""

from __future__ import annotations

import re

# dmwm/WMCore Lexicon and Rucio's account check; the tier takes digits, as real data has them (`RAW-RECO2`).
NODE = r"^T[0-9]_[A-Z]{2}(_[A-Za-z0-9]+)+\Z"
DATASET = r"^/[A-Za-z0-9\-_]{1,99}/[A-Za-z0-9.\-_]{1,199}/[A-Z0-9\-_]{1,99}\Z"
BLOCK = DATASET[:-2] + r"#[A-Za-z0-9.\-_]{1,100}\Z"
LFN = r"^/store/[A-Za-z0-9][A-Za-z0-9.\-_/=+:@%]{0,492}\Z"
PATTERN_PART = r"[A-Za-z0-9.\-_*?%]+"

NODE_LENGTH = 20  # PhEDEx' schema
NAME_LENGTH = 500  # Rucio's, with the policy package
SYNC_ACCOUNT = "sync_"  # what the accounts that own our rules begin with
ACCOUNT_LENGTH = 25  # Rucio's
SCOPE = "cms"
BUFFER, MSS = "_Buffer", "_MSS"  # the ends of the names of a tape's two nodes

_node = re.compile(NODE)
_block = re.compile(BLOCK)
_dataset = re.compile(DATASET)
_lfn = re.compile(LFN)
_adler = re.compile(r"^[0-9a-fA-F]{1,8}\Z")


def is_node(name: str) -> bool:
    """True for a PhEDEx node name such as `T2_IT_Pisa` (at most 20 characters, PhEDEx' schema)."""
    return len(name) <= NODE_LENGTH and _node.fullmatch(name) is not None


def is_dataset(name: str) -> bool:
    """True for `/Primary/Processed/TIER` without wildcards."""
    return len(name) <= NAME_LENGTH and _dataset.fullmatch(name) is not None


def is_block(name: str) -> bool:
    """True for `/Primary/Processed/TIER#suffix` that Rucio can hold too (at most 500 characters)."""
    return len(name) <= NAME_LENGTH and _block.fullmatch(name) is not None


def is_lfn(name: str) -> bool:
    """True for a file name that Rucio can hold: below `/store/`, at most 500 characters, no `..` part."""
    return _lfn.fullmatch(name) is not None and ".." not in name.split("/")


def buffer_of(tape: str) -> str:
    """The node of the disk in front of a tape: `X_Buffer` of `X_MSS`."""
    return tape.removesuffix(MSS) + BUFFER


def dataset_of(block: str) -> str:
    """The dataset that a block belongs to: all before the `#`."""
    return block.partition("#")[0]


def full_pattern(pattern: str) -> str:
    """A pattern as PhEDEx takes it: a lone `*` is refused there, `/*/*/*` is every dataset of three parts."""
    return "/*/*/*" if pattern == "*" else pattern


def adler32_of(checksum: str | None) -> str | None:
    """The adler32 of a PhEDEx checksum text (`adler32:a952185,cksum:371…`), 8 hex digits, or None.

    PhEDEx' producers dropped leading zeros and Rucio wants exactly 8 digits: padded here.
    """
    for part in (checksum or "").split(","):
        kind, _, digits = part.strip().partition(":")
        if kind == "adler32" and _adler.fullmatch(digits):
            return digits.lower().rjust(8, "0")
    return None


def sync_account(rse: str) -> str:
    """The account that owns the rules at an RSE: `sync_` + the RSE in lower case; longer than 25 is refused.

    Never cut: two sites would share an account (an older tool did that and lost its own rules from sight).
    Raises ValueError.
    """
    account = SYNC_ACCOUNT + rse.lower()
    if len(account) > ACCOUNT_LENGTH:
        raise ValueError(
            f"account {account} for RSE {rse} has {len(account)} characters, Rucio takes {ACCOUNT_LENGTH}: "
            f"set `account:` in the section of this site"
        )
    return account
