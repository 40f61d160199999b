"""What watches over an account's orders in the engine: dead man's switches and market-maker protection."""

from collections import Counter
from collections.abc import Callable

from engine.types import EventKind, Kind
from gateway.commands import Command
from gateway.config import GatewayConfig
from gateway.messages import CancelAfter, CancelAfterResult, Code, DoneResult, MmpReset, MmpSet, RequestError
from gateway.order_entry import OrderEntry
from gateway.private import MS
from gateway.projection import Projection
from gateway.rows import Step
from gateway.session import Ask


class Controls:
    """The handlers of `cancel_after`, `mmp.set` and `mmp.reset`."""

    def __init__(
        self, projection: Projection, orders: OrderEntry, config: GatewayConfig, now_ns: Callable[[], int]
    ) -> None:
        self._projection = projection
        self._orders = orders
        self._config = config
        self._asked: dict[int, Counter[int]] = {}  # account -> groups for which protection is on its way
        self._now_ns = now_ns

    def cancel_after(self, ask: Ask, request: CancelAfter) -> None:
        """Set the time at which the account's orders are cancelled, or none."""
        due_ns = self._now_ns() + request.ms * MS if request.ms else 0
        command = Command(Kind.CANCEL_AFTER, ask.account, tag=request.tag or 0, expire_ns=due_ns)
        at = due_ns // 1000 or None
        self._send(ask, command, lambda asked, aseq: asked.ok(CancelAfterResult(at), aseq))

    def mmp_set(self, ask: Ask, request: MmpSet) -> None:
        """Protect a group. Raises RequestError when the account has too many."""
        window_ns, account = request.window_ms * MS, ask.account
        groups = {group for owner, group in self._projection.protections if owner == account}
        asked = self._asked.setdefault(account, Counter())
        if len(groups | asked.keys() | {request.group}) > self._config.max_mmp_groups:
            raise RequestError(Code.TOO_LARGE, f"an account has {self._config.max_mmp_groups} protected groups")
        self._send(
            ask,
            Command(
                Kind.SET_MMP,
                ask.account,
                group=request.group,
                qty=request.lots,
                show_qty=request.fills,
                expire_ns=window_ns,
                deadline_ns=request.freeze_ms * MS,
            ),
        )
        asked[request.group] += 1

    def mmp_reset(self, ask: Ask, request: MmpReset) -> None:
        """Take a group's orders again, or protect it no more."""
        kind = Kind.SET_MMP if request.off else Kind.RESET_MMP
        self._send(ask, Command(kind, ask.account, group=request.group))

    def _answered(self, account: int, group: int) -> None:
        asked = self._asked[account]
        asked[group] -= 1
        if not asked[group]:
            del asked[group]

    def _send(self, ask: Ask, command: Command, answer: Callable[[Ask, int | None], None] | None = None) -> None:
        def done(step: Step, asked: Ask, aseq: int | None) -> None:
            if command.kind == Kind.SET_MMP and command.qty:
                self._answered(command.account, command.group)
            if not step.events or step.events[0].kind == EventKind.REJECTED:
                asked.fail(self._orders.refusal(step))
            elif answer is not None:
                answer(asked, aseq)
            else:
                asked.ok(DoneResult(step.command.seq), aseq)

        self._orders.request(ask, command, done)
