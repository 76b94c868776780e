"""Determines what a command may read, write and reach, before anything starts.

Reads are an allowlist: system folders, toolchains (including those in the home folder) and the
workspace. Nothing else of the home folder is visible inside, and HOME is a private, empty folder.

Covers: keys and other secrets in the environment; the user's files outside of toolchains; files
    with secrets below the home folder, if the workspace is that folder.
Does not cover: secrets in the workspace, or in a toolchain's own folder.
"""

from __future__ import annotations

import contextlib
import glob
import os
import re
import stat
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from agentcli.sandbox import etc, startup

Network = Literal["none", "loopback", "allow", "full"]
"""``none`` and ``loopback`` are a private network with only loopback. If the level cannot make one,
``none`` means no sockets at all, and ``loopback`` is not available. ``allow`` adds a proxy on that
loopback, for a list of domains. ``full`` is the host's own network."""

SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt", "/nix/store")

# In the home folder. Each holds programs, not data about the user.
_TOOLCHAINS = (
    *(".pyenv", ".rbenv", ".nodenv", ".goenv", ".nvm", ".volta", ".asdf", ".sdkman", ".bun"),
    *(".cargo/bin", ".cargo/registry", ".cargo/git", ".rustup", ".deno/bin"),
    *(".local/bin", ".local/lib", ".local/libexec"),
    *(".local/share/uv/python", ".local/share/uv/tools"),
    *(".local/share/mise", ".local/share/pipx", ".local/share/gem/ruby", ".gem/ruby"),
    *(".local/pipx", "go/bin", "go/pkg", ".nix-profile", "miniconda3", "anaconda3", "miniforge3"),
    *(".m2/repository", ".gradle/wrapper", ".ghcup", ".opam"),
)

# Masked if the workspace is the home folder or contains it.
_HOME_SECRETS = (
    *(".ssh", ".gnupg", ".aws", ".azure", ".kube", ".docker", ".config", ".netrc", ".npmrc"),
    *(".pypirc", ".git-credentials", ".password-store", ".mozilla", ".cargo/credentials.toml"),
    *(".local/share/keyrings", ".bash_history", ".python_history", ".pgpass", ".vault-token"),
    *(".local/share/agentcli", ".local/share/uv/credentials", ".gem/credentials", ".terraform.d"),
    *(".m2/settings.xml", ".m2/settings-security.xml", ".gradle/gradle.properties", ".my.cnf"),
    *(".cargo/credentials", ".zsh_history", ".psql_history", ".mysql_history", ".dockercfg"),
    *(".node_repl_history", ".s3cfg", ".boto", ".oci", ".subversion/auth", ".thunderbird"),
)

