"""`modelport keys`: who may call this server."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import rich_click as click

from modelport.contract.errors import ConfigurationError
from modelport.core.cli.options import config_option, json_option, loaded
from modelport.core.serving.keys import KeyRecord, Keyring

__all__ = ["command", "expiry"]

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800, "y": 31536000}


@click.group("keys")
def command() -> None:
    """Create, list and revoke API keys.

    As soon as there is a key, every request needs one, unless `auth.required` is `never`. Keys are kept hashed, in
    `auth.keys_file`; a running server sees changes at once.

    Examples:

    - `modelport keys create alice`
    - `modelport keys list`
    """


@command.command("create")
@click.argument("name", default="default")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    default=("infer",),
    metavar="SCOPE",
    help="`infer` (the default) or `admin`; may be repeated.",
)
@click.option("--model", "models", multiple=True, metavar="NAME", help="Only this model; may be repeated.")
@click.option("--expires", metavar="WHEN", help="When it ends: after a time (`30d`, `12h`) or at a date (`2030-01-31`).")
@config_option
@json_option
def create_command(
    name: str, scopes: tuple[str, ...], models: tuple[str, ...], expires: str | None, config: Path | None, as_json: bool
) -> None:
    """Make a key and print it. It is shown this once and kept nowhere.

    NAME says whose it is; `default` if it is left out.

    Examples:

    - `modelport keys create alice`
    - `modelport keys create ops --scope infer --scope admin`
    - `modelport keys create ci --model all-minilm-l6-v2 --expires 30d`
    """
    from modelport.core.cli.output import note, print_json

    keyring = Keyring.of(loaded(config).settings)
    until = expiry(expires, time.time()) if expires else None
    record, key = keyring.create(name, scopes, models or None, until)
    if as_json:
        print_json({**_shown(record), "key": key})
        return
    click.echo(key)
    note(f"This is the key {name!r} ({record.id}); it is not shown again. Send it as `Authorization: Bearer …`.")


@command.command("list")
@config_option
@json_option
def list_command(config: Path | None, as_json: bool) -> None:
    """List the keys, the oldest first, without their secret parts.

    Examples:

    - `modelport keys list`
    - `modelport keys list --json`
    """
    from modelport.core.cli.output import print_json, print_table

    shown = [_shown(record) for record in Keyring.of(loaded(config).settings).list()]
    if as_json:
        print_json(shown)
        return
    columns = ("id", "name", "state", "scopes", "models", "created", "expires")
    rows = [[key[column] if column != "models" else key["models"] or "all" for column in columns] for key in shown]
    print_table(columns, rows, "There are no keys, so nobody needs one. `modelport keys create NAME` makes the first.")


@command.command("revoke")
@click.argument("id")
@config_option
@json_option
def revoke_command(id: str, config: Path | None, as_json: bool) -> None:
    """Take a key out of force, at once and for good.

    ID is the public part of the key, as `modelport keys list` shows it.

    Examples:

    - `modelport keys revoke 1f2e3d4c5b6a`
    """
    from modelport.core.cli.output import print_json

    record = Keyring.of(loaded(config).settings).revoke(id)
    if as_json:
        print_json(_shown(record))
    else:
        click.echo(f"The key {record.name!r} ({record.id}) is revoked.")


def expiry(text: str, now: float) -> float:
    """The Unix time that `text` means: a time from `now` (`30d`), or the start of a date in UTC.

    Raises:
        ConfigurationError: it is neither.
    """
    span = re.fullmatch(r"(\d+)([smhdwy])", text.strip())
    if span:
        return now + int(span[1]) * _UNITS[span[2]]
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise ConfigurationError(f"--expires {text!r} is no time. Write 30d, 12h, or a date such as 2030-01-31.") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _shown(record: KeyRecord) -> dict[str, Any]:
    return {
        "id": record.id,
        "name": record.name,
        "state": record.state(time.time()),
        "scopes": list(record.scopes),
        "models": None if record.models is None else list(record.models),
        "created": _date(record.created_at),
        "expires": _date(record.expires_at),
        "revoked": _date(record.revoked_at),
    }


def _date(moment: float | None) -> str | None:
    return None if moment is None else datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
