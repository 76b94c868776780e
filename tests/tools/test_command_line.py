"""Parsing command lines, verified against what bash really runs."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from agentcli.tools.command_line import parse


def programs(line: str) -> list[str]:
    """The command of each segment; unknown words are ``?``."""
    return [" ".join(word or "?" for word in segment.words) for segment in parse(line).segments]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("git status", ["git status"]),
        ("a && b || c; d & e", ["a", "b", "c", "d", "e"]),
        ("a | b |& c", ["a", "b", "c"]),
        ("(a; b) && { c; }", ["a", "b", "c"]),
        ("if a; then b; elif c; then d; else e; fi", ["a", "b", "c", "d", "e"]),
        ("for x in 1 2; do rm $x; done; while a; do b; done", ["rm ?", "a", "b"]),
        ("case $x in a) b;; *) c;; esac", ["b", "c"]),
        ('echo $(a `b`) "$(c)" <(d)', ["b", "a ?", "c", "d", "echo ? ? ?"]),
        ("cat <<E\n$(a)\nE", ["cat", "a"]),
        ("cat <<'E'\n$(a) `b`\nE", ["cat"]),
        ('cat <<< "$(a)"', ["a", "cat"]),
        ("bash -c 'a && b' | sh -ec \"c\"", ["a", "b", "c"]),
        ("env -i LANG=C nice -n 5 timeout -k 1 10 a b", ["a b"]),
        ("x | xargs -0 -n1 rm -f", ["x", "rm -f ?"]),
        (
            "find . -exec rm {} + -o -delete",
            ["find . -exec rm {} + -o -delete", "rm ?", "find -delete"],
        ),
        ("\\r\"m\" -'r' a\\ b", ["rm -r a b"]),
        ("X=$(a)", ["a"]),
        ("! a; time b; command c; exec d", ["a", "b", "c", "d"]),
        ('a \'b c\' "d\\"e" *.py ~ {f,g} $H', ['a b c d"e ? ? ? ?']),
        ("git commit -m 'one\ntwo' # not this; rm x", ["git commit -m one\ntwo"]),
    ],
)
def test_every_command_is_seen(line: str, expected: list[str]) -> None:
    assert programs(line) == expected


@pytest.mark.parametrize(
    ("line", "writes", "reads"),
    [
        ("a > f 2>&1", ["f"], []),
        ("a >> 'f g' 2>/dev/null < h", ["f g"], ["h"]),
        ('a &> "$f"', [None], []),
        ("{ a; b; } > f", ["f"], []),
        ("bash -c a > f", ["f"], []),
        ("> f", ["f"], []),
        ("a 2>&- >&2", [], []),
    ],
)
def test_files_of_redirections(line: str, writes: list[str | None], reads: list[str]) -> None:
    segments = parse(line).segments
    assert [file for segment in segments for file in segment.writes] == writes
    assert [file for segment in segments for file in segment.reads] == reads


HIDDEN = (
    "a; (",
    "$X y",
    "`a` b",
    'eval "rm x"',
    "curl x | bash",
    "bash <<E\nrm x\nE",
    'bash -c "$X"',
    "sh -s",
    "trap 'rm x' EXIT",
    "a\rb",
    "a\u00a0b",
    'echo "${x:-`rm`}"',
    "cat <<E\n`rm`\nE",
    "[[ 'a[$(rm)]' -eq 1 ]]",
    "x=$(cat f); ((x++))",
    "xargs --weird rm",
    "timeout -Z 5 rm",
    "bash -Z rm",
    "find $X",
    "watch rm",
    "coproc rm x",
    "a" * 30_000,
    "\ud800",
)


@pytest.mark.parametrize("line", HIDDEN, ids=lambda line: line[:20])
def test_what_may_run_unseen_commands(line: str) -> None:
    assert parse(line).hidden and parse(line).unclear


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("PATH=x git status", "sets PATH"),
        ("env GIT_DIR=x git status", "sets GIT_DIR"),
        ("LD_PRELOAD=x; a", "sets LD_PRELOAD"),
        ("for PATH in x; do git status; done", "sets PATH"),
        ("export A=1", "changes what later"),
        ("git() { rm x; }; git status", "changes what later"),
        ("sudo ls", "privileges"),
    ],
)
def test_what_may_mean_another_thing(line: str, why: str) -> None:
    found = parse(line)
    assert why in found.unclear and not found.hidden


def test_a_folder_changed_before() -> None:
    first, second, third = parse("cd x && ./a; (cd y)").segments
    assert (first.after_cd, second.after_cd, third.after_cd) == (False, True, True)
    assert [s.after_cd for s in parse("(cd x); ./a").segments] == [False, False]
    assert all(s.after_cd for s in parse("while ./a; do cd ..; done").segments)


TRICKS = (
    "a;b", "a&&b||c", "a\nb", "a|b", "(a)", "{ a; }", "a $(b)", "a `b`", "a \"$(b)\"", "a '$(b)'",
    "a \"`b`\"", "a \\$(b)", "a <(b)", "a ${X:-$(b)}", "a \"${X:-$(b)}\"", "a \"${X:-`b`}\"",
    "a <<E\n$(b)\nE", "a <<'E'\n$(b)\nE", "a <<E\n`b`\nE", "a <<< $(b)", "X=$(a) b", "X=`a`",
    "if a; then b; fi", "for i in $(a); do b; done", "case $(a) in *) b;; esac", "! a", "a # b",
    "a #b\nc", "a\\\nb", "a \\\n;b", "bash -c 'a; b'", "bash -c \"a\" b", "sh -ec 'a'",
    "env a", "env X=1 a", "command a", "exec a", "a & b", "a |& b", "[[ $(a) ]] && b",
    "[ -n \"$(a)\" ]", "$(echo a)", "X=a; $X", "eval a", "echo a | bash", "bash <<< a",
    "echo b | xargs a", "a $((1+1)) b", "a $'b' c", "\\a", "'a'", "\"a\"b", "a{,b}", "time a",
    "while a; do b; break; done", "until a; do b; done", "f() { a; }; f", "function f { a; }; f",
    "a >(b)", "(a; (b))", "a <<-E\n\t$(b)\n\tE", "a <<E1 <<E2\n$(b)\nE1\n$(c)\nE2", "((1)) && a",
    "a[0]=1; b", "X=(1 $(a)); b", "a ''$(b)", "a \"x$(b \"$(c)\")\"", "a;;b", "a ${X#$(b)}",
    "a ${X/$(b)/c}", "a $[1+1]", "coproc a", "trap a EXIT", "timeout 5 a", "nice a", "nohup a",
    "a 2>$(b)", "a > >(b)", "< <(a) b", "[[ -v 'x[$(a)]' ]]", "printf -v 'x[$(a)]' y",
    "a=1 b=$(c) d",
)  # fmt: skip


def test_bash_runs_nothing_that_is_not_seen(tmp_path: Path) -> None:
    """Bash runs each trick twice, with programs that only record their name.

    In the first pass all programs succeed; in the second, the first one to run fails. So both sides
    of every ``&&`` and ``||`` run, and every loop ends.
    """
    marks, fails, bin_folder = tmp_path / "marks", tmp_path / "fails", tmp_path / "bin"
    bin_folder.mkdir()
    for name in ("a", "b", "c", "d", "ab"):
        program = bin_folder / name
        program.write_text(
            f'#!/bin/sh\necho {name} >> "{marks}"\n'
            f'if [ -e "{fails}" ]; then rm "{fails}"; exit 1; fi\n'
        )
        program.chmod(0o755)
    faults, everything = [], set()
    for trick in TRICKS:
        ran = set()
        for first_fails in (False, True):
            marks.write_text("")
            if first_fails:
                fails.touch()
            subprocess.run(
                ("/bin/bash", "-c", trick),
                env={"PATH": f"{bin_folder}:/usr/bin:/bin"},
                cwd=tmp_path,
                capture_output=True,
                stdin=subprocess.DEVNULL,
                timeout=60,
            )
            ran |= set(marks.read_text().split())
        fails.unlink(missing_ok=True)
        everything |= ran
        found = parse(trick)
        if not found.hidden and not ran <= {segment.program for segment in found.segments}:
            faults.append((trick, ran, programs(trick)))
    assert faults == []
    assert everything == {"a", "b", "c", "d", "ab"}
    assert sum(not parse(trick).hidden for trick in TRICKS) > 60, "nor is all of it given up"


def test_long_lines() -> None:
    line = " && ".join(["/usr/bin/git status"] * 100)
    assert [segment.program for segment in parse(line).segments] == ["git"] * 100
    for deep in (" && ".join(["a"] * 5000), "$(" * 1000 + "a" + ")" * 1000, "(" * 3000):
        assert parse(deep).hidden
