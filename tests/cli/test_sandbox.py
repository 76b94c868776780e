"""``agentcli sandbox exec``: output, exit codes, limits and the network."""

from __future__ import annotations

import os
import pty
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from agentcli.cli.main import main
from agentcli.sandbox import bwrap
from agentcli.trust import trust
from tests.running import Cli, running_with, some_seconds, survivors

LEVELS = ("full", "reduced")
PYTHON = os.path.realpath(sys.executable)

Execute = Callable[..., tuple[int, str, str]]


@pytest.fixture
def execute(
    workspace: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfdbinary: pytest.CaptureFixture[bytes],
) -> Execute:
    """Runs ``agentcli sandbox exec`` in this process; skips if the level is not available."""
    monkeypatch.setenv("AGENTCLI_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("SOME_TOKEN", "secret")

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(["sandbox", "exec", "--workspace", str(workspace), *arguments])
        captured = capfdbinary.readouterr()
        out, err = (text.decode("utf-8", "surrogateescape") for text in captured)
        if code == 4 and any(why in err for why in ("not available here", "no sandbox works")):
            pytest.skip(err)
        return code, out, err

    return run


@pytest.mark.parametrize("level", LEVELS)
def test_output_and_status_are_passed_on(level: str, execute: Execute, workspace: Path) -> None:
    script = "pwd; cat; env; echo err >&2; touch made; exit 7"
    code, out, err = execute("--level", level, "--", "sh", "-c", script)
    assert code == 7 and out.startswith(f"{workspace}\n") and err == "err\n"
    assert "secret" not in out
    assert (workspace / "made").exists()


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        (("sh", "-c", "kill -9 $$"), 137, ""),
        (("no-such-program",), 127, "no-such-program: no such program"),
        (("./plain",), 126, "./plain: not a program"),
        (("true", "x" * 200_000), 126, "longer than the system allows"),
        (("true", *(["y" * 1000] * 3000)), 126, "longer than the system allows"),
        (("./script",), 127, "script"),
        (("ls", "-d", "."), 0, ""),
    ],
)
def test_exit_codes(
    command: tuple[str, ...], code: int, said: str, execute: Execute, workspace: Path
) -> None:
    (workspace / "plain").touch()
    (workspace / "script").write_text("#!/no/such/interpreter\n")
    (workspace / "script").chmod(0o755)
    found, _, err = execute(*command)
    assert found == code and said in err and len(err.splitlines()) == bool(said)


def test_a_time_out_ends_everything(execute: Execute) -> None:
    mark = some_seconds()
    script = f"trap '' TERM; setsid sleep {mark} & echo up; sleep {mark}"
    for patience_s in ("0.7", "20"):  # on a busy machine, 0.7 s may end too early
        code, out, err = execute("--timeout", patience_s, "--", "sh", "-c", script)
        assert (code, err) == (124, f"agentcli: error: timed out after {patience_s} s\n")
        if out:
            break
    assert out == "up\n"
    assert survivors(running_with(mark)) == []


def test_bytes_stay_as_they_are(execute: Execute) -> None:
    script = "import sys; sys.stdout.buffer.write(bytes(range(256)) * 10); print()"
    code, out, _ = execute("--", PYTHON, "-I", "-S", "-c", script)
    assert code == 0 and os.fsencode(out) == bytes(range(256)) * 10 + b"\n"


def test_a_flood_keeps_its_start_and_its_end(execute: Execute) -> None:
    code, out, err = execute("--", "seq", "1000000")
    assert code == 0 and "limits.output_mib" in err
    assert out.startswith("1\n2\n") and out.endswith("999999\n1000000\n")
    assert 2**20 <= len(out) < 2**20 + 100 and "bytes left out" in out


def test_limits_come_from_the_configuration(execute: Execute, tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "config.toml").write_text(
        "[limits]\nmemory_mib = 100\ndisk_mib = 1\nopen_files = 40\ncommand_time_s = 30\n"
    )
    script = "ulimit -n; ulimit -c; head -c 3000000 /dev/zero > big"
    code, out, _ = execute("--", "sh", "-c", script)
    assert out == "40\n0\n" and code != 0
    memory = "x = bytearray(b'x') * 400_000_000"
    code, _, err = execute("--", PYTHON, "-I", "-S", "-c", memory)
    assert code == 137 and "used more than 100 MiB of memory" in err


