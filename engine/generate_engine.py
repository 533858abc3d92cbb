"""One sequence at a time through transformers' `generate()`: slow under load, but right for every architecture."""

import gc
import logging
import math
import queue
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from transformers import LogitsProcessorList, StoppingCriteriaList

from engine.beams import BeamGeneration
from engine.checkpoint import Checkpoint
from engine.choice import Vocabulary
from engine.generation import Generation, OnStep
from engine.hidden_tokens import hidden_tokens
from engine.line import Line
from engine.options import OptionReader
from engine.parameters import check_parameters, fit_into_context
from engine.prompt import PromptBuilder
from engine.score_guard import ScoreGuard
from engine.shared_media import share_media_without_deepstack
from engine.types import (
    EngineDescription,
    Event,
    Failed,
    Finished,
    FinishReason,
    GenerationParameters,
    PromptRequest,
    RenderTemplate,
    Sequence,
    Started,
)
from vlmq.errors import ErrorCode, VlmqError

logger = logging.getLogger(__name__)

# A step that takes longer hangs; the thread dies with the process.
_CLOSE_S = 30.0


class GenerateEngine:
    """An `Engine` around one checkpoint."""

    def __init__(self, checkpoint: Checkpoint, render: RenderTemplate | None = None, *, warm_up: bool = True) -> None:
        self._model = checkpoint.model
        share_media_without_deepstack(self._model)
        self._vocabulary = Vocabulary(checkpoint.tokenizer, hidden_tokens(checkpoint.processor))
        self._description = checkpoint.description
        self._prompts = PromptBuilder(checkpoint.processor, checkpoint.description.modalities, render)
        self._options = OptionReader(self._model, checkpoint.tokenizer)

        self._line = Line()
        self._lost = False
        self._last_step = time.monotonic()
        self._events: queue.SimpleQueue[list[Event]] = queue.SimpleQueue()
        self._warms_up = warm_up
        warm: queue.SimpleQueue[VlmqError | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, args=(warm,), name="engine", daemon=True)
        self._thread.start()
        if (error := warm.get()) is not None:
            raise error

    @property
    def description(self) -> EngineDescription:
        return self._description

    def prepare(
        self, id: str, prompt: PromptRequest, parameters: GenerationParameters, *, deadline: float | None = None
    ) -> Sequence:
        parameters = check_parameters(parameters)
        try:
            built = self._prompts.build(prompt)
        except (torch.OutOfMemoryError, MemoryError) as error:
            raise _for_users(error) from error
        default = self._options.default_new_tokens
        room = fit_into_context(parameters, default, built.tokens, self._description.max_context)
        return Sequence(
            id=id,
            deadline=deadline,
            parameters=parameters,
            prompt_tokens=built.tokens,
            image_tokens=built.image_tokens,
            video_tokens=built.video_tokens,
            max_new_tokens=room,
            inputs=built,
            options=self._options.read(parameters, room),
            prompt=built.text,
            lead=built.lead,
        )

    def submit(self, sequence: Sequence) -> None:
        if self._lost:
            raise VlmqError(ErrorCode.UNAVAILABLE, "The engine takes no more work")
        if not self._line.busy:
            self._last_step = time.monotonic()
        self._line.join(sequence)

    def cancel(self, id: str) -> None:
        self._line.cancel(id)

    def next_step(self, timeout: float) -> list[Event]:
        try:
            return self._events.get(timeout=timeout)
        except queue.Empty:
            return []

    def last_progress(self) -> float:
        if self._lost or not (self._thread.is_alive() or self._line.closed):
            return -math.inf
        return self._last_step if self._line.busy else time.monotonic()

    def close(self) -> None:
        self._line.close()
        self._thread.join(_CLOSE_S)

    def _run(self, warm: "queue.SimpleQueue[VlmqError | None]") -> None:
        error = self._warm_up() if self._warms_up else None
        warm.put(error)
        if error is not None:
            return
        while not self._lost and self._line.wait():
            if ended := self._ended_while_waiting():
                self._events.put(ended)
            if (sequence := self._line.take_next()) is not None:
                self._generate(sequence)

    def _ended_while_waiting(self) -> list[Event]:
        return [Finished(sequence.id, reason, "", 0, None, None, 0.0) for sequence, reason in self._line.take_ended()]

    def _generate(self, sequence: Sequence) -> None:
        self._last_step = time.monotonic()
        started = Started(sequence.id, sequence.prompt_tokens, sequence.image_tokens, sequence.video_tokens)
        self._events.put([started])
        generation = self._follow(sequence, self._on_step)
        failure = self._try_generation(sequence, generation)
        # Only here are the broken call's tensors out of reach of its traceback.
        if failure is not None and failure.code is ErrorCode.OUT_OF_MEMORY:
            _give_memory_back()
        last = generation.flush()
        if failure is None:
            last.append(generation.finished())
        else:
            last.append(Failed(sequence.id, failure, generation.text, generation.tokens))
        self._line.done(sequence)
        self._events.put(last)

    def _try_generation(self, sequence: Sequence, generation: Generation) -> VlmqError | None:
        try:
            self._call_model(sequence, generation)
        except Exception as error:
            logger.exception("sequence %s failed", sequence.id)
            # After such an error every other call on the device fails as well.
            self._lost = isinstance(error, torch.AcceleratorError)
            return _for_users(error)
        return None

    def _call_model(self, sequence: Sequence, generation: Generation) -> None:
        options, seed = generation.options, sequence.parameters.seed
        if options.samples:
            generation.seed = secrets.randbits(32) if seed is None else seed
            torch.manual_seed(generation.seed)
        guards = [ScoreGuard()] if options.restrains else []
        with _hooked(self._model, generation.logprobs):
            tokens = self._model.generate(
                **sequence.inputs.inputs.to(self._model.device, dtype=self._model.dtype),
                **options.arguments,
                logits_processor=LogitsProcessorList(guards),
                stopping_criteria=StoppingCriteriaList([generation]),
            )
        generation.take(tokens)

    def _follow(self, sequence: Sequence, on_step: OnStep) -> Generation:
        kind = BeamGeneration if sequence.options.beams > 1 else Generation
        return kind(sequence, self._vocabulary, self._model.device, on_step)

    def _on_step(self, sequence: Sequence, delta: list[Event]) -> FinishReason | None:
        """Send what a step brought; whether something other than its tokens ends the running sequence."""
        self._last_step = time.monotonic()
        if events := delta + self._ended_while_waiting():
            self._events.put(events)
        return self._line.early_end(sequence)

    def _warm_up(self) -> VlmqError | None:
        """Short generations, so that the first job does not pay for what is made once (thread pools, kernels)."""
        chats = [PromptRequest([{"role": "user", "content": "Hello"}])]
        if "image" in self._description.modalities:
            parts = [{"type": "image"}, {"type": "text", "text": "Hello"}]
            chats.append(PromptRequest([{"role": "user", "content": parts}], [np.zeros((224, 224, 3), np.uint8)]))
        for chat in chats:
            try:
                sequence = self.prepare("warm-up", chat, GenerationParameters(max_new_tokens=2))
                self._call_model(sequence, self._follow(sequence, _ignore_step))
            except Exception as error:
                told = _for_users(error)
                if told.code is ErrorCode.OUT_OF_MEMORY:
                    return VlmqError(ErrorCode.MODEL_LOAD_FAILED, "The model leaves no memory to generate anything")
                if told.code is ErrorCode.UNSUPPORTED_MODALITY:
                    # Not every model takes a text alone.
                    logger.info("a warm-up generation is left out: %s", told.message)
                    continue
                logger.warning("a warm-up generation failed; jobs like it will fail too", exc_info=True)
        return None


@contextmanager
def _hooked(model: Any, hook: Callable[..., None] | None) -> Iterator[None]:
    """Let `hook` see the model's outputs for a while."""
    if hook is None:
        yield
        return
    handle = model.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def _ignore_step(_sequence: Sequence, _delta: list[Event]) -> None:
    return None


def _for_users(error: Exception) -> VlmqError:
    if isinstance(error, VlmqError):
        return error
    # torch's CPU allocator raises a bare RuntimeError.
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error):
        return VlmqError(ErrorCode.OUT_OF_MEMORY, "The model ran out of memory on this prompt")
    if isinstance(error, OverflowError):
        problem = "The penalties grow beyond all numbers; name smaller ones, or a smaller max_new_tokens"
        return VlmqError(ErrorCode.INVALID_REQUEST, problem, param="generation")
    return VlmqError(ErrorCode.ENGINE_ERROR, "The model failed while generating")


def _give_memory_back() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
