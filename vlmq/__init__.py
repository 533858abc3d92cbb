"""What every part of vlmq shares."""

__version__ = "0.1.0"
