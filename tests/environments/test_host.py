"""The host environment: files through its worker, commands, and processes that die."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import signal
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agentcli.environments import worker as worker_module
from agentcli.environments.base import Environment, opened
from agentcli.environments.host import HostEnvironment
from agentcli.environments.worker import Worker, respond, too_slow
from agentcli.errors import EnvironmentOpError, SandboxError, WorkspaceError
from agentcli.sandbox.confine import Level
from agentcli.sandbox.limits import MIB, Limits
from tests.running import running_with, some_seconds


@pytest.fixture(params=["full", "reduced", "none"])
async def host(request: pytest.FixtureRequest, workspace: Path) -> AsyncIterator[HostEnvironment]:
    wanted: Level = request.param
    environment = HostEnvironment(workspace, wanted=wanted)
    try:
        await environment.start()
    except SandboxError as error:
        await environment.aclose()
        pytest.skip(error.line())
    yield environment
    await environment.aclose()


async def code_of(awaitable: object) -> str:
    with pytest.raises(EnvironmentOpError) as caught:
        await awaitable  # type: ignore[misc]
    return caught.value.code


async def test_level_is_shown(host: HostEnvironment) -> None:
    environment: Environment = host
    assert environment.level in ("full", "reduced", "none")
    assert (host.reason == "") == (host.level == "full")
    assert environment.operations == {"files", "process"}


async def test_read_and_write(host: HostEnvironment, workspace: Path) -> None:
    data = bytes(range(256)) * 20_000
    await host.write("a/b/c.bin", data)
    assert (workspace / "a/b/c.bin").read_bytes() == data
    assert await host.read("a/b/c.bin") == data
    assert await host.read(str(workspace / "a/b/c.bin"), max_bytes=10) == data[:10]
    await host.write("empty", b"")
    assert await host.read("empty") == b""
    assert sorted(os.listdir(workspace / "a/b")) == ["c.bin"]  # no temporary file remains


@pytest.mark.parametrize(
    "name", ["with space", "ünïcode €", "quote'\"", "new\nline", "-dash", "*?["]
)
async def test_unusual_names(name: str, host: HostEnvironment, workspace: Path) -> None:
    await host.write(name, b"x")
    assert (workspace / name).read_bytes() == b"x"
    assert await host.read(name) == b"x"
    assert [entry.name for entry in await host.list_dir(".")] == [name]
    found = await host.stat(name)
    assert found is not None and found.size == 1


async def test_mode_and_links_are_kept(host: HostEnvironment, workspace: Path) -> None:
    script = workspace / "run.sh"
    script.write_text("old")
    script.chmod(0o755)
    (workspace / "link").symlink_to("run.sh")
    await host.write("link", b"new")
    assert (workspace / "link").is_symlink() and script.read_text() == "new"
    assert stat.S_IMODE(script.stat().st_mode) == 0o755


def test_a_write_in_place_that_fails_keeps_what_was_there(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = workspace / "f"
    file.write_bytes(b"old" * 1000)
    plain = os.open

    def closed(path: str, flags: int, *rest: int) -> int:
        if flags & os.O_CREAT:
            raise PermissionError(errno.EACCES, "a folder that cannot be written")
        return plain(path, flags, *rest)

    monkeypatch.chdir(workspace)  # which a worker does too
    monkeypatch.setattr(os, "open", closed)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, before[1]))  # as a full disk would
    try:
        _, data = respond(Worker(str(workspace)), {"id": 1, "op": "read", "path": "f"}, b"")
        answer, _ = respond(
            Worker(str(workspace)), {"id": 2, "op": "write", "path": "f"}, b"new" * 9000
        )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert answer["error"][0] == "EFBIG" and file.read_bytes() == data == b"old" * 1000
    answer, _ = respond(Worker(str(workspace)), {"id": 3, "op": "write", "path": "f"}, b"new")
    assert "ok" in answer and file.read_bytes() == b"new"


async def test_conflicts(host: HostEnvironment, workspace: Path) -> None:
    await host.write("f", b"one")
    await host.write("f", b"two", expect=b"one")
    assert await code_of(host.write("f", b"three", expect=b"one")) == "CONFLICT"
    assert await code_of(host.write("new", b"three", expect=b"one")) == "CONFLICT"
    assert (workspace / "f").read_bytes() == b"two" and not (workspace / "new").exists()


async def test_faults_have_their_codes(host: HostEnvironment, workspace: Path) -> None:
    (workspace / "folder").mkdir()
    (workspace / "file").touch()
    os.mkfifo(workspace / "pipe")
    assert await code_of(host.read("missing")) == "ENOENT"
    assert await code_of(host.read("folder")) == "EISDIR"
    assert await code_of(host.read("pipe")) == "EINVAL"
    assert await code_of(host.write("folder", b"")) == "EISDIR"
    assert await code_of(host.write("file/below", b"")) in ("ENOTDIR", "EEXIST")
    assert await code_of(host.write("no/parent", b"", create_parents=False)) == "ENOENT"
    assert await code_of(host.list_dir("file")) == "ENOTDIR"
    assert await code_of(host.list_dir("missing")) == "ENOENT"
    assert await code_of(host.grep("(")) == "EINVAL"
    assert await code_of(host.read("zero\0byte")) == "EINVAL"
    assert await host.stat("missing") is None and await host.stat("file/below") is None


async def test_message_says_where_and_what(host: HostEnvironment) -> None:
    with pytest.raises(EnvironmentOpError, match=r"^stats\.py: no such file$"):
        await host.read("stats.py")


@pytest.mark.parametrize("way", ["absolute", "relative", "link", "folder link"])
async def test_nothing_outside_is_reached(
    way: str, host: HostEnvironment, workspace: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("s")
    (workspace / "link").symlink_to(outside / "secret")
    (workspace / "folder").symlink_to(outside)
    path = {
        "absolute": str(outside / "secret"),
        "relative": "../outside/secret",
        "link": "link",
        "folder link": "folder/secret",
    }[way]
    assert await code_of(host.read(path)) in ("ENOENT", "EACCES")
    with pytest.raises(EnvironmentOpError):
        await host.write(path, b"changed")
    assert (outside / "secret").read_text() == "s"
    assert os.listdir(outside) == ["secret"]


async def test_stat_and_list(host: HostEnvironment, workspace: Path) -> None:
    (workspace / "b").mkdir()
    (workspace / "a").write_text("12345")
    (workspace / "c").symlink_to("nowhere")
    entries = await host.list_dir(".")
    assert [(entry.name, entry.kind) for entry in entries] == [
        *(("a", "file"), ("b", "dir"), ("c", "link"))
    ]
    found = await host.stat("a")
    assert found is not None and (found.kind, found.size) == ("file", 5)


IGNORES = """
# comment
*.log
!keep.log
build/
/top
docs/**/draft.md
name\\ with\\ space
[ab].tmp
"""

TREE = {
    "a.log": False,
    "sub/b.log": False,
    "keep.log": True,
    "build/x": False,
    "sub/build/x": False,
    "top": False,
    "sub/top": True,
    "docs/draft.md": False,
    "docs/x/y/draft.md": False,
    "docs/final.md": True,
    "name with space": False,
    "a.tmp": False,
    "c.tmp": True,
    "sub/.gitignore": True,
    "sub/special.txt": False,
    "other/special.txt": True,
    ".gitignore": True,
    ".hidden/file": True,
}


async def test_ignore_rules(host: HostEnvironment, workspace: Path) -> None:
    for name in TREE:
        target = workspace / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text("needle\n")
    (workspace / ".gitignore").write_text(IGNORES + "# needle\n")
    (workspace / "sub/.gitignore").write_text("special.txt\n# needle\n")
    (workspace / ".git").mkdir()
    (workspace / ".git" / "HEAD").write_text("needle")
    expected = sorted(name for name, shown in TREE.items() if shown)
    assert await host.glob("**/*") == expected
    assert sorted({match.path for match in await host.grep("needle")}) == expected
    assert sorted({match.path for match in await host.grep("needle(?=)")}) == expected  # Python


async def test_a_byte_order_mark_is_no_part_of_an_ignore_rule(
    host: HostEnvironment, workspace: Path
) -> None:
    for name in ("a.py", "b.py"):
        (workspace / name).write_text("needle\n")
    (workspace / ".gitignore").write_text("\ufeffb.py\n")
    assert await host.glob("*.py") == ["a.py"]
    assert [match.path for match in await host.grep("needle(?=)")] == ["a.py"]


async def test_glob(host: HostEnvironment, workspace: Path) -> None:
    for name in ("a.py", "b.txt", "src/c.py", "src/deep/d.py", "src/deep/e.js"):
        (workspace / name).parent.mkdir(parents=True, exist_ok=True)
        (workspace / name).touch()
    assert await host.glob("*.py") == ["a.py"]
    assert await host.glob("**/*.py") == ["a.py", "src/c.py", "src/deep/d.py"]
    assert await host.glob("src/**") == ["src/c.py", "src/deep/d.py", "src/deep/e.js"]
    assert await host.glob("**/*.{js,txt}") == ["b.txt", "src/deep/e.js"]
    assert await host.glob("*.py", "src") == ["src/c.py"]
    assert await host.glob("**/*.py", limit=2) == ["a.py", "src/c.py"]
    assert await host.glob("**/[de].??") == ["src/deep/d.py", "src/deep/e.js"]
    assert await host.glob("*.rs") == []


@pytest.mark.parametrize("pattern", ["fo+", "(?<!x)fo+"])  # ripgrep rejects the second
async def test_grep(pattern: str, host: HostEnvironment, workspace: Path) -> None:
    (workspace / "a.py").write_text("foo\nbar\r\nFOO\n")
    (workspace / "sub").mkdir()
    (workspace / "sub/b.txt").write_bytes(b"caf\xe9 foo: x\n")
    (workspace / "binary").write_bytes(b"\0foo\n")
    found = [(match.path, match.line, match.text) for match in await host.grep(pattern)]
    assert found == [("a.py", 1, "foo"), ("sub/b.txt", 1, "caf� foo: x")]
    assert len(await host.grep(pattern, ignore_case=True)) == 3
    assert [match.path for match in await host.grep(pattern, glob="*.txt")] == ["sub/b.txt"]
    assert [match.path for match in await host.grep(pattern, "sub")] == ["sub/b.txt"]
    assert [match.path for match in await host.grep(pattern, "a.py")] == ["a.py"]
    assert len(await host.grep(pattern, limit=1)) == 1
    assert await host.grep("nothing-like-this") == []


@pytest.mark.parametrize("pattern", ["fo+", "(?<!x)fo+"])  # ripgrep rejects the second
@pytest.mark.parametrize(
    ("glob", "paths"),
    [
        ("*", ["a.py", "src/a.py", "src/c.js"]),
        ("**/*.py", ["a.py", "src/a.py"]),
        ("{src,other}/*.py", ["src/a.py"]),
        ("src/**", ["src/a.py", "src/c.js"]),
        ("/a.py", ["a.py"]),
        ("./a.py", ["a.py"]),
        ("!*.py", ["src/c.js"]),
        ("!src", ["a.py"]),
    ],
)
async def test_grep_by_glob(
    pattern: str, glob: str, paths: list[str], host: HostEnvironment, workspace: Path
) -> None:
    (workspace / ".gitignore").write_text("left_out.py\nbuild/\n")
    for name in ("a.py", "left_out.py", "src/a.py", "src/c.js", "build/d.py", ".git/config"):
        (workspace / name).parent.mkdir(exist_ok=True)
        (workspace / name).write_text("foo\n")
    assert [match.path for match in await host.grep(pattern, glob=glob)] == paths


async def test_many_calls_at_once(host: HostEnvironment) -> None:
    await asyncio.gather(*(host.write(f"f{n}", str(n).encode() * 1000) for n in range(50)))
    contents = await asyncio.gather(*(host.read(f"f{n}") for n in range(50)))
    assert contents == [str(n).encode() * 1000 for n in range(50)]


async def test_commands_run_in_the_workspace(host: HostEnvironment, workspace: Path) -> None:
    (workspace / "sub").mkdir()
    assert (await host.exec(["pwd"], limits=Limits())).stdout.strip() == str(workspace)
    result = await host.exec(
        ["sh", "-c", "pwd; echo $X; cat"], limits=Limits(), cwd="sub", env={"X": "y"}, stdin=b"in"
    )
    assert result.stdout == f"{workspace}/sub\ny\nin"


async def test_commands_that_cannot_start(host: HostEnvironment) -> None:
    missing = await host.exec(["no-such-program"], limits=Limits())
    assert missing.exit_code is None and missing.error == "no-such-program: no such program"
    folder = await host.exec(["true"], limits=Limits(), cwd="nowhere")
    assert folder.error == "nowhere: no such folder"


async def test_limits_reach_the_command(host: HostEnvironment) -> None:
    result = await host.exec(["sleep", "60"], limits=Limits(time_s=0.5))
    assert result.timed_out and result.exit_code is None
    result = await host.exec(["sh", "-c", "seq 1000000"], limits=Limits(output_bytes=500))
    assert result.truncated and result.success


async def test_cancelling_a_command(host: HostEnvironment, workspace: Path) -> None:
    started, mark = asyncio.Event(), some_seconds()
    task = asyncio.create_task(
        host.exec(
            ["sh", "-c", f"echo up; sleep {mark}; touch late"],
            limits=Limits(),
            on_output=lambda name, data: started.set(),
        )
    )
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not running_with(mark)  # neither the shell, whose line holds it, nor what it runs
    assert not (workspace / "late").exists()


async def test_cancelling_at_any_moment_leaves_nothing(host: HostEnvironment) -> None:
    async def start_and_cancel(number: int) -> None:
        mark = some_seconds()
        script = f"setsid sleep {mark}1 & (sleep {mark}2 &) ; sleep {mark}3"
        task = asyncio.create_task(host.exec(["sh", "-c", script], limits=Limits()))
        await asyncio.sleep(number * 0.005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not running_with(mark)

    await asyncio.gather(*(start_and_cancel(number) for number in range(20)))
    assert (await host.exec(["echo", "ok"], limits=Limits())).stdout == "ok\n"


async def test_a_dead_worker_is_reported_and_replaced(host: HostEnvironment) -> None:
    await host.write("f", b"kept")
    assert host._process is not None
    await host._process.kill()
    for _ in range(100):
        if host._link is None or host._link.closed:
            break
        await asyncio.sleep(0.01)
    assert await host.read("f") == b"kept"


async def test_a_worker_that_dies_during_a_call_says_so(
    host: HostEnvironment, workspace: Path
) -> None:
    (workspace / "big").touch()
    os.truncate(workspace / "big", 200 * MIB)
    task = asyncio.create_task(host.read("big"))
    await asyncio.sleep(0.01)
    assert host._process is not None
    await host._process.kill()
    with pytest.raises(EnvironmentOpError, match="worker died"):
        await task
    assert await host.stat("big") is not None


async def test_a_cancelled_call_leaves_the_next_one_right(
    host: HostEnvironment, workspace: Path
) -> None:
    (workspace / "big").touch()
    os.truncate(workspace / "big", 50 * MIB)
    (workspace / "small").write_bytes(b"small")
    task = asyncio.create_task(host.read("big"))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await host.read("small") == b"small"


async def test_nothing_is_left_after_closing(workspace: Path) -> None:
    environment = HostEnvironment(workspace)
    async with opened(environment):
        pid = environment._supervisor.pid
        assert pid is not None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_commands_without_a_worker(workspace: Path) -> None:
    environment = HostEnvironment(workspace)
    try:
        await environment.start(worker=False)
        assert (await environment.exec(["echo", "x"], limits=Limits())).stdout == "x\n"
        assert environment._link is None
    finally:
        await environment.aclose()


def test_workspace_must_be_a_folder(tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError):
        HostEnvironment(tmp_path / "missing")
    (tmp_path / "file").touch()
    with pytest.raises(WorkspaceError):
        HostEnvironment(tmp_path / "file")


async def test_pipes_do_not_stop_a_search(host: HostEnvironment, workspace: Path) -> None:
    os.mkfifo(workspace / "pipe")
    os.mkfifo(workspace / ".gitignore")
    (workspace / "a").write_text("x\n")
    assert await code_of(host.grep("x", "pipe")) == "EINVAL"
    assert await host.glob("*") == ["a"]
    # ripgrep rejects a look-ahead, so Python's own search runs.
    assert [match.path for match in await host.grep("(?=x)")] == ["a"]


async def test_an_expression_that_never_ends_is_given_up(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "SEARCH_S", 0.5)
    (workspace / "a").write_text("a" * 60 + "!\n")
    worker = Worker(str(workspace))
    before = signal.signal(signal.SIGALRM, too_slow)
    try:
        answer, _ = respond(worker, {"id": 1, "op": "grep", "pattern": "(a|a)*$", "limit": 9}, b"")
    finally:
        signal.signal(signal.SIGALRM, before)
        os.chdir("/")
    assert answer["error"][0] == "ETIMEDOUT" and "simpler pattern" in answer["error"][1]


async def test_what_cannot_start_says_why(host: HostEnvironment, workspace: Path) -> None:
    result = await host.exec(["sh", "-c", ": " + "x" * 200_000])
    assert result.error is not None and result.error.startswith("the command is longer than")
    workspace.rmdir()
    result = await host.exec(["true"])
    assert result.error == f"{workspace} (the workspace): no such folder"
