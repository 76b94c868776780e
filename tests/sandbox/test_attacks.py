"""Attacks, tried for real at each level: every one must fail.

An attack is a Python program that calls ``leaked()`` when it got what it wanted. Its targets are in
the variables OUTSIDE (a folder beside the workspace with a secret in it) and VICTIM (the id of
a process outside).
"""

# ruff: noqa: E501  (programs, one a line)

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentcli.sandbox.limits import MIB, Limits
from tests.sandbox.conftest import LANDLOCK_ONLY, LEVELS, Confine, Confined, alive

SECRET = "the-secret-of-the-host"

FILES = {
    "absolute path": "show(open(OUTSIDE + '/secret').read())",
    "dot dot": "show(open(os.path.relpath(OUTSIDE) + '/secret').read())",
    "symlink": "os.symlink(OUTSIDE, 'link'); show(open('link/secret').read())",
    "symlink swap": """
import threading
os.mkdir('real'); open('real/secret', 'w').close(); os.symlink('real', 'swap')
def swap():
    for n in range(3000):
        os.symlink(OUTSIDE if n % 2 else 'real', 'next'); os.replace('next', 'swap')
thread = threading.Thread(target=swap); thread.start()
while thread.is_alive():
    try: show(open('swap/secret').read())
    except OSError: pass
""",
    "hard link": "os.link(OUTSIDE + '/secret', 'mine'); show(open('mine').read())",
    "proc root": "show(open(f'/proc/{VICTIM}/root{OUTSIDE}/secret').read())",
    "proc cwd": "show(open(f'/proc/{VICTIM}/cwd/secret').read())",
    "ssh key in home": "show(open(os.environ['REAL_HOME'] + '/.ssh/id_rsa').read())",
    "listing the home folder": "show(SECRET if '.ssh' in os.listdir(os.environ['REAL_HOME']) else '')",
    "shadow": "open('/etc/shadow').read(); leaked()",
    "ssh host keys": "os.listdir('/etc/ssh'); [open(f).read() for f in glob.glob('/etc/ssh/*key')][0]; leaked()",
    "write outside": "open(OUTSIDE + '/secret', 'w').write('x'); leaked()",
    "create outside": "open(OUTSIDE + '/new', 'w').write('x'); leaked()",
    "write through a link": "os.symlink(OUTSIDE + '/new', 'l'); open('l', 'w').write('x'); leaked()",
    "delete outside": "os.unlink(OUTSIDE + '/secret'); leaked()",
    "rename outside": "os.rename(OUTSIDE + '/secret', OUTSIDE + '/other'); leaked()",
    "write to usr": "open('/usr/local/agentcli-attack', 'w').write('x'); leaked()",
    "write to etc": "open('/etc/agentcli-attack', 'w').write('x'); leaked()",
    "rc file in home": "open(os.environ['REAL_HOME'] + '/.bashrc', 'a').write('evil')",
    "core pattern": "open('/proc/sys/kernel/core_pattern', 'w').write('|/tmp/x'); leaked()",
    "sysrq": "open('/proc/sysrq-trigger', 'w').write('h'); leaked()",
    "disk device": "[open(d, 'rb').read(1) for d in glob.glob('/dev/vd*') + glob.glob('/dev/sd*') + glob.glob('/dev/nvme*n1')][0]; leaked()",
    "memory device": "open('/dev/mem', 'rb').read(1); leaked()",
}

PROCESSES = {
    "environment of the victim": "show(open(f'/proc/{VICTIM}/environ').read())",
    "environment of the parents": """
for pid in os.listdir('/proc'):
    if pid.isdigit():
        try: show(open(f'/proc/{pid}/environ').read())
        except OSError: pass
""",
    "memory of the victim": "open(f'/proc/{VICTIM}/mem', 'rb').read(1); leaked()",
    "signal": "os.kill(VICTIM, 0); os.kill(VICTIM, 15); leaked()",
    "signal everyone": "os.kill(-1, 0)",
    "ptrace attach": "check(libc.ptrace(16, VICTIM, 0, 0)); leaked()",
    "ptrace seize": "check(libc.ptrace(0x4206, VICTIM, 0, 0)); leaked()",
    "process_vm_readv": "check(libc.syscall(310, VICTIM, 0, 0, 0, 0, 0)); leaked()",
    "pidfd_getfd": "fd = os.pidfd_open(VICTIM); check(libc.syscall(438, fd, 0, 0)); leaked()",
    "inherited descriptors": """
for fd in range(3, 1000):
    try: target = os.readlink(f'/proc/self/fd/{fd}')
    except OSError: continue
    if 'socket' in target or OUTSIDE in target: leaked()
""",
}

