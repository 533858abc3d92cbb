"""The peer: the least that Flask and Celery can do for a job, a route that rings and a task that answers at once."""

import os

import redis
from celery import Celery
from flask import Flask, Response, jsonify

URL = os.environ["REDIS_URL"]

celery = Celery("bare", broker=os.environ["BARE_BROKER_URL"])
celery.conf.update(task_ignore_result=True, worker_hijack_root_logger=False)
store = redis.Redis.from_url(URL)
app = Flask("bare")


@celery.task(name="bare.null")  # type: ignore[untyped-decorator]
def null(job_id: str) -> None:
    store.lpush(f"bare:{job_id}", "done")


@app.post("/jobs")
def create() -> tuple[Response, int]:
    job_id = os.urandom(8).hex()
    celery.send_task("bare.null", args=[job_id])
    return jsonify(id=job_id), 202


@app.get("/jobs/<job_id>")
def result(job_id: str) -> Response:
    store.blpop([f"bare:{job_id}"], timeout=5)
    return jsonify(id=job_id)


@app.get("/healthz")
def health() -> Response:
    return jsonify(ok=True)
