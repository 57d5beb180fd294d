"""What must be light: the command line and the ground floor load no framework."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "tokenizers", "litestar", "uvicorn", "huggingface_hub")

# runs a command in this process's image and prints the heavy modules that it left loaded
PROBE = """
import sys
from modelport.core.cli.main import main
try:
    main(sys.argv[1:])
finally:
    loaded = sorted({name.split(".")[0] for name in sys.modules} & set(HEAVY))
    print("HEAVY", *loaded, file=sys.stderr)
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["serve", "--help"],
        ["plugins", "list"],
        ["plugins", "list", "--json"],
        ["config", "show"],
        ["models", "list"],
    ],
    ids=" ".join,
)
def test_command_loads_no_framework(arguments: list[str]) -> None:
    code = PROBE.replace("set(HEAVY)", repr(set(HEAVY)))

    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False, timeout=60)

    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "HEAVY"


@pytest.mark.parametrize(
    "module", ["modelport", "modelport.contract", "modelport.tasks", "modelport.hookspecs", "modelport.client"]
)
def test_ground_floor_loads_no_framework(module: str) -> None:
    code = f"import sys, {module}; print(*sorted({{n.split('.')[0] for n in sys.modules}} & {set(HEAVY)!r}))"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)

    assert done.stdout.strip() == ""
