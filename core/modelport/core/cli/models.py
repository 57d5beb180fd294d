"""`modelport models`: what is configured, what families there are, what a checkpoint is."""

from __future__ import annotations

import asyncio
from pathlib import Path

import rich_click as click

from modelport.core.cli.options import config_option, json_option

__all__ = ["command"]


@click.group("models")
def command() -> None:
    """List the configured models and the families, and look into a checkpoint.

    Examples:

    - `modelport models list`
    - `modelport models families bert`
    - `modelport models inspect org/model`
    """


@command.command("list")
@config_option
@json_option
def list_command(config: Path | None, as_json: bool) -> None:
    """List the models that a server with this configuration offers. Nothing is fetched or loaded.

    Examples:

    - `modelport models list`
    - `modelport models list --config modelport.toml --json`
    """
    from modelport.core.cli.output import print_json, print_table
    from modelport.core.cli.parts import assemble

    models = assemble(config).catalog.models
    if as_json:
        print_json([{"name": name, **_table(model)} for name, model in models.items()])
        return
    print_table(
        ("name", "source", "aliases", "task", "backend", "dtype", "preload"),
        [(name, m.source, m.aliases, m.task, m.backend, m.dtype, m.preload) for name, m in models.items()],
        "No model is configured. Try `modelport serve --demo`, or `modelport serve org/model`.",
    )


@command.command("families")
@click.argument("text", required=False)
@click.option("--task", metavar="TASK", help="Only families that an installed skill can serve for this task.")
@click.option("--served", is_flag=True, help="Only families that an installed skill can serve.")
@click.option("--verified", metavar="BACKEND", help="Only families of which a task is verified on this backend.")
@config_option
@json_option
def families_command(
    text: str | None, task: str | None, served: bool, verified: str | None, config: Path | None, as_json: bool
) -> None:
    """List the families of the installed transformers, their tasks, and the skills that serve them.

    A family is `hf_<model_type>`. With TEXT, only those whose name contains it. A family is verified on a backend where a tiny
    model of it was served and agreed with transformers; --json has the finding of each task.

    Examples:

    - `modelport models families bert`
    - `modelport models families --task text-generation --json`
    - `modelport models families --verified cpu`
    """
    from modelport.core.cli.output import print_json, print_table
    from modelport.core.cli.parts import assemble

    parts = assemble(config)
    families = asyncio.run(parts.catalog.load_families()).all(parts.registry.skills)
    shown = [
        family
        for family in families
        if (not text or text in family.name)
        and (not task or task in family.tasks)
        and (not served or family.tasks)
        and (not verified or verified in family.verified)
    ]
    if as_json:
        print_json(shown)
        return
    print_table(
        ("family", "tasks and their skills", "verified on", "default checkpoint"),
        [
            (
                family.name,
                [f"{task} ({skill})" for task, skill in family.tasks.items()],
                family.verified,
                family.default_checkpoint,
            )
            for family in shown
        ],
        f"None of the {len(families)} families fits.",
    )


@command.command("inspect")
@click.argument("model")
@config_option
@json_option
def inspect_command(model: str, config: Path | None, as_json: bool) -> None:
    """Look into a checkpoint: what it is, and what each installed skill would do with it.

    It is fetched if need be, and not loaded. MODEL is a configured name, or a source as `serve` takes them.

    Examples:

    - `modelport models inspect org/model`
    - `modelport models inspect ./my-model --json`
    """
    from modelport.core.cli.output import bytes_text, print_json, print_table
    from modelport.core.cli.parts import assemble
    from modelport.core.cli.progress import ProgressView

    parts = assemble(config, model)
    with ProgressView() as view:
        card = asyncio.run(parts.catalog.card(parts.name, view.task(parts.name)))
    claims = parts.catalog.claims(card)
    if as_json:
        print_json({"card": card, "claims": claims})
        return
    facts = {
        "name": card.name,
        "source": card.source,
        "path": card.path,
        "revision": card.revision,
        "model type": card.model_type,
        "architectures": card.architectures,
        "tasks": card.tasks,
        "parameters": f"{card.parameters:,}" if card.parameters else "",
        "weights": bytes_text(card.weight_bytes) if card.weight_bytes else "",
        "dtype": card.dtype,
        "context": card.context_length,
        "quantization": card.quantization,
        "chat template": card.has_chat_template,
        "license": card.license,
    }
    print_table(("fact", "value"), [row for row in facts.items() if row[1] not in ("", None, ())], "")
    click.echo()
    print_table(
        ("skill", "says", "tasks", "score", "reason"),
        [(claim.skill, claim.state, claim.tasks, claim.score or "", claim.reason) for claim in claims],
        "No skill is installed.",
    )


def _table(model: object) -> dict[str, object]:
    import msgspec

    return dict(msgspec.to_builtins(model))
