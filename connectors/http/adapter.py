"""How requests reach the wire: as usual, but bounded in time, and giving an `Answer`."""

import contextlib
import socket
import threading
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.response import HTTPResponse

from connectors.http.answers import Answer


class Adapter(HTTPAdapter):
    """The usual adapter, for servers that may be slow on purpose or by accident."""

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        """See `HTTPAdapter.init_poolmanager`."""
        super().init_poolmanager(*arguments, **options)
        pools = {"http": _HttpPool, "https": _HttpsPool}
        self.poolmanager.pool_classes_by_scheme = pools

    def build_response(self, req: requests.PreparedRequest, resp: Any) -> Answer:
        """See `HTTPAdapter.build_response`."""
        answer = Answer()
        answer.__dict__.update(super().build_response(req, resp).__dict__)
        return answer


class _BoundedHeaders(HTTPConnection):
    """Headers must be there within twice the read timeout, which bounds only each single read."""

    def getresponse(self) -> HTTPResponse:  # type: ignore[override]
        """See `HTTPConnection.getresponse`."""
        # What then comes of the half answer is a broken one, and tried again.
        assert self.timeout is not None, "the session gives one to every request"
        watch = threading.Timer(2 * self.timeout, _hang_up, (self.sock,))
        watch.daemon = True
        watch.start()
        try:
            return super().getresponse()
        finally:
            watch.cancel()


def _hang_up(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        # Not the method of a TLS socket, which would pull its state from under the reader.
        socket.socket.shutdown(connection, socket.SHUT_RDWR)


class _BoundedTlsHeaders(_BoundedHeaders, HTTPSConnection):
    pass


class _HttpPool(HTTPConnectionPool):
    ConnectionCls = _BoundedHeaders


class _HttpsPool(HTTPSConnectionPool):
    ConnectionCls = _BoundedTlsHeaders
