"""Small pictures on the terminal: two pixels to a character, the upper and the lower half of a block."""

from collections.abc import Sequence

from PIL import Image
from rich.console import Console
from rich.style import Style
from rich.text import Text

SIDE = 24
GAP = "  "


def draw_on_terminal(console: Console, pictures: Sequence[Image.Image]) -> None:
    """Draw square pictures side by side; nothing where the output shows no colours."""
    if console.color_system is None:
        return
    small = [picture.resize((SIDE, SIDE)).convert("RGB") for picture in pictures]
    for row in range(0, SIDE, 2):
        line = Text()
        for picture in small:
            for column in range(SIDE):
                upper, lower = (_color(picture, column, row + half) for half in (0, 1))
                line.append("▀", Style(color=upper, bgcolor=lower))
            line.append(GAP)
        console.print(line)


def _color(picture: Image.Image, x: int, y: int) -> str:
    pixel = picture.getpixel((x, y))
    red, green, blue = pixel if isinstance(pixel, tuple) else (0, 0, 0)
    return f"#{int(red):02x}{int(green):02x}{int(blue):02x}"
