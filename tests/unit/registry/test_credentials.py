import sqlite3
from datetime import UTC, datetime, timedelta

import jwt
import pytest

from midstream.registry.credentials import Credentials
from midstream.registry.errors import CredentialConflict, RegistryError, RegistryUnavailable, UnknownCredential
from midstream.registry.keyfile import key_path
from midstream.settings import Settings


def test_token_is_hs256_over_iss_with_the_secret(credentials: Credentials) -> None:
    issued = credentials.create("app", key="key-1")
    assert jwt.decode(issued.token, issued.secret, algorithms=["HS256"]) == {"iss": "key-1"}


def test_secret_is_not_stored_in_the_clear(settings: Settings, credentials: Credentials) -> None:
    issued = credentials.create("app")
    files = [path.read_bytes() for path in settings.home.iterdir()]
    assert not any(issued.secret.encode() in content for content in files)


def test_secret_is_in_no_repr(credentials: Credentials) -> None:
    issued = credentials.create("app")
    shown = f"{issued!r} {credentials.list_all()!r}"
    assert issued.secret not in shown
    assert issued.token not in shown


def test_times_are_stored_as_utc(settings: Settings, credentials: Credentials) -> None:
    zone = datetime.fromisoformat("2030-01-01T05:30:00+05:30")
    credentials.create("app", expires_at=zone)
    with sqlite3.connect(settings.home / "registry.db") as connection:
        assert connection.execute("SELECT expires_at FROM credentials").fetchone()[0].startswith("2030-01-01 00:00:00")
    assert credentials.list_all()[0].expires_at == zone


def test_list_shows_what_was_given(credentials: Credentials) -> None:
    credentials.create("b", role="operator")
    credentials.create("a", key="k", channels=("two", "one", "two"))
    first, second = credentials.list_all()
    assert (first.name, first.key, first.role, first.channels, first.state) == (
        "a",
        "k",
        "app",
        ("one", "two"),
        "active",
    )
    assert (second.name, second.role, second.channels) == ("b", "operator", ())


def test_key_in_use_is_refused(credentials: Credentials) -> None:
    credentials.create("app")
    with pytest.raises(CredentialConflict):
        credentials.create("app")
    with pytest.raises(CredentialConflict):
        credentials.create("other", key="app")


def test_revoked_key_is_made_anew_with_another_secret(credentials: Credentials) -> None:
    first = credentials.create("app", role="operator")
    credentials.revoke("app")
    second = credentials.create("app")
    assert second.secret != first.secret
    (found,) = credentials.list_all()
    assert (found.role, found.state) == ("app", "active")


def test_expiry_that_has_passed_is_refused(credentials: Credentials) -> None:
    with pytest.raises(RegistryError, match="passed"):
        credentials.create("app", expires_at=datetime.now(UTC) - timedelta(seconds=1))


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "a\\b", "../x", "a\0b", "a b", "a\n", "ä", "x" * 129])
def test_name_or_key_that_could_mean_a_path_is_refused(credentials: Credentials, name: str) -> None:
    with pytest.raises(RegistryError, match="takes 1 to 128"):
        credentials.create(name)
    with pytest.raises(RegistryError, match="takes 1 to 128"):
        credentials.create("app", key=name)
    with pytest.raises(RegistryError, match="takes 1 to 128"):
        credentials.register("app", name)


@pytest.mark.parametrize("channels", [("",), ("x" * 257,), ("a\nb",), tuple(str(i) for i in range(257))])
def test_channels_that_cannot_be_are_refused(credentials: Credentials, channels: tuple[str, ...]) -> None:
    with pytest.raises(RegistryError, match="channel"):
        credentials.create("app", channels=channels)


def test_registering_again_returns_the_same(credentials: Credentials) -> None:
    assert credentials.register("device-app", "k1") == credentials.register("device-app", "k1")
    assert len(credentials.list_all()) == 1


def test_one_name_may_register_several_keys(credentials: Credentials) -> None:
    assert credentials.register("device-app", "k1").secret != credentials.register("device-app", "k2").secret


def test_registering_a_key_of_another_is_refused(credentials: Credentials) -> None:
    credentials.register("one", "k1")
    with pytest.raises(CredentialConflict):
        credentials.register("two", "k1")


def test_registering_does_not_hand_out_an_operators_secret(credentials: Credentials) -> None:
    credentials.create("ops", role="operator")
    with pytest.raises(CredentialConflict):
        credentials.register("ops", "ops")


def test_registering_does_not_undo_revoking(credentials: Credentials) -> None:
    credentials.register("one", "k1")
    credentials.revoke("k1")
    with pytest.raises(CredentialConflict, match="revoked"):
        credentials.register("one", "k1")


def test_rotate_gives_a_new_secret(credentials: Credentials) -> None:
    first = credentials.create("app")
    second = credentials.rotate("app")
    assert second.secret != first.secret
    assert credentials.token("app") == second
    assert credentials.list_all()[0].rotated_at is not None


def test_rotate_refuses_what_is_not_there_or_revoked(credentials: Credentials) -> None:
    with pytest.raises(UnknownCredential):
        credentials.rotate("app")
    credentials.create("app")
    credentials.revoke("app")
    with pytest.raises(CredentialConflict):
        credentials.rotate("app")


def test_revoke_is_idempotent_and_keeps_the_first_moment(credentials: Credentials) -> None:
    credentials.create("app")
    credentials.revoke("app")
    first = credentials.list_all()[0].revoked_at
    credentials.revoke("app")
    assert credentials.list_all()[0].revoked_at == first
    with pytest.raises(UnknownCredential):
        credentials.revoke("nobody")


def test_revoke_name_ends_all_of_it(credentials: Credentials) -> None:
    credentials.register("app", "k1")
    credentials.register("app", "k2")
    credentials.register("other", "k3")
    assert credentials.revoke_name("app") == 2
    assert credentials.revoke_name("app") == 0
    assert [one.key for one in credentials.list_all() if one.state == "active"] == ["k3"]
    with pytest.raises(UnknownCredential):
        credentials.revoke_name("nobody")


def test_token_is_only_given_for_what_is_active(credentials: Credentials) -> None:
    credentials.create("app")
    credentials.revoke("app")
    with pytest.raises(UnknownCredential):
        credentials.token("app")


def test_wrong_key_file_is_named(settings: Settings, credentials: Credentials) -> None:
    credentials.create("app")
    key_path(settings).write_bytes(b"no key")
    other = Credentials(settings)
    with pytest.raises(RegistryUnavailable, match="cannot be used"):
        other.token("app")
    other.close()


def test_registry_without_tables_is_unavailable(settings: Settings) -> None:
    settings.home.mkdir(parents=True)
    credentials = Credentials(settings)
    with pytest.raises(RegistryUnavailable, match="unable to open database file"):
        credentials.list_all()
    (settings.home / "registry.db").touch()
    with pytest.raises(RegistryUnavailable, match="no such table"):
        credentials.list_all()
    credentials.close()
