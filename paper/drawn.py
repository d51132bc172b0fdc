"""Generated pictures: how often a detector finds what was asked for, as the notebooks on them have it in common."""

import pandas as pd

from paper.ledger import beside_paper, judge_statements, paper_cells
from paper.statistics import change_from_original, in_order, runs_of, summarise_each, with_gap
from paper.tables import experiment_rows, settings_of, with_wilson

RATES = ["detection_rate", "other_detection_rate", "false_detection_rate", "average_gap"]


class Drawn:
    """The experiment `diffusion` in the table `results`: its `settings`, its `rows`, and their `summary`.

    `pictures` are drawn of each prompt and row, all seeds together. `each`: the metrics of single concepts. `limit`:
    the paper's highest rate after CLIPErase, in percent. `moved`: the change of the other concepts under CLIPErase, for
    each forgotten one. `paper`: what the paper claims.
    """

    def __init__(self, results):
        rows = experiment_rows(results, "diffusion", split="generated")
        self.rows = rows = with_gap(rows, forget="detection_rate", retain="other_detection_rate")
        (self.provenance,), (profile,) = rows.provenance.unique(), rows.profile.unique()
        self.settings = settings = settings_of("diffusion", profile)
        self.concepts, self.forgotten, self.methods = (
            list(settings[name]) for name in ("concepts", "forgotten", "methods")
        )
        assert set(rows.concept) == set(self.forgotten)
        assert set(rows.method) == {"original", *self.methods}
        self.pictures = settings["images"] * rows.seed.nunique()
        self.each = [f"detection_rate@{name}" for name in self.concepts]
        self.summary = summarise_each(rows, [*RATES, *self.each])
        self.rates, self.runs = self.summary.set_index(["method", "concept"]), runs_of(rows)
        cells = [cell for cell in paper_cells("diffusion") if cell["method"] == "CLIPErase"]
        self.limit = max(cell["value"] for cell in cells if "value" in cell)
        self.moved = [
            change_from_original(rows, "other_detection_rate", "CLIPErase", name)[0] for name in self.forgotten
        ]
        self.paper = (
            "With CLIPErase's text encoder Stable Diffusion no longer draws the forgotten concept: a detector finds it "
            f"in at most {self.limit:g} % of the pictures that ask for it. Others are unaffected."
        )

    def shares(self):
        """{method: `90.0 % and 80.0 %`}, how often each forgotten concept is detected."""
        found = self.rates.detection_rate.unstack()[self.forgotten]
        return found.map("{:.1f} %".format).agg(" and ".join, axis="columns")

    def table(self):
        """`detection_table`, concept by concept, the smallest average gap first."""
        ranked = pd.concat(in_order(self.summary[self.summary.concept == name]) for name in self.forgotten)
        table = detection_table(ranked, self.runs, self.pictures, len(self.concepts) - 1)
        return table.assign(provenance=self.provenance)

    def statements(self):
        """The paper's statements on other concepts beside ours."""
        judged = judge_statements("diffusion", self.rows).drop(columns=["metric", "change"])
        return judged.assign(provenance=self.provenance)


def detection_table(ranked, runs, pictures, others):
    """Rates of generated pictures with their 95 % Wilson intervals, and the paper's beside them.

    `ranked`: a summary of the rates, a line for each forgotten concept and row; `runs`: see `statistics.runs_of`;
    `pictures` of each prompt, `others`: how many other prompts there are.
    """
    cells = {
        (line.method, concept): [f"{line.paper:g}", f"{line.difference:+.1f}", line.verdict]
        for concept, summary in ranked.groupby("concept")
        for line in beside_paper(summary, "diffusion", "", concept).itertuples()
    }
    lines = []
    for row in ranked.itertuples():
        by_seed = runs.detection_rate[row.method, row.concept]
        line = {"forget": row.concept, "method": row.method, "pictures a prompt": pictures}
        line["forgotten seen"] = with_wilson(row.detection_rate, pictures)
        line["by seed"] = f"{by_seed.min():.1f} to {by_seed.max():.1f}"
        line["others seen"] = with_wilson(row.other_detection_rate, pictures * others)
        line["seen unasked"] = with_wilson(row.false_detection_rate, pictures * others)
        cell = cells.get((row.method, row.concept), ["–"] * 3)
        lines.append(line | dict(zip(("paper", "difference", "verdict"), cell, strict=True)))
    return pd.DataFrame(lines)