NETWORK = {
    "tcp to the host": "socket.create_connection(('127.0.0.1', PORT), 2); leaked()",
    "tcp to the internet": "socket.create_connection(('1.1.1.1', 53), 2); leaked()",
    "udp to the host": """
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(1)
s.sendto(b'x', ('127.0.0.1', UDP)); s.recv(1); leaked()
""",
    "unix socket of the host": "s = socket.socket(socket.AF_UNIX); s.connect(OUTSIDE + '/socket'); leaked()",
    "unix datagram": "a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM); s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); s.connect(OUTSIDE + '/datagram'); leaked()",
    "abstract socket": "s = socket.socket(socket.AF_UNIX); s.connect('\\0' + ABSTRACT); leaked()",
    "audit netlink": "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 9); leaked()",
    "udev netlink": "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 15); leaked()",
    "packet socket": "socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 3); leaked()",
    "vsock": "socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM); leaked()",
    "kernel crypto": "socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET); leaked()",
    "interfaces of the host": """
names = {name for _, name in socket.if_nameindex()} - {'lo', 'sit0', 'tunl0', 'ip6tnl0'}
names = {n for n in names if not any(w in n for w in ('gre', 'vti', 'tnl', 'tunl', 'sit', 'erspan'))}
if names: leaked()
""",
}

KERNEL = {
    "new user namespace": "check(libc.unshare(0x10000000)); leaked()",
    "new user namespace by clone": "check(libc.syscall(56, 0x10000000 | 17, 0, 0, 0, 0)) and leaked()",
    "new user namespace by clone3": "check(libc.syscall(435, b'\\0\\0\\0\\x10' + bytes(60), 64)) and leaked()",
    "mount": "check(libc.mount(b'none', b'/mnt', b'tmpfs', 0, None)); leaked()",
    "chroot": "os.chroot('.'); leaked()",
    "pivot root": "check(libc.syscall(155, b'.', b'.')); leaked()",
    "new mount api": "check(libc.syscall(430, b'tmpfs', 0)); leaked()",
    "bpf": "check(libc.syscall(321, 0, bytes(64), 64)); leaked()",
    "perf": "check(libc.syscall(298, bytes(120), 0, -1, -1, 0)); leaked()",
    "io_uring": "check(libc.syscall(425, 4, bytes(120))); leaked()",
    "userfaultfd": "check(libc.syscall(323, 1)); leaked()",
    "keyctl": "check(libc.syscall(250, 0, -3, 1, 0, 0)); leaked()",
    "open by handle": "check(libc.syscall(304, -100, bytes(64), 0)); leaked()",
    "load a module": "check(libc.syscall(313, 0, b'', 0)); leaked()",
    "kexec": "check(libc.syscall(246, 0, 0, 0, 0)); leaked()",
    "reboot": "check(libc.syscall(169, 0xfee1dead, 672274793, 0, 0)); leaked()",
    "host name": "socket.sethostname('evil'); leaked()",
    "clock": "time.clock_settime(time.CLOCK_REALTIME, time.time()); leaked()",
    "capabilities": "int([l for l in open('/proc/self/status') if l.startswith('CapEff')][0].split()[1], 16) and leaked()",
    "capabilities by exec": "b'CapEff:\\t0000000000000000' in subprocess.check_output(['cat', '/proc/self/status']) or leaked()",
    "set-user-id by chmod": "open('s', 'w').close(); os.chmod('s', 0o4755); leaked()",
    "set-user-id by fchmod": "f = open('s', 'w'); os.fchmod(f.fileno(), 0o4755); leaked()",
    "set-user-id at creation": "os.open('s', os.O_CREAT | os.O_WRONLY, 0o4755); leaked()",
    "set-group-id": "open('s', 'w').close(); os.chmod('s', 0o2755); leaked()",
    "device node": "os.mknod('n', 0o60666, os.makedev(254, 0)); leaked()",
    "another user": "os.setuid(12345); leaked()",
    "terminal injection": """
import pty, fcntl
master, slave = pty.openpty(); fcntl.ioctl(slave, 0x5412, b'x'); leaked()
""",
    "controlling terminal": "open('/dev/tty').close(); leaked()",
    "no new privileges": "'NoNewPrivs:\\t1' in open('/proc/self/status').read() or leaked()",
    "core dumps": "import resource; resource.setrlimit(resource.RLIMIT_CORE, (1, 1)); leaked()",
}

