"""Reference pages made from what the code declares: settings, metrics, reason codes.

``python -m midstream.reference docs`` writes them (``make reference``); a test fails when a page is not what this
makes.
"""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import get_args

from prometheus_client.metrics import MetricWrapperBase
from pydantic.fields import FieldInfo

from midstream import metrics
from midstream.codes import REASONS
from midstream.settings import SUBJECTS, Settings

_MADE = "<!-- Made by `make reference`; edit the code instead. -->\n"


def _cell(text: str) -> str:
    return text.replace("|", r"\|").replace("\n", " ")


def _setting_row(name: str, info: FieldInfo) -> str:
    default = info.default
    if isinstance(default, tuple):
        default = ",".join(default)
    shown = "" if default in (None, "") else f"`{default}`"
    choices = get_args(info.annotation)
    allowed = f" One of {', '.join(f'`{c}`' for c in choices)}." if choices and isinstance(choices[0], str) else ""
    return f"| `MIDSTREAM_{name.upper()}` | {shown} | {_cell(info.description or '')}{allowed} |"


def settings_page() -> str:
    """Return ``docs/settings.md``."""
    lines = [
        "# Settings\n",
        _MADE,
        "Read once at start from the environment. A wrong value stops the process with a message that names the",
        "variable. Sizes are bytes; a name says its unit.\n",
        "Any of them may come from a file: `MIDSTREAM_X_FILE` names the file that holds the value of `MIDSTREAM_X`,",
        "one line, so that passwords need not stand in the environment. Both at once stop the process. A variable",
        "`MIDSTREAM_*` that is no setting is warned of in the log (`settings.unknown_variable`).",
    ]
    for subject in SUBJECTS:
        title, _, what = inspect.cleandoc(subject.__doc__ or "").partition(": ")
        lines += [f"\n## {title}", f"{what}\n", "| variable | default | what it is |", "|---|---|---|"]
        lines += [_setting_row(name, info) for name, info in subject.model_fields.items()]
    return "\n".join(lines) + "\n"


def metrics_page() -> str:
    """Return ``docs/metrics.md``."""
    lines = [
        "# Metrics\n",
        _MADE,
        "Prometheus, at `/metrics` of the base URL (collector and api) and on 127.0.0.1:9101 (`validate`),",
        "9102 (`store`), 9103 (`devices`) and 9104 (`jobs`).\n",
        "| name | type | labels | what it says |",
        "|---|---|---|---|",
    ]
    for declared in vars(metrics).values():
        if isinstance(declared, MetricWrapperBase):
            (family,) = declared.describe()
            name = family.name + ("_total" if family.type == "counter" else "")
            labels = ", ".join(f"`{label}`" for label in declared._labelnames)
            lines.append(f"| `{name}` | {family.type} | {labels} | {_cell(family.documentation)} |")
    return "\n".join(lines) + "\n"


def reason_table() -> str:
    """Return the table of reason codes that stands in ``docs/events.md``."""
    lines = ["| code | what it means | example | what the sender should do |", "|---|---|---|---|"]
    lines += [
        f"| `{reason.value}` | {_cell(doc.meaning)} | `{_cell(doc.example)}` | {_cell(doc.sender)} |"
        for reason, doc in REASONS.items()
    ]
    return "\n".join(lines) + "\n"


def settings_names() -> str:
    """Return the names of all settings, a line each: the Helm chart refuses others."""
    return "".join(f"MIDSTREAM_{name.upper()}\n" for name in Settings.model_fields)


PAGES = {
    "settings.md": settings_page,
    "metrics.md": metrics_page,
    "../deploy/kubernetes/midstream/files/settings.txt": settings_names,
}


def main(folder: str) -> None:
    """Write every page; names are relative to ``folder``, which is ``docs``."""
    for name, make in PAGES.items():
        Path(folder, name).write_text(make(), "utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
