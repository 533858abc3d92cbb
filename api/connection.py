"""The connection that a request came by."""

import socket

from flask import request


def client_is_gone() -> bool:
    """Whether the client has closed it, and so waits for no answer.

    False where that is unknown: in the middle of a test there is no connection.
    """
    connection: socket.socket | None = request.environ.get("gunicorn.socket")
    if connection is None:
        return False
    timeout = connection.gettimeout()
    # Not with MSG_DONTWAIT, which gevent's sockets answer with waiting.
    connection.settimeout(0)
    try:
        # What is there already may be the client's next request: it is left where it is.
        return connection.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True
    finally:
        connection.settimeout(timeout)
