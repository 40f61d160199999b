"""Log-on and what follows from it: accounts opened at first use, one session a key, cancel on disconnect with grace.

A key's orders carry its serial number as their `session`. So a reconnect, even after a restart of the server, takes the
orders over simply by being the same key, and what is left when the grace has passed is cancelled by that number.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from engine.catalogue import pack_id
from engine.types import TRANSFER, Kind, Reason
from gateway.auth import Key, KeyStore, KeyStoreError, verify
from gateway.config import GatewayConfig
from gateway.doors import LogonThrottle
from gateway.logs import logger
from gateway.messages import Close, Code, Error, Logon, RequestError, bad_field
from gateway.order_entry import OrderEntry, internal
from gateway.projection import Projection
from gateway.rows import Step
from gateway.session import Ask, Identity, Session

OPEN_ATTEMPTS = 10

log = logger(__name__)


@dataclass(slots=True)
class Opening:
    """An account on its way, and the log-ons that wait for it."""

    name: str
    number: int
    attempts: int = 0
    waiting: list[tuple[Ask, Logon, Key]] = field(default_factory=list)


class Logons:
    """Who is logged on. `welcome` is called with each log-on that succeeded, to answer it."""

    def __init__(
        self,
        config: GatewayConfig,
        keys: KeyStore,
        projection: Projection,
        orders: OrderEntry,
        welcome: Callable[[Ask, Logon, Identity], None],
    ) -> None:
        self.by_key: dict[str, Session] = {}
        self._config = config
        self._keys = keys
        self._throttle = LogonThrottle(config)
        self._keys_seen = 0  # the version of the key store that all sessions were held against
        self._projection = projection
        self._orders = orders
        self._welcome = welcome
        self._opening: dict[str, Opening] = {}
        self._parked: dict[tuple[int, int], int] = {}  # (account, key serial) -> when its orders are cancelled, us
        self._elsewhere: set[tuple[int, int]] = set()  # held by other gateways, where there are any

    # --- Coming -------------------------------------------------------------------------------------------------------

    def logon(self, ask: Ask, request: Logon) -> None:
        """Check a log-on and answer it, now or when its account is open. Raises RequestError."""
        session = ask.session
        if session.identity is not None or session.logging_on:
            raise bad_field("op", "the session is logged on")
        try:
            key = self._proven(session, request)
        except RequestError as refusal:
            name = refusal.error.name
            session.counts.logons[name] += 1
            log.warning("logon_refused", key=request.key, ip=session.ip, why=name)
            raise
        self._throttle.succeeded(session.ip, key.id)
        session.logging_on = True
        account = self._projection.account_by_name.get(key.account)
        if account is not None:
            self._enter(ask, request, key, account.number)
        else:
            self._open(key.account, (ask, request, key))

    def _proven(self, session: Session, request: Logon) -> Key:
        """The key that a log-on proves to have. Raises RequestError."""
        now_us = session.wall_us()
        if abs(request.ts - now_us) > self._config.logon_window_us:
            raise RequestError(
                Code.TIME_OUT_OF_WINDOW, f"ts may be {self._config.logon_window_us} us off at the most", now=now_us
            )
        self._throttle.check(session.ip, request.key, now_us)
        key = self._key(request.key)
        if key is None or not key.allows_ip(session.ip) or not verify(key, session.challenge, request.ts, request.sig):
            self._throttle.failed(session.ip, request.key, now_us)
            raise RequestError(Code.BAD_SIGNATURE, "the key, its address or its signature is not right")
        if request.cod is False and "quote" in key.scopes and self._config.quotes_need_cod:
            raise RequestError(Code.COD_REQUIRED, "a key with the scope `quote` has cancel on disconnect")
        return key

    def _key(self, key_id: str) -> Key | None:
        try:
            return self._keys.get(key_id)
        except (KeyStoreError, OSError) as error:
            raise RequestError(Code.INTERNAL, f"the key store cannot be read: {error}") from error

    def _enter(self, ask: Ask, request: Logon, key: Key, account: int) -> None:
        session = ask.session
        session.logging_on = False
        if session.closed:
            return
        older = self.by_key.get(key.id)
        self.by_key[key.id] = session
        if older is not None:
            older.close(Close.REPLACED, "replaced by a newer session of this key")
        self._parked.pop((account, key.serial), None)
        cod = request.cod if request.cod is not None else "quote" in key.scopes
        session.identity = identity = Identity(key, account, cod, min(request.grace_ms, self._config.max_grace_ms))
        ask.account = account
        session.counts.logons["OK"] += 1
        log.info("logon", key=key.id, account=key.account, ip=session.ip, cod=cod)
        self._welcome(ask, request, identity)

    # --- Accounts -----------------------------------------------------------------------------------------------------

    def _open(self, name: str, waiter: tuple[Ask, Logon, Key]) -> None:
        opening = self._opening.get(name)
        if opening is not None:
            opening.waiting.append(waiter)
            return
        opening = self._opening[name] = Opening(name, 0, waiting=[waiter])
        self._try_open(opening)

    def _try_open(self, opening: Opening) -> None:
        highest = max(self._projection.accounts, default=0)
        opening.number = 0
        opening.number = 1 + max(highest, *(other.number for other in self._opening.values()))
        opening.attempts += 1
        command = np.zeros(1, TRANSFER)
        command["kind"], command["account"] = Kind.OPEN_ACCOUNT, opening.number
        command["external_id"] = pack_id(opening.name)
        self._orders.command(command, lambda step: self._opened(opening, step))

    def _opened(self, opening: Opening, step: Step) -> None:
        account = self._projection.account_by_name.get(opening.name)
        reason = Reason(step.events[0].reason) if step.events else Reason.NONE
        if account is None and self._may_retry(opening, reason):
            self._try_open(opening)
            return
        del self._opening[opening.name]
        for ask, request, key in opening.waiting:
            if account is not None:
                self._enter(ask, request, key, account.number)
            else:
                ask.session.logging_on = False
                ask.fail(_refusal(reason))

    def _may_retry(self, opening: Opening, reason: Reason) -> bool:
        """Whether somebody else took the number in the meantime."""
        taken = reason in (Reason.ACCOUNT_EXISTS, Reason.UNKNOWN_ACCOUNT)
        return taken and opening.attempts < OPEN_ATTEMPTS

    # --- Going --------------------------------------------------------------------------------------------------------

    def left(self, session: Session) -> None:
        """A connection is gone. Its orders wait for the grace, if it asked for cancel on disconnect."""
        identity = session.identity
        if identity is None or self.by_key.get(identity.key.id) is not session:
            return
        del self.by_key[identity.key.id]
        if identity.cod:
            due_us = session.wall_us() + identity.grace_ms * 1000
            self._parked[identity.account, identity.key.serial] = due_us

    def logout(self, session: Session) -> None:
        """A session ends by its own wish: nothing waits."""
        if session.identity is not None and self.by_key.get(session.identity.key.id) is session:
            del self.by_key[session.identity.key.id]

    def park_all(self, now_us: int) -> None:
        """After a restart: the orders of sessions that it cut off wait for them a while."""
        held = {(s.identity.account, s.identity.key.serial) for s in self.by_key.values() if s.identity is not None}
        for session in self._projection.open_sessions():
            if session not in held and session not in self._elsewhere:
                self._parked.setdefault(session, now_us + self._config.restart_grace_ms * 1000)

    def follow(self, elsewhere: set[tuple[int, int]], now_us: int) -> None:
        """Other gateways hold these sessions (account, key serial) now; those that nobody holds are parked."""
        self._elsewhere = elsewhere
        for session in self._parked.keys() & elsewhere:
            del self._parked[session]
        self.park_all(now_us)

    def cancel_due(self, now_us: int) -> None:
        """Cancel the orders of sessions that did not come back."""
        for (account, serial), due_us in list(self._parked.items()):
            if now_us >= due_us:
                del self._parked[account, serial]
                self._orders.cancel_session(account, serial)

    def close_revoked(self) -> None:
        """Close the sessions of keys that are revoked. A key store that cannot be read revokes nobody."""
        try:
            self._keys.reload()
        except (KeyStoreError, OSError):
            return
        if self._keys.version == self._keys_seen:
            return
        self._keys_seen = self._keys.version
        for key_id, session in list(self.by_key.items()):
            if session.identity is not None and self._keys.get(key_id) != session.identity.key:
                session.close(Close.BAD_LOGON, "the key was revoked or changed")


def _refusal(reason: Reason) -> Error:
    if reason == Reason.OVERLOADED:
        return RequestError(Code.OVERLOADED, "the exchange has no room for another account").error
    return internal(f"the account could not be opened: {reason.name}")
