import asyncio
import base64
import json
import sqlite3
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from prometheus_client import REGISTRY

from midstream.registry import auth, reads
from midstream.registry.auth import Authenticator, Principal
from midstream.registry.credentials import Credentials
from midstream.registry.errors import RegistryUnavailable, Unauthorized
from midstream.registry.keyfile import key_path
from midstream.settings import Settings


def remembered() -> float:
    return REGISTRY.get_sample_value("midstream_credential_cache_entries") or 0.0


def segment(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


def hs256(claims: dict[str, Any], secret: str, **header: Any) -> str:
    return jwt.encode(claims, secret, algorithm="HS256", headers=header or None)


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "bEaReR", " Bearer", "Bearer  "])
async def test_scheme_in_any_letter_case(credentials: Credentials, authenticator: Authenticator, scheme: str) -> None:
    issued = credentials.create("app", channels=("a",))
    principal = await authenticator.authenticate(f"{scheme} {issued.token}")
    assert principal == Principal("app", "app", "app", frozenset({"a"}))


@pytest.mark.parametrize(
    "header",
    [None, "", " ", "Bearer", "Bearer ", "Basic dXNlcjpwYXNz", "Bearer a b c", "Bearer x", "Bearer ..", "Bearer a.b.c",
     "Bearer " + "x" * 100_000, "Bearer \udcff.\udcff.\udcff", "token"],
)  # fmt: skip
async def test_header_without_a_token_is_refused(authenticator: Authenticator, header: str | None) -> None:
    with pytest.raises(Unauthorized):
        await authenticator.authenticate(header)


async def test_role_is_the_credentials_and_not_a_claim(credentials: Credentials, authenticator: Authenticator) -> None:
    issued = credentials.create("app")
    token = hs256({"iss": "app", "role": "operator", "roles": ["operator"]}, issued.secret)
    assert (await authenticator.authenticate(f"Bearer {token}")).role == "app"
    operator = credentials.create("ops", role="operator")
    assert (await authenticator.authenticate(f"Bearer {operator.token}")).role == "operator"


async def test_no_algorithm_is_refused(credentials: Credentials, authenticator: Authenticator) -> None:
    credentials.create("app")
    for algorithm in ("none", "None", "NONE", "nOnE", "", None, 1, ["HS256"]):
        head = segment({"alg": algorithm, "typ": "JWT"})
        for signature in ("", "x"):
            with pytest.raises(Unauthorized):
                await authenticator.authenticate(f"Bearer {head}.{segment({'iss': 'app'})}.{signature}")


@pytest.mark.parametrize("algorithm", ["HS384", "HS512"])
async def test_other_algorithms_are_refused(
    credentials: Credentials, authenticator: Authenticator, algorithm: str
) -> None:
    issued = credentials.create("app")
    with pytest.raises(Unauthorized):
        await authenticator.authenticate(f"Bearer {jwt.encode({'iss': 'app'}, issued.secret, algorithm=algorithm)}")


async def test_another_key_is_refused(credentials: Credentials, authenticator: Authenticator) -> None:
    credentials.create("app")
    other = credentials.create("other")
    with pytest.raises(Unauthorized):
        await authenticator.authenticate(f"Bearer {hs256({'iss': 'app'}, other.secret)}")
    with pytest.raises(Unauthorized):
        await authenticator.authenticate(f"Bearer {hs256({'iss': 'nobody'}, other.secret)}")


async def test_token_that_was_changed_is_refused(credentials: Credentials, authenticator: Authenticator) -> None:
    head, _, signature = credentials.create("app").token.split(".")
    credentials.create("other")
    with pytest.raises(Unauthorized):
        await authenticator.authenticate(f"Bearer {head}.{segment({'iss': 'other'})}.{signature}")


@pytest.mark.parametrize(
    "payload",
    [{}, {"iss": None}, {"iss": 1}, {"iss": ["app"]}, {"iss": ""}, {"iss": "../app"}, {"iss": "a/../app"},
     {"iss": "app\0"}, {"iss": "app\n"}, {"iss": "x" * 4000}, [], "app", 1, None, "[" * 3000,
     '{"iss":"app","x":' + "9" * 5000 + "}",
     '{"iss":"\\ud800"}'],
)  # fmt: skip
async def test_claims_that_are_none_are_refused(
    credentials: Credentials, authenticator: Authenticator, payload: Any
) -> None:
    credentials.create("app")
    with pytest.raises(Unauthorized):
        await authenticator.authenticate(f"Bearer {segment({'alg': 'HS256'})}.{segment(payload)}.c2ln")


