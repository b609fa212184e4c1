"""TLS without a socket: what comes goes in, what must be sent comes out. ssl is loaded with the first of these."""

from __future__ import annotations

from collections.abc import Sequence

PIECE = 16 * 1024  # of a record, at most (RFC 8446, 5.1)


class Tls:
    """The client's side of TLS between two buffers. Nothing secret is sent, so no certificate is checked."""

    def __init__(self, host: str, alpn: Sequence[str]) -> None:
        import ssl

        self._ssl = ssl
        self.is_ready = False
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        if alpn:
            context.set_alpn_protocols(list(alpn))
        try:
            self._side = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host or None)
        except (ValueError, UnicodeError):  # a name that TLS does not take
            self._side = context.wrap_bio(self._incoming, self._outgoing)

    def outgoing(self) -> bytes:
        """Return what must be sent now."""
        return self._outgoing.read()

    def hand_shake(self, data: bytes) -> str:
        """Take what came, and go on; return why that cannot be, or ''."""
        self._incoming.write(data)
        try:
            self._side.do_handshake()
        except self._ssl.SSLWantReadError:
            return ""
        except (self._ssl.SSLError, ValueError) as error:
            return _problem(error)
        self.is_ready = True
        return ""

    def encrypted(self, data: bytes) -> bytes:
        try:
            self._side.write(data)
        except self._ssl.SSLError:  # closed by the other side
            pass
        return self._outgoing.read()

    def decrypted(self, data: bytes, limit: int) -> tuple[bytes, bool, bool]:
        """Return what `data` means, whether that was the end, and whether it is the demand for a certificate."""
        self._incoming.write(data)
        plain = b""
        try:
            while len(plain) < limit:
                piece = self._side.read(PIECE)
                if not piece:
                    return plain, True, False
                plain += piece
        except self._ssl.SSLWantReadError:
            return plain, False, False
        except (self._ssl.SSLError, ValueError) as error:
            return plain, True, "CERTIFICATE_REQUIRED" in (getattr(error, "reason", None) or "")
        return plain, False, False


def _problem(error: Exception) -> str:
    reason = getattr(error, "reason", None) or "UNKNOWN"  # a name of OpenSSL's, not the peer's words
    if reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG", "HTTP_REQUEST"):
        return "answers without TLS, which its URL asks for"
    return f"the TLS handshake failed: {reason.replace('_', ' ').lower()}"
