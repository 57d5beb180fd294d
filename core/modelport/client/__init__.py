"""Clients of a running server.

::

    from modelport import Client

    with Client("http://127.0.0.1:8000") as client:
        answer = client.infer("embedder", {"inputs": ["a text", "another"]})
        answer.result.embeddings          # a NumPy array: the result is the task's own Struct
        for delta in client.stream("chat", {"prompt": "Once upon a time"}):
            print(delta.text, end="")

They speak the native API, so the server needs its plugin `native`. Errors are those of `modelport.contract.errors`.
"""

from modelport.client.asynchronous import AsyncClient
from modelport.client.client import Client
from modelport.client.wire import Answer

__all__ = ["Answer", "AsyncClient", "Client"]
