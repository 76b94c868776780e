"""What a policy allows, for environments and folders made by the test."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from agentcli.sandbox import etc, policy, seccomp
from agentcli.sandbox.confine import Sandbox


def build(workspace: Path, home: Path, **env: str) -> policy.Policy:
    home.mkdir(exist_ok=True)
    host = {"HOME": str(home), "PATH": "/usr/bin:/bin", **env}
    return policy.build(str(workspace), host_env=host)


def test_environment_is_an_allowlist(workspace: Path, tmp_path: Path) -> None:
    built = build(
        workspace,
        tmp_path / "home",
        OPENAI_API_KEY="sk-1",
        AWS_SECRET_ACCESS_KEY="x",
        SSH_AUTH_SOCK="/run/x",
        RANDOM="y",
        LC_TIME="C",
        LD_PRELOAD="evil.so",
        LC_TOKEN="z",
        LANG="de_DE.UTF-8",
    )
    assert set(built.env) == {
        *("PATH", "HOME", "LANG", "LC_TIME", "TERM", "TMPDIR", "PAGER", "GIT_TERMINAL_PROMPT")
    }
    assert built.env["LANG"] == "de_DE.UTF-8"


def test_variables_can_be_passed_by_name(workspace: Path, tmp_path: Path) -> None:
    host = {"HOME": str(tmp_path), "PATH": "/bin", "MY_TOKEN": "1", "OTHER": "2"}
    built = policy.build(str(workspace), host_env=host, pass_env=("MY_TOKEN",))
    assert built.env["MY_TOKEN"] == "1" and "OTHER" not in built.env


def test_toolchains_of_the_home_folder_but_nothing_else(workspace: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    for name in (".cargo/bin", ".nvm/versions", "tools/bin", ".ssh", ".config", "Documents"):
        (home / name).mkdir(parents=True)
    (home / "node" / "bin").mkdir(parents=True)
    (home / "node" / "lib").mkdir()
    (home / "lib").mkdir()
    (home / "bin").mkdir()
    built = build(workspace, home, PATH=f"{home}/tools/bin:/usr/bin:{home}/node/bin:{home}/bin")
    inside = {path[len(str(home)) + 1 :] for path in built.read if path.startswith(str(home))}
    assert inside == {".cargo/bin", ".nvm", "tools/bin", "node", "bin"}


def test_the_users_data_beside_programs_is_not_shown(workspace: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    for name in ("bin", "lib", "share/keyrings", "share/uv/tools", "share/uv/credentials"):
        (home / ".local" / name).mkdir(parents=True)
    (home / ".gem/ruby").mkdir(parents=True)
    built = build(workspace, home, PATH=f"{home}/.local/bin:/usr/bin")
    inside = {path[len(str(home)) + 1 :] for path in built.read if path.startswith(str(home))}
    assert inside == {".local/bin", ".local/lib", ".local/share/uv/tools", ".gem/ruby"}


def test_home_on_the_search_path_is_not_shown(workspace: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    built = build(workspace, home, PATH=f"{home}:/usr/bin:{tmp_path}")
    assert str(home) not in built.read and str(tmp_path) not in built.read


def test_relative_entries_leave_the_search_path(workspace: Path, tmp_path: Path) -> None:
    assert build(workspace, tmp_path / "home", PATH=".:bin:/usr/bin").path == "/usr/bin"


def test_pyenv_shims_give_way_to_the_version(workspace: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    for name in ("3.11.7", "3.12.1"):
        (home / ".pyenv/versions" / name / "bin").mkdir(parents=True)
    (home / ".pyenv/shims").mkdir()
    (home / ".pyenv/version").write_text("3.11.7\n")
    path = f"{home}/.pyenv/shims:/usr/bin"
    assert build(workspace, home, PATH=path).path.startswith(f"{home}/.pyenv/versions/3.11.7/bin:")
    (workspace / ".python-version").write_text("3.12.1\n")
    assert build(workspace, home, PATH=path).path.startswith(f"{home}/.pyenv/versions/3.12.1/bin:")
    (workspace / ".python-version").write_text("../../../.ssh\n")
    assert build(workspace, home, PATH=path).path == path


def test_a_false_virtual_environment_shows_nothing(workspace: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secrets" / "bin"
    secret.mkdir(parents=True)
    (secret / "python3").touch(mode=0o755)
    (workspace / ".venv" / "bin").mkdir(parents=True)
    (workspace / ".venv" / "pyvenv.cfg").write_text(f"home = {secret}\n")
    (workspace / ".venv" / "bin" / "python").symlink_to(secret / "python3")
    built = build(workspace, tmp_path / "home")
    assert not any("secrets" in path for path in built.read)


@pytest.mark.parametrize("activated", ["PATH", "VIRTUAL_ENV", "CONDA_PREFIX"])
def test_an_activated_environment_is_shown_with_its_base(
    workspace: Path, tmp_path: Path, activated: str
) -> None:
    base = tmp_path / "base"
    (base / "lib/python3.11").mkdir(parents=True)
    (base / "lib/python3.11/os.py").touch()
    (base / "bin").mkdir()
    (base / "bin/python3.11").touch(0o755)
    environment = tmp_path / "home/.virtualenvs/x"
    (environment / "bin").mkdir(parents=True)
    (environment / "bin/python").symlink_to(base / "bin/python3.11")
    mark = "conda-meta" if activated == "CONDA_PREFIX" else "pyvenv.cfg"
    (environment / mark).touch()
    value = f"{environment}/bin:/usr/bin" if activated == "PATH" else str(environment)
    built = build(workspace, tmp_path / "home", **{activated: value})
    assert {str(environment), str(base)} <= set(built.read)


def test_a_folder_is_no_environment_because_a_variable_says_so(
    workspace: Path, tmp_path: Path
) -> None:
    (tmp_path / "home/Documents").mkdir(parents=True)
    documents = str(tmp_path / "home/Documents")
    assert documents not in build(workspace, tmp_path / "home", VIRTUAL_ENV=documents).read


def test_a_false_git_link_shows_nothing(workspace: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    (other / "worktrees" / "x").mkdir(parents=True)
    (other / "HEAD").touch()
    (other / "worktrees" / "x" / "commondir").write_text("../..\n")
    (other / "worktrees" / "x" / "gitdir").write_text("/elsewhere/.git\n")
    (workspace / ".git").write_text(f"gitdir: {other}/worktrees/x\n")
    assert build(workspace, tmp_path / "home").write == ()
    (other / "worktrees" / "x" / "gitdir").write_text(f"{workspace}/.git\n")
    assert build(workspace, tmp_path / "home").write == (str(other),)


def test_home_as_workspace_gets_another_home_and_hides_secrets(tmp_path: Path) -> None:
    (tmp_path / ".ssh").mkdir()
    built = policy.build(str(tmp_path), host_env={"HOME": str(tmp_path), "PATH": "/bin"})
    assert built.home == "/tmp/home" and built.hidden == (str(tmp_path / ".ssh"),)


def test_identity_but_no_credentials(workspace: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / ".gitconfig").write_text(
        '[credential]\n\thelper = store\n[user]\n\tname = Ada "L"\n\temail = ada@example.org\n'
    )
    config = build(workspace, home).gitconfig.decode()
    assert "Ada L" in config and "ada@example.org" in config and "helper" not in config


def test_etc_without_what_not_everybody_may_read(tmp_path: Path) -> None:
    root = tmp_path / "etc"
    (root / "open").mkdir(parents=True)
    (root / "closed").mkdir(mode=0o700)
    (root / "open" / "file").write_text("1")
    (root / "open" / "secret").write_text("2")
    (root / "open" / "secret").chmod(0o640)
    (root / "link").symlink_to("open/file")
    survey = etc.survey(str(root))
    assert set(survey.hidden) == {str(root / "closed"), str(root / "open" / "secret")}
    assert set(etc.shown(survey, str(root))) == {*(str(root / "link"), str(root / "open" / "file"))}
    copy = Path(etc.copy(survey, str(tmp_path / "cache"), str(root)))
    assert (copy / "link").read_text() == "1"
    assert sorted(os.listdir(copy)) == ["link", "open"] and os.listdir(copy / "open") == ["file"]
    assert etc.copy(survey, str(tmp_path / "cache"), str(root)) == str(copy)
    (root / "link").unlink()
    (root / "link").symlink_to("open")  # the survey looks at its folder, not at the link
    again = Path(etc.copy(etc.survey(str(root)), str(tmp_path / "cache"), str(root)))
    assert os.readlink(again / "link") == "open" and os.readlink(copy / "link") == "open/file"


def test_a_home_that_cannot_be_written(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    blocked = tmp_path / "file"
    blocked.touch()
    host = {"HOME": str(tmp_path / "home"), "PATH": "/bin", "XDG_CACHE_HOME": str(blocked)}
    built = policy.build(str(workspace), host_env=host)
    assert built.etc.startswith(f"{tmp_path}/agentcli-cache-{os.getuid()}/etc-")
    assert policy.build(str(workspace), host_env=host).etc == built.etc


def test_hooks_in_the_working_tree_are_read_only(workspace: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (workspace / ".git").mkdir()
    for named, obeyed in (
        (".githooks", (".githooks",)),
        (f'"{workspace}/tools/hooks"', ("tools/hooks",)),
        (".husky/_", (".husky",)),
        ("hooks ; of the team", ("hooks",)),
        ('"a#b" # a name', ("a#b",)),
        *((elsewhere, ()) for elsewhere in (".", ".git/hooks", "/etc", "../hooks")),
    ):
        (workspace / ".git/config").write_text(f"[core]\n\tbare = false\n\thooksPath = {named}\n")
        assert build(workspace, home).obeyed == obeyed
    (workspace / ".git/config").write_text("[core]\n\tbare = false\n")
    (home / ".gitconfig").write_text("[user]\nname = a\n[core]\nhookspath = hooks\n")
    assert build(workspace, home).obeyed == ("hooks",)
    (home / ".gitconfig").rename(home / "config")
    (home / ".config/git").mkdir(parents=True)
    (home / "config").rename(home / ".config/git/config")
    assert build(workspace, home).obeyed == ("hooks",)


def test_hooks_in_a_linked_working_tree_are_read_only(workspace: Path, tmp_path: Path) -> None:
    common = tmp_path / "main/.git"
    linked = common / "worktrees/x"
    linked.mkdir(parents=True)
    (common / "HEAD").write_text("ref: refs/heads/main\n")
    (common / "config").write_text("[core]\n\thooksPath = .githooks\n")
    (linked / "commondir").write_text("../..\n")
    (linked / "gitdir").write_text(f"{workspace}/.git\n")
    (workspace / ".git").write_text(f"gitdir: {linked}\n")
    assert build(workspace, tmp_path / "home").obeyed == (".githooks",)


def test_private_folders_of_killed_processes_are_removed(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "tmp"
    abandoned = temporary / "agentcli-scratch-999999999-x" / "home"
    abandoned.mkdir(parents=True)
    other = temporary / f"agentcli-scratch-{os.getpid()}-x"
    other.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    sandbox = Sandbox(build(workspace, tmp_path / "home"), "reduced")
    sandbox.launch(("true",))
    assert not abandoned.exists() and other.exists()
    sandbox.close()
    assert os.listdir(temporary) == [other.name]


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_filters_are_well_formed(machine: str) -> None:
    program = seccomp.build((1, 2, 10, 16), machine)
    assert len(program) % 8 == 0
    count = len(program) // 8
    assert 50 < count < 4096  # the kernel's limit
    for index in range(count):
        code = int.from_bytes(program[index * 8 : index * 8 + 2], "little")
        if code & 0x07 == 0x05:  # a jump must stay inside
            assert index + 1 + max(program[index * 8 + 2], program[index * 8 + 3]) < count
    assert int.from_bytes(program[-8:-6], "little") == 0x06