ATTACKS = {"files": FILES, "processes": PROCESSES, "network": NETWORK, "kernel": KERNEL}

# Each attack runs in a process and a folder of its own; a line of JSON says how each one went.
DRIVER = """
import ctypes, glob, json, os, socket, subprocess, sys, time, traceback
libc = ctypes.CDLL(None, use_errno=True)
OUTSIDE, SECRET = os.environ['OUTSIDE'], os.environ['MARK'][::-1]
VICTIM, PORT, UDP = (int(os.environ[n]) for n in ('VICTIM', 'PORT', 'UDP'))
ABSTRACT = os.environ['ABSTRACT']
def leaked():
    os.write(report, b'LEAKED ')
def show(text):
    if SECRET in text: leaked()
def check(result):
    if result == -1: raise OSError(ctypes.get_errno(), 'refused')
    return result
for name, source in json.load(sys.stdin).items():
    reader, report = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(reader)
            os.mkdir(name)
            os.chdir(name)
            exec(source)
        except BaseException as error:
            os.write(report, type(error).__name__.encode())
        os._exit(0)
    os.close(report)
    said = b''
    while part := os.read(reader, 1000):
        said += part
    os.close(reader)
    os.waitpid(pid, 0)
    print(json.dumps([name, said.decode()]), flush=True)
"""


def _echo(udp: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            data, sender = udp.recvfrom(100)
            udp.sendto(data, sender)


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A secret, a process that knows it and services, all outside the workspace."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "secret").write_text(SECRET)
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True)
    (home / ".ssh" / "id_rsa").write_text(SECRET)
    (home / ".bashrc").write_text("")
    victim = subprocess.Popen(["sleep", "600"], cwd=folder, env={"API_KEY": SECRET})
    sockets = []
    tcp = socket.create_server(("127.0.0.1", 0))
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(("127.0.0.1", 0))
    threading.Thread(target=_echo, args=(udp,), daemon=True).start()
    stream, datagram, abstract = (
        socket.socket(socket.AF_UNIX, kind)
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_STREAM)
    )
    sockets += [tcp, udp, stream, datagram, abstract]
    here = os.getcwd()
    os.chdir(folder)  # names of sockets are at most 107 bytes
    stream.bind("socket")
    datagram.bind("datagram")
    os.chdir(here)
    stream.listen()
    name = f"agentcli-{os.getpid()}"
    abstract.bind("\0" + name)
    abstract.listen()
    yield {
        "OUTSIDE": str(folder),
        "REAL_HOME": str(home),
        "VICTIM": str(victim.pid),
        "PORT": str(tcp.getsockname()[1]),
        "UDP": str(udp.getsockname()[1]),
        "ABSTRACT": name,
        "MARK": SECRET[::-1],
    }
    victim.kill()
    victim.wait()
    for each in sockets:
        each.close()


