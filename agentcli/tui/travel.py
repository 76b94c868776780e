"""Undo, redo, rewind with a preview, and fork in the chat."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentcli.errors import ConflictError, UsageError
from agentcli.session import timetravel
from agentcli.session.forking import fork
from agentcli.session.timetravel import Point, Preview
from agentcli.text import clip, counted, one_line
from agentcli.tui.chooser import Choice
from agentcli.tui.diff import counts
from agentcli.tui.entries import Level, Shown
from agentcli.tui.face import Face, agent_of, check_idle

if TYPE_CHECKING:
    from agentcli.agent.kernel import Agent


class Travel:
    """The commands. They raise an error while a turn is running."""

    def __init__(self, face: Face) -> None:
        self._face = face

    async def undo(self, argument: str) -> None:
        """Undo the last task, its files and messages, and put its text back into the prompt."""
        agent = self._idle_agent()
        task = agent.state.task
        try:
            await timetravel.undo(agent)
        except ConflictError as error:
            self._contested(error)
            return
        if not self._face.writing.strip():
            self._face.put_back(task)

    async def redo(self, argument: str) -> None:
        """Redo what was undone last."""
        await timetravel.redo(self._idle_agent())

    async def rewind(self, argument: str) -> None:
        """Choose a point to go back to, preview the effect, and choose messages, files or both."""
        face, agent = self._face, self._idle_agent()
        points = [point for point in timetravel.points(agent) if point.turn or point.text]
        if not points:
            raise UsageError("there is nothing to go back to yet")
        number = await face.choose(
            "Go back to before which message, or to after which step?",
            [
                Choice(at, _label(point), _detail(point))
                for at, point in reversed(list(enumerate(points)))
            ],
        )
        if number is None:
            return
        point = points[number]
        preview = await timetravel.preview(agent, point.step)
        chosen = await face.choose(
            "Go back?",
            [
                Choice("both", "messages and files", _counted(preview)),
                Choice("messages", "messages only", "files stay as they are"),
                Choice("files", "files only", "the conversation stays as it is"),
                Choice("look", "show what would change in files"),
            ],
            look=lambda chosen: _look(preview),
        )
        if chosen == "look":
            face.added(
                Shown(
                    f"Going back would change {counted(len(preview.paths), 'file')}", preview.diff
                )
            )
        elif chosen is not None:
            try:
                await timetravel.rewind(
                    agent, point.step, messages=chosen != "files", files=chosen != "messages"
                )
            except ConflictError as error:
                self._contested(error)
                return
            if point.turn and chosen != "files" and not face.writing.strip():
                face.put_back(point.text)

    async def fork(self, argument: str) -> None:
        """Continue in a new session that shares this one's history."""
        agent = self._idle_agent()
        new_id = await fork(agent)
        before = agent.state.session_id
        self._face.open(new_id)
        self._face.tell(f"forked; the session before is {before}")

    def _idle_agent(self) -> Agent:
        check_idle(self._face)
        return agent_of(self._face)

    def _contested(self, error: ConflictError) -> None:
        self._face.tell(
            error.message,
            Level.WARNING,
            "Nothing was done. Save those files elsewhere, or go back with messages only",
        )


def _label(point: Point) -> str:
    text = one_line(point.text, 80) or "(a step)"
    return f"{'▌' if point.turn else ' '} {text}"


def _detail(point: Point) -> str:
    return f"changed {clip(', '.join(point.files), 60)}" if point.files else ""


def _counted(preview: Preview) -> str:
    return f"{counted(len(preview.dropped), 'message')}, {counted(len(preview.paths), 'file')}"


def _look(preview: Preview) -> str:
    """A short summary of what going back would do to files."""
    added, removed = counts(preview.diff)
    lines = [f"{counted(len(preview.paths), 'file')}: +{added} -{removed} lines"]
    lines += [f"  {path}" for path in preview.paths[:6]]
    lines += [f"  ! {conflict.path}: {conflict.why}" for conflict in preview.conflicts[:4]]
    return "\n".join(lines)
