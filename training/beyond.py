"""Requests that are beyond a small model, put together from parts, and what the answer calls them.

Objects, not whole sentences, are split into those of training and those of the evaluation.
"""

from __future__ import annotations

import random
import re

from training.wording import bare, chosen, lists, pattern, phrases

_FEATURES = """
OAuth
OAuth2 login
single sign-on
two-factor authentication
a login page
user accounts
password reset by mail
role based access control
JWT tokens
API keys
rate limiting per user
a REST API
a GraphQL API
a gRPC service
websocket support
server-sent events
a web interface
a dashboard
a React frontend
an admin panel
dark mode
a settings page
a mobile app
a desktop GUI
a progress bar
a command line interface
shell completion
a plugin system
an event system
a message queue
Kafka integration
Redis caching
a Postgres backend
SQLite storage
database migrations
an ORM layer
full text search
pagination
sorting and filtering
CSV import
Excel export
PDF export
an image upload
thumbnail generation
email notifications
Slack notifications
push notifications
a newsletter
payments with Stripe
invoices
a shopping cart
a recommendation engine
a chatbot
machine learning predictions
a neural network
sentiment analysis
speech recognition
image recognition
translations
localisation
time zone support
a calendar view
a map view
charts and graphs
metrics and tracing
structured logging
error tracking with Sentry
health checks
a Docker image
a Helm chart
Terraform files
a CI pipeline
a release workflow
a pre-commit setup
type annotations for everything
docstrings for all modules
a tutorial
a user manual
a changelog
a website for the project
an installer
auto updates
encryption at rest
end-to-end encryption
backups
multi-tenancy
horizontal scaling
async support
multiprocessing
GPU support
Windows support
a Python 2 version
a type checker
a compiler for this language
a game engine
multiplayer
an AI opponent
high score tables
sound effects
animations
benchmarks
a test suite
integration tests
fuzz tests
a coverage report
""".strip().split("\n")
_ADD = """
add {x}
add {x} to this project
add {x} please
Add {x}.
implement {x}
Implement {x} for this repository.
build {x}
build {x} for me
create {x}
I want {x}
we need {x}
integrate {x}
please add {x} and write tests for it
add support for {x}
can we have {x}?
set up {x}
the next task is {x}
design and implement {x}
extend the code with {x}
it should have {x}
""".strip().split("\n")
_SYSTEMS = """
Django
Flask
FastAPI
Rust
Go
TypeScript
Java
C++
Kotlin
Haskell
asyncio
trio
SQLAlchemy
pydantic
pandas
polars
numpy
PyTorch
Kubernetes
AWS Lambda
Azure
Google Cloud
Python 3.13
poetry
uv
Bazel
microservices
a monorepo
hexagonal architecture
clean architecture
""".strip().split("\n")
_MOVE = """
migrate this to {x}
port this to {x}
rewrite everything in {x}
convert the project to {x}
move our code to {x}
refactor to {x}
switch to {x}
make it work with {x}
replace what we have by {x}
upgrade to {x}
""".strip().split("\n")
_TOPICS = """
quantum computing
the French revolution
black holes
photosynthesis
inflation
the Roman empire
blockchain
neural networks
dependency injection
the GIL
monads
garbage collection
TCP
DNS
public key cryptography
the theory of relativity
climate change
chess openings
sourdough bread
the stock market
vaccines
the human heart
jazz
Shakespeare
football
Mount Everest
the moon landing
dinosaurs
coffee
meditation
""".strip().split("\n")
_EXPLAIN = """
explain {x}
explain {x} to me like I'm five
what is {x}?
how does {x} work?
tell me about {x}
write an essay about {x}
write a poem about {x}
give me five facts about {x}
what do you think of {x}?
summarise {x}
who invented {x}?
why is {x} important?
recommend a book about {x}
""".strip().split("\n")

REASONS = [
    "I can't {what}: I am a small offline model for small repairs and simple questions about a "
    "repository. Set ANTHROPIC_API_KEY or OPENAI_API_KEY, or use --model local:PATH, for this.",
    "That is out of my reach: I cannot {what}. Configure a provider (ANTHROPIC_API_KEY, "
    "OPENAI_API_KEY) or a local model with --model local:PATH.",
    "I cannot {what}; I only fix small faults, rename things and answer simple questions. A larger "
    "model can: set ANTHROPIC_API_KEY or OPENAI_API_KEY, or pass --model local:PATH.",
]

_LINES = [f"{asked} | {what}" for what, lines in lists("declines.txt").items() for asked in lines]

# What the lines of the evaluation can say: under another heading another line may say the same.
_HELD = re.compile(
    "|".join(pattern(line.rpartition("|")[0]) for line in phrases(_LINES, held=True))
)


def request(rng: random.Random, held: bool = False) -> tuple[str, str]:
    """(what the user says, what the model says that it cannot do)"""
    while True:
        asked, what = _drawn(rng, held)
        if held or not _HELD.fullmatch(bare(asked)):
            return asked, what


def _drawn(rng: random.Random, held: bool) -> tuple[str, str]:
    """A request, and what the answer calls it.

    The model would garble objects that it copies, so the answer names the kind of request.
    """
    draw = rng.random()
    if draw < 0.16:
        x = rng.choice(phrases(_FEATURES, held))
        return rng.choice(phrases(_ADD, held)).replace("{x}", x), "add features"
    if draw < 0.22:
        x = rng.choice(phrases(_SYSTEMS, held))
        return rng.choice(phrases(_MOVE, held)).replace("{x}", x), "move a project"
    if draw < 0.29:
        x = rng.choice(phrases(_TOPICS, held))
        return rng.choice(phrases(_EXPLAIN, held)).replace("{x}", x), "answer general questions"
    asked, _, what = chosen(rng, _LINES, held).rpartition("|")
    return asked.strip(), what.strip()
