"""What the gateway knows, as tables that compiled code and Python share.

All numbers are of 64 bits, in tables and in the calls between kernels: each mixture of widths would be compiled anew. Rows
are numbered from 1, 0 is none, so a table of zeros is an empty one. Accounts and instruments lie at their own
numbers; orders, positions and the rest are found through hash chains or lists, linked by row numbers. A private event is a
record: the template of its message, and the values for the template's holes.

Nothing grows inside a kernel. `Tables.make_room` is called before a batch with a bound on what it can need.
"""

from typing import Any

import numpy as np

from engine.types import COMMAND, EVENT, ID_WORDS

PENDING_ROWS = 1 << 17
"""Rows of commands on their way; a ref's row is its low bits. Twice what a gateway lets in by default."""
BATCH_ROWS, ITEMS = 1_024, 100
"""Batches that compiled code keeps at once, and the items of each; a larger one takes the general path."""
MASS_ROWS, MASS_LADDERS, MASS_LEVELS = 256, 256, 1_000
"""Mass quotes that compiled code keeps at once, the ladders of each, and its levels with those that it takes back."""
LADDER_LEVELS, LEVELS_A_WORD = 1_024, 32
"""Levels that a side of a ladder can have, and how many of them have their bits in one word."""
HASH_ROWS, POSITION_HASH_ROWS = 1 << 20, 1 << 18
"""Of orders as many as a gateway remembers by default."""
PENDING_HASH_ROWS, BATCH_HASH_ROWS = 1 << 15, 1 << 8
"""So few that they stay in the processor's cache: hardly ever is much on its way at once."""
EXTENT_HASH_ROWS = 1 << 16
SESSION_ROWS = 16_384
CHUNK = 32
"""Private events of an account lie together in chunks of so many."""
VALUES = 18
OUT_BYTES = 4 << 20
MOST_OF_ANSWER = 1 << 19
"""Bytes that the reply to any request takes at the most."""
INBOX_BYTES = 1 << 20
WORD = 8
"""Bytes behind what was received that are read with its end, in one word."""
UNSENT_ROWS = 4_096
STP_GROUP_BITS = 7
"""An owner's own numbers of self-trade groups, in the low bits of the engine's `stp_group`; above them is who the owner is."""
LAST_OWNER = 2 ** (31 - STP_GROUP_BITS) - 1
WORDS_OF_COMMAND = COMMAND.itemsize // 8


def _integers(names: str) -> list[tuple[str, str]]:
    return [(name, "<i8") for name in names.split()]


HEAD = np.dtype(
    _integers(
        # What is remembered.
        "accounts_used instruments_used orders_used orders_free positions_used positions_free chunks_used levels_used "
        "symbols_used "
        "first_finished last_finished finished forgotten_early "
        # Limits.
        "remember_ns max_remembered ring_events recent_trades max_pending max_pending_per_session rate burst "
        "max_batch_items "
        # The batch at hand: where it stands, and what the step at hand moved.
        "commands command_at events event_at event_end stage step t_out moved_accounts moved_positions fresh fresh_at "
        "dirty changed trades "
        # What waits to be sent, and what is under way.
        "out_used pieces groups unsent ref pending batches_free batches_used waits_free waits_used t_in inbox_bytes "
        "general python release quotes waiting waiting_order error_phrase stopping max_message_bytes taken composer "
        "masses_free masses_used extents_free extents_used most_extents max_quote_levels quotes_per_token "
        # Numbers of the first phrases of their kinds.
        "phrase_side phrase_type phrase_tif phrase_status phrase_why phrase_liquidity phrase_own phrase_funds phrase_stp "
        "phrase_act phrase_frozen"
    )
)

ACCOUNT = np.dtype(
    _integers("cash held escrow fees_due bond rebate frozen aseq step first_aseq moved first_chunk_at")
    + _integers("first_order last_order orders first_position last_position first_chunk last_chunk is_frozen owner")
)
"""`step` and `moved` say which command made `first_aseq`, and moved money last. `first_chunk_at`: the aseq before its first.
`owner`: the lowest number of its owner's accounts.
"""

LIVE = np.dtype(_integers("bucket_level bucket_at_us") + _integers("first_holder has_bucket has_extents extents"))
"""Of an account, and not remembered: its token bucket, the sessions that hold its private stream, and how many of its
ladders are in `extents`, when they are there.
"""

ORDER = np.dtype(
    [
        # What is looked at to find one, in one line of the processor's cache.
        *_integers("id account c0 c1 c2 c3 c4 next_cid"),
        *_integers("ts_ns finished_ns queued_seq ack_aseq tick_micros body_price body_qty price qty leaves cum"),
        *_integers("instrument symbol session ack_left ack_cum"),
        *_integers("next_of_account prev_of_account next_finished next_id"),
        *_integers("flags side ord_type time_in_force done has_ack ack_status special"),
        # Beyond plain orders; all zero in those.
        *_integers("show shown stop_price body_stop body_show min_qty expire_ns tag group stp_group level waiting"),
    ]
)
"""`done`: 1, or 2 when it was cancelled with nothing left of it. `special`: an order of a kind that only the general path
follows. `show`: what an iceberg shows at the most, `shown`: what it shows now. `waiting`: a stop that is in no book.
`level`: of a quote, its number and one.
"""

