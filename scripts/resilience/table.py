"""The tables: a short one, a line for each row, and one with every figure."""

from resilience.figures import misses

NAMES = {
    "failed": "failed",
    "failed_get": "GET",
    "failed_post": "POST",
    "kinds": "how",
    "served": "served/s",
    "p50": "p50 ms",
    "p99": "p99 ms",
    "p999": "p99.9 ms",
    "dark": "dark s",
    "dark_after": "dark after s",
    "failed_after": "failed after",
    "well": "well after s",
    "out": "out s",
    "back": "back s",
    "attempts": "attempts",
    "rss": "RSS MB",
    "max_share": "share %",
    "posts_twice": "POST twice",
}
# What an absent figure means where a row has it.
NEVER = {"out": "never", "back": "not yet", "well": "not yet"}
FULL = [
    "failed_get", "failed_post", "kinds", "served", "p50", "p99", "p999", "dark", "dark_after", "failed_after", "well",
    "out", "back", "attempts", "rss", "max_share", "posts_twice",
]


def cell(name, found):
    if name not in found:
        return "–"
    value = found[name]
    if value is None:
        return NEVER.get(name, "–")
    if name == "kinds":
        return ", ".join(f"{kind}×{count}" for kind, count in value.items()) or "–"
    if name in ("p50", "p99", "p999", "rss"):
        return f"{value:.0f}"
    if name == "failed_post" and found.get("doomed_posts"):
        # These were being served by a backend that died: no proxy can save them.
        return f"{value} ({found['doomed_posts']} lost by the backend)"
    return f"{value:g}" if isinstance(value, float) else str(value)


def bound(name, value):
    if name.startswith("min_"):
        return f"{NAMES[name.removeprefix('min_')]} ≥ {value}"
    return f"{NAMES[name]} {'≤ ' if value else ''}{value}"


def markdown(head, lines):
    return "\n".join(
        "| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *lines]
    )


def short(rows, columns, all_figures):
    """A line for each row: what it shows for each column, and what is to be reached."""
    lines = []
    for row in rows:
        line = [f"{row.name} {row.title}: {', '.join(NAMES[name] for name in row.shows)}"]
        for column in columns:
            found = all_figures.get((row.name, column))
            if found is None:
                line.append("")
                continue
            text = " · ".join(cell(name, found) for name in row.shows)
            line.append(f"**{text}**" if not misses(row, found) else text)
        line.append(", ".join(bound(name, value) for name, value in row.reach.items()))
        lines.append(line)
    return markdown(["row", *columns, "reach"], lines)


def full(row, columns, all_figures):
    """Every figure of one row."""
    names = [name for name in FULL if any(name in all_figures.get((row.name, column), ()) for column in columns)]
    lines = [
        [column, *(cell(name, all_figures[row.name, column]) for name in names)]
        for column in columns
        if (row.name, column) in all_figures
    ]
    return markdown([row.name, *(NAMES[name] for name in names)], lines)
