"""SQL that finds where an id stands in stored text, and takes it out."""

from __future__ import annotations

import json

from midstream.pseudonymise import MIN_CONTAINED_CHARS


def is_long(id_: str) -> bool:
    """Whether an id is looked for inside of texts: a short one would be found in what has nothing to do with it."""
    return len(id_) >= MIN_CONTAINED_CHARS


def written(id_: str) -> list[str]:
    """Return how an id is written inside of a JSON string, as most writers do it, in ASCII alone, with slashes escaped;
    and inside of our own messages."""
    forms = [json.dumps(id_, ensure_ascii=only_ascii)[1:-1] for only_ascii in (False, True)]
    forms += [form.replace("/", "\\/") for form in forms]
    return list(dict.fromkeys([*forms, id_, repr(id_)[1:-1]]))


def holds(column: str, id_: str) -> str:
    """Return SQL: a text holds the id; a short one only as a JSON string of its own."""
    forms = written(id_) if is_long(id_) else [f'"{form}"' for form in written(id_)]
    return f"multiSearchAny({column}, [{', '.join(map(quoted, forms))}])"


def replaced(column: str, id_: str, name: str) -> str:
    """Return SQL: a text with the pseudonym in place of the id; a short one only as a JSON string of its own."""
    for form in written(id_):
        old, new = (form, name) if is_long(id_) else (f'"{form}"', f'"{name}"')
        column = f"replaceAll({column}, {quoted(old)}, {quoted(new)})"
    return column


def quoted(text: str) -> str:
    """Return a text as a literal of ClickHouse's SQL."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n").replace("\t", "\\t")
    return f"'{escaped}'"
