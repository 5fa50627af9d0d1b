"""What is logged, and what is not."""

import logging
from collections.abc import Iterator

import pytest

from midstream.logs import configure_logs, get_logger
from midstream.settings import Settings


@pytest.fixture
def restored() -> Iterator[None]:
    """Logging is afterwards what it was before."""
    handlers, level = logging.getLogger().handlers[:], logging.getLogger().level
    yield
    logging.getLogger().handlers[:] = handlers
    logging.getLogger().setLevel(level)


def test_a_line_about_a_request_has_no_query(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, restored: None
) -> None:
    for name in ("uvicorn", "uvicorn.access"):  # another test may have run a uvicorn with handlers of its own
        monkeypatch.setattr(logging.getLogger(name), "handlers", [])
        monkeypatch.setattr(logging.getLogger(name), "propagate", True)
    configure_logs(Settings(log_level="debug"), "test")
    args = ("127.0.0.1:5", "GET", "/v1/dataset/request/download/1?token=secret", "1.1", 200)
    logging.getLogger("uvicorn.access").info('%s - "%s %s HTTP/%s" %d', *args)  # as uvicorn does
    logging.getLogger("uvicorn.access").info("something else")
    said = capsys.readouterr().err
    assert '"GET /v1/dataset/request/download/1 HTTP/1.1" 200' in said
    assert "something else" in said
    assert "secret" not in said


def test_what_a_client_sent_does_not_steer_the_readers_terminal(
    capsys: pytest.CaptureFixture[str], restored: None
) -> None:
    configure_logs(Settings(log_format="text"), "test")
    sent = "/a\x1b[2Jb\rc\x9bd\ne"
    get_logger("test").warning("request.failed", path=sent)
    try:
        raise ValueError(sent)
    except ValueError:
        logging.getLogger("test").exception("it failed")
    said = capsys.readouterr().err
    assert not set(said) & set("\x1b\r\x9b")
    assert said.splitlines()[0].endswith("process=test")
    assert "ValueError: /a\\u001b[2Jb" in said
