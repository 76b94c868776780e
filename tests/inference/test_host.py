"""The engine process on its own: protocol, reuse of a conversation, cancellation, errors."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import agentcli.embedded
from agentcli.inference.host import serve
from agentcli.inference.wire import Closed
from agentcli.model.tokenizer import Tokenizer, load_tokenizer

EMBEDDED = Path(agentcli.embedded.__file__).parent
STRING = {"type": "string"}
LOOK = {
    "name": "read_file",
    "parameters": {
        "type": "object",
        "properties": {"path": STRING},
        "required": ["path"],
        "additionalProperties": False,
    },
    "text_of": {},
}


class Client:
    """The client's end of the socket."""

    def __init__(self, link: socket.socket) -> None:
        # Two files, because writing to a file that also reads drops its read-ahead buffer.
        self._reader, self._writer = link.makefile("r"), link.makefile("w")
        self._number = 0

    def send(self, op: str, **fields: Any) -> None:
        self._writer.write(json.dumps({"op": op, **fields}) + "\n")
        self._writer.flush()

    def receive(self) -> dict[str, Any]:
        event: dict[str, Any] = json.loads(self._reader.readline())
        return event

    def ask(self, tokens: list[int], **fields: Any) -> tuple[list[int], dict[str, Any]]:
        """Return the tokens of one answer and its final event, which may be an error."""
        self._number += 1
        asked = {"conversation": "c", "tokens": tokens, "max_tokens": 20, "tools": [LOOK]}
        self.send("generate", id=self._number, **asked | fields)
        said: list[int] = []
        while True:
            event = self.receive()
            assert event["id"] == self._number
            if event["event"] != "token":
                return said, event
            said.append(event["token"])

    @property
    def number(self) -> int:
        return self._number


def serving(link: socket.socket) -> None:
    try:
        serve(link)
    except Closed:
        link.close()


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    ours, theirs = socket.socketpair()
    thread = threading.Thread(target=serving, args=(theirs,))
    thread.start()
    client = Client(ours)
    # In bfloat16, the default on some processors, reusing a cache can round another way.
    client.send("load", path=str(EMBEDDED), threads=1, dtype="float32")
    ready = client.receive()
    assert ready["event"] == "ready"
    assert ready["context"] == 4096
    yield client
    ours.shutdown(socket.SHUT_RDWR)
    thread.join(timeout=30)
    assert not thread.is_alive()  # the host ends when its client is gone


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return load_tokenizer(EMBEDDED)


def prompt(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer.encode_template(f"<|bos|><|user_start|>{text}<|user_end|><|assistant_start|>")


def test_a_conversation_computes_only_what_is_new(client: Client, tokenizer: Tokenizer) -> None:
    tokens = prompt(tokenizer, "what is in a.py?")
    said, end = client.ask(tokens, conversation="reuse")
    assert end["finish"] in ("stop", "length")
    longer = [*tokens, *said, *tokenizer.encode(" and b.py")]
    again, other = client.ask(longer, conversation="reuse")
    assert other["reused"] >= len(tokens) + len(said) - 1
    fresh, alone = client.ask(longer, conversation="fresh")
    assert alone["reused"] == 0
    assert again == fresh


def test_an_earlier_turn_that_changed_is_computed_anew(
    client: Client, tokenizer: Tokenizer
) -> None:
    one, two = prompt(tokenizer, "read a.py"), prompt(tokenizer, "read b.py")
    client.ask(one, conversation="changed")
    _, end = client.ask(two, conversation="changed")
    shared = next(i for i, (a, b) in enumerate(zip(one, two, strict=False)) if a != b)
    assert end["reused"] == shared


def test_same_seed_same_answer(client: Client, tokenizer: Tokenizer) -> None:
    tokens = prompt(tokenizer, "the tests fail")
    answers = [
        client.ask(tokens, tools=[], sampling={"temperature": 1.0, "seed": seed})[0]
        for seed in (7, 7, 8)
    ]
    assert answers[0] == answers[1] != answers[2]


def test_cancelling_ends_it(client: Client, tokenizer: Tokenizer) -> None:
    number = client.number + 1
    client.send("cancel", id=number)  # arrives before the first token
    said, end = client.ask(prompt(tokenizer, "hello"), max_tokens=2000)
    assert end["finish"] in ("cancelled", "stop")
    assert len(said) < 50


def test_errors_are_reported_and_the_process_continues(
    client: Client, tokenizer: Tokenizer
) -> None:
    _, end = client.ask([])
    assert (end["event"], end["error"]) == ("error", "ModelError")
    _, end = client.ask([5] * 5000)
    assert (end["event"], end["error"]) == ("error", "ContextLengthError")
    _, end = client.ask(prompt(tokenizer, "hello"), sampling={"temperature": -1.0})
    assert end["event"] == "error"
    _, end = client.ask(prompt(tokenizer, "hello"))
    assert end["event"] == "end"


def test_proposals_are_different_calls(client: Client, tokenizer: Tokenizer) -> None:
    number = client.number + 1
    tokens = prompt(tokenizer, "what is in a.py?")
    client._number = number
    asked = {"conversation": "p", "tokens": tokens, "max_tokens": 60, "tools": [LOOK], "count": 4}
    client.send("generate", id=number, **asked)
    found = []
    while (event := client.receive())["event"] == "proposal":
        found.append(tokenizer.decode(event["tokens"]))
        client.send("more", id=number)
    assert event["event"] == "end"
    assert len(found) == len(set(found)) == 4
    for text in found:
        call = json.loads(text.removeprefix("<|call_start|>").split("<|call_end|>")[0])
        assert call["name"] == "read_file"


def test_an_invalid_model() -> None:
    ours, theirs = socket.socketpair()
    thread = threading.Thread(target=serving, args=(theirs,))
    thread.start()
    client = Client(ours)
    client.send("load", path="/nonexistent")
    event = client.receive()
    assert (event["event"], event["error"]) == ("error", "CheckpointError")
    thread.join(timeout=30)
