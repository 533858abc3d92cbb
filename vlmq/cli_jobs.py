"""The commands that speak to a running service: submit, watch, jobs, job, cancel."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vlmq.cli_values import filled, finite, named
from vlmq.errors import ExplainedError

if TYPE_CHECKING:
    from vlmq.client import Client

Url = Annotated[str, typer.Option("--url", envvar="VLMQ_URL", help="Where the service is.")]
ApiKey = Annotated[str | None, typer.Option("--api-key", envvar="VLMQ_API_KEY", help="The key for it, if it asks.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Status = Literal["queued", "in_progress", "completed", "failed", "cancelled", "expired"]
DEFAULT_URL = "http://127.0.0.1:8000"


def register(app: typer.Typer) -> None:
    for command in (submit, watch, jobs, job, cancel):
        app.command()(command)


def submit(
    what: Annotated[
        list[str],
        typer.Argument(metavar='FILE|URL|"QUESTION"', help="Images and videos, and what to ask about them."),
    ],
    *,
    image: Annotated[
        list[str] | None, typer.Option(callback=filled, help="A file or URL that is an image. Repeatable.")
    ] = None,
    video: Annotated[
        list[str] | None, typer.Option(callback=filled, help="A file or URL that is a video. Repeatable.")
    ] = None,
    system: Annotated[str | None, typer.Option(help="A system message before the question.")] = None,
    model: Annotated[
        str | None, typer.Option(callback=filled, help="The served model; the first one unless given.")
    ] = None,
    num_frames: Annotated[int | None, typer.Option(min=1, help="Frames to take from each video.")] = None,
    fps: Annotated[
        float | None, typer.Option(callback=finite, min=0, help="Frames a second to take from each video.")
    ] = None,
    start: Annotated[
        float | None, typer.Option(callback=finite, min=0, help="Where in each video to begin, in seconds.")
    ] = None,
    end: Annotated[
        float | None, typer.Option(callback=finite, min=0, help="Where in each video to end, in seconds.")
    ] = None,
    max_new_tokens: Annotated[int | None, typer.Option(min=1, help="The longest answer, in tokens.")] = None,
    temperature: Annotated[
        float | None, typer.Option(callback=finite, min=0, help="Sample with this temperature.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed for sampling.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=VALUE", help="Any other generation parameter, such as top_p=0.9. Repeatable."
        ),
    ] = None,
    degrade: Annotated[
        bool,
        typer.Option(
            "--degrade/--no-degrade", help="Look at fewer frames or pixels where all of them do not fit the memory."
        ),
    ] = True,
    webhook: Annotated[str | None, typer.Option(callback=filled, help="URL to call when the job has ended.")] = None,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Print the job's id and do not wait.")] = False,
    json: Json = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
) -> None:
    """Ask about images and videos.

    Follows the answer as it is written. Ctrl-C asks whether to cancel the job or to leave it running.

    \b
    vlmq submit photo.jpg "What is this?"
    vlmq submit clip.mp4 "What happens?" --start 3 --end 6 --num-frames 16
    vlmq submit a.png b.png "What is in the second image?" --set top_p=0.9
    """
    from vlmq.cli_follow import follow, print_result
    from vlmq.cli_media import read_arguments, upload_parts

    if num_frames is not None and fps is not None:
        raise ExplainedError("--num-frames and --fps exclude each other")
    if fps == 0:
        raise ExplainedError("--fps takes a number above 0")
    if end is not None and end <= (start or 0):
        raise ExplainedError("--end takes a time after --start")
    asked = {"num_frames": num_frames, "fps": fps, "start": start, "end": end}
    sampling = {name: value for name, value in asked.items() if value is not None}
    media, question = read_arguments(what, images=image or [], videos=video or [])
    if sampling and not any(item.kind == "video" for item in media):
        raise ExplainedError(
            "--num-frames, --fps, --start and --end are for videos, and there is none; say --video FILE|URL"
        )
    generation = named(set_ or []) | {
        name: value
        for name, value in (
            ("max_new_tokens", max_new_tokens),
            ("temperature", temperature),
            ("seed", seed),
        )
        if value is not None
    }
    with _client(url, api_key) as client:
        content = [*upload_parts(media, client, sampling), {"type": "text", "text": question}]
        messages: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
        messages.append({"role": "user", "content": content})
        fields: dict[str, Any] = {
            "model": model or _first_model(client),
            "generation": generation or None,
            "allow_degraded": None if degrade else False,
            "webhook": {"url": webhook} if webhook is not None else None,
        }
        if detach:
            print_result(client.submit(messages, **fields), as_json=json)
            return
        job_id, events = client.submit_and_follow(messages, **fields)
        raise typer.Exit(follow(client, job_id, events, as_json=json))


def watch(
    job_id: Annotated[str, typer.Argument(metavar="JOB")],
    json: Annotated[bool, typer.Option("--json", help="Print each event as a line of JSON.")] = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
) -> None:
    """Follow a job to its end."""
    from vlmq.cli_follow import follow, print_events

    with _client(url, api_key) as client:
        if json:
            raise typer.Exit(print_events(client, job_id))
        raise typer.Exit(follow(client, job_id, client.events(job_id), as_json=False))


def jobs(
    *,
    status: Annotated[Status | None, typer.Option(help="Only those with this status.")] = None,
    model: Annotated[str | None, typer.Option(help="Only those for this model.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100, help="How many.")] = 20,
    json: Json = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
) -> None:
    """List jobs, newest first."""
    from vlmq.cli_tables import print_jobs

    with _client(url, api_key) as client:
        print_jobs(client.jobs(limit=limit, status=status, model=model), as_json=json)


def job(
    job_id: Annotated[str, typer.Argument(metavar="JOB")],
    json: Json = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
) -> None:
    """Show one job, and the webhooks it sent."""
    from vlmq.cli_tables import print_job

    with _client(url, api_key) as client:
        found = client.get(job_id)
        print_job(found, client.deliveries(job_id) if found.raw.get("webhook") else [], as_json=json)


def cancel(
    job_id: Annotated[str, typer.Argument(metavar="JOB")],
    json: Json = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
) -> None:
    """Cancel a job.

    A running one stops within a moment and keeps what it has written.
    """
    from vlmq.cli_follow import print_result

    with _client(url, api_key) as client:
        print_result(client.cancel(job_id), as_json=json)


def _client(url: str, api_key: str | None) -> "Client":
    from vlmq.client import Client

    return Client(url, api_key)


def _first_model(client: "Client") -> str:
    models = client.models()
    if not models:
        raise ExplainedError("the service has no model")
    return str(models[0]["id"])
