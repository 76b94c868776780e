"""The text of the macOS profile: its syntax, what it allows, and the order of its rules."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from agentcli.errors import SandboxError
from agentcli.sandbox import confine, macos, policy
from agentcli.sandbox.process import Supervisor


@pytest.fixture
def built(workspace: Path, tmp_path: Path) -> policy.Policy:
    host = {"HOME": str(tmp_path / "home"), "PATH": "/usr/bin:/bin"}
    return policy.build(str(workspace), host_env=host)


def forms(text: str) -> list[str]:
    """The top-level forms; fails on unclosed brackets or strings."""
    found, depth, start, quoted = [], 0, 0, False
    for place, letter in enumerate(text):
        if letter == '"' and text[place - 1] != "\\":
            quoted = not quoted
        elif not quoted and letter == "(":
            start = place if depth == 0 else start
            depth += 1
        elif not quoted and letter == ")":
            depth -= 1
            assert depth >= 0
            if depth == 0:
                found.append(" ".join(text[start : place + 1].split()))
    assert depth == 0 and not quoted
    return found


def test_everything_else_is_refused_first(built: policy.Policy) -> None:
    rules = forms(macos.profile(built, ["/private/home"]))
    assert rules[:2] == ["(version 1)", "(deny default)"]
    assert all(re.match(r"\((version|deny|allow) ", rule) for rule in rules)


def test_what_can_be_written(built: policy.Policy) -> None:
    rules = forms(macos.profile(built, ["/private/home", "/private/tmp-own"]))
    (written,) = [rule for rule in rules if rule.startswith("(allow file-write*")]
    folders = re.findall(r'\(subpath "([^"]+)"\)', written)
    assert folders == [built.workspace, "/private/home", "/private/tmp-own"]
    closed = [rule for rule in rules if rule.startswith("(deny file-write*")]
    assert f'(subpath "{built.workspace}/.git/hooks")' in closed[0]
    assert f'(literal "{built.workspace}/.git")' in closed[1]
    assert rules.index(closed[0]) > rules.index(written)  # the last matching rule wins


def test_the_file_worker_writes_the_workspace_only(built: policy.Policy) -> None:
    text = macos.profile(built, ["/private/home"], files_only=True)
    assert "/private/home" not in text


def test_home_is_not_readable(built: policy.Policy, tmp_path: Path) -> None:
    reads = " ".join(rule for rule in forms(macos.profile(built, [])) if "file-read*" in rule)
    assert f'"{tmp_path}/home"' not in reads and '(subpath "/")' not in reads
    assert "/Users" not in reads and "/private/var/root" not in reads


@pytest.mark.parametrize(("network", "permitted"), [("none", False), ("full", True)])
def test_network(network: policy.Network, permitted: bool, built: policy.Policy) -> None:
    text = macos.profile(replace(built, network=network), [])
    assert ("(allow network*)" in forms(text)) is permitted


@pytest.mark.parametrize("network", ["loopback", "allow"])
def test_networks_that_macos_has_not(network: policy.Network, built: policy.Policy) -> None:
    with pytest.raises(SandboxError, match=network):
        macos.profile(replace(built, network=network), [])


def test_names_cannot_end_a_string(built: policy.Policy) -> None:
    odd = replace(built, workspace='/a") (allow default) ("\\')
    text = macos.profile(odd, [])
    assert not any(rule.startswith("(allow default)") for rule in forms(text))
    assert '(subpath "/a\\") (allow default) (\\"\\\\")' in text
    with pytest.raises(SandboxError, match="control characters"):
        macos.profile(replace(built, workspace="/a\nb"), [])


async def test_it_is_chosen_by_the_platform(
    built: policy.Policy, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    sandbox = confine.Sandbox(built, "reduced")
    launch = sandbox.launch(("true",))
    assert launch.argv[:2] == (macos.PROGRAM, "-p") and launch.argv[3:] == ("true",)
    assert launch.seccomp is None and launch.landlock is None and launch.namespaces is None
    assert launch.env["HOME"] in launch.argv[2]
    sandbox.close()
    with pytest.raises(SandboxError, match="sandbox-exec"):  # not on a Mac
        await confine.prepare(supervisor, built)
