"""Decides which packages may be trained on, by the licence in their own metadata.

Only permissive licences are allowed. A package that names none of them, or any other in addition,
is left out and recorded with the reason. If a wheel merely bundles a compiled library under another
licence, and its Python code is not affected, the package is listed in ``REVIEWED`` with the licence
that was read there.
"""

from __future__ import annotations

import re
from email.message import Message
from email.parser import HeaderParser

ALLOWED = re.compile(
    r"^(MIT(-0|-CMU)?|BSD(-[0-4]-Clause)?|0BSD|Apache(-2\.0)?|PSF(-2\.0)?|Python-2\.0|ISC|HPND"
    r"|CNRI-Python)$"
)
# As free text ("BSD License", "Apache Software License 2.0", "The MIT License (MIT)").
NAMED = [
    (re.compile(r"\bapache\b", re.IGNORECASE), "Apache-2.0"),
    (
        re.compile(
            r"\b(new |modified |simplified )?bsd\b|redistributions in binary", re.IGNORECASE
        ),
        "BSD",
    ),
    (re.compile(r"\bmit\b|permission is hereby granted, free of charge", re.IGNORECASE), "MIT"),
    (re.compile(r"\b(psf|python software foundation)\b", re.IGNORECASE), "PSF-2.0"),
    (re.compile(r"\bisc\b", re.IGNORECASE), "ISC"),
]
REFUSED = re.compile(
    r"\b(a|l)?gpl|general public|mozilla|\bmpl\b|proprietary|commercial|\beupl\b|\bcc[- ]by",
    re.IGNORECASE,
)
# Wheels whose compiled parts bundle libraries under further licences; the Python code is under:
REVIEWED = {
    "numpy": "BSD-3-Clause",
    "scipy": "BSD-3-Clause",
    "pandas": "BSD-3-Clause",
    "scikit-learn": "BSD-3-Clause",
    "scikit-image": "BSD-3-Clause",
    "matplotlib": "PSF-2.0",
    "torch": "BSD-3-Clause",
    "biopython": "BSD-3-Clause",
}


def licence_of(name: str, metadata: str) -> tuple[str, bool]:
    """(licence as recorded, whether it may be used) from PKG-INFO or METADATA."""
    if name in REVIEWED:
        return REVIEWED[name], True
    headers = HeaderParser().parsestr(metadata)
    expression = str(headers.get("License-Expression") or "").strip()
    if expression:
        return expression, _expression_allowed(expression)
    classifiers = _classifiers(headers)
    # Some packages paste the whole licence into the field: its start names it.
    stated = " ".join(str(headers.get("License") or "").split())[:300]
    for text in (*classifiers, stated):
        if REFUSED.search(text):
            return text[:60], False
    for text in (*classifiers, stated):
        for pattern, licence in NAMED:
            if pattern.search(text):
                return licence, True
    return stated[:60] or "not stated", False


def _classifiers(headers: Message) -> list[str]:
    values = [str(value) for value in headers.get_all("Classifier") or []]
    return [value.split("::")[-1].strip() for value in values if value.startswith("License ::")]


def _expression_allowed(expression: str) -> bool:
    """Every AND term needs one allowed OR alternative (parentheses do not nest in practice)."""
    for term in re.split(r"\s+AND\s+", expression.strip("() ")):
        alternatives = [part.strip("() ") for part in re.split(r"\s+OR\s+", term)]
        if not any(ALLOWED.match(part) for part in alternatives):
            return False
    return True
