"""Paint: a drawing as SVG or as Mermaid text, by our own hand: no web service, no program, no script in the picture.

In:   a `Drawing`. Out: text.
May import: `graph.draw`. Must not know: where the graph came from.

Layers by the longest way from the start, edges that lead back not counted; within a layer by the mean place of what leads to a node. Edges
that lead back run along the right side, dashed like those that depend on the state.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final
from xml.sax.saxutils import escape

from midwatch.graph.draw import Drawing, Edge, Node

__all__ = ["mermaid", "svg"]

_WIDE: Final = 210
_LINE: Final = 15
_GAP: Final = 34
_FALL: Final = 62
_LONGEST: Final = 32
_STYLE: Final = (
    "text{font:12px system-ui,sans-serif;fill:#1c2733}.s{fill:#5a6b7b}.g{fill:#9a5b00}.u{fill:#b3261e}"
    "rect{fill:#f6f8fa;stroke:#7b8a99}.open{stroke:#b3261e;stroke-width:2;fill:#fdf0ef}.gate{stroke:#c98a1b;stroke-width:2}"
    "path{fill:none;stroke:#5a6b7b;stroke-width:1.3}.c{stroke-dasharray:5 4}"
)
_ARROW: Final = (
    '<marker id="a" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    '<path d="M0 0L8 4L0 8z" style="fill:#5a6b7b"/></marker>'
)


def mermaid(drawing: Drawing) -> str:
    """Give the graph as a Mermaid flow chart."""
    names = {node.id: f"n{place}" for place, node in enumerate(drawing.nodes)}
    lines = ["flowchart TD"]
    for node in drawing.nodes:
        text = "<br/>".join(_quoted(line) for line in _lines(node))
        left, right = ("([", "])") if node.kind != "node" else ("[", "]")
        lines.append(f'    {names[node.id]}{left}"{text}"{right}')
    lines += [
        f"    {names[edge.source]} {'-.->' if edge.conditional else '-->'} {names[edge.target]}"
        for edge in drawing.edges
    ]
    for word, style in (("gated", "stroke:#c98a1b"), ("unguarded", "stroke:#b3261e")):
        marked = [names[node.id] for node in drawing.nodes if (node.gates if word == "gated" else node.unguarded)]
        if marked:
            lines += [f"    classDef {word} {style},stroke-width:2px", f"    class {','.join(marked)} {word}"]
    return "\n".join(lines) + "\n"


def svg(drawing: Drawing) -> str:
    """Give the graph as one SVG file; the same graph gives the same bytes."""
    layers = _layers(drawing)
    widest = max(len(layer) for layer in layers)
    width = widest * (_WIDE + _GAP) + 2 * _GAP + 60
    boxes: dict[str, tuple[float, float, float]] = {}
    top = float(_GAP)
    for layer in layers:
        tall = max(_height(node) for node in layer)
        left = (width - 60 - len(layer) * (_WIDE + _GAP) + _GAP) / 2
        for place, node in enumerate(layer):
            boxes[node.id] = (left + place * (_WIDE + _GAP), top, _height(node))
        top += tall + _FALL
    height = top - _FALL + _GAP
    ranks = {node.id: rank for rank, layer in enumerate(layers) for node in layer}
    parts = [_edge(edge, boxes, ranks, width) for edge in drawing.edges]
    parts += [part for layer in layers for node in layer for part in _box(node, boxes[node.id])]
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" role="img">'
    )
    title = f"<title>{_clean(drawing.fleet)}</title><style>{_STYLE}</style><defs>{_ARROW}</defs>"
    return "\n".join([head, title, *parts, "</svg>", ""])


def _layers(drawing: Drawing) -> list[list[Node]]:
    nodes = {node.id: node for node in drawing.nodes}
    ahead = _ahead(drawing)
    rank = dict.fromkeys(nodes, 0)
    for _ in nodes:  # a longest way has no more edges than there are nodes
        moved = False
        for edge in ahead:
            if rank[edge.target] <= rank[edge.source]:
                rank[edge.target], moved = rank[edge.source] + 1, True
        if not moved:
            break
    ends = [name for name in nodes if nodes[name].kind == "end"]
    for name in ends:
        rank[name] = max(rank.values())
    layers: list[list[Node]] = [[] for _ in range(max(rank.values()) + 1)]
    place: dict[str, float] = {}
    for name in sorted(nodes, key=lambda name: rank[name]):
        layers[rank[name]].append(nodes[name])
    for layer in layers:
        layer.sort(key=lambda node: _mean(node.id, ahead, place))
        place |= {node.id: at - len(layer) / 2 for at, node in enumerate(layer)}
    return [layer for layer in layers if layer]


def _ahead(drawing: Drawing) -> list[Edge]:
    """Give the edges without those that lead back, as a walk from the first node finds them."""
    out: dict[str, list[Edge]] = {node.id: [] for node in drawing.nodes}
    for edge in drawing.edges:
        out[edge.source].append(edge)
    state: dict[str, int] = {}
    found: list[Edge] = []
    for first, edges in out.items():
        stack: list[tuple[str, Iterator[Edge]]] = [] if first in state else [(first, iter(edges))]
        state.setdefault(first, 1)
        while stack:
            name, rest = stack[-1]
            following = next(rest, None)
            if following is None:
                state[name] = 2
                stack.pop()
            elif state.get(following.target) != 1:
                found.append(following)
                if following.target not in state:
                    state[following.target] = 1
                    stack.append((following.target, iter(out[following.target])))
    return found


def _mean(name: str, ahead: list[Edge], place: Mapping[str, float]) -> float:
    before = [place[edge.source] for edge in ahead if edge.target == name and edge.source in place]
    return sum(before) / len(before) if before else 0.0


def _edge(edge: Edge, boxes: Mapping[str, tuple[float, float, float]], ranks: Mapping[str, int], width: float) -> str:
    (x1, y1, h1), (x2, y2, h2) = boxes[edge.source], boxes[edge.target]
    look = ' class="c"' if edge.conditional else ""
    if ranks[edge.target] > ranks[edge.source]:
        ax, ay, bx, by = x1 + _WIDE / 2, y1 + h1, x2 + _WIDE / 2, y2
        bend = (by - ay) / 2
        way = f"M{ax:.0f} {ay:.0f}C{ax:.0f} {ay + bend:.0f} {bx:.0f} {by - bend:.0f} {bx:.0f} {by:.0f}"
    else:
        ax, ay, bx, by = x1 + _WIDE, y1 + h1 / 2 + 6, x2 + _WIDE, y2 + h2 / 2 - 6
        out = min(width - 4, max(ax, bx) + 24)
        way = f"M{ax:.0f} {ay:.0f}C{out:.0f} {ay:.0f} {out:.0f} {by:.0f} {bx:.0f} {by:.0f}"
    return f'<path d="{way}" marker-end="url(#a)"{look}/>'


def _box(node: Node, box: tuple[float, float, float]) -> Iterator[str]:
    x, y, tall = box
    look = "open" if node.unguarded else "gate" if node.gates else ""
    round_ = tall / 2 if node.kind != "node" else 6
    yield f'<rect x="{x:.0f}" y="{y:.0f}" width="{_WIDE}" height="{tall:.0f}" rx="{round_:.0f}" class="{look}"/>'
    for place, line in enumerate(_lines(node)):
        kind = "" if place == 0 else "u" if line.startswith("unguarded") else "g" if line.startswith("gate:") else "s"
        at = f'x="{x + _WIDE / 2:.0f}" y="{y + 19 + place * _LINE:.0f}"'
        yield f'<text {at} text-anchor="middle" class="{kind}">{_clean(line)}</text>'


def _height(node: Node) -> float:
    return 14 + _LINE * len(_lines(node))


def _lines(node: Node) -> list[str]:
    lines = [node.id.strip("_").replace(":", " / "), *node.detail]
    lines += [f"gate: {who}" for who in node.gates]
    lines += ["unguarded"] if node.unguarded else []
    return [line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…" for line in lines]


def _clean(text: str) -> str:
    return escape("".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text))


def _quoted(text: str) -> str:
    """Make a text safe between the quotes of Mermaid, which knows entities by `#`."""
    shown = "".join(char if char.isprintable() else " " for char in text)
    return shown.translate({ord(char): f"#{ord(char)};" for char in '#"<>`;'})
