"""Load a checkpoint once: the model, its processor, and a description of both."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers.utils.logging
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from safetensors import SafetensorError
from transformers import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING, AutoConfig, AutoModelForImageTextToText, AutoProcessor

from engine.placement import Placement, place
from engine.revision import local_revision
from engine.types import CheckpointSettings, EngineDescription, Modality
from engine.untemplated import TEMPLATES
from vlmq.errors import ErrorCode, VlmqError

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


def load_checkpoint(settings: CheckpointSettings) -> Checkpoint:
    """Load from a directory or the Hugging Face hub, safetensors only and without the repository's own code.

    Raises:
        VlmqError: MODEL_LOAD_FAILED with one line that says why.
    """
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        return _load(settings)
    except VlmqError:
        raise
    except Exception as error:
        logger.exception("loading %s failed", settings.checkpoint)
        raise VlmqError(ErrorCode.MODEL_LOAD_FAILED, f"The checkpoint {_name(settings)} {_explain(error)}") from error


def _load(settings: CheckpointSettings) -> Checkpoint:
    folder = Path(settings.checkpoint).expanduser()
    is_local = folder.is_dir()
    if not is_local and (folder.is_absolute() or settings.checkpoint.startswith((".", "~"))):
        raise _failed(settings, "is not a directory on this machine")
    source = str(folder) if is_local else settings.checkpoint
    options = {"revision": settings.revision, "token": settings.token, "trust_remote_code": False}
    config = AutoConfig.from_pretrained(source, **options)
    if type(config) not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        raise _failed(settings, f"is no image-text-to-text model (its model type is {config.model_type})")
    processor = AutoProcessor.from_pretrained(source, **options)  # type: ignore[no-untyped-call]
    _check_processor(settings, processor)
    if processor.chat_template is None:
        processor.chat_template = TEMPLATES.get(type(processor).__name__)
    model_class: Any = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING[type(config)]
    placement = place(settings, config.dtype, model_class)
    # transformers' annotations know nothing of `output_loading_info`.
    auto_model: Any = AutoModelForImageTextToText
    model, info = auto_model.from_pretrained(
        source,
        config=config,
        dtype=placement.dtype,
        attn_implementation=placement.attn_implementation,
        device_map=placement.device,
        use_safetensors=True,
        output_loading_info=True,
        **options,
    )
    if info["missing_keys"]:
        raise _failed(settings, f"lacks {len(info['missing_keys'])} of its weights, {min(info['missing_keys'])} first")
    revision = local_revision(folder) if is_local else str(config._commit_hash or settings.revision)
    description = _describe(settings, model.eval(), processor, placement, revision)
    if placement.device == "cpu" and description.weight_bytes < _SMALL_BYTES:
        torch.set_num_threads(1)
    logger.info("loaded %s", description)
    return Checkpoint(model, processor, description)


def _check_processor(settings: CheckpointSettings, processor: Any) -> None:
    if getattr(processor, "image_processor", None) is None:
        raise _failed(settings, "has no image processor")
    if not isinstance(getattr(processor.tokenizer, "backend_tokenizer", None), tokenizers.Tokenizer):
        raise _failed(settings, "has no tokenizer that the tokenizers library can run (tokenizer.json)")


def _describe(
    settings: CheckpointSettings, model: Any, processor: Any, placement: Placement, revision: str
) -> EngineDescription:
    supported: set[Modality] = {"text", "image"}
    if getattr(processor, "video_processor", None) is not None:
        supported.add("video")
    tensors = {t.data_ptr(): t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers())}
    return EngineDescription(
        engine=settings.engine,
        checkpoint=settings.checkpoint,
        revision=revision,
        architecture=type(model).__name__,
        device=torch.cuda.get_device_name() if placement.device == "cuda" else "cpu",
        dtype=str(model.dtype).removeprefix("torch."),
        attn_implementation=model.config._attn_implementation,
        attn_reason=placement.attn_reason,
        weight_bytes=sum(tensors.values()),
        max_context=_max_context(settings, model.config, processor),
        modalities=frozenset(supported) & settings.modalities,
    )


def _max_context(settings: CheckpointSettings, config: Any, processor: Any) -> int:
    # Tokenizers without a limit of their own say 10**30.
    limits = [
        getattr(config.get_text_config(), "max_position_embeddings", None),
        processor.tokenizer.model_max_length,
        settings.max_model_len,
    ]
    return int(min(limit for limit in limits if limit is not None))


def _explain(error: BaseException) -> str:
    chain = []
    link: BaseException | None = error
    while link is not None:
        chain.append(link)
        link = link.__cause__ or link.__context__
    for kinds, explanation in _EXPLANATIONS:
        if any(isinstance(link, kinds) for link in chain):
            return explanation
    if any("attn_implementation" in str(link) for link in chain):
        return "does not work with the attention implementation that is set"
    if any("safetensors" in str(link) for link in chain):
        return "has no weights in safetensors files"
    if any("trust_remote_code" in str(link) for link in chain):
        return "needs code from its repository, which is never run"
    return "could not be loaded; the log says why"


def _name(settings: CheckpointSettings) -> str:
    # Users see this message: a local checkpoint goes by its folder's name, without the path to it.
    is_path = settings.checkpoint.startswith((".", "~", "/")) or Path(settings.checkpoint).is_dir()
    return Path(settings.checkpoint).name if is_path else settings.checkpoint


def _failed(settings: CheckpointSettings, problem: str) -> VlmqError:
    return VlmqError(ErrorCode.MODEL_LOAD_FAILED, f"The checkpoint {_name(settings)} {problem}")


# The first that fits: a gated repository is also a repository that was not found.
_EXPLANATIONS: tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], str], ...] = (
    (GatedRepoError, "is gated: ask for access on its page at the hub, and set HF_TOKEN"),
    (RevisionNotFoundError, "has no such revision"),
    (RepositoryNotFoundError, "is not on the hub, or is private: set HF_TOKEN to a token that may read it"),
    (LocalEntryNotFoundError, "is not in the local cache, and the hub cannot be reached"),
    (HFValidationError, "is neither a directory on this machine nor a repository's name"),
    ((torch.OutOfMemoryError, MemoryError), "does not fit into the memory"),
    (SafetensorError, "has weights that cannot be read: a file is truncated or damaged"),
    (ImportError, "needs a package that is not installed; the log names it"),
)
