"""Three labels, for tasks that answer with labels."""

from __future__ import annotations

from typing import Any

LABELS = ("red", "green", "blue")
THREE: dict[str, Any] = {
    "id2label": dict(enumerate(LABELS)),
    "label2id": {name: n for n, name in enumerate(LABELS)},
    "num_labels": len(LABELS),
}
"""Settings of a configuration that has them."""
