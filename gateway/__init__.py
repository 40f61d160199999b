"""The gateway: what a bot speaks to. `messages` is the wire, `server` the socket; the rest has no I/O."""
