"""Weight-only quantisation: matrices in 8 or 4 bits, activations as they are."""

from __future__ import annotations

from typing import Literal

from agentcli.model.gpt import GPT

Scheme = Literal["int8", "int4"]


def quantize_model(model: GPT, scheme: Scheme) -> None:
    raise NotImplementedError
