"""Prompts that are only rendered, beside the jobs of the same table, on both databases."""

from datetime import timedelta
from pathlib import Path

from sqlalchemy import select

from models.claims import claim_next
from models.db import Database, utc_now
from models.file import File
from models.job import Job, JobFile, JobKind, JobStatus, Outcome
from models.lifecycle import finish
from models.rendering import delete_forgotten_renders
from tests.models.test_lifecycle import insert_job
from vlmq.files import FileStore


def claim(database: Database, *, renders_only: bool) -> str | None:
    with database.write() as session:
        job = claim_next(session, model="m", worker_id="w", lease_s=60, renders_only=renders_only)
    return None if job is None else job.id


def test_a_full_worker_claims_prompts_to_render_alone(database: Database) -> None:
    job = insert_job(database, priority=9)
    assert claim(database, renders_only=True) is None
    prompt = insert_job(database, kind=JobKind.RENDER, priority=0)
    assert claim(database, renders_only=True) == prompt
    assert claim(database, renders_only=False) == job


def test_a_worker_with_room_claims_either(database: Database) -> None:
    job = insert_job(database)
    prompt = insert_job(database, kind=JobKind.RENDER, priority=9)
    assert [claim(database, renders_only=False) for _ in range(3)] == [prompt, job, None]


def test_the_prompt_is_kept_with_the_end(database: Database) -> None:
    job_id = insert_job(database)
    claim(database, renders_only=False)
    with database.write() as session:
        finish(session, job_id, 1, Outcome(JobStatus.COMPLETED, prompt="ein Würfel 🟩\n"))
    with database.read() as session:
        assert session.get_one(Job, job_id).prompt == "ein Würfel 🟩\n"


def test_forgotten_prompts_are_deleted_with_their_inline_media(database: Database, tmp_path: Path) -> None:
    files = FileStore(tmp_path)
    old = utc_now() - timedelta(hours=1)
    forgotten = insert_job(database, kind=JobKind.RENDER, created_at=old)
    kept = {insert_job(database, kind=JobKind.RENDER), insert_job(database, created_at=old)}
    inline, uploaded = (files.put([data], limit=10).sha256 for data in (b"inline", b"upload"))
    with database.write() as session:
        for id, sha256 in (("file_1", inline), ("file_2", uploaded)):
            session.add(
                File(
                    id=id,
                    tenant="default",
                    sha256=sha256,
                    size=6,
                    media_type="image/png",
                    inline=sha256 == inline,
                    created_at=utc_now(),
                )
            )
        session.flush()
        session.add_all([JobFile(job_id=forgotten, file_id="file_1"), JobFile(job_id=forgotten, file_id="file_2")])
    with database.write() as session:
        assert delete_forgotten_renders(session, files, older_than_s=60) == 1
    with database.read() as session:
        assert set(session.scalars(select(Job.id))) == kept
        assert session.scalars(select(JobFile)).all() == []
        assert session.scalars(select(File.id)).all() == ["file_2"]
    assert [files.path(sha256).exists() for sha256 in (inline, uploaded)] == [False, True]
