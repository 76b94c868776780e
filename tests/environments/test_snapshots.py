"""Checkpoints: everything that a folder can contain is noticed, kept and restored."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentcli.environments import snapshots as module
from agentcli.environments.blobs import Blobs
from agentcli.environments.entries import LARGEST, Entry, capture, put_back
from agentcli.environments.ignoring import Ignoring
from agentcli.environments.scan import DEEPEST
from agentcli.environments.snapshots import Snapshots, files_of
from agentcli.environments.worker import Worker, ignored, rules_in
from agentcli.errors import SnapshotError
from agentcli.sandbox.inotify import Watch
from agentcli.sandbox.linux import drop_capabilities
from agentcli.sandbox.removal import remove


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


@pytest.fixture
def taken(root: Path, tmp_path: Path) -> Snapshots:
    (root / "sub").mkdir()
    (root / "sub" / "a.txt").write_text("a\n")
    (root / "b.txt").write_text("b\n")
    snapshots = Snapshots(str(root), tmp_path / "store")
    snapshots.take()
    return snapshots


def dirty(snapshots: Snapshots) -> set[str] | None:
    return snapshots._watch.changed()


@pytest.mark.parametrize("watched", [True, False])
def test_a_change_without_a_new_size_or_time_is_noticed(
    taken: Snapshots, root: Path, watched: bool
) -> None:
    path = root / "sub" / "a.txt"
    before = path.stat()
    path.write_text("A\n")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    changes = taken.look(dirty(taken) if watched else None)
    assert changes.paths == ("sub/a.txt",)
    assert taken.look(dirty(taken)).paths == ()


def test_a_change_within_one_tick_of_the_clock_is_noticed(taken: Snapshots, root: Path) -> None:
    path = root / "b.txt"
    for text in ("c\n", "d\n", "e\n"):
        path.write_text(text)
        changes = taken.look(dirty(taken))
        assert taken.blobs.get(changes.after["b.txt"].split()[-1]) == text.encode()


def test_a_folder_that_moved_is_still_watched(taken: Snapshots, root: Path) -> None:
    os.rename(root / "sub", root / "moved")
    assert taken.look(dirty(taken)).paths == ("moved", "moved/a.txt", "sub", "sub/a.txt")
    (root / "moved" / "deep").mkdir()
    (root / "moved" / "deep" / "c.txt").write_text("c")
    assert taken.look(dirty(taken)).paths == ("moved/deep", "moved/deep/c.txt")
    (root / "moved" / "deep" / "c.txt").write_text("cc")
    assert taken.look(dirty(taken)).paths == ("moved/deep/c.txt",)


def test_a_created_and_deleted_file_is_no_change(taken: Snapshots, root: Path) -> None:
    (root / "c.txt").write_text("c")
    (root / "c.txt").unlink()
    os.utime(root / "b.txt")
    assert taken.look(dirty(taken)).paths == ()


def test_files_no_longer_ignored_are_not_new(taken: Snapshots, root: Path) -> None:
    (root / ".gitignore").write_text("data/\n")
    (root / "data").mkdir()
    (root / "data" / "precious.txt").write_text("mine")
    assert taken.look(dirty(taken)).paths == (".gitignore",)
    assert taken.left_out == ("data/",)
    (root / ".gitignore").write_text("# nothing\n")
    # Undoing its creation would delete it.
    assert taken.look(dirty(taken)).paths == (".gitignore",)
    (root / "data" / "precious.txt").write_text("changed")
    assert taken.look(dirty(taken)).paths == ("data/precious.txt",)
    (root / ".gitignore").write_text("data/\n")
    assert taken.look(dirty(taken)).paths == (".gitignore",)


def test_rules_that_vanish_while_a_folder_is_looked_at(taken: Snapshots, root: Path) -> None:
    rules = root / "sub" / ".gitignore"
    rules.write_text("*.log\n")
    taken.look(dirty(taken))
    with os.scandir(root / "sub") as listing:
        items = list(listing)
    rules.unlink()
    _, _, changed = taken._scan._rules_of("sub", items, Ignoring.at_root(str(root)), deep=False)
    assert changed
    assert taken.look(dirty(taken)).paths == ("sub/.gitignore",)


def test_the_next_session_reads_only_what_differs(taken: Snapshots, root: Path) -> None:
    taken.close()
    kept = taken.blobs.kept_bytes
    (root / "b.txt").write_text("quite another text\n")
    again = Snapshots(str(root), taken.blobs.folder)
    again.take()
    assert again.blobs.kept_bytes - kept < 300  # the file and the list of all files
    assert (
        files_of(again.blobs, again.taken)["b.txt"] != files_of(again.blobs, taken.taken)["b.txt"]
    )


def test_a_huge_file_is_noticed_and_not_kept(
    taken: Snapshots, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open(root / "huge.bin", "wb") as file:
        file.truncate(LARGEST + 1)
    assert taken.look(dirty(taken)).after == {"huge.bin": "file 644 -"}


def test_more_files_than_are_looked_at(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MOST", 5)
    for number in range(8):
        (root / f"{number}").touch()
    snapshots = Snapshots(str(root), tmp_path / "store")
    snapshots.take()
    assert "more than 5 files" in snapshots.problem
    assert snapshots.taken == "" and not snapshots.covers("3")
    assert snapshots.look().paths == ()


def test_folders_deeper_than_the_stack(taken: Snapshots, root: Path) -> None:
    here = os.open(root, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    (root / "c.txt").write_text("c\n")
    paths = taken.look(None).paths
    assert {"c.txt", "d", "d/d"} <= set(paths)
    assert taken.left_out == ("/".join("d" * (DEEPEST + 1)) + "/",)
    remove(str(root / "d"))
    assert set(taken.look(None).paths) == set(paths) - {"c.txt"}


def test_a_full_disk_stops_keeping_and_nothing_else(root: Path, tmp_path: Path) -> None:
    program = f"""
