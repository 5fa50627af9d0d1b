"""Where a ClickHouse server may be told to copy its tables to."""

import pytest

from midstream.backup.errors import BackupError
from midstream.backup.tables import check_destination


@pytest.mark.parametrize(
    "text", ["Disk('backups', '{id}')", "File('/backups/{id}')", "S3(backups, '{id}')", "AzureBlobStorage(backups)"]
)
def test_a_place_without_credentials_is_taken(text: str) -> None:
    assert check_destination(f" {text} ") == text


@pytest.mark.parametrize(
    "text",
    [
        "S3('https://host/bucket', 'KEY', 'SECRET')",
        "S3('https://user:secret@host/bucket')",
        "AzureBlobStorage('DefaultEndpointsProtocol=https;AccountName=a;AccountKey=secret', 'container')",
        "Disk('backups', 'x') SETTINGS password = 'secret'",
        "Null",
    ],
)
def test_whatever_may_hold_a_credential_is_refused(text: str) -> None:
    """It would stand in the manifest, and in the server's log."""
    with pytest.raises(BackupError) as caught:
        check_destination(text)
    assert caught.value.code == "BAD_DESTINATION"
