"""Every limit of the gateway, in one place."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """The numbers a bot can run into; `hello.limits` tells it the ones that matter."""

    venue: str = "Wellhead"  # what the exchange calls itself
    public_market_data: bool = True  # subscribe to public channels without a log-on

    # Connections
    max_connections: int = 12_000  # in all; those above are dropped without a word
    max_connections_per_ip: int = 2_000  # of an IPv4 address or an IPv6 /64
    handshake_timeout_ms: int = 5_000  # from the connection to the end of its HTTP request
    origins: tuple[str, ...] = ()  # of pages that may connect, beside those of the same host; "*": of any
    metrics_from: tuple[str, ...] = ("127.0.0.0/8", "::1/128")  # networks that may read /metrics

    # Sessions
    max_sessions: int = 10_000  # websocket sessions in all
    logon_failures_per_ip: int = 10  # before its log-ons are not looked at for a while
    logon_failures_per_key: int = 100  # the same for a key, from where it never logged on
    logon_failure_s: int = 10  # after which a failure is forgotten
    throttle_entries: int = 10_000  # addresses and keys whose failures are remembered
    logon_window_us: int = 5_000_000  # |ts - now| of a log-on
    logon_timeout_ms: int = 10_000  # to log on, or to subscribe to something public
    max_grace_ms: int = 60_000  # the longest a session may ask its orders to wait for it
    quotes_need_cod: bool = True  # keys with the scope `quote` cannot log on with `cod` off
    restart_grace_ms: int = 10_000  # before orders of sessions that a restart cut off are cancelled
    ping_interval_ms: int = 15_000  # between two pings to a client
    ping_timeout_ms: int = 15_000  # to answer one, else the connection is closed
    heartbeat_ms: int = 1_000  # between two messages of the channel `hb`

    # Requests
    max_message_bytes: int = 65_536  # of a message from a client; above: close 1009
    max_batch_items: int = 100  # orders in one batch
    max_quote_levels: int = 1_000  # in one mass quote, over all its symbols
    max_mmp_groups: int = 100  # with market-maker protection, of an account
    max_channels: int = 100  # in one subscription
    max_pending_per_session: int = 4_096  # requests of a session that wait for the log
    max_pending: int = 65_536  # the same of all sessions; above: OVERLOADED
    rate_per_s: int = 2_000  # tokens an account gains a second
    rate_burst: int = 4_000  # tokens an account can save up
    rate_fill_tokens: int = 1  # given back to both sides of a fill
    rate_quotes_per_token: int = 10  # levels of a mass quote for one token; those with 0 lots are free
    rate_heavy_tokens: int = 20  # what the list of instruments costs, or a channel of all symbols
    rate_topics_per_token: int = 20  # a channel of named symbols costs a token, and one more for each so many
    rate_abuse_errors: int = 10_000  # RATE_LIMIT answers to one session, then close 4029

    # Memory
    max_subscriptions: int = 20_000  # topics (channel and symbol) of one session
    remember_ns: int = 24 * 3_600 * 1_000_000_000  # finished orders and their client ids, in market time
    max_remembered_orders: int = 1_000_000  # at the most; the oldest are forgotten first
    private_ring_events: int = 4_096  # for each account, to resume from
    history_rows: int = 500_000  # fills, and finished orders, of all accounts, to answer queries with; 0: none
    recent_trades: int = 50  # in the snapshot of `trades`
    recent_candles: int = 120  # of each length, in the snapshot
    recent_settled: int = 500  # batches, and deliveries, in the snapshots of their channels

    # What is sent, and slow readers, by the transport's write buffer
    send_buffer_bytes: int = 262_144  # SO_SNDBUF, so that the kernel does not hide the queue
    publish_us: int = 1_000  # from one publication of books and trades to the next, in a rush of batches
    conflate_bytes: int = 262_144  # from here on public channels are merged, until half of it is gone
    conflate_items: int = 100_000  # levels, orders and trades that may wait, merged; above: close 4008
    slow_soft_bytes: int = 1_048_576  # for slow_soft_ms, or
    slow_soft_ms: int = 2_000  # how long above slow_soft_bytes: close 4008
    slow_hard_bytes: int = 4_194_304  # at once: close 4008
    compiled: bool = True  # requests and answers through gateway/fast
