"""`python -m bench [media] [--rounds N]`: measure, print a table, and keep the figures as JSON in bench/results/."""

import argparse
import json
import os
import platform
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench import api_process, first_token, media

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("what", nargs="?", choices=("service", "media"), default="service")
    parser.add_argument("--rounds", type=int, help="rounds of each measurement (default 100; 5 of media)")
    arguments = parser.parse_args()
    if arguments.what == "media":
        rounds = arguments.rounds or 5
        rows = media.measure(rounds)
    else:
        rounds = arguments.rounds or 100
        rows = [*api_process.measure(), *first_token.measure(rounds)]
    table = Table("what", "p50", "p95", "unit")
    for row in rows:
        p95 = row.get("p95")
        table.add_row(row["what"], f"{row['p50']:.2f}", "" if p95 is None else f"{p95:.2f}", row["unit"])
    Console().print(table)
    RESULTS.mkdir(exist_ok=True)
    now = datetime.now(UTC)
    machine = {"cpus": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
    path = RESULTS / f"{now:%Y%m%dT%H%M%SZ}.json"
    path.write_text(json.dumps({"at": now.isoformat(), "rounds": rounds, "on": machine, "rows": rows}, indent=1))
    print(f"kept in {path}")


if __name__ == "__main__":
    main()
