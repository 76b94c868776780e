"""The line below the prompt: permission mode, model, sandbox, usage."""

from __future__ import annotations

from textual.content import Content

from agentcli.text import clip, escape
from agentcli.tui.line_widget import LineWidget, spread
from agentcli.tui.numbers import short_number
from agentcli.tui.standing import Standing

_MODES = {"ask": "$success", "edits": "$warning", "auto": "$error", "plan": "$secondary"}


_SANDBOX_WIDTH = 72
"""Minimum width in cells to show the sandbox; a missing sandbox is always shown."""


class StatusLine(LineWidget):
    """See the module docstring."""

    def __init__(self) -> None:
        super().__init__(id="status")
        self._standing = Standing()
        self._failed = False
        self._hint = ""

    def show(self, standing: Standing, *, failed: bool = False) -> None:
        """Show new values; ``failed`` means that there is no agent and none is being opened."""
        if (standing, failed) != (self._standing, self._failed):
            self._standing, self._failed = standing, failed
            self.refresh()

    def hint(self, text: str) -> None:
        """Show a hint in place of the line, such as what a second Ctrl+C does; empty ends it."""
        if text != self._hint:
            self._hint = text
            self.refresh()

    def content(self, width: int) -> Content:
        """Mode, model and sandbox on the left, usage on the right."""
        now = self._standing
        if self._hint:
            return Content.styled(self._hint, "$warning")
        model = "no agent" if self._failed else escape(now.model) or "starting…"
        left = [Content.styled(now.mode, f"bold {_MODES.get(now.mode, '')}".strip())]
        left.append(Content(clip(model, max(12, width // 2 - 12))))
        if now.sandbox and (width >= _SANDBOX_WIDTH or now.sandbox == "none"):
            style = "$error" if now.sandbox == "none" else "$muted"
            left.append(Content.styled(f"sandbox {now.sandbox}", style))
        muted = Content.styled(" · ", "$faint")
        return spread(muted.join(left), muted.join(self._right(width)), width)

    def _right(self, width: int) -> list[Content]:
        now, usage = self._standing, self._standing.usage
        facts = []
        if now.rate:
            facts.append(f"{now.rate:.0f} tok/s")
        if usage.total_tokens and width >= 100:
            cached = f" +{short_number(usage.cached_tokens)} cached" if usage.cached_tokens else ""
            fresh = short_number(usage.fresh_tokens)
            facts.append(f"{fresh}{cached} in, {short_number(usage.output_tokens)} out")
        elif usage.total_tokens:
            facts.append(f"{short_number(usage.total_tokens)} tok")
        if now.cost_usd:
            facts.append(f"${now.cost_usd:.2f}" if now.cost_usd >= 0.01 else "<$0.01")
        right = [Content.styled(fact, "$muted") for fact in facts]
        if now.context_used and now.window:
            share = now.context_used / now.window
            style = "$error" if share > 0.9 else "$warning" if share > 0.7 else "$muted"
            right.append(Content.styled(f"context {share:.0%}", style))
        return right