async def test_expiry_of_the_token(credentials: Credentials, authenticator: Authenticator) -> None:
    secret = credentials.create("app").secret
    now = int(time.time())
    assert await authenticator.authenticate(f"Bearer {hs256({'iss': 'app', 'exp': now + 60}, secret)}")
    with pytest.raises(Unauthorized, match="ExpiredSignature"):
        await authenticator.authenticate(f"Bearer {hs256({'iss': 'app', 'exp': now - 1}, secret)}")
    with pytest.raises(Unauthorized):
        await authenticator.authenticate(f"Bearer {hs256({'iss': 'app', 'nbf': now + 60}, secret)}")


@pytest.mark.parametrize("exp", ["soon", [], {}, None, True, 1e400, -1e400])
async def test_expiry_that_is_none_is_never_a_crash(
    credentials: Credentials, authenticator: Authenticator, exp: Any
) -> None:
    secret = credentials.create("app").secret
    payload = json.dumps({"iss": "app", "exp": exp}).replace("Infinity", "1e999")
    body = f"{segment({'alg': 'HS256'})}.{segment(payload)}"
    signature = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256).sign(body.encode(), secret.encode())
    token = f"{body}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"
    with pytest.raises(Unauthorized):
        await authenticator.authenticate(f"Bearer {token}")


async def test_other_claims_do_not_matter(credentials: Credentials, authenticator: Authenticator) -> None:
    secret = credentials.create("app").secret
    claims = {"iss": "app", "iat": time.time() + 86_400, "aud": "someone", "sub": "a", "jti": "b"}
    assert await authenticator.authenticate(f"Bearer {hs256(claims, secret)}")


async def test_remembered_token_ends_with_its_expiry(
    credentials: Credentials, authenticator: Authenticator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "_REMEMBER_S", 3600.0)
    secret = credentials.create("app").secret
    header = f"Bearer {hs256({'iss': 'app', 'exp': int(time.time()) + 1}, secret)}"
    assert await authenticator.authenticate(header)
    await asyncio.sleep(1.1)
    with pytest.raises(Unauthorized):
        await authenticator.authenticate(header)


async def test_credential_that_expires_ends_its_tokens(credentials: Credentials, authenticator: Authenticator) -> None:
    expires_at = datetime.now(UTC) + timedelta(seconds=2)
    issued = credentials.create("app", expires_at=expires_at)
    assert await authenticator.authenticate(f"Bearer {issued.token}")
    await asyncio.sleep((expires_at - datetime.now(UTC)).total_seconds() + 0.05)
    with pytest.raises(Unauthorized, match="expired"):
        await authenticator.authenticate(f"Bearer {issued.token}")


@pytest.mark.parametrize("change", ["revoke", "rotate"])
async def test_change_is_seen_within_a_second(
    credentials: Credentials, authenticator: Authenticator, change: str
) -> None:
    issued = credentials.create("app")
    assert await authenticator.authenticate(f"Bearer {issued.token}")
    getattr(credentials, change)("app")
    await asyncio.sleep(1.0)
    with pytest.raises(Unauthorized):
        await authenticator.authenticate(f"Bearer {issued.token}")


async def test_remembered_tokens_are_bounded_and_counted(
    settings: Settings, credentials: Credentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "_MAX_REMEMBERED", 3)
    authenticator = Authenticator(settings)
    before = remembered()
    secret = credentials.create("app").secret
    for number in range(10):
        await authenticator.authenticate(f"Bearer {hs256({'iss': 'app', 'n': number}, secret)}")
    assert remembered() - before == 3
    for _ in range(10):
        with pytest.raises(Unauthorized):
            await authenticator.authenticate(f"Bearer {hs256({'iss': 'app'}, 'x' * 32)}")
    assert remembered() - before == 3
    authenticator.close()
    assert remembered() == before


async def test_registry_that_is_gone_is_unavailable_not_unauthorized(
    settings: Settings, credentials: Credentials
) -> None:
    token = credentials.create("app").token
    with sqlite3.connect(settings.home / "registry.db") as connection:
        connection.execute("DROP TABLE credentials")
    authenticator = Authenticator(settings)
    with pytest.raises(RegistryUnavailable):
        await authenticator.authenticate(f"Bearer {token}")
    authenticator.close()


async def test_lock_does_not_hold_up_the_event_loop(
    settings: Settings, credentials: Credentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reads, "TIMEOUT_S", 1.5)
    token = credentials.create("app").token
    credentials.close()
    holder = sqlite3.connect(settings.home / "registry.db", isolation_level=None)
    holder.execute("PRAGMA locking_mode = EXCLUSIVE")
    holder.execute("BEGIN EXCLUSIVE")
    authenticator = Authenticator(settings)
    longest = 0.0

    async def watch() -> None:
        nonlocal longest
        while True:
            began = time.perf_counter()
            await asyncio.sleep(0.01)
            longest = max(longest, time.perf_counter() - began)

    watcher = asyncio.create_task(watch())
    with pytest.raises(RegistryUnavailable):
        await authenticator.authenticate(f"Bearer {token}")
    looking = asyncio.create_task(authenticator.authenticate(f"Bearer {token}"))
    await asyncio.sleep(0.3)
    holder.close()
    assert (await looking).key == "app"
    watcher.cancel()
    authenticator.close()
    assert longest < 0.3


