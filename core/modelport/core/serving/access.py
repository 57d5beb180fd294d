"""Who may do what: the one place where principals, scopes, allow-lists and authorizers are checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import structlog

from modelport.contract.errors import Forbidden, ModelportError, Unauthenticated
from modelport.contract.extension import Authorizer
from modelport.core.serving.keys import Keyring
from modelport.core.serving.principal import Caller, anonymous

__all__ = ["Access"]

_log = structlog.get_logger("modelport.serving")


class Access:
    """Checks callers.

    Args:
        keyring: The keys.
        authorizers: Plugins' objects, in the order in which they are asked.
    """

    def __init__(self, keyring: Keyring, authorizers: Sequence[Authorizer]) -> None:
        self._keyring = keyring
        self._authorizers = list(authorizers)
        self._anonymous = anonymous()

    @property
    def keys_in_force(self) -> bool:
        """Whether a request needs a key."""
        return self._keyring.in_force

    def authenticate(self, credential: str | None) -> Caller:
        """Who bears `credential`. Without keys in force everybody is anonymous, whatever they send.

        Raises:
            Unauthenticated: the key is missing, unknown, revoked or expired.
        """
        return self._keyring.verify(credential) if self._keyring.in_force else self._anonymous

    def of_scope(self, scope: Mapping[str, Any]) -> Caller:
        """The caller that the middleware put into an ASGI scope.

        Raises:
            Unauthenticated: if there is none.
        """
        return self.caller(scope.get("modelport.principal"))

    def caller(self, principal: object) -> Caller:
        """`principal`, if it is one that the core made and that is still good.

        Raises:
            Unauthenticated: it is not.
        """
        if type(principal) is not Caller:
            raise Unauthenticated(
                "The request did not pass this server's authentication. Use host.authenticate, or the middleware's."
            )
        principal.check_expiry()
        if principal.key_id and self._keyring.is_revoked(principal.key_id):
            raise Unauthenticated(f"The key {principal.name!r} has been revoked. Ask for a new one.")
        return principal

    def need(self, principal: object, scope: Literal["infer", "admin"]) -> Caller:
        """The caller, who has `scope`. `admin` includes reading, not inference.

        Raises:
            Unauthenticated, Forbidden: no good principal, or one without the scope.
        """
        caller = self.caller(principal)
        if scope not in caller.scopes:
            raise Forbidden(
                f"The key {caller.name!r} lacks the scope {scope!r} that this needs. "
                f"Make one that has it: modelport keys create --scope {scope}"
            )
        return caller

    def may_use(self, caller: Caller, model: str, aliases: Sequence[str] = ()) -> bool:
        """Whether the allow-list lets the caller know of a model, by its name or one of its aliases."""
        return caller.models is None or model in caller.models or not caller.models.isdisjoint(aliases)

    def allow(self, caller: Caller, model: str, aliases: Sequence[str] = ()) -> None:
        """Returns if the allow-list lets the caller know of a model.

        Raises:
            Forbidden: it does not.
        """
        if not self.may_use(caller, model, aliases):
            raise Forbidden(f"The key {caller.name!r} may not use the model {model!r}.")

    def check(self, caller: Caller, action: Literal["infer", "load", "unload"], model: str, aliases: Sequence[str] = ()) -> None:
        """Returns if the caller may do `action` with `model`.

        Raises:
            Forbidden: the allow-list or an authorizer says no; an authorizer that fails says no too.
        """
        self.allow(caller, model, aliases)
        for authorizer in self._authorizers:
            try:
                authorizer.authorize(caller, action, model)
            except Forbidden:
                raise
            except ModelportError as error:
                raise Forbidden(error.message) from error
            except Exception as error:
                name = getattr(authorizer, "name", type(authorizer).__name__)
                _log.exception("authorizer failed", authorizer=name)
                raise Forbidden(
                    f"The authorizer {name!r} failed, so the request is refused. The server's log has the cause."
                ) from error
