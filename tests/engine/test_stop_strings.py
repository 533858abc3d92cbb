from hypothesis import given
from hypothesis import strategies as st

from engine.stop_strings import StopStrings


def test_what_could_become_a_stop_string_is_held_back() -> None:
    stops = StopStrings(["\n\nUser:", "END"])
    assert [stops.feed(piece) for piece in ["one\n", "\nUs", "ually", " E", "N", "O"]] == [
        "one",
        "",
        "\n\nUsually",
        " ",
        "",
        "ENO",
    ]
    assert not stops.met


def test_the_earliest_of_several_stop_strings_ends_the_text() -> None:
    stops = StopStrings(["cd", "bcde"])
    assert stops.feed("abcdef") == "a"
    assert stops.met
    assert stops.feed("more") == ""


def test_held_text_comes_with_the_flush() -> None:
    stops = StopStrings(["stop"])
    assert stops.feed("do not sto") == "do not "
    assert stops.flush() == "sto"


@given(
    pieces=st.lists(st.text(alphabet="ab", max_size=4), max_size=12),
    stops=st.lists(st.text(alphabet="ab", min_size=1, max_size=5), max_size=3),
)
def test_the_text_is_everything_before_the_first_stop_string(pieces: list[str], stops: list[str]) -> None:
    matcher = StopStrings(stops)
    shown = ""
    for piece in pieces:
        shown += matcher.feed(piece)
        # Never more than the answer will be: nothing that was shown is taken back.
        assert not any(stop in shown for stop in stops)
    met, whole = matcher.met, "".join(pieces)
    shown += matcher.flush()
    places = [whole.index(stop) for stop in stops if stop in whole]
    assert met == bool(places)
    if not met:
        assert shown == whole
    else:
        assert whole.startswith(shown)
        assert any(whole.startswith(stop, len(shown)) for stop in stops)
