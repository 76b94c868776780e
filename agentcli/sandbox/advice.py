"""One-line advice on how to get the sandbox's full level on this machine."""

from __future__ import annotations

import os
import sys

from agentcli.sandbox import bwrap

INSTALL = "install bubblewrap (apt install bubblewrap, dnf install bubblewrap)"

# Kernel settings: the name, the value that denies namespaces to ordinary users, and the remedy.
_SETTINGS = (
    ("user/max_user_namespaces", "0", "sysctl user.max_user_namespaces=15000"),
    ("kernel/unprivileged_userns_clone", "0", "sysctl kernel.unprivileged_userns_clone=1"),
    (
        "kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "give bwrap an AppArmor profile that permits userns, or "
        "sysctl kernel.apparmor_restrict_unprivileged_userns=0",
    ),
)


def for_full(root: str = "/") -> str:
    """What to do to get the full level. ``root`` is the folder with the machine's files."""
    if sys.platform != "linux":
        return "use Linux: no other system has it"
    if bwrap.program() is None:
        return INSTALL
    for name, forbidding, what in _SETTINGS:
        try:
            with open(os.path.join(root, "proc/sys", name)) as file:
                value = file.read().strip()
        except OSError:
            continue
        if value == forbidding:
            return what
    inside = ("run/.containerenv", ".dockerenv")
    if any(os.path.exists(os.path.join(root, name)) for name in inside):
        return "let the container make namespaces (docker run --security-opt seccomp=unconfined)"
    return "ask the machine's administrator to permit user namespaces"
