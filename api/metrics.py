"""`/metrics`: requests of all API processes, and what the database says of jobs and workers."""

import time
from collections import Counter
from collections.abc import Iterator

import structlog
from flask import Flask, Response, g, request
from flask_openapi.blueprint import APIBlueprint
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Histogram, generate_latest
from prometheus_client import Counter as CounterMetric
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import REGISTRY, Collector
from prometheus_client.values import ValueClass
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError

from api.documentation import BEARER, OPERATIONS, problems
from api.services import Services, services
from models.claims import claimable_jobs
from models.job import Job
from models.outbox import count_due
from models.worker import live_workers

log = structlog.get_logger(__name__)

blueprint = APIBlueprint("metrics", __name__, abp_tags=[OPERATIONS], abp_security=BEARER)

REQUESTS = CounterMetric("vlmq_http_requests", "Answered requests", ["method", "route", "status"])
LATENCY = Histogram("vlmq_http_request_seconds", "Seconds until the answer begins", ["method", "route"])
COUNT_JOBS = select(Job.model, Job.status, func.count()).group_by(Job.model, Job.status)


@blueprint.get(
    "/metrics",
    summary="Metrics for Prometheus",
    responses={
        200: {"description": "Prometheus' text form", "content": {"text/plain": {"schema": {"type": "string"}}}},
        **problems(),
    },
)
def metrics() -> Response:
    """Requests and latencies of every API process; jobs, queues and workers from the database."""
    processes = REGISTRY
    if getattr(ValueClass, "_multiprocess", False):
        processes = CollectorRegistry()
        MultiProcessCollector(processes)
    shared = CollectorRegistry()
    shared.register(FromDatabase(services()))
    return Response(generate_latest(processes) + generate_latest(shared), content_type=CONTENT_TYPE_LATEST)


class FromDatabase(Collector):
    """What the database says of jobs, queues and workers at this moment; the same whichever process is asked."""

    def __init__(self, service: Services) -> None:
        self._service = service

    def collect(self) -> Iterator[Metric]:
        reachable = GaugeMetricFamily("vlmq_database_up", "Whether the database answered")
        try:
            families = self._read()
            reachable.add_metric([], 1)
        except SQLAlchemyError as error:
            log.warning("could not read metrics from the database", error=str(error))
            families = []
            reachable.add_metric([], 0)
        yield from (reachable, *families)

    def _read(self) -> list[Metric]:
        jobs = GaugeMetricFamily("vlmq_jobs", "Jobs", labels=["model", "status"])
        queued = GaugeMetricFamily("vlmq_queue_depth", "Jobs that wait to be claimed", labels=["model"])
        workers = GaugeMetricFamily("vlmq_workers", "Live workers; light ones have no model", labels=["model", "state"])
        with self._service.database.read() as session:
            for model, status, count in session.execute(COUNT_JOBS):
                jobs.add_metric([model, status.value], count)
            waiting = claimable_jobs(session)
            for model in {*self._service.settings.models, *waiting}:
                queued.add_metric([model], waiting.get(model, 0))
            live = live_workers(session, silence_s=self._service.settings.timing.lease_s)
            most = self._service.settings.webhooks.max_in_flight_per_host
            waiting_to_send = count_due(session, max_in_flight_per_host=most)
        due = GaugeMetricFamily("vlmq_deliveries_due", "Webhooks that wait to be sent", value=waiting_to_send)
        for (model, state), count in Counter((worker.model or "", worker.state.value) for worker in live).items():
            workers.add_metric([model, state], count)
        return [jobs, queued, workers, due]


def count_requests(app: Flask) -> None:
    """Count and time every request of this application."""

    @app.before_request
    def start() -> None:
        g.started_at = time.perf_counter()

    @app.after_request
    def count(response: Response) -> Response:
        route = "none" if request.url_rule is None else request.url_rule.rule
        if "wait" in request.args:
            route += "?wait"
        REQUESTS.labels(request.method, route, response.status_code).inc()
        LATENCY.labels(request.method, route).observe(time.perf_counter() - g.started_at)
        return response
