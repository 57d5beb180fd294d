"""`modelport serve`: the server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import rich_click as click

from modelport.core.cli.model_options import model_flags, model_options
from modelport.core.cli.options import config_option, loaded
from modelport.core.config.named import models_of

__all__ = ["command"]


@click.command("serve")
@click.argument("sources", nargs=-1, metavar="[NAME=]SOURCE[@REV]…")
@config_option
@click.option("--demo", is_flag=True, help="Serve the demo models too; fetch them if they are not here.")
@click.option("--host", metavar="ADDRESS", help="Address to bind; 127.0.0.1 by default. Others need keys, or `--insecure`.")
@click.option("--port", "-p", type=int, metavar="PORT", help="Port to bind; 8000 by default, 0 for any free one.")
@click.option("--alias", multiple=True, metavar="NAME", help="Another name for the model; may be repeated.")
@model_options
@click.option("--task", metavar="TASK", help="The task to serve by default.")
@click.option("--api", "apis", multiple=True, metavar="NAME", help="Enable only this API; may be repeated.")
@click.option("--preload", is_flag=True, help="Load at start instead of at the first request.")
@click.option("--offline", is_flag=True, default=None, help="Never use the network.")
@click.option(
    "--cors-origin",
    "cors_origins",
    multiple=True,
    metavar="ORIGIN",
    help="Let browsers call from there; `*` for all; may be repeated.",
)
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), help="How much to log.")
@click.option("--tls-cert", metavar="FILE", help="PEM file of the certificate chain.")
@click.option("--tls-key", metavar="FILE", help="PEM file of the certificate's private key.")
@click.option("--insecure", is_flag=True, default=None, help="Allow a public address without keys.")
@click.option("--strict", is_flag=True, default=None, help="Refuse to start when a plugin fails.")
@click.option("--json", "as_json", is_flag=True, help="Say where it listens as one JSON object on one line.")
def command(
    sources: tuple[str, ...],
    config: Path | None,
    demo: bool,
    host: str | None,
    port: int | None,
    apis: tuple[str, ...],
    offline: bool | None,
    cors_origins: tuple[str, ...],
    log_level: str | None,
    tls_cert: str | None,
    tls_key: str | None,
    insecure: bool | None,
    strict: bool | None,
    as_json: bool,
    **model: Any,
) -> None:
    """Serve models over HTTP.

    A SOURCE is a Hub id (`org/model`), a local folder, a family (`hf_bert`) or a skill that needs no checkpoint
    (`skill:shout`). Flags about models apply to the sources on the command line; the configuration file adds others.

    Examples:

    - `modelport serve --demo`
    - `modelport serve org/model@main --dtype float32 --alias gpt`
    - `modelport serve chat=./smollm embed=./minilm --port 0 --json`
    - `modelport serve --config modelport.toml --host 0.0.0.0`
    """
    server = {
        "host": host,
        "port": port,
        "cors_origins": list(cors_origins) or None,
        "tls_cert": tls_cert,
        "tls_key": tls_key,
        "insecure": insecure,
    }
    flags: dict[str, Any] = {
        "server": server,
        "models": models_of(sources, model_flags(**model)),
        "apis": list(apis) or None,
        "offline": offline,
        "log_level": log_level,
        "strict": strict,
    }
    demo_models: tuple[str, ...] = ()
    if demo:
        from modelport.core.cli.demo import demo_root, fetch

        folders = fetch(demo_root())
        demo_models = tuple(name for name in folders if name not in flags["models"])
        flags["models"] |= {name: {"source": str(folders[name])} for name in demo_models}
    from modelport.core.cli.listening import Announcement, run_server, with_families_if_empty
    from modelport.core.cli.output import note

    found = loaded(config, flags)
    settings, advice = with_families_if_empty(found)
    if advice:
        note(advice)
    run_server(settings, Announcement(as_json=as_json, demo_models=demo_models))
