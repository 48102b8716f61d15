"""Routes: price, key and preset, from facts that are passed in."""

from __future__ import annotations

from pathlib import Path

import pytest

from midwatch.config.specs import PriceSpec, RouteSpec
from midwatch.errors import NotFound, Unpriced, UsageProblem
from midwatch.models.routes import choose_preset, key_of, resolve, route_price

KEY = "sk-routes-0123456789"
ROUTES = {
    "smart": RouteSpec("smart", "smart", "openai", "gpt-5-mini", api_key_env="OPENAI_API_KEY"),
    "own": RouteSpec("own", "own", "openai", "q", base_url="http://127.0.0.1:1/v1", price=PriceSpec(0, 0, 0)),
    "dark": RouteSpec("dark", "dark", "openai", "q", base_url="http://127.0.0.1:1/v1"),
}
ALL = ("default", "own", "cloud")


def test_resolve() -> None:
    """An alias becomes route, price and the word whether its key is there; the key itself is nowhere."""
    found = resolve(ROUTES, "smart", {"OPENAI_API_KEY": KEY})
    assert (True, 250_000) == (found.key_present, found.price.input)
    assert not resolve(ROUTES, "smart", {"OPENAI_API_KEY": "  "}).key_present
    assert resolve(ROUTES, "own", {}).key_present
    assert KEY not in repr(found) + str(found.to_json())


def test_resolve_unknown() -> None:
    """An unknown alias is told with the known ones; an unpriced one is refused."""
    with pytest.raises(NotFound, match="`dark`, `own`, `smart`"):
        resolve(ROUTES, "smrt", {})
    with pytest.raises(Unpriced):
        resolve(ROUTES, "dark", {})


def test_scripted_price_from_the_file(tmp_path: Path) -> None:
    """A scripted route's price is read from its scenario; what is passed in comes first."""
    file = tmp_path / "s.yaml"
    file.write_text('scenario: 1\nprices: {m: {input: "$1", output: "$2"}}\nrules: [{say: x}]\n')
    spec = RouteSpec("local", "local", "scripted", "m", scenario=file)
    assert (1_000_000, 2_000_000) == ((price := route_price(spec)).input, price.output)
    assert 0 == resolve({"local": spec}, "local", {}, scenario_prices={}).price.output


@pytest.mark.req("MODELS-7")
def test_key_of() -> None:
    """A key is read from the named variable only; a missing or unusable one is told without its value."""
    assert KEY == key_of(ROUTES["smart"], {"OPENAI_API_KEY": f" {KEY}\n"})
    assert key_of(ROUTES["own"], {"OPENAI_API_KEY": KEY}) is None
    with pytest.raises(UsageProblem, match="`OPENAI_API_KEY`"):
        key_of(ROUTES["smart"], {})
    for bad in (f"{KEY}\r\nx-evil: 1", f"{KEY} {KEY}", f"{KEY}é"):
        with pytest.raises(UsageProblem) as caught:
            key_of(ROUTES["smart"], {"OPENAI_API_KEY": bad})
        assert KEY not in str(caught.value)


@pytest.mark.req("MODELS-15")
@pytest.mark.parametrize(
    ("environ", "presets", "asked", "preset", "words"),
    [
        ({}, ALL, None, None, "no key and no server"),
        ({}, (), None, None, "the routes as the fleet file has them"),
        ({"OPENAI_API_KEY": KEY}, ALL, None, "cloud", "costs money"),
        ({"OPENAI_BASE_URL": "http://x/v1"}, ALL, None, "own", "your own OpenAI-compatible server"),
        ({"OPENAI_BASE_URL": "http://x/v1", "OPENAI_API_KEY": KEY}, ALL, None, "own", "`OPENAI_BASE_URL` is set"),
        ({"OPENAI_BASE_URL": "http://x/v1", "OPENAI_API_KEY": KEY}, ("default", "cloud"), None, "cloud", "costs money"),
        ({"OPENAI_API_KEY": KEY}, ("default",), None, None, "has no preset `cloud`"),
        ({"OPENAI_API_KEY": " "}, ALL, None, None, "no key"),
        ({"OPENAI_API_KEY": KEY, "MIDWATCH_PRESET": "default"}, ALL, None, "default", "`MIDWATCH_PRESET` is set"),
        ({"OPENAI_API_KEY": KEY, "MIDWATCH_PRESET": "default"}, ALL, "cloud", "cloud", "asked for"),
        ({}, ALL, "typo", "typo", "asked for"),
    ],
)
def test_choose_preset(
    environ: dict[str, str], presets: tuple[str, ...], asked: str | None, preset: str | None, words: str
) -> None:
    """What was asked for wins, then the variable, then what is there and the fleet knows; the words say why."""
    choice = choose_preset(environ, presets, asked=asked)
    assert (preset, True, False) == (choice.preset, words in choice.words, KEY in choice.words)
