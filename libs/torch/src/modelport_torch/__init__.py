"""What every torch backend of modelport shares: loading, forwards, reductions, and a stepped generation engine.

Importing this package imports neither torch nor transformers; `backend`, `dtype` and `support` can be used in the server.
"""

from __future__ import annotations
