"""Several beams or texts share what was made of a prompt's media."""

from typing import Any


def share_media_without_deepstack(model: Any) -> None:
    """Let a model without deepstack layers serve several beams: transformers 5.23 looks into the first of none."""
    expand = getattr(model, "_expand_multimodal_outputs", None)
    if expand is None:
        return

    def tolerant(input_ids: Any, mm_encoder_output: dict[str, Any], **rest: Any) -> Any:
        bare = [made for made in mm_encoder_output.values() if getattr(made, "deepstack_features", None) == []]
        for made in bare:
            made.deepstack_features = None
        expanded = expand(input_ids, mm_encoder_output, **rest)
        for made in bare:
            made.deepstack_features = []
        return expanded

    model._expand_multimodal_outputs = tolerant
