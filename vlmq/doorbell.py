"""The doorbell: a Celery task that wakes a worker and carries an id and nothing else.

A worker that hears it claims the next row from the database, whichever that is, or passes it on if it is full. So
rings are interchangeable, a doubled one finds nothing to do, and a lost one is made up for by the reconciler.
"""

import logging
import signal

from celery import Celery
from celery.signals import setup_logging, worker_ready

from vlmq.config import Settings

RUN_JOB = "vlmq.run_job"
DELIVER_WEBHOOK = "vlmq.deliver_webhook"
LIGHT_QUEUE = "vlmq.light"
# A ring carries an id, but whoever hears it claims the row that is next.
ANY = "any"


def gpu_queue(model: str) -> str:
    return f"vlmq.gpu.{model}"


def make_celery(settings: Settings) -> Celery:
    """The Celery application that the API rings with and the workers consume with.

    The settings follow from what was measured: early acknowledgement survives a killed broker where `acks_late` loses
    tasks and exits, a result backend makes publishing hang, and a stopped Redis blocks for ever without timeouts.
    """
    setup_logging.connect(_set_up_logging)
    worker_ready.connect(_quit_as_if_terminated)
    celery = Celery("vlmq", broker=settings.broker_url, set_as_current=False)
    celery.conf.update(
        task_acks_late=False,
        task_ignore_result=True,
        task_serializer="json",
        accept_content=["json"],
        task_publish_retry_policy={"max_retries": 1, "interval_start": 0, "interval_step": 0.2},
        worker_prefetch_multiplier=1,
        worker_disable_rate_limits=True,
        worker_redirect_stdouts=False,
        worker_send_task_events=False,
        worker_enable_remote_control=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            # Two round trips for each ring, to keep what the database and the reconciler know better.
            "ack_emulation": False,
            "socket_timeout": 5,
            "socket_connect_timeout": 2,
            "socket_keepalive": True,
            "health_check_interval": 10,
        },
    )
    return celery


def _set_up_logging(**_: object) -> None:
    """Celery would raise the root logger's level, unless somebody else answers; it also reports each task it hears."""
    logging.getLogger("celery").setLevel(logging.WARNING)


def _quit_as_if_terminated(**_: object) -> None:
    """Celery's cold shutdown cannot end threads; a worker that got SIGQUIT would go on claiming what waits."""
    signal.signal(signal.SIGQUIT, signal.getsignal(signal.SIGTERM))


class Doorbell:
    """Rings; raises kombu's or redis' connection errors within a few seconds when the broker is away."""

    def __init__(self, celery: Celery) -> None:
        self._celery = celery

    def ring_job(self, model: str, job_id: str, passed_on: int = 0) -> None:
        """`passed_on`: how often a worker that had no room has passed this ring on."""
        arguments = [job_id, passed_on] if passed_on else [job_id]
        self._celery.send_task(RUN_JOB, args=arguments, queue=gpu_queue(model), ignore_result=True)

    def ring_delivery(self, delivery_id: str) -> None:
        self._celery.send_task(DELIVER_WEBHOOK, args=[delivery_id], queue=LIGHT_QUEUE, ignore_result=True)
