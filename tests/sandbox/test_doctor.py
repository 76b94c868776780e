"""The doctor tries the layers and says what it found."""

from __future__ import annotations

from agentcli.sandbox.doctor import probe
from agentcli.sandbox.process import Supervisor


async def test_every_layer_has_a_reason(supervisor: Supervisor) -> None:
    layers = await probe(supervisor)
    assert [layer.name for layer in layers][:2] == ["level", "namespaces"]
    assert all(layer.reason for layer in layers)
    found = {layer.name: layer.ok for layer in layers}
    expected = "full" if found["namespaces"] else "reduced" if found["reduced level"] else "none"
    assert layers[0].reason == expected
