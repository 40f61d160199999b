"""The whole single-node exchange under one seed, in one process: no socket, no thread, no real time, a disk that lies down.

What runs is the product: `wellhead.node.Node` with its gateway, log, engine, snapshots and books, and custody. Only what
is around it is not real:

    disk.py     the module `os` as engine.log, engine.snapshot and gateway.history see it: what was written, and what
                would survive
    books_disk.py   the same for SQLite's files, by a VFS: books, and what was signed for a chain
    loop.py     an event loop whose time is a number; what the node does on threads happens between two callbacks
    clients.py  clients with cids, that send, send again, hang up, come back and read slowly
    chain.py    a chain in every third world: the contracts that ship on an EVM, behind a node that loses and takes back
    money.py    members with wallets on it, custody beside the exchange, and what log and chain must agree on
    world.py    the exchange's lives: it is started, killed at any moment, started again
    checks.py   what must hold afterwards
    faults.py   known faults, planted to see that all this finds them
    chain_faults.py   those of custody

`python -m tests.simulation --seeds 100` looks for a seed that fails; the seed is printed as the command that replays it.
"""
