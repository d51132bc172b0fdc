"""The page of an audit: one HTML file that needs nothing else, made from the result's plain values."""

from cliperase import pages

LABELS = {"before": "original", "after": "unlearned", "reference": "reference", "never": "invented"}
WIDTH, LEFT, RIGHT, LINE, TOP = 320, 84, 308, 20, 14  # of a plot, in the units of its drawing
SCALES = {"%": (0, 100), "AUC": (0, 1)}  # what an axis shows; of other units the figures and a margin


def write_page(path, result):
    """Write the page of a `result`, as of `auditing.result_of`, whole or not at all."""
    probes = result["probes"]
    pages.write_page(
        path, "audit.html", result=result, labels=LABELS, figure=figure, short=short,
        references=sum(model["is"].startswith("reference") for model in result["models"]),
        columns={one["probe"]: columns(one["measures"]) for one in probes},
        plots={one["probe"]: [plot(measure) for measure in one["measures"]] for one in probes},
    )  # fmt: skip


def columns(measures):
    """The models that some measure of a probe has a figure of."""
    return [name for name in LABELS if any(measure[name] for measure in measures)]


def figure(estimate):
    """`12.3 [10.1, 14.5]`, or a dash."""
    if not estimate:
        return "–"
    value, low, high = (estimate[name] for name in ("value", "low", "high"))
    return short(value) if low is None or low == high else f"{short(value)} [{short(low)}, {short(high)}]"


def short(value):
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"


def plot(measure):
    """Where the marks of one interval plot lie, and the same in words for who cannot see it."""
    figures = {name: measure[name] for name in LABELS if measure[name]}
    threshold = measure["threshold"] and measure["threshold"]["limit"]
    ends = [one[end] for one in figures.values() for end in ("value", "low", "high") if one[end] is not None]
    lowest, highest = scale(measure["unit"], ends + [threshold] * (threshold is not None))

    def place(value):
        return round(LEFT + (RIGHT - LEFT) * (value - lowest) / (highest - lowest), 1)

    marks = [
        {"figure": name, "label": LABELS[name], "y": TOP + LINE * number, "x": place(one["value"]),
         "low": place(one["value"] if one["low"] is None else one["low"]),
         "high": place(one["value"] if one["high"] is None else one["high"])}
        for number, (name, one) in enumerate(figures.items())
    ]  # fmt: skip
    floor = TOP + LINE * len(marks) - 6
    line = None if threshold is None else place(threshold)
    return {
        "marks": marks, "width": WIDTH, "height": floor + 18, "floor": floor, "left": LEFT, "right": RIGHT,
        "lowest": short(lowest), "highest": short(highest), "threshold": line,
        "said": f"{measure['name']} in {measure['unit']}: "
        + "; ".join(f"{LABELS[name]} {figure(one)}" for name, one in figures.items()),
    }  # fmt: skip


def scale(unit, values):
    """The ends of an axis on which all values lie, a margin beside them."""
    low, high = min([*values, *SCALES.get(unit, ())]), max([*values, *SCALES.get(unit, ())])
    if unit in SCALES:
        return low, high
    margin = 0.05 * (high - low) or max(abs(high), 1) / 10
    return low - margin, high + margin
