"""Load a checkpoint once: the model, its processor, and a description of both."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers.utils.logging
from transformers import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING, AutoConfig, AutoModelForImageTextToText, AutoProcessor

from engine import source
from engine.adapter import add_adapter
from engine.load_failure import UNEXPLAINED, explain
from engine.memory import allocated_bytes, free_bytes
from engine.placement import Placement, place
from engine.progress import watch_weights
from engine.quantization import Quantization, quantization
from engine.source import Source
from engine.types import CheckpointSettings, EngineDescription, Modality, OnProgress, VideoDefaults
from engine.untemplated import TEMPLATES
from engine.weights import expected_bytes, held_bytes, outline
from vlmq.errors import VlmqError

logger = logging.getLogger(__name__)

# Sharing out the work of such a model takes longer than the work, and its idle threads spin where others could run.
_SMALL_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model on its device and in evaluation mode, and the processor that feeds it."""

    model: Any
    processor: Any
    description: EngineDescription

    @property
    def tokenizer(self) -> tokenizers.Tokenizer:
        backend: tokenizers.Tokenizer = self.processor.tokenizer.backend_tokenizer
        return backend


def load_checkpoint(settings: CheckpointSettings, *, on_progress: OnProgress | None = None) -> Checkpoint:
    """Load from a directory or the Hugging Face hub, safetensors only and without the repository's own code.

    Raises:
        VlmqError: MODEL_LOAD_FAILED with one line that says why.
    """
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        return _load(settings, on_progress or (lambda _stage, _fraction: None))
    except VlmqError:
        raise
    except Exception as error:
        explanation = explain(error)
        # One line is enough for those whom it tells what to do.
        level = logging.ERROR if explanation == UNEXPLAINED else logging.INFO
        logger.log(level, "loading %s failed", settings.checkpoint, exc_info=True)
        raise source.failed("checkpoint", _name(settings), explanation) from error


def _load(settings: CheckpointSettings, tell: OnProgress) -> Checkpoint:
    config, files = _find_checkpoint(settings, tell)
    adapter = _find_adapter(settings, tell)
    processor = AutoProcessor.from_pretrained(files.folder, trust_remote_code=False)  # type: ignore[no-untyped-call]
    _check_processor(settings, processor)
    if processor.chat_template is None:
        processor.chat_template = TEMPLATES.get(type(processor).__name__)
    model_class: Any = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING[type(config)]
    placement = place(settings, config.dtype, model_class)
    kind = _quantization(settings, config, placement)
    whole = outline(model_class, config, placement.dtype)
    _check_room(settings, config, whole, kind, placement)
    allocated = allocated_bytes() if placement.device == "cuda" else None
    with watch_weights(lambda fraction: tell("loading" if kind is None else "quantizing", fraction)):
        model, missing = _load_weights(files, config, placement, kind)
    if missing:
        raise _failed(settings, f"lacks {len(missing)} of its weights, {min(missing)} first")
    if model.device.type == "meta" or "disk" in _places(model):
        raise _failed(settings, "does not fit on the GPUs: its device_map leaves the first weights to the CPU")
    if adapter is not None:
        tell("adapting", None)
        model = add_adapter(model, adapter, merge=kind is None)
    description = _describe(
        settings,
        model.eval(),
        processor,
        placement,
        revision=files.revision,
        weight_bytes_before=expected_bytes(whole),
        device_bytes=None if allocated is None else (allocated_bytes() or 0) - allocated,
    )
    if placement.device == "cpu" and description.weight_bytes < _SMALL_BYTES:
        torch.set_num_threads(1)
    logger.info("loaded %s", description)
    return Checkpoint(model, processor, description)


def _find_checkpoint(settings: CheckpointSettings, tell: OnProgress) -> tuple[Any, Source]:
    """Its configuration, read before the weights are downloaded, and all of its files."""
    name = settings.checkpoint
    tell("loading" if Path(name).expanduser().is_dir() else "downloading", None)
    first = source.find("checkpoint", name, settings.revision, settings.token, only="config.json", on_bytes=None)
    config = AutoConfig.from_pretrained(first.folder, trust_remote_code=False)
    if type(config) not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        raise _failed(settings, f"is no image-text-to-text model (its model type is {config.model_type})")
    return config, source.find("checkpoint", name, first.revision, settings.token, on_bytes=_download_share(tell))


def _find_adapter(settings: CheckpointSettings, tell: OnProgress) -> Source | None:
    if settings.adapter is None:
        return None
    share = _download_share(tell)
    return source.find("adapter", settings.adapter, settings.adapter_revision, settings.token, on_bytes=share)


def _download_share(tell: OnProgress) -> Callable[[int, int], None]:
    return lambda done, total: tell("downloading", done / total if total else 1.0)


