"""Reads and writes safetensors files.

The format: eight bytes with the length of a JSON header, the header, then the bytes of the tensors.
Unlike the library, this reader copies without a second buffer, releases copied pages, and reports
exactly what is wrong with a file.
"""

from __future__ import annotations

import json
import mmap
import struct
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from agentcli.errors import CheckpointError

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
CODES = {dtype: code for code, dtype in DTYPES.items()}
SCALE = ".scale"


_MAX_HEADER = 100_000_000


def read_safetensors(path: Path) -> Iterator[tuple[str, Tensor]]:
    """Yield each tensor as a view of the mapped file, valid until the next one is read.

    Raises:
        CheckpointError: the file cannot be read, is truncated or not a safetensors file.
    """
    try:
        opened = path.open("rb")
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror}") from None
    with opened as file:
        header, start = _read_header(path, file.read(8), file)
        size = path.stat().st_size
        # A private mapping, because torch requires writable memory; nothing is written to it.
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as mapped:
            entries = sorted(header.items(), key=lambda item: item[1]["data_offsets"])
            for name, entry in entries:
                tensor, begin, end = _view(path, mapped, size, start, name, entry)
                yield name, tensor
                del tensor
                _release_pages(mapped, begin, end)


def expand_rows(tensors: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """Expand matrices stored as int8 (NAME) with a float32 scale per row (NAME.scale) to float32.

    Each tensor is valid until the next one is read. A matrix may come before or after its scales.

    Raises:
        CheckpointError: an int8 matrix has no scales.
    """
    scales: dict[str, Tensor] = {}
    pending: dict[str, Tensor] = {}
    buffer = torch.empty(0)
    for name, tensor in tensors:
        owner = name.removesuffix(SCALE)
        if owner != name:
            scales[owner] = tensor.clone()
        elif tensor.dtype != torch.int8:
            yield name, tensor
            continue
        elif name not in scales:
            pending[name] = tensor.clone()
            continue
        else:
            pending[name] = tensor
        matrix = pending.pop(owner, None)
        if matrix is not None:
            # Reuse one buffer: allocating fresh pages would cost more than the product.
            if buffer.numel() < matrix.numel():
                buffer = torch.empty(matrix.numel())
            expanded = buffer[: matrix.numel()].view(matrix.shape)
            yield owner, torch.mul(matrix, scales.pop(owner)[:, None], out=expanded)
    if pending:
        raise CheckpointError(f"{', '.join(sorted(pending)[:3])}: int8 without scales")


def _read_header(path: Path, length: bytes, file: Any) -> tuple[dict[str, Any], int]:
    if len(length) < 8:
        raise CheckpointError(f"{path}: truncated, not a safetensors file")
    (size,) = struct.unpack("<Q", length)
    if size > min(_MAX_HEADER, path.stat().st_size - 8):
        raise CheckpointError(f"{path}: truncated, or not a safetensors file")
    try:
        header = json.loads(file.read(size))
        header.pop("__metadata__", None)
        for entry in header.values():
            entry["shape"], entry["dtype"], _begin, _end = (
                [int(n) for n in entry["shape"]],
                str(entry["dtype"]),
                *(int(n) for n in entry["data_offsets"]),
            )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path}: damaged header ({error!r})") from None
    return header, 8 + size


def _view(
    path: Path, mapped: mmap.mmap, size: int, start: int, name: str, entry: Mapping[str, Any]
) -> tuple[Tensor, int, int]:
    dtype = DTYPES.get(entry["dtype"])
    if dtype is None:
        raise CheckpointError(f"{path}: {name} has unknown dtype {entry['dtype']}")
    begin, end = (start + offset for offset in entry["data_offsets"])
    count = 1
    for extent in entry["shape"]:
        count *= extent
    if end > size or begin < start:
        raise CheckpointError(f"{path}: truncated; {name} ends at byte {end} of {size}")
    if end - begin != count * dtype.itemsize:
        raise CheckpointError(f"{path}: {name} has {end - begin} bytes, its shape says otherwise")
    if count == 0:
        return torch.empty(entry["shape"], dtype=dtype), begin, end
    if begin % dtype.itemsize:  # the library never writes such files, but the format allows them
        data = torch.frombuffer(bytearray(mapped[begin:end]), dtype=dtype)
    else:
        data = torch.frombuffer(mapped, dtype=dtype, count=count, offset=begin)
    return data.view(entry["shape"]), begin, end


def _release_pages(mapped: mmap.mmap, begin: int, end: int) -> None:
    """Let the kernel drop copied pages, which would count as this process's memory."""
    first = begin - begin % mmap.PAGESIZE
    with suppress(AttributeError, OSError, ValueError):  # not every system has madvise
        mapped.madvise(mmap.MADV_DONTNEED, first, end - first)


def write_safetensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a file atomically: an interrupted write does not touch ``path``."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, tensor in tensors.items():
        header[name] = {
            "dtype": CODES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + tensor.nbytes],
        }
        offset += tensor.nbytes
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        file.write(struct.pack("<Q", len(encoded)) + encoded)
        for tensor in tensors.values():
            flat = tensor.detach().cpu().contiguous().view(-1).view(torch.uint8)
            data: Any = flat.numpy()
            file.write(data)
    partial.replace(path)
