"""Prompts: where they are looked up, which one wins, and that the shipped ones are valid."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentcli.errors import ConfigError
from agentcli.prompts import Prompts, packaged_folder


def put(folder: Path, name: str, text: str) -> Path:
    path = folder / f"{name}.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_the_shipped_prompts_are_found() -> None:
    prompts = Prompts.standard()
    assert {"system", "plan", "tools/read_file", "tools/search_replace"} <= set(prompts.names())
    assert prompts.find("system") == packaged_folder() / "system.md"


def test_the_system_prompt_names_the_workspace() -> None:
    facts = {"workspace": "/w", "platform": "Linux x86_64", "sandbox": "reduced"}
    text = Prompts.standard().render("system", facts)
    assert "Folder: /w " in text and "System: Linux x86_64" in text and "Sandbox: reduced " in text
    assert "{{" not in text


def test_each_tool_says_when_not_to_use_it() -> None:
    prompts = Prompts.standard()
    tools = [name for name in prompts.names() if name.startswith("tools/")]
    assert [name for name in tools if "\nNot for" not in prompts.get(name)] == []


def test_the_project_goes_before_the_user_and_the_user_before_the_package(tmp_path: Path) -> None:
    user, project = tmp_path / "user", tmp_path / "project"
    put(user, "system", "user's system")
    put(user, "tools/grep", "user's grep")
    put(project, "system", "project's system")
    prompts = Prompts.standard(user=user, project=project)
    assert prompts.get("system") == "project's system"
    assert prompts.get("tools/grep") == "user's grep"
    assert prompts.get("tools/glob") == Prompts.standard().get("tools/glob")


def test_a_prompt_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    put(tmp_path, "system", "\ufeffhello\n\n")
    assert Prompts(tmp_path).get("system") == "hello"


def test_what_is_filled_in_is_not_searched_for_places(tmp_path: Path) -> None:
    put(tmp_path, "greeting", "{{a}} and {{ b }}")
    assert Prompts(tmp_path).render("greeting", {"a": "{{b}}", "b": "B"}) == "{{b}} and B"


def test_an_unknown_place_is_named_with_the_file(tmp_path: Path) -> None:
    path = put(tmp_path, "greeting", "Hello {{nmae}}")
    with pytest.raises(ConfigError) as caught:
        Prompts(tmp_path).render("greeting", {"name": "x"})
    assert caught.value.line() == (
        f"the prompt {path} has unknown placeholders: nmae. Known placeholders are name"
    )


def test_a_missing_prompt_says_where_it_was_sought(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"there is no prompt 'nothing' in {tmp_path}"):
        Prompts(tmp_path).get("nothing")


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/../b", "", "a.b", "a\n"])
def test_a_name_cannot_lead_out_of_the_folders(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be the name of a prompt"):
        Prompts(tmp_path).find(name)


def test_empty_and_unreadable_prompts_are_errors(tmp_path: Path) -> None:
    put(tmp_path, "empty", " \n")
    (tmp_path / "latin.md").write_bytes(b"caf\xe9")
    with pytest.raises(ConfigError, match="is empty"):
        Prompts(tmp_path).get("empty")
    with pytest.raises(ConfigError, match="cannot be read"):
        Prompts(tmp_path).get("latin")


def test_folders_that_do_not_exist_are_empty(tmp_path: Path) -> None:
    assert Prompts(tmp_path / "nowhere").names() == ()
