"""The demo's page: the curves as inline SVG, the table, a sample and the commands, in one file without network."""
from __future__ import annotations

import html
import math

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 800, 560, 62, 178, 36, 60

# name → short label, stroke width, dash; colours are in the style sheet, light and dark
SERIES = {
    "base": ("base", 2, "2 5"),
    "pi": ("base + PI, untrained", 2, "9 5"),
    "lora": ("LoRA only", 2, ""),
    "longlora": ("LongLoRA", 3, ""),
    "finish": ("LongLoRA + finish", 3.5, ""),
    "full": ("full attention", 2, "12 4 2 4"),
}

STYLE = """
:root { color-scheme: light dark; --page:#fbfbfa; --panel:#ffffff; --ink:#1c2024; --soft:#5d656e; --line:#dfe2e6;
  --band:#eef4fb; --code:#f3f4f6; --base:#7b838c; --pi:#a371c9; --lora:#1a9a7b; --longlora:#1f6fd0; --finish:#d9531e; --full:#1c2024; }
@media (prefers-color-scheme: dark) { :root { --page:#14171a; --panel:#1b1f23; --ink:#e7eaee; --soft:#9aa4af; --line:#31373e;
  --band:#1d2a38; --code:#22272c; --base:#98a1ab; --pi:#c39be6; --lora:#3cc7a3; --longlora:#5aa5ff; --finish:#ff8552; --full:#e7eaee; } }
* { box-sizing: border-box }
body { margin:0; background:var(--page); color:var(--ink); font:16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif }
main { max-width:1240px; margin:0 auto; padding:40px 24px 64px }
h1 { font-size:30px; line-height:1.2; margin:0 0 8px; letter-spacing:-.01em }
h2 { font-size:18px; margin:40px 0 12px }
p { max-width:74ch } .soft { color:var(--soft) }
.cards { display:grid; grid-template-columns:repeat(auto-fit,minmax(min(100%,320px),1fr)); gap:14px; margin:26px 0 }
.card, .panel { background:var(--panel); border:1px solid var(--line); border-radius:12px; padding:16px 18px }
.card b { display:block; font-size:27px; line-height:1.25; font-variant-numeric:tabular-nums }
.card span { color:var(--soft); font-size:14px }
.both { display:grid; grid-template-columns:minmax(0,1.22fr) minmax(0,1fr); gap:16px; align-items:start }
@media (max-width:1000px) { .both { grid-template-columns:minmax(0,1fr) } }
svg { display:block; width:100%; height:auto }
svg text { font:14px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; fill:var(--soft) }
svg .grid { stroke:var(--line); stroke-width:1 } svg .mark { stroke:var(--soft); stroke-width:1; stroke-dasharray:3 4 }
svg .band { fill:var(--band) } svg .curve { fill:none; stroke-linejoin:round; stroke-linecap:round }
svg .name { font-weight:600 } svg .lead { stroke-width:1; opacity:.6; fill:none }
.scroll { overflow-x:auto } table { border-collapse:collapse; width:100%; font-size:14px; font-variant-numeric:tabular-nums }
th, td { padding:7px 7px; text-align:right; border-bottom:1px solid var(--line); white-space:nowrap }
th:first-child, td:first-child { text-align:left; padding-left:0 } tr:last-child td { border-bottom:0 }
thead th { color:var(--soft); font-weight:500 } td.key { background:var(--band) } td.best { font-weight:700 }
i.dot { display:inline-block; width:10px; height:10px; border-radius:50%; margin-right:8px }
pre { background:var(--code); border-radius:10px; padding:14px 16px; overflow-x:auto; font:13px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; tab-size:4; margin:10px 0 }
pre em { color:var(--soft); font-style:normal } dl { display:grid; grid-template-columns:max-content 1fr; gap:4px 18px; margin:0 } dt { color:var(--soft) } dd { margin:0 }
dl.rows { margin-top:16px; font-size:13.5px; line-height:1.4; gap:5px 14px }
"""


def ticks(low: float, high: float) -> list[float]:
    """Round values of a logarithmic axis between low and high, at most eight."""
    for steps in ((1, 1.5, 2, 3, 4, 5, 6, 8), (1, 2, 3, 5, 8), (1, 2, 5), (1, 3), (1,)):
        found = [m * 10.0**e for e in range(-1, 7) for m in steps if low <= m * 10.0**e <= high]
        if len(found) <= 8:
            return found
    return found


def spread(wanted: list[float], gap: float, low: float, high: float) -> list[float]:
    """Label heights at least `gap` apart, near the wanted ones, in their order."""
    order = sorted(range(len(wanted)), key=wanted.__getitem__)
    placed = list(wanted)
    for before, index in zip([None, *order], order):
        placed[index] = max(placed[index], low if before is None else placed[before] + gap)
    limit = high
    for index in reversed(order):
        placed[index] = min(placed[index], limit)
        limit = placed[index] - gap
    return placed


