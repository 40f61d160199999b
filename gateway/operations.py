"""Requests about money, capacity and the exchange itself: each one command in the log, or a question to a service.

Who may: `withdraw` moves money out of an account, `provide` nominates and reports, `admin` runs the exchange. What
an administrator does is in the operator's log besides.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.catalogue import Catalogue, CatalogueError
from engine.types import COMMAND, LISTING, MAX_MONEY_MICROS, MAX_QTY, TRANSFER, EventKind, Kind, Reason, Status
from gateway.auth import Key, KeyStore, KeyStoreError
from gateway.decimals import from_text
from gateway.logs import logger
from gateway.messages import (
    AccountRow,
    AccountsResult,
    AdminAccounts,
    AdminBand,
    AdminHalt,
    AdminKey,
    AdminKeys,
    AdminLimits,
    AdminList,
    AdminLock,
    AdminRevoke,
    AdminStatus,
    Code,
    DeliveryReport,
    DepositAddress,
    DepositAddressResult,
    DoneResult,
    Error,
    Format,
    KeyRow,
    KeysResult,
    Nominate,
    ReportResult,
    RequestError,
    Transfer,
    Withdraw,
    bad_field,
)
from gateway.order_entry import WORDS, OrderEntry
from gateway.projection import Projection, owner
from gateway.rows import Step
from gateway.services import Desk, Meters, NoDesk, NoMeters
from gateway.session import Ask

log = logger(__name__)

SCOPE_OF: dict[type, str] = {
    DepositAddress: "read", Transfer: "withdraw", Withdraw: "withdraw", Nominate: "provide", DeliveryReport: "provide",
    AdminAccounts: "admin", AdminLock: "admin", AdminStatus: "admin", AdminHalt: "admin", AdminList: "admin",
    AdminBand: "admin", AdminLimits: "admin",
    AdminKeys: "admin", AdminKey: "admin", AdminRevoke: "admin",
}  # fmt: skip
STATUSES = {
    "continuous": Status.CONTINUOUS, "pre_open": Status.PRE_OPEN, "auction": Status.AUCTION, "halted": Status.HALTED,
    "cancel_only": Status.CANCEL_ONLY,
}  # fmt: skip

NAMES = {int(code): code.name for code in Code}


class Operations:
    """The handlers of these requests. `desk` and `meters` may be set later, before clients come."""

    def __init__(  # noqa: PLR0913, PLR0917
        self,
        projection: Projection,
        orders: OrderEntry,
        keys: KeyStore,
        catalogue: Catalogue,
        now_ns: Callable[[], int],
        logged_on: Callable[[], dict[str, Any]],
    ) -> None:
        self.desk: Desk = NoDesk()
        self.meters: Meters = NoMeters()
        self._projection = projection
        self._orders = orders
        self._keys = keys
        self._catalogue = catalogue
        self._now_ns = now_ns
        self._logged_on = logged_on
        self.handlers: dict[type, Callable[[Ask, Any], None]] = {
            Transfer: self._transfer, Withdraw: self._withdraw, DepositAddress: self._addresses,
            Nominate: self._nominate, DeliveryReport: self._report, AdminAccounts: self._accounts,
            AdminLock: self._lock, AdminStatus: self._status, AdminHalt: self._halt, AdminList: self._list,
            AdminBand: self._band, AdminLimits: self._limits,
            AdminKeys: self._list_keys, AdminKey: self._create_key, AdminRevoke: self._revoke,
        }  # fmt: skip

    # --- Money --------------------------------------------------------------------------------------------------------

    def _transfer(self, ask: Ask, request: Transfer) -> None:
        own = self._projection.accounts[ask.account]
        other = self._projection.account_by_name.get(request.to)
        if other is None or other is own or owner(other.name) != owner(own.name):
            raise bad_field(
                "to", f"another account of {owner(own.name)!r}: its name, or one that begins with it and a colon"
            )
        command = np.zeros(1, TRANSFER)
        command["kind"], command["account"], command["contra_account"] = Kind.TRANSFER, own.number, other.number
        command["amount_micros"] = micros(request.amount, ask.session.wire, "amount")
        self._command(ask, command)

    def _withdraw(self, ask: Ask, request: Withdraw) -> None:
        amount = micros(request.amount, ask.session.wire, "amount")
        self._command(ask, self.desk.withdrawal(ask.account, request.coin, amount, request.to, request.claim))

    def _addresses(self, ask: Ask, request: DepositAddress) -> None:
        if request.home:
            ask.session.require("withdraw")
            self.desk.set_home(ask.account, request.home)
        ask.ok(DepositAddressResult(self.desk.addresses(ask.account)))

    # --- Providers ----------------------------------------------------------------------------------------------------

    def _nominate(self, ask: Ask, request: Nominate) -> None:
        if not 1 <= request.lots <= MAX_QTY:
            raise RequestError(Code.BAD_QTY, f"lots {request.lots}: from 1 to {MAX_QTY}")
        command = np.zeros(1, TRANSFER)
        command["kind"], command["account"], command["lots"] = Kind.NOMINATE, ask.account, request.lots
        command["instrument"] = self._projection.symbol(request.sym).number
        self._command(ask, command)

    def _report(self, ask: Ask, request: DeliveryReport) -> None:
        def answer(found: int | RequestError) -> None:
            if isinstance(found, RequestError):
                ask.fail(found.error)
            else:
                ask.ok(ReportResult(found))

        self.meters.report(ask.account, request.report, answer)

    # --- The exchange -------------------------------------------------------------------------------------------------

    def _accounts(self, ask: Ask, _request: AdminAccounts) -> None:
        here = [session.identity.account for session in self._logged_on().values() if session.identity is not None]
        ask.ok(
            AccountsResult(
                [
                    AccountRow(
                        number, account.name, account.cash, account.held, len(account.orders), here.count(number)
                    )
                    for number, account in self._projection.accounts.items()
                ]
            )
        )

    def _lock(self, ask: Ask, request: AdminLock) -> None:
        account = self._account(request.account)
        self._administer(ask, "lock" if request.on else "unlock", account=request.account)
        self._simple(ask, Kind.LOCK if request.on else Kind.UNLOCK, account=account)

    def _status(self, ask: Ask, request: AdminStatus) -> None:
        instrument = self._projection.symbol(request.sym)
        self._administer(ask, "status", sym=request.sym, status=request.status)
        self._simple(ask, Kind.SET_STATUS, instrument=instrument.number, qty=int(STATUSES[request.status]))

    def _halt(self, ask: Ask, request: AdminHalt) -> None:
        """The kill switch: nothing trades, nothing but cancels is taken."""
        self._administer(ask, "halt" if request.on else "resume")
        self._simple(ask, Kind.HALT_ALL if request.on else Kind.RESUME_ALL)

    def _band(self, ask: Ask, request: AdminBand) -> None:
        instrument = self._projection.symbol(request.sym)
        reference = micros(request.ref_px, ask.session.wire, "ref_px")
        if reference % instrument.tick_micros:
            raise RequestError(Code.BAD_PRICE, "the reference price is not a multiple of the tick")
        command = np.zeros(1, LISTING)
        command["kind"], command["instrument"] = Kind.SET_BAND, instrument.number
        command["reference_price"] = reference // instrument.tick_micros
        for name in ("band_ppm", "collar_ppm", "dynamic_ppm"):
            command[name] = getattr(request, name)
        self._administer(ask, "band", sym=request.sym)
        self._command(ask, command)

    def _limits(self, ask: Ask, request: AdminLimits) -> None:
        account = self._account(request.account)
        self._administer(ask, "limits", account=request.account)
        limits = {"qty": request.qty, "price": request.net, "tag": request.orders}
        self._simple(ask, Kind.SET_LIMITS, account=account, **limits)

    def _account(self, name: str) -> int:
        account = self._projection.account_by_name.get(name)
        if account is None:
            raise RequestError(Code.UNKNOWN_ACCOUNT, f"there is no account {name!r}", field="account")
        return account.number

    def _list(self, ask: Ask, request: AdminList) -> None:
        try:
            contract = self._catalogue.contract(request.sym)
        except CatalogueError as error:
            raise bad_field("sym", str(error)) from error
        if request.sym in self._projection.instrument_by_symbol:
            raise RequestError(Code.INSTRUMENT_EXISTS, f"{request.sym} is listed")
        tick = contract.gpu_class.tick_micros
        reference = contract.gpu_class.seed_price_micros
        if request.ref_px is not None:
            reference = micros(request.ref_px, ask.session.wire, "ref_px")
        if reference % tick:
            raise RequestError(Code.BAD_PRICE, "the reference price is not a multiple of the tick")
        number = next(
            n for n in range(1, len(self._projection.instruments) + 2) if n not in self._projection.instruments
        )
        listing = self._catalogue.listing(contract, number, self._now_ns(), reference // tick)
        self._administer(ask, "list", sym=request.sym)
        self._command(ask, listing)

    # --- Keys ---------------------------------------------------------------------------------------------------------

    def _list_keys(self, ask: Ask, _request: AdminKeys) -> None:
        rows = [_key_row(key, key.id in self._logged_on()) for key in self._stored(self._keys.keys)]
        ask.ok(KeysResult(rows))

    def _create_key(self, ask: Ask, request: AdminKey) -> None:
        """The client makes the pair; only the public half travels."""
        self._administer(ask, "create_key", new_key=request.key, account=request.account, scopes=request.scopes)
        scopes, ips = tuple(request.scopes), tuple(request.ips)
        self._stored(
            lambda: self._keys.create(request.key, request.account, scopes=scopes, ips=ips, public=request.public)
        )
        key = self._keys.get(request.key)
        ask.ok(KeysResult([_key_row(key, False)] if key is not None else []))

    def _revoke(self, ask: Ask, request: AdminRevoke) -> None:
        self._administer(ask, "revoke_key", old_key=request.key)
        self._stored(lambda: self._keys.revoke(request.key))
        ask.ok(KeysResult([]))

    def _stored(self, change: Callable[[], Any]) -> Any:
        try:
            return change()
        except KeyStoreError as error:
            raise bad_field("key", str(error)) from error
        except (ValueError, OSError) as error:
            raise bad_field("public", str(error)) from error

    def _administer(self, ask: Ask, what: str, **fields: Any) -> None:
        identity = ask.session.identity
        log.warning("admin", what=what, by=identity.key.id if identity else "", ip=ask.session.ip, **fields)

    # --- Commands -----------------------------------------------------------------------------------------------------

    def _simple(self, ask: Ask, kind: Kind, **fields: int) -> None:
        command = np.zeros(1, COMMAND)
        command["kind"] = kind
        for name, value in fields.items():
            command[name] = value
        self._command(ask, command)

    def _command(self, ask: Ask, command: NDArray[np.void]) -> None:
        self._orders.record(ask, command, _answer)


def _answer(step: Step, ask: Ask, aseq: int | None) -> None:
    event = step.events[0] if step.events else None
    if event is not None and event.kind == EventKind.REJECTED:
        reason = Reason(event.reason)
        words = WORDS.get(reason, reason.name.lower().replace("_", " "))
        ask.fail(Error(int(reason), NAMES.get(int(reason), reason.name), True, words))
    else:
        ask.ok(DoneResult(step.command.seq), aseq)


def _key_row(key: Key, is_here: bool) -> KeyRow:
    return KeyRow(key.id, key.account, list(key.scopes), list(key.ips), is_here)


def micros(amount: int | str, wire: Format, field: str) -> int:
    """An amount of a request in 10^-6. Raises RequestError."""
    if wire is Format.JSON:
        if not isinstance(amount, str):
            raise bad_field(field, "in JSON an amount is a decimal string")
        try:
            amount = from_text(amount)
        except ValueError as error:
            raise bad_field(field, str(error)) from error
    elif not isinstance(amount, int):
        raise bad_field(field, "in MessagePack an amount is an integer of 10^-6")
    if not 1 <= amount <= MAX_MONEY_MICROS:
        raise RequestError(Code.BAD_AMOUNT, "above zero, and not more than there can be")
    return amount
