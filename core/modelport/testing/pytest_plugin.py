"""pytest's part of the kit: `pytest --pyargs modelport.testing --backend NAME` runs the suite over an installed backend.

Tests that need a device are skipped where there is none, and the summary says why. The option exists in such a run only, so that
it gets in nobody's way.
"""

from __future__ import annotations

from importlib.metadata import entry_points

import pytest

from modelport.contract.backend import Backend

__all__ = ["installed_backend", "pytest_configure", "pytest_load_initial_conftests", "pytest_terminal_summary"]

_GROUP = "modelport.backends"
_OPTION = "modelport_backend"
_NAME = pytest.StashKey[str]()


def pytest_load_initial_conftests(early_config: pytest.Config, parser: pytest.Parser, args: list[str]) -> None:
    """Adds the option to a run of the kit."""
    if any(argument.split("::")[0].rstrip("/") in ("modelport.testing", "modelport.testing.test_backend") for argument in args):
        parser.addoption(
            "--backend", dest=_OPTION, metavar="NAME", help="run modelport's suite of backends over this installed one"
        )


def pytest_configure(config: pytest.Config) -> None:
    """Refuses a name that is not installed."""
    name = config.getoption(_OPTION, None)
    if name is None:
        return
    names = sorted(point.name for point in entry_points(group=_GROUP))
    if name not in names:
        raise pytest.UsageError(f"no backend {name!r} is installed; there are: {', '.join(names) or 'none'}.")
    config.stash[_NAME] = name


def installed_backend(config: pytest.Config) -> Backend | None:
    """The backend that was asked for."""
    name = config.stash.get(_NAME, None)
    if name is None:
        return None
    (point,) = entry_points(group=_GROUP, name=name)
    found: Backend = next(backend for backend in point.load().register_backends() if backend.name == name)
    return found


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Says what the suite ran on, or why it ran on nothing."""
    backend = installed_backend(config)
    if backend is None:
        return
    probe = backend.probe()
    terminalreporter.section(f"backend {backend.name}")
    versions = ", ".join(f"{name} {version}" for name, version in probe.versions.items())
    if probe.devices:
        device = probe.devices[0]
        terminalreporter.write_line(f"ran on {device.id}, {device.name}, with {versions}")
    else:
        terminalreporter.write_line(f"NO DEVICE, so every test that needs one was skipped: {probe.reason} ({versions})")
