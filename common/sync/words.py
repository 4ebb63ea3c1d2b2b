"""How are numbers said to people?"""

from __future__ import annotations

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def count(number: int, noun: str) -> str:
    """`1 block`, `12,431 blocks`."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def size(number: float) -> str:
    """Bytes in decimal units, as PhEDEx and Rucio show them: `1.2 TB`."""
    for unit in _UNITS[:-1]:
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:,.1f} {_UNITS[-1]}"


def percent(share: float) -> str:
    """`30 %`, `0.25 %`."""
    return f"{100 * share:.3g} %"