POSITION = np.dtype(
    _integers("net capacity open_buy open_sell escrow fees_due bond moved")
    + _integers("account instrument next_hash next_of_account prev_of_account pad")
)

INSTRUMENT = np.dtype(
    _integers(
        "tick_micros lot_tick_micros max_price maker_rebate_ppm listed_seq status_seq trade_seq last_price volume_lots "
        "book_seq book_ts_ns open_ns recent"
    )
    + _integers("symbol closed listed next_symbol dirty traded status")
)
"""`book_seq`: the last event that changed the book. `recent`: trades ever recorded; the last few are kept."""

SIDE = np.dtype(_integers("at") + _integers("room count"))
"""Side 0 (bids) of instrument i is sides[2*i]: `count` levels from levels[at], the best last."""
LEVEL = np.dtype(_integers("price lots"))
CHANGE = np.dtype(_integers("instrument side price"))
TRADE = np.dtype(_integers("tid px qty side ts"))

RECORD = np.dtype(_integers("template symbol") + _integers("c0 c1 c2 c3 c4"))
"""A private event; its numbers are the row of `values`. Template 0: a message that Python keeps."""

SESSION = np.dtype(
    _integers("uid account serial pending holds")
    + _integers("wire can_trade can_quote private next_holder first_held last_held bytes group parked closed")
)
"""`account` 0: not logged on. `serial`: what its orders carry. `uid`: a session's own number; a row is used again."""

PENDING = np.dtype(
    _integers("ref uid request t_in price qty c0 c1 c2 c3 c4")
    + _integers("session account instrument item batch next_cid first_wait last_wait")
    + _integers("kind python has_cid extra side ord_type time_in_force flags group tag stp_group hash")
)
"""`python`: Python answers it. `extra`: Python has more to answer than the request itself."""

WAIT = np.dtype(_integers("uid request t_in price qty") + _integers("session account batch item kind next"))
BATCH = np.dtype(_integers("request t_in") + _integers("session items missing next quotes mass"))
"""`quotes`: levels of a mass quote, whose answer Python writes when it has the results. `mass`: some of the levels of one that
compiled code answers; `next` is then the batch with those that follow.
"""
MASS = np.dtype(_integers("request t_in session missing ladders error first_batch next"))
"""A mass quote under way. `missing`: levels that the engine has not decided; `error`: what is wrong with all of it."""
MASS_LADDER = np.dtype(_integers("symbol bids asks"))
"""How a ladder is answered: results of so many levels on each side."""
EXTENT = np.dtype(_integers("account instrument group best_bid next"))
"""What may be there of a ladder, what is on its way too: a bit for each level, bids first, in the same row of
`extent_levels`, and the best bid in ticks.
"""
RESULT = np.dtype(_integers("oid c0 c1 c2 c3 c4 left cum aseq") + _integers("outcome word kept has_kept act"))
"""What a request came to. `outcome`: an Outcome; `word`: the order's status, or which error; `act`: the kind of the event."""
WISH = np.dtype(_integers("side level price qty"))
"""A level of a ladder as it shall be."""
LADDER = np.dtype(_integers("instrument extent"))
LADDER_SIDE = np.dtype(_integers("given first count rows at"))
"""A side of a ladder that is read: its levels are wishes[first:first + count], and `rows` of results, from `at` on."""
PLAN = np.dtype(_integers("ladders levels rows commands paid"))

REQUEST = np.dtype(
    _integers("id oid px qty c0 c1 c2 c3 c4 s0 s1 s2 s3 s4")
    + _integers("op side ord_type time_in_force post cod group tag stp stp_group deadline")
    + _integers("has_id has_oid has_px has_qty has_cid has_sym has_side has_type has_tif has_post has_cod has_op")
    + _integers("has_group has_tag has_stp has_stp_group has_deadline")
    + _integers("order instrument pending hash next_cid")
)
PIECE = np.dtype(_integers("start stop next") + _integers("session held"))
GROUP = np.dtype(_integers("session start stop held"))
OP = np.dtype(_integers("literal size kind value"))

