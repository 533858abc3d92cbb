"""InternVL: images cut into tiles, videos as numbered frames."""

from typing import Any

import transformers as hf

from tests.engine.families.family import ALL, CHATML, VISION, Family, ids, text_config

_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% for p in m.content %}"
    "{% if p.type == 'image' %}<IMG_CONTEXT>\n{% elif p.type == 'video' %}<video>\n{% else %}{{ p.text }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def internvl(words: Any) -> tuple[Any, Any]:
    config = hf.InternVLConfig(
        text_config=hf.Qwen2Config(**text_config(words)),
        vision_config={"image_size": [32, 32], "patch_size": [8, 8], **VISION},
        image_seq_length=4,
        **ids(words, image_token_id="<IMG_CONTEXT>"),
    )
    size = {"height": 32, "width": 32}
    processor: Any = hf.InternVLProcessor(
        hf.GotOcr2ImageProcessor(size=size, crop_to_patches=True, max_patches=3),
        words,
        hf.InternVLVideoProcessor(size=size),
        image_seq_length=4,
        chat_template=_TEMPLATE,
    )
    return hf.InternVLForConditionalGeneration(config), processor


FAMILIES = (
    Family(
        "internvl",
        "InternVL",
        "OpenGVLab/InternVL3-1B-hf",
        internvl,
        ALL,
        CHATML,
        {
            "start_image_token": "<img>",
            "end_image_token": "</img>",
            "context_image_token": "<IMG_CONTEXT>",
            "video_token": "<video>",
        },
    ),
)
