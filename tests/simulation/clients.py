"""Clients as they are: they name their orders, hang up, come back, send again what was not answered, and read slowly.

A client notes what it was told, and complains at once where the protocol was broken. Whether what it was told is true
is for `checks.py` to find out from the log.
"""

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from gateway.auth import sign
from gateway.messages import Format
from gateway.session import Session
from tests.gateway.node import payloads
from tests.simulation.money import DEPOSIT_UNITS, Money

if TYPE_CHECKING:
    from tests.simulation.world import World

BANKING = 0.15  # of what is done where there is a chain
PRICE_MICROS = 2_650_000
TICK_MICROS = 1_000
UNDECIDED = {"OUTCOME_UNKNOWN"}
NOT_NOW = {"RATE_LIMIT", "OVERLOADED", "SHUTTING_DOWN", *UNDECIDED}


@dataclass
class Sent:
    """An order under a cid: what was asked, how often, and what was answered."""

    body: dict[str, Any]
    sends: int = 0
    refusals: int = 0
    oid: int = 0  # once it was accepted

    @property
    def in_doubt(self) -> bool:
        return not self.oid and self.refusals < self.sends


@dataclass
class Ack:
    """An answer that promises: this happened, and event `aseq` of the account tells it."""

    op: str
    aseq: int
    oid: int
    cid: str


@dataclass
class Memory:
    """What a client knows however often it, or the exchange, is gone."""

    orders: dict[str, Sent] = field(default_factory=dict)
    acks: list[Ack] = field(default_factory=list)
    events: dict[int, dict[str, Any]] = field(default_factory=dict)
    aseq: int = 0


class Wire:
    """A connection. What the exchange sends lies in `buffer` until the client reads it."""

    def __init__(self, client: "Client") -> None:
        self.client = client
        self.buffer: list[bytes] = []
        self.bytes = 0
        self.open = True
        self.reading = False

    def send_frames(self, frames: bytes) -> None:
        world, messages = self.client.world, payloads(frames)
        world.disk.moment("send")
        self.buffer += messages
        self.bytes += sum(map(len, messages))
        if not self.reading:
            self.reading = True
            world.later(self.client.patience_s(), self.read)

    def read(self) -> None:
        """The client takes what has come."""
        self.reading = False
        self.deliver(len(self.buffer))
        session = self.client.session
        if self.open and self.client.wire is self and session is not None and session.conflation is not None:
            session.writable()

    def deliver(self, count: int) -> None:
        taken, self.buffer = self.buffer[:count], self.buffer[count:]
        self.bytes -= sum(map(len, taken))
        for data in taken:
            self.client.hear(self, data)

    def cut(self, count: int) -> None:
        """The connection ends; so much of what was on the way still arrives."""
        self.open = False
        self.deliver(count)
        self.buffer.clear()

    def close(self, _code: int, _reason: str) -> None:
        self.open = False
        self.client.world.later(0, self.client.hung_up, self)

    def buffered(self) -> int:
        return self.bytes


