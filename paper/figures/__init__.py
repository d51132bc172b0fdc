"""The figures of the notebooks. `style` is shared by all, `labels` places names, each other module draws one kind."""
