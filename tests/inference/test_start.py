"""The imports of the engine process before its first token, which every user waits for."""

from __future__ import annotations

import subprocess
import sys

from agentcli.llm.local import EMBEDDED

PROGRAM = """
import sys

class Wanted:
    def find_spec(self, name, path=None, target=None):
        if name.startswith(("flash_attn", "sympy")) or name == "torch._dynamo":
            print(name)

sys.meta_path.insert(0, Wanted())
import agentcli.inference.host
from agentcli.inference.engine import Engine
from agentcli.model.checkpoint import load_model

loaded = load_model(sys.argv[1])
for column, _ in Engine(loaded.model, loaded.tokenizer).generate([1, 2, 3], max_tokens=2):
    print("token")
"""


def test_neither_flash_attn_nor_the_compiler_is_looked_for() -> None:
    """They are imported later: by a call that could use flash_attn, and to compile graphs."""
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(EMBEDDED)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert ended.stdout.split() == ["token", "token"]
