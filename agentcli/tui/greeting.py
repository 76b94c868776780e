"""The first entries of a new session: the workspace, and the embedded model's abilities."""

from __future__ import annotations

from pathlib import Path

from agentcli.agent.events import SessionStarted
from agentcli.tui.entries import Entry, Shown, Told

EMBEDDED = "embedded"

_EMBEDDED = """\
**You are talking to the embedded model**: agentcli's own small model (41 million parameters), which
runs on this machine without a key or a network.

- It can repair a wrong token or line in a Python project with a failing test, trying its edits on
  a copy: write *the tests fail, fix it*.
- It can answer simple questions about this repository: *where is `median` defined?*
- It cannot hold a conversation, write new features or explain code; it declines most other
  requests.

For anything else, connect a provider and start again:

```
export ANTHROPIC_API_KEY=...      # or OPENAI_API_KEY
agentcli chat --model ollama:qwen3:8b      # or your own server
```
"""


def greeting(session: SessionStarted) -> list[Entry]:
    """The first entries of a session without history."""
    home = str(Path.home())
    workspace = session.workspace
    if workspace.startswith(f"{home}/"):
        workspace = f"~{workspace.removeprefix(home)}"
    entries: list[Entry] = [
        Told(f"agentcli {session.version} in {workspace} · /help lists keys and commands")
    ]
    if session.model == EMBEDDED:
        entries.append(Shown(_EMBEDDED))
    return entries
