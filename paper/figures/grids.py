"""A number over a grid of two settings, or of rows and one setting."""

import matplotlib.pyplot as plt
import seaborn as sns


def grid_figure(tables):
    """One heat map for each title in `tables` {title: table of numbers, one setting down and the other across}; dark is
    a large number. Where there are many rows they are named once."""
    tallest = max(len(table) for table in tables.values())
    many = tallest > 10
    size = (3.6 * len(tables), 0.7 + 0.24 * tallest if many else 3.2)
    figure, axes = plt.subplots(1, len(tables), figsize=size, layout="constrained", sharey=many)
    for axis, (title, table) in zip(axes, tables.items(), strict=True):
        sns.heatmap(table, annot=True, fmt=".1f", cmap="Blues", vmin=0, cbar=False, linewidths=1, square=not many,
                    ax=axis, annot_kws={"size": 8})  # fmt: skip
        axis.set_title(title, loc="left", fontsize="medium")
        axis.tick_params(length=0)
        axis.set(xlabel=table.columns.name or "", ylabel="" if many else table.index.name)
        axis.set_xticklabels([named(one) for one in table.columns])
        axis.set_yticklabels([named(one) for one in table.index], rotation=0)
    return figure


def named(setting):
    return setting if isinstance(setting, str) else f"{setting:g}"
