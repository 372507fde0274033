# Compiled: see docs/decisions/compiled.md
"""TLS between a transport and a protocol (docs/decisions/tls-layer.md).

OpenSSL reads and writes two buffers in memory. What a protocol writes in one turn of the reactor is encrypted together
at its end. As records are counted when they arrive, OpenSSL is not asked for more than there is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from OpenSSL import SSL
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHandshakeListener, INegotiated, IPushProducer, ISSLTransport
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.python.failure import Failure
from zope.interface import classImplements

from apigw.wire.reactor.certificates import shown
from apigw.wire.reactor.layers import replace_protocol
from apigw.wire.reactor.openssl import Encryption
from apigw.wire.reactor.sending import MOST_HELD
from apigw.wire.reactor.tls_records import NO_RECORD, Records
from apigw.wire.tls_errors import in_words

MOST_SILENT: Final = 100
"""Records without text, beyond as many as have text. A change of keys is answered, whoever reads the answers or not:
they would pile up. Honest peers send a few tickets, and change keys after millions of records."""

# The states of a connection.
HANDSHAKE: Final = 0
OPEN: Final = 1
CLOSING: Final = 2  # close_notify is sent, that of the other side is waited for
OVER: Final = 3  # nothing more is read or written

STATES = {
    HANDSHAKE: {OPEN, OVER},
    OPEN: {CLOSING, OVER},
    CLOSING: {OVER},
    OVER: set[int](),
}
"""The transitions of a connection."""

Connect = Callable[[Any], SSL.Connection]
"""Makes OpenSSL's side of a connection. It is given the layer, whose ``failVerification`` says why a certificate is
refused."""


class Secure:
    """The protocol of a transport, and the transport of ``wrappedProtocol``.

    Errors of TLS are the reason of its ``connectionLost``. An end without close_notify is ``ConnectionLost``, so that
    a truncated body does not look complete.
    """

    transport: Any

    def __init__(self, wrapped: Any, connect: Connect, is_client: bool) -> None:
        self.wrappedProtocol: Any = wrapped
        self._is_client = is_client
        self.disconnecting = False
        self.connected = False
        self._connect: Connect | None = connect  # which may know who knows this object
        self._state = HANDSHAKE
        self._begun = False
        """Whether anything has come."""
        self._records = Records()
        self._held: list[bytes] = []
        self._silent = 0
        """Records without text, less those with text."""
        self._produced = False
        """Whether a producer is registered."""
        self._certificates: list[bytes] | None = None
        self._reason: Failure | None = None
        self._tls: Any = None
        self._encryption: Encryption | None = None
        self._reactor: Any = None

    # From the transport.

    def makeConnection(self, transport: Any) -> None:
        self.transport = transport
        self.connected = True
        connect, self._connect = self._connect, None
        assert connect is not None
        self._tls = connect(self)
        self._encryption = Encryption(self._tls)
        self._reactor = getattr(transport, "reactor", None)
        self.wrappedProtocol.makeConnection(self)
        if self._is_client:
            self._handshake()

    def dataReceived(self, data: bytes) -> None:
        state = self._state
        if state == OVER:
            return
        if not self._begun:
            self._begun = True
            if data[0] in NO_RECORD and self._step_aside(data):
                return
        count = self._records.completed(data)
        encryption = self._encryption
        assert encryption is not None
        encryption.put(data)
        if state == HANDSHAKE:
            self._handshake()
            # Of the records that have arrived, OpenSSL does not say how many belonged to the handshake.
            count = -1 if self._is_open() else 0
        if count:
            self._read(count)

    def _step_aside(self, data: bytes) -> bool:
        """Leave the connection, which begins with ``data``, to a protocol that answers clients without TLS. Returns
        whether it is one.
        """
        wrapped = self.wrappedProtocol
        answer = getattr(wrapped, "came_without_tls", None)
        if answer is None:
            return False
        self._state = OVER
        self.connected = False
        self._tls = self._encryption = self.wrappedProtocol = None
        replace_protocol(self.transport, wrapped)
        answer(self.transport, data)
        return True

    def connectionLost(self, reason: Failure) -> None:
        if self._reason is not None:
            reason = self._reason
        elif self._state != OVER and reason.check(ConnectionDone):
            reason = Failure(CONNECTION_LOST)
        self._state = OVER
        self.connected = False
        self._held = []
        self._tls = self._encryption = None
        # Each knows the other. So does a reason, by its traceback.
        wrapped, self.wrappedProtocol = self.wrappedProtocol, None
        self._reason = None
        wrapped.connectionLost(reason)

    # The connection.

    def _handshake(self) -> None:
        if self._state != HANDSHAKE:
            return
        try:
            self._tls.do_handshake()
        except SSL.WantReadError:
            self._flush()
            return
        except SSL.Error as error:
            self._fail(error)
            return
        self._state = OPEN
        self._flush()
        if IHandshakeListener.providedBy(self.wrappedProtocol):
            self.wrappedProtocol.handshakeCompleted()
        self.send_held()
        self._close_if_asked()

    def _is_open(self) -> bool:
        return self._state == OPEN or self._state == CLOSING

    def _read(self, count: int) -> None:
        """Decrypt ``count`` records, or all with -1, and deliver what is in them."""
        encryption = self._encryption
        assert encryption is not None
        pieces: list[bytes] = []
        ended = False
        failed: Exception | None = None
        while count:
            count -= 1
            try:
                pieces.append(encryption.text())
                if self._silent:
                    self._silent -= 1
            except SSL.WantReadError:
                # A record of the handshake, such as a ticket or a change of keys, which may have an answer.
                self._flush()
                if count < 0:
                    break
                self._silent += 1
                if self._silent > MOST_SILENT:
                    break
            except SSL.ZeroReturnError:
                ended = True
                break
            except SSL.Error as error:
                failed = error
                break
        if pieces and self.connected:
            self.wrappedProtocol.dataReceived(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if self._silent > MOST_SILENT:
            self._reason = Failure(CONNECTION_LOST)
            self.abortConnection()
        elif failed is not None:
            self._fail(failed)
        elif ended and self._is_open():
            if self._reason is None:
                # Whole, also if the other side is gone before it gets our close_notify, and resets.
                self._reason = Failure(CONNECTION_DONE)
            self.send_held()
            if self._is_open():
                self._send_close_notify()
            if self._is_open():
                self._end()

    def _close_if_asked(self) -> None:
        """Send what is held and close_notify, if the protocol has closed, and no producer may still write."""
        if self.disconnecting and not self._produced and self._state == OPEN:
            self.send_held()
            if self._is_open():  # else it could not be sent
                self._send_close_notify()

    def _send_close_notify(self) -> None:
        """Send close_notify. If that of the other side is here, close the connection."""
        self._state = CLOSING
        try:
            both: bool = self._tls.shutdown()
        except SSL.Error:
            both = False
        self._flush()
        if both:
            self._end()

    def _end(self) -> None:
        """Close when what is encrypted is sent.

        A producer can write no more, so it is not waited for: a paused one would be resumed, and write to nobody.
        """
        self._state = OVER
        if self._produced:
            self._produced = False
            self.transport.unregisterProducer()
        self.transport.loseConnection()

    def _fail(self, error: Exception) -> None:
        if self._state == OVER:
            return
        if self._reason is None:
            self._reason = Failure(CONNECTION_LOST if isinstance(error, SSL.SysCallError) else in_words(error))
        self._flush()  # an alert, which says why
        self._end()

    def _flush(self) -> None:
        """Send what OpenSSL has written."""
        encryption = self._encryption
        assert encryption is not None
        for data in encryption.taken():
            self.transport.write(data)

    # To the protocol: its transport.

    def write(self, data: bytes) -> None:
        if self._state == OVER or (self.disconnecting and not self._produced):
            return
        held = self._held
        held.append(data)
        if self._state == HANDSHAKE:
            return
        if len(held) == 1:
            turn = getattr(self._reactor, "writes_of_turn", None)
            if turn is None:
                self.send_held()
            else:
                turn.append(self)
        elif len(held) >= MOST_HELD:
            self.send_held()

    def writeSequence(self, pieces: Any) -> None:
        self.write(b"".join(pieces))

    def send_held(self) -> None:
        """Encrypt and send what is held: at the end of the turn, or before the connection is closed."""
        if not self._held or self._state == HANDSHAKE or self._state == OVER:
            return
        held, self._held = self._held, []
        data = held[0] if len(held) == 1 else b"".join(held)
        if not data:
            return
        encryption = self._encryption
        assert encryption is not None
        try:
            encryption.encrypt(data)
        except SSL.Error as error:
            self._fail(error)
            return
        self._flush()

    def held(self) -> int:
        """Bytes that are held until the end of the turn, or of the handshake."""
        return sum([len(data) for data in self._held])

    def loseConnection(self) -> None:
        if self.disconnecting or not self.connected:
            return
        if self._state == HANDSHAKE and not self._held:
            self.abortConnection()
            return
        self.disconnecting = True
        self._close_if_asked()

    def abortConnection(self) -> None:
        self.disconnecting = True
        self._state = OVER
        self._held = []
        self.transport.abortConnection()

    def failVerification(self, reason: Failure) -> None:
        """The other side's certificate is refused: end the connection for ``reason``."""
        self._reason = reason
        self.abortConnection()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self._produced = True
        self.transport.registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        if not self._produced:
            return
        self._produced = False
        self.transport.unregisterProducer()
        self._close_if_asked()

    def pauseProducing(self) -> None:
        self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        self.transport.resumeProducing()

    def stopProducing(self) -> None:
        self.transport.stopProducing()

    def getHost(self) -> Any:
        return self.transport.getHost()

    def getPeer(self) -> Any:
        return self.transport.getPeer()

    def loseWriteConnection(self) -> None:
        """TLS has no half of a connection that may be closed for long (RFC 8446 §6.1): this closes it."""
        self.loseConnection()

    def getTcpNoDelay(self) -> Any:
        return self.transport.getTcpNoDelay()

    def getTcpKeepAlive(self) -> Any:
        return self.transport.getTcpKeepAlive()

    def setTcpNoDelay(self, enabled: bool) -> None:
        self.transport.setTcpNoDelay(enabled)

    def setTcpKeepAlive(self, enabled: bool) -> None:
        self.transport.setTcpKeepAlive(enabled)

    def getPeerCertificate(self) -> Any:
        return self._tls.get_peer_certificate()

    @property
    def certificates(self) -> list[bytes]:
        """The certificates that the other side has shown, as ``shown``; read from OpenSSL when they are first asked
        for."""
        if self._certificates is None and self._tls is not None:
            self._certificates = shown(self._tls)
        return self._certificates or []

    @property
    def hosts(self) -> Any:
        """The hosts that requests may be for, where clients must show a certificate (``tls.ServerContexts``)."""
        return None if self._tls is None else self._tls.get_context().get_app_data()

    @property
    def negotiatedProtocol(self) -> bytes | None:
        """The protocol that was agreed on by ALPN (RFC 7301)."""
        return None if self._tls is None else self._tls.get_alpn_proto_negotiated() or None


classImplements(Secure, ISSLTransport, INegotiated, IPushProducer)
