"""What one command may use: time, memory, tasks, disk and output.

Covers: a command with all that it starts. The kernel enforces the largest file, open files, core
    dumps (none) and, by ``cgroup.py``, memory and tasks; the warden measures the rest at intervals
    (``samples.py``).
Does not cover: CPU time, which a command shares with everyone; the number of files on a disk.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the supervisor's client does without pydantic
    from agentcli.settings import LimitSettings

MIB = 1024 * 1024


def amount(count: int) -> str:
    """Format a number of bytes for people, who set most limits in MiB."""
    return f"{count // MIB} MiB" if count >= MIB and count % MIB == 0 else f"{count} bytes"


@dataclass(frozen=True, slots=True)
class Limits:
    """Upper bounds for one command and all that it starts.

    ``time_s`` is wall-clock seconds; ``memory_bytes`` holds per process and for the whole tree.
    ``file_bytes`` is the largest file written, ``disk_bytes`` the growth of the disk in total.
    ``output_bytes`` are kept of each stream (its start and its end). With ``hard_memory`` a process
    cannot even reserve more than ``memory_bytes``: the allocation itself fails. Sanitizers and
    runtimes that reserve far more than they use cannot run then.
    """

    time_s: float = 120.0
    memory_bytes: int = 2048 * MIB
    tasks: int = 1024
    file_bytes: int = 2048 * MIB
    disk_bytes: int = 2048 * MIB
    open_files: int = 4096
    output_bytes: int = MIB
    hard_memory: bool = False


COMMAND = Limits()
CHECK = Limits(time_s=600.0)
IN_STREAM = Limits(
    time_s=5.0, memory_bytes=256 * MIB, tasks=32, file_bytes=64 * MIB, hard_memory=True
)


def of_settings(chosen: LimitSettings) -> Limits:
    """The limits of one command, from the user's settings."""
    return Limits(
        time_s=chosen.command_time_s,
        memory_bytes=chosen.memory_mib * MIB,
        tasks=chosen.tasks,
        file_bytes=chosen.disk_mib * MIB,
        disk_bytes=chosen.disk_mib * MIB,
        open_files=chosen.open_files,
        output_bytes=chosen.output_mib * MIB,
    )
