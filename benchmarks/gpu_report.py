"""The results of `gpu.sh` as one Markdown page and one CSV, with the card's name on both.

    python -m benchmarks.gpu_report <folder>

The folder holds what the parts wrote: `steps*.csv`, `waits.csv`, `main.csv` and `main_cpu.csv` (tables of results),
`tests.txt`, `parts.txt`. A part that is not there is said to have not run.
"""

import argparse
import platform
import subprocess
from pathlib import Path

import pandas as pd
import torch

COMMITTED = Path("metrics/icons/results.csv")  # by a CPU, of another training of the original
ROWS = ["CLIPErase", "MultiDelete", "null space"]
METRICS = ["forget_accuracy", "retain_accuracy"]
# largest difference of a row's mean on test images, in percentage points
SAME_ORIGINAL = {"forget_accuracy": 1.0, "retain_accuracy": 0.5}  # one original, arithmetic of another processor
OTHER_ORIGINAL = {"forget_accuracy": 2.0, "retain_accuracy": 1.5}  # whose accuracy already differs by 0.2 points
WORTH = 1.05  # speed-up that is worth a setting
EXPECTED = """A step may copy its images, its tokens and its row numbers to the device, and nothing back; it may wait
for nothing. `Pageable` copies wait for the device, `Pinned` ones do not."""


def card():
    """{what: value} of this machine."""
    about = {"card": "none", "driver": "none", "torch": torch.__version__, "python": platform.python_version()}
    if torch.cuda.is_available():
        about["card"] = torch.cuda.get_device_name()
        ask = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        about["driver"] = subprocess.run(ask, capture_output=True, text=True, check=False).stdout.strip() or "unknown"
    return about


def read(folder, pattern):
    """The CSV files of a part as one table, None if there is none."""
    tables = [pd.read_csv(path) for path in sorted(folder.glob(pattern)) if path.stat().st_size]
    return pd.concat(tables, ignore_index=True).drop_duplicates() if tables else None


def markdown(table):
    """A `DataFrame` as a Markdown table, its index left out."""
    cells = [[str(name) for name in table.columns], ["---"] * table.shape[1]]
    cells += [["" if pd.isna(value) else str(value) for value in row] for row in table.itertuples(index=False)]
    return "\n".join("| " + " | ".join(row) + " |" for row in cells)


def table_of_steps(steps):
    """One row per model, batch and setting."""
    key = ["model", "batch", "setting"]
    wide = steps.drop_duplicates([*key, "quantity"]).set_index([*key, "quantity"]).value.unstack()
    order = steps[key].drop_duplicates().itertuples(index=False, name=None)
    wide = wide.reindex(index=pd.MultiIndex.from_tuples(order, names=key))
    for name in ("library peak", "bare peak", "plain loop peak"):
        if name not in wide:
            wide[name] = float("nan")
    shown = {
        "a step, ms": wide["library step"].map("{:.2f}".format),
        "over bare": wide["over bare"].map("{:.2f}".format),
        "plain loop over it": wide["plain loop over library"].map("{:.2f}".format),
        "speed-up": wide["speed-up over plain"].map("{:.2f}".format),
        "peak, MB": wide["library peak"].map("{:.0f}".format),
        "peak over bare's": (wide["library peak"] / wide["bare peak"]).map("{:.2f}".format),
        "plain loop's peak, MB": wide["plain loop peak"].map("{:.0f}".format),
    }
    return pd.DataFrame(shown).replace("nan", "").reset_index()


def worth_it(steps):
    """A line per model and batch: the settings of the loop that gain at least `WORTH`, the best first."""
    gains = steps[(steps.quantity == "speed-up over plain") & (steps.value >= WORTH)]
    gains = gains.drop_duplicates(["model", "batch", "setting"]).sort_values("value", ascending=False, kind="stable")
    lines = []
    for model, batch in steps[["model", "batch"]].drop_duplicates().itertuples(index=False, name=None):
        own = gains[(gains.model == model) & (gains.batch == batch)]
        said = "; ".join(f"{setting} ({value:.2f} ×)" for setting, value in zip(own.setting, own.value, strict=True))
        lines.append(f"- {model}, batch {batch}: {said or 'nothing'}")
    return lines


