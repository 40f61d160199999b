"""The exchange itself: match and clear, deterministic, no clock, no socket, no float, no thread."""
