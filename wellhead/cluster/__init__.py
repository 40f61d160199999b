"""More than one machine: the log on NATS JetStream, engine replicas, gateways as processes of their own, shards.

    gateways, books, clock --frames--> [input stream] --> replicas --entries--> [journal stream] --> gateways, books

See docs/cluster.md.
"""
