"""The files that the host runs first when it uses a virtual environment, or its own shell.

An environment's interpreter, its ``activate`` scripts and what every start of its Python imports
are written once, when the environment is created. A command may create a new environment, but not
change an existing one there: the user activates it without looking. Programs in ``bin`` and
``.pth`` files come and go with packages, whose installer records them with their digests. Those
without a record may not be added.

Covers: environments of the workspace with the usual names (``VENVS``); start files of shells and
    of git if the home folder lies in the workspace.
Does not cover: packages installed into the environment and their files, since installing packages
    may be what a command is for.
"""

from __future__ import annotations

import base64
import glob
import hashlib
import os
from collections.abc import Iterator

VENVS = (".venv", "venv", ".env", "env", ".virtualenv")
RC_FILES = (
    *(".bashrc", ".bash_profile", ".bash_login", ".bash_logout", ".bash_aliases", ".profile"),
    *(".zshrc", ".zshenv", ".zprofile", ".zlogin", ".zlogout", ".kshrc", ".inputrc", ".login"),
    *(".cshrc", ".tcshrc", ".gitconfig", ".pdbrc", ".tmux.conf", ".xprofile", ".xinitrc"),
    *(".Xresources", ".pam_environment", ".local/bin", ".local/share/applications"),
)
"""Files or folders in the home folder."""

_IMPORTED = ("sitecustomize", "usercustomize")  # modules or packages


def of_venvs(root: str) -> dict[str, list[str]]:
    """The start files of each existing environment, relative to the workspace ``root``.

    They include files that packages installed, if ``comes_with_packages`` is true for them.
    """
    found = {}
    for venv in VENVS:
        folder = os.path.join(root, venv)
        if os.path.isfile(os.path.join(folder, "pyvenv.cfg")) and not os.path.islink(folder):
            found[venv] = [f"{venv}/{path}" for path in _in_venv(folder)]
    return found


def comes_with_packages(path: str) -> bool:
    """Whether installing or removing packages may add or remove this start file."""
    name = os.path.basename(path)
    if path.endswith(".pth"):
        return True
    in_bin = os.path.basename(os.path.dirname(path)) == "bin"
    return in_bin and not name.lower().startswith(("python", "activate"))


def is_recorded(venv: str, path: str, data: bytes) -> bool:
    """Whether a package in ``venv`` (a folder) records this file with exactly this content.

    ``path`` is relative to the environment's parent. Source of the format: PEP 376 and 427.
    """
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    file = os.path.join(os.path.dirname(venv), path)
    for record in glob.iglob(f"{glob.escape(venv)}/lib/python*/site-packages/*.dist-info/RECORD"):
        site = os.path.dirname(os.path.dirname(record))
        wanted = f"{os.path.relpath(file, site)},sha256={digest},"
        try:
            with open(record, encoding="utf-8", errors="replace") as lines:
                if any(line.startswith(wanted) for line in lines):
                    return True
        except OSError:
            continue
    return False


def _in_venv(folder: str) -> Iterator[str]:
    yield "pyvenv.cfg"
    yield from (f"bin/{name}" for name in _names(os.path.join(folder, "bin")))
    for version in _names(os.path.join(folder, "lib")):
        if version.startswith("python"):
            site = f"lib/{version}/site-packages"
            for name in _names(os.path.join(folder, site)):
                if name.endswith(".pth") or name.partition(".")[0] in _IMPORTED:
                    yield f"{site}/{name}"


def _names(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def of_home(home: str, workspace: str) -> tuple[str, ...]:
    """``RC_FILES`` relative to a workspace that contains the home folder."""
    inside = os.path.relpath(home, workspace)
    return tuple(os.path.normpath(os.path.join(inside, name)) for name in RC_FILES)
