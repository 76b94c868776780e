"""All environments behave the same: this machine at both levels, a container, a remote machine."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio

from agentcli.environments.base import Environment
from agentcli.environments.docker import DockerEnvironment
from agentcli.environments.host import HostEnvironment
from agentcli.environments.ssh import SshEnvironment
from agentcli.errors import CapabilityError, EnvironmentOpError, SandboxError
from agentcli.messages import Image
from agentcli.sandbox.limits import MIB, Limits
from agentcli.sandbox.process import Supervisor
from agentcli.tools.base import ToolContext
from agentcli.tools.files import read_file
from tests.environments.far import IMAGE, FarEnd, survivors, with_argument
from tests.test_images import png

pytestmark = pytest.mark.asyncio(loop_scope="module")
KINDS = ("full", "reduced", "docker", "ssh")


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=KINDS)
async def shared(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, supervisor: Supervisor
) -> AsyncIterator[Environment]:
    """One environment of each kind for all tests, because starting one is slow."""
    root = tmp_path_factory.mktemp("shared") / "repo"
    root.mkdir()
    environment: HostEnvironment | SshEnvironment
    if request.param == "docker":
        program = request.getfixturevalue("cli")
        environment = DockerEnvironment(root, IMAGE, supervisor, program=program)
    elif request.param == "ssh":
        config = str(request.getfixturevalue("far").config)
        environment = SshEnvironment("far", str(root), supervisor, config=config)
    else:
        environment = HostEnvironment(root, supervisor, wanted=request.param)
    try:
        await environment.start()
    except SandboxError as error:
        await environment.aclose()
        pytest.skip(error.line())
    yield environment
    await environment.aclose()


@pytest.fixture
def workspace(shared: Environment) -> Path:
    """The root of the environment, emptied."""
    root = Path(shared.root)
    for path in root.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return root


@pytest.fixture
def place(shared: Environment, workspace: Path) -> Environment:
    """The environment, with an empty workspace."""
    return shared


async def code_of(awaitable: Any) -> str:
    with pytest.raises(EnvironmentOpError) as caught:
        await awaitable
    return caught.value.code


async def test_commands(place: Environment, workspace: Path) -> None:
    """Commands: folder, variables, input, output streams and exit codes."""
    assert place.operations == {"files", "process"} and place.root == str(workspace)
    (workspace / "sub").mkdir()
    script = "pwd; echo $X; cat; echo wrong >&2; echo made > made; exit 7"
    seen: list[tuple[str, bytes]] = []
    result = await place.exec(
        ("sh", "-c", script),
        limits=Limits(),
        cwd="sub",
        env={"X": "a b"},
        stdin=b"given\xff\n",
        on_output=lambda name, data: seen.append((name, data)),
    )
    assert (result.success, result.exit_code, result.error) == (False, 7, None)
    assert result.stdout == f"{workspace}/sub\na b\ngiven\ufffd\n" and result.stderr == "wrong\n"
    assert b"".join(data for name, data in seen if name == "stderr") == b"wrong\n"
    assert (workspace / "sub" / "made").read_text() == "made\n"
    info = (workspace / "sub" / "made").stat()
    assert (info.st_uid, info.st_gid) == (os.getuid(), os.getgid())
    killed = await place.exec(("sh", "-c", "kill -9 $$"), limits=Limits())
    assert killed.exit_code == 128 + signal.SIGKILL


async def test_commands_that_cannot_start(place: Environment) -> None:
    missing = await place.exec(("no-such-program",), limits=Limits())
    assert missing.exit_code is None and missing.error == "no-such-program: no such program"
    folder = await place.exec(("true",), limits=Limits(), cwd="nowhere")
    assert folder.exit_code is None and str(folder.error).endswith("nowhere: no such folder")


async def test_output_arrives_while_it_runs(place: Environment, workspace: Path) -> None:
    first = asyncio.Event()
    script = "echo one; until [ -e go ]; do sleep 0.05; done; echo two"
    task = asyncio.create_task(
        place.exec(
            ("sh", "-c", script), limits=Limits(time_s=100), on_output=lambda *_: first.set()
        )
    )
    await asyncio.wait_for(first.wait(), 60)
    assert not task.done()
    (workspace / "go").touch()
    assert (await task).stdout == "one\ntwo\n"


async def test_a_time_limit(place: Environment) -> None:
    word = f"7{os.getpid()}"
    script = f"echo before; sleep {word}1 & (sleep {word}2 &) ; sleep {word}3"
    for patience_s in (1, 30):  # on a busy machine, 1 s may end too early
        result = await place.exec(("sh", "-c", script), limits=Limits(time_s=patience_s))
        assert result.timed_out and result.exit_code is None
        if result.stdout:
            break
    assert result.stdout == "before\n" and result.error == f"timed out after {patience_s} s"
    assert survivors(f"{word}1") + survivors(f"{word}2") + survivors(f"{word}3") == []


async def test_cancelling_ends_all_of_it(place: Environment) -> None:
    word = f"8{os.getpid()}"
    begun = asyncio.Event()
    script = f"(sleep {word}1 &) ; sleep {word}2 & echo up; wait"
    task = asyncio.create_task(
        place.exec(("sh", "-c", script), limits=Limits(), on_output=lambda *_: begun.set())
    )
    await asyncio.wait_for(begun.wait(), 60)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert survivors(f"{word}1") + survivors(f"{word}2") == []
    assert (await place.exec(("echo", "ok"), limits=Limits())).stdout == "ok\n"


async def test_leftover_processes_are_killed(place: Environment) -> None:
    """A daemon that holds the pipe open delays nothing and is killed."""
    word = f"9{os.getpid()}"
    result = await place.exec(
        ("sh", "-c", f"(sleep {word} &) ; echo done"), limits=Limits(time_s=100)
    )
    assert result.success and result.stdout == "done\n"
    assert survivors(word) == []


async def test_leftover_processes_that_go_on_printing_do_not_hold_it(place: Environment) -> None:
    script = "(while :; do echo x; sleep 0.005; done) & echo done; exit 3"
    result = await place.exec(("sh", "-c", script), limits=Limits(time_s=60))
    assert result.exit_code == 3 and not result.timed_out and "done\n" in result.stdout
    assert result.duration_s < 30


async def test_output_that_is_too_long(place: Environment) -> None:
    result = await place.exec(("seq", "300000"), limits=Limits(output_bytes=2000))
    assert result.success and result.truncated and len(result.stdout) < 2100
    assert result.stdout.startswith("1\n2\n") and result.stdout.endswith("\n300000\n")
    assert "bytes left out ...]" in result.stdout and result.stderr == ""


async def test_files(place: Environment, workspace: Path) -> None:
    await place.write("a/b.txt", b"one\ntwo\n")
    assert (workspace / "a/b.txt").read_bytes() == b"one\ntwo\n"
    assert await place.read("a/b.txt") == await place.read(f"{workspace}/a/b.txt")
    assert await place.read("a/b.txt", max_bytes=2) == b"on"
    await place.write("a/b.txt", b"three\n", expect=b"one\ntwo\n")
    assert await code_of(place.write("a/b.txt", b"x", expect=b"one\n")) == "CONFLICT"
    found = await place.stat("a/b.txt")
    assert found is not None and (found.kind, found.size) == ("file", 6)
    assert await place.stat("missing") is None
    assert [(entry.name, entry.kind) for entry in await place.list_dir(".")] == [("a", "dir")]
    assert await code_of(place.read("missing")) == "ENOENT"
    assert await code_of(place.read("a")) == "EISDIR"
    assert await code_of(place.read("../outside")) in ("ENOENT", "EACCES")
    assert await code_of(place.read("/etc/shadow")) in ("ENOENT", "EACCES")


async def test_a_file_that_cannot_be_written_leaves_no_folders(
    place: Environment, workspace: Path
) -> None:
    (workspace / "old").mkdir()
    for folder in ("new/er", "old/new", "old"):
        assert await code_of(place.write(f"{folder}/{'a' * 300}", b"x")) == "ENAMETOOLONG"
        assert await code_of(place.write(f"{'b' * 300}/{folder}", b"x")) == "ENAMETOOLONG"
    assert os.listdir(workspace) == ["old"] and os.listdir(workspace / "old") == []


async def test_files_are_removed(place: Environment, workspace: Path) -> None:
    for name in ("a", "b", "folder/c"):
        await place.write(name, b"text")
    (workspace / "link").symlink_to("b")
    await place.remove("a")
    await place.remove("link")
    assert sorted(os.listdir(workspace)) == ["b", "folder"]
    assert await code_of(place.remove("b", expect=b"other")) == "CONFLICT"
    assert await code_of(place.remove("a")) == "ENOENT"
    assert await code_of(place.remove("folder")) == "EISDIR"
    assert await code_of(place.remove("../b")) in ("ENOENT", "EACCES", "EROFS", "EPERM")
    await place.remove("b", expect=b"text")
    assert os.listdir(workspace) == ["folder"]
    assert (await place.exec(("ls",), limits=Limits())).stdout == "folder\n"


async def test_searches(place: Environment, workspace: Path) -> None:
    for name in ("a.py", "b.txt", "src/c.py", "build/d.py"):
        await place.write(name, b"needle here\nother\n")
    await place.write(".gitignore", b"build/\n")
    assert await place.glob("**/*.py") == ["a.py", "src/c.py"]
    assert await place.glob("*", "src") == ["src/c.py"]
    matches = await place.grep("ne+dle", glob="*.py")
    assert [(match.path, match.line, match.text) for match in matches] == [
        ("a.py", 1, "needle here"),
        ("src/c.py", 1, "needle here"),
    ]
    assert len(await place.grep("OTHER", ignore_case=True)) == 3
    assert await code_of(place.grep("(")) == "EINVAL"


async def test_big_files_and_many_calls(place: Environment, workspace: Path) -> None:
    data = os.urandom(5 * MIB)
    await place.write("big.bin", data)
    assert (workspace / "big.bin").read_bytes() == data == await place.read("big.bin")
    names = [f"f{number}" for number in range(20)]
    await asyncio.gather(*(place.write(name, name.encode()) for name in names))
    commands = asyncio.gather(*(place.exec(("cat", name), limits=Limits()) for name in names[:3]))
    contents = await asyncio.gather(*(place.read(name) for name in names))
    assert contents == [name.encode() for name in names]
    assert [result.stdout for result in await commands] == names[:3]


NAMES = ("-dash", "new\nline", "quote'\" $x", "ünïcode", "\udcff\udcfe.bin")


async def test_an_image_is_shown(place: Environment, workspace: Path) -> None:
    (workspace / "a.png").write_bytes(png(640, 3))
    context = ToolContext(place, sees_images=lambda: True)
    shown = await read_file(context, "a.png")
    assert shown.content == "[image a.png: PNG, 640x3, 95 bytes]"
    assert shown.images == (Image(png(640, 3), "image/png", "a.png"),)


async def test_unusual_names(place: Environment, workspace: Path) -> None:
    for name in NAMES:
        await place.write(name, name.encode(errors="surrogateescape"))
        assert await place.read(name) == os.fsencode(name)
    assert sorted(os.listdir(os.fsencode(workspace))) == sorted(map(os.fsencode, NAMES))
    assert [entry.name for entry in await place.list_dir(".")] == sorted(NAMES)
    assert await place.glob("*") == sorted(NAMES)
    assert {match.path for match in await place.grep(".")} == set(NAMES)
    # Docker and Podman accept only UTF-8 arguments.
    known = NAMES[:-1] if place.level.startswith("docker") else NAMES
    shown = await place.exec(("cat", *(f"./{name}" for name in known)), limits=Limits())
    expected = b"".join(map(os.fsencode, known)).decode(errors="replace")
    assert (shown.stdout, shown.stderr) == (expected, "")


async def test_a_name_as_long_as_names_can_be(place: Environment, workspace: Path) -> None:
    name = "文" * 84 + ".py"  # 255 bytes
    for text in (b"one\n", b"two\n"):
        await place.write(name, text)
        assert (workspace / name).read_bytes() == text


async def test_a_worker_that_dies_is_started_anew(place: Environment, workspace: Path) -> None:
    (workspace / "f").write_bytes(bytes(60 * MIB))
    (workspace / "g").write_bytes(b"kept")
    task = asyncio.create_task(place.read("f"))
    await asyncio.sleep(0)
    for process in with_argument(str(workspace)):
        with contextlib.suppress(psutil.NoSuchProcess):  # it may have ended with its parent
            process.kill()
    with pytest.raises(EnvironmentOpError, match="worker died"):
        await task
    assert await place.read("g") == b"kept"


async def test_what_is_missing_is_said(tmp_path: Path, supervisor: Supervisor, far: FarEnd) -> None:
    for environment, what in (
        (
            SshEnvironment("far", "/nowhere", supervisor, config=str(far.config)),
            "/nowhere: no such",
        ),
        (SshEnvironment("nobody", "", supervisor, config="/dev/null"), "nobody"),
        (DockerEnvironment(tmp_path, "x", supervisor, program=("/bin/false",)), "docker:x"),
    ):
        with pytest.raises(CapabilityError, match=what):
            await environment.start()
        await environment.aclose()
