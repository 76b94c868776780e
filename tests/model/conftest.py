"""Run the tests with one thread: more do not help tiny models, and hurt if cores are shared.

And without the native kernels, which an engine in a thread (``tests/llm``) loads for the process.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from agentcli.model import native


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    native.use(None)
    yield
    torch.set_num_threads(before)
