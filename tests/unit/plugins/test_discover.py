"""Discovery: what is loaded, what is not, and what is said about it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from modelport.contract.errors import ConfigurationError
from modelport.core.config.settings import ModelSettings, Settings
from modelport.core.plugins.discover import load_one

HEAD = "from modelport import hookimpl\nMODELPORT_CONTRACT = '1.0'\n"


def test_enabled_plugin_is_loaded_and_recorded(site: Any) -> None:
    site.install_skill("shout", "modelport-skill-shout")

    registry = site.discover()

    assert list(registry.skills) == ["shout"]
    assert list(registry.tasks) == ["shout"]
    assert registry.modules == {("skills", "shout"): "plugin_shout"}
    record = registry.record("skills", "shout")
    assert (record.state, record.distribution, record.version, record.contract) == (
        "enabled",
        "modelport-skill-shout",
        "1.2",
        "1.0",
    )
    assert record.file == str(site.folder / "plugin_shout.py")


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (Settings(skills={"shout": {"enabled": False}}), "skills.shout.enabled is false"),
        (Settings(skills=[]), "it is not in the list skills"),
    ],
)
def test_disabled_plugin_is_listed_and_never_imported(site: Any, settings: Settings, reason: str) -> None:
    site.install_skill("shout")

    registry = site.discover(settings)

    assert registry.skills == {}
    record = registry.record("skills", "shout")
    assert (record.state, record.reason, record.file) == ("disabled", reason, str(site.folder / "plugin_shout.py"))
    assert "plugin_shout" not in sys.modules


def test_disabled_plugin_in_a_package_is_found_without_importing_the_package(site: Any) -> None:
    package = site.folder / "plugin_package"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "hooks.py").write_text("")
    site.install("plugin_other", "", skills="deep = plugin_package.hooks")

    record = site.discover(Settings(skills=[])).record("skills", "deep")

    assert record.file == str(package / "hooks.py")
    assert "plugin_package" not in sys.modules


def test_failing_plugin_stops_no_other(site: Any) -> None:
    site.install("plugin_bad", "raise RuntimeError('no driver')", skills="bad")
    site.install_skill("shout")

    registry = site.discover()

    assert list(registry.skills) == ["shout"]
    assert [record.reason for record in registry.failed] == ["importing plugin_bad failed with RuntimeError: no driver"]


def test_strict_refuses_a_failing_plugin(site: Any) -> None:
    site.install("plugin_bad", "raise RuntimeError('no driver')", distribution="bad-dist", skills="bad")

    with pytest.raises(ConfigurationError, match=r"skills\.bad \(bad-dist 1\.2\): importing plugin_bad failed"):
        site.discover(Settings(strict=True))


def test_plugin_that_ends_the_process_on_import_is_a_failing_one(reason_of: Callable[..., str]) -> None:
    assert reason_of("import sys; sys.exit(3)") == "importing plugin_bad failed with SystemExit: 3"


def test_missing_module_says_to_install_it(reason_of: Callable[..., str]) -> None:
    expected = "importing plugin_bad failed with ModuleNotFoundError: No module named 'not_there'; install what it needs"
    assert reason_of("import not_there") == expected


@pytest.mark.parametrize(
    ("contract", "reason"),
    [
        ("", 'it states no contract; write MODELPORT_CONTRACT = "1.0" in plugin_bad'),
        ("MODELPORT_CONTRACT = 1.0", 'MODELPORT_CONTRACT is 1.0; it must be text like "1.0"'),
        (
            "MODELPORT_CONTRACT = '2.0'",
            "it was written for contract 2.0 and this server has 1.0; install its version for 1.x",
        ),
        ("MODELPORT_CONTRACT = '1.9'", "it was written for contract 1.9 and this server has 1.0; upgrade modelport"),
    ],
)
def test_contract_that_cannot_be_kept_is_refused(reason_of: Callable[..., str], contract: str, reason: str) -> None:
    assert reason_of(f"from modelport import hookimpl\n{contract}\n@hookimpl\ndef register_skills(): return []") == reason


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("def register_skills(): return []", "register_skills is not marked; did you forget @hookimpl?"),
        ("", "it implements no hook; did you forget @hookimpl?"),
        ("@hookimpl\ndef register_skill(): return []", "register_skill is not a hook; did you mean register_skills?"),
        ("@hookimpl\nasync def register_skills(): return []", "register_skills is asynchronous; hooks are plain functions"),
        (
            "@hookimpl\ndef register_skills(config): return []",
            "register_skills takes config, which it does not get; it may take no arguments",
        ),
        (
            "@hookimpl\ndef register_skills(): raise ValueError('broken\\nbadly')",
            "register_skills failed with ValueError: broken badly",
        ),
        (
            "@hookimpl\ndef register_skills(): return 'bad'",
            "register_skills returned a str; it returns a list, as in return [str()]",
        ),
        (
            "@hookimpl\ndef register_skills(): return [object()]",
            "register_skills returned a object, which is not a modelport.contract.Skill",
        ),
        (
            "class S: name='bad'\n@hookimpl\ndef register_skills(): return [S]",
            "register_skills returned the class S; return an object of it: S()",
        ),
        (
            (
                "from modelport.contract import Skill\nclass S(Skill): name, tasks = 'good', ()\n"
                "@hookimpl\ndef register_skills(): yield S()"
            ),
            "it registers 'good' and its entry point is 'bad'; the two names must be equal",
        ),
        (
            "@hookimpl\ndef register_backends(): return []",
            "it implements register_backends, and its entry point is in modelport.skills; put that into modelport.backends",
        ),
    ],
)
def test_plugin_that_breaks_a_rule_is_told_which(reason_of: Callable[..., str], source: str, reason: str) -> None:
    assert reason_of(HEAD + source) == reason


def test_wrong_argument_of_apis_names_the_right_one(reason_of: Callable[..., str]) -> None:
    source = HEAD + "@hookimpl\ndef register_apis(config): return []"

    assert reason_of(source, "apis") == "register_apis takes config, which it does not get; it may take arguments of options"


def test_backend_that_lacks_a_method_is_told_which(reason_of: Callable[..., str]) -> None:
    source = HEAD + (
        "class B: name='bad'; rank=1; imports_torch=False; preload=(); probe=verdict=environment=lambda self: 0\n"
        "@hookimpl\ndef register_backends(): return [B()]"
    )

    assert reason_of(source, "backends") == "register_backends returned a B that lacks load(); see modelport.contract"


def test_entry_point_to_an_object_is_told_to_name_a_module(site: Any) -> None:
    site.install("plugin_bad", HEAD, skills="bad = plugin_bad:skill")

    assert site.reason("bad") == "its entry point names 'plugin_bad:skill'; an entry point names a module, so write 'plugin_bad'"


def test_two_plugins_of_one_name_refuse_to_start_and_name_both(site: Any) -> None:
    site.install_skill("shout", "one-dist", module="plugin_one")
    site.install_skill("shout", "two-dist", module="plugin_two")

    with pytest.raises(ConfigurationError) as caught:
        site.discover()

    assert (
        "skills.shout is brought by one-dist 1.2 (module plugin_one) and two-dist 1.2 (module plugin_two)" in caught.value.message
    )
    assert "plugin_one" not in sys.modules


def test_two_disabled_plugins_of_one_name_are_no_trouble(site: Any) -> None:
    site.install_skill("shout", "one-dist", module="plugin_one")
    site.install_skill("shout", "two-dist", module="plugin_two")

    registry = site.discover(Settings(skills={"shout": {"enabled": False}}))

    assert [record.state for record in registry.records] == ["disabled", "disabled"]


def test_two_definitions_of_one_task_refuse_to_start_and_name_both(site: Any) -> None:
    site.install_skill("shout", "one-dist", task="same")
    site.install_skill("yell", "two-dist", task="same")

    with pytest.raises(ConfigurationError) as caught:
        site.discover()

    assert (
        "the task 'same' is defined differently by skills.shout (one-dist 1.2) and by skills.yell (two-dist 1.2); "
        "disable one: skills.yell.enabled = false"
    ) in caught.value.message


@pytest.mark.parametrize("chosen", [["shuot"], {"shuot": {"enabled": True}}])
def test_plugin_that_is_asked_for_and_not_installed_refuses_to_start(site: Any, chosen: Any) -> None:
    site.install_skill("shout")

    with pytest.raises(
        ConfigurationError, match=r"skills\.shuot is enabled, but not installed; did you mean shout\? Installed skills: shout"
    ):
        site.discover(Settings(skills=chosen))


def test_options_for_a_plugin_that_is_not_installed_are_reported(site: Any) -> None:
    registry = site.discover(Settings(backends={"cuda": {"graphs": True}}))

    (record,) = registry.failed
    assert (record.name, record.reason) == (
        "cuda",
        "it is configured, but not installed; try pip install modelport-backend-cuda. Installed backends: none",
    )


@pytest.mark.parametrize("backend", ["cupid", "cupid:1"])
def test_a_model_whose_backend_is_not_installed_refuses_to_start(site: Any, backend: str) -> None:
    models = {"chat": ModelSettings(source="org/chat", backend=backend)}

    message = rf"models\.chat\.backend is '{backend}', and there is no such backend; try pip install modelport-backend-cupid"
    with pytest.raises(ConfigurationError, match=message):
        site.discover(Settings(models=models))


def test_api_gets_its_options(site: Any) -> None:
    source = HEAD + (
        "from modelport.contract import Api\nclass A(Api): name='mine'\n"
        "@hookimpl\ndef register_apis(options): return [A(options)]"
    )
    site.install("plugin_api", source, apis="mine")

    assert site.discover(Settings(apis={"mine": {"path": "/x", "enabled": True}})).apis["mine"].options == {"path": "/x"}


def test_only_the_asked_kinds_are_looked_at(site: Any) -> None:
    site.install_skill("shout")

    assert site.discover(kinds=("backends",)).records == []


def _observer(name: str) -> str:
    return HEAD + (
        f"class O: name='{name}'\n"
        "@hookimpl\ndef register_observers(): return [O()]\n"
        f"@hookimpl\ndef choose_placement(model, candidates): return ['{name}']\n"
    )


def test_services_are_asked_in_the_order_of_the_configuration_then_by_name(site: Any) -> None:
    for name in ("aa", "bb", "cc"):
        site.install(f"plugin_{name}", _observer(name), apis=name)

    registry = site.discover(Settings(order=["cc"]))

    assert [observer.name for observer in registry.observers] == ["cc", "aa", "bb"]
    assert registry.manager.hook.choose_placement(model="m", candidates=[]) == ["cc"]


def test_order_that_names_no_plugin_refuses_to_start(site: Any) -> None:
    site.install_skill("shout")

    with pytest.raises(ConfigurationError, match="order names 'shuot', which is not installed; did you mean shout"):
        site.discover(Settings(order=["shuot"]))


def test_authorizer_that_cannot_be_had_refuses_to_start(site: Any) -> None:
    source = HEAD + "@hookimpl\ndef register_authorizers(): raise OSError('no table')"
    site.install("plugin_hours", source, apis="hours")

    with pytest.raises(
        ConfigurationError, match="authorizers that cannot be had: register_authorizers failed with OSError: no table"
    ):
        site.discover()


def test_commands_resolvers_and_executors_are_collected(site: Any) -> None:
    source = HEAD + (
        "import click\n"
        "class R: name='r'\n"
        "class E:\n  name='far'\n  def replica(self, spec, events): ...\n  async def close(self): ...\n"
        "@hookimpl\ndef register_commands(): return [click.Command('export')]\n"
        "@hookimpl\ndef register_resolvers(): return (each for each in [R()])\n"
        "@hookimpl\ndef register_executors(): return [E()]"
    )
    site.install("plugin_far", source, executors="far")

    registry = site.discover()

    assert [command.name for command in registry.commands] == ["export"]
    assert [resolver.name for resolver in registry.resolvers] == ["r"]
    assert list(registry.executors) == ["far"]


def test_observer_that_cannot_be_had_is_a_failing_plugin(reason_of: Callable[..., str]) -> None:
    source = HEAD + "@hookimpl\ndef register_observers(): raise OSError('no disk')"

    assert reason_of(source, "apis") == "register_observers failed with OSError: no disk"


def test_module_with_two_entry_points_brings_both_and_its_services_once(site: Any) -> None:
    source = HEAD + (
        "from modelport.contract import Skill\n"
        "class One(Skill): name='one'; tasks=()\nclass Two(Skill): name='two'; tasks=()\nclass O: name='o'\n"
        "@hookimpl\ndef register_skills(): return [One(), Two()]\n"
        "@hookimpl\ndef register_observers(): return [O()]"
    )
    site.install("plugin_both", source, skills="one = plugin_both\ntwo = plugin_both")

    assert list(site.discover().skills) == ["one", "two"]
    assert len(site.discover().observers) == 1
    assert list(site.discover(Settings(skills=["two"])).skills) == ["two"]


def test_worker_loads_exactly_one_plugin(site: Any) -> None:
    site.install_skill("shout")
    site.install_skill("yell")

    assert load_one("skills", "shout", "plugin_shout").name == "shout"
    assert "plugin_yell" not in sys.modules


def test_worker_is_told_why_a_plugin_cannot_be_loaded(site: Any) -> None:
    site.install("plugin_bad", "import not_there", skills="bad")
    site.install_skill("shout")

    with pytest.raises(ConfigurationError, match=r"The plugin 'bad' \(skills, module plugin_bad\) cannot be used: importing"):
        load_one("skills", "bad", "plugin_bad")
    with pytest.raises(ConfigurationError, match="it registers no 'other'"):
        load_one("skills", "other", "plugin_shout")


def test_discovery_imports_no_framework() -> None:
    program = (
        "import sys\n"
        "from modelport.core.config.settings import Settings\n"
        "from modelport.core.plugins.discover import discover\n"
        "discover(Settings())\n"
        "print([name for name in ('torch', 'transformers', 'litestar', 'huggingface_hub') if name in sys.modules])"
    )

    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip() == "[]"