class Client:
    """One key of one account. `act` does something at random; `finish` asks until nothing is in doubt."""

    def __init__(self, world: "World", number: int, key: str, private_key: str) -> None:
        self.world, self.number, self.key, self._private_key = world, number, key, private_key
        self.rng = random.Random(f"{world.seed} client {number}")
        self.format = Format.MSGPACK if number % 2 else Format.JSON
        self.memory = Memory()
        self.wire: Wire | None = None
        self.session: Session | None = None
        self.logged_on = False
        self.listens = False
        self.slow = False
        self._asked: dict[int, dict[str, Any]] = {}
        self._ids = 0
        self.ref = b""  # with which he deposits

    # --- The connection -----------------------------------------------------------------------------------------------

    def patience_s(self) -> float:
        return self.rng.random() * (0.4 if self.slow else 0.002)

    def connect(self) -> None:
        self.slow = self.rng.random() < 0.1
        self._forget()
        self.wire = Wire(self)
        self.session = self.world.connect(self.wire, self.format)

    def hang_up(self) -> None:
        """Go without a word; what is still on the way here is lost."""
        if self.wire is not None:
            self.hung_up(self.wire)

    def hung_up(self, wire: Wire) -> None:
        if wire is self.wire and self.session is not None:
            wire.cut(self.rng.randrange(len(wire.buffer) + 1))
            session = self.session
            self._forget()
            self.world.disconnect(session)

    def lost(self) -> None:
        """The exchange died: what it had sent may still arrive."""
        if self.wire is not None:
            wire = self.wire
            wire.cut(self.rng.choice((len(wire.buffer), self.rng.randrange(len(wire.buffer) + 1))))
        self._forget()

    def _forget(self) -> None:
        self.wire = self.session = None
        self.logged_on = self.listens = False
        self._asked.clear()

    def send(self, op: str, **fields: Any) -> None:
        if self.session is None or self.session.closed:
            return
        self._ids += 1
        request = {"op": op, "id": self._ids, **fields}
        self._asked[self._ids] = request
        for item in fields.get("items", [request]):
            if item["op"] == "order.place":
                self.memory.orders[item["cid"]].sends += 1
        encode = msgspec.msgpack.encode if self.format is Format.MSGPACK else msgspec.json.encode
        self.world.receive(self.session, encode(request))

    # --- Doing --------------------------------------------------------------------------------------------------------

    def act(self) -> None:
        """One thing at random."""
        if self.session is None:
            self.connect()
        elif self.logged_on:
            if self.world.money is not None and self.rng.random() < BANKING:
                self.bank(self.world.money)
            else:
                self.rng.choices(ACTS, WEIGHTS)[0](self)

    def finish(self) -> bool:
        """Ask again what is in doubt; whether nothing is any more."""
        self.slow = False
        doubtful = [cid for cid, sent in self.memory.orders.items() if sent.in_doubt]
        if self.session is None:
            self.connect()
        elif self.logged_on and not self._asked:
            for cid in doubtful[:20]:
                sent = self.memory.orders[cid]
                sent.sends, sent.refusals = 0, 0
                self.send(**sent.body)
        return not doubtful and self.listens and not self._asked

    def _money(self, micros: int) -> str | int:
        return micros if self.format is Format.MSGPACK else f"{micros // 1_000_000}.{micros % 1_000_000:06d}"

    def _price(self) -> str | int:
        return self._money(PRICE_MICROS + self.rng.randint(-12, 12) * TICK_MICROS)

    def _new_order(self) -> dict[str, Any]:
        cid = f"c{self.number}-{len(self.memory.orders)}"
        symbols = self.world.symbols()
        body: dict[str, Any] = {
            "op": "order.place", "sym": self.rng.choice(symbols) if symbols else "GONE-USE-H26010100", "cid": cid,
            "side": self.rng.choice(("buy", "sell")), "qty": self.rng.randint(1, 9), "px": self._price(),
            "cod": self.rng.random() < 0.5,
        }  # fmt: skip
        how = self.rng.random()
        if how < 0.15:
            body["tif"] = self.rng.choice(("ioc", "fok", "gtc"))
        elif how < 0.25:
            body["post"] = "reject"
        self.memory.orders[cid] = Sent(body)
        return body

    def _known(self) -> str:
        return self.rng.choice(list(self.memory.orders)[-30:] or ["none"])

    def place(self) -> None:
        self.send(**self._new_order())

    def place_twice(self) -> None:
        """The same before the first is answered."""
        body = self._new_order()
        self.send(**body)
        self.send(**body)

    def again(self) -> None:
        """One from the past."""
        cid = self._known()
        if cid in self.memory.orders:
            self.send(**self.memory.orders[cid].body)

    def cancel(self) -> None:
        self.send(**self._cancel())

    def _cancel(self) -> dict[str, Any]:
        return {"op": "order.cancel", "cid": self._known()}

    def amend(self) -> None:
        self.send(**self._amend())

    def _amend(self) -> dict[str, Any]:
        body = {"op": "order.amend", "cid": self._known(), "px": self._price(), "qty": self.rng.randint(1, 12)}
        if self.rng.random() < 0.5:
            del body[self.rng.choice(("px", "qty"))]
        return body

    def batch(self) -> None:
        makers = (self._new_order, self._new_order, self._cancel, self._amend)
        self.send("order.batch", items=[self.rng.choice(makers)() for _ in range(self.rng.randint(1, 8))])

    def mass_cancel(self) -> None:
        self.send("cancel.mass")

    def nominate(self) -> None:
        if symbols := self.world.symbols():
            self.send("capacity.nominate", sym=self.rng.choice(symbols), lots=self.rng.randint(1, 200))

    def pay(self) -> None:
        to = self.world.accounts[self.rng.randrange(len(self.world.accounts))]
        self.send("transfer", to=to, amount=self._money(self.rng.randint(1, 10**9)))

    def bank(self, money: Money) -> None:
        """Something on the chain, or with the chain's money."""
        name = self.world.accounts[self.number]
        wallet, amount = money.wallets[name], self.rng.randint(*DEPOSIT_UNITS)
        if not self.ref:
            self.send("deposit.address", home=wallet.text)
        elif self.rng.random() < 0.5 and not wallet.waits:
            wallet.call("deposit", amount, self.ref)
        else:
            claim = self.rng.random() < 0.3
            to = wallet.text if claim else money.recipient()
            self.send("withdraw", coin=1, amount=self._money(amount // self.rng.randint(1, 20)), to=to, claim=claim)

    def look(self) -> None:
        self.send(self.rng.choice(("orders.open", "positions", "balances")))

    def watch(self) -> None:
        self.send("subscribe", channels=[{"name": self.rng.choice(("l1", "l2", "trades", "ticker")), "symbols": "*"}])

    def babble(self) -> None:
        """What no client should send."""
        assert self.session is not None
        self.world.receive(self.session, self.rng.randbytes(20))

    # --- Hearing ------------------------------------------------------------------------------------------------------

    def hear(self, wire: Wire, data: bytes) -> None:
        decode: Any = msgspec.msgpack.decode if self.format is Format.MSGPACK else msgspec.json.decode
        message = decode(data)
        channel = message.get("ch")
        if channel == "hello":
            self._log_on(message)
        elif channel == "private":
            self._follow(message)
        elif channel is None and message["id"] in self._asked and wire is self.wire:
            self._answered(self._asked.pop(message["id"]), message)

    def _log_on(self, hello: dict[str, Any]) -> None:
        ts = self.world.clock() // 1000
        options: dict[str, Any] = {"cod": self.rng.random() < 0.5, "grace_ms": self.rng.choice((0, 500, 5_000))}
        if self.memory.aseq and self.rng.random() < 0.8:
            options["resume_from"] = self.memory.aseq + 1
        signature = sign(self._private_key, hello["challenge"], self.key, ts)
        self.send("session.logon", key=self.key, ts=ts, sig=signature, **options)

    def _follow(self, event: dict[str, Any]) -> None:
        """The private stream: each number once, in order, and the same whenever it is told."""
        aseq, memory = event["aseq"], self.memory
        if event["ev"] == "snapshot":
            self.listens = True
            if aseq < memory.aseq:
                self.world.complain(f"{self.key}: the stream was at {memory.aseq}, a snapshot says {aseq}")
        elif aseq != memory.aseq + 1:
            self.world.complain(f"{self.key}: private event {aseq} after {memory.aseq}")
        elif memory.events.setdefault(aseq, event) != event:
            self.world.complain(f"{self.key}: private event {aseq} was {memory.events[aseq]}, is {event}")
        memory.aseq = aseq

    def _answered(self, request: dict[str, Any], reply: dict[str, Any]) -> None:
        match request["op"]:
            case "session.logon" if reply["ok"]:
                self.logged_on = True
                if reply["r"].get("resumed") is None:
                    self.send("subscribe", channels=[{"name": "private"}])
                else:
                    self.listens = True
            case "session.logon":
                self.world.complain(f"{self.key} could not log on: {reply['err']}")
            case "deposit.address" if reply["ok"]:
                self.ref = bytes.fromhex(reply["r"]["coins"][0]["ref"][2:])
            case "order.batch" if reply["ok"]:
                for item, result in zip(request["items"], reply["r"]["items"], strict=True):
                    self._settle(item, result)
            case "order.batch":
                for item in request["items"]:
                    self._settle(item, reply)
            case _:
                self._settle(request, reply)

    def _settle(self, request: dict[str, Any], reply: dict[str, Any]) -> None:
        """One order's answer."""
        aseq, result = reply.get("aseq"), reply.get("r", {})
        if aseq is not None and not reply.get("dup") and self.listens and aseq <= self.memory.aseq:
            self.world.complain(f"{self.key}: the answer {reply} came after its event")
        if aseq is not None:
            self.memory.acks.append(Ack(request["op"], aseq, result.get("oid", 0), result.get("cid") or ""))
        if request["op"] == "order.place":
            self._placed(self.memory.orders[request["cid"]], reply)

    def _placed(self, sent: Sent, reply: dict[str, Any]) -> None:
        if not reply["ok"]:
            name = reply["err"]["name"]
            if sent.oid and name not in NOT_NOW:
                self.world.complain(f"{self.key}: {sent.body['cid']} is order {sent.oid}, and now {reply['err']}")
            sent.refusals += name not in UNDECIDED
        elif sent.oid not in (0, reply["r"]["oid"]):
            self.world.complain(f"{self.key}: {sent.body['cid']} is order {sent.oid}, and now {reply['r']['oid']}")
        else:
            sent.oid = reply["r"]["oid"]


ACTS = (
    Client.place, Client.batch, Client.cancel, Client.amend, Client.again, Client.place_twice, Client.look,
    Client.nominate, Client.pay, Client.hang_up, Client.watch, Client.mass_cancel, Client.babble,
)  # fmt: skip
WEIGHTS = (40, 10, 12, 12, 10, 5, 3, 4, 3, 2, 2, 1, 1)
