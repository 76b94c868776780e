"""The doctor probes the layers of the sandbox and reports what it found."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from agentcli.sandbox import advice, bwrap, cgroup, landlock, policy, seccomp
from agentcli.sandbox.confine import Level, prepare
from agentcli.sandbox.doctor import probe
from agentcli.sandbox.process import Supervisor


async def test_every_layer_has_a_reason(supervisor: Supervisor) -> None:
    layers = await probe(supervisor)
    assert [layer.name for layer in layers][:2] == ["level", "namespaces"]
    assert all(layer.reason for layer in layers)
    found = {layer.name: layer.ok for layer in layers}
    expected = "full" if found["namespaces"] else "reduced" if found["reduced level"] else "none"
    assert layers[0].reason.startswith(f"level {expected}")
    assert (
        expected == "full"
        or "install bubblewrap" in layers[0].reason
        or "userns" in layers[0].reason
    )


async def test_no_level_is_missing_where_the_machine_has_it(
    supervisor: Supervisor, workspace: Path
) -> None:
    """Other tests skip a level that does not start, which would hide a fault of ours."""
    program = bwrap.program()
    namespaces = ["--unshare-user", "--unshare-pid", "--unshare-net", "--ro-bind", "/", "/"]
    line = [program or "false", *namespaces, "--proc", "/proc", "true"]
    expected: list[Level] = []
    if program is not None and subprocess.run(line, capture_output=True).returncode == 0:
        expected.append("full")
    if landlock.version() and seccomp.supported():
        expected.append("reduced")
    for wanted in expected:
        sandbox = await prepare(supervisor, policy.build(str(workspace)), wanted)
        assert sandbox.level == wanted
        sandbox.close()


async def test_what_the_layers_below_say(supervisor: Supervisor, tmp_path: Path) -> None:
    found = {layer.name: layer for layer in await probe(supervisor, near=str(tmp_path))}
    assert {"network", "control groups", "overlay", "reflink", "Landlock"} <= found.keys()
    assert found["control groups"].ok == (cgroup.find() is not None)
    assert str(tmp_path) in found["reflink"].reason
    if found["namespaces"].ok:
        assert found["network"].reason.startswith("commands have a loopback of their own")


def test_advice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bwrap, "PROGRAMS", ())
    assert advice.for_full(str(tmp_path)) == advice.INSTALL
    monkeypatch.setattr(bwrap, "PROGRAMS", ("/bin/sh",))
    assert "administrator" in advice.for_full(str(tmp_path))
    settings = tmp_path / "proc/sys/kernel"
    settings.mkdir(parents=True)
    (settings / "apparmor_restrict_unprivileged_userns").write_text("1\n")
    assert "AppArmor" in advice.for_full(str(tmp_path))
