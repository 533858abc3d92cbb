"""Whether every variable that looks like a setting is one."""

from collections.abc import Iterator

from vlmq.finding import Finding
from vlmq.unknown_settings import unknown_settings


def look_at_settings() -> Iterator[Finding]:
    for name, meant in unknown_settings().items():
        advice = f"did you mean {meant}?" if meant else "docs/configuration.md lists all settings"
        yield Finding("settings", "warn", f"{name} is no setting and does nothing", advice)
