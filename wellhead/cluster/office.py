"""What gateways ask of the books of their shard, and what the books tell them, over the shard's NATS servers.

A single node's gateway reads the books on the same disk. Here the books are elsewhere, in files or in PostgreSQL, so
their process answers for them: statements and proofs from the very files, meters' reports, and the *news*, which is all
that the channels `batches`, `deliveries` and `index` begin with. The news is told whole each time it changes, so whoever
missed one has it with the next; who has just come asks for it. A gateway shows it once it has read as far as the books.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.errors import NoRespondersError

from engine.catalogue import NS, Catalogue
from engine.jetstream import Shard
from gateway.indices import IndexValue
from gateway.messages import (
    BatchState,
    Code,
    DeliveryState,
    Error,
    Proof,
    ProofResult,
    RequestError,
    Statement,
    StatementPart,
    Statements,
    StatementsResult,
)
from gateway.services import Answer as MeterAnswer
from gateway.settled import Answer, Question
from settlement.service import Settlement
from wellhead.index_feed import REMEMBERED_S, IndexFeed, Reference, shown
from wellhead.papers import RECENT_BATCHES, News, PaperRoom
from wellhead.services import MetersOffice

log = logging.getLogger(__name__)

ANSWER_S = 10.0
"""How long a gateway waits for the books."""
LOOK_S = 5.0
"""How often it asks whether there is news, beside being told."""


class Paper(Struct, tag=True):
    """A question about an account's papers."""

    account: int
    question: Question


class Report(Struct, tag=True):
    """A meter's report of an account."""

    account: int
    data: bytes


class Look(Struct, tag=True):
    """Whether there is other news than this."""

    edition: str


class Told(Struct):
    """All that the books say to everybody, as of a command."""

    edition: str
    seq: int
    batches: list[BatchState]
    deliveries: list[DeliveryState]
    indices: list[IndexValue]
    references: list[Reference] = []  # what the replicas' calendars refer to


class Reply(Struct, omit_defaults=True):
    """What came of a question: the one or the other."""

    found: msgspec.Raw = msgspec.Raw()
    error: Error | None = None


Asked = Paper | Report | Look
RESULTS: dict[type, type] = {Statements: StatementsResult, Statement: StatementPart, Proof: ProofResult}
_PACK = msgspec.msgpack.Encoder()
_ASKED: msgspec.msgpack.Decoder[Asked] = msgspec.msgpack.Decoder(Asked)
_REPLY = msgspec.msgpack.Decoder(Reply)
_TOLD = msgspec.msgpack.Decoder(Told)


def refusal(error: Error) -> RequestError:
    """The error as the books gave it."""
    made = RequestError(Code(error.code), error.msg)
    made.error = error
    return made


class Office:
    """The books' side. `read_news` runs on the books' thread, everything else on the loop's."""

    def __init__(
        self, settlement: Settlement, directory: Path, catalogue: Catalogue, life: str, now_ns: Callable[[], int]
    ) -> None:
        """`directory` is that of the books; `life` tells this process from earlier ones."""
        self._settlement, self._life, self._now_ns = settlement, life, now_ns
        self._news, self._feed = News(settlement.books, catalogue), IndexFeed(settlement.books.indices)
        self._batches: deque[BatchState] = deque(maxlen=RECENT_BATCHES)
        self._told = Told("", 0, [], [], [])
        self._papers = PaperRoom(directory, catalogue)
        self._meters = MetersOffice(settlement, now_ns)
        self._sending: set[asyncio.Task[None]] = set()

    async def open(self, client: Client, shard: Shard) -> None:
        """Answer from now on."""
        self._client, self._shard = client, shard
        await client.subscribe(shard.books_subject, cb=self._answer)

    async def close(self) -> None:
        """Finish what is under way."""
        self._papers.close()
        await self._meters.close()

    def read_news(self) -> Told:
        """As the books are now."""
        fresh, deliveries = self._news.read()
        self._batches += fresh
        seq = self._settlement.applied_seq
        references = self._feed.references(self._now_ns() // NS - REMEMBERED_S)
        indices = shown(self._feed.standing())
        return Told(f"{self._life}.{seq}", seq, list(self._batches), deliveries, indices, references)

    async def tell(self, told: Told) -> None:
        """Tell all gateways."""
        self._told = told
        try:
            await self._client.publish(self._shard.news_subject, _PACK.encode(told))
        except (NatsError, OSError) as error:
            log.info("the news could not be told, and is asked for: %r", error)

    async def _answer(self, message: Msg) -> None:
        def answer(found: Any | RequestError) -> None:
            is_refused = isinstance(found, RequestError)
            reply = Reply(error=found.error) if is_refused else Reply(msgspec.Raw(_PACK.encode(found)))
            task = asyncio.get_running_loop().create_task(message.respond(_PACK.encode(reply)))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)

        match _ASKED.decode(message.data):
            case Paper(account=account, question=question):
                self._papers.ask(account, question, answer)
            case Report(account=account, data=data):
                self._meters.report(account, data, answer)
            case Look(edition=edition):
                answer(None if edition == self._told.edition else self._told)


class Books:
    """A gateway's side: the `papers` and the `meters` of a Gateway, and the news for its channels. A replica hears the news."""

    def __init__(self, shard: Shard, show: Callable[[Told], None]) -> None:
        """`show` takes the news, on the loop's thread; it may be told again what it knows."""
        self._shard, self._show = shard, show
        self._edition = ""
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self, client: Client) -> None:
        """Listen for the news, and be ready to ask."""
        self._client = client
        await client.subscribe(self._shard.news_subject, cb=self._hear)

    async def look(self) -> None:
        """Ask for the news now and then, for ever."""
        while True:
            try:
                found = await self._request(Look(self._edition))
                if (told := msgspec.msgpack.decode(found, type=Told | None)) is not None:
                    self._take(told)
            except RequestError as error:
                log.info("no news of the books: %s", error)
            await asyncio.sleep(LOOK_S)

    def ask(self, account: int, question: Question, answer: Answer) -> None:
        """Have an account's papers looked up; `answer` is called when the books have answered, or do not."""
        self._later(Paper(account, question), RESULTS[type(question)], answer)

    def report(self, account: int, data: bytes, answer: MeterAnswer) -> None:
        """Hand in a meter's report; `answer` is called when it is durable, or why it may not be."""
        self._later(Report(account, data), int, answer)

    def _later(self, asked: Asked, kind: type, answer: Callable[[Any], None]) -> None:
        async def work() -> None:
            try:
                answer(msgspec.msgpack.decode(await self._request(asked), type=kind))
            except RequestError as error:
                answer(error)

        task = asyncio.get_running_loop().create_task(work())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _request(self, asked: Asked) -> msgspec.Raw:
        """Raises RequestError, also when nobody answers."""
        try:
            message = await self._client.request(self._shard.books_subject, _PACK.encode(asked), timeout=ANSWER_S)
        except NoRespondersError as error:
            raise RequestError(Code.NOT_AVAILABLE, "the books are down; ask again later") from error
        except (NatsError, OSError, TimeoutError) as error:
            code = Code.OUTCOME_UNKNOWN if isinstance(asked, Report) else Code.NOT_AVAILABLE
            raise RequestError(code, "the books do not answer; ask again later") from error
        reply = _REPLY.decode(message.data)
        if reply.error is not None:
            raise refusal(reply.error)
        return reply.found

    async def _hear(self, message: Msg) -> None:
        self._take(_TOLD.decode(message.data))

    def _take(self, told: Told) -> None:
        self._edition = told.edition
        self._show(told)
