"""The engine that the settings name."""

from engine.engine import Engine
from engine.scripted import ScriptedEngine
from engine.types import CheckpointSettings, OnProgress, RenderTemplate


def load_engine(
    settings: CheckpointSettings, render: RenderTemplate | None = None, *, on_progress: OnProgress | None = None
) -> Engine:
    """Load the checkpoint and start its engine; this takes as long as the model is large.

    `render` is for the chat templates of requests; without it the engine takes none. `on_progress` is told how far it
    is.

    Raises:
        VlmqError: MODEL_LOAD_FAILED.
    """
    if settings.engine == "scripted":
        return ScriptedEngine(settings, render)
    # torch and transformers take seconds to import, which the scripted engine's users do not pay.
    from engine.checkpoint import load_checkpoint
    from engine.generate_engine import GenerateEngine

    checkpoint = load_checkpoint(settings, on_progress=on_progress)
    if on_progress is not None and settings.warm_up:
        on_progress("warming_up", None)
    return GenerateEngine(checkpoint, render, warm_up=settings.warm_up)