@pytest.fixture(params=(*LEVELS, LANDLOCK_ONLY))
def level(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def confined(confine: Confine, level: str, outside: dict[str, str]) -> Confined:
    env = {**os.environ, "HOME": outside["REAL_HOME"], "OPENAI_API_KEY": SECRET}
    return await confine(level, host_env=env)


@pytest.mark.parametrize("kind", ATTACKS)
async def test_attacks(kind: str, confined: Confined, outside: dict[str, str]) -> None:
    attacks = ATTACKS[kind]
    result = await confined.run(
        *(os.path.realpath(sys.executable), "-S", "-c", DRIVER),
        env=outside,
        stdin=json.dumps(attacks).encode(),
        time_s=60,
    )
    outcomes: dict[str, str] = dict(json.loads(line) for line in result.stdout.splitlines())
    assert outcomes.keys() == attacks.keys(), result
    assert [name for name, said in outcomes.items() if "LEAKED" in said] == []
    broken = ("SyntaxError", "NameError", "AttributeError", "TypeError")
    assert [name for name, said in outcomes.items() if said in broken] == []
    assert (Path(outside["OUTSIDE"]) / "secret").read_text() == SECRET
    assert not (Path(outside["OUTSIDE"]) / "new").exists()
    assert (Path(outside["REAL_HOME"]) / ".bashrc").read_text() == ""


async def test_keys_in_the_environment(confined: Confined) -> None:
    assert SECRET not in (await confined.run("env")).stdout


@pytest.mark.parametrize("where", LEVELS)
async def test_git_configuration_cannot_be_replaced(where: str, confine: Confine) -> None:
    confined = await confine(where)
    for attack in (
        "mv .git gone",
        "rm -rf .git",
        "echo '[core]' >> .git/config",
        "git config core.pager evil",
        "git config core.fsmonitor evil",
        "echo evil > .git/hooks/pre-commit",
        "mv .git/hooks .git/old && mkdir .git/hooks",
        "mkdir .git2 && mv .git2 .git",
    ):
        await confined.shell(attack)
    config = (confined.root / ".git" / "config").read_text()
    assert "evil" not in config and config.count("[core]") == 1
    assert not (confined.root / ".git" / "hooks" / "pre-commit").exists()


@pytest.mark.parametrize("level", LEVELS)
async def test_a_linked_worktree_cannot_be_led_elsewhere(
    level: str, confine: Confine, workspace: Path, tmp_path: Path
) -> None:
    main = tmp_path / "main"
    commit = ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty"]
    subprocess.run(["git", "init", "-q", main], check=True)
    subprocess.run(["git", "-C", main, *commit, "-m", "x"], check=True)
    subprocess.run(["git", "-C", main, "worktree", "add", "-q", workspace], check=True)
    place = await confine(level)
    assert (await place.shell("git status")).success
    await place.shell(
        "cd $(git rev-parse --git-dir) && for name in commondir gitdir; do echo evil > $name; done; "
        "cd .. && mv repo old; cd .. && mv worktrees old"
    )
    assert subprocess.run(["git", "-C", workspace, "status"], capture_output=True).returncode == 0


async def test_bombs(confined: Confined) -> None:
    fork = "import os\nwhile True:\n try: os.fork()\n except OSError: pass"
    result = await confined.python(fork, limits=Limits(time_s=10, tasks=100))
    assert not result.success
    memory = "x = []\nwhile True: x.append(bytearray(10**7))"
    result = await confined.python(memory, limits=Limits(time_s=20, memory_bytes=200 * MIB))
    assert result.memory_exceeded or "MemoryError" in result.stderr
    shared = "import mmap\nx = mmap.mmap(-1, 10**9)\nfor i in range(0, 10**9, 4096): x[i] = 1"
    result = await confined.python(shared, limits=Limits(time_s=20, memory_bytes=200 * MIB))
    assert not result.success
    files = "import os\nf = []\nwhile True: f.append(os.open('/dev/null', 0))"
    assert not (await confined.python(files, limits=Limits(time_s=10, open_files=64))).success
    disk = "import os\nfor n in range(50):\n open(f'd{n}', 'wb').write(bytes(10**7))"
    result = await confined.python(disk, limits=Limits(time_s=20, file_bytes=MIB))
    assert not result.success


async def test_daemons_end_with_the_command(confined: Confined) -> None:
    mark = f"31415{os.getpid()}"  # other tests may run beside this one
    await confined.shell(f"(setsid sleep {mark}1 &) ; sleep {mark}2 & sleep 0.1")
    assert not alive(mark)