_PASSED = frozenset(
    (
        *("LANG", "LANGUAGE", "TZ", "TERM", "COLORTERM", "NO_COLOR", "FORCE_COLOR", "USER"),
        *("LOGNAME", "SHELL", "CI", "CC", "CXX", "CFLAGS", "CXXFLAGS", "CPPFLAGS", "LDFLAGS"),
        *("MAKEFLAGS", "PKG_CONFIG_PATH", "JAVA_HOME", "GOROOT", "GOPATH", "GOFLAGS"),
        *("GOTOOLCHAIN", "CARGO_HOME", "RUSTUP_HOME", "RUSTFLAGS", "RUSTUP_TOOLCHAIN"),
        *("PYENV_ROOT", "PYENV_VERSION", "NVM_DIR", "NODE_ENV", "NODE_OPTIONS", "PYTHONPATH"),
        *("PYTHONHASHSEED", "PYTHONUTF8", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED"),
        *("VIRTUAL_ENV", "CONDA_PREFIX", "SOURCE_DATE_EPOCH", "OMP_NUM_THREADS"),
    )
)
_SECRET_WORDS = ("KEY", "TOKEN", "SECRET", "PASSWORD", "PASSWD", "CREDENTIAL", "AUTH", "COOKIE")


@dataclass(frozen=True)
class Policy:
    """One workspace's rules. All paths are absolute and resolved.

    ``home`` is HOME inside; ``etc`` is the folder shown as /etc. ``hidden`` paths are masked;
    ``obeyed`` paths (relative to the workspace) are read-only, in addition to those that always
    are. ``quarantine`` is the folder for what a command planted. ``copy`` is a folder to mount in
    place of the workspace, for levels with private mounts. ``seen`` is where this process finds
    that folder if it is a mount that only the supervisor sees.
    """

    workspace: str
    home: str
    env: Mapping[str, str]
    read: tuple[str, ...]
    etc: str = "/etc"
    quarantine: str = ""
    hidden: tuple[str, ...] = ()
    write: tuple[str, ...] = ()
    network: Network = "none"
    domains: tuple[str, ...] = ()
    obeyed: tuple[str, ...] = ()
    gitconfig: bytes = b""
    system: tuple[str, ...] = field(default=SYSTEM)
    copy: str = ""
    seen: str = ""

    @property
    def place(self) -> str:
        """Where the supervisor finds the workspace's content."""
        return self.copy or self.workspace

    @property
    def place_here(self) -> str:
        """Where this process finds the workspace's content."""
        return self.seen or self.place

    def here(self, path: str) -> str:
        """Translate a path of the supervisor's into one of this process."""
        return (
            self.seen + path[len(self.copy) :] if self.seen and _within(path, self.copy) else path
        )

    @property
    def path(self) -> str:
        """The search path for programs."""
        return self.env["PATH"]


def build(
    workspace: str,
    *,
    network: Network = "none",
    domains: tuple[str, ...] = (),
    read: tuple[str, ...] = (),
    write: tuple[str, ...] = (),
    pass_env: tuple[str, ...] = (),
    host_env: Mapping[str, str] | None = None,
) -> Policy:
    """Determine the policy of a workspace.

    ``domains`` apply to the network ``allow``; ``destinations.py`` has their syntax. ``read`` and
    ``write`` add folders, ``pass_env`` adds variables. ``host_env`` replaces this process's
    environment.
    """
    host = dict(os.environ if host_env is None else host_env)
    workspace = os.path.realpath(workspace)
    real_home = os.path.realpath(host.get("HOME") or os.path.expanduser("~"))
    inside_home = _within(real_home, workspace)
    home = "/tmp/home" if inside_home else real_home
    path = _search_path(host.get("PATH", os.defpath), workspace, real_home, host)
    activated = [host[name] for name in ("VIRTUAL_ENV", "CONDA_PREFIX") if name in host]
    folders = _toolchains(real_home, path, workspace, activated)
    hidden = [os.path.join(real_home, name) for name in _HOME_SECRETS] if inside_home else []
    more = tuple(os.path.realpath(name) for name in read)
    survey = etc.survey()
    try:
        shadow = etc.copy(survey, _cache_folder(host, real_home))
    except OSError:
        shadow = etc.copy(survey, _own_temporary_folder())
    return Policy(
        workspace=workspace,
        home=home,
        env=_environment(host, home, path, pass_env),
        read=(*folders, *more),
        etc=shadow,
        obeyed=(
            *(startup.of_home(real_home, workspace) if inside_home else ()),
            *_hooks_folder(workspace, real_home),
        ),
        hidden=tuple(name for name in hidden if os.path.exists(name)),
        write=tuple(os.path.realpath(name) for name in write) + _git_folders(workspace),
        network=network,
        domains=domains,
        quarantine=_data_folder(host, real_home),
        gitconfig=_gitconfig(real_home),
    )


def _within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _environment(
    host: Mapping[str, str], home: str, path: str, pass_env: tuple[str, ...]
) -> dict[str, str]:
    """The allowed variables. One whose name sounds like a secret must be in ``pass_env``."""
    env = {
        name: value
        for name, value in host.items()
        if (name in _PASSED or name.startswith("LC_"))
        and not any(word in name.upper() for word in _SECRET_WORDS)
    }
    env.update({name: host[name] for name in pass_env if name in host})
    env.setdefault("LANG", "C.UTF-8")
    env.update(PATH=path, HOME=home, TMPDIR="/tmp", GIT_TERMINAL_PROMPT="0", PAGER="cat")
    env.setdefault("TERM", "dumb")
    return env


def _search_path(given: str, workspace: str, home: str, host: Mapping[str, str]) -> str:
    """The host's PATH, with the workspace's environment first and pyenv's folders before shims."""
    folders: list[str] = []
    for name in (".venv", "venv"):
        if os.path.isfile(os.path.join(workspace, name, "pyvenv.cfg")):
            folders.append(os.path.join(workspace, name, "bin"))
            break
    for folder in given.split(os.pathsep):
        if not os.path.isabs(folder):
            continue  # a relative entry would run programs of the workspace
        if folder.rstrip("/").endswith("/.pyenv/shims"):
            # A shim is a shell script that takes 170 ms; the folder it would choose is known.
            folders += _pyenv_folders(os.path.dirname(folder.rstrip("/")), workspace, host)
        folders.append(folder)
    return os.pathsep.join(dict.fromkeys(folders))


def _pyenv_folders(root: str, workspace: str, host: Mapping[str, str]) -> list[str]:
    names = host.get("PYENV_VERSION", "").split(":")
    files = [os.path.join(workspace, ".python-version"), os.path.join(root, "version")]
    for file in files:
        if any(names):
            break
        try:
            with open(file, encoding="utf-8") as stream:
                names = stream.read(4096).split()
        except (OSError, ValueError):
            continue
    found = []
    for name in names:
        folder = os.path.join(root, "versions", name, "bin")
        if name and "/" not in name and os.path.isdir(folder):
            found.append(folder)
    return found


def _toolchains(home: str, path: str, workspace: str, activated: list[str]) -> list[str]:
    """The folders with programs outside the system's own folders.

    ``activated`` are the Python environments that the user has activated.
    """
    wanted = [os.path.join(home, name) for name in _TOOLCHAINS]
    wanted += [sys.prefix, sys.base_prefix, os.path.dirname(os.path.realpath(sys.executable))]
    for folder in path.split(os.pathsep):
        if _is_toolchain(folder, home):
            wanted += [folder, *_installation(folder, home)]
            wanted += _environment_with_python(os.path.dirname(os.path.realpath(folder)))
    for prefix in activated:
        wanted += _environment_with_python(os.path.realpath(prefix))
    for name in (".venv", "venv"):
        wanted += _python_of(os.path.join(workspace, name))
    found: list[str] = []
    for folder in sorted({os.path.realpath(name) for name in wanted if os.path.exists(name)}):
        if any(_within(folder, above) for above in (*found, *SYSTEM)):
            continue
        if _within(folder, workspace) and folder != os.path.realpath(sys.prefix):
            continue  # agentcli's own installation, though, stays read-only even there
        if _within(home, folder) or folder == "/" or _within(workspace, folder):
            continue  # never the home folder or the workspace, nor a folder that contains them
        found.append(folder)
    return found


def _is_toolchain(folder: str, home: str) -> bool:
    return os.path.isdir(folder) and not _within(home, os.path.realpath(folder))


def _installation(folder: str, home: str) -> list[str]:
    """``prefix`` of a ``prefix/bin`` that has a ``prefix/lib``, where its programs look.

    Not for ``~/.local``, since its ``share`` and ``state`` are the user's data.
    """
    prefix, name = os.path.split(os.path.realpath(folder))
    if _within(os.path.join(home, ".local", "share"), prefix):
        return []
    return [prefix] if name == "bin" and os.path.isdir(os.path.join(prefix, "lib")) else []


def _environment_with_python(prefix: str) -> list[str]:
    """A virtual or conda environment, and the installation that its interpreter links to.

    Without the installation the link would be broken inside, and ``python`` silently another one.
    """
    marks = ("pyvenv.cfg", "conda-meta")
    if not any(os.path.exists(os.path.join(prefix, mark)) for mark in marks):
        return []
    return [prefix, *_python_of(prefix)]


def _python_of(environment: str) -> list[str]:
    """The installation behind a virtual environment, if it really is one.

    The environment may belong to the workspace and claim anything, so the folder it names must
    look like an installation of Python before it becomes visible.
    """
    found = []
    for link in glob.glob(os.path.join(environment, "bin", "python*")):
        program = os.path.realpath(link)
        prefix = os.path.dirname(os.path.dirname(program))
        if glob.glob(os.path.join(prefix, "lib", "python3*", "os.py")) and _is_program(program):
            found.append(prefix)
    return found


def _is_program(path: str) -> bool:
    return os.path.basename(path).startswith("python") and os.access(path, os.X_OK)


def _cache_folder(host: Mapping[str, str], home: str) -> str:
    base = host.get("XDG_CACHE_HOME") or os.path.join(home, ".cache")
    return os.path.join(base, "agentcli", "sandbox")


def _own_temporary_folder() -> str:
    """A folder that nobody else can have prepared, for when the cache folder is not writable."""
    folder = os.path.join(tempfile.gettempdir(), f"agentcli-cache-{os.getuid()}")
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder, 0o700)
    info = os.lstat(folder)
    if stat.S_ISDIR(info.st_mode) and info.st_uid == os.getuid() and not info.st_mode & 0o077:
        return folder
    return tempfile.mkdtemp(prefix="agentcli-cache-")