def chart(table: dict[str, dict[int, float]], contexts: list[int], base: int, extended: int) -> str:
    values = [ppl for row in table.values() for ppl in row.values()]
    low, high = min(values) / 1.06, max(values) * 1.06
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM

    def x(context: float) -> float:
        share = math.log2(context / contexts[0]) / math.log2(contexts[-1] / contexts[0])
        return LEFT + 14 + share * (right - LEFT - 28)

    def y(ppl: float) -> float:
        return bottom - math.log(ppl / low) / math.log(high / low) * (bottom - TOP)

    out = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="Perplexity by context length">',
           f'<rect class="band" x="{x(base):.1f}" y="{TOP}" width="{x(extended) - x(base):.1f}" height="{bottom - TOP}"/>']
    for tick in ticks(low, high):
        out.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>'
                   f'<text x="{LEFT - 10}" y="{y(tick) + 4.5:.1f}" text-anchor="end">{tick:g}</text>')
    for context in contexts:
        out.append(f'<text x="{x(context):.1f}" y="{bottom + 21}" text-anchor="middle">{context:,}</text>')
    for context, label in ((base, "trained"), (extended, "extended")):
        out.append(f'<line class="mark" x1="{x(context):.1f}" x2="{x(context):.1f}" y1="{TOP}" y2="{bottom}"/>'
                   f'<text x="{x(context):.1f}" y="{TOP - 10}" text-anchor="middle">{label}: {context:,}</text>')
    out.append(f'<text x="{(LEFT + right) / 2}" y="{HEIGHT - 12}" text-anchor="middle">context in tokens</text>'
               f'<text transform="translate(16 {(TOP + bottom) / 2}) rotate(-90)" text-anchor="middle">'
               'perplexity on held-out text (lower is better)</text>')
    names = [name for name in SERIES if name in table]
    ends = [y(table[name][contexts[-1]]) for name in names]
    for name, end, label_y in zip(names, ends, spread(ends, 18, TOP + 8, bottom - 4)):
        label, width, dash = SERIES[name]
        colour = f"var(--{name})"
        points = " ".join(f"{x(c):.1f},{y(table[name][c]):.1f}" for c in contexts)
        out.append(f'<polyline class="curve" points="{points}" stroke="{colour}" stroke-width="{width}"'
                   + (f' stroke-dasharray="{dash}"' if dash else "") + "/>")
        for context in contexts:
            ppl = table[name][context]
            out.append(f'<circle cx="{x(context):.1f}" cy="{y(ppl):.1f}" r="{width / 2 + 2:.1f}" fill="{colour}">'
                       f"<title>{html.escape(label)} at {context:,}: {ppl:.2f}</title></circle>")
        edge = x(contexts[-1])
        out.append(f'<path class="lead" d="M{edge + 7:.1f} {end:.1f} L{right + 8} {label_y:.1f}" stroke="{colour}"/>'
                   f'<text class="name" x="{right + 12}" y="{label_y + 4.5:.1f}" style="fill:{colour}">{html.escape(label)}</text>')
    out.append("</svg>")
    return "\n".join(out)


def figures(table: dict, contexts: list[int], extended: int) -> str:
    head = "".join(f"<th>{context:,}</th>" for context in contexts)
    best = {context: min(row[context] for row in table.values()) for context in contexts}
    body = []
    for name, row in table.items():
        cells = "".join(f'<td class="{"key" if c == extended else ""}{" best" if row[c] == best[c] else ""}">{row[c]:.2f}</td>'
                        for c in contexts)
        body.append(f'<tr><td><i class="dot" style="background:var(--{name})"></i>{html.escape(SERIES[name][0])}</td>{cells}</tr>')
    return f'<div class="scroll"><table><thead><tr><th>perplexity at</th>{head}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'


def page(table: dict[str, dict[int, float]], contexts: list[int], base: int, extended: int, titles: dict[str, str],
         cards: list[tuple[str, str]], facts: list[tuple[str, str]], prompt: str, continuation: str,
         commands: list[tuple[str, float]]) -> str:
    """`cards`: (figure, what it is). `facts`: (name, value). `commands`: (command line, seconds)."""
    def text(value: str) -> str:
        return html.escape(value, quote=False)

    shown = "".join(f"<div class='card'><b>{text(figure)}</b><span>{text(what)}</span></div>" for figure, what in cards)
    listed = "".join(f"<dt>{text(name)}</dt><dd>{text(value)}</dd>" for name, value in facts)
    tail = "…\n" + "".join(prompt.splitlines(keepends=True)[-10:])
    rows = "".join(f"<dt>{text(SERIES[name][0])}</dt><dd>{text(titles[name])}</dd>" for name in table)
    lines = "\n".join(f"{text(line)}  <em># {seconds:.0f} s</em>" for line, seconds in commands)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>longlora: {base:,} tokens to {extended:,}</title><style>{STYLE}</style></head><body><main>
<h1>A context of {base:,} tokens, extended to {extended:,}</h1>
<p class="soft">A small Llama was trained from random weights at {base:,} tokens, then its context was extended
{extended // base}× with position interpolation and a short fine-tuning. Perplexity on held-out text with full attention; the
same windows at every length, cut to it.</p>
<div class="cards">{shown}</div>
<div class="both"><div class="panel">{chart(table, contexts, base, extended)}</div>
<div class="panel">{figures(table, contexts, extended)}<dl class="rows">{rows}</dl></div></div>
<h2>What the merged model writes</h2>
<p class="soft">The last of a held-out file's lines that it read (grey), and how the model goes on, sampled. It has few parameters: expect the shape of code, not sense.</p>
<pre><em>{text(tail)}</em>{text(continuation)}</pre>
<h2>Settings</h2><div class="panel"><dl>{listed}</dl></div>
<h2>Commands</h2><pre>{lines}</pre>
</main></body></html>
"""
