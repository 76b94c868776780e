"""The supervisor and its client: how commands start and end, and that nothing is left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agentcli.errors import EnvironmentOpError
from agentcli.sandbox.limits import MIB, Limits
from agentcli.sandbox.process import ExecResult, Launch, Supervisor
from agentcli.sandbox.streams import SAMPLE_BYTES, SAMPLE_EVERY_S
from tests.running import running_with, some_seconds, survivors

ENV = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}


async def run(supervisor: Supervisor, *argv: str, **more: Any) -> ExecResult:
    on_output = more.pop("on_output", None)
    return await supervisor.exec(Launch(argv, ENV, **more), on_output)


async def sh(supervisor: Supervisor, script: str, **more: Any) -> ExecResult:
    return await run(supervisor, "/bin/sh", "-c", script, **more)


async def test_output_and_status(supervisor: Supervisor) -> None:
    result = await sh(supervisor, "echo out; echo err >&2; exit 3")
    assert (result.success, result.exit_code) == (False, 3)
    assert (result.stdout, result.stderr, result.error) == ("out\n", "err\n", None)
    assert 0 < result.duration_s < 30


async def test_missing_program_is_a_result(supervisor: Supervisor) -> None:
    result = await run(supervisor, "no-such-program")
    assert not result.success and result.exit_code is None
    assert result.error == "no-such-program: No such file or directory"


async def test_missing_folder_is_a_result(supervisor: Supervisor) -> None:
    result = await run(supervisor, "true", cwd="/no/such/folder")
    assert result.error == "/no/such/folder: No such file or directory"


async def test_death_by_signal_counts_as_in_a_shell(supervisor: Supervisor) -> None:
    assert (await sh(supervisor, "kill -9 $$")).exit_code == 128 + 9


async def test_stdin_is_empty_or_the_given_bytes(supervisor: Supervisor) -> None:
    assert (await run(supervisor, "cat")).stdout == ""
    data = b"x" * 3_000_000
    result = await run(supervisor, "sha256sum", stdin=data)
    assert result.stdout.split()[0] == __import__("hashlib").sha256(data).hexdigest()


async def test_invalid_utf8_is_shown_replaced(supervisor: Supervisor) -> None:
    assert (await sh(supervisor, r"printf 'a\377b'")).stdout == "a�b"


async def test_output_streams_while_it_arrives(supervisor: Supervisor, tmp_path: Path) -> None:
    seen: list[tuple[str, bytes]] = []

    def on_output(name: str, data: bytes) -> None:
        seen.append((name, data))
        (tmp_path / "seen").touch()

    # The command goes on only once its first output has arrived.
    script = f"echo one; until [ -e {tmp_path}/seen ]; do sleep 0.01; done; echo two >&2"
    result = await sh(supervisor, script, on_output=on_output)
    assert result.success
    assert seen == [("stdout", b"one\n"), ("stderr", b"two\n")]


async def test_a_failing_reader_does_not_stop_the_command(supervisor: Supervisor) -> None:
    def fail(name: str, data: bytes) -> None:
        raise ValueError(name)

    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    assert (await sh(supervisor, "echo one; echo two", on_output=fail)).stdout == "one\ntwo\n"


async def test_long_output_keeps_start_and_end(supervisor: Supervisor) -> None:
    result = await sh(supervisor, "seq 1 1000000", limits=Limits(output_bytes=1000, time_s=100))
    assert result.success and result.truncated
    assert result.stdout.startswith("1\n2\n3\n") and result.stdout.endswith("999999\n1000000\n")
    assert "bytes left out" in result.stdout and len(result.stdout) < 1100


async def test_a_flood_of_output_costs_agentcli_nothing(supervisor: Supervisor) -> None:
    seen = 0

    def count(name: str, data: bytes) -> None:
        nonlocal seen
        seen += len(data)

    limits = Limits(output_bytes=MIB, time_s=100)
    result = await sh(supervisor, "yes | head -c 100000000", limits=limits, on_output=count)
    assert result.success and result.truncated and len(result.stdout) < MIB + 100
    # Besides the start, a sample at a time is shown: more of them where the machine is slow.
    samples = result.duration_s / SAMPLE_EVERY_S + 10
    assert seen < MIB + samples * SAMPLE_BYTES


async def test_time_limit(supervisor: Supervisor) -> None:
    result = await run(supervisor, "sleep", "60", limits=Limits(time_s=0.3))
    assert result.timed_out and result.exit_code is None and not result.success
    assert result.error == "timed out after 0.3 s"


async def test_memory_of_the_tree(supervisor: Supervisor) -> None:
    hungry = "import time; x = bytearray(60 * 2**20); time.sleep(30)"
    script = " & ".join(f"{sys.executable} -S -c '{hungry}'" for _ in range(4)) + "; wait"
    result = await sh(supervisor, script, limits=Limits(time_s=100, memory_bytes=128 * MIB))
    assert result.memory_exceeded and not result.success


async def test_memory_of_one_process(supervisor: Supervisor) -> None:
    script = "x = bytearray(b'x') * (500 * 2**20)"
    limits = Limits(time_s=100, memory_bytes=128 * MIB)
    result = await run(supervisor, sys.executable, "-S", "-c", script, limits=limits)
    assert not result.success
    assert result.memory_exceeded or "MemoryError" in result.stderr


async def test_tasks(supervisor: Supervisor) -> None:
    script = "i=0; while [ $i -lt 200 ]; do sleep 20 & i=$((i+1)); done; wait"
    result = await sh(supervisor, script, limits=Limits(time_s=100, tasks=50))
    assert not result.success and result.error == "used more than 50 tasks"


async def test_file_size(supervisor: Supervisor, tmp_path: Path) -> None:
    target = tmp_path / "big"
    result = await sh(
        supervisor, f"head -c 5000000 /dev/zero > '{target}'", limits=Limits(file_bytes=MIB)
    )
    assert not result.success and target.stat().st_size <= MIB


@pytest.mark.parametrize(
    "script",
    [
        "open(f'f{i}', 'wb').write(bytes(20_000_000))",
        "allocate(os.open(f'f{i}', os.O_CREAT | os.O_WRONLY), 0, 20_000_000)",
        "allocate(os.open('.', os.O_TMPFILE | os.O_WRONLY), 0, 20_000_000)",
    ],
    ids=["written", "allocated", "without a name"],
)
async def test_growth_of_the_disk(script: str, supervisor: Supervisor, tmp_path: Path) -> None:
    program = (
        f"import os, time\nallocate = os.posix_fallocate\nfor i in range(9): {script}\n"
        "time.sleep(20)"
    )
    limits = Limits(time_s=100, disk_bytes=50 * MIB)
    options = {"cwd": str(tmp_path), "disk_path": str(tmp_path), "limits": limits}
    result = await run(supervisor, sys.executable, "-S", "-c", program, **options)
    if result.exit_code is not None and "Errno 95" in result.stderr:
        pytest.skip("this file system allocates nothing ahead")
    assert result.error == "wrote more than 50 MiB"


async def test_background_child_does_not_hold_the_result(supervisor: Supervisor) -> None:
    seconds = some_seconds()
    result = await sh(supervisor, f"sleep {seconds} & echo done", limits=Limits(time_s=100))
    assert result.success and result.stdout == "done\n"
    assert not running_with(seconds)


async def test_daemon_in_its_own_session_is_found(supervisor: Supervisor) -> None:
    seconds = some_seconds()
    daemon = f"(setsid sh -c 'trap \"\" TERM HUP; sleep {seconds}' >/dev/null 2>&1 &)"
    result = await sh(supervisor, f"{daemon}; sleep 0.2; echo done")
    assert result.stdout == "done\n" and not running_with(seconds)


async def test_cancelling_kills_the_tree_before_it_returns(supervisor: Supervisor) -> None:
    started = asyncio.Event()
    seconds = some_seconds()
    task = asyncio.create_task(
        sh(
            supervisor,
            f"setsid sleep {seconds}1 & sleep {seconds}2 & echo up; wait",
            on_output=lambda name, data: started.set(),
        )
    )
    await started.wait()
    assert running_with(seconds)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not running_with(seconds)


async def test_many_at_once_keep_their_own_output(supervisor: Supervisor) -> None:
    jobs = [sh(supervisor, f"sleep 0.1; echo {number}") for number in range(40)]
    results = await asyncio.gather(*jobs)
    assert [int(result.stdout) for result in results] == list(range(40))


async def test_no_descriptor_is_inherited(supervisor: Supervisor) -> None:
    result = await sh(supervisor, "ls /proc/self/fd")
    assert set(result.stdout.split()) <= {"0", "1", "2", "3"}  # 3 is the folder being listed


async def test_environment_is_exactly_the_given_one(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    result = await run(supervisor, "env")
    names = {line.partition("=")[0] for line in result.stdout.splitlines()}
    assert names == set(ENV)


async def test_supervisor_itself_holds_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    supervisor = Supervisor()
    await run(supervisor, "true")
    try:
        environment = Path(f"/proc/{supervisor.pid}/environ").read_bytes()
        assert b"sk-secret" not in environment
    except PermissionError:
        pass  # even its parent may not look: it is not dumpable
    finally:
        await supervisor.aclose()


async def test_file_descriptors_reach_the_command(supervisor: Supervisor) -> None:
    result = await sh(supervisor, "cat <&7; cat <&8", files={7: b"seven ", 8: b"eight"})
    assert result.stdout == "seven eight"


async def test_closing_ends_commands(supervisor: Supervisor) -> None:
    own = Supervisor()
    started = asyncio.Event()
    seconds = some_seconds()
    launch = Launch(("sh", "-c", f"echo up; sleep {seconds}"), ENV)
    process = own.spawn(launch, lambda name, data: started.set())
    await started.wait()
    processes = running_with(seconds)
    assert processes
    await own.aclose()
    with pytest.raises(EnvironmentOpError):
        await process.wait()
    assert survivors(processes) == []


async def test_a_lost_supervisor_is_reported_and_replaced() -> None:
    own = Supervisor()
    seconds = some_seconds()
    task = asyncio.create_task(run(own, "sleep", seconds))
    await run(own, "true")
    assert own.pid is not None
    os.kill(own.pid, signal.SIGKILL)
    with pytest.raises(EnvironmentOpError, match="supervisor"):
        await task
    assert survivors(running_with(seconds)) == []  # the wardens clean up after it
    assert (await sh(own, "echo again")).stdout == "again\n"
    await own.aclose()


def test_two_event_loops_one_after_the_other() -> None:
    own = Supervisor()
    for word in ("one", "two"):
        assert asyncio.run(sh(own, f"echo {word}")).stdout == f"{word}\n"
    own.close()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_survives_agentcli(number: int, tmp_path: Path) -> None:
    seconds = some_seconds()
    script = f"""
import asyncio, sys
from agentcli.sandbox.process import Launch, Supervisor
async def main():
    supervisor = Supervisor()
    launch = Launch(("sh", "-c", "setsid sleep {seconds}1 & echo up; sleep {seconds}2"), {ENV!r})
    await supervisor.exec(launch, lambda name, data: print("up", flush=True))
asyncio.run(main())
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    processes = running_with(seconds)
    assert processes
    process.send_signal(number)
    process.wait()
    process.stdout.close()
    assert survivors(processes) == []