async def test_lost_key_file_is_unavailable(settings: Settings, credentials: Credentials) -> None:
    token = credentials.create("app").token
    key_path(settings).unlink()
    authenticator = Authenticator(settings)
    with pytest.raises(RegistryUnavailable):
        await authenticator.authenticate(f"Bearer {token}")
    authenticator.close()


def test_channels() -> None:
    anywhere = Principal("k", "n", "app", frozenset())
    tied = Principal("k", "n", "app", frozenset({"a"}))
    assert anywhere.may_send_for("x")
    assert tied.may_send_for("a")
    assert tied.may_send_for("")
    assert not tied.may_send_for("b")


class TestPublicKeys:
    @pytest.fixture
    def private(self) -> rsa.RSAPrivateKey:
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)

    @pytest.fixture
    def folder(self, tmp_path: Path, private: rsa.RSAPrivateKey) -> Path:
        folder = tmp_path / "keys"
        folder.mkdir()
        (folder / "app.pem").write_bytes(self.pem(private.public_key()))
        return folder

    @pytest.fixture
    def checking(self, settings: Settings, credentials: Credentials, folder: Path) -> Iterator[Authenticator]:
        opened = Authenticator(settings.model_copy(update={"jwt_public_keys": folder}))
        yield opened
        opened.close()

    @staticmethod
    def pem(key: Any) -> bytes:
        encoded: bytes = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        return encoded

    @staticmethod
    def rs256(private: rsa.RSAPrivateKey, claims: dict[str, Any]) -> str:
        return jwt.encode(
            claims, private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), algorithm="RS256"
        )

    async def test_rs256_with_the_configured_key(
        self, credentials: Credentials, checking: Authenticator, private: rsa.RSAPrivateKey
    ) -> None:
        issued = credentials.create("app", role="operator")
        assert (await checking.authenticate(f"Bearer {self.rs256(private, {'iss': 'app'})}")).role == "operator"
        assert await checking.authenticate(f"Bearer {issued.token}")  # the credential's own tokens stay good

    async def test_key_without_a_credential_proves_nobody(
        self, checking: Authenticator, private: rsa.RSAPrivateKey
    ) -> None:
        with pytest.raises(Unauthorized):
            await checking.authenticate(f"Bearer {self.rs256(private, {'iss': 'app'})}")

    async def test_key_of_one_does_not_prove_another(
        self, credentials: Credentials, checking: Authenticator, private: rsa.RSAPrivateKey
    ) -> None:
        credentials.create("other")
        for iss in ("other", "../keys/app", "./app"):
            with pytest.raises(Unauthorized):
                await checking.authenticate(f"Bearer {self.rs256(private, {'iss': iss})}")

    async def test_public_key_is_no_secret(
        self, credentials: Credentials, checking: Authenticator, private: rsa.RSAPrivateKey
    ) -> None:
        credentials.create("app")
        head, claims = segment({"alg": "HS256"}), segment({"iss": "app"})
        algorithm = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256)
        for secret in (self.pem(private.public_key()), self.pem(private.public_key()).strip()):
            signature = base64.urlsafe_b64encode(algorithm.sign(f"{head}.{claims}".encode(), secret)).rstrip(b"=")
            with pytest.raises(Unauthorized):
                await checking.authenticate(f"Bearer {head}.{claims}.{signature.decode()}")

    async def test_rs256_without_a_configured_folder_is_refused(
        self, credentials: Credentials, authenticator: Authenticator, private: rsa.RSAPrivateKey
    ) -> None:
        credentials.create("app")
        with pytest.raises(Unauthorized):
            await authenticator.authenticate(f"Bearer {self.rs256(private, {'iss': 'app'})}")

    @pytest.mark.parametrize("broken", ["rubbish", "elliptic"])
    async def test_key_file_that_is_none_is_unavailable(
        self, credentials: Credentials, checking: Authenticator, private: rsa.RSAPrivateKey, folder: Path, broken: str
    ) -> None:
        credentials.create("app")
        other = self.pem(ec.generate_private_key(ec.SECP256R1()).public_key())
        (folder / "app.pem").write_bytes(b"rubbish" if broken == "rubbish" else other)
        with pytest.raises(RegistryUnavailable):
            await checking.authenticate(f"Bearer {self.rs256(private, {'iss': 'app'})}")
