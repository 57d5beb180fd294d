"""Every key of the configuration, with its type, its default and what it means.

`modelport config show --keys` prints these docstrings; `load` in this room fills the Structs from TOML, environment and flags.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

__all__ = [
    "AuthSettings",
    "LearningSettings",
    "LimitSettings",
    "MediaSettings",
    "MemorySettings",
    "ModelSettings",
    "ServerSettings",
    "Settings",
]

Positive = Annotated[int, Meta(gt=0)]
Seconds = Annotated[float, Meta(ge=0)]


class ServerSettings(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """The socket and the process.

    Args:
        host: Address to bind. Anything but loopback needs keys, or `insecure`.
        port: Port to bind; 0 picks a free one.
        tls_cert: PEM file of the certificate chain; without it the server speaks plain HTTP.
        tls_key: PEM file of the certificate's private key; needed with `tls_cert`, and not without it.
        cors_origins: Origins that browsers may call from; `*` for all.
        trusted_proxies: Addresses or networks whose `X-Forwarded-*` headers are believed.
        keep_alive_s: Idle seconds before a kept-alive connection is closed, and the longest that a request's head, or the next
            piece of its body, may take to arrive.
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
        load_stall_s: Silence after which a load counts as stuck; 0 is never.
        stuck_s: Time without progress, though there is work, after which a worker counts as stuck and is replaced; 0 is never.
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


class MediaSettings(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """Media that requests name by address, fetched by the server. Of one request they may be 256, and have
    `limits.media_bytes` together.

    Args:
        allowed_hosts: Hosts that media are fetched from: `pictures.example.com`, `*.example.com` for all below it, with `:8080`
            for another port than 80 and 443. None by default: addresses are refused.
        allowed_networks: Networks that are not public and may be fetched from all the same (`10.1.0.0/16`, `192.0.2.7`).
        timeout_s: The longest that one fetch may take.
        at_once: Most fetches at once.
    """

    allowed_hosts: list[str] = []
    allowed_networks: list[str] = []
    timeout_s: Annotated[float, Meta(gt=0)] = 20.0
    at_once: Positive = 16


class MemorySettings(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """Room for models.

    Args:
        budget_bytes: Most bytes of models per device, by device id or backend name (`cpu`, `cuda:0`); a device
            that is not named has a budget of `memory.fraction`.
        fraction: Part of the memory that was free at start which models may fill, on devices without a budget of their own.
            Also the part of the host's memory over which a worker counts as leaking and is started again.
    """

    budget_bytes: dict[str, Positive] = {}
    fraction: Annotated[float, Meta(gt=0, le=1)] = 0.9


class LearningSettings(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """What is learned from measurements. They are kept in `learned.json` in the state directory.

    Args:
        explore: The largest share of decisions that may try what is not the best known: which model answers a request for the
            model `auto`, and where a model is loaded if `places` is set. 0 always takes the best known.
        places: Let loads try places that are not the best known, among those that the configuration ranks equal. Without it,
            places that were measured trade places by their latency.
    """

    explore: Annotated[float, Meta(ge=0, le=1)] = 0.1
    places: bool = False


class ModelSettings(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """One model, `[models.NAME]`.

    Args:
        source: A Hub id, a local folder, or a family `hf_<model_type>`.
        revision: Branch, tag or commit on the Hub; without it, the one in `source`, else `main`.
        aliases: Other names for it.
        task: The task to serve by default, of those its skill offers; without it, the skill's first.
        skill: The skill that serves it; without it, the one that claims the checkpoint most strongly.
        backend: A backend or device (`cpu`, `cuda:1`) to run on, and no other; without it, the best of all that can.
        backends: Backends to try, in this order.
        dtype: `auto`, `fast` or a type (`float32`, `bfloat16`, …).
        max_length: Most tokens of a sequence; without it, and at most, the model's own limit.
        max_items: Most sequences in a batch.
        require: Parameters (`logit_bias`, …) that the place it runs on must honour.
        strict: Never fall back to another backend.
        preload: Load it at start.
        pin: Never unload it to make room or for idleness.
        keep_alive_s: Idle seconds before it is unloaded; without it, only when its memory is needed.
        replicas: How many workers serve it.
        threads: CPU threads of each worker; 0 divides the cores among them.
        queue_items: Most requests that wait for it; without it, `limits.queue_items`.
        trust_remote_code: Run the checkpoint's own code; needs `revision`.
        executor: What keeps its workers: `process`, or an executor that a plugin brings.
        isolation: `process`, or `thread` to run inside the server, for a model without torch.
        interpreter: Path of the Python that runs its workers; by default the server's own.
        options: Options of its skill, over those in `skills.NAME`.
        backend_options: Options of its backend, over those in `backends.NAME`.
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

    In the tables of plugins `enabled = false` disables one. Plugins that are not mentioned there are enabled, unless the table
    `"*"` says `enabled = false`.

    Args:
        models: What is served, by name.
        apis: APIs: a list of the only ones to enable, or options for each; empty enables all that are installed.
        backends: Hardware backends: a list of the only ones to enable, or options for each; empty enables all that are installed.
        skills: Skills: a list of the only ones to enable, or options for each; empty enables all that are installed.
        executors: Executors: a list of the only ones to enable, or options for each; empty enables all that are installed.
        order: Plugin names in the order in which authorizers, resolvers and observers are asked.
        allow_families: Let requests name families (`hf_bert`).
        allow_backend_choice: Let requests name a backend.
        strict: Refuse to start when a plugin fails.
        spare: How many spare workers to keep, which have imported the libraries before a further model is asked for; by default 1
            while there are models that could still be loaded. 0 keeps none.
        offline: Never use the network.
        cache_dir: Where demo models, the list of families and notes on downloads are kept; by default `modelport` in
            `$XDG_CACHE_HOME`, else in `~/.cache`.
        state_dir: Where API keys are kept; by default `modelport` in `$XDG_STATE_HOME`, else in `~/.local/state`.
        log_level: The least serious lines that are logged.
        log_format: `auto` is pretty on a terminal and JSON otherwise.
    """

    server: ServerSettings = ServerSettings()
    auth: AuthSettings = AuthSettings()
    limits: LimitSettings = LimitSettings()
    media: MediaSettings = MediaSettings()
    memory: MemorySettings = MemorySettings()
    learning: LearningSettings = LearningSettings()
    models: dict[str, ModelSettings] = {}
    apis: list[str] | dict[str, dict[str, Any]] = {}
    backends: list[str] | dict[str, dict[str, Any]] = {}
    skills: list[str] | dict[str, dict[str, Any]] = {}
    executors: list[str] | dict[str, dict[str, Any]] = {}
    order: list[str] = []
    allow_families: bool = False
    allow_backend_choice: bool = False
    strict: bool = False
    spare: Annotated[int, Meta(ge=0)] | None = None
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
