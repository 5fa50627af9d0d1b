"""What an HTTP source answers: where the rows are in a body, and where the next page is. Pure."""

from __future__ import annotations

import httpx
import msgspec

from midstream.sources.errors import SourceCode, SourceError

_MAX_KEYS_SHOWN = 20


def find(body: bytes, pointer: str) -> msgspec.Raw | None:
    """Return what stands at a JSON pointer, as it is written; None when nothing does.

    Raises:
        msgspec.DecodeError, RecursionError: the body is not JSON.
    """
    found = msgspec.json.decode(body, type=msgspec.Raw)
    for token in pointer.split("/")[1:]:
        name = token.replace("~1", "/").replace("~0", "~")
        try:
            within = msgspec.json.decode(found, type=dict[str, msgspec.Raw] | list[msgspec.Raw])
        except msgspec.ValidationError:
            return None
        if isinstance(within, dict):
            next_ = within.get(name)
        else:
            next_ = within[int(name)] if name.isascii() and name.isdecimal() and int(name) < len(within) else None
        if next_ is None:
            return None
        found = next_
    return found


def read_rows(body: bytes, pointer: str, content_type: str, place: str) -> list[msgspec.Raw]:
    """Return the rows of a body, each as it is written.

    Raises:
        SourceError: the body is not JSON, or has no list where the rows should be.
    """
    where = f"at {pointer}" if pointer else "as the body"
    try:
        found = find(body, pointer)
        if found is not None:
            return msgspec.json.decode(found, type=list[msgspec.Raw])
    except msgspec.ValidationError:
        pass
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        if body.lstrip()[:1] in (b"{", b"[") and "truncated" in str(error):
            raise SourceError(SourceCode.SOURCE_CUT, f"{place}: the body ends half way") from None
        raise unreadable(body, "the body", content_type, place) from None
    raise SourceError(SourceCode.SOURCE_UNREADABLE, f"{place}: there is no list {where}{_shown_keys(body)}")


def is_json(text: bytes) -> bool:
    """Whether a text is one value of JSON."""
    try:
        msgspec.json.decode(text, type=msgspec.Raw)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def unreadable(body: bytes, what: str, content_type: str, place: str) -> SourceError:
    """Return the error of a body that is not JSON. What is in it is not shown: it may be of persons."""
    head = body.lstrip()[:1]
    reason = "it is empty" if not head else "it is HTML or XML" if head == b"<" else "it cannot be read"
    message = f"{place}: {what} is not JSON: {reason} (content type: {content_type[:80] or 'none'})"
    return SourceError(SourceCode.SOURCE_UNREADABLE, message)


def next_cursor(body: bytes, pointer: str, place: str) -> str | None:
    """Return the cursor or address at a pointer; None for null, "", false, or nothing there: the end.

    Raises:
        SourceError: it is neither a text nor an integer.
    """
    raw = find(body, pointer)
    value = None if raw is None else msgspec.json.decode(raw)
    if value is None or value is False or value == "":
        return None
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise SourceError(SourceCode.SOURCE_UNREADABLE, f"{place}: what is at {pointer} is neither a text nor an integer")


def join_own(base: httpx.URL, link: str, place: str) -> httpx.URL:
    """Return the address of a next page, which may be relative.

    Raises:
        SourceError: it is at another host, to which credentials must not go, or none.
    """
    try:
        joined = base.join(link)
    except (httpx.InvalidURL, ValueError):
        raise SourceError(SourceCode.SOURCE_UNREADABLE, f"{place}: the next page's address is none") from None
    # httpx leaves a port out that is the scheme's own.
    if (joined.scheme, joined.host, joined.port) != (base.scheme, base.host, base.port):
        shown = f"{joined.scheme}://{joined.host}"[:200]
        raise SourceError(SourceCode.SOURCE_REDIRECTED, f"{place}: the next page is elsewhere, at {shown}")
    return joined


def _shown_keys(body: bytes) -> str:
    """Return what the body has instead, by the names of its members: its values may be of persons."""
    try:
        keys = list(msgspec.json.decode(body, type=dict[str, msgspec.Raw]))
    except msgspec.DecodeError:
        return "; the body is no object"
    return f"; the body has {', '.join(keys[:_MAX_KEYS_SHOWN])[:300]}" if keys else "; the body is an empty object"
