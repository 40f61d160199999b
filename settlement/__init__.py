"""From events to money: ledger, delivery, netting, batches, proofs and statements.

Knows the engine's records, not the gateway.
"""
