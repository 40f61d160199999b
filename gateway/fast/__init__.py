"""The gateway's hot path as compiled code: what is known, kept in tables; events followed, requests read and messages
written without a Python object. Whatever it does not know it declines, and the general path does it on the same tables.
"""