def means(table):
    """{(row, metric): mean over concepts and seeds} on test images of the main table."""
    table = table[(table.experiment == "main") & (table.split == "test")]
    table = table[table.method.isin(ROWS) & table.metric.isin(METRICS)]
    return table.groupby(["method", "metric"]).value.mean()


def table_of_main(gpu, others):
    """One row per method and metric: the GPU's mean beside those of `others`, {name: (table, tolerances)}."""
    ours, rows = means(gpu), []
    for (method, metric), value in ours.items():
        row = {"row": method, "metric": metric, "GPU": f"{value:.2f}"}
        for name, (table, tolerance) in others.items():
            if table is None:
                continue
            other = means(table).get((method, metric))
            agrees = "agrees" if abs(value - other) <= tolerance[metric] else "differs"
            row |= {name: f"{other:.2f}", f"{name}: within": f"{tolerance[metric]} points: {agrees}"}
        rows.append(row)
    return pd.DataFrame(rows)


def table_of_waits(waits):
    """One row per model, batch, setting and thing that a step copied or waited for."""
    shown = waits.assign(value=waits.value.map("{:.4g}".format)).rename(columns={"value": "per step"})
    return shown.sort_values(["model", "batch", "setting"], kind="stable")


def page(folder):
    """The Markdown of a folder of results."""
    about = card()
    lines = ["# On a GPU", "", ", ".join(f"{name} {value}" for name, value in about.items()) + ".", ""]
    lines += ["## Tests", "", *fenced(folder / "tests.txt", 60), ""]
    steps, waits, main = read(folder, "steps*.csv"), read(folder, "waits.csv"), read(folder, "main.csv")
    lines += ["## Steps of CLIPErase", "", "As many retain as forget rows in a batch; medians of rounds in turn.", ""]
    if steps is None:
        lines += ["Not run.", ""]
    else:
        lines += [
            markdown(table_of_steps(steps)),
            "",
            f"Faster than plain by {WORTH} or more:",
            "",
            *worth_it(steps),
            "",
        ]
    lines += ["## Main table, `icons`", ""]
    if main is None:
        lines += ["Not run.", ""]
    else:
        others = {"CPU, same original": (read(folder, "main_cpu.csv"), SAME_ORIGINAL)}
        others["CPU, committed"] = (pd.read_csv(COMMITTED), OTHER_ORIGINAL)
        seeds = main.groupby(["concept", "seed"]).ngroups
        lines += [f"The original is pretrained on this card. Means of {seeds} runs, percent of test images.", ""]
        lines += [markdown(table_of_main(main, others)), ""]
    lines += ["## Copies and waits", "", EXPECTED, ""]
    lines += [markdown(table_of_waits(waits)) if waits is not None and len(waits) else "Not run.", ""]
    lines += ["## Parts", "", *fenced(folder / "parts.txt", 40)]
    return "\n".join(lines) + "\n"


def fenced(path, most):
    """The last lines of a text file."""
    if not path.is_file():
        return ["Not run."]
    return ["```", *path.read_text(errors="replace").splitlines()[-most:], "```"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    text = page(folder)
    (folder / "gpu.md").write_text(text)
    parts = {"steps": read(folder, "steps*.csv"), "waits": read(folder, "waits.csv")}
    parts = [table.assign(part=name) for name, table in parts.items() if table is not None]
    if parts:
        about = card()
        pd.concat(parts).assign(card=about["card"], torch=about["torch"]).to_csv(folder / "gpu.csv", index=False)
    print(text)


if __name__ == "__main__":
    main()
