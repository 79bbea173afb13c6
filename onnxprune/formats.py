"""Numbers as people read them."""

from __future__ import annotations


def bytes_text(count: float) -> str:
    """``1.72 MB``: decimal units, three digits."""
    for unit in ("B", "kB", "MB"):
        if abs(count) < 1000:
            return f"{count:.0f} B" if unit == "B" else f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"


def count_text(count: float) -> str:
    """``430,500``."""
    return f"{count:,.0f}"


def percent_text(share: float, digits: int = 2) -> str:
    """``99.31 %``."""
    return f"{100 * share:.{digits}f} %"


def points_text(share: float) -> str:
    """A difference of scores in points: ``0.31`` for 0.0031."""
    return f"{100 * share:.2f}"


def rate_text(rate: float) -> str:
    """``12.3 x``."""
    return f"{rate:.3g} x"


def seconds_text(seconds: float) -> str:
    """A duration: 0.3 s, 42 s, 3.5 min, 2.1 h."""
    if seconds < 90:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.1f} min" if minutes < 90 else f"{minutes / 60:.1f} h"
