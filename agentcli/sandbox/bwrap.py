"""Layer A, level full: namespaces made by the system's bubblewrap.

Covers: every file outside the allowlist; every process outside (private process ids and /proc),
    and the first one inside, which is bubblewrap; kernel data in /proc that only root may read,
    and names of keys; the network (a private one with only loopback); System V IPC and abstract
    sockets; further user namespaces; capabilities, including root's; kernel settings below
    /proc/sys and /proc/sysrq-trigger; the host's /tmp, /run, /dev/shm and home folder; renaming
    or rewriting ``.git``'s configuration.
Does not cover: the workspace's own content; time and memory (limits); the kernel's system calls
    (seccomp); files that do not exist yet in the workspace but that the host would obey
    (``restore.py``).

bubblewrap is run only by its absolute path. As root it keeps its capabilities and a writable
/proc/sys unless told otherwise; both are closed here.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence

from agentcli.sandbox.policy import Policy
from agentcli.sandbox.restore import GIT_OBEYED, OBEYED, present

PROGRAMS = ("/usr/bin/bwrap", "/usr/local/bin/bwrap", "/run/current-system/sw/bin/bwrap")
SECCOMP_FD, GITCONFIG_FD = 11, 12

PROTECTED = (".git/config", ".git/hooks", ".git/config.worktree", ".git/commondir", ".agentcli")
"""Read-only for file tools as well; for commands, everything in OBEYED is read-only."""

# Statistics that the kernel shows to root only (a command may be root), and names of keys.
_OF_KERNEL = (
    *("keys", "kpagecgroup", "kpagecount", "kpageflags", "latency_stats", "pagetypeinfo"),
    *("sched_debug", "slabinfo", "timer_list", "timer_stats", "vmallocinfo"),
)

TMP_BYTES = 1 << 30
SHM_BYTES = 512 << 20


def program() -> str | None:
    """bubblewrap's absolute path, or None. One that others could have replaced is ignored."""
    for path in PROGRAMS:
        try:
            info = os.stat(path)
        except OSError:
            continue
        trusted = info.st_uid == 0 and not info.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        if trusted and os.access(path, os.X_OK):
            return path
    return None


def arguments(
    policy: Policy,
    cwd: str,
    argv: Sequence[str],
    *,
    executable: str,
    files_only: bool = False,
    old: bool = False,
) -> list[str]:
    """The command line that runs ``argv`` inside; SECCOMP_FD and GITCONFIG_FD must be open.

    ``files_only`` makes everything but the workspace read-only, so that nothing is written where
    it would be lost. ``old`` leaves out options that bubblewrap before 0.8 does not have.
    """
    line = [executable, "--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-uts"]
    line += ["--unshare-cgroup-try", "--die-with-parent", "--new-session", "--cap-drop", "ALL"]
    if not old:
        line += ["--disable-userns"]
    if policy.network != "full":
        line += ["--unshare-net"]
    line += _system(policy)
    line += ["--dev", "/dev", *_tmpfs("/dev/shm", SHM_BYTES, old), "--remount-ro", "/dev"]
    # Kernel settings are files of root, and the command may be root: even without capabilities
    # their mode would let it write them. A read-only /proc closes them all.
    line += ["--proc", "/proc", "--remount-ro", "/proc"]
    # The first process is bubblewrap, which has the same user: hide all that /proc shows of it.
    line += ["--tmpfs", "/proc/1", "--remount-ro", "/proc/1"]
    line += _tmpfs("/tmp", TMP_BYTES, old)
    line += ["--dir", "/var", "--symlink", "../tmp", "/var/tmp", "--dir", "/run"]
    if policy.home == "/tmp/home":
        line += ["--dir", policy.home]
    else:
        line += _tmpfs(policy.home, TMP_BYTES, old)
    line += ["--file", str(GITCONFIG_FD), f"{policy.home}/.gitconfig"]
    # Outer folders first: a mount hides what was mounted below it before.
    mounts = {path: "--ro-bind" for path in policy.read}
    mounts.update({path: "--bind" for path in (*policy.write, policy.workspace)})
    for path in sorted(mounts):
        line += [mounts[path], policy.place if path == policy.workspace else path, path]
    line += _workspace(policy, files_only)
    if files_only:
        for path in ("/tmp", "/dev/shm", *([] if policy.home == "/tmp/home" else [policy.home])):
            if path not in mounts:
                line += ["--remount-ro", path]
    line += ["--remount-ro", "/", "--chdir", cwd, "--seccomp", str(SECCOMP_FD), "--", *argv]
    return line


def masked(policy: Policy) -> list[str]:
    """The paths to hide among the visible ones, if they exist and this user could read them."""
    kernel = [f"/proc/{name}" for name in _OF_KERNEL]
    return [*policy.hidden, *(path for path in kernel if os.access(path, os.R_OK))]


def git_mounts(policy: Policy) -> dict[str, bool]:
    """Paths in repositories outside to mount again, outer ones first, and whether writable.

    The writable folders are mount points only so that they cannot be renamed and replaced.
    """
    found: dict[str, bool] = {}
    for folder in policy.write:
        found.update({f"{folder}/{name}": False for name in GIT_OBEYED})
        trees = f"{folder}/worktrees"
        if not os.path.isfile(f"{folder}/HEAD") or not os.path.isdir(trees):
            continue
        found[trees] = True
        for tree in sorted(os.listdir(trees)):
            if os.path.isfile(f"{trees}/{tree}/commondir"):
                found[f"{trees}/{tree}"] = True
                found.update({f"{trees}/{tree}/{name}": False for name in GIT_OBEYED})
    return found


def closed(policy: Policy, files_only: bool) -> tuple[str, ...]:
    """The paths in the workspace to make read-only, for the file worker or for a command."""
    return PROTECTED if files_only else (*OBEYED, *policy.obeyed)


def _tmpfs(path: str, size: int, old: bool) -> list[str]:
    return ["--tmpfs", path] if old else ["--size", str(size), "--tmpfs", path]


def _system(policy: Policy) -> list[str]:
    line: list[str] = []
    for path in policy.system:
        if os.path.islink(path):
            line += ["--symlink", os.readlink(path), path]
        elif os.path.isdir(path):
            line += ["--ro-bind", path, path]
    line += ["--ro-bind", policy.etc, "/etc"]
    line += ["--ro-bind-try", "/sys/devices/system", "/sys/devices/system"]
    if policy.network == "full" and os.path.islink("/etc/resolv.conf"):
        target = os.path.realpath("/etc/resolv.conf")
        line += ["--ro-bind-try", target, target]
    return line


def _hide(path: str) -> list[str]:
    if os.path.isdir(path):
        return ["--tmpfs", path, "--remount-ro", path]
    return ["--ro-bind", "/dev/null", path]


def _workspace(policy: Policy, files_only: bool) -> list[str]:
    line: list[str] = []
    there, git = os.path.join(policy.place, ".git"), os.path.join(policy.workspace, ".git")
    if os.path.exists(there) and not os.path.islink(there) and not policy.copy:
        # A mount point cannot be renamed or removed, so that no other .git can take its place.
        line += ["--bind" if os.path.isdir(there) else "--ro-bind", there, git]
    for path, writable in git_mounts(policy).items():
        line += ["--bind-try" if writable else "--ro-bind-try", path, path]
    for name in present(policy.place_here, closed(policy, files_only)):
        path = os.path.join(policy.place, name)
        seen = policy.here(path)
        if os.path.exists(seen) and not os.path.islink(seen):
            line += ["--ro-bind-try", path, os.path.join(policy.workspace, name)]
    for path in masked(policy):
        line += _hide(path)
    return line
