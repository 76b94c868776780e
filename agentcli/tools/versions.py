"""Chooses the versions of tools that a session uses, and orders tools by their dependencies."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from agentcli.errors import ConfigError
from agentcli.tools.base import ToolSpec


@dataclass(frozen=True, slots=True)
class Rollout:
    """Versions of one tool with the relative share of sessions that use each."""

    name: str
    shares: Mapping[str, float]

    def version(self, seed: str) -> str:
        """Choose the version for a session, deterministically by ``seed``.

        Raises:
            ConfigError: a share is negative, or all are 0.
        """
        total = sum(self.shares.values())
        if total <= 0 or any(share < 0 for share in self.shares.values()):
            raise ConfigError(f"rollout of {self.name}: shares must be 0 or more, and not all 0")
        digest = hashlib.sha256(f"{seed}\0{self.name}".encode()).digest()
        point = int.from_bytes(digest[:8]) / 2**64 * total
        chosen = ""
        for version, share in sorted(self.shares.items()):
            if share > 0:
                chosen = version
            if point < share:
                break
            point -= share
        return chosen


def split_version(name: str) -> tuple[str, str]:
    """Split ``name@version`` into name and version; the version is empty if there is none."""
    plain, _, version = name.partition("@")
    return plain, version


def waves(specs: Iterable[ToolSpec]) -> list[list[str]]:
    """Group tools into waves, each depending only on earlier waves or on tools not in ``specs``.

    Raises:
        ConfigError: tools depend on each other in a circle.
    """
    needs: dict[str, set[str]] = {}
    for spec in specs:
        needs.setdefault(spec.name, set()).update(spec.depends_on)
    done: set[str] = set()
    found: list[list[str]] = []
    while len(done) < len(needs):
        wave = [
            name for name in needs if name not in done and not (needs[name] & needs.keys()) - done
        ]
        if not wave:
            circle = " → ".join(_circle({name: needs[name] for name in needs if name not in done}))
            raise ConfigError(f"tools depend on each other in a circle: {circle}")
        done.update(wave)
        found.append(wave)
    return found


def _circle(needs: Mapping[str, set[str]]) -> list[str]:
    """A circle among tools of which each needs another; its first tool is at both ends."""
    path = [min(needs)]
    while True:
        following = min(needs[path[-1]] & needs.keys())
        if following in path:
            return [*path[path.index(following) :], following]
        path.append(following)
