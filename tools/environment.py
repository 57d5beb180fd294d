"""Makes a virtual environment with the core, the libraries and the plugins in it, or leaves one that is complete alone.

    python3 tools/environment.py                                  # .venv, what serving needs
    python3 tools/environment.py --group convert                 # and what converts language models for OpenVINO
    python3 tools/environment.py --group test --group lint       # and what the checks need
    python3 tools/environment.py --venv .venv-latest --constraints constraints-latest.txt

Everything of this repository is installed editable, in one call of pip, so that the resolver sees all requirements at once.
Which torch comes is decided by the constraints and by pip's own configuration: where that offers a CPU build, it is taken.
A stamp inside the environment holds a digest of every file that decides its contents; while it is equal nothing is done.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OLDEST = (3, 11)
STAMP = ".modelport-installed.json"


def distributions() -> list[Path]:
    """The folder of every distribution in this repository, the core first."""
    found = [*ROOT.glob("libs/*/pyproject.toml"), *ROOT.glob("plugins/*/*/pyproject.toml")]
    return [ROOT, *sorted(path.parent for path in found)]


def digest(constraints: Path) -> str:
    """A digest of all that decides what is installed."""
    total = hashlib.sha256(sys.version.encode())
    for path in [constraints, ROOT / "core/hatch_build.py", *(folder / "pyproject.toml" for folder in distributions())]:
        total.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes())
    return total.hexdigest()


def python_of(venv: Path) -> Path:
    """The interpreter inside an environment."""
    return venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def complete(venv: Path, wanted: dict[str, object]) -> bool:
    """Whether `venv` holds everything that is wanted."""
    try:
        stamp = json.loads((venv / STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    groups = stamp.get("groups", [])
    return stamp.get("digest") == wanted["digest"] and set(wanted["groups"]) <= set(groups) and python_of(venv).exists()  # type: ignore[call-overload]


def newer_python() -> str | None:
    """An interpreter on the path that is new enough, if this one is not."""
    for minor in range(14, OLDEST[1] - 1, -1):
        candidate = shutil.which(f"python3.{minor}")
        if candidate and subprocess.run([candidate, "-c", ""], capture_output=True, check=False).returncode == 0:
            return candidate
    return None


def install(venv: Path, constraints: Path, groups: list[str]) -> None:
    """Creates the environment if need be and installs into it. What pip says of a failure stays visible."""
    python = python_of(venv)
    if not python.exists():
        print(f"making {venv.relative_to(ROOT)} with Python {sys.version.split()[0]}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    pip = [str(python), "-m", "pip", "--disable-pip-version-check"]
    # groups of requirements came with pip 25.1
    subprocess.run([*pip, "install", "-qq", "--upgrade", "pip>=25.1"], check=True, cwd=ROOT)
    editable = ["--editable", f"{ROOT}[demo]"]
    for folder in distributions()[1:]:
        editable += ["--editable", str(folder)]
    print("installing modelport, its libraries and its plugins", flush=True)
    chosen = [part for group in groups for part in ("--group", group)]
    subprocess.run([*pip, "install", "-qq", "--constraint", str(constraints), *editable, *chosen], check=True, cwd=ROOT)
    remove_broken(python, pip)


def remove_broken(python: Path, pip: list[str]) -> None:
    """Removes torchvision where it cannot load: built for another torch, it breaks what tries to use it, and nothing needs it."""
    code = "from importlib import util\nif util.find_spec('torchvision'): import torchvision"
    if subprocess.run([str(python), "-c", code], capture_output=True, check=False).returncode:
        print("removing torchvision, which was built for another torch and cannot load", flush=True)
        subprocess.run([*pip, "uninstall", "-qq", "--yes", "torchvision"], check=True, cwd=ROOT)


def main() -> int:
    """Makes the environment, if it is not complete."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv")
    parser.add_argument("--constraints", type=Path, default=ROOT / "constraints.txt")
    parser.add_argument("--group", action="append", default=[], dest="groups", help="a dependency group of pyproject.toml")
    args = parser.parse_args()
    if sys.version_info < OLDEST:
        newer = newer_python()
        if newer is None:
            print(f"modelport needs Python 3.{OLDEST[1]} or newer; this is {sys.version.split()[0]}. "
                  "Install one and run `make PYTHON=/path/to/python3`.", file=sys.stderr)  # fmt: skip
            return 2
        return subprocess.run([newer, *sys.argv], check=False).returncode
    venv, constraints = args.venv.resolve(), args.constraints.resolve()
    wanted: dict[str, object] = {"digest": digest(constraints), "groups": sorted(set(args.groups))}
    if complete(venv, wanted):
        return 0
    began = time.monotonic()
    try:
        install(venv, constraints, sorted(set(args.groups)))
    except subprocess.CalledProcessError as error:
        print(f"the environment could not be made: `{' '.join(error.cmd[:5])} …` ended with {error.returncode}; "
              "its message is above.", file=sys.stderr)  # fmt: skip
        return 1
    (venv / STAMP).write_text(json.dumps(wanted), encoding="utf-8")
    print(f"{venv.name} is ready, {time.monotonic() - began:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
