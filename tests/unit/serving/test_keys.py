from __future__ import annotations

import json
import stat

import pytest

from modelport.contract import ConfigurationError, NotFound, Unauthenticated
from modelport.core.config.settings import AuthSettings, Settings
from modelport.core.serving.access import Access
from modelport.core.serving.keys import Keyring


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state" / "keys.json"


def test_a_new_key_opens_what_it_was_made_for(path):
    record, token = Keyring(path).create("app", ["infer"], ["a", "b"])
    assert token.startswith(f"mp-{record.id}-")
    caller = Keyring(path).verify(token)
    assert (caller.name, caller.scopes, caller.models) == ("app", {"infer"}, {"a", "b"})


def test_the_file_is_private_and_holds_no_key(path):
    _, token = Keyring(path).create("app")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert token.split("-", 2)[2] not in path.read_text()


@pytest.mark.parametrize("token", ["", None, "nonsense", "mp-", "mp-x-y", "sk-abc", "mp-é-ü", "Bearer"])
def test_what_is_no_key_is_refused(path, token):
    ring = Keyring(path)
    ring.create("app")
    with pytest.raises(Unauthenticated, match="modelport keys create"):
        ring.verify(token)


def test_a_right_id_with_a_wrong_secret_is_refused_in_the_same_words_as_an_unknown_one(path):
    ring = Keyring(path)
    record, token = ring.create("app")
    messages = set()
    for wrong in (f"mp-{record.id}-{'x' * 43}", f"mp-{'0' * 12}-{'x' * 43}", token[:-1]):
        with pytest.raises(Unauthenticated) as caught:
            ring.verify(wrong)
        messages.add(caught.value.message)
    assert len(messages) == 1


def test_a_revoked_key_is_refused_by_a_server_that_already_runs(path):
    server, command = Keyring(path), Keyring(path)
    record, token = command.create("app")
    assert server.verify(token).name == "app"
    command.revoke(record.id)
    with pytest.raises(Unauthenticated, match="is revoked"):
        server.verify(token)
    assert [record.state(0) for record in server.list()] == ["revoked"]


def test_a_connection_that_outlives_its_key_is_refused(path):
    ring = Keyring(path)
    record, token = ring.create("app")
    access = Access(ring, [])
    caller = access.authenticate(token)
    assert access.caller(caller) is caller
    ring.revoke(record.id)
    with pytest.raises(Unauthenticated, match="has been revoked"):
        access.caller(caller)


def test_an_expired_key_is_refused(path):
    ring = Keyring(path)
    record, token = ring.create("app", expires_at=4_000_000_000.0)
    assert ring.verify(token, now=3_999_999_999.0).expires_at == record.expires_at
    with pytest.raises(Unauthenticated, match="is expired"):
        ring.verify(token, now=4_000_000_000.0)
    with pytest.raises(ConfigurationError, match="already"):
        ring.create("late", expires_at=1.0)


def test_revoking_takes_the_whole_key_too_and_names_what_is_not_there(path):
    ring = Keyring(path)
    _, token = ring.create("app")
    assert ring.revoke(token).revoked_at is not None
    with pytest.raises(NotFound, match="modelport keys list"):
        ring.revoke("nothing")


def test_a_scope_that_does_not_exist_is_refused_with_those_that_do(path):
    with pytest.raises(ConfigurationError, match=r"root is not a scope. Scopes are admin, infer"):
        Keyring(path).create("app", ["root"])


def test_keys_are_asked_for_as_soon_as_there_is_one_and_still_when_the_last_is_revoked(path):
    ring = Keyring(path)
    assert not ring.in_force
    assert Access(ring, []).authenticate("sk-whatever").scopes == {"infer", "admin"}
    record, _ = Keyring(path).create("app")
    assert ring.in_force
    ring.revoke(record.id)
    assert ring.in_force


def test_the_configuration_may_always_or_never_ask_for_keys(path, tmp_path):
    assert Keyring(path, "always").in_force
    Keyring(path).create("app")
    assert not Keyring(path, "never").in_force
    assert Keyring.of(Settings(state_dir=str(tmp_path))).path == tmp_path / "keys.json"
    assert Keyring.of(Settings(auth=AuthSettings(keys_file=str(path), required="always"))).in_force


def test_a_torn_file_lets_nobody_in(path):
    ring = Keyring(path)
    _, token = ring.create("app")
    path.write_text(path.read_text()[:50])
    with pytest.raises(ConfigurationError, match="cannot be read"):
        ring.verify(token)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        _ = ring.in_force


def test_the_file_can_be_read_by_people(path):
    Keyring(path).create("app", models=["a"])
    kept = json.loads(path.read_text())["keys"][0]
    assert (kept["name"], kept["models"], kept["scopes"]) == ("app", ["a"], ["infer"])


def test_a_running_server_whose_file_of_keys_vanishes_does_not_open_up(path):
    server = Keyring(path)
    _, token = Keyring(path).create("app")
    assert server.in_force
    path.unlink()
    assert server.in_force
    with pytest.raises(Unauthenticated, match="not known here"):
        server.verify(token)
