"""The file worker: performs file operations inside a sandbox, one at a time, requested over a pipe.

One file, standard library only, Python 3.8 or newer, so that it can be sent to any machine. Its
surroundings decide what it can reach (mount namespace, Landlock, the far end's user). Without any
confinement, ``contain`` makes it check resolved paths itself.

A request and its answer are ``length of JSON, length of data`` (big-endian u32 each), a JSON object
and raw bytes. Requests: ``{"id", "op", ...}``. Answers: ``{"id", "ok": value}`` or
``{"id", "error": [code, message]}``. The first answer, with id 0, belongs to no request and says
that the worker is ready. What only requests need is imported later, in the functions that use it.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
import sys

TYPE_CHECKING = False  # type checkers know the name; importing typing takes 5 ms of the start
if TYPE_CHECKING:  # names that Python 3.8 does not have when the program runs
    from collections.abc import Callable, Iterator
    from re import Pattern
    from typing import Any, BinaryIO

    Answer = tuple[Any, bytes]
    Request = dict[str, Any]
    Rule = tuple[Pattern[str], bool, bool, str]

HEAD = struct.Struct("!II")
LARGEST = 256 * 1024 * 1024  # bytes read from one file
LONGEST_LINE = 1000  # characters of one matching line
PATIENCE_S = 60  # for one operation
SEARCH_S = 8  # for a search by expressions that may backtrack: other requests wait meanwhile


class Refused(Exception):
    """An operation cannot be performed; ``code`` is a symbolic errno."""

    def __init__(self, code: str, message: str) -> None:
        Exception.__init__(self, message)
        self.code = code


class Worker:
    """The operations on one root folder."""

    def __init__(self, root: str, ripgrep: str | None = None, contain: bool = False) -> None:
        self.root = os.path.realpath(root)
        self.ripgrep = ripgrep
        self.contain = contain
        os.chdir(self.root)

    def path(self, given: str) -> str:
        """The absolute form of a path from a request."""
        if "\0" in given:
            raise Refused("EINVAL", "a path cannot hold a zero byte")
        full = os.path.join(self.root, given)
        if self.contain:
            real = os.path.realpath(full)
            if real != self.root and not real.startswith(self.root.rstrip("/") + "/"):
                raise Refused("EACCES", f"{given}: outside the workspace")
        return full

    def relative(self, full: str) -> str:
        return os.path.relpath(full, self.root)

    def do_root(self, request: Request, data: bytes) -> Answer:
        return self.root, b""

    def do_read(self, request: Request, data: bytes) -> Answer:
        limit = request.get("max_bytes")
        # O_NONBLOCK: opening a named pipe must not wait for a writer.
        descriptor = os.open(self.path(request["path"]), os.O_RDONLY | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb", 0) as file:
            info = os.fstat(descriptor)
            regular(info, request["path"])
            if limit is None and info.st_size > LARGEST:
                raise Refused("EFBIG", f"{request['path']}: {info.st_size} bytes is too large")
            return None, read_upto(file, LARGEST if limit is None else min(limit, LARGEST))

    def do_write(self, request: Request, data: bytes) -> Answer:
        if request["path"].endswith("/"):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        # Resolve links first, since the new file replaces their target.
        target = os.path.realpath(self.path(request["path"]))
        expect = None
        if request.get("expect") is not None:
            expect, data = data[: request["expect"]], data[request["expect"] :]
        folder = os.path.dirname(target)
        new = missing_folders(folder) if request.get("create_parents", True) else []
        try:
            if new:
                os.makedirs(folder, exist_ok=True)
            before = os.stat(target) if os.path.lexists(target) else None
            if before is not None:
                regular(before, request["path"])
            if expect is not None and (before is None or not holds(target, expect)):
                raise Refused("CONFLICT", f"{request['path']}: changed since it was read")
            if before is not None and not os.access(target, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            replace(target, folder, data, before, request.get("mode"))
        except BaseException:
            remove_empty(new)
            raise
        return before is None, b""

    def do_remove(self, request: Request, data: bytes) -> Answer:
        given = request["path"]
        full = self.path(given)
        info = os.lstat(full)
        if not stat.S_ISLNK(info.st_mode):
            regular(info, given)
        if request.get("expect") is not None and not holds(full, data):
            raise Refused("CONFLICT", f"{given}: changed since it was read")
        os.unlink(full)
        return None, b""

    def do_stat(self, request: Request, data: bytes) -> Answer:
        import contextlib

        try:
            full = self.path(request["path"])
            info = os.lstat(full)
            if stat.S_ISLNK(info.st_mode):
                with contextlib.suppress(OSError):  # a broken link is reported as a link
                    info = os.stat(full)
        except (FileNotFoundError, NotADirectoryError):
            return None, b""
        return [kind(info), info.st_size, stat.S_IMODE(info.st_mode), info.st_mtime_ns], b""

    def do_list_dir(self, request: Request, data: bytes) -> Answer:
        found = []
        with os.scandir(self.path(request["path"])) as entries:
            for entry in entries:
                try:
                    info = entry.stat()
                except OSError:
                    try:
                        info = entry.stat(follow_symlinks=False)
                    except OSError:
                        continue  # removed in the meantime
                found.append([entry.name, kind(info), info.st_size])
        found.sort()
        return found, b""

    def do_glob(self, request: Request, data: bytes) -> Answer:
        matches = glob_matcher(request["pattern"])
        start = self.path(request.get("path") or ".")
        if not os.path.isdir(start):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        found = []
        for full in self.files(start):
            if matches(os.path.relpath(full, start)):
                found.append(self.relative(full))
        found.sort()
        return found[: request["limit"]], b""

    def do_grep(self, request: Request, data: bytes) -> Answer:
        if "\0" in request["pattern"] + (request.get("glob") or ""):
            raise Refused("EINVAL", "pattern: cannot hold a zero byte")
        start = self.path(request.get("path") or ".")
        info = os.stat(start)
        if not stat.S_ISDIR(info.st_mode):
            regular(info, request.get("path") or ".")
        wanted = selector(request["glob"]) if request.get("glob") else None
        if self.ripgrep:
            matches = self.ripgrep_search(self.ripgrep, start, request, wanted)
            if matches is not None:
                return matches, b""
        import re
        import signal

        signal.setitimer(signal.ITIMER_REAL, SEARCH_S)
        flags = re.IGNORECASE if request.get("ignore_case") else 0
        try:
            expression = re.compile(request["pattern"], flags)
        except re.error as error:
            raise Refused("EINVAL", f"pattern: {error}") from error
        found: list[list[Any]] = []
        for full in [start] if os.path.isfile(start) else self.files(start):
            name = self.relative(full)
            if wanted is None or wanted(name):
                search_file(full, name, expression, found, request["limit"])
            if len(found) >= request["limit"]:
                break
        return found, b""

    def ripgrep_search(
        self, program: str, start: str, request: Request, wanted: Callable[[str], Any] | None
    ) -> list[list[Any]] | None:
        """Matches found by ripgrep in ``wanted`` files; None if it does not support the expression.

        ripgrep's own ``--glob`` would take precedence over ignore files; its types do not, and keep
        it from reading all other files.
        """
        command = [program, "--no-config", "--color=never", "--line-number", "--no-heading"]
        command += ["--with-filename", "--null", "--hidden", "--no-require-git", "--sort=path"]
        command += ["--no-messages", "--glob=!.git", "--threads=2"]
        if request.get("ignore_case"):
            command.append("--ignore-case")
        glob = request.get("glob") or ""
        if glob and not set("/:!").intersection(glob):
            command += ["--type-add=wanted:" + glob, "--type=wanted"]
        command += ["--regexp=" + request["pattern"], "--", start]
        import subprocess  # takes a sixth of the start, and not all sessions search

        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        found: list[list[Any]] = []
        begun = b""
        assert process.stdout is not None
        try:
            for line in process.stdout:
                name, separator, rest = line.partition(b"\0")
                number, _, text = rest.partition(b":")
                if not separator:  # the start of a name that contains a line break, or a message
                    begun += line
                    continue
                begun, whole = b"", begun + name
                if whole != name and os.path.lexists(whole):
                    name = whole
                path = self.relative(os.fsdecode(name))
                if not number.isdigit() or not (wanted is None or wanted(path)):
                    continue
                found.append([path, int(number), shown(text)])
                if len(found) >= request["limit"]:
                    return found
        finally:
            process.kill()
            process.stdout.close()
            status = process.wait()
        return None if status == 2 and not found else found

    def files(self, start: str) -> Iterator[str]:
        """The files below a folder that are not ignored, folder by folder, sorted by name."""
        pending = [(os.path.abspath(start), self.rules_above(start))]
        while pending:
            folder, rules = pending.pop()
            rules = rules + rules_in(folder)
            try:
                with os.scandir(folder) as entries:
                    names = sorted(entries, key=lambda entry: entry.name)
            except OSError:
                continue
            below = []
            for entry in names:
                try:
                    is_folder = entry.is_dir(follow_symlinks=False)
                    is_file = entry.is_file()
                except OSError:
                    continue
                if entry.name == ".git" or ignored(rules, entry.path, is_folder):
                    continue
                if is_folder:
                    below.append((entry.path, rules))
                elif is_file:
                    yield entry.path
            pending.extend(reversed(below))

    def rules_above(self, start: str) -> list[Rule]:
        """The ignore rules of the root and of the folders between it and ``start``."""
        rules = excluded(self.root)
        between = os.path.relpath(os.path.abspath(start), self.root)
        if between == "." or between.startswith(".."):
            return rules
        folder = self.root
        for name in between.split(os.sep):
            rules += rules_in(folder)
            folder = os.path.join(folder, name)
        return rules


def regular(info: os.stat_result, name: str) -> None:
    """Refuse everything but a regular file."""
    if stat.S_ISDIR(info.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(info.st_mode):
        raise Refused("EINVAL", f"{name}: not a regular file")


def open_regular(path: str) -> BinaryIO:
    """Open for reading; a pipe is refused (OSError) without waiting for its writer."""
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "not a regular file")
    return file


def read_upto(file: BinaryIO, limit: int) -> bytes:
    parts = []
    while limit > 0:
        part = file.read(min(limit, 1 << 20))
        if not part:
            break
        parts.append(part)
        limit -= len(part)
    return b"".join(parts)


def holds(path: str, expect: bytes) -> bool:
    with open(path, "rb") as file:
        return os.fstat(file.fileno()).st_size == len(expect) and file.read() == expect


def replace(
    target: str, folder: str, data: bytes, before: os.stat_result | None, mode: int | None
) -> None:
    """Replace a file's content atomically, keeping its mode and owner.

    ``mode`` applies to a new file only.
    """
    import contextlib

    # Not made from the target's name, which may be as long as names can be.
    temporary = os.path.join(folder, f".{os.urandom(8).hex()}.agentcli")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)
    except PermissionError:
        if before is None:
            raise
        # The folder is not writable but the file is: overwrite it in place.
        with open(target, "r+b", 0) as file:
            old = file.read()
            try:
                overwrite(file, data)
            except BaseException:  # such as a full disk, which has room for what was there
                overwrite(file, old)
                raise
        return
    try:
        with os.fdopen(descriptor, "wb", 0) as file:
            overwrite(file, data)
            if before is not None:
                now = os.fstat(descriptor)
                if (now.st_uid, now.st_gid) != (before.st_uid, before.st_gid):
                    with contextlib.suppress(OSError):  # only root can change the owner
                        os.fchown(descriptor, before.st_uid, before.st_gid)
                os.fchmod(descriptor, stat.S_IMODE(before.st_mode) & 0o777)
            elif mode is not None:
                os.fchmod(descriptor, mode & 0o777)
        os.rename(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise


def overwrite(file: Any, data: bytes) -> None:
    file.seek(0)
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]
    file.truncate()


def missing_folders(folder: str) -> list[str]:
    """The folders of a path that do not exist yet, the innermost first."""
    missing = []
    while not os.path.lexists(folder):
        missing.append(folder)
        folder = os.path.dirname(folder)
    return missing


def remove_empty(folders: list[str]) -> None:
    for folder in folders:
        try:
            os.rmdir(folder)
        except FileNotFoundError:
            continue
        except OSError:  # someone else has put something there
            return


def kind(info: os.stat_result) -> str:
    if stat.S_ISREG(info.st_mode):
        return "file"
    if stat.S_ISDIR(info.st_mode):
        return "dir"
    return "link" if stat.S_ISLNK(info.st_mode) else "other"


def shown(text: bytes) -> str:
    line = text.rstrip(b"\r\n").decode("utf-8", "replace")
    return line if len(line) <= LONGEST_LINE else line[:LONGEST_LINE] + "…"


def search_file(
    full: str, name: str, expression: Pattern[str], found: list[list[Any]], limit: int
) -> None:
    try:
        with open_regular(full) as file:
            start = file.read(8192)
            if b"\0" in start:
                return  # binary
            data = start + read_upto(file, LARGEST)
    except OSError:
        return
    for number, line in enumerate(data.split(b"\n"), 1):
        text = line.rstrip(b"\r").decode("utf-8", "replace")
        if expression.search(text):
            found.append([name, number, shown(line)])
            if len(found) >= limit:
                return


# Patterns: a glob becomes a regular expression for a whole relative path.


def braces(pattern: str) -> list[str]:
    """Expand ``a{b,c}`` to ``ab`` and ``ac``, nested braces too; at most 1000 results."""
    depth, start = 0, -1
    commas: list[int] = []
    for place, letter in enumerate(pattern):
        if letter == "{":
            if depth == 0:
                start, commas = place, []
            depth += 1
        elif letter == "," and depth == 1:
            commas.append(place)
        elif letter == "}" and depth > 0:
            depth -= 1
            if depth == 0 and commas:
                ends = [*commas, place]
                begins = [start, *commas]
                options: list[str] = []
                for begin, end in zip(begins, ends):  # noqa: B905 (Python 3.8 has no strict)
                    middle = pattern[begin + 1 : end]
                    options += braces(pattern[:start] + middle + pattern[place + 1 :])
                return options[:1000]
    return [pattern]


def translate(pattern: str) -> str:
    """Translate a glob (``**``, ``*``, ``?``, ``[...]``, backslash) to a regular expression."""
    import re

    out: list[str] = []
    place, size = 0, len(pattern)
    while place < size:
        letter = pattern[place]
        place += 1
        if letter == "*":
            if pattern.startswith("*", place) and (place == 1 or pattern[place - 2] == "/"):
                if pattern.startswith("*/", place):
                    out.append("(?:[^/]+/)*")
                    place += 2
                    continue
                if place + 1 == size:
                    out.append(".+")
                    place += 1
                    continue
            out.append("[^/]*")
        elif letter == "?":
            out.append("[^/]")
        elif letter == "[":
            end = pattern.find("]", place + (2 if pattern[place : place + 1] in "!^" else 1))
            if end < 0:
                out.append("\\[")
                continue
            inside = pattern[place:end].replace("\\", "\\\\").replace("[", "\\[")
            if inside[:1] in ("!", "^"):
                inside = "^/" + inside[1:]
            out.append("[" + inside + "]")
            place = end + 1
        elif letter == "\\" and place < size:
            out.append(re.escape(pattern[place]))
            place += 1
        else:
            out.append(re.escape(letter))
    return "".join(out)


def compiled(patterns: list[str]) -> Pattern[str]:
    import re

    try:
        return re.compile("(?:" + "|".join(translate(one) for one in patterns) + r")\Z", re.DOTALL)
    except re.error as error:
        raise Refused("EINVAL", f"pattern: {error}") from error


def glob_matcher(pattern: str) -> Callable[[str], Any]:
    while pattern.startswith("./"):
        pattern = pattern[2:]
    return compiled(braces(pattern)).match


def filter_matcher(pattern: str) -> Callable[[str], Any]:
    """Like ripgrep and git: a pattern without a slash matches names in every folder.

    A leading slash (or ``./``) limits it to the root.
    """
    patterns = [one[1:] if one.startswith("./") else one for one in braces(pattern)]
    return compiled([one.lstrip("/") if "/" in one else "**/" + one for one in patterns]).match


def selector(pattern: str) -> Callable[[str], Any]:
    """A filter by relative paths; ``!`` in front selects what the rest of the pattern leaves."""
    if not pattern.startswith("!"):
        return filter_matcher(pattern)
    left_out = filter_matcher(pattern[1:].rstrip("/"))
    return lambda path: not any(left_out(one) for one in with_folders(path))


def with_folders(path: str) -> Iterator[str]:
    """The path and the folders above it, the outermost first."""
    parts = path.split("/")
    for count in range(1, len(parts) + 1):
        yield "/".join(parts[:count])


# Ignore rules: see gitignore(5).


def excluded(root: str) -> list[Rule]:
    """The rules in ``info/exclude`` of a repository, which a linked working tree shares."""
    git = os.path.join(root, ".git")
    try:
        if os.path.isfile(git):
            git = os.path.join(root, pointer(git)[len("gitdir: ") :])
        git = os.path.join(git, pointer(os.path.join(git, "commondir")))
    except OSError:
        pass  # neither linked nor a link
    return read_rules(os.path.join(git, "info", "exclude"), root)


def pointer(path: str) -> str:
    with open_regular(path) as file:
        return os.fsdecode(file.read(4096)).strip().replace("\0", "")


def rules_in(folder: str) -> list[Rule]:
    return read_rules(os.path.join(folder, ".gitignore"), folder) + read_rules(
        os.path.join(folder, ".ignore"), folder
    )


def read_rules(path: str, folder: str) -> list[Rule]:
    """The rules of one file: (expression, negated, folders only, folder of the file)."""
    try:
        with open_regular(path) as file:
            text = file.read(1 << 20).decode("utf-8", "replace")
    except OSError:
        return []
    import re

    lines = text.lstrip("\ufeff").splitlines()  # Git, too, skips the mark that some editors write

    rules = []
    for line in lines:
        line = re.sub(r"(?<!\\) +$", "", line)
        if not line or line.startswith("#"):
            continue
        negated = line.startswith("!")
        if negated:
            line = line[1:]
        folders_only = line.endswith("/")
        line = line.rstrip("/")
        if not line:
            continue
        anchored = "/" in line
        pattern = line.lstrip("/") if anchored else "**/" + line
        try:
            rules.append((compiled([pattern]), negated, folders_only, folder))
        except Refused:
            continue
    return rules


def ignored(rules: list[Rule], path: str, is_folder: bool) -> bool:
    for expression, negated, folders_only, folder in reversed(rules):
        if folders_only and not is_folder:
            continue
        if expression.match(path[len(folder) :].lstrip("/")):
            return not negated
    return False


def serve(worker: Worker, source: BinaryIO, sink: BinaryIO) -> None:
    """Report that the worker is ready, then answer requests until the pipe closes."""
    greeting = b'{"id": 0, "ok": null}'
    sink.write(HEAD.pack(len(greeting), 0) + greeting)
    sink.flush()
    import json  # takes longer than the rest of the start, so it comes after the greeting
    import signal

    signal.signal(signal.SIGALRM, too_slow)
    while True:
        head = source.read(HEAD.size)
        if len(head) < HEAD.size:
            return
        size, extra = HEAD.unpack(head)
        request = json.loads(source.read(size).decode())
        data = source.read(extra)
        answer, data = respond(worker, request, data)
        text = json.dumps(answer).encode()
        sink.write(HEAD.pack(len(text), len(data)) + text)
        if data:
            sink.write(data)
        sink.flush()


def respond(worker: Worker, request: Request, data: bytes) -> Answer:
    import signal

    number = request.get("id")
    try:
        operation = getattr(worker, "do_" + str(request.get("op")), None)
        if operation is None:
            raise Refused("ENOSYS", f"unknown operation {request.get('op')!r}")
        signal.setitimer(signal.ITIMER_REAL, PATIENCE_S)
        try:
            value, data = operation(request, data)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        return {"id": number, "ok": value}, data
    except Refused as error:
        message = str(error)
        if error.code == "ETIMEDOUT" and request.get("op") == "grep":
            message += "; a simpler pattern, or a search in fewer files, is faster"
        return {"id": number, "error": [error.code, message]}, b""
    except OSError as error:
        code = errno.errorcode.get(error.errno or 0, "EIO")
        path = str(request.get("path") or ".")
        message = f"{path if len(path) <= 160 else path[:159] + '…'}: {reason(error)}"
        return {"id": number, "error": [code, message]}, b""
    except MemoryError:
        return {"id": number, "error": ["ENOMEM", "not enough memory"]}, b""
    except Exception as error:  # one request must not end the worker
        return {"id": number, "error": ["EIO", f"{type(error).__name__}: {error}"]}, b""


def reason(error: OSError) -> str:
    if error.errno == errno.ENOENT:
        return "no such file"
    text = error.strerror or str(error)
    return text[:1].lower() + text[1:]


def too_slow(number: int, frame: object) -> None:
    raise Refused("ETIMEDOUT", "gave up, as it took too long")


def main(root: str, ripgrep: str, contain: str) -> None:
    """Serve stdin and stdout. ``ripgrep`` is a path or empty; ``contain`` is "1" or empty."""
    source = os.fdopen(os.dup(0), "rb")
    sink = os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    try:
        serve(Worker(root, ripgrep or None, bool(contain)), source, sink)
    except (BrokenPipeError, ConnectionResetError):
        return


if __name__ == "__main__":
    main(*[*sys.argv[1:], "", "", ""][:3])
