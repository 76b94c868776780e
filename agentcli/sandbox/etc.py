"""A copy of the world-readable part of /etc, so that the sandbox shows no secret of the machine.

Covers: shadow, sudoers, ssh keys and the like, and every file or folder below /etc that is not
    world-readable (root and members of special groups could read those).
Does not cover: secrets that the machine itself shows to everybody.

Mounting one copy is cheaper for every command than masking each secret. The copy is in the user's
cache folder, named by a digest of the names, modes and times in /etc, so it is made only once.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
import tempfile
import time
from typing import NamedTuple

SECRETS = frozenset(
    f"/etc/{name}"
    for name in (
        *("shadow", "shadow-", "gshadow", "gshadow-", "sudoers", "sudoers.d", "ssh", "ssl/private"),
        *("security/opasswd", "krb5.keytab", "docker", "kubernetes", "wireguard", "openvpn", "ppp"),
        *("NetworkManager", "letsencrypt", "pki/tls/private", "ipsec.secrets", "ipsec.d", "cups"),
        *("containers/auth.json", "rancher", "libvirt", "samba", "sssd"),
    )
)

_LARGEST = 8 << 20  # bytes of one file; programs read nothing larger from /etc
_KEPT_S = 30 * 86400


class Etc(NamedTuple):
    """The contents of /etc: what everybody may read, and the topmost paths that are hidden."""

    folders: list[str]
    files: list[str]
    links: list[str]
    hidden: list[str]
    digest: str


def survey(root: str = "/etc") -> Etc:
    """Walk through /etc, reading names and modes only."""
    etc = Etc([], [], [], [], "")
    seen = [str(os.stat(root).st_mtime_ns)]
    pending = [root]
    while pending:
        folder = pending.pop()
        try:
            with os.scandir(folder) as found:
                entries = list(found)
        except OSError:
            etc.hidden.append(folder)
            continue
        for entry in entries:
            if entry.is_symlink():  # replacing a link changes its folder's time
                etc.links.append(entry.path)
                seen.append(entry.path)
                continue
            try:
                info = entry.stat(follow_symlinks=False)
            except OSError:
                continue
            if entry.path in SECRETS or not _open_to_all(info.st_mode):
                etc.hidden.append(entry.path)
            elif stat.S_ISDIR(info.st_mode):
                etc.folders.append(entry.path)
                pending.append(entry.path)
            elif stat.S_ISREG(info.st_mode) and info.st_size <= _LARGEST:
                etc.files.append(entry.path)
            seen.append(f"{entry.path}\0{info.st_mode} {info.st_mtime_ns}")
    state = "\0".join(sorted(seen)).encode(errors="surrogateescape")
    return etc._replace(digest=hashlib.sha256(state).hexdigest()[:16])


def _open_to_all(mode: int) -> bool:
    needed = 0o005 if stat.S_ISDIR(mode) else 0o004
    return mode & needed == needed


def copy(etc: Etc, cache: str, root: str = "/etc") -> str:
    """The folder that holds the copy, which is made if it does not exist; raises OSError."""
    os.makedirs(cache, mode=0o700, exist_ok=True)
    target = os.path.join(cache, f"etc-{etc.digest}")
    if os.path.isdir(target):
        os.utime(target)
        return target
    _prune(cache)
    made = tempfile.mkdtemp(prefix="new-", dir=cache)
    os.chmod(made, 0o755)
    for path in etc.folders:
        os.mkdir(made + path[len(root) :], 0o755)
    for path in etc.files:
        with contextlib.suppress(OSError):
            shutil.copy2(path, made + path[len(root) :])
    for path in etc.links:
        with contextlib.suppress(OSError):
            os.symlink(os.readlink(path), made + path[len(root) :])
    try:
        os.rename(made, target)
    except OSError:  # another agentcli was faster
        shutil.rmtree(made, ignore_errors=True)
    return target


def _prune(cache: str) -> None:
    """Remove copies that nobody has used for a month."""
    for entry in os.scandir(cache):
        with contextlib.suppress(OSError):
            if entry.stat().st_mtime < time.time() - _KEPT_S:
                shutil.rmtree(entry.path, ignore_errors=True)


def shown(etc: Etc, root: str = "/etc") -> list[str]:
    """The visible paths in short: a folder stands for its contents if none of them is hidden."""
    closed = {root}
    for path in etc.hidden:
        while (path := os.path.dirname(path)) != root:
            closed.add(path)
    everything = (*etc.folders, *etc.files, *etc.links)
    return [path for path in everything if path not in closed and os.path.dirname(path) in closed]
