"""The engine that the settings name."""

from engine.engine import Engine
from engine.scripted import ScriptedEngine
from engine.types import CheckpointSettings, RenderTemplate


def load_engine(settings: CheckpointSettings, render: RenderTemplate | None = None) -> Engine:
    """Load the checkpoint and start its engine; this takes as long as the model is large.

    `render` is for the chat templates of requests; without it the engine takes none.

    Raises:
        VlmqError: MODEL_LOAD_FAILED.
    """
    if settings.engine == "scripted":
        return ScriptedEngine(settings, render)
    # torch and transformers take seconds to import, which the scripted engine's users do not pay.
    from engine.checkpoint import load_checkpoint
    from engine.generate_engine import GenerateEngine

    return GenerateEngine(load_checkpoint(settings), render)
