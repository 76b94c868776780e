"""Files that the host runs first when it uses a workspace's virtual environment, or its own shell.

An environment's interpreter, its ``activate`` scripts and what every start of its Python imports
are written once, when it is made. A command may make a new one, but not turn one that was there
into something else: the user activates it without looking. Programs in ``bin`` and ``.pth`` files
come and go with packages, whose installer records them with their digests: others may not come.

Covers: environments of the workspace by the usual names (``VENVS``); start files of shells and of
    git where the home folder lies in the workspace.
Does not cover: packages installed into the environment, nor what they bring along: they are what a
    command may be there to install.
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
"""In the home folder; files or folders."""

_IMPORTED = ("sitecustomize", "usercustomize")  # modules or packages


def of_venvs(root: str) -> dict[str, list[str]]:
    """The start files of each environment there is, relative to the workspace ``root``.

    All that packages brought is among them for which ``comes_with_packages`` is true.
    """
    found = {}
    for venv in VENVS:
        folder = os.path.join(root, venv)
        if os.path.isfile(os.path.join(folder, "pyvenv.cfg")) and not os.path.islink(folder):
            found[venv] = [f"{venv}/{path}" for path in _in_venv(folder)]
    return found


def comes_with_packages(path: str) -> bool:
    """Whether a start file is one that packages may bring and take along."""
    name = os.path.basename(path)
    if path.endswith(".pth"):
        return True
    in_bin = os.path.basename(os.path.dirname(path)) == "bin"
    return in_bin and not name.lower().startswith(("python", "activate"))


def is_recorded(venv: str, path: str, data: bytes) -> bool:
    """Whether a package in ``venv`` (its folder) says that it brought this file with this content.

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
    """``RC_FILES`` relative to a workspace that holds the home folder."""
    inside = os.path.relpath(home, workspace)
    return tuple(os.path.normpath(os.path.join(inside, name)) for name in RC_FILES)
