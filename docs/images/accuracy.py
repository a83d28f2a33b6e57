"""Draw accuracy against bits per node from the first table of docs/explanation/results.md.

``python docs/images/accuracy.py`` writes accuracy-light.svg and accuracy-dark.svg beside this file. Needs matplotlib.
"""

from __future__ import annotations

import re
from pathlib import Path

FOLDER = Path(__file__).parent
RESULTS = FOLDER.parent / "explanation" / "results.md"
CODES = {"gowalla/hqgnn-1bit": "1 bit", "gowalla/hqgnn-2bit": "2 bits", "gowalla/hqgnn-4bit": "4 bits"}
FLOATS = {
    "gowalla/lightgcn, 64 dims": "float32, 16 epochs",
    "gowalla/hqgnn-4bit without its quantizer": "float32, 40 epochs",
}
PLACES = {  # of the labels: offset in points, horizontal and vertical alignment
    "gowalla/hqgnn-1bit": (10, 4, "left", "top"),
    "gowalla/hqgnn-2bit": (10, -4, "left", "top"),
    "gowalla/hqgnn-4bit": (-4, 8, "center", "bottom"),
    "gowalla/lightgcn, 64 dims": (0, -9, "right", "top"),
    "gowalla/hqgnn-4bit without its quantizer": (0, 8, "right", "bottom"),
}
COLOURS = {
    "light": {"text": "#24292f", "grid": "#d0d7de", "codes": "#00796b", "float": "#bf5600"},
    "dark": {"text": "#d5dbe3", "grid": "#4a5160", "codes": "#4db6ac", "float": "#ffab70"},
}


def points() -> dict[str, tuple[int, float]]:
    """Bits per node and Recall@20 by the first cell of each row."""
    rows = re.findall(r"^\| ([^|]+) \| \d+ \| (\d+) \| (0\.\d+) ±", RESULTS.read_text(encoding="utf-8"), re.M)
    return {re.sub("[*`]", "", name): (int(bits), float(recall)) for name, bits, recall in rows}


def labels() -> dict[str, str]:
    """The text beside each point of the figure."""
    known = points()
    codes = {name: f"{label}: {known[name][1]:.4f}\n{known[name][0]} bits per node" for name, label in CODES.items()}
    return codes | {name: f"{label}\n{known[name][1]:.4f}" for name, label in FLOATS.items()}


def draw(colours: dict[str, str], path: Path) -> None:
    """One figure in one set of colours, with a transparent background."""
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "rectoolkit", "font.family": "sans-serif"})
    known = points()
    figure = Figure(figsize=(5.6, 3.6), layout="constrained")
    axis = figure.add_subplot()
    axis.plot(*zip(*(known[name] for name in CODES), strict=True), "o-", color=colours["codes"], markersize=8, lw=2)
    axis.plot(*zip(*(known[name] for name in FLOATS), strict=True), "s", color=colours["float"], markersize=6)
    for name, text in labels().items():
        dx, dy, ha, va = PLACES[name]
        colour = colours["codes" if name in CODES else "float"]
        place = {"xytext": (dx, dy), "textcoords": "offset points", "ha": ha, "va": va}
        axis.annotate(text, known[name], color=colour, fontsize=11, **place)
    axis.set_xscale("log")
    axis.set(xlim=(55, 2700), ylim=(0.145, 0.197))
    axis.set_xticks([64, 128, 256, 512, 1024, 2048], ["64", "128", "256", "512", "1024", "2048"])
    axis.set_xticks([], minor=True)
    axis.set_xlabel("bits stored per user or item", color=colours["text"], fontsize=11)
    axis.set_ylabel("Recall@20 on Gowalla", color=colours["text"], fontsize=11)
    axis.grid(color=colours["grid"], alpha=0.6, lw=0.8)
    axis.tick_params(colors=colours["text"], labelsize=10)
    for side, spine in axis.spines.items():
        spine.set(visible=side in ("left", "bottom"), color=colours["grid"])
    figure.savefig(path, transparent=True, metadata={"Date": None, "Creator": None})


if __name__ == "__main__":
    for scheme, colours in COLOURS.items():
        draw(colours, FOLDER / f"accuracy-{scheme}.svg")
