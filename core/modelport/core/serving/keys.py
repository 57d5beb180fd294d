"""The keyring: API keys, of which only hashes are kept, in a file that a running server reads again when it changes."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import msgspec

from modelport.contract.errors import ConfigurationError, NotFound, Unauthenticated
from modelport.core.config.files import write_whole
from modelport.core.config.paths import state_dir
from modelport.core.config.settings import Settings
from modelport.core.serving.principal import SCOPES, Caller

__all__ = ["KeyRecord", "Keyring"]

_PREFIX = "mp"
_HEADER = "Send one as `Authorization: Bearer mp-…`; `modelport keys create` makes one."


class KeyRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A key as it is kept: everything but the key itself.

    Args:
        id: Its public part, for `revoke` and logs.
        name: Whose or what for.
        scopes: `infer`, `admin`, or both.
        models: The only models it may use, or None for all.
        created_at: Unix time.
        expires_at: Unix time from which it is refused, or None.
        revoked_at: Unix time of its revocation, or None.
        salt: Random, per key.
        hash: SHA-256 of salt and secret; enough, because the secret is 256 random bits and cannot be guessed.
    """

    id: str
    name: str
    scopes: tuple[str, ...]
    models: tuple[str, ...] | None = None
    created_at: float = 0.0
    expires_at: float | None = None
    revoked_at: float | None = None
    salt: str = ""
    hash: str = ""

    def state(self, now: float) -> Literal["active", "expired", "revoked"]:
        """Whether it still opens anything."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and now >= self.expires_at else "active"


class _File(msgspec.Struct, kw_only=True):
    version: int = 1
    keys: list[KeyRecord] = []


class Keyring:
    """All keys. Reading is cheap: the file is looked at every time, and read only if it is another one than before.

    Args:
        path: The file; it need not exist.
        required: `auto` asks for keys as soon as there is one (revoked and expired ones count: a server whose last key is
            taken away does not open up, nor does one whose file of keys vanishes while it runs).
    """

    def __init__(self, path: Path, required: Literal["auto", "always", "never"] = "auto") -> None:
        self.path = path
        self._required = required
        self._seen: tuple[int, int, int] | None = None
        self._keys: dict[str, KeyRecord] = {}
        self._had_keys = False

    @classmethod
    def of(cls, settings: Settings) -> Keyring:
        """The keyring that the configuration means."""
        auth = settings.auth
        path = Path(auth.keys_file).expanduser() if auth.keys_file else state_dir(settings) / "keys.json"
        return cls(path, auth.required)

    @property
    def in_force(self) -> bool:
        """Whether a request needs a key."""
        if self._required != "auto":
            return self._required == "always"
        self._refresh()
        self._had_keys = self._had_keys or bool(self._keys)
        return self._had_keys

    def create(
        self, name: str, scopes: Iterable[str] = ("infer",), models: Iterable[str] | None = None, expires_at: float | None = None
    ) -> tuple[KeyRecord, str]:
        """A new key: its record, and the key itself, which is shown this once and kept nowhere.

        Raises:
            ConfigurationError: a scope that does not exist, an end in the past, or a file that cannot be written.
        """
        chosen = tuple(dict.fromkeys(scopes))
        unknown = sorted(set(chosen) - SCOPES)
        if unknown or not chosen:
            raise ConfigurationError(f"{', '.join(unknown) or 'nothing'} is not a scope. Scopes are {', '.join(sorted(SCOPES))}.")
        now = time.time()
        if expires_at is not None and expires_at <= now:
            raise ConfigurationError("The key would have expired already. Give a time in the future.")
        secret, salt = secrets.token_urlsafe(32), secrets.token_hex(16)
        record = KeyRecord(
            id=secrets.token_hex(6),
            name=name,
            scopes=chosen,
            models=tuple(dict.fromkeys(models)) if models is not None else None,
            created_at=now,
            expires_at=expires_at,
            salt=salt,
            hash=_hash(salt, secret),
        )
        with self._change() as keys:
            keys[record.id] = record
        return record, f"{_PREFIX}-{record.id}-{secret}"

    def list(self) -> list[KeyRecord]:
        """Every key, the oldest first."""
        self._refresh()
        return sorted(self._keys.values(), key=lambda record: record.created_at)

    def revoke(self, id: str) -> KeyRecord:
        """Takes a key out of force, at once and for good. `id` may also be the whole key.

        Raises:
            NotFound: there is no such key.
        """
        parts = id.split("-", 2)
        public = parts[1] if len(parts) == 3 and parts[0] == _PREFIX else id
        with self._change() as keys:
            record = keys.get(public)
            if record is None:
                raise NotFound(f"There is no key {public!r}. `modelport keys list` shows them all.")
            if record.revoked_at is None:
                record = keys[public] = msgspec.structs.replace(record, revoked_at=time.time())
        return record

    def verify(self, token: str | None, now: float | None = None) -> Caller:
        """The caller who bears `token`.

        Raises:
            Unauthenticated: none was given, or it is unknown, revoked or expired; the message says which.
        """
        if not token:
            raise Unauthenticated(f"This server needs a key, and none was sent. {_HEADER}")
        self._refresh()
        parts = token.split("-", 2)
        record = self._keys.get(parts[1]) if len(parts) == 3 and parts[0] == _PREFIX else None
        # A wrong secret and an unknown id are one answer, found in one way: who probes learns nothing from either.
        expected = record.hash if record is not None else "0" * 64
        given = _hash(record.salt if record is not None else "", parts[-1])
        if not hmac.compare_digest(given.encode(), expected.encode()) or record is None:
            raise Unauthenticated(f"The key that was sent is not known here. {_HEADER}")
        state = record.state(time.time() if now is None else now)
        if state != "active":
            raise Unauthenticated(f"The key {record.name!r} ({record.id}) is {state}. Ask for a new one.")
        return Caller(
            name=record.name,
            scopes=frozenset(record.scopes),
            models=None if record.models is None else frozenset(record.models),
            expires_at=record.expires_at,
            key_id=record.id,
        )

    def is_revoked(self, id: str) -> bool:
        """Whether a key that was good has been revoked since; for connections that outlive their key."""
        self._refresh()
        record = self._keys.get(id)
        return record is None or record.revoked_at is not None

    def _refresh(self) -> None:
        try:
            status = self.path.stat()
        except FileNotFoundError:
            self._seen, self._keys = None, {}
            return
        except OSError as error:
            raise ConfigurationError(f"The keys in {self.path} cannot be read: {error.strerror}.") from None
        seen = (status.st_ino, status.st_mtime_ns, status.st_size)
        if seen == self._seen:
            return
        try:
            file = msgspec.json.decode(self.path.read_bytes(), type=_File)
        except (OSError, msgspec.DecodeError) as error:
            raise ConfigurationError(
                f"The keys in {self.path} cannot be read: {error}. Restore the file, or remove it."
            ) from None
        self._seen, self._keys = seen, {record.id: record for record in file.keys}

    @contextmanager
    def _change(self) -> Iterator[dict[str, KeyRecord]]:
        """The keys, read anew, changed by the caller, written whole; one writer at a time."""
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with _locked(self.path.with_name(self.path.name + ".lock")):
                self._seen = None
                self._refresh()
                yield self._keys
                self._write(_File(keys=list(self._keys.values())))
        except OSError as error:
            raise ConfigurationError(f"The keys in {self.path} cannot be written: {error.strerror or error}.") from None

    def _write(self, file: _File) -> None:
        write_whole(self.path, msgspec.json.format(msgspec.json.encode(file)))
        self._seen = None


def _hash(salt: str, secret: str) -> str:
    return hashlib.sha256(f"{salt}:{secret}".encode()).hexdigest()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keeps two commands from writing at once, where the system has advisory locks."""
    try:
        import fcntl
    except ImportError:  # Windows: the replacement of the file is atomic, and keys are made by hand
        yield
        return
    handle = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