def _data_folder(host: Mapping[str, str], home: str) -> str:
    base = host.get("XDG_DATA_HOME") or os.path.join(home, ".local", "share")
    return os.path.join(base, "agentcli", "quarantine")


def _git_folders(workspace: str) -> tuple[str, ...]:
    """The real git folder of a linked worktree, if it points back to this workspace."""
    link = os.path.join(workspace, ".git")
    try:
        if not os.path.isfile(link) or os.path.islink(link):
            return ()
        with open(link, encoding="utf-8") as file:
            kind, _, target = file.read(4096).strip().partition(": ")
        folder = os.path.realpath(os.path.join(workspace, target))
        with open(os.path.join(folder, "gitdir"), encoding="utf-8") as file:
            back = os.path.realpath(os.path.join(folder, file.read(4096).strip()))
        with open(os.path.join(folder, "commondir"), encoding="utf-8") as file:
            common = os.path.realpath(os.path.join(folder, file.read(4096).strip()))
    except (OSError, ValueError):
        return ()
    # A .git file can claim anything; the link back proves it.
    genuine = kind == "gitdir" and back == link and _within(folder, common)
    return (common,) if genuine and os.path.isfile(os.path.join(common, "HEAD")) else ()


def _hooks_folder(workspace: str, home: str) -> tuple[str, ...]:
    """git's hooks folder, relative to the workspace; empty if it is elsewhere or in ``.git``."""
    found = ""
    repositories = (f"{workspace}/.git", *_git_folders(workspace))
    files = [f"{home}/.config/git/config", f"{home}/.gitconfig"]
    for file in (*files, *(f"{repository}/config" for repository in repositories)):
        found = dict(_git_settings(file)).get("core.hookspath", found)
    if found.endswith("/_"):  # husky: each hook in there runs the one of that name in its parent
        found = os.path.dirname(found)
    folder = os.path.realpath(os.path.join(workspace, found))
    relative = os.path.relpath(folder, workspace)
    inside = found and folder != workspace and _within(folder, workspace)
    return (relative,) if inside and relative.partition("/")[0] != ".git" else ()


