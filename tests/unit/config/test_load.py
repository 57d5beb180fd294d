"""The configuration: where values come from, and every fault at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from modelport.contract.errors import ConfigurationError
from modelport.core.config.load import load
from modelport.core.config.settings import Settings


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def toml(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / "my.toml"
        path.write_text(text, "utf-8")
        return path

    return write


def faults(path: Path | None = None, env: Mapping[str, str] | None = None, flags: Mapping[str, Any] | None = None) -> list[str]:
    """The lines of the error, without the head and without the place of each."""
    with pytest.raises(ConfigurationError) as caught:
        load(path, env or {}, flags or {})
    return [line.strip().partition(" (in ")[0] for line in caught.value.message.splitlines()[1:]]


def test_nothing_configured_gives_the_defaults() -> None:
    loaded = load(None, {}, {})

    assert loaded.settings == Settings()
    assert loaded.origins == {}
    assert loaded.file is None


def test_file_gives_values(toml: Callable[[str], Path]) -> None:
    path = toml('[server]\nport = 9000\n[models."org/chat"]\nsource = "org/chat"\nkeep_alive_s = 5\n')

    loaded = load(path, {}, {})

    assert loaded.settings.server.port == 9000
    assert loaded.settings.models["org/chat"].keep_alive_s == 5.0
    assert loaded.origins["server.port"] == "file"
    assert loaded.origins['models."org/chat".source'] == "file"


def test_modelport_toml_of_the_working_folder_is_read_by_default(tmp_path: Path) -> None:
    (tmp_path / "modelport.toml").write_text("strict = true")

    assert load(None, {}, {}).settings.strict is True


def test_environment_names_the_file(toml: Callable[[str], Path]) -> None:
    assert load(None, {"MODELPORT_CONFIG": str(toml("strict = true"))}, {}).settings.strict is True


def test_flag_wins_over_environment_over_file_over_default(toml: Callable[[str], Path]) -> None:
    path = toml('[server]\nport = 1\nhost = "a"\nkeep_alive_s = 1\n')
    env = {"MODELPORT_SERVER__PORT": "2", "MODELPORT_SERVER__HOST": "b"}

    loaded = load(path, env, {"server.port": 3})

    server = loaded.settings.server
    assert (server.port, server.host, server.keep_alive_s, server.drain_s) == (3, "b", 1.0, 30.0)
    assert loaded.origins == {"server.port": "flag", "server.host": "env", "server.keep_alive_s": "file"}
    assert loaded.places["server.host"] == "MODELPORT_SERVER__HOST"


def test_flag_that_was_not_given_changes_nothing() -> None:
    assert load(None, {}, {"server.port": None, "models": {"m": {"source": "a/b", "revision": None}}}).origins == {
        "models.m.source": "flag"
    }


def test_flags_may_be_nested_and_name_models_with_dots() -> None:
    loaded = load(None, {}, {"models": {"llama-3.1": {"source": "org/llama", "aliases": ("l",)}}})

    assert loaded.settings.models["llama-3.1"].aliases == ["l"]
    assert loaded.origins['models."llama-3.1".source'] == "flag"


def test_empty_table_of_a_later_layer_leaves_the_earlier_one(toml: Callable[[str], Path]) -> None:
    path = toml('[models.chat]\nsource = "a/b"\n')

    assert load(path, {}, {"models": {"chat": {}}}).settings.models["chat"].source == "a/b"


@pytest.mark.parametrize(
    ("name", "text", "read"),
    [
        ("MODELPORT_PORT", "81", lambda s: s.server.port == 81),
        ("MODELPORT_HOST", "::1", lambda s: s.server.host == "::1"),
        ("MODELPORT_OFFLINE", "yes", lambda s: s.offline is True),
        ("MODELPORT_OFFLINE", "0", lambda s: s.offline is False),
        ("MODELPORT_LIMITS__LOAD_WAIT_S", "1.5", lambda s: s.limits.load_wait_s == 1.5),
        ("MODELPORT_SERVER__CORS_ORIGINS", "a, b", lambda s: s.server.cors_origins == ["a", "b"]),
        ("MODELPORT_SERVER__CORS_ORIGINS", '["a"]', lambda s: s.server.cors_origins == ["a"]),
        ("MODELPORT_APIS", "native,openai", lambda s: s.apis == ["native", "openai"]),
        ("MODELPORT_APIS", '{"native": {"enabled": false}}', lambda s: not s.enabled("apis", "native")),
        ("MODELPORT_BACKENDS__CPU__NUMA", "true", lambda s: s.options("backends", "cpu") == {"numa": True}),
        ("MODELPORT_MEMORY__BUDGET_BYTES__CPU", "10", lambda s: s.memory.budget_bytes == {"cpu": 10}),
        ("MODELPORT_CACHE_DIR", "", lambda s: s.cache_dir is None),
    ],
)
def test_variable_is_read_as_its_key_asks(name: str, text: str, read: Callable[[Settings], bool]) -> None:
    assert read(load(None, {name: text}, {}).settings)


def test_variables_name_models() -> None:
    env = {
        "MODELPORT_MODELS__CHAT__SOURCE": "org/chat",
        "MODELPORT_MODELS__CHAT__REVISION": "1234567",
        "MODELPORT_MODELS__CHAT__OPTIONS__PROMPT": '"hi"',
    }

    model = load(None, env, {}).settings.models["chat"]

    assert (model.source, model.revision, model.options) == ("org/chat", "1234567", {"prompt": "hi"})


def test_variable_means_the_model_that_is_written_otherwise(toml: Callable[[str], Path]) -> None:
    path = toml('[models."Org/My-chat"]\nsource = "a/b"\n')

    loaded = load(path, {"MODELPORT_MODELS__ORG_MY_CHAT__DTYPE": "float32"}, {})

    assert loaded.settings.models["Org/My-chat"].dtype == "float32"
    assert list(loaded.settings.models) == ["Org/My-chat"]


def test_variables_that_kubernetes_makes_for_a_service_are_ignored() -> None:
    env = {"MODELPORT_PORT": "tcp://10.0.0.1:80", "MODELPORT_SERVICE_HOST": "10.0.0.1", "MODELPORT_PORT_80_TCP_ADDR": "10.0.0.1"}

    assert load(None, env, {}).settings == Settings()


def test_variables_of_clients_are_no_settings() -> None:
    assert load(None, {"MODELPORT_API_KEY": "x", "MODELPORT_URL": "y"}, {}).settings == Settings()


def test_list_of_plugins_keeps_the_options_that_the_file_gives(toml: Callable[[str], Path]) -> None:
    path = toml("[apis.native]\nx = 1\n[apis.openai]\ny = 2\n")

    settings = load(path, {}, {"apis": ["native"]}).settings

    assert settings.options("apis", "native") == {"x": 1}
    assert [name for name in ("native", "openai", "other") if settings.enabled("apis", name)] == ["native"]


def test_options_for_a_plugin_of_a_list_keep_the_list(toml: Callable[[str], Path]) -> None:
    settings = load(toml('apis = ["native"]'), {"MODELPORT_APIS__NATIVE__X": "1"}, {}).settings

    assert settings.options("apis", "native") == {"x": 1}
    assert not settings.enabled("apis", "openai")


def test_every_fault_is_reported_at_once(toml: Callable[[str], Path]) -> None:
    path = toml(
        """
        prot = 1
        log_level = "inof"
        [server]
        port = "eighty"
        tls_cert = "a.pem"
        [memory]
        fraction = 2
        [models.a]
        sourec = "x"
        [models.b]
        source = "org/b"
        aliases = ["a", 3]
        """
    )

    assert faults(path, {"MODELPORT_SERVR__PORT": "1"}, {"limits.queue_items": 0}) == [
        "MODELPORT_SERVR__PORT is not a variable of modelport's; did you mean MODELPORT_SERVER__PORT?",
        f"prot is not a key; keys here are {', '.join(Settings.__struct_fields__)}",
        'log_level: expected one of debug, error, info, warning, got "inof"; did you mean info?',
        'server.port: expected a whole number from 0 to 65535, got "eighty"',
        "memory.fraction: expected a number over 0 and of at most 1, got 2",
        "models.a.sourec is not a key; did you mean models.a.source?",
        "models.a.source is missing: give a Hub id, a local folder or hf_<model_type>",
        "models.b.aliases[1]: expected a string, got 3",
        "limits.queue_items: expected a whole number over 0, got 0",
        'models.b.aliases[0]: "a" is the name of models.a already; it cannot mean models.b too',
        "server.tls_cert needs server.tls_key as well",
    ]


def test_fault_names_the_place_that_it_stands_in(toml: Callable[[str], Path]) -> None:
    path = toml("strict = 1")

    with pytest.raises(ConfigurationError) as caught:
        load(path, {"MODELPORT_OFFLINE": "maybe"}, {})

    assert f"strict: expected true or false, got 1 (in {path})" in caught.value.message
    assert 'offline: expected true or false, got "maybe" (in MODELPORT_OFFLINE)' in caught.value.message


def test_key_of_another_table_is_pointed_to() -> None:
    assert faults(flags={"port": 1}) == ["port is not a key; did you mean server.port?"]


def test_variable_with_one_underscore_too_few_is_pointed_to() -> None:
    assert faults(env={"MODELPORT_SERVER_PORT": "1"}) == [
        "MODELPORT_SERVER_PORT is not a variable of modelport's; did you mean MODELPORT_SERVER__PORT?"
    ]


def test_model_written_as_text_is_told_the_form(toml: Callable[[str], Path]) -> None:
    assert faults(toml('[models]\nchat = "org/chat"')) == [
        'models.chat: expected a table, got "org/chat"; write models.chat = { source = "org/chat" }'
    ]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("a/b/c", "has more than one slash; a model's name has at most one, as in org/model"),
        ("org/info", "must not end in a word that follows names in routes (info, load, placement, ready, unload, versions)"),
        ("load", "must not end in a word that follows names in routes"),
        ("a b", "cannot be a model's name; use letters, digits and . _ - : @ + around at most one slash"),
        ("org/", "cannot be a model's name"),
        ("..", "cannot be a model's name"),
    ],
)
def test_model_name_that_cannot_stand_in_a_url_is_refused(name: str, why: str) -> None:
    (fault,) = faults(flags={"models": {name: {"source": "org/x"}}})

    assert why in fault


def test_alias_of_two_models_names_both() -> None:
    models = {"one": {"source": "a/b", "aliases": ["x"]}, "two": {"source": "a/c", "aliases": ["x"]}}

    assert faults(flags={"models": models}) == [
        'models.two.aliases[0]: "x" is an alias of models.one already; it cannot mean models.two too'
    ]


def test_remote_code_of_a_hub_model_needs_a_revision(tmp_path: Path) -> None:
    trusted = {"trust_remote_code": True}

    assert faults(flags={"models": {"m": {"source": "org/m", **trusted}}}) == [
        "models.m.trust_remote_code needs models.m.revision: name the commit whose code you have read"
    ]
    for source in ("org/m@abc", str(tmp_path)):
        assert load(None, {}, {"models": {"m": {"source": source, **trusted}}}).settings.models["m"].trust_remote_code


def test_enabled_must_be_true_or_false() -> None:
    assert faults(flags={"apis": {"native": {"enabled": "no"}}}) == ['apis.native.enabled: expected true or false, got "no"']


def test_not_a_number_is_outside_every_range() -> None:
    assert faults(env={"MODELPORT_LIMITS__LOAD_WAIT_S": "nan"}) == [
        "limits.load_wait_s: expected a number of at least 0, got nan"
    ]


@pytest.mark.parametrize(
    ("content", "why"),
    [(b"a = ", "is not TOML: "), (b"\xff\xfe", "is not UTF-8 text; save it as UTF-8")],
)
def test_file_that_cannot_be_read_says_why_beside_other_faults(tmp_path: Path, content: bytes, why: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_bytes(content)

    first, second = faults(path, {"MODELPORT_STRICT": "x"})

    assert first.startswith(f"{path} {why}")
    assert second.startswith("strict: ")


def test_file_that_does_not_exist_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"no\.toml does not exist; name a configuration file that does"):
        load(tmp_path / "no.toml", {}, {})
