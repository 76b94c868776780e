"""``--executor ray``: the tasks of a batch on the machines of a Ray cluster.

A task's copy of the workspace is sent to the machine that runs it, which returns the changes and
the session. The machines need no shared disk, only agentcli and the environment variables of the
command (keys). Ray itself never retries a task: if its machine is lost, the task is marked as
interrupted in the batch's journal and starts again elsewhere from the same copy. What a task
returns is first saved on this machine's disk, so that the task never runs twice, even if this
process dies before the files and the session have been unpacked.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agentcli import extras
from agentcli.cli.batch import Batch, finish, interrupted, is_repository
from agentcli.cli.batch_jobs import BatchOptions, Job, failed, job_of, run_job
from agentcli.cli.errors import show_note
from agentcli.errors import AgentCLIError, ConfigError, InternalError
from agentcli.sandbox.git import git
from agentcli.session import store
from agentcli.text import one_line
from agentcli.workspace_archive import changed, listing, pack, unpack

_MOST_LOST = 3
"""How often a task is started again because its machine was lost."""
_PATIENCE_S = 20.0


@dataclass(frozen=True)
class Sent:
    """A task to send to a machine; ``text`` is the content of its file."""

    job: Job
    text: str
    repository: bool
    """Whether the workspace is a git repository; its history is not sent."""


@dataclass(frozen=True)
class Done:
    """What a machine returns: the result, changed files, names of deleted ones, the session."""

    result: dict[str, Any]
    archive: bytes = b""
    gone: tuple[str, ...] = ()
    session: bytes = b""

    def save(self, file: Path) -> None:
        """Write this to a file, atomically.

        Raises:
            OSError: the file cannot be written.
        """
        packed = {name: base64.b64encode(getattr(self, name)).decode() for name in _PACKED}
        text = json.dumps({"result": self.result, "gone": self.gone, **packed})
        part = file.with_name(f"{file.name}.part")
        with part.open("w", encoding="utf-8") as opened:
            opened.write(text)
            opened.flush()
            os.fsync(opened.fileno())
        part.replace(file)

    @classmethod
    def load(cls, file: Path) -> Done:
        """Read what ``save`` wrote."""
        told = json.loads(file.read_text("utf-8"))
        packed = {name: base64.b64decode(told[name]) for name in _PACKED}
        return cls(told["result"], gone=tuple(told["gone"]), **packed)


_PACKED = ("archive", "session")


async def run_ray(
    batch: Batch,
    options: BatchOptions,
    jobs: int | None,
    on_begin: Callable[[str], None],
    on_end: Callable[[str, dict[str, Any]], None],
) -> None:
    """Run all open tasks of a batch on a cluster, ``jobs`` at a time (None: one per CPU).

    The cluster is the one at RAY_ADDRESS or running on this machine, else a new one.

    Raises:
        ConfigError: the extra ``ray`` is not installed, or the cluster cannot be reached.
    """
    ray = await asyncio.to_thread(_connected)
    remote = ray.remote(max_retries=0, max_calls=1, num_cpus=1)(work)
    cpus, free = (
        int(known().get("CPU", 0)) for known in (ray.cluster_resources, ray.available_resources)
    )
    if free < cpus or not cpus:
        show_note(f"{free} of {cpus} CPUs of the cluster are free: tasks wait until there is one")
    slots = asyncio.Semaphore(jobs or max(1, cpus))

    async def one(name: str) -> None:
        async with slots:
            on_begin(name)
            done = await _ended(name)
            await asyncio.to_thread(done.save, batch.arrival_of(name))
            await asyncio.to_thread(_settle, batch, name)
            if name in batch.ended:
                on_end(name, batch.ended[name])

    async def _ended(name: str) -> Done:
        for _ in range(_MOST_LOST):
            try:
                # The copy is still untouched: a task's changes are written there at its end.
                job = await asyncio.to_thread(job_of, batch, name, options)
                text = Path(job.file).read_text("utf-8")
                sent = Sent(replace(job, session=None), text, is_repository(batch.workspace))
                archive = await asyncio.to_thread(pack, Path(job.folder))
            except AgentCLIError as error:
                return Done(failed(error))
            reference = remote.remote(sent, archive)
            try:
                done: Done = await asyncio.wrap_future(reference.future())
                return done
            except asyncio.CancelledError:
                ray.cancel(reference, force=True)
                raise
            except ray.exceptions.RayTaskError as error:
                return Done(failed(InternalError(one_line(f"{error.cause!r}", 300))))
            except ray.exceptions.RayError as error:
                interrupted(batch, name, type(error).__name__)
                show_note(
                    f"{name}: the machine that worked on it was lost ({type(error).__name__})"
                )
                last = type(error).__name__
        return Done(failed(InternalError(f"its machine was lost {_MOST_LOST} times: {last}")))

    try:
        async with asyncio.TaskGroup() as group:
            for name in batch.open:
                group.create_task(one(name))
    finally:
        ray.shutdown()


def settled(batch: Batch) -> Iterator[str]:
    """Record the results that a process saved before it died; yields their tasks."""
    for name in batch.open:
        if batch.arrival_of(name).exists():
            _settle(batch, name)
            if name in batch.ended:
                yield name


def _settle(batch: Batch, name: str) -> None:
    """Unpack what a machine returned and record the result; idempotent."""
    arrived = batch.arrival_of(name)
    done = Done.load(arrived)
    if done.session:
        unpack(done.session, store.sessions_dir())
    if done.archive or done.gone:
        unpack(done.archive, batch.copy_of(name), done.gone)
    finish(batch, name, done.result)
    arrived.unlink()


def work(sent: Sent, archive: bytes) -> Done:
    """Run one task; called by Ray on the machine of its choice."""
    with tempfile.TemporaryDirectory(prefix="agentcli-ray-") as folder:
        # The session is sent back from here; the process ends with the task.
        os.environ["AGENTCLI_DATA_DIR"] = f"{folder}/data"
        place = Path(folder) / "work"
        unpack(archive, place)
        if sent.repository:
            _commit_all(place)
        file = Path(folder) / Path(sent.job.file).name
        file.write_text(sent.text, "utf-8")
        before = listing(place)
        job = replace(sent.job, file=str(file), folder=str(place))
        try:
            result = asyncio.run(run_job(job))
        except AgentCLIError as error:
            return Done(failed(error))
        files, gone = changed(place, before)
        return Done(result, pack(place, files) if files else b"", gone, pack(store.sessions_dir()))


def _commit_all(place: Path) -> None:
    identity = ("-c", "user.name=agentcli", "-c", "user.email=agentcli@localhost")
    for command in (
        ("init", "-q"),
        ("add", "--all", "--force"),
        (*identity, "commit", "-q", "--allow-empty", "--no-verify", "-m", "The workspace"),
    ):
        git(place, *command, environ=os.environ)


def _connected() -> Any:
    # Without this, Ray reports usage to its developers.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise ConfigError("--executor ray needs Ray", hint=extras.install("ray")) from error
    logging.getLogger("ray").setLevel(logging.ERROR)  # the import has set another level
    address = os.environ.get("RAY_ADDRESS", "")
    try:
        _answers(address)
        if not ray.is_initialized():
            ray.init(log_to_driver=False, include_dashboard=False, configure_logging=False)
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        raise ConfigError(f"no Ray cluster {address or 'on this machine'}: {error}") from error
    return ray


def _answers(address: str) -> None:
    """Check that a host and port can be reached; Ray itself would try for many minutes.

    Raises:
        OSError: they cannot be reached.
    """
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), _PATIENCE_S).close()
