"""Level reduced on macOS: a profile for ``sandbox-exec`` in its own language, SBPL.

Covers: reading and writing files outside the allowlist; the network, all of it or none; signals to
    and information about processes outside; ``.git``'s configuration and whatever else the host
    obeys, which later rules exclude from the writable workspace again.
Does not cover: a private loopback (macOS has no network namespaces, so the networks ``loopback``
    and ``allow`` are not available); system calls; memory and tasks (limits). So far only the
    text of the profile is tested; it has never run on a Mac.

The last rule that matches decides. What no rule permits is refused.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from agentcli.errors import SandboxError
from agentcli.sandbox.policy import Policy
from agentcli.sandbox.restore import OBEYED

PROGRAM = "/usr/bin/sandbox-exec"

_SYSTEM = (
    *("/usr", "/bin", "/sbin", "/opt", "/System", "/Library/Apple", "/Library/Developer"),
    *("/Library/Frameworks", "/Library/Java", "/Applications/Xcode.app", "/private/var/db/dyld"),
    *("/private/var/db/timezone", "/private/etc/ssl", "/nix/store"),
)
_SYSTEM_FILES = (
    *("/", "/private/etc/passwd", "/private/etc/group", "/private/etc/hosts"),
    *("/private/etc/localtime", "/private/etc/shells", "/private/etc/protocols"),
    *("/private/etc/services", "/private/etc/resolv.conf"),
)
_DEVICES = ("/dev/null", "/dev/zero", "/dev/tty", "/dev/ptmx", "/dev/random", "/dev/urandom")
_SERVICES = (
    *("com.apple.system.opendirectoryd.libinfo", "com.apple.system.opendirectoryd.membership"),
    *("com.apple.system.logger", "com.apple.system.notification_center"),
    "com.apple.bsd.dirhelper",
)

_BASE = """\
(version 1)
(deny default)
(allow process-exec process-fork)
(allow process-info* (target same-sandbox))
(allow signal (target same-sandbox))
(allow sysctl-read)
(allow ipc-posix-sem ipc-posix-shm)
(allow pseudo-tty)
(allow file-read-metadata)
(allow file-ioctl (regex #"^/dev/(ptmx|ttys[0-9]+)$"))"""


def profile(policy: Policy, private: Sequence[str], *, files_only: bool = False) -> str:
    """The profile of one command; ``private`` are its HOME and its folder for temporary files.

    Raises:
        SandboxError: the policy's network is not available on macOS.
    """
    if policy.network in ("loopback", "allow"):
        raise SandboxError(f"network {policy.network} is not available on macOS")
    written = (policy.workspace, *policy.write, *([] if files_only else private))
    closed = [f"{policy.workspace}/{name}" for name in (*OBEYED, *policy.obeyed)]
    rules = [
        _BASE,
        _rule("allow", "mach-lookup", [f"(global-name {_quoted(one)})" for one in _SERVICES]),
        _rule("allow", "file-read*", _subpaths((*_SYSTEM, *policy.read, *written))),
        _rule("allow", "file-read*", [f"(literal {_quoted(one)})" for one in _SYSTEM_FILES]),
        _rule("allow", "file-read* file-write*", [f"(literal {_quoted(one)})" for one in _DEVICES]),
        _rule("allow", "file-read* file-write*", ['(regex #"^/dev/ttys[0-9]+$")']),
        _rule("allow", "file-write*", _subpaths(written)),
        _rule("deny", "file-write*", _subpaths(closed)),
        # Otherwise it could be renamed and replaced.
        _rule("deny", "file-write*", [f"(literal {_quoted(policy.workspace + '/.git')})"]),
    ]
    if policy.hidden:
        rules.append(_rule("deny", "file-read* file-write*", _subpaths(policy.hidden)))
    if policy.network == "full":
        rules.append("(allow network*)\n(allow system-socket)")
    return "\n".join(rules) + "\n"


def arguments(
    policy: Policy, argv: Sequence[str], private: Sequence[str], *, files_only: bool = False
) -> list[str]:
    """The command line that runs ``argv`` inside."""
    return [PROGRAM, "-p", profile(policy, private, files_only=files_only), *argv]


def _rule(what: str, operations: str, filters: Iterable[str]) -> str:
    return f"({what} {operations}\n" + "\n".join(f"  {one}" for one in filters) + ")"


def _subpaths(paths: Iterable[str]) -> list[str]:
    return [f"(subpath {_quoted(path)})" for path in dict.fromkeys(map(os.path.normpath, paths))]


def _quoted(text: str) -> str:
    """Quote a path as a string of SBPL.

    Raises:
        SandboxError: the path has a control character, which no rule can be trusted to match.
    """
    if any(ord(letter) < 32 for letter in text):
        raise SandboxError(f"{text!r}: a path with control characters cannot be confined on macOS")
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
