"""What one command may use: time, memory, tasks, disk and output."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """Upper bounds for one command and all that it starts.

    ``time_s`` in seconds of wall clock; ``memory_bytes`` per process and for the whole tree;
    ``file_bytes`` the largest file written and
    ``disk_bytes`` all growth of the disk; ``output_bytes`` kept per stream (start and end).
    """

    time_s: float = 120.0
    memory_bytes: int = 2048 * MIB
    tasks: int = 1024
    file_bytes: int = 2048 * MIB
    disk_bytes: int = 2048 * MIB
    open_files: int = 4096
    output_bytes: int = MIB


COMMAND = Limits()
CHECK = Limits(time_s=600.0)
IN_STREAM = Limits(time_s=5.0, memory_bytes=256 * MIB, tasks=32, file_bytes=64 * MIB)
