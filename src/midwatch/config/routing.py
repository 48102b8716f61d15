"""Routing: which model an alias means under the chosen preset.

In:   the draft, the preset asked for, the environment. Out: `Routing`: a `RouteSpec` for each alias, and problems.
May import: `draft`, `file_model`, `files`, `specs`; errors. Must not know: prices, providers' libraries, keys.
Why only routes may read the environment: an address differs from machine to machine; what an agent may do must not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from midwatch.config.draft import Draft
from midwatch.config.file_model import RouteFile
from midwatch.config.files import locate
from midwatch.config.specs import PriceSpec, Provider, RouteSpec
from midwatch.config.yaml_source import Place
from midwatch.errors import Problem

__all__ = ["PRESET_VARIABLE", "Routing", "aliases", "route"]

PRESET_VARIABLE: Final = "MIDWATCH_PRESET"
_VARIABLE = re.compile(r"\$\{env:([A-Za-z_][A-Za-z0-9_]{0,127})\}")
_KEYS: Final[Mapping[Provider, str]] = {"openai": "OPENAI_API_KEY", "anthropic": "ANTHROPIC_API_KEY"}
_INTERPOLATED: Final = ("base_url", "model")


@dataclass(frozen=True, slots=True)
class Routing:
    """Aliases resolved; `preset` is the one chosen, or None when the file has none."""

    preset: str | None
    routes: Mapping[str, RouteSpec]
    problems: tuple[Problem, ...]


def aliases(draft: Draft) -> frozenset[str]:
    """Give every alias that an agent may name: routes, and what any preset maps."""
    mapped = (targets for targets in draft.file.presets.values() if isinstance(targets, dict))
    return draft.names("routes").union(*mapped)


def route(draft: Draft, *, base: Path, asked: str | None, environ: Mapping[str, str]) -> Routing:
    """Resolve each alias through the preset: `asked`, else the variable `MIDWATCH_PRESET`, else `default`.

    Every preset is checked, also those not chosen. A missing variable is a problem only for a route that an agent uses.
    """
    problems = _misplaced_variables(draft)
    for name in draft.file.routes:
        problems += _shape(draft, name, base)
    for preset, targets in draft.file.presets.items():
        problems += _preset_problems(draft, preset, targets)
    chosen = asked or environ.get(PRESET_VARIABLE) or ("default" if "default" in draft.names("presets") else None)
    if chosen is not None and chosen not in draft.names("presets"):
        known = ", ".join(f"`{name}`" for name in sorted(draft.names("presets"))) or "none"
        problems.append(
            draft.problem(("presets",), f"there is no preset `{chosen}`; known presets: {known}", "unknown-preset")
        )
        chosen = None
    planner = None if draft.file.containment is None else draft.file.containment.planner
    used = {planner, *(agent.route for agent in draft.file.agents.values())}
    resolved: dict[str, RouteSpec] = {}
    for alias in sorted(aliases(draft)):
        target = _target(draft, chosen, alias)
        spec = _spec(draft, alias, target, base, environ) if target is not None else None
        if spec is None:
            problems += _unresolved(draft, chosen, alias) if target == alias else []
            continue
        resolved[alias] = spec
        if alias in used:
            problems += _resolved_problems(draft, spec)
    return Routing(chosen, resolved, tuple(dict.fromkeys(problems)))


def _target(draft: Draft, preset: str | None, alias: str) -> str | None:
    targets = draft.file.presets.get(preset) if preset is not None else None
    if targets is None:
        return alias
    if isinstance(targets, str):
        return targets
    seen: list[str] = []
    while alias in targets:
        if alias in seen:
            return None
        seen.append(alias)
        alias = targets[alias]
    return alias


def _preset_problems(draft: Draft, preset: str, targets: str | Mapping[str, str]) -> list[Problem]:
    if isinstance(targets, str):
        return _target_problems(draft, ("presets", preset), targets, frozenset())
    problems: list[Problem] = []
    for alias, target in targets.items():
        place = ("presets", preset, alias)
        problems += _target_problems(draft, place, target, frozenset(targets))
        if _target(draft, preset, alias) is None:
            message = f"preset `{preset}` sends `{alias}` around in a circle; let it end at a route"
            problems.append(draft.problem(place, message, "alias-cycle"))
    return problems


def _target_problems(draft: Draft, place: Place, target: str, mapped: frozenset[str]) -> list[Problem]:
    if target in draft.names("routes") or target in mapped or _shorthand(target) is not None:
        return []
    message = f"`{target}` is neither a route nor `provider/model`; {_known('routes', draft.names('routes'))}"
    return [draft.problem(place, message, "unknown-route")]


def _shorthand(target: str) -> tuple[Provider, str] | None:
    provider, slash, model = target.partition("/")
    found = next((known for known in _KEYS if known == provider), None)
    if found is None or not slash or re.fullmatch(r"[^\s$]{1,200}", model) is None:
        return None
    return found, model


def _spec(draft: Draft, alias: str, target: str, base: Path, environ: Mapping[str, str]) -> RouteSpec | None:
    file = draft.file.routes.get(target)
    if file is not None:
        return _from_file(alias, target, file, base, environ)
    short = _shorthand(target)
    if short is None:
        return None
    # The alias's own bounds stay; address, key, price and context belong to the model that was replaced.
    own = draft.file.routes.get(alias)
    provider, model = short
    if own is None:
        return RouteSpec(alias, target, provider, model, api_key_env=_KEYS[provider])
    return RouteSpec(
        alias=alias,
        target=target,
        provider=provider,
        model=model,
        api_key_env=_KEYS[provider],
        max_output=own.max_output,
        retries=own.retries,
        timeout_us=own.timeout,
    )


def _unresolved(draft: Draft, preset: str | None, alias: str) -> list[Problem]:
    """Report an alias that other presets know and the chosen one leaves leading nowhere."""
    if alias in draft.names("routes"):
        return []  # its block is broken, which has been said
    under = f"under the preset `{preset}`" if preset is not None else "without a preset"
    message = f"`{alias}` leads to no route {under}; add the route, or choose a preset that has it"
    return [
        draft.problem(("agents", name, "route"), message, "unresolved-route")
        for name, agent in draft.file.agents.items()
        if agent.route == alias
    ]


def _from_file(alias: str, target: str, file: RouteFile, base: Path, environ: Mapping[str, str]) -> RouteSpec:
    missing: list[str] = []

    def fill(text: str) -> str:
        def value(match: re.Match[str]) -> str:
            found = environ.get(match[1], "")
            if not found:
                missing.append(match[1])
            return found or match[0]

        return _VARIABLE.sub(value, text)

    base_url = fill(file.base_url) if file.base_url is not None else None
    price = file.price
    return RouteSpec(
        alias=alias,
        target=target,
        provider=file.provider,
        model=fill(file.model) if file.model is not None else file.provider,
        base_url=base_url,
        # A key is never sent to another server than the provider's own unless the file says so.
        api_key_env=file.api_key_env or (_KEYS.get(file.provider) if base_url is None else None),
        max_output=file.max_output,
        context=file.context,
        price=None
        if price is None
        else PriceSpec(
            input=price.input_per_mtok,
            cached_input=price.input_per_mtok if price.cached_input_per_mtok is None else price.cached_input_per_mtok,
            output=price.output_per_mtok,
        ),
        protocol=file.protocol,
        scenario=None if file.scenario is None else locate(base, file.scenario).path,
        retries=file.retries,
        timeout_us=file.timeout,
        missing_env=tuple(dict.fromkeys(missing)),
    )


def _shape(draft: Draft, name: str, base: Path) -> list[Problem]:
    """Check what one route needs and what makes no sense in it."""
    file = draft.file.routes[name]
    place: Place = ("routes", name)
    problems: list[Problem] = []

    def say(key: str, message: str, code: str) -> None:
        problems.append(draft.problem((*place, key), message, code))

    if file.provider == "scripted":
        for key in ("base_url", "api_key_env"):
            if getattr(file, key) is not None:
                say(key, f"route `{name}` is scripted and starts its own server; take `{key}` away", "route-shape")
        if file.scenario is None:
            say("provider", f"route `{name}` is scripted and has no `scenario`; name its file", "route-shape")
        else:
            found = locate(base, file.scenario)
            if found.reason is not None:
                say("scenario", f"the scenario `{file.scenario}` {found.reason}", found.code)
    else:
        if file.model is None:
            say("provider", f"route `{name}` has no `model`; name one of the provider's", "route-shape")
        if file.scenario is not None:
            say("scenario", f"only a scripted route has a scenario; take it away from `{name}`", "route-shape")
    if file.base_url is not None and not _VARIABLE.search(file.base_url) and not _usable_url(file.base_url):
        say("base_url", _bad_url(name), "bad-url")
    if file.context is not None and file.max_output >= file.context:
        say("max_output", f"`max_output` of route `{name}` leaves no room in its `context`; lower it", "out-of-range")
    return problems


def _resolved_problems(draft: Draft, spec: RouteSpec) -> list[Problem]:
    """Check what only the environment decides. Values from it are never quoted."""
    place: Place = ("routes", spec.target)
    problems: list[Problem] = []
    for name in spec.missing_env:
        key = next((key for key in _INTERPOLATED if f"${{env:{name}}}" in (getattr(spec, key) or "")), "base_url")
        message = f"route `{spec.target}` needs the environment variable `{name}`; set it, or choose another preset"
        problems.append(draft.problem((*place, key), message, "missing-variable"))
    if not spec.missing_env and spec.base_url is not None and not _usable_url(spec.base_url):
        problems.append(draft.problem((*place, "base_url"), _bad_url(spec.target), "bad-url"))
    return problems


def _usable_url(url: str) -> bool:
    return re.fullmatch(r"https?://[^\s/?#@]+(?:/[^\s?#@]*)?", url) is not None


def _bad_url(name: str) -> str:
    return (
        f"`base_url` of route `{name}` is not a usable address; write `http://` or `https://`, a host and a path, "
        "without credentials (those go through `api_key_env`)"
    )


def _misplaced_variables(draft: Draft) -> list[Problem]:
    """Find `${…}` where it would stay a plain text: outside routes, or misspelt."""
    problems: list[Problem] = []

    def look(value: object, place: Place) -> None:
        if isinstance(value, dict):
            for key, child in value.items():
                look(child, (*place, key))
        elif isinstance(value, list):
            for index, child in enumerate(value):
                look(child, (*place, index))
        elif isinstance(value, str) and "${" in value and not _is_text(place):
            allowed = len(place) == 3 and place[0] == "routes" and place[2] in _INTERPOLATED
            if not allowed:
                message = "environment variables are read in `base_url` and `model` of routes only; write the value"
                problems.append(draft.problem(place, message, "misplaced-variable"))
            elif "${" in _VARIABLE.sub("", value):
                message = "a variable is written `${env:NAME}`; nothing else is replaced"
                problems.append(draft.problem(place, message, "misplaced-variable"))

    look(draft.raw, ())
    return problems


def _is_text(place: Place) -> bool:
    # Prompts and inputs are for models: `${…}` in them is their own. Secrets in headers have a check of their own.
    if place[-5:-3] == ("sandbox", "egress") and place[-2:-1] == ("headers",):
        return True
    if place[:1] in (("mcp",), ("openapi",)) and place[2:3] == ("headers",):
        return True
    return (place[:1] == ("agents",) and place[-1:] == ("prompt_text",)) or place[:1] == ("schedules",)


def _known(what: str, names: frozenset[str]) -> str:
    return f"known {what}: {', '.join(f'`{name}`' for name in sorted(names)) or 'none'}"
