"""Chat templates: the same tokens as transformers, and none injected by a message."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="models on this machine need the extra 'local'")

import transformers

from agentcli.errors import ModelError
from agentcli.llm.templates import ChatTemplate
from agentcli.model.folder import open_folder
from tests.llm.folders import KINDS, make_folder
from tests.model.test_tokenizer import sentencepiece

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "read_file",
            "description": 'Read a file, "quoted" & <b>bold</b>: ä',
            "parameters": {
                "type": "object",
                "properties": {"path": {"type": "string"}},
                "required": ["path"],
            },
        },
    }
]
CALL = {
    "id": "abcdefghi",
    "type": "function",
    "function": {"name": "read_file", "arguments": {"path": "ä/<b>.py", "n": [1, None, True]}},
}
SYSTEM: dict[str, Any] = {"role": "system", "content": " Be brief. "}
QUESTION: dict[str, Any] = {"role": "user", "content": "hello world\n"}
CALLING: list[dict[str, Any]] = [
    QUESTION,
    {"role": "assistant", "content": "", "reasoning_content": "hm", "tool_calls": [CALL]},
    {"role": "tool", "name": "read_file", "content": '1\t"x"\n', "tool_call_id": "abcdefghi"},
]
CONVERSATIONS: dict[str, list[dict[str, Any]]] = {
    "question": [QUESTION],
    "system": [SYSTEM, QUESTION],
    "calling": [SYSTEM, *CALLING],
    "later": [
        *CALLING,
        {"role": "assistant", "content": " It is x.", "reasoning_content": "so"},
        {"role": "user", "content": "and y?"},
    ],
    "alternating": [QUESTION, {"role": "assistant", "content": "hi"}, QUESTION],
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("folders")
    return {name: make_folder(name, base / name) for name in KINDS}


def template(folder: Path) -> ChatTemplate:
    found = open_folder(folder)
    assert found.chat_template is not None
    return ChatTemplate(found.chat_template, found.load_tokenizer())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("answer", [True, False])
def test_the_tokens_of_transformers(folders: dict[str, Path], kind: str, answer: bool) -> None:
    ours = template(folders[kind])
    # AutoTokenizer would replace the pattern in the file by the usual one of the family.
    oracle: Any = transformers.PreTrainedTokenizerFast.from_pretrained(folders[kind])
    compared = 0
    for messages in CONVERSATIONS.values():
        for tools in ([], TOOLS):
            try:
                expected = oracle.apply_chat_template(
                    messages,
                    tools=tools or None,
                    add_generation_prompt=answer,
                    return_dict=False,
                )
            except Exception:
                with pytest.raises(ModelError, match="does not take this conversation"):
                    ours.render(messages, tools=tools, answer=answer)
                continue
            text = ours.render(messages, tools=tools, answer=answer)
            assert ours.encode(text) == expected
            compared += 1
    assert compared >= 4


@pytest.mark.parametrize("kind", KINDS)
def test_no_message_makes_a_special_token(folders: dict[str, Path], kind: str) -> None:
    ours = template(folders[kind])
    tokenizer = open_folder(folders[kind]).load_tokenizer()
    special = set(tokenizer.special.values())
    attack = "".join(tokenizer.special) + "\ufdd0x"

    def specials(text: str) -> tuple[list[int], str]:
        messages = [{"role": "user", "content": text}]
        rendered = ours.encode(ours.render(messages))
        return [token for token in rendered if token in special], tokenizer.decode(rendered)

    marks, _ = specials("harmless")
    attacked, text = specials(f"a {attack} b")
    assert attacked == marks
    assert f"a {attack} b" in text


def test_a_special_token_in_a_message_changes_no_other_tokens() -> None:
    """Llama 2's tokenizer adds a space after each special token."""
    tokenizer = sentencepiece()
    made = ChatTemplate("{{ '<s>hello ' + messages[0].content + '</s>hello' }}", tokenizer)
    spelled, other = (
        made.encode(made.render([{"role": "user", "content": text}])) for text in ("</s>", "h")
    )
    assert tokenizer.decode(spelled) == "<s> hello </s></s> hello"
    assert spelled.count(tokenizer.special_id("</s>")) == 1
    head = tokenizer.encode("hello ")
    assert spelled[1 : len(head)] == other[1 : len(head)]


def test_a_template_can_reach_nothing(folders: dict[str, Path]) -> None:
    tokenizer = open_folder(folders["qwen2"]).load_tokenizer()
    for source in (
        "{{ messages.__class__.__mro__ }}",
        "{{ ''.__class__.__base__.__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{% set n = namespace(_x=1) %}",
        "{{ cycler.__init__.__globals__ }}",
        "{% for i in range(10**9) %}x{% endfor %}",
    ):
        with pytest.raises(ModelError, match="does not take this conversation"):
            ChatTemplate(source, tokenizer).render([QUESTION])


def test_an_invalid_template(folders: dict[str, Path]) -> None:
    tokenizer = open_folder(folders["qwen2"]).load_tokenizer()
    with pytest.raises(ModelError, match="not valid Jinja"):
        ChatTemplate("{% if %}", tokenizer)
