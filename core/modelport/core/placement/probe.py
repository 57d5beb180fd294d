"""`python -m modelport.core.placement.probe BACKEND MODULE`: asks one backend for its devices, and prints them as JSON."""

from __future__ import annotations

import os
import sys

import msgspec

from modelport.contract.device import Probe
from modelport.core.plugins.discover import load_one

__all__ = ["main"]


def main(arguments: list[str]) -> int:
    """Probes. Whatever libraries print goes to stderr: the answer alone is on stdout."""
    answer = os.dup(1)
    os.dup2(2, 1)
    name, module = arguments
    try:
        probe = load_one("backends", name, module).probe()
    except Exception as error:  # an import that fails is an answer too
        probe = Probe(reason=f"its probe raised {type(error).__name__}: {error}")
    if not isinstance(probe, Probe):
        probe = Probe(reason=f"its probe returned a {type(probe).__name__}, not a Probe")
    with os.fdopen(answer, "wb") as out:
        out.write(msgspec.json.encode(probe))
    return 0


if __name__ == "__main__":
    status = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # a driver's own threads must not keep a finished probe alive
