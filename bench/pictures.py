"""Makes the pictures for README.md: screenshots of the real application with a scripted model.

python bench/pictures.py [FOLDER]      # default: docs/pictures
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from agentcli.messages import Usage  # noqa: E402
from tests.server import Reply, ScriptedServer  # noqa: E402
from tests.tui.chatting import Chat, chatting  # noqa: E402

TASK = "The median of an even number of values is wrong. Fix it."
BEFORE = '''"""Small statistics."""


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def median(values: list[float]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle]
'''
TESTS = """from stats import median


def test_odd() -> None:
    assert median([3, 1, 2]) == 2


def test_even() -> None:
    assert median([1, 2, 3, 4]) == 2.5
"""
FOUND = """I see it: `median` takes the upper of the two middle values.

1. For an **odd** count the middle value is right.
2. For an **even** count it must be the mean of both:

```python
(ordered[middle - 1] + ordered[middle]) / 2
```
"""
EDIT = {
    "path": "stats.py",
    "old": "    return ordered[middle]\n",
    "new": (
        "    if len(ordered) % 2:\n"
        "        return ordered[middle]\n"
        "    return (ordered[middle - 1] + ordered[middle]) / 2\n"
    ),
}
SCRIPT = [
    Reply(
        thinking="The tests will tell; first the code.",
        text="I look at the code first.",
        calls=[("read_file", {"path": "stats.py"}), ("grep", {"pattern": "median"})],
        usage=Usage(2400, 0, 0, 80),
    ),
    Reply(text=FOUND, calls=[("search_replace", EDIT)], usage=Usage(3100, 2400, 0, 240)),
    Reply(text="Now the tests.", calls=[("run_tests", {})], usage=Usage(3500, 3100, 0, 40)),
    Reply(
        text="Done: `median` takes the mean of the two middle values, and both tests pass.",
        usage=Usage(3900, 3500, 0, 60),
    ),
]


def save(chat: Chat, folder: Path, name: str) -> None:
    """Write the screen as SVG without external fonts; without a name, do nothing."""
    if not name:
        return
    svg = chat.app.export_screenshot(title="agentcli chat")
    svg = re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL)
    svg = svg.replace("Fira Code", "ui-monospace, DejaVu Sans Mono, Menlo, Consolas")
    (folder / name).write_text(svg, encoding="utf-8")


async def draw(folder: Path, home: Path, theme: str, names: tuple[str, str]) -> None:
    """Hold a conversation and take a picture at its question and one at its end."""
    workspace = home / "stats"
    workspace.mkdir(parents=True)
    (workspace / "stats.py").write_text(BEFORE)
    (workspace / "test_stats.py").write_text(TESTS)
    with ScriptedServer(SCRIPT) as server:
        os.environ["OPENAI_BASE_URL"] = server.url
        async with chatting(workspace, home, size=(104, 38), theme=theme) as chat:
            await chat.send(TASK)
            await chat.question()
            await chat.sees("3 +", "(ordered[middle - 1]")
            await asyncio.sleep(2)
            save(chat, folder, names[0])
            await chat.press("y")
            await chat.sees("Run this check?")
            await asyncio.sleep(0.5)
            await chat.press("y")
            await chat.idle()
            await chat.sees("changed stats.py")
            await asyncio.sleep(2)
            save(chat, folder, names[1])
    shutil.rmtree(workspace)


async def main() -> None:
    """Draw all pictures."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["OPENAI_API_KEY"] = "sk-scripted"
    for theme, names in (
        ("dark", ("question.svg", "")),
        ("light", ("", "answer-light.svg")),
    ):
        with tempfile.TemporaryDirectory() as home:
            for name in ("DATA", "CONFIG", "STATE", "CACHE"):
                os.environ[f"AGENTCLI_{name}_DIR"] = str(Path(home) / name.lower())
            os.environ["HOME"] = home
            await draw(folder, Path(home), theme, names)


if __name__ == "__main__":
    asyncio.run(main())
