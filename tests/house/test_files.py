"""Files: short, typed, and free of traces of the machine they were written on."""

from __future__ import annotations

from pathlib import Path

LONGEST = 400

# written in pieces, so that this file does not hold what it forbids
TRACES = [
    "pypi" + ".org",
    "pythonhosted" + ".org",
    "download." + "pytorch.org",
    "/opt/" + "pypi",
    "/opt/" + "wheels",
    "/ro" + "ot/",
    "/wo" + "rk/",
    "/tmp/" + "venv",
    "/Us" + "ers/",
]


def is_test(path: Path) -> bool:
    return "tests" in path.parts


def test_no_file_of_code_is_longer_than_a_person_reads_at_once(tracked: list[Path], root: Path) -> None:
    too_long = {
        str(path.relative_to(root)): lines
        for path in tracked
        if path.suffix == ".py" and not is_test(path) and (lines := len(path.read_text(encoding="utf-8").splitlines())) > LONGEST
    }

    assert too_long == {}, "a file of more than 400 lines probably holds two nouns"


def test_no_file_names_a_machine_or_a_registry(tracked: list[Path], root: Path) -> None:
    found = []
    for path in tracked:
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{path.relative_to(root)}: {trace}" for trace in TRACES if trace in text]

    assert found == []


def test_every_distribution_is_typed(root: Path) -> None:
    packages = [
        root / "core/modelport",
        *root.glob("libs/*/src/*"),
        *root.glob("plugins/*/*/src/*"),
        *root.glob("plugin_template/src/*"),
    ]

    untyped = [
        str(package.relative_to(root))
        for package in packages
        if (package / "__init__.py").exists() and not (package / "py.typed").exists()
    ]

    assert untyped == []


def test_no_folder_of_tests_is_a_package(tracked: list[Path], root: Path) -> None:
    packages = [str(path.relative_to(root)) for path in tracked if path.name == "__init__.py" and is_test(path.relative_to(root))]

    assert packages == [], "tests are imported by path (importmode=importlib)"
