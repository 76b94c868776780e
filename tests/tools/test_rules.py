"""Permission rules: their syntax, what they match, and which one wins."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from agentcli.errors import ConfigError
from agentcli.tools.base import ToolKind, ToolSpec
from agentcli.tools.builtin import builtin_tools
from agentcli.tools.judging import Judgement, judge
from agentcli.tools.rules import Rule, check_rules, parse_rule, parse_rules

SPECS = {tool.spec.name: tool.spec for tool in builtin_tools()}


def judged(
    command: str,
    *,
    allow: Sequence[str] = (),
    ask: Sequence[str] = (),
    deny: Sequence[str] = (),
    free_edits: bool = False,
) -> Judgement:
    rules = parse_rules(allow, ask, deny)
    return judge(rules, SPECS["shell"], {"command": command}, "/ws", free_edits=free_edits)


def verdict(command: str, **rules: Sequence[str]) -> str:
    return (judged(command, **rules).verdict or "-").replace("allow", "+")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("shell", Rule("shell")),
        (" shell (*) ", Rule("shell")),
        ("shell(git log:*)", Rule("shell", "git log:*")),
        ("read_file(src/(a)/**)", Rule("read_file", "src/(a)/**")),
        ("github_*", Rule("github_*")),
    ],
)
def test_how_rules_are_written(text: str, rule: Rule) -> None:
    assert parse_rule(text) == rule
    assert parse_rule(str(rule)) == rule


@pytest.mark.parametrize("text", ["", "shell(", "two words", "shell()", "shell(:*)", "a(b) c"])
def test_invalid_rules(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_rule(text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("python(x)", "python takes no pattern"),
        ("shell(git 'log:*)", "No closing quotation"),
        ("read_file([z-a])", "pattern"),
    ],
)
def test_invalid_patterns_for_a_tool(text: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        check_rules(parse_rules(deny=[text]), SPECS.values())


GIT = ["shell(git status:*)", "shell(git log:*)", "shell(npm test)"]


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("git status", "+"),
        ("git status -s && git log -3 | git status", "+"),
        ("cd sub && git status", "+"),
        ("npm test", "+"),
        ("npm test --watch", "-"),
        ("git push", "-"),
        ("git statusx", "-"),
        ("git status; rm x", "-"),
        ("git status $(rm x)", "-"),
        ("git status > f", "-"),
        ("git status > /dev/null 2>&1", "+"),
        ("git 'status'", "+"),
        ("git $X", "-"),
        ("./git status", "-"),
        ("/tmp/git status", "-"),
        ("PATH=. git status", "-"),
        ("LANG=C git status", "+"),
        ("bash -c 'git status && git log'", "+"),
        ("bash -c 'git status && rm x'", "-"),
        ("git log | xargs git status", "+"),
        ("git log | xargs rm", "-"),
        ("sudo git status", "-"),
        ("eval git status", "-"),
        ("git() { rm x; }; git status", "-"),
        ("git status & rm x", "-"),
        ("git status\nrm x", "-"),
        ("git status \\\n && rm x", "-"),
        ("git status <<E\n$(rm x)\nE", "-"),
    ],
)
def test_every_segment_must_be_allowed(command: str, expected: str) -> None:
    assert verdict(command, allow=GIT) == expected


def test_a_relative_program_after_cd_is_another() -> None:
    assert verdict("./run.sh a", allow=["shell(./run.sh:*)"]) == "+"
    assert verdict("cd x && ./run.sh a", allow=["shell(./run.sh:*)"]) == "-"


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("rm x", "deny"),
        ("ls && rm -rf x", "deny"),
        ("/bin/rm x", "deny"),
        ("\\rm x", "deny"),
        ("'r'm x", "deny"),
        ("X=1 env nohup rm x", "deny"),
        ("echo $(rm x)", "deny"),
        ("bash -c 'ls; rm x'", "deny"),
        ("find . -exec rm {} +", "deny"),
        ("ls | xargs rm", "deny"),
        ("f() { rm x; }; f", "deny"),
        ("git push", "deny"),
        ("git -C x push", "ask"),
        ("git $X", "ask"),
        ("$X y", "ask"),
        ("eval x", "ask"),
        ("echo x | bash", "ask"),
        ("ls (", "ask"),
        ("docker run x", "ask"),
        ("echo a > .env", "deny"),
        ("cat < secret/key", "deny"),
        ("echo a > $X", "ask"),
        ("rmdir x", "+"),
        ("echo rm", "+"),
        ("git log", "+"),
    ],
)
def test_deny_wins_over_ask_and_ask_over_allow(command: str, expected: str) -> None:
    found = verdict(
        command,
        allow=["shell"],
        ask=["shell(docker:*)"],
        deny=["shell(rm:*)", "shell(git push:*)", "write_file(.env)", "read_file(secret/**)"],
    )
    assert found == expected


def test_a_tool_that_is_denied_altogether() -> None:
    assert verdict("true", allow=["shell(true)"], deny=["sh*"]) == "deny"


def test_redirections_are_judged_as_the_file_tools_are() -> None:
    allow = ["shell(ls:*)", "write_file(out/**)"]
    assert verdict("ls > out/a", allow=allow) == "+"
    assert verdict("ls > a", allow=allow) == "-"
    assert verdict("cd x; ls > out/a", allow=allow) == "-"
    assert judged("ls > a", allow=allow, free_edits=True).verdict == "allow"
    assert judged("ls > a", allow=allow).proposal == Rule("write_file", "/a")


@pytest.mark.parametrize("file", ["/etc/a", "../a", "sub/../../a", ".mcp.json", ".agentcli/a"])
def test_a_mode_allows_no_redirection_that_it_would_not_allow_a_file_tool(file: str) -> None:
    assert judged(f"echo a > {file}", free_edits=True).verdict is None


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("cat .env", "deny"),
        ("ls; grep -n x ./sub/../secrets/key | head", "deny"),
        ("tar c secrets", "deny"),
        ("cp --target-directory=secrets a.py", "deny"),
        ("cat link", "deny"),
        ("cd sub && cat .env", "deny"),
        ("env A=1 cat .env", "deny"),
        ("echo .env", "-"),
        ("git commit -m secret", "-"),
        ("cat a.py sub/.env.example", "-"),
    ],
)
def test_a_command_that_names_a_file_that_may_not_be_read(
    command: str, expected: str, tmp_path: Path
) -> None:
    for folder in ("secrets", "sub"):
        (tmp_path / folder).mkdir()
    for file in (".env", "secrets/key", "a.py", "sub/.env.example"):
        (tmp_path / file).touch()
    (tmp_path / "link").symlink_to("secrets/key")
    files = ["*(.env)", "read_file(secrets/**)", "read_file(secret)"]
    for kind in ("deny", "ask"):
        rules = parse_rules(**{kind: files})
        found = judge(
            rules, SPECS["shell"], {"command": command}, str(tmp_path), free_edits=False
        ).verdict
        assert (found == kind) == (expected == "deny")


def file_verdict(tool: str, path: str, root: Path, **rules: Sequence[str]) -> str:
    found = judge(parse_rules(**rules), SPECS[tool], {"path": path}, str(root), free_edits=False)
    return (found.verdict or "-").replace("allow", "+")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("src/a.py", "+"),
        ("./src/../src/x/a.py", "+"),
        ("a.py", "-"),
        ("src/.env", "deny"),
        ("other/link", "deny"),
        ("src/outside", "-"),
        ("src/../../x", "-"),
        ('"src/new\\nline"', "+"),
        ("src/a\0", "deny"),
    ],
)
def test_paths(path: str, expected: str, tmp_path: Path) -> None:
    for folder in ("src", "other"):
        (tmp_path / folder).mkdir()
    (tmp_path / "src/.env").touch()
    os.symlink("../src/.env", tmp_path / "other/link")
    os.symlink("/etc/hosts", tmp_path / "src/outside")
    found = file_verdict(
        "search_replace", path, tmp_path, allow=["search_replace(src/**)"], deny=["*(.env)"]
    )
    assert found == expected


def test_a_link_is_followed_before_going_up(tmp_path: Path) -> None:
    (tmp_path / "secrets/deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to("secrets/deep")
    deny = ["read_file(secrets/*)"]
    assert file_verdict("read_file", "link/../key", tmp_path, deny=deny) == "deny"


@pytest.mark.parametrize("pattern", ["secrets", "secrets/", "/secrets", "secrets/*", "*/secrets"])
def test_what_refuses_a_folder_refuses_all_in_it(pattern: str, tmp_path: Path) -> None:
    path = "a/secrets/b/key" if pattern.startswith("*") else "secrets/b/key"
    rules = [f"read_file({pattern})"]
    assert file_verdict("read_file", path, tmp_path, deny=rules) == "deny"
    assert file_verdict("read_file", path, tmp_path, ask=rules) == "ask"
    assert file_verdict("read_file", path, tmp_path, allow=rules) == "-"
    assert file_verdict("read_file", "secrets.py", tmp_path, deny=rules) == "-"


def test_a_pattern_for_many_tools_is_about_those_with_paths() -> None:
    rules = parse_rules(deny=["*(.env)"])
    check_rules(rules, SPECS.values())
    assert judge(rules, SPECS["run_tests"], {}, "/ws", free_edits=False).verdict is None


def test_a_pattern_on_a_tool_without_paths_denies_and_never_allows(tmp_path: Path) -> None:
    spec = ToolSpec("remote", "Does it.", {"type": "object"}, ToolKind.RUN)
    for rules, expected in (
        (parse_rules(deny=["remote(x)"]), "deny"),
        (parse_rules(["remote(x)"]), None),
    ):
        assert judge(rules, spec, {}, str(tmp_path), free_edits=False).verdict == expected


@pytest.mark.parametrize(
    ("command", "rule"),
    [
        ("git commit -m x", "shell(git commit:*)"),
        ("pytest -q tests", "shell(pytest:*)"),
        ("npm run build -- -x", "shell(npm run build:*)"),
        ("python -m pytest", "shell(python -m pytest:*)"),
        ("python x.py a", "shell(python x.py:*)"),
        ("python -c 'import os'", None),
        ("bash x.sh", None),
        ("rm -r 'a b'", "shell(rm -r 'a b')"),
        ("rm $X", None),
        ("cd sub && make all", "shell(make all:*)"),
        ("cd sub && ./x", None),
        ("make && make install", None),
        ("X=1 make", None),
        ("git status && make lint", "shell(make lint:*)"),
    ],
)
def test_the_rule_that_is_proposed_allows_the_call(command: str, rule: str | None) -> None:
    found = judged(command, allow=["shell(git status)"])
    assert (None if found.proposal is None else str(found.proposal)) == rule
    if rule is not None:
        assert verdict(command, allow=["shell(git status)", rule]) == "+"
        assert found.segments[0] in command and found.segments[0] != "git status"


def test_the_parts_that_need_approval_are_in_the_order_of_the_line() -> None:
    found = judged("echo hi; git status; make a | tee b; make a", allow=["shell(git status)"])
    assert found.segments == ("make a", "tee b")
    found = judged("make; git status && git push", allow=["shell"], ask=["shell(git push)"])
    assert found.segments == ("git push",)


def test_proposals_for_files(tmp_path: Path) -> None:
    for path, rule in (
        ("src/a.py", "src/**"),
        ("a.py", "/a.py"),
        ("../a", None),
        ("a[1].py", None),
    ):
        found = judge(
            parse_rules(), SPECS["write_file"], {"path": path}, str(tmp_path), free_edits=False
        )
        assert found.proposal == (Rule("write_file", rule) if rule else None)
        if rule:
            allow = [f"write_file({rule})"]
            assert file_verdict("write_file", path, tmp_path, allow=allow) == "+"
            assert file_verdict("write_file", f"sub/{path}", tmp_path, allow=allow) == "-"
