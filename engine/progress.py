"""What transformers tells its progress bars, told to us."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from transformers.utils.logging import set_tqdm_hook

OnFraction = Callable[[float], None]


@contextmanager
def watch_weights(on_fraction: OnFraction) -> Iterator[None]:
    """Report the fraction of the weights that are on their device, while transformers loads them."""

    def hook(make: Callable[..., Any], arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        bar = make(*arguments, **options)
        # The other bars count files that open in a moment.
        if options.get("desc") != "Loading weights" or not arguments:
            return bar
        return _reporting(bar, len(arguments[0]), on_fraction)

    previous = set_tqdm_hook(hook)
    try:
        yield
    finally:
        set_tqdm_hook(previous)


def _reporting(items: Iterable[Any], total: int, on_fraction: OnFraction) -> Iterator[Any]:
    for number, item in enumerate(items):
        on_fraction(number / total)
        yield item
    on_fraction(1.0)