def _git_settings(file: str) -> Iterator[tuple[str, str]]:
    """The settings of a git configuration in order: lower-case ``section.name``, and value."""
    section = ""
    try:
        with open(file, encoding="utf-8") as lines:
            for line in lines:
                line = line.strip()
                if line.startswith("["):
                    section = line.lower()[1:].partition("]")[0]
                key, _, value = (part.strip() for part in line.partition("="))
                quoted = value.startswith('"')
                value = value.split('"')[1] if quoted else re.split("[;#]", value)[0].rstrip()
                if value:
                    yield f"{section}.{key.lower()}", value
    except (OSError, ValueError):
        return


def _gitconfig(home: str) -> bytes:
    """The git configuration for the private HOME: the user's name, but no credentials."""
    settings = {key: value for key, value in _git_settings(f"{home}/.gitconfig") if value}
    given = (
        settings.get("user.name", "agentcli"),
        settings.get("user.email", "agentcli@localhost"),
    )
    quoted = [text.replace("\\", "").replace('"', "") for text in given]
    return (
        f'[user]\n\tname = "{quoted[0]}"\n\temail = "{quoted[1]}"\n'
        "[safe]\n\tdirectory = *\n[init]\n\tdefaultBranch = main\n[gc]\n\tauto = 0\n"
    ).encode()
