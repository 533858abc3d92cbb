"""One sequence at a time through transformers' `generate()`: slow under load, but right for every architecture."""

import gc
import logging
import math
import queue
import secrets
import threading
import time

import numpy as np
import torch
from transformers import StoppingCriteriaList

from engine.checkpoint import Checkpoint
from engine.generation import Generation
from engine.line import Line
from engine.parameters import check_parameters, fit_into_context
from engine.prompt import PromptBuilder
from engine.types import (
    EngineDescription,
    Event,
    Failed,
    Finished,
    FinishReason,
    GenerationParameters,
    PromptRequest,
    Sequence,
    Started,
)
from vlmq.errors import ErrorCode, VlmqError

logger = logging.getLogger(__name__)

# For the checkpoints that name no length of their own.
_DEFAULT_NEW_TOKENS = 256
# A step that takes longer hangs; the thread dies with the process.
_CLOSE_S = 30.0


class GenerateEngine:
    """An `Engine` around one checkpoint."""

    def __init__(self, checkpoint: Checkpoint, *, warm_up: bool = True) -> None:
        self._model = checkpoint.model
        self._tokenizer = checkpoint.tokenizer
        self._description = checkpoint.description
        self._prompts = PromptBuilder(checkpoint.processor, checkpoint.description.modalities)
        config = self._model.generation_config
        if config.num_beams not in (None, 1):
            logger.warning("the checkpoint asks for %d beams; text that is streamed takes one", config.num_beams)
            config.num_beams = 1
        self._default_new_tokens: int = config.max_new_tokens or config.max_length or _DEFAULT_NEW_TOKENS
        self._samples_by_default = bool(config.do_sample)
        ends = config.eos_token_id
        self._end_tokens = frozenset([ends] if isinstance(ends, int) else ends or [])

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
        built = self._prompts.build(prompt)
        room = fit_into_context(parameters, self._default_new_tokens, built.tokens, self._description.max_context)
        return Sequence(
            id=id,
            deadline=deadline,
            parameters=parameters,
            prompt_tokens=built.tokens,
            image_tokens=built.image_tokens,
            video_tokens=built.video_tokens,
            max_new_tokens=room,
            inputs=built,
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
        generation = Generation(sequence, self._tokenizer, self._end_tokens, self._model.device, self._on_step)
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
        parameters = sequence.parameters
        sampling = self._samples_by_default if parameters.do_sample is None else parameters.do_sample
        if sampling:
            generation.seed = secrets.randbits(32) if parameters.seed is None else parameters.seed
            torch.manual_seed(generation.seed)
        options = {
            "max_new_tokens": sequence.max_new_tokens,
            "min_new_tokens": parameters.min_new_tokens,
            "do_sample": sampling,
            "temperature": parameters.temperature,
            "top_p": parameters.top_p,
            "top_k": parameters.top_k,
            "repetition_penalty": parameters.repetition_penalty,
        }
        self._model.generate(
            **sequence.inputs.inputs.to(self._model.device, dtype=self._model.dtype),
            **{name: value for name, value in options.items() if value is not None},
            stopping_criteria=StoppingCriteriaList([generation]),
        )

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
                generation = Generation(sequence, self._tokenizer, self._end_tokens, self._model.device, _ignore_step)
                self._call_model(sequence, generation)
            except Exception as error:
                if _for_users(error).code is ErrorCode.OUT_OF_MEMORY:
                    return VlmqError(ErrorCode.MODEL_LOAD_FAILED, "The model leaves no memory to generate anything")
                logger.warning("a warm-up generation failed; jobs like it will fail too", exc_info=True)
        return None


def _ignore_step(_sequence: Sequence, _delta: list[Event]) -> None:
    return None


def _for_users(error: Exception) -> VlmqError:
    if isinstance(error, VlmqError):
        return error
    # torch's CPU allocator raises a bare RuntimeError.
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error):
        return VlmqError(ErrorCode.OUT_OF_MEMORY, "The model ran out of memory on this prompt")
    return VlmqError(ErrorCode.ENGINE_ERROR, "The model failed while generating")


def _give_memory_back() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