import resource, signal
from pathlib import Path
from agentcli.environments.snapshots import Snapshots
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
s = Snapshots({str(root)!r}, Path({str(tmp_path / "store")!r}))
s.take()
assert "File too large" in s.problem, s.problem
Path({str(root)!r}, "new.txt").write_text("n")
Path({str(root)!r}, "way").symlink_to("new.txt")
print(s.look(s._watch.changed()).after)
s.close()
"""
    (root / "large.bin").write_bytes(os.urandom(3_000_000))
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "{'new.txt': 'file 644 -', 'way': 'link 777 -'}\n"


@settings(max_examples=60)
@given(st.binary(max_size=200), st.sampled_from([0o644, 0o755, 0o600, 0o444]))
def test_any_content_and_mode_comes_back(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, mode: int
) -> None:
    folder = tmp_path_factory.mktemp("any")
    blobs = Blobs(folder / "store")
    name = os.fsdecode(b"n\xff \n")
    path = folder / name
    path.write_bytes(data)
    path.chmod(mode)
    entry = capture(str(folder), name, blobs)
    path.unlink()
    path.mkdir()
    put_back(str(folder), name, entry, blobs)
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (data, mode)


def test_what_is_in_a_read_only_folder_comes_back(root: Path, tmp_path: Path) -> None:
    blobs = Blobs(tmp_path / "store")
    (root / "fixed/sub").mkdir(parents=True)
    (root / "fixed/sub/a").write_text("a")
    (root / "fixed").chmod(0o555)
    paths = ("fixed", "fixed/sub", "fixed/sub/a")
    entries = {path: capture(str(root), path, blobs) for path in paths}

    def back_and_forth() -> None:
        for path in reversed(paths):
            put_back(str(root), path, "", blobs)
        assert not os.listdir(root)
        for path in paths:
            put_back(str(root), path, entries[path], blobs)

    with ThreadPoolExecutor(1, initializer=drop_capabilities) as unprivileged:
        unprivileged.submit(back_and_forth).result()
    assert {path: capture(str(root), path, blobs) for path in paths} == entries


def test_damaged_contents_are_stored_again(tmp_path: Path) -> None:
    first = Blobs(tmp_path)
    digest = first.put(b"precious")
    first.close()
    (pack,) = tmp_path.glob("*.pack")
    pack.write_bytes(b"damaged!")
    again = Blobs(tmp_path)
    assert again.put(b"precious") == digest and again.get(digest) == b"precious"
    again.close()


@pytest.mark.parametrize("suffix", [".pack", ".idx", "index"])
def test_a_pipe_in_the_store_keeps_nobody_waiting(tmp_path: Path, root: Path, suffix: str) -> None:
    (root / "a.txt").write_text("a\n")
    store = tmp_path / "store"
    first = Snapshots(str(root), store)
    first.take()
    first.blobs.flush()
    first._save()
    for path in store.iterdir():
        if path.name == module.INDEX if suffix == "index" else path.suffix == suffix:
            path.unlink()
            os.mkfifo(path)
    again = Snapshots(str(root), store)
    again.take()
    assert again.blobs.get(again.blobs.put(b"a\n")) == b"a\n"


def test_damaged_contents_are_refused(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path / "store")
    digest = blobs.put(b"something")
    blobs.close()
    (pack,) = (tmp_path / "store").glob("*.pack")
    pack.write_bytes(b"something".replace(b"m", b"n"))
    with pytest.raises(SnapshotError, match="damaged"):
        Blobs(tmp_path / "store").get(digest)
    pack.unlink()
    with pytest.raises(SnapshotError, match="was not kept"):
        Blobs(tmp_path / "store").get(digest)


@pytest.mark.parametrize(
    "path", ["", "..", "../kept", "a/../../kept", "a/./b", "/kept", "a//b", "a\0b", "\ud800"]
)
def test_no_path_leads_out_of_the_workspace(path: str, root: Path, tmp_path: Path) -> None:
    """Paths come from a journal, which may be damaged or written by somebody else."""
    (root.parent / "kept").write_text("mine")
    blobs = Blobs(tmp_path / "store")
    before = sorted(root.rglob("*"))
    entry = f"file 644 {blobs.put(b'theirs')}"
    for work in (
        lambda: capture(str(root), path, blobs),
        lambda: put_back(str(root), path, entry, blobs),
        lambda: put_back(str(root), path, "", blobs),
    ):
        with pytest.raises(SnapshotError, match="is not a path in the workspace"):
            work()
    assert (root.parent / "kept").read_text() == "mine" and sorted(root.rglob("*")) == before


@pytest.mark.parametrize("entry", ["", "zip 644", "file 9", "file 7777777777777 x", "dir 1 2 3"])
def test_a_malformed_entry_is_refused(entry: str) -> None:
    with pytest.raises(SnapshotError, match="does not describe a file"):
        Entry.parse(entry)


def test_missing_content_creates_no_folder(root: Path, tmp_path: Path) -> None:
    with pytest.raises(SnapshotError, match="was not kept"):
        put_back(str(root), "new/folder/x", f"file 644 {'0' * 40}", Blobs(tmp_path / "store"))
    assert not (root / "new").exists()


def test_a_torn_index_holds_what_is_whole(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path / "store")
    first = blobs.put(b"first")
    blobs.flush()
    blobs.put(b"second")
    blobs.close()
    (index,) = (tmp_path / "store").glob("*.idx")
    index.write_bytes(index.read_bytes()[:-5])
    again = Blobs(tmp_path / "store")
    assert again.get(first) == b"first" and len(again.places()) == 1


def test_only_the_user_may_read_what_is_kept(taken: Snapshots) -> None:
    taken.close()
    assert taken.blobs.folder.stat().st_mode & 0o077 == 0
    for path in taken.blobs.folder.glob("*.pack"):
        assert path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "rules",
    ["*.log\n!keep.log\n", "/build\n/docs/_out\n", "a/**/b\n", "tmp/\n*.py[co]\n[ab].txt\n"],
)
def test_the_quick_answer_is_the_worker_s(root: Path, rules: str) -> None:
    (root / ".gitignore").write_text(rules)
    (root / "docs").mkdir()
    quick, slow = Ignoring.at_root(str(root)).within(str(root)), rules_in(str(root))
    names = [
        "x.log",
        "keep.log",
        "build",
        "_out",
        "b",
        "tmp",
        "m.pyc",
        "a.txt",
        "c.txt",
        "[ab].txt",
    ]
    for folder in ("", "/docs", "/a/x"):
        for name in names:
            for is_folder in (True, False):
                full = f"{root}{folder}"
                expected = ignored(slow, f"{full}/{name}", is_folder)
                assert quick.leaves_out(full, name, is_folder) is expected, (folder, name)


def test_a_linked_working_tree_has_the_rules_of_its_repository(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)  # the worker changes it

    def git(*arguments: str) -> None:
        identity = ("-c", "user.name=a", "-c", "user.email=a@b")
        subprocess.run(("git", *identity, *arguments), cwd=root, check=True)

    git("init", "-q")
    git("commit", "-q", "--allow-empty", "-m", "first")
    git("worktree", "add", "-q", "../linked")
    (root / ".git/info/exclude").write_text("local.txt\n")
    for folder in (root, tmp_path / "linked"):
        (folder / "local.txt").touch()
        (folder / "other.txt").touch()
        found = [os.path.basename(path) for path in Worker(str(folder)).files(str(folder))]
        assert found == ["other.txt"]
        assert Ignoring.at_root(str(folder)).leaves_out(str(folder), "local.txt", False)


def test_a_watch_that_lost_track_says_so(root: Path) -> None:
    watch = Watch()
    fd = os.open(root, os.O_RDONLY)
    watch.add(fd, "")
    assert watch.works and watch.changed() == set()
    for number in range(17_000):  # more than the inotify queue holds
        os.close(os.open(root / str(number % 7), os.O_WRONLY | os.O_CREAT))
        if number % 2:
            os.unlink(root / str(number % 7))
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    if limit > 30_000:
        pytest.skip(f"the queue holds {limit} events here")
    assert watch.changed() is None
    (root / "after").touch()
    assert watch.changed() == {""}
    os.close(fd)
    watch.close()
    assert not watch.works and watch.changed() is None
