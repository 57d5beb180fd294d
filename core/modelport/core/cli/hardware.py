"""`modelport hardware`: what the backends find on this machine."""

from __future__ import annotations

import asyncio
from pathlib import Path

import rich_click as click

from modelport.core.cli.options import config_option, json_option

__all__ = ["command"]


@click.command("hardware")
@config_option
@json_option
def command(config: Path | None, as_json: bool) -> None:
    """List the devices that each enabled backend finds, or the reason why it finds none.

    Each backend looks in a process of its own, so that a driver that crashes takes nothing with it.

    Examples:

    - `modelport hardware`
    - `modelport hardware --json`
    """
    from modelport.core.cli.output import bytes_text, print_json, print_table
    from modelport.core.cli.parts import assemble
    from modelport.core.cli.probing import probe

    probes = asyncio.run(probe(assemble(config)))
    if as_json:
        print_json([{"backend": name, **_plain(found)} for name, found in probes.items()])
        return
    rows: list[tuple[object, ...]] = []
    for name, found in probes.items():
        versions = " ".join(f"{package} {version}" for package, version in found.versions.items())
        if not found.devices:
            rows.append((name, "none", "", "", "", found.reason or "no device was found"))
        for device in found.devices:
            memory = f"{bytes_text(device.memory_free_bytes)} of {bytes_text(device.memory_total_bytes)} free"
            rows.append((name, device.id, device.name, memory, device.dtypes, versions))
        if found.devices and found.reason:  # of devices that are there and cannot be used
            rows.append((name, "others", "", "", "", found.reason))
    columns = ("backend", "device", "name", "memory", "dtypes", "notes")
    print_table(columns, rows, "No backend is installed. Try: pip install modelport-backend-cpu")


def _plain(value: object) -> dict[str, object]:
    import msgspec

    return dict(msgspec.to_builtins(value))
