"""A number over a grid of two settings."""

import matplotlib.pyplot as plt
import seaborn as sns


def grid_figure(tables):
    """One heat map for each title in `tables` {title: table of numbers, one setting down and the other across}; dark is
    a large number."""
    figure, axes = plt.subplots(1, len(tables), figsize=(3.6 * len(tables), 3.2), layout="constrained")
    for axis, (title, table) in zip(axes, tables.items(), strict=True):
        sns.heatmap(table, annot=True, fmt=".1f", cmap="Blues", vmin=0, cbar=False, linewidths=1, square=True, ax=axis,
                    annot_kws={"size": 8})  # fmt: skip
        axis.set_title(title, loc="left", fontsize="medium")
        axis.tick_params(length=0)
        axis.set_xticklabels([f"{one:g}" for one in table.columns])
        axis.set_yticklabels([f"{one:g}" for one in table.index], rotation=0)
    return figure
