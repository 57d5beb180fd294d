"""Every key of the configuration, with its type, its default and what it means.

`modelport config show --help` prints these docstrings; `load` in this room fills the Structs from TOML, environment and flags.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

__all__ = ["AuthSettings", "LimitSettings", "MemorySettings", "ModelSettings", "ServerSettings", "Settings"]

Positive = Annotated[int, Meta(gt=0)]
Seconds = Annotated[float, Meta(ge=0)]


class ServerSettings(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """The socket and the process.

    Args:
        host: Address to bind. Anything but loopback needs keys, or `insecure`.
        port: Port to bind; 0 picks a free one.
        tls_cert: PEM file of the certificate chain.
        tls_key: PEM file of its key.
        cors_origins: Origins that browsers may call from; `*` for all.
        trusted_proxies: Addresses or networks whose `X-Forwarded-*` headers are believed.
        keep_alive_s: Idle seconds before a kept-alive connection is closed.
        drain_s: Seconds that running requests get to finish at shutdown.
        insecure: Allow a public bind without keys.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535)] = 8000
    tls_cert: str | None = None
    tls_key: str | None = None
    cors_origins: list[str] = []
    trusted_proxies: list[str] = []
    keep_alive_s: Seconds = 75.0
    drain_s: Seconds = 30.0
    insecure: bool = False


class AuthSettings(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """Who may call.

    Args:
        keys_file: Where `modelport keys` keeps hashed keys; by default `keys.json` in the state directory.
        required: Whether a key is needed: `auto` asks for one as soon as any key exists.
    """

    keys_file: str | None = None
    required: Literal["auto", "always", "never"] = "auto"


class LimitSettings(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """Bounds on what is accepted.

    Args:
        body_bytes: Largest JSON body.
        media_bytes: Largest media body or field.
        queue_items: Most requests that wait for one model.
        queue_bytes: Most bytes of requests that wait for one model.
        load_wait_s: Longest wait of a request for a cold model before it is told to come back.
        load_stall_s: Silence after which a load counts as stuck.
        stuck_s: Time on the device without progress after which a worker counts as stuck.
        request_s: Deadline of requests that name none; 0 is none.
        retry_failed_s: Pause after a failed load before it is tried again.
    """

    body_bytes: Positive = 10_000_000
    media_bytes: Positive = 64_000_000
    queue_items: Positive = 512
    queue_bytes: Positive = 256_000_000
    load_wait_s: Seconds = 60.0
    load_stall_s: Seconds = 120.0
    stuck_s: Seconds = 120.0
    request_s: Seconds = 0.0
    retry_failed_s: Seconds = 30.0


class MemorySettings(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """Room for models.

    Args:
        budget_bytes: Most bytes of models per device, by device id or backend name (`cpu`, `cuda:0`); a device
            that is not named may use `fraction` of what was free at start.
        fraction: See above.
    """

    budget_bytes: dict[str, Positive] = {}
    fraction: Annotated[float, Meta(gt=0, le=1)] = 0.9


class ModelSettings(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """One model, `[models.NAME]`.

    Args:
        source: A Hub id, a local folder, or a family `hf_<model_type>`.
        revision: Branch, tag or commit on the Hub.
        aliases: Other names for it.
        task: The task to serve by default, of those its skill offers.
        skill: The skill to use, when several claim it or none should.
        backend: A backend or device (`cpu`, `cuda:1`) to run on, and no other.
        backends: Backends to try, in this order.
        dtype: `auto`, `fast` or a type (`float32`, `bfloat16`, …).
        max_length: Most tokens of a sequence, below the model's own limit.
        max_items: Most sequences in a batch.
        require: Parameters (`logit_bias`, …) that the place it runs on must honour.
        strict: Never fall back to another backend.
        preload: Load it at start.
        pin: Never unload it to make room or for idleness.
        keep_alive_s: Idle seconds before it is unloaded; None is never.
        replicas: How many workers serve it.
        threads: CPU threads of each; 0 divides the cores.
        queue_items: Overrides `limits.queue_items`.
        trust_remote_code: Run the checkpoint's own code; needs `revision`.
        executor: Where replicas run.
        isolation: `process`, or `thread` for a model without torch.
        interpreter: The Python that runs its workers.
        options: For its skill.
        backend_options: For its backend, over `backends.NAME`.
    """

    source: str
    revision: str | None = None
    aliases: list[str] = []
    task: str | None = None
    skill: str | None = None
    backend: str | None = None
    backends: list[str] = []
    dtype: str = "auto"
    max_length: Positive | None = None
    max_items: Positive = 32
    require: list[str] = []
    strict: bool = False
    preload: bool = False
    pin: bool = False
    keep_alive_s: Seconds | None = None
    replicas: Positive = 1
    threads: Annotated[int, Meta(ge=0)] = 0
    queue_items: Positive | None = None
    trust_remote_code: bool = False
    executor: str = "process"
    isolation: Literal["process", "thread"] = "process"
    interpreter: str | None = None
    options: dict[str, Any] = {}
    backend_options: dict[str, Any] = {}


class Settings(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """The whole configuration.

    `apis`, `backends`, `skills` and `executors` are either a list of the only plugins to enable, or tables of options by
    plugin name, in which `enabled = false` disables one. Plugins that are not mentioned in tables are enabled, unless the
    table `"*"` says `enabled = false`.

    Args:
        models: What is served, by name.
        apis: API surfaces, as said above.
        backends: Hardware backends, as said above.
        skills: Skills, as said above.
        executors: Executors that plugins bring, as said above.
        order: Plugin names in the order in which authorizers, resolvers and observers are asked.
        allow_families: Let requests name families (`hf_bert`).
        allow_backend_choice: Let requests name a backend.
        strict: Refuse to start when a plugin fails.
        offline: Never use the network.
        cache_dir: Where downloads, conversions and catalogues are kept.
        state_dir: Where keys and measurements are kept.
        log_level: `debug`, `info`, `warning` or `error`.
        log_format: `auto` is pretty on a terminal and JSON otherwise.
    """

    server: ServerSettings = ServerSettings()
    auth: AuthSettings = AuthSettings()
    limits: LimitSettings = LimitSettings()
    memory: MemorySettings = MemorySettings()
    models: dict[str, ModelSettings] = {}
    apis: list[str] | dict[str, dict[str, Any]] = {}
    backends: list[str] | dict[str, dict[str, Any]] = {}
    skills: list[str] | dict[str, dict[str, Any]] = {}
    executors: list[str] | dict[str, dict[str, Any]] = {}
    order: list[str] = []
    allow_families: bool = False
    allow_backend_choice: bool = False
    strict: bool = False
    offline: bool = False
    cache_dir: str | None = None
    state_dir: str | None = None
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "pretty", "json"] = "auto"

    def enabled(self, kind: str, name: str) -> bool:
        """Whether the plugin `name` of `kind` (`apis`, `backends`, `skills`, `executors`) is enabled."""
        chosen = getattr(self, kind)
        if isinstance(chosen, list):
            return name in chosen
        others = chosen.get("*", {}).get("enabled", True)
        return bool(chosen.get(name, {}).get("enabled", others))

    def options(self, kind: str, name: str) -> dict[str, Any]:
        """The options table of a plugin, without `enabled`."""
        chosen = getattr(self, kind)
        table = chosen.get(name, {}) if isinstance(chosen, dict) else {}
        return {key: value for key, value in table.items() if key != "enabled"}
