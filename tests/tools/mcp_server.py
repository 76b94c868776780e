"""A small hand-written MCP server, because the SDK starts slowly.

Its protocol is that of 2025-11-25. With ERA=strict, it ends at a first message that is not the
handshake; with ERA=new, it only speaks that of 2026-07-28; with ERA=refusing, it refuses both.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from typing import Any

TEXT = {"type": "string"}
NUMBER = {"type": "number"}


def schema(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


TOOLS = [
    {
        "name": "add",
        "description": "Add two numbers.",
        "inputSchema": schema(a=NUMBER, b=NUMBER),
        "annotations": {"readOnlyHint": True},
    },
    {"name": "variable", "description": "A variable.", "inputSchema": schema(name=TEXT)},
    {"name": "fail", "description": "Always fails.", "inputSchema": schema()},
    {"name": "sleep", "description": "Takes its time.", "inputSchema": schema(seconds=NUMBER)},
    {"name": "reach", "description": "Connects.", "inputSchema": schema(port=NUMBER)},
    {"name": "die", "description": "Ends the server.", "inputSchema": schema()},
]


def call(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    failed = False
    match name:
        case "add":
            text = f"{arguments['a'] + arguments['b']:g}"
        case "variable":
            text = os.environ.get(arguments["name"], "unset")
        case "sleep":
            time.sleep(arguments["seconds"])
            text = "awake"
        case "reach":
            try:
                socket.create_connection(("127.0.0.1", arguments["port"]), 5).close()
                text = "reached"
            except OSError as error:
                text = f"not reached: {error.strerror}"
        case "die":
            print("out of luck", file=sys.stderr, flush=True)
            os._exit(7)
        case "parts":
            return arguments
        case "fail":
            text, failed = "it had to fail", True
        case _:
            text = json.dumps(arguments)
    return {"content": [{"type": "text", "text": text}], "isError": failed}


def answer(method: str, params: dict[str, Any]) -> dict[str, Any] | None:
    match method:
        case "initialize":
            return {
                "protocolVersion": "2025-11-25",
                "capabilities": {"tools": {}, "resources": {}, "prompts": {}},
                "serverInfo": {"name": "small", "version": "1"},
                "instructions": os.environ.get("INSTRUCTIONS", ""),
            }
        case "tools/list":
            more = json.loads(os.environ.get("MORE_TOOLS", "[]"))
            endless = (
                {"nextCursor": f"after {params.get('cursor')}"} if "ENDLESS" in os.environ else {}
            )
            return {"tools": os.environ.get("TOOLS", [*TOOLS, *more]), **endless}
        case "tools/call":
            return call(params["name"], params.get("arguments") or {})
        case "resources/list" | "prompts/list" if "cursor" not in params:
            return {method.split("/")[0]: [], "nextCursor": "all"}
        case "resources/list":
            return {"resources": [{"uri": "note://today", "name": "note"}]}
        case "resources/templates/list":
            return {"resourceTemplates": [{"uriTemplate": "note://{day}", "name": "of a day"}]}
        case "resources/read" if "IMAGE" in os.environ:
            return {"contents": [{"uri": params["uri"], "blob": os.environ["IMAGE"]}]}
        case "resources/read":
            return {"contents": [{"uri": params["uri"], "text": "buy milk"}]}
        case "prompts/list":
            what = {"name": "what", "required": True}
            review = {"name": "review", "description": "Ask for a review.", "arguments": [what]}
            return {"prompts": [review]}
        case "prompts/get":
            what = params["arguments"]["what"]
            if what.startswith("later:"):  # the file tells the test that it was asked
                open(what.removeprefix("later:"), "x").close()
                time.sleep(600)
            text = f"Please review {what}."
            return {"messages": [{"role": "user", "content": {"type": "text", "text": text}}]}
    return None


def answer_of_2026(method: str, params: dict[str, Any]) -> dict[str, Any] | None:
    whole = {"resultType": "complete", "ttlMs": 0, "cacheScope": "private"}
    if method == "server/discover":
        capabilities: dict[str, Any] = {"tools": {}, "resources": {}, "prompts": {}}
        return {"supportedVersions": ["2026-07-28"], "capabilities": capabilities, **whole}
    found = None if method == "initialize" else answer(method, params)
    return found and found | whole


def told(request: dict[str, Any]) -> str:
    era = os.environ.get("ERA")
    reply = answer_of_2026 if era == "new" else answer
    result = reply(request["method"], request.get("params") or {}) if era != "refusing" else None
    outcome = {"error": {"code": -32601, "message": "no such method"}}
    whole = {"jsonrpc": "2.0", "id": request["id"], **({"result": result} if result else outcome)}
    return json.dumps(whole)


def reply(request: dict[str, Any]) -> None:
    print(told(request), flush=True)


if __name__ == "__main__":
    for number, line in enumerate(sys.stdin):
        request = json.loads(line)
        if number == 0 and os.environ.get("ERA") == "strict" and request["method"] != "initialize":
            sys.exit("the handshake was expected")
        if "id" in request:
            threading.Thread(target=reply, args=(request,), daemon=True).start()
