"""An inspection as a folder: numbers in JSON, pictures, a Markdown report and one HTML page."""

import base64
import html
import json
from collections.abc import Sequence
from pathlib import Path

from vcr_zoo.results import versions

from .inspect import Comparison, Inspection
from .measured import Measured
from .measures import MEASURES
from .pictures import PICTURES, cka_map
from .style import DPI, save

OTHERS = {  # measure: label, meaning
    "nearest_class": (
        "nearest class mean, accuracy",
        "share of pictures nearest to their own class's mean, themselves left out; 1 is collapse",
    ),
    "information": (
        "information on the label (nats)",
        "lower bound: entropy of the labels less a linear classifier's held-out cross-entropy",
    ),
    "self_duality": ("NC3, classifier from class means", "0 is collapse"),
    "disagreement": ("NC4, classifier from nearest mean", "share decided otherwise; 0 is collapse"),
}
LABELS = {name: (row.label, row.meaning) for name, row in MEASURES.items()} | OTHERS
SHOWN = 104  # pixels of an inch of a picture on the page
ALONG = ("deviation", "correlation", "effective_rank", "rankme", "cdnv", "nearest_class")


def write(
    folder: str | Path, networks: Sequence[Inspection], compared: Comparison, about: dict
) -> list[Path]:
    """Everything that was found, into a folder: returns the files, the report first.

    Args:
        networks: one, or a network and its control.
        compared: both with each other; of one, with itself.
        about: what else to keep: data, split, command, ...
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    pictures = draw(folder, networks, compared)
    record = folder / "inspection.json"
    record.write_text(json.dumps(as_json(networks, compared, about), indent=1) + "\n")
    text = folder / "report.md"
    text.write_text(markdown(networks, compared, about, pictures))
    page = folder / "report.html"
    page.write_text(webpage(networks, compared, about, pictures))
    return [text, page, record, *(path for path, _ in pictures)]


def draw(folder: Path, networks, compared: Comparison) -> list[tuple[Path, str]]:
    """Save every picture; each with its caption."""
    what = "the two networks'" if len(networks) > 1 else "the network's"
    caption = f"How alike {what} features are, whatever rotation and scale."
    last = {"cka": (lambda some: cka_map(some[0], some[-1], compared), caption)}
    saved = []
    for name, (make, caption) in {**PICTURES, **last}.items():
        figure = make(networks)
        if figure is not None:
            save(figure, folder / f"{name}.png")
            saved.append((folder / f"{name}.png", caption))
    return saved


def as_json(networks: Sequence[Inspection], compared: Comparison, about: dict) -> dict:
    """All numbers; a value that is not defined is {"undefined": reason}."""
    return {
        **about,
        "versions": versions(),
        "networks": [network_json(network) for network in networks],
        "cka": {p: {q: v.record() for q, v in row.items()} for p, row in compared.cka.items()},
        "compared": {name: value.record() for name, _, value in between(networks, compared)},
    }


def network_json(network: Inspection) -> dict:
    placements = {}
    for place, numbers in network.numbers.items():
        m = network.moments[place]
        placements[place] = {
            "width": len(m.origin),
            "measures": {name: value.record() for name, value in numbers.items()},
            "spectrum": m.eigenvalues.tolist(),
            "deviations": m.covariance.diagonal().sqrt().tolist(),
        }
    return {
        "name": network.name,
        "weights": network.weights,
        "pictures": network.pictures,
        "sample": len(network.gathered.y),
        "classes": list(network.gathered.classes),
        "placements": placements,
        "noise": {
            name: {
                "accuracy": [value.record() for value in curve.accuracy],
                "likeness": [value.record() for value in curve.likeness],
            }
            for name, curve in network.noise.items()
        },
    }


def between(networks, compared: Comparison) -> list[tuple[str, str, Measured]]:
    """What two networks have to do with each other: name, label, value."""
    if compared.last is None:
        return []
    a, b = (network.name for network in networks)
    return [
        ("cka", "debiased CKA of the last placements", compared.last),
        ("imbalance", f"information imbalance, {a} to {b}", compared.told),
        ("imbalance_back", f"information imbalance, {b} to {a}", compared.tells),
    ]


def tables(networks: Sequence[Inspection], compared: Comparison) -> list[tuple[str, list]]:
    """Each a title and rows of cells, the first row being the head."""
    last = networks[0].last
    head = ["", *(network.name for network in networks), "what it is"]
    rows = [head]
    for name, (label, meaning) in LABELS.items():
        values = [network.numbers[network.last].get(name) for network in networks]
        if any(value is not None for value in values):
            rows.append([label, *("" if v is None else str(v) for v in values), meaning])
    found = [(f"Features of the last placement, {last}", rows)]
    for network in networks:
        rows = [["placement", "width", *(LABELS[name][0] for name in ALONG)]]
        for place, numbers in network.numbers.items():
            width = str(len(network.moments[place].origin))
            rows.append([place, width, *(point(numbers[name]) for name in ALONG)])
        found.append((f"Along depth, {network.name}", rows))
    if two := between(networks, compared):
        found.append(("Side by side", [["", "value"], *([label, str(v)] for _, label, v in two)]))
    return found


def point(value: Measured) -> str:
    return "undefined" if value.value is None else f"{value.value:.3g}"


def introduction(networks: Sequence[Inspection], about: dict) -> list[str]:
    """What was looked at, in sentences."""
    names = " and ".join(f"`{network.name}`" for network in networks)
    first = networks[0]
    lines = [
        f"{names} on {first.pictures:,} pictures of {len(first.gathered.classes)} classes "
        f"({about['data']}, {about['split']}), frozen. Values with 95 % intervals over pictures: "
        "by leaving out a tenth at a time for what is made of moments, by bootstrap for means over "
        f"pictures. Nearest means, information, CKA and imbalance use {len(first.gathered.y):,} of "
        "the pictures, drawn at random.",
    ]
    lines.append(
        "Ranks and CDNV are corrected for the number of pictures. The mean absolute correlation, "
        "NC1, NC2 and imbalance are not: compare them at equal numbers of pictures only, as their "
        "intervals do not hold that bias."
    )
    width = max(len(network.moments[network.last].origin) for network in networks)
    if first.pictures < 10 * width:
        lines.append(
            f"With {first.pictures:,} pictures of {width:,} features the correction of ranks is "
            "not complete: their intervals may lie below the rank of more pictures."
        )
    if len(networks) > 1:
        lines.append(
            "Intervals are over pictures only: another training run may give other features."
        )
    lines.append(f"Again: `{about['command']}`")
    return lines


def markdown(networks, compared: Comparison, about: dict, pictures) -> str:
    lines = ["# Inspection", "", *("\n\n".join(introduction(networks, about)).split("\n"))]
    for title, rows in tables(networks, compared)[:1]:
        lines += ["", f"## {title}", "", *markdown_table(rows)]
    for path, caption in pictures:
        lines += ["", caption, "", f"![{caption}]({path.name})"]
    for title, rows in tables(networks, compared)[1:]:
        lines += ["", f"## {title}", "", *markdown_table(rows)]
    return "\n".join(lines) + "\n"


def markdown_table(rows: list[list[str]]) -> list[str]:
    head, *body = ([cell.replace("|", "\\|") for cell in row] for row in rows)
    rule = ["---"] * len(head)
    return [f"| {' | '.join(row)} |" for row in (head, rule, *body)]


def webpage(networks, compared: Comparison, about: dict, pictures) -> str:
    """One file with everything in it, to be sent to a colleague."""
    parts = ["<h1>Inspection</h1>"]
    parts += [f"<p>{as_code(html.escape(line))}</p>" for line in introduction(networks, about)]
    first, *others = tables(networks, compared)
    parts.append(html_table(*first))
    for path, caption in pictures:
        png = path.read_bytes()
        wide = int.from_bytes(png[16:20], "big") * SHOWN // DPI  # letters as large in every picture
        content = base64.b64encode(png).decode()
        alt, said = html.escape(caption, quote=True), html.escape(caption)
        image = f'<img width="{wide}" alt="{alt}" src="data:image/png;base64,{content}">'
        parts.append(f"<figure>{image}<figcaption>{said}</figcaption></figure>")
    parts += [html_table(*table) for table in others]
    title = html.escape(" and ".join(network.name for network in networks))
    return PAGE.replace("TITLE", title).replace("BODY", "\n".join(parts))


def as_code(text: str) -> str:
    """Every second part between backquotes as code."""
    parts = text.split("`")
    return "".join(f"<code>{part}</code>" if i % 2 else part for i, part in enumerate(parts))


def html_table(title: str, rows: list[list[str]]) -> str:
    head, *body = ([html.escape(cell) for cell in row] for row in rows)
    lines = [f"<h2>{html.escape(title)}</h2>", '<div class="wide"><table><thead><tr>']
    lines += [f'<th scope="col">{cell}</th>' for cell in head]
    lines.append("</tr></thead><tbody>")
    for row in body:
        cells = "".join(f"<td>{cell}</td>" for cell in row[1:])
        lines.append(f'<tr><th scope="row">{row[0]}</th>{cells}</tr>')
    return "\n".join([*lines, "</tbody></table></div>"])


PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>TITLE</title>
<style>
:root { color-scheme: light dark; --ink: #1a1a1a; --paper: #fff; --rule: #ccc; --soft: #f3f3f3 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8e8e8; --paper: #16181b; --rule: #454a50; --soft: #22262a }
}
body { margin: 2rem auto; max-width: 68rem; padding: 0 1rem; color: var(--ink);
  background: var(--paper); font: 16px/1.5 system-ui, sans-serif }
h1, h2 { line-height: 1.2 }
h2 { margin-top: 2.5rem; font-size: 1.25rem }
p { max-width: 48rem }
code { background: var(--soft); padding: 0.1em 0.3em; border-radius: 3px; overflow-wrap: anywhere }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-size: 0.875rem; min-width: 46rem }
th, td { padding: 0.3rem 0.8rem 0.3rem 0; border-bottom: 1px solid var(--rule);
  text-align: left; vertical-align: top; font-variant-numeric: tabular-nums }
tbody th { font-weight: normal }
figure { margin: 2rem 0 }
img { display: block; max-width: 100%; background: #fff; border: 1px solid var(--rule);
  border-radius: 6px; padding: 6px; box-sizing: border-box }
figcaption { margin-top: 0.4rem; font-size: 0.9rem }
</style>
</head>
<body>
BODY
</body>
</html>
"""
