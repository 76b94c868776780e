"""The purpose of a command line: to test, build, edit, search, and so on."""

from __future__ import annotations

import pytest

from agentcli.tools.purpose import purpose_of

LINES = {
    "check": """
        pytest -q
        python -m pytest tests/test_x.py -k slow
        cd src && PYTHONPATH=. python3.12 -m unittest discover
        timeout 60 pytest -x 2>&1 | tail -20
        uv run --frozen pytest
        uv run pytest
        poetry run mypy src
        npx tsc --noEmit
        npx jest
        npm test
        npm run test:unit -- --watch=false
        pnpm run lint
        yarn test
        cargo test --all
        cargo clippy
        go test ./...
        go vet ./...
        make
        make -j4 check
        make test
        make -C sub unit-tests
        ./gradlew test
        mvn -q verify
        dotnet test
        cmake --build build
        ruff check .
        black --check src
        python tests/test_calc.py
        python manage.py test app
        bundle exec rspec
        bash -n x.sh; pytest
        CI=1 tox -e py312
        sed -i s/a/b/ x.py && pytest
        ninja -C build
    """,
    "read": """
        ls -la
        cat a.py | head -50
        grep -rn "def f" src | wc -l
        git status --short
        git diff HEAD~1 -- a.py
        git -C sub log --oneline
        sed -n 1,20p a.py
        cd src; ls
        find . -name '*.py' -not -path './.venv/*'
        cat x 2>/dev/null > /dev/null
        rg "a > b" src
    """,
    "edit": """
        sed -i 's/a/b/' x.py
        sed --in-place=.bak -e s/a/b/ x.py
        perl -pi -e 's/a/b/' x.py
        echo hello > x.txt
        cat >> notes.md
        git apply fix.patch
        git checkout -- a.py
        patch -p1 < fix.patch
        mkdir -p a && touch a/b
        ruff format src
        black src
        rm -f old.py
        cat a.py && mv a.py b.py
    """,
    "run": """
        python main.py
        python -c 'print(1)'
        ./run.sh
        npm install
        npm start
        make install
        cargo run
        go run .
        pip install -e .
        git commit -m test
        curl http://127.0.0.1
        echo "open
        echo hi; sleep 5
        python -m http.server
    """,
}


@pytest.mark.parametrize(
    ("kind", "line"),
    [(kind, line.strip()) for kind, lines in LINES.items() for line in lines.strip().split("\n")],
)
def test_a_line(kind: str, line: str) -> None:
    assert purpose_of(line).value == kind


def test_several_lines_are_several_commands() -> None:
    assert purpose_of("cd src\nls\npytest -q\n").value == "check"
    assert purpose_of("ls\ncat x").value == "read"
    assert purpose_of("").value == "run" and purpose_of("x" * 100_000).value == "run"
