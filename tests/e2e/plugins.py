"""Small plugins, written into a folder as if pip had installed them there."""

from __future__ import annotations

from pathlib import Path


def install(folder: Path, kind: str, name: str, source: str) -> dict[str, str]:
    """Writes the module and the metadata of a plugin; returns the environment that puts it on the path."""
    folder.mkdir(exist_ok=True)
    module = f"e2e_{kind.removesuffix('s')}_{name}".replace("-", "_")
    (folder / f"{module}.py").write_text(source)
    info = folder / f"{module}-0.1.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: e2e-{name}\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text(f"[modelport.{kind}]\n{name} = {module}\n")
    return {"PYTHONPATH": str(folder)}


REEXPORT = """
from modelport import hookimpl
from modelport.testing.{module} import {name}

MODELPORT_CONTRACT = "1.0"

@hookimpl
def register_{kind}():
    return [{name}()]
"""


def backend(module: str, name: str) -> str:
    """The source of a plugin that registers a backend of `modelport.testing`."""
    return REEXPORT.format(module=module, name=name, kind="backends")


def skill(module: str, name: str) -> str:
    """The source of a plugin that registers a skill of `modelport.testing`."""
    return REEXPORT.format(module=module, name=name, kind="skills")


API = """
from litestar import {imports}
from litestar.types import Receive, Scope, Send
from modelport import hookimpl
from modelport.contract import Api

MODELPORT_CONTRACT = "1.0"

{handlers}

class Surface(Api):
    name = "{name}"

    def routes(self):
        return [{routes}]

@hookimpl
def register_apis(options):
    return [Surface(options)]
"""


def api(name: str, handlers: str, routes: str, imports: str = "get, post, asgi") -> str:
    """The source of an API plugin with these handlers."""
    return API.format(name=name, handlers=handlers, routes=routes, imports=imports)
