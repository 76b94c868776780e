"""Chooses the renderer by the output format and by what stdout and stderr are."""

from __future__ import annotations

import os
import sys

from agentcli.cli.render import JsonRenderer, Output, PlainRenderer, Renderer, StreamRenderer


def open_renderer(output: Output) -> Renderer:
    """A live renderer for a terminal, plain lines for pipes, or one of the JSON formats."""
    if output is Output.JSON:
        return JsonRenderer(sys.stdout)
    if output is Output.STREAM_JSON:
        return StreamRenderer(sys.stdout)
    if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        from agentcli.cli.live import LiveRenderer  # imports Rich: 0.1 s that pipes can do without

        return LiveRenderer(sys.stderr, answer=None if sys.stdout.isatty() else sys.stdout)
    return PlainRenderer(sys.stderr, sys.stdout)