def _quantization(settings: CheckpointSettings, config: Any, placement: Placement) -> Quantization | None:
    if settings.quantization is None:
        return None
    if getattr(config, "quantization_config", None) is not None:
        raise _failed(settings, "is quantized already; take `quantization` out of its settings")
    return quantization(settings.quantization, placement.device, placement.dtype)


def _check_room(
    settings: CheckpointSettings, config: Any, whole: Any, kind: Quantization | None, placement: Placement
) -> None:
    """The kernel would kill a worker that takes more memory than there is, and could not say why."""
    # With a map accelerate shares out what there is; and what is quantized on disk is smaller than its outline.
    if placement.device_map is not None or getattr(config, "quantization_config", None) is not None:
        return
    needed = expected_bytes(whole, kind.element_size if kind else None)
    free = free_bytes(placement.device)
    if needed > free:
        where = "the GPU" if placement.device == "cuda" else "this machine"
        advice = "name a smaller dtype or a `quantization`" if kind is None else "it takes a larger device"
        told = f"needs {needed:,} bytes of memory for its weights, and {where} has {free:,} free; {advice}"
        raise _failed(settings, told)


def _load_weights(
    files: Source, config: Any, placement: Placement, kind: Quantization | None
) -> tuple[Any, frozenset[str]]:
    """The model, and the names of the weights that the files lack."""
    # transformers' annotations know nothing of `output_loading_info`.
    auto_model: Any = AutoModelForImageTextToText
    model, info = auto_model.from_pretrained(
        files.folder,
        config=config,
        dtype=placement.dtype,
        attn_implementation=placement.attn_implementation,
        device_map=placement.device_map or placement.device,
        quantization_config=None if kind is None else kind.config,
        use_safetensors=True,
        trust_remote_code=False,
        output_loading_info=True,
    )
    return model, frozenset(info["missing_keys"])


def _check_processor(settings: CheckpointSettings, processor: Any) -> None:
    if getattr(processor, "image_processor", None) is None:
        raise _failed(settings, "has no image processor")
    if not isinstance(getattr(processor.tokenizer, "backend_tokenizer", None), tokenizers.Tokenizer):
        raise _failed(settings, "has no tokenizer that the tokenizers library can run (tokenizer.json)")


def _describe(
    settings: CheckpointSettings,
    model: Any,
    processor: Any,
    placement: Placement,
    *,
    revision: str,
    weight_bytes_before: int,
    device_bytes: int | None,
) -> EngineDescription:
    supported: set[Modality] = {"text", "image"}
    if getattr(processor, "video_processor", None) is not None:
        supported.add("video")
    own = getattr(model.config, "quantization_config", None)
    return EngineDescription(
        engine=settings.engine,
        checkpoint=settings.checkpoint,
        revision=revision,
        architecture=type(model).__name__,
        device=_device_name(model, placement),
        dtype=str(model.dtype).removeprefix("torch."),
        attn_implementation=model.config._attn_implementation,
        attn_reason=placement.attn_reason,
        weight_bytes=held_bytes(model),
        max_context=_max_context(settings, model.config, processor),
        modalities=frozenset(supported) & settings.modalities,
        weight_bytes_before=weight_bytes_before,
        device_bytes=device_bytes,
        quantization=settings.quantization or (None if own is None else _method(own)),
        adapter=None if settings.adapter is None else source.shown(settings.adapter),
        video_defaults=_video_defaults(getattr(processor, "video_processor", None)),
    )


def _video_defaults(video_processor: Any) -> VideoDefaults:
    def number(name: str) -> Any:
        value = getattr(video_processor, name, None)
        return value if isinstance(value, int | float) and not isinstance(value, bool) and value > 0 else None

    return VideoDefaults(number("num_frames"), number("fps"), number("min_frames"), number("max_frames"))


def _device_name(model: Any, placement: Placement) -> str:
    if placement.device_map is not None:
        return "+".join(sorted(_places(model))) or placement.device
    return torch.cuda.get_device_name() if placement.device == "cuda" else "cpu"


def _places(model: Any) -> set[str]:
    """The devices that a map gave the model to: "cuda:0", "cpu", "disk"."""
    places = getattr(model, "hf_device_map", {}).values()
    return {f"cuda:{place}" if isinstance(place, int) else str(place) for place in places}


def _method(own: Any) -> str:
    """How the checkpoint itself is quantized."""
    method = own.get("quant_method") if isinstance(own, Mapping) else own.quant_method
    return str(getattr(method, "value", method))


def _max_context(settings: CheckpointSettings, config: Any, processor: Any) -> int:
    # Tokenizers without a limit of their own say 10**30.
    limits = [
        getattr(config.get_text_config(), "max_position_embeddings", None),
        processor.tokenizer.model_max_length,
        settings.max_model_len,
    ]
    return int(min(limit for limit in limits if limit is not None))


def _name(settings: CheckpointSettings) -> str:
    return source.shown(settings.checkpoint)


def _failed(settings: CheckpointSettings, problem: str) -> VlmqError:
    return source.failed("checkpoint", _name(settings), problem)
