"""The chat in a real terminal: typing, streaming, questions, interrupts, resizing, kills."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest

from agentcli.agent.events import ModelAnswered, RunFinished, ToolFinished
from tests.running import Cli
from tests.server import Reply, ScriptedServer

pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="there is no tmux here")

PATIENCE_S = 60.0
AGENTCLI = [sys.executable, "-m", "agentcli"]

ENDING = [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT]


class Tmux:
    """A terminal that runs agentcli: the chat, unless another command is given.

    With ``shell``, it runs a shell instead, in which ``AGENTCLI`` is to be typed.
    """

    def __init__(self, cli: Cli, workspace: Path, *arguments: str, shell: bool = False) -> None:
        self._socket = f"agentcli-test-{os.getpid()}-{time.monotonic_ns()}"
        env = " ".join(f"{name}={shlex.quote(value)}" for name, value in cli.env.items())
        words = ["bash", "--norc"] if shell else [*AGENTCLI, *arguments]
        terminal = "TERM=xterm-256color LANG=C.UTF-8 AGENTCLI_MODEL=openai:scripted"
        command = f"exec env -i {terminal} {env} {shlex.join(words)}"
        self._tmux("new-session", "-d", "-x", "100", "-y", "30", "-c", str(workspace), command)
        self._tmux("set-option", "-g", "remain-on-exit", "on")
        self.pid = int(self._tmux("display-message", "-p", "#{pane_pid}"))

    def _tmux(self, *arguments: str) -> str:
        return subprocess.run(
            ["tmux", "-L", self._socket, "-f", "/dev/null", *arguments],
            check=True,
            capture_output=True,
            text=True,
        ).stdout

    @property
    def text(self) -> str:
        return self._tmux("capture-pane", "-p")

    @property
    def modes(self) -> str:
        """Whether the alternate screen is shown, and whether the mouse is reported."""
        return self._tmux("display-message", "-p", "#{alternate_on} #{mouse_any_flag}").strip()

    @property
    def title(self) -> str:
        return self._tmux("display-message", "-p", "#{pane_title}").rstrip("\n")

    def keys(self, *keys: str) -> None:
        self._tmux("send-keys", *keys)

    def type(self, text: str) -> None:
        self._tmux("send-keys", "-l", text)

    def paste(self, file: Path) -> None:
        """Paste the bytes of a file."""
        self._tmux("load-buffer", str(file))
        self._tmux("paste-buffer", "-p")

    def resize(self, columns: int, rows: int) -> None:
        self._tmux("resize-window", "-x", str(columns), "-y", str(rows))

    def sees(self, *texts: str, gone: str = "") -> None:
        self.until(
            lambda: all(text in self.text for text in texts) and not (gone and gone in self.text),
            f"{texts}",
        )

    def answers(self, key: str, gone: str) -> None:
        """Press a key until the question is gone; keys that come too soon are ignored."""
        end = time.monotonic() + PATIENCE_S
        while gone in self.text:
            assert time.monotonic() < end, f"{key} answers nothing\n{self.text}"
            self.type(key)
            time.sleep(0.5)

    def until(self, condition: Callable[[], object], what: str) -> None:
        end = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < end, f"never: {what}\n{self.text}"
            time.sleep(0.05)

    def ended(self) -> bool:
        return self._tmux("display-message", "-p", "#{pane_dead}").strip() == "1"

    def close(self) -> None:
        subprocess.run(["tmux", "-L", self._socket, "kill-server"], check=False)


@pytest.fixture
def terminal(cli: Cli, workspace: Path) -> Iterator[Callable[..., Tmux]]:
    opened: list[Tmux] = []

    def start(*arguments: str, shell: bool = False) -> Tmux:
        opened.append(Tmux(cli, workspace, *arguments, shell=shell))
        return opened[-1]

    yield start
    for one in opened:
        one.close()


def test_a_whole_conversation(
    cli: Cli, workspace: Path, terminal: Callable[..., Tmux], serve: Callable[..., ScriptedServer]
) -> None:
    (workspace / "a.txt").write_text("old\n")
    edit = {"path": "a.txt", "old": "old", "new": "new"}
    long = "word " * 3000
    cli.server = serve(
        [
            Reply(text="Let me **see**.", calls=[("search_replace", edit)]),
            Reply(text="It is done."),
            Reply(text=long, stall_after=8000),
        ]
    ).url
    one = terminal()
    one.type("change it")  # typed before the chat is ready; must not be lost
    one.sees("change it", "openai:scripted")
    one.keys("Enter")
    one.sees("Let me see.", "Make this edit?", "+ new")
    one.answers("y", gone="Make this edit?")
    one.sees("It is done.", "changed a.txt")
    assert (workspace / "a.txt").read_text() == "new\n"
    one.resize(60, 20)
    one.sees("It is done.")
    one.resize(100, 30)
    one.type("now tell me a lot")
    one.keys("Enter")
    one.sees("word word", "esc interrupts")
    one.keys("C-c")
    one.sees("interrupted", gone="esc interrupts")
    one.keys("C-c", "C-c")
    one.until(one.ended, "the end")
    one.sees("agentcli chat --resume 2")  # what remains on the terminal
    events = cli.journal()
    assert isinstance(events[-1], RunFinished) and events[-1].reason == "cancelled"


def test_killed_in_mid_stream_and_resumed_nothing_complete_is_lost(
    cli: Cli, workspace: Path, terminal: Callable[..., Tmux], serve: Callable[..., ScriptedServer]
) -> None:
    (workspace / "a.txt").write_text("content of a\n")
    cli.server = serve(
        [
            Reply(text="First I read it.", calls=[("read_file", {"path": "a.txt"})]),
            Reply(text="half of an answer " * 400, stall_after=6000),
            Reply(text="Here is the whole answer."),
        ]
    ).url
    one = terminal()
    one.sees("openai:scripted")
    one.type("read it")
    one.keys("Enter")
    one.sees("half of an answer")
    psutil.Process(one.pid).send_signal(signal.SIGKILL)
    one.until(one.ended, "its death")
    events = cli.journal()
    assert any(isinstance(event, ToolFinished) for event in events)
    assert any(isinstance(event, ModelAnswered) for event in events)
    again = terminal("--continue")
    again.sees("read it", "First I read it.", "read_file a.txt")
    again.type("go on")
    again.keys("Enter")
    again.sees("Here is the whole answer.")


def test_a_command_cut_off_by_a_kill_is_one_card_that_says_so(
    cli: Cli, workspace: Path, terminal: Callable[..., Tmux], serve: Callable[..., ScriptedServer]
) -> None:
    slow = Reply(calls=[("shell", {"command": "echo begun; sleep 600"})])
    cli.server = serve([slow, Reply(text="Gone on.")]).url
    one = terminal("--mode", "auto")
    one.sees("openai:scripted")
    one.type("go")
    one.keys("Enter")
    one.sees("begun")
    psutil.Process(one.pid).send_signal(signal.SIGKILL)
    one.until(one.ended, "its death")
    again = terminal("--mode", "auto", "--continue")
    again.sees("interrupted before its end")
    again.type("go on")
    again.keys("Enter")
    again.sees("Gone on.")
    assert again.text.count("echo begun") == again.text.count("⊘") == 1


@pytest.mark.parametrize("key", ["C-d", "C-q"])
def test_leaving_at_one_of_several_questions_shows_the_summary(
    cli: Cli,
    workspace: Path,
    terminal: Callable[..., Tmux],
    serve: Callable[..., ScriptedServer],
    key: str,
) -> None:
    calls = [("shell", {"command": f"touch {name}"}) for name in "ab"]
    cli.server = serve([Reply(calls=calls)]).url
    one = terminal()
    one.sees("openai:scripted")
    one.type("go")
    one.keys("Enter")
    one.sees("Run this?")
    one.keys(key)
    one.until(one.ended, "the end")
    one.sees("agentcli chat --resume 2")
    assert isinstance(cli.journal()[-1], RunFinished) and not list(workspace.iterdir())


def test_the_summary_stays_above_the_next_prompt_of_the_shell(
    cli: Cli, workspace: Path, terminal: Callable[..., Tmux], serve: Callable[..., ScriptedServer]
) -> None:
    cli.server = serve([Reply(text="fine")]).url
    one = terminal(shell=True)
    one.type(f"{shlex.join(AGENTCLI)} chat 'is all well?'")
    one.keys("Enter")
    one.sees("fine", gone="esc interrupts")
    one.keys("C-d")
    one.sees("agentcli chat --resume 2")
    one.type("echo $((6 * 7))")
    one.keys("Enter")
    one.until(lambda: "42" in one.text.splitlines(), "the shell's answer")
    usage, session, prompt, *_ = one.text.partition("100 tokens in")[2].splitlines()
    assert "10 out" in usage and session.startswith("session 2") and "echo" in prompt


@pytest.mark.parametrize("number", ENDING)
def test_terminated_it_gives_the_terminal_back_and_names_the_session(
    cli: Cli,
    workspace: Path,
    terminal: Callable[..., Tmux],
    serve: Callable[..., ScriptedServer],
    number: signal.Signals,
) -> None:
    cli.server = serve([Reply(text="word " * 3000, stall_after=4000)]).url
    one = terminal(shell=True)
    one.type(f"{shlex.join(AGENTCLI)} chat 'tell me a lot'; echo it ended: $?; stty -a")
    one.keys("Enter")
    one.sees("word word", "esc interrupts")
    assert one.modes == "1 1"
    (chat,) = psutil.Process(one.pid).children()
    chat.send_signal(number)
    one.sees("agentcli chat --resume 2", "it ended: 143", " icanon", " echo")
    assert one.modes == "0 0"
    assert isinstance(cli.journal()[-1], RunFinished)


@pytest.mark.parametrize("number", ENDING)
def test_terminated_as_it_starts_it_gives_the_terminal_back(
    cli: Cli, workspace: Path, number: signal.Signals
) -> None:
    ours, theirs = os.openpty()
    before = termios.tcgetattr(theirs)
    with subprocess.Popen(
        [sys.executable, "-m", "agentcli", "chat", "--model", "openai:scripted"],
        cwd=workspace,
        env={**cli.env, "TERM": "xterm-256color"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=partial(signal.signal, number, signal.SIG_DFL),  # nohup would have it ignored
    ) as chat:
        shown = b""
        while b"starting" not in shown:
            shown += os.read(ours, 65536)
        chat.send_signal(number)
        assert chat.wait(PATIENCE_S) == 143
    assert b"\x1b[?1049l\x1b[?25h" in os.read(ours, 65536)
    assert termios.tcgetattr(theirs) == before
    os.close(ours)
    os.close(theirs)


def test_a_plain_chat_edits_its_lines_and_has_earlier_ones(
    cli: Cli, workspace: Path, terminal: Callable[..., Tmux], serve: Callable[..., ScriptedServer]
) -> None:
    pytest.importorskip("readline")
    server = serve([Reply(text="one"), Reply(text="two")])
    cli.server = server.url
    one = terminal("chat", "--plain")
    one.until(lambda: one.text.rstrip().endswith(">"), "it asks for a line")
    one.type("first")
    one.keys("Enter")
    one.until(lambda: "solved" in one.text and one.text.rstrip().endswith(">"), "the next line")
    one.keys("Up")
    one.until(lambda: one.text.rstrip().endswith("> first"), "the earlier line")
    one.keys("Left")
    one.type("X")
    one.keys("Enter")
    one.until(lambda: one.text.count("solved") == 2 and one.text.rstrip().endswith(">"), "it again")
    assert server.requests[1].json["messages"][-1]["content"] == "firsXt"
    one.keys("C-d")
    one.until(one.ended, "the end")


def test_an_interrupted_turn_of_a_plain_chat_names_no_command_to_go_on_with(
    cli: Cli, workspace: Path, terminal: Callable[..., Tmux], serve: Callable[..., ScriptedServer]
) -> None:
    cli.server = serve([Reply(text="word " * 300, stall_after=4000), Reply(text="fine")]).url
    one = terminal("chat", "--plain")
    one.until(lambda: one.text.rstrip().endswith(">"), "it asks for a line")
    one.type("tell me a lot")
    one.keys("Enter")
    one.sees("word word")
    one.keys("C-c")
    one.until(lambda: "interrupted" in one.text and one.text.rstrip().endswith(">"), "the next")
    assert "go on with" not in one.text
    one.type("is all well?")
    one.keys("Enter")
    one.sees("fine")


def test_help_of_a_plain_chat_is_laid_out_and_names_its_own_keys(
    cli: Cli, workspace: Path, terminal: Callable[..., Tmux]
) -> None:
    one = terminal("chat", "--plain")
    one.until(lambda: one.text.rstrip().endswith(">"), "it asks for a line")
    one.type("/help")
    one.keys("Enter")
    one.sees("/export [FILE]   ")
    assert "|---|" not in one.text and "Shift+Tab" not in one.text


def test_it_ends_with_its_terminal_also_where_no_hangup_reaches_it(
    cli: Cli, workspace: Path
) -> None:
    ours, theirs = os.openpty()  # not its controlling terminal, so no SIGHUP
    ignoring = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        chat = subprocess.Popen(
            [sys.executable, "-m", "agentcli", "chat", "--model", "openai:scripted"],
            cwd=workspace,
            env={**cli.env, "TERM": "xterm-256color"},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
    finally:
        signal.signal(signal.SIGHUP, ignoring)
        os.close(theirs)
    try:
        shown = b""
        while b"openai:scripted" not in shown:
            shown += os.read(ours, 65536)
        os.close(ours)
        assert chat.wait(PATIENCE_S) == 143
    finally:
        chat.kill()
        chat.wait()


def test_a_folder_cannot_write_to_the_terminal_by_its_name(
    cli: Cli, tmp_path: Path, serve: Callable[..., ScriptedServer]
) -> None:
    cli.server = serve([]).url
    folder = tmp_path / "bell\a\x1b[2J"
    folder.mkdir()
    window = Tmux(cli, folder)
    try:
        window.sees("Ask, or /", "openai:scripted", r"bell\x07\x1b[2J")
        window.until(lambda: window.title == r"agentcli · bell\x07\x1b[2J", "the title")
    finally:
        window.close()


def test_a_paste_that_is_not_utf_8(
    cli: Cli,
    workspace: Path,
    tmp_path: Path,
    terminal: Callable[..., Tmux],
    serve: Callable[..., ScriptedServer],
) -> None:
    cli.server = serve([Reply(text="It is read.")]).url
    (tmp_path / "latin").write_bytes("the café, über alles".encode("latin-1"))
    window = terminal()
    window.sees("Ask, or /", "openai:scripted")
    window.paste(tmp_path / "latin")
    window.sees("the caf�, �ber alles")
    window.keys("Enter")
    window.sees("It is read.")


def test_a_crash_ends_with_the_code_of_an_internal_error(
    cli: Cli, workspace: Path, terminal: Callable[..., Tmux]
) -> None:
    crash = (
        "from agentcli.cli.main import main; from textual.drivers.linux_driver import LinuxDriver;"
        "LinuxDriver.run_input_thread = lambda driver: 1 / 0; main()"
    )
    window = terminal(shell=True)
    window.type(f"{shlex.join([sys.executable, '-c', crash])} chat; echo ended with $?")
    window.keys("Enter")
    window.sees("ZeroDivisionError", "ended with 5")
