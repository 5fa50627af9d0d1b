"""The summary of a run: one object for programs, and the same for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from rich import box
from rich.console import Console, Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from deploy.local.demo.day import STORIES, Day
from deploy.local.demo.exercises import where_stuck
from deploy.local.demo.outcome import Outcome, expected_counts
from deploy.local.demo.queries import Query
from deploy.local.demo.sender import Ledger

Answer = tuple[Query, list[dict[str, Any]]]


def summarise(
    day: Day,
    ledger: Ledger,
    outcome: Outcome,
    problems: Sequence[str],
    arrivals: list[dict[str, Any]],
    answers: Sequence[Answer],
    accounting: list[dict[str, Any]],
    rooms: dict[str, Any],
    exercises: dict[str, Any],
    seconds: dict[str, float],
) -> dict[str, Any]:
    """Return the summary, plain values only."""
    stories = {
        words: sum(len(batch.events) for batch in ledger.accepted.values() if batch.device.story == story)
        for story, words in STORIES.items()
    }
    summary = {
        "run": day.run,
        "day": day.date,
        "adds_up": not problems,
        "problems": list(problems),
        "sent": {
            "requests": ledger.requests,
            "batches": len(ledger.accepted),
            "events": ledger.events,
            "bytes": ledger.bytes,
            "lost_replies": ledger.lost_replies,
            "retries": ledger.refusals,
            "devices": len({batch.device.id for batch in ledger.accepted.values()}),
            "by_story": stories,
        },
        "ledger": asdict(expected_counts(day, list(ledger.accepted.values()))),
        "clickhouse": asdict(outcome.counts),
        "differing_duplicates": outcome.differing,
        "rejects": outcome.rejects,
        "tables": outcome.tables,
        "event": {
            "mid": day.followed_mid,
            "arrivals": [{"sent_by": _sender(day, ledger, row["batch_id"]), **row} for row in arrivals],
        },
        "queries": [{"title": query.title, "sql": query.sql, "rows": rows} for query, rows in answers],
        "accounting": accounting,
        "rooms": rooms,
        "exercises": exercises,
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
    }
    plain: dict[str, Any] = _plain(summary)
    return plain


def _sender(day: Day, ledger: Ledger, batch_id: str) -> str:
    batch = ledger.accepted.get(batch_id)
    if batch is None:
        return "unknown: the reply got lost"
    return "the administrator" if batch.sender == day.fleet.administrator else "the student's phone"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, datetime):
        return value.isoformat(timespec="milliseconds" if value.microsecond else "seconds")
    return value if isinstance(value, bool | int | float | str | None) else str(value)


def show(console: Console, summary: dict[str, Any]) -> None:
    """Print the summary for people."""
    sent = summary["sent"]
    console.print()
    console.print(
        f"[bold]A day of a small fleet[/]: {summary['day']}, run {summary['run']}. {sent['devices']} devices sent "
        f"{sent['events']:,} events in {sent['batches']} batches ({sent['bytes'] / 1e6:.1f} MB)"
        f" in {summary['seconds']['sending']} s; all was in ClickHouse {summary['seconds']['arriving']} s later. "
        f"{sent['lost_replies']} replies were lost on the way back, so these batches were sent twice."
    )
    _section(console, "Who sent them", _stories(summary))
    _section(console, "Does it add up?", _balance(summary))
    if summary["rejects"]:
        _section(console, "Rejected, by reason, with an example (all in `rejects`)", _table(summary["rejects"]))
    _section(console, "Where it is now", _table(_tables(summary)))
    _section(console, "One event's way: in a shared file, then from the phone", _way(summary))
    for query in summary["queries"]:
        _section(console, query["title"], Group(Text(query["sql"], style="dim"), _table(query["rows"])))
    _section(
        console,
        "The view accounting: all that was received in the minutes of this run",
        _table(_by_channel(summary["accounting"])),
    )
    rooms = summary["rooms"]
    _section(
        console,
        f"Besides, {rooms['devices']} simulated devices reported {rooms['reports']} times. "
        f"The state of {rooms['device']} in device_state",
        _table(rooms["state"]),
    )
    exercises = summary["exercises"]
    _section(
        console,
        f"And {exercises['learners']} simulated learners did exercises; their runners wrote {exercises['writes']} times"
        ". What the course's author sees",
        _table(where_stuck(exercises["report"])),
    )
    for problem in summary["problems"]:
        console.print(f"[bold red]does not add up:[/] {problem}")
    if not summary["problems"]:
        console.print("\n[bold green]Every event that was sent is accounted for.[/]")


def _section(console: Console, title: str, content: Any) -> None:
    console.print(f"\n[bold cyan]{title}[/]")
    console.print(Padding(content, (0, 0, 0, 2), expand=False))


def _balance(summary: dict[str, Any]) -> Group:
    ledger, found = summary["ledger"], summary["clickhouse"]
    what = {
        "received": "every arrival of every event",
        "stored": "each event once",
        "duplicate": f"stored before ({summary['differing_duplicates']} differ)",
        "rejected": "broken, each refused alone",
    }
    table = _grid("", "client's ledger", "in ClickHouse", "", "")
    table.columns[1].justify = table.columns[2].justify = "right"
    for name, words in what.items():
        good = ledger[name] == found[name]
        mark = "[green]=[/]" if good else "[bold red]differs[/]"
        table.add_row(name, f"{ledger[name]:,}", f"{found[name]:,}", mark, f"[dim]{words}[/]")
    parts = [found[name] for name in ("stored", "duplicate", "rejected")]
    total = sum(parts)
    sign = "=" if total == found["received"] else "[bold red]is not[/]"
    line = f"{' + '.join(f'{part:,}' for part in parts)} {sign} {found['received']:,}"
    return Group(table, Text.from_markup(line))


def _stories(summary: dict[str, Any]) -> Table:
    return _table([{"devices": words, "events": events} for words, events in summary["sent"]["by_story"].items()])


def _way(summary: dict[str, Any]) -> Group:
    event = summary["event"]
    lines = [Text(f"mid {event['mid']}")]
    for row in event["arrivals"]:
        lines += [
            Text(f"{row['received_at'][11:23]}  from {row['sent_by']}: {row['outcome']}"),
            Text(f"    of device {row['batch_did']}", style="dim"),
            Text(f"    in batch {row['batch_id']}, event {row['event_index']}", style="dim"),
            Text(f"    at {row['topic']}, partition {row['partition']}, offset {row['offset']}", style="dim"),
        ]
    return Group(*lines)


def _tables(summary: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "table": row["table"],
            "of this run": "" if row["of_this_run"] is None else row["of_this_run"],
            "in all": row["in_all"],
        }
        for row in summary["tables"]
    ]


def _by_channel(accounting: list[dict[str, Any]]) -> list[dict[str, Any]]:
    channels: dict[str, dict[str, Any]] = {}
    for row in accounting:
        sums = channels.setdefault(row["channel"], {"channel": row["channel"] or "(none)"})
        for name, value in row.items():
            if name not in ("minute", "channel"):
                sums[name.replace("_", " ")] = sums.get(name.replace("_", " "), 0) + value
    return list(channels.values())


def _grid(*titles: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
    for title in titles:
        table.add_column(title)
    return table


def _table(rows: list[dict[str, Any]]) -> Table:
    table = _grid(*(rows[0] if rows else ()))
    for index, name in enumerate(rows[0] if rows else ()):
        if isinstance(rows[0][name], int | float):
            table.columns[index].justify = "right"
    for row in rows:
        table.add_row(*(_cell(value) for value in row.values()))
    return table


def _cell(value: Any) -> Text:
    """What comes from clients is no markup; whole numbers need no decimals."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return Text(f"{value:,}" if isinstance(value, int | float) else str(value))
