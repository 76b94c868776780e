"""Things that must work inside the sandbox, at each level."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.sandbox.conftest import Confine, Confined

TEST = """
import multiprocessing, os, tempfile, threading
def square(x): return x * x
def test_pool():
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(square, [1, 2, 3]) == [1, 4, 9]
def test_temporary():
    with tempfile.TemporaryDirectory() as folder:
        open(os.path.join(folder, "x"), "w").write("y")
def test_home():
    path = os.path.expanduser("~/.cache-test"); open(path, "w").close(); os.unlink(path)
def test_threads():
    threads = [threading.Thread(target=lambda: None) for _ in range(50)]
    [t.start() for t in threads]; [t.join() for t in threads]
"""

LOOPBACK = """
import socket, threading
server = socket.create_server(("127.0.0.1", 0))
threading.Thread(target=lambda: server.accept()[0].sendall(b"hello")).start()
print(socket.create_connection(server.getsockname()).recv(5).decode())
"""

PTY = """
import os, pty
pid, master = pty.fork()
if pid == 0:
    os.execvp("sh", ["sh", "-c", "test -t 0 && echo terminal"])
print(os.read(master, 100).decode())
"""


@pytest.fixture
async def confined(confine: Confine, level: str) -> Confined:
    return await confine(level)


def needs(program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")


async def test_pytest_with_agentclis_own_interpreter(confined: Confined) -> None:
    (confined.root / "test_it.py").write_text(TEST)
    options = ("-q", "--tb=short", "--no-header", "-p", "no:cacheprovider")
    result = await confined.run(sys.executable, "-m", "pytest", *options)
    assert result.success, result.stdout + result.stderr
    assert "4 passed" in result.stdout


async def test_pytest_with_xdist(confined: Confined) -> None:
    (confined.root / "test_it.py").write_text(TEST)
    others = [
        f"-pno:{name}" for name in ("hypothesispytest", "inline_snapshot", "anyio", "asyncio")
    ]
    result = await confined.run(sys.executable, "-m", "pytest", "-q", "-n", "2", *others)
    assert result.success, result.stdout + result.stderr


async def test_git(confined: Confined) -> None:
    script = (
        "set -e; echo x > f; git status --short; git add f; git commit -qm first; echo y >> f; "
        "git diff --stat; git stash -q; git stash pop -q; git log --oneline; git branch other"
    )
    result = await confined.shell(script)
    assert result.success, result.stderr
    assert "first" in result.stdout and "1 file changed" in result.stdout


async def test_virtual_environment(confined: Confined) -> None:
    make = (
        "python3 -m venv --without-pip .venv && .venv/bin/python -c 'import sys; print(sys.prefix)'"
    )
    result = await confined.shell(make)
    assert result.success, result.stderr
    assert result.stdout.strip() == str(confined.root / ".venv")


async def test_the_workspaces_environment_comes_first(confine: Confine, workspace: Path) -> None:
    import subprocess

    subprocess.run([sys.executable, "-m", "venv", "--without-pip", workspace / ".venv"], check=True)
    for level in ("full", "reduced"):
        confined = await confine(level)
        result = await confined.run("python", "-c", "import sys; print(sys.prefix)")
        assert result.stdout.strip() == str(workspace / ".venv"), result.stderr


async def test_pip(confined: Confined) -> None:
    result = await confined.shell("python3 -m pip --version")
    assert result.success, result.stderr


async def test_node(confined: Confined) -> None:
    needs("node")
    result = await confined.run("node", "-e", "console.log(require('os').cpus().length > 0)")
    assert result.stdout == "true\n", result.stderr


async def test_compiler(confined: Confined) -> None:
    needs("gcc")
    (confined.root / "a.c").write_text('#include <stdio.h>\nint main(void) { puts("built"); }\n')
    result = await confined.shell("gcc -O1 -o a a.c && ./a")
    assert result.stdout == "built\n", result.stderr


async def test_sqlite(confined: Confined) -> None:
    script = (
        "import sqlite3; c = sqlite3.connect('x.db'); c.execute('create table t (a)'); print(1)"
    )
    assert (await confined.python(script)).stdout == "1\n"


async def test_own_loopback(confined: Confined) -> None:
    if confined.sandbox.level == "reduced" and not confined.sandbox.own_namespaces:
        pytest.skip("no network namespace here")
    result = await confined.python(LOOPBACK)
    assert result.stdout == "hello\n", result.stderr


async def test_pty(confined: Confined) -> None:
    result = await confined.python(PTY)
    assert "terminal" in result.stdout, result.stderr


async def test_semaphores_and_shared_memory(confined: Confined) -> None:
    script = (
        "import multiprocessing as m; from multiprocessing import shared_memory as s; "
        "m.Lock(); x = s.SharedMemory(create=True, size=100); x.close(); x.unlink(); print(1)"
    )
    result = await confined.python(script)
    assert result.stdout == "1\n", result.stderr


async def test_locale_and_names(confined: Confined) -> None:
    script = "import locale, os, sys; print(locale.getpreferredencoding(), os.getcwd(), 'äß€')"
    result = await confined.python(script)
    assert result.stdout == f"UTF-8 {confined.root} äß€\n".replace(
        "UTF-8", result.stdout.split()[0]
    )
    assert result.stdout.lower().startswith("utf-8")


async def test_user_name_and_time_zone(confined: Confined) -> None:
    script = "import pwd, os, time; print(pwd.getpwuid(os.getuid()).pw_name, time.tzname[0])"
    result = await confined.python(script)
    assert result.success and result.stdout.split()[0], result.stderr


async def test_the_same_user_inside(confined: Confined) -> None:
    result = await confined.shell("touch made; id -u")
    assert result.stdout.strip() == str(os.getuid())
    assert (confined.root / "made").stat().st_uid == os.getuid()


async def test_file_modes_and_links(confined: Confined) -> None:
    script = "set -e; echo x > f; chmod 755 f; ln -s f l; ln f h; mkfifo p; mkdir -p a/b; mv a c"
    result = await confined.shell(script)
    assert result.success, result.stderr


async def test_a_pipe_chain_and_signals(confined: Confined) -> None:
    result = await confined.shell("seq 1 100000 | sort -rn | head -1; sleep 30 & kill $!; echo ok")
    assert result.stdout == "100000\nok\n", result.stderr


async def test_a_leak_checker_stops_its_own_process(confined: Confined) -> None:
    needs("gcc")
    program = "#include <stdlib.h>\nint main(void) { volatile char *p = malloc(99); p = 0; }\n"
    (confined.root / "a.c").write_text(program)
    built = await confined.shell("gcc -fsanitize=address -o a a.c")
    if not built.success:
        pytest.skip("no sanitizer for this compiler")
    result = await confined.shell("./a")
    assert "99 byte(s) leaked" in result.stderr, result.stderr


async def test_tracing_ones_own_children(confined: Confined) -> None:
    needs("strace")
    result = await confined.shell("strace -f -e trace=write sh -c 'echo traced'")
    assert result.stdout == "traced\n" and "write(1" in result.stderr, result.stderr
    attach = "sleep 99 & strace -p $! 2> said & until grep -q . said; do sleep 0.1; done; cat said"
    attached = await confined.shell(attach)
    assert "attached" in attached.stdout, attached


async def test_a_server_on_its_own_loopback(confined: Confined) -> None:
    if confined.sandbox.level == "reduced" and not confined.sandbox.own_namespaces:
        pytest.skip("no network namespace here")
    script = """
