"""The prompts of families whose checkpoints are published without a chat template, by their processor's class."""

# Its processor puts the start token behind the images and a line's end behind the text.
_PALIGEMMA = (
    "{% if messages | length != 1 or messages[0].role != 'user' %}"
    "{{ raise_exception('this model was trained on a single message of the user, with its images and a text') }}"
    "{% endif %}"
    "{% for part in messages[0].content if part.type == 'image' %}<image>{% endfor %}"
    "{% for part in messages[0].content if part.type == 'text' %}{{ part.text }}{% endfor %}"
)

TEMPLATES: dict[str, str] = {"PaliGemmaProcessor": _PALIGEMMA}