SHAPES: dict[str, tuple[Any, tuple[int, ...]]] = {
    "commands": (COMMAND, ()),
    "words": (np.dtype("<i8"), (WORDS_OF_COMMAND,)),
    "events": (EVENT, ()),
    "head": (HEAD, ()),
    "accounts": (ACCOUNT, ()),
    "live": (LIVE, ()),
    "orders": (ORDER, ()),
    "positions": (POSITION, ()),
    "instruments": (INSTRUMENT, ()),
    "sides": (SIDE, ()),
    "levels": (LEVEL, ()),
    "level_free": (np.dtype("<i8"), ()),
    "symbols": (np.dtype("<i8"), (ID_WORDS,)),
    "recent": (TRADE, ()),
    "records": (RECORD, ()),
    "values": (np.dtype("<i8"), (VALUES,)),
    "next_chunk": (np.dtype("<i4"), ()),
    "id_hash": (np.dtype("<i4"), ()),
    "cid_hash": (np.dtype("<i4"), ()),
    "position_hash": (np.dtype("<i4"), ()),
    "symbol_hash": (np.dtype("<i4"), ()),
    "pending_hash": (np.dtype("<i4"), ()),
    "cids_of_batch": (np.dtype("<i8"), ()),
    "sessions": (SESSION, ()),
    "pendings": (PENDING, ()),
    "asker": (PENDING, ()),
    "waits": (WAIT, ()),
    "batches": (BATCH, ()),
    "results": (RESULT, ()),
    "result": (RESULT, ()),
    "reasons": (np.dtype("<i8"), ()),
    "refused": (np.dtype("<i8"), ()),
    "requests": (REQUEST, ()),
    "wishes": (WISH, ()),
    "plan": (PLAN, ()),
    "ladders": (LADDER, ()),
    "ladder_sides": (LADDER_SIDE, ()),
    "masses": (MASS, ()),
    "mass_ladders": (MASS_LADDER, ()),
    "parts": (np.dtype("<i8"), ()),
    "extents": (EXTENT, ()),
    "extent_levels": (np.dtype("<i8"), (2 * LADDER_LEVELS // LEVELS_A_WORD,)),
    "extent_hash": (np.dtype("<i8"), ()),
    "fresh": (np.dtype("<i8"), (2,)),
    "moved_accounts": (np.dtype("<i8"), ()),
    "moved_positions": (np.dtype("<i8"), ()),
    "dirty": (np.dtype("<i8"), ()),
    "changed": (CHANGE, ()),
    "trades": (np.dtype("<i8"), ()),
    "key": (np.dtype("<i8"), ()),
    "token": (np.dtype("<i8"), ()),
    "holes": (np.dtype("<i8"), ()),
    "texts": (np.dtype("<i8"), (ID_WORDS,)),
    "scratch": (np.dtype("u1"), ()),
    "inbox": (np.dtype("u1"), ()),
    "payload": (np.dtype("u1"), ()),
    "out": (np.dtype("u1"), ()),
    "gathered": (np.dtype("u1"), ()),
    "pieces": (PIECE, ()),
    "groups": (GROUP, ()),
    "unsent": (COMMAND, ()),
    "unsent_words": (np.dtype("<i8"), (WORDS_OF_COMMAND,)),
    "ops": (OP, ()),
    "templates": (np.dtype("<i8"), (2,)),
    "literals": (np.dtype("u1"), ()),
    "phrases": (np.dtype("<i8"), (4,)),
}
"""The item type of each array and the dimensions behind its first."""

FIRST_ROWS = {
    "head": 1, "accounts": 1_024, "live": 1_024, "orders": 4_096, "positions": 4_096, "instruments": 256, "sides": 512,
    "levels": 16_384, "level_free": 32, "symbols": 256, "records": 64 * CHUNK, "values": 64 * CHUNK, "next_chunk": 64,
    "id_hash": HASH_ROWS, "cid_hash": HASH_ROWS, "position_hash": POSITION_HASH_ROWS, "symbol_hash": 4_096,
    "pending_hash": PENDING_HASH_ROWS, "cids_of_batch": BATCH_HASH_ROWS, "sessions": SESSION_ROWS,
    "pendings": PENDING_ROWS, "asker": 1, "waits": PENDING_ROWS, "batches": BATCH_ROWS, "results": BATCH_ROWS * ITEMS,
    "result": 1, "reasons": 1 << 16, "refused": 1 << 16, "requests": ITEMS + 1, "wishes": MASS_LEVELS, "plan": 1,
    "ladders": MASS_LADDERS, "ladder_sides": 2 * MASS_LADDERS,
    "masses": MASS_ROWS, "mass_ladders": MASS_ROWS * MASS_LADDERS, "parts": -(-MASS_LEVELS // ITEMS),
    "extents": 1_024, "extent_levels": 1_024, "extent_hash": EXTENT_HASH_ROWS, "fresh": 16_384,
    "moved_accounts": 4_096, "moved_positions": 4_096, "dirty": 4_096, "changed": 16_384, "trades": 8_192, "key": 8,
    "token": 8, "holes": VALUES, "texts": 8, "scratch": 256, "inbox": INBOX_BYTES, "payload": INBOX_BYTES + WORD,
    "out": OUT_BYTES, "gathered": OUT_BYTES, "pieces": 65_536, "groups": SESSION_ROWS, "unsent": UNSENT_ROWS,
}  # fmt: skip
GROWING = (
    "accounts", "live", "orders", "positions", "instruments", "sides", "recent", "levels", "symbols", "records", "values",
    "next_chunk", "sessions", "groups", "changed", "dirty", "trades", "extents", "extent_levels",
)  # fmt: skip
GROWTH = 1 << 14
"""So many times its first size a table can reach without being moved, which for a large one takes a tenth of a second."""
REMEMBERED = (
    "accounts", "orders", "positions", "instruments", "sides", "levels", "level_free", "symbols", "records", "values",
    "next_chunk", "recent",
)  # fmt: skip
"""What a snapshot holds, beside the head. Hash chains are made anew."""
