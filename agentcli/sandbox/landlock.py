"""Landlock: stub."""

from __future__ import annotations

from typing import Any


def restrict(rules: dict[str, Any]) -> None:
    """Apply."""
