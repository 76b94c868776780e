"""An agent with a tool of its own: ``python examples/library.py openai:gpt-6.2-sol``."""

import asyncio
import sys

from agentcli import Agent, connect, tool


@tool
def word_count(text: str) -> int:
    """Count the words of a text."""
    return len(text.split())


async def main(model: str) -> None:
    agent = Agent(connect(model), [word_count])
    result = await agent.start("How many words are in 'to be or not to be'?").result()
    print(result.task_result)
    await agent.client.aclose()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