def test_a_trusted_project_sets_limits(execute: Execute, workspace: Path) -> None:
    (workspace / ".agentcli").mkdir()
    (workspace / ".agentcli" / "config.toml").write_text("[limits]\nopen_files = 40\n")
    count = ("--", "sh", "-c", "ulimit -n")
    assert execute(*count)[1] != "40\n"
    trust(workspace)
    assert execute(*count)[1] == "40\n"


def test_wrong_usage(execute: Execute, workspace: Path) -> None:
    assert execute("--timeout", "0", "--", "true")[0] == 2
    assert execute("--level", "none", "--", "true")[0] == 2
    assert execute("--network", "allow", "--", "true")[0] == 2
    assert execute("--network", "allow", "--domain", "a b", "--", "true")[0] == 2
    (workspace / "file").touch()
    for name, why in (("none", "No such file"), ("file", "is not a folder")):
        code, _, err = execute("--workspace", str(workspace / name), "--", "true")
        assert code == 2 and why in err
    assert execute()[0] == 2


def test_an_unavailable_level(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bwrap, "PROGRAMS", ())
    arguments = ["sandbox", "exec", "--workspace", str(workspace), "--level", "full", "true"]
    assert main(arguments) == 4
    assert "install bubblewrap" in capfd.readouterr().err


def test_a_terminal_gets_nothing_that_acts_on_it(cli: Cli, workspace: Path) -> None:
    screen, terminal = pty.openpty()
    script = r"printf 'a\033]0;evil\007b\342\200\256c\n'"
    process = cli.start("sandbox", "exec", "--", "sh", "-c", script, cwd=workspace, stdout=terminal)
    os.close(terminal)
    said = b""
    try:
        while part := os.read(screen, 1000):
            said += part
    except OSError:  # on Linux, a closed terminal raises EIO
        pass
    assert process.wait() in (0, 4)
    process.communicate()
    if process.returncode == 0:
        assert said == b"a\\x1b]0;evil\\x07b\\u202ec\r\n"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interruption_ends_everything(number: int, code: int, cli: Cli, workspace: Path) -> None:
    mark = some_seconds()
    script = f"trap '' INT TERM; setsid sleep {mark} & echo up; sleep {mark}"
    process = cli.start("sandbox", "exec", "--", "sh", "-c", script, cwd=workspace)
    assert process.stdout is not None
    if process.stdout.readline() == "up\n":
        processes = running_with(mark)
        process.send_signal(number)
        process.communicate()
        assert process.returncode == code and survivors(processes) == []
    else:
        _, err = process.communicate()
        assert process.returncode == 4 and "no sandbox works" in err, err
        pytest.skip(err)


class _Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(f"page {self.path} for {self.headers['Host']}".encode())

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


@pytest.fixture
def port() -> Iterator[int]:
    """The port of a server on the host's loopback."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


GET = """
import sys, urllib.request
for url in sys.argv[1:]:
    try: print(urllib.request.urlopen(url, timeout=10).read().decode())
    except OSError as error: print("refused", error)
"""


@pytest.mark.parametrize("level", LEVELS)
def test_networks(level: str, execute: Execute, port: int) -> None:
    url = f"http://127.0.0.1:{port}/x"
    for network in ("none", "loopback"):
        options = ("--level", level, "--network", network, "--")
        assert execute(*options, PYTHON, "-I", "-c", GET, url)[1].startswith("refused")
    options = ("--level", level, "--network", "full", "--")
    assert execute(*options, PYTHON, "-I", "-c", GET, url)[1] == f"page /x for 127.0.0.1:{port}\n"


@pytest.mark.parametrize("level", LEVELS)
def test_listed_domains(level: str, execute: Execute, port: int) -> None:
    allow = ("--level", level, "--network", "allow", "--domain", f"localhost:{port}", "--")
    script = (
        f"export no_proxy= NO_PROXY=; {PYTHON} -I -c '{GET}' http://localhost:{port}/x "
        f"http://127.0.0.1:1/ http://example.org/; "
        f"{PYTHON} -I -c 'import socket; socket.create_connection((\"127.0.0.1\", {port}))'"
    )
    code, out, err = execute(*allow, "sh", "-c", script)
    listed, address, other = out.splitlines()
    assert listed == f"page /x for localhost:{port}"
    assert "403" in address and "403" in other
    assert code == 1 and "ConnectionRefusedError" in err
