"""TLS for the server's port. A certificate that is renewed on the disk is taken for new connections without a restart."""

import ssl
from pathlib import Path


class Tls:
    """A certificate chain and its key, as PEM files."""

    def __init__(self, cert: Path, key: Path) -> None:
        """Raises OSError or ssl.SSLError when the files cannot be used."""
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._cert, self._key = cert, key
        self._seen = self._stamp()
        self.context.load_cert_chain(cert, key)

    def renew(self) -> bool:
        """Look at the files again; whether they were taken anew. Raises as the constructor does, and keeps the old ones."""
        stamp = self._stamp()
        if stamp == self._seen:
            return False
        self._seen = stamp
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self._cert, self._key)  # or the pair is half replaced
        self.context.load_cert_chain(self._cert, self._key)
        return True

    def _stamp(self) -> tuple[int, int]:
        return self._cert.stat().st_mtime_ns, self._key.stat().st_mtime_ns
