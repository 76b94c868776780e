"""Commands that only read need no approval in a sandbox; everything else does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agentcli.messages import ToolCall
from agentcli.tools.builtin import builtin_tools
from agentcli.tools.judging import judge
from agentcli.tools.permissions import Mode, ModePermissions
from agentcli.tools.rules import parse_rules

SHELL = next(tool.spec for tool in builtin_tools() if tool.spec.name == "shell")


@pytest.fixture
def root(tmp_path: Path) -> str:
    (tmp_path / ".git").mkdir()
    return str(tmp_path)


def runs(command: str, root: str, *, free_edits: bool = False, **rules: Any) -> bool:
    found = judge(
        parse_rules(**rules),
        SHELL,
        {"command": command},
        root,
        free_edits=free_edits,
        free_reads=True,
    )
    return found.verdict == "allow"


@pytest.mark.parametrize(
    "command",
    [
        "ls",
        "ls -la *.py | wc -l",
        "cat a.py b.py 2>/dev/null || echo none",
        "cd src && grep -rn --include='*.py' 'x y' . | head -20 | cut -d: -f1 | sort -u | uniq -c",
        "find . -name '*.py' -not -path './x/*' | xargs wc -l",
        "for f in *.py; do echo $f; head -3 $f; done",
        "rg -n --pretty foo src",
        "sed -n '10,20p' a.py",
        "sed -n 5p < a.py",
        "git status --short",
        "git --no-pager log --oneline -5 -- src",
        "git diff --stat --exit-code HEAD~1",
        "git show HEAD:a.py",
        "git blame -L 1,5 a.py",
        "git branch --show-current",
        "git branch -a",
        "git ls-files --others --exclude-standard",
        "git rev-parse HEAD",
        "timeout 5 cat $(ls | head -1)",
        "bash -c 'ls && pwd'",
        "ls | xargs",
        "ls | xargs grep -i todo",
        "cat <<EOF\nhi\nEOF",
        "i=0; while ((i < 3)); do echo ${x:-none} ${x:0:3} $i; done",
    ],
)
def test_it_only_reads(command: str, root: str) -> None:
    assert runs(command, root)


@pytest.mark.parametrize(
    "command",
    [
        "ls > files",
        "cat a.py | tee b.py",
        "cat $(rm x)",
        "ls; rm x",
        "./ls",
        "/tmp/ls",
        "PATH=. ls",
        "X=1 git status",
        "export PATH=.; ls",
        "ls() { rm x; }; ls",
        "find . -delete",
        "find . -exec rm {} +",
        "find . -exec cat {} +",
        "find . -okdir rm {} ;",
        "find . -fprintf out %p",
        "find . $X",
        "find . | xargs rm",
        "ls | xargs sort",
        "rg --pre ./x foo",
        "rg --pre=./x foo",
        "rg --hostname-bin ./x foo",
        "rg --search-zip foo",
        "rg -z foo",
        "rg -.nz foo",
        "rg foo $X",
        "sort -o a b",
        "sort b -uo a",
        "sort --output=a b",
        "sort --out a b",
        "sort --compress-program=./x b",
        "sort $X",
        "echo touch | xargs -I echo env echo pwned",
        "echo '; touch pwned' | xargs -I{} bash -c 'cat {}'",
        "echo touch | xargs --replace=ls timeout 5 ls pwned",
        'x=$(cat evil); echo "${x@P}"',
        'x=$(cat evil); echo "${!x}"',
        'x=$(cat evil); y=abc; echo "${y:x}"',
        'test -v "$(cat evil)"',
        '[ -v "$(cat evil)" ]',
        "a='a'; b='['; c=\"$\"; d='(touch pwned)'; e=']'; w=\"$a$b$c$d$e\"; echo $((w))",
        "cat <<$'EOF'\nhi\nEOF\ntouch pwned\n$'EOF'\n",
        "sh -c \"echo \\$'x\\\\'\\\"';touch pwned;#'\\\"'\"",
        "uniq a b",
        "sed -n 'w out' a",
        "sed -n '1e rm x' a",
        "sed -n 1p a -i",
        "sed -n 1p $X",
        "sed -i s/a/b/ a",
        "sed",
        "git",
        "git push",
        "git -c core.fsmonitor=./x status",
        "git -C sub status",
        "git --no-pager",
        "git --no-pager push",
        "git --exec-path=. status",
        "cd sub && git status",
        "git log --output=a",
        "git log --outp a",
        "git diff --ext-diff",
        "git show --ext HEAD",
        "git log $X",
        "git branch new",
        "git branch -D old",
        "git $X",
        "sudo ls",
        "eval ls",
        "$X",
        "awk '{print}' a",
        "uniq a b",
        "uniq -- -in -out",
        "'git status'",
        "cat </dev/tcp/localhost/80",
        "cat < $X",
        "echo x < /dev/udp/localhost/53",
        "zsh -c ls",
        "fish -c 'ls'",
        "python -c 1",
        "",
    ],
)
def test_it_may_do_more(command: str, root: str) -> None:
    assert not runs(command, root)


def test_a_program_of_the_project_is_no_known_one(root: str, tmp_path: Path) -> None:
    assert runs("ls", root)
    own = tmp_path / ".venv" / "bin"
    own.mkdir(parents=True)
    (own / "ls").touch()
    assert not runs("ls", root) and runs("cat a", root)


def test_git_is_free_only_where_nothing_can_have_configured_it(root: str, tmp_path: Path) -> None:
    assert runs("git status", root)
    assert not runs("git status", root, free_edits=True)  # sub/.git/config may have been written
    inside = tmp_path / "inside"  # without a repository of its own, it may be made a bare one
    inside.mkdir()
    assert not runs("git status", str(inside))


@pytest.mark.parametrize(
    "rules",
    [
        {"deny": ["*(.env)"]},
        {"deny": ["read_file(secrets/**)"]},
        {"ask": ["grep"]},
        {"ask": ["shell(cat:*)"]},
        {"deny": ["shell"]},
    ],
)
def test_rules_come_first(rules: dict[str, Any], root: str) -> None:
    assert runs("cat a", root, deny=["shell(rm:*)", "search_replace(src/**)"])
    assert not runs("cat a", root, **rules)


@pytest.mark.parametrize("mode", list(Mode))
async def test_only_in_a_sandbox_and_not_while_planning(mode: Mode) -> None:
    call, arguments = ToolCall("1", "shell"), {"command": "ls; cat a"}
    confined = await ModePermissions(mode, confined=True).permit(SHELL, call, arguments)
    assert (confined is None) == (mode is not Mode.PLAN)
    refusal = await ModePermissions(mode).permit(SHELL, call, arguments)
    assert (refusal is None) == (mode is Mode.AUTO)
