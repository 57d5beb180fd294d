"""The hooks of modelport: the manual of a plugin's author.

A plugin is a distribution with one entry point. This is a whole one, a skill that needs no model::

    # pyproject.toml
    [project.entry-points."modelport.skills"]
    shout = "modelport_skill_shout"

    # src/modelport_skill_shout/__init__.py
    import msgspec
    from modelport import hookimpl
    from modelport.contract import Claim, Session, Skill, Task

    MODELPORT_CONTRACT = "1.0"

    class ShoutRequest(msgspec.Struct):
        text: str

    class ShoutResult(msgspec.Struct):
        text: str

    class ShoutSession(Session):
        def predict(self, requests):
            return [ShoutResult(request.text.upper()) for request in requests]

    class Shout(Skill):
        name = "shout"
        tasks = (Task("shout", ShoutRequest, ShoutResult),)

        def claim(self, card):
            return Claim(("shout",), 100, "asked for by name") if card.source == "skill:shout" else None

        def session(self, context):
            return ShoutSession(context)

    @hookimpl
    def register_skills():
        return [Shout()]

`pip install` it, write `models.loud = { source = "skill:shout" }`, and POST {"text": "hello"} to /v1/infer/loud answers HELLO.

The rules, for all kinds:

* Entry point groups are `modelport.backends`, `modelport.skills`, `modelport.apis` and `modelport.executors`. The entry point's
  name is the name in configuration and the `name` of what the hook returns. It points to a module.
* The module states `MODELPORT_CONTRACT`, the version it was written for: the major must be the server's, the minor at most.
* The module's top level imports nothing heavy (no torch, no transformers, no driver): the server imports it. What is heavy is
  imported inside the methods that run elsewhere; each says where it runs.
* A plugin that is not enabled is never imported. One that cannot be used is listed with its reason, and the server starts
  without it, or refuses to under `--strict`.
* Hooks return values; they have no side effects. They are synchronous. They are called once, at start, on the main thread of
  the server, unless they say otherwise.
* A plugin imports `modelport`, `modelport.contract`, `modelport.tasks`, `modelport.testing`, and never `modelport.core`.

`modelport.testing` has a suite of tests for each kind: subclass it, run pytest, and your plugin is held to what ours are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    import click

    from modelport.contract.api import Api
    from modelport.contract.backend import Backend
    from modelport.contract.executor import Executor
    from modelport.contract.extension import Authorizer, Candidate, Observer, Resolver
    from modelport.contract.skill import Skill

hookspec = pluggy.HookspecMarker("modelport")

# ------------------------------------------------------------------------------------------------- contribute: kinds


@hookspec
def register_backends() -> Sequence[Backend]:  # type: ignore[empty-body]
    """The backends of this plugin. Since 1.0.

    Called: once at start, in the server, in the probe child, and in every worker that uses the backend.
    Return: objects of the `Backend` protocol; making one must import nothing heavy. Usually one, named as the entry point.
    None: nothing to contribute. If it raises: the plugin is listed as failed, with the reason.

    ::

        @hookimpl
        def register_backends():
            return [CpuBackend()]
    """


@hookspec
def register_skills() -> Sequence[Skill]:  # type: ignore[empty-body]
    """The skills of this plugin. Since 1.0.

    Called: once at start, in the server and in every worker of its deployments.
    Return: `Skill` objects, usually one, named as the entry point. Two skills with one name, or two *definitions* of
    one task, are a start-up error that names both; two skills that serve one task are welcome.
    None: nothing to contribute. If it raises: the plugin is listed as failed, with the reason.

    ::

        @hookimpl
        def register_skills():
            return [TextEmbedding()]
    """


@hookspec
def register_apis(options: Mapping[str, Any]) -> Sequence[Api]:  # type: ignore[empty-body]
    """The API surfaces of this plugin. Since 1.0.

    Called: once at start, in the server only.
    Arrives: `options`, the table `apis.<entry point>` of the configuration.
    Return: `Api` objects. Their `routes` are asked for once, later; a route that overlaps another plugin's refuses
    to start and names both.
    None: nothing to contribute. If it raises: the plugin is listed as failed, with the reason.

    ::

        @hookimpl
        def register_apis(options):
            return [OpenAI(options)]
    """


@hookspec
def register_executors() -> Sequence[Executor]:  # type: ignore[empty-body]
    """Ways to run replicas elsewhere than in a child process. Since 1.0.

    Called: once at start, in the server only.
    Return: `Executor` objects; `models.NAME.executor` chooses one by name.
    None: nothing to contribute. If it raises: the plugin is listed as failed, with the reason.

    ::

        @hookimpl
        def register_executors():
            return [RayExecutor()]
    """


# ---------------------------------------------------------------------------------------------- contribute: services


@hookspec
def register_commands() -> Sequence[click.Command]:  # type: ignore[empty-body]
    """Commands for `modelport …`. Since 1.0.

    Called: when the command line starts, before anything else; so keep the module quick to import.
    Return: click commands or groups. A name that exists already is refused, naming both owners.
    None: nothing to contribute. If it raises: the command line works without them and says so.

    ::

        @hookimpl
        def register_commands():
            return [export]
    """


@hookspec
def register_authorizers() -> Sequence[Authorizer]:  # type: ignore[empty-body]
    """Objects that may refuse a request. Since 1.0.

    Called: once at start, in the server. The objects are then called per request, in configuration order then by name, on
    the event loop: `authorize(principal, action, model)` must be quick. Raising anything denies: fail closed.
    Return: `Authorizer` objects. None: nothing to contribute. If the hook raises: the server refuses to start.

    ::

        @hookimpl
        def register_authorizers():
            return [OfficeHours()]
    """


@hookspec
def register_resolvers() -> Sequence[Resolver]:  # type: ignore[empty-body]
    """Objects that turn a source (`s3://…`, `model:tag`) into a local checkpoint. Since 1.0.

    Called: once at start, in the server. The objects are then asked in configuration order then by name, on a thread, whenever a
    source is not known locally; the first non-None answer wins. One that raises is skipped and logged.
    Return: `Resolver` objects. None: nothing to contribute.

    ::

        @hookimpl
        def register_resolvers():
            return [BucketResolver()]
    """


@hookspec
def register_observers() -> Sequence[Observer]:  # type: ignore[empty-body]
    """Objects that are told of finished requests. Since 1.0.

    Called: once at start, in the server. The objects are then called off the request's path, on a thread of their own, from a
    bounded queue whose drops are counted. What they raise is logged and changes nothing.
    Return: `Observer` objects. None: nothing to contribute.

    ::

        @hookimpl
        def register_observers():
            return [UsageLog()]
    """


# ------------------------------------------------------------------------------------------------------------ decide


@hookspec(firstresult=True)
def choose_placement(model: str, candidates: Sequence[Candidate]) -> Sequence[int] | None:
    """Reorder the candidates on which a model may run. Since 1.0.

    Called: before every load, in the server, on the event loop; plugins are asked in configuration order then by name.
    Arrives: the model's name, and candidates that can run it, in the order that policy gave them.
    Return: indices into `candidates`, best first; those left out are not used. The first non-None answer wins.
    None: no opinion. If it raises: it is skipped and logged.

    ::

        @hookimpl
        def choose_placement(model, candidates):
            return [i for i, c in enumerate(candidates) if c.backend != "cpu"] or None
    """


# ----------------------------------------------------------------------------------------------------------- observe


@hookspec
def model_state_changed(model: str, state: str, reason: str) -> None:
    """A model changed its state. Since 1.0.

    Called: at every change, in the server, on the event loop: be quick, or hand it to a thread.
    Arrives: the model's name, its new state (`loading`, `ready`, `draining`, `unloaded`, `failed`), and why.
    Return: nothing. If it raises: it is logged and changes nothing.

    ::

        @hookimpl
        def model_state_changed(model, state, reason):
            print(model, state, reason)
    """
