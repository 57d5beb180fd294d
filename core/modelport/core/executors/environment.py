"""The environment of a worker: the server's, without what is none of its business."""

from __future__ import annotations

import re
from collections.abc import Mapping

__all__ = ["worker_environment"]

_SECRET = re.compile(r"(^|_)(TOKEN|KEY|KEY_ID|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?)$|SECRET|^MODELPORT_", re.IGNORECASE)

_DEFAULTS = {
    # Spinning OpenMP barriers cost milliseconds per operation as soon as any other process wants a core.
    "OMP_WAIT_POLICY": "PASSIVE",
    # What a worker printed before it died is the cause of its death: it must not lie in a buffer.
    "PYTHONUNBUFFERED": "1",
    "PYTHONFAULTHANDLER": "1",
}


def worker_environment(server: Mapping[str, str], wanted: Mapping[str, str]) -> dict[str, str]:
    """The variables of a worker.

    Tokens, keys and passwords, and the server's own `MODELPORT_…`, are left out; `wanted`, which comes from the backend and
    the configuration, is set last, so what a model does need can be given to it by name.
    """
    inherited = {name: value for name, value in server.items() if not _SECRET.search(name)}
    return {**_DEFAULTS, **inherited, **wanted}
