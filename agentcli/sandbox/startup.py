"""Files that the host runs first when it uses a workspace's virtual environment, or its own shell.

An environment's interpreter, its ``activate`` scripts and what every start of its Python imports
are written once, when it is made. A command may make a new one, but not turn one that was there
into something else: the user activates it without looking.

Covers: ``.venv`` and ``venv`` of the workspace; start files of shells and of git where the home
    folder lies in the workspace.
Does not cover: packages installed into the environment, nor programs that they bring along: they
    are what a command may be there to install.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

VENVS = (".venv", "venv")
RC_FILES = (
    *(".bashrc", ".bash_profile", ".bash_login", ".bash_logout", ".bash_aliases", ".profile"),
    *(".zshrc", ".zshenv", ".zprofile", ".zlogin", ".zlogout", ".kshrc", ".inputrc", ".login"),
    *(".cshrc", ".tcshrc", ".gitconfig", ".pdbrc", ".tmux.conf", ".xprofile", ".xinitrc"),
    *(".Xresources", ".pam_environment", ".local/bin", ".local/share/applications"),
)
"""In the home folder; files or folders."""

_IMPORTED = ("sitecustomize.py", "usercustomize.py")


def of_venvs(root: str) -> dict[str, list[str]]:
    """The start files of each environment there is, relative to the workspace ``root``.

    Names of ``_IMPORTED`` are among them even where they are missing.
    """
    found = {}
    for venv in VENVS:
        folder = os.path.join(root, venv)
        if os.path.isfile(os.path.join(folder, "pyvenv.cfg")) and not os.path.islink(folder):
            found[venv] = [f"{venv}/{path}" for path in _in_venv(folder)]
    return found


def _in_venv(folder: str) -> Iterator[str]:
    yield "pyvenv.cfg"
    for name in _names(os.path.join(folder, "bin")):
        if name.lower().startswith(("python", "activate")):
            yield f"bin/{name}"
    for name in _names(os.path.join(folder, "lib")):
        if name.startswith("python"):
            yield from (f"lib/{name}/site-packages/{module}" for module in _IMPORTED)


def _names(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def of_home(home: str, workspace: str) -> tuple[str, ...]:
    """``RC_FILES`` relative to a workspace that holds the home folder."""
    inside = os.path.relpath(home, workspace)
    return tuple(os.path.normpath(os.path.join(inside, name)) for name in RC_FILES)