import asyncio, socket
async def answer(reader, writer):
    writer.write((await reader.readline()) * 2)
    writer.close()
async def main():
    for host in ("localhost", "127.0.0.1", "::1"):
        server = await asyncio.start_server(answer, host, 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
        writer.write(b"hello\\n")
        assert await reader.read() == b"hello\\nhello\\n"
    child = await asyncio.create_subprocess_exec("echo", "child", stdout=-1)
    print((await child.communicate())[0].decode(), [name for _, name in socket.if_nameindex()])
asyncio.run(main())
"""
    result = await confined.python(script)
    assert result.stdout.startswith("child\n") and "'lo'" in result.stdout, result.stderr


async def test_sockets_between_its_own_processes(confined: Confined) -> None:
    if confined.sandbox.level == "reduced" and not confined.sandbox.own_namespaces:
        pytest.skip("no sockets with names here")
    script = (
        "import socket\nfor name in ('s.sock', '\\0abstract', '/tmp/s'):\n"
        " s = socket.socket(socket.AF_UNIX); s.bind(name); s.listen()\n"
        " c = socket.socket(socket.AF_UNIX); c.connect(name); c.send(b'x')\n"
        " print(s.accept()[0].recv(1))"
    )
    assert (await confined.python(script)).stdout == "b'x'\n" * 3


async def test_ordinary_commands(confined: Confined) -> None:
    script = (
        "set -e; ls / /etc /tmp ~ > all; id; whoami; date; hostname; ps; nproc; df .; "
        "mktemp; echo x > /var/tmp/x; cat /tmp/x; mkdir -p ~/.cache/a ~/.config/b; "
        "tar cf - all | gzip | zcat | tar tf -; flock all true; head -c 4 /dev/urandom | wc -c"
    )
    result = await confined.shell(script)
    assert result.success and result.stdout.endswith("4\n"), result.stderr
