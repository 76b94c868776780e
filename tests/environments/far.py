"""A real SSH server and container image for the tests, or the reason why there is none."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

IMAGE = "localhost/agentcli-test"
_APPLETS = (
    "sh cat echo grep ln sleep ls touch true false seq head printf pwd id env kill mkdir rm sed wc"
)


class Missing(Exception):
    """The programs needed are missing on this machine."""


@dataclass(frozen=True)
class FarEnd:
    """An SSH server on loopback; the SSH ``config`` names it as the host ``far``."""

    config: Path
    process: subprocess.Popen[bytes]


@contextmanager
def far_end(folder: Path) -> Iterator[FarEnd]:
    """Start an SSH server with its own keys; raises Missing."""
    server = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    if server is None or shutil.which("ssh") is None or shutil.which("ssh-keygen") is None:
        raise Missing("no OpenSSH server and client here")
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    for name in ("host", "user"):
        line = ("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name))
        subprocess.run(line, check=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nPidFile none\n"
        f"AuthorizedKeysFile {folder}/user.pub\nStrictModes no\nUsePAM no\n"
        "PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin yes\n"
        "MaxSessions 50\nMaxStartups 100\n"
    )
    host_key = (folder / "host.pub").read_text()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {host_key}")
    config = folder / "config"
    config.write_text(
        f"Host far\n  HostName 127.0.0.1\n  Port {port}\n  IdentityFile {folder}/user\n"
        f"  IdentitiesOnly yes\n  UserKnownHostsFile {folder}/known_hosts\n"
    )
    with (folder / "sshd.log").open("wb") as log:
        process = subprocess.Popen(
            (server, "-D", "-e", "-f", str(folder / "sshd_config")), stdout=log, stderr=log
        )
    try:
        for _ in range(3000):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            if process.poll() is not None:
                raise Missing(f"sshd does not run here: {(folder / 'sshd.log').read_text()}")
            time.sleep(0.02)
        yield FarEnd(config, process)
    finally:
        process.kill()
        process.wait()


@contextmanager
def container_cli(folder: Path) -> Iterator[tuple[str, ...]]:
    """A container command that has IMAGE, a minimal busybox system; raises Missing."""
    busybox = shutil.which("busybox")
    if busybox is None or b"statically" not in _output("file", "-L", busybox):
        raise Missing("no static busybox to make an image of")
    root = folder / "image"
    for name in ("bin", "tmp", "etc", "dev", "proc", "sys"):
        (root / name).mkdir(parents=True)
    shutil.copy(busybox, root / "bin" / "busybox")
    for name in _APPLETS.split():
        (root / "bin" / name).symlink_to("busybox")
    subprocess.run(("tar", "-C", str(root), "-cf", str(folder / "image.tar"), "."), check=True)
    short = tempfile.mkdtemp(prefix="pod")  # Podman limits paths to 50 characters
    store = ("--root", f"{short}/store", "--runroot", f"{short}/run")
    tried = []
    for name, options in (
        ("docker", ()),
        ("podman", ()),
        # For machines without overlay mounts or a cgroup manager.
        ("podman", (*store, "--storage-driver", "vfs", "--cgroup-manager", "cgroupfs")),
        (
            "podman",
            (
                *store,
                "--storage-driver",
                "vfs",
                "--cgroup-manager",
                "cgroupfs",
                "--runtime",
                "runc",
            ),
        ),
    ):
        program = shutil.which(name)
        if program is None:
            tried.append(f"no {name}")
            continue
        cli = (program, *options)
        made = subprocess.run(
            (*cli, "import", str(folder / "image.tar"), IMAGE), capture_output=True
        )
        limits = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024")
        runs = subprocess.run(
            (*cli, "run", "--rm", "--network", "none", *limits, IMAGE, "/bin/true"),
            capture_output=True,
        )
        if runs.returncode == 0:
            try:
                yield cli
            finally:
                subprocess.run((*cli, "rmi", "-f", IMAGE), capture_output=True)
                shutil.rmtree(short, ignore_errors=True)
            return
        said = (made.stderr + runs.stderr).decode().strip().splitlines()
        tried.append(f"{name}: {said[-1] if said else 'fails'}")
    raise Missing("; ".join(tried))


def _output(*line: str) -> bytes:
    return subprocess.run(line, capture_output=True).stdout if shutil.which(line[0]) else b""


def with_argument(word: str) -> list[psutil.Process]:
    """Processes with an argument that ends with a word."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if any(part.endswith(word) for part in process.cmdline()):
                found.append(process)
    return found


def survivors(word: str) -> list[str]:
    """Describe the processes with this argument that do not end within 30 seconds."""
    end = time.monotonic() + 30
    while (found := with_argument(word)) and time.monotonic() < end:
        time.sleep(0.05)
    return [str(process) for process in found]
