"""Identifiers: a prefix that says what it is, and a UUIDv7, so that ids sort by the time they were made."""

from uuid_utils import uuid7


def new_job_id() -> str:
    return f"job_{uuid7().hex}"


def new_file_id() -> str:
    return f"file_{uuid7().hex}"


def new_delivery_id() -> str:
    return f"whd_{uuid7().hex}"


def new_worker_id() -> str:
    return f"worker_{uuid7().hex}"


def new_template_id() -> str:
    return f"tpl_{uuid7().hex}"
