"""Human-readable numbers."""

from __future__ import annotations


def short_number(number: int) -> str:
    """Abbreviate a number: ``950``, ``12.3k``, ``1.2M``."""
    if number < 1000:
        return str(number)
    if number < 999_950:
        return f"{number / 1000:.1f}k".replace(".0k", "k")
    return f"{number / 1_000_000:.1f}M".replace(".0M", "M")
