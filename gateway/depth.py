"""The checksum of a book."""

from zlib import crc32

CHECKSUM_LEVELS = 10


def checksum(bids: list[tuple[int, int]], asks: list[tuple[int, int]]) -> int:
    """CRC-32 of `<price in micros>:<lots>;` of the ten best bids, best first, then of the ten best asks."""
    levels = bids[:CHECKSUM_LEVELS] + asks[:CHECKSUM_LEVELS]
    return crc32("".join([f"{price}:{lots};" for price, lots in levels]).encode("ascii"))
