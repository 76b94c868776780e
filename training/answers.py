"""What the model says at the end of a repair: short, and only what was done and seen."""

from __future__ import annotations

import random

from training.quick_session import Run

Change = tuple[str, str, str, int]  # path, old, new, line

FIXED = [
    "Fixed line {line} of {path}: `{old}` is now `{new}`. {passed}",
    "Fixed: in {path}, line {line}, `{old}` became `{new}`. {passed}",
    "The fault was in line {line} of {path}: `{old}` must be `{new}`. {passed}",
    "I changed line {line} of {path} from `{old}` to `{new}`. {passed}",
    "Done. {path}, line {line}: `{old}` -> `{new}`. {passed}",
]


ADDED = [
    "Fixed {path}: the line `{new}` was missing. {passed}",
    "A line was missing in {path}: I added `{new}`. {passed}",
]


REMOVED = [
    "Fixed {path}: I removed the wrong line `{old}`. {passed}",
    "The line `{old}` in {path} was wrong; I took it out. {passed}",
]


CHANGED = [
    "Fixed {path} at line {line}. {passed}",
    "I corrected {path} at line {line}. {passed}",
]


def told(edit: Change, passed: str, rng: random.Random) -> str:
    path, old, new, line = edit
    olds, news = old.split("\n"), new.split("\n")
    gone = [text for text in olds if text not in news]
    come = [text for text in news if text not in olds]
    if len(olds) == len(news):
        line += next((i for i, (a, b) in enumerate(zip(olds, news, strict=True)) if a != b), 0)
    fields = {
        "path": path,
        "line": line,
        "old": gone[0].strip() if gone else "",
        "new": come[0].strip() if come else "",
        "passed": passed,
    }
    if max(len(str(fields["old"])), len(str(fields["new"]))) > 90:
        texts = CHANGED
    elif len(gone) == len(come) == 1 and fields["old"] != fields["new"]:
        texts = FIXED
    elif len(come) == 1 and not gone:
        texts = ADDED
    elif len(gone) == 1 and not come:
        texts = REMOVED
    else:
        texts = CHANGED
    return rng.choice(texts).format(**fields).rstrip()


def passed_text(run: Run, rng: random.Random) -> str:
    if run.passed == 1:
        return "The test passes."
    return rng.choice([f"All {run.passed} tests pass.", f"All {run.passed} tests pass now."])
