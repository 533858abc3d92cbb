"""Whether a port can be listened on."""

import socket


def free_port(host: str, port: int) -> int:
    """`port`, or any that is free for 0.

    Raises:
        OSError: it cannot be listened on.
    """
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        # As servers do: a connection of an ended one that still lingers is no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
        return int(probe.getsockname()[1])
