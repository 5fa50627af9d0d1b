"""What is logged, and what is not."""

import logging

import pytest

from midstream.logs import configure_logs
from midstream.settings import Settings


def test_a_line_about_a_request_has_no_query(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("uvicorn", "uvicorn.access"):  # another test may have run a uvicorn with handlers of its own
        monkeypatch.setattr(logging.getLogger(name), "handlers", [])
        monkeypatch.setattr(logging.getLogger(name), "propagate", True)
    handlers, level = logging.getLogger().handlers[:], logging.getLogger().level
    try:
        configure_logs(Settings(log_level="debug"), "test")
        args = ("127.0.0.1:5", "GET", "/v1/dataset/request/download/1?token=secret", "1.1", 200)
        logging.getLogger("uvicorn.access").info('%s - "%s %s HTTP/%s" %d', *args)  # as uvicorn does
        logging.getLogger("uvicorn.access").info("something else")
    finally:
        logging.getLogger().handlers[:] = handlers
        logging.getLogger().setLevel(level)
    said = capsys.readouterr().err
    assert '"GET /v1/dataset/request/download/1 HTTP/1.1" 200' in said
    assert "something else" in said
    assert "secret" not in said
