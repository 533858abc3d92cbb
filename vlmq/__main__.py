"""`python -m vlmq`, the same as `vlmq`."""

from vlmq.cli import main

main()
