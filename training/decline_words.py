"""What is beyond a small model, as people type it: ``asked | what the answer calls it``.

For the notation see wording.py; ``{f}`` and ``{path}`` are filled in.
"""

from __future__ import annotations

DECLINES = """
add OAuth to this app | add OAuth
add OAuth login with Google | add a login with Google
implement user authentication | implement authentication
build a web app for this | build a web app
create a REST API around this module | create a REST API
add a GraphQL endpoint | add a GraphQL endpoint
write a Dockerfile and deploy this to Kubernetes | deploy this
set up CI with GitHub Actions | set up CI
migrate this project to Django | migrate a project
port this to Rust | port the code to Rust
rewrite this in TypeScript | rewrite the code in TypeScript
convert the whole project to async | convert a project to async
translate the README into German | translate texts
write documentation for all modules | write documentation
write a README | write a README
write a blog post about this library | write a blog post
write unit tests for everything | write new tests
write tests for {f} | write new tests
add property based tests for {path} | write new tests
increase the test coverage to 90% | write new tests
explain the architecture of this project | explain an architecture
explain how {path} works | explain code
explain what {f} does in detail | explain code
review my pull request | review code
do a code review of {path} | review code
refactor {path} into smaller modules | restructure a module
refactor the whole project to use dataclasses | restructure a project
make {f} twice as fast | optimise code
optimise the performance of this project | optimise code
profile this and speed it up | optimise code
add type hints everywhere | add type hints to a project
add logging to all functions | add logging everywhere
add a command line interface with subcommands | add a command line interface
add a GUI | build a user interface
build me a game of chess | build a game
write a snake game | write a game
implement a neural network from scratch | implement a neural network
train a model on this data | train a model
add support for PostgreSQL | add a database
add caching with Redis | add caching with Redis
design a database schema for this | design a database
create a new feature: export to PDF | add a feature
add a feature that exports everything to Excel | add a feature
implement dark mode | add a feature
add pagination to the list endpoint | add a feature
add a new function that sorts everything by date | write new functions
write a function that parses CSV files | write new functions
write a script that renames my photos | write new programs
write a scraper for a news site | write a scraper
upgrade all dependencies to the newest versions | upgrade dependencies
find security holes in this code | audit code for security
do a security audit | audit code for security
publish this package to PyPI | publish a package
commit and push everything | use git for you
open a pull request | open a pull request
what is the capital of France? | answer general questions
who won the world cup in 2014? | answer general questions
what's the weather like today | answer general questions
tell me a joke | tell jokes
write a poem about the sea | write poems
what is the meaning of life | answer general questions
how does quantum computing work? | answer general questions
explain monads | explain concepts
what is the difference between a list and a tuple? | explain concepts
recommend a book about Python | give recommendations
summarise this article for me | summarise texts
translate "good morning" to French | translate texts
book a flight to Lisbon | do that
send an email to my boss | send mail
how do I center a div? | answer questions about web design
help me with my homework in history | help with homework
plan my week | make plans
compare React and Vue | compare frameworks
which laptop should I buy | give recommendations
generate an image of a cat | make images
implement OAuth2 with refresh tokens and write the docs | implement OAuth
replace the database layer by SQLAlchemy | replace a database layer
split this repository into microservices | restructure a project
make this thread-safe | make code thread-safe
support Windows as well | port the code
internationalise the app | translate an application
write a plugin system | design a plugin system
turn this into a library with a public API | restructure a project
""".strip().split("\n")

REASONS = [
    "I can't {what}: I am a small offline model for small repairs and simple questions about a "
    "repository. Set ANTHROPIC_API_KEY or OPENAI_API_KEY, or use --model local:PATH, for this.",
    "That is out of my reach: I cannot {what}. Configure a provider (ANTHROPIC_API_KEY, "
    "OPENAI_API_KEY) or a local model with --model local:PATH.",
    "I cannot {what}; I only fix small faults, rename things and answer simple questions. A larger "
    "model can: set ANTHROPIC_API_KEY or OPENAI_API_KEY, or pass --model local:PATH.",
]
