"""Parts of ``pgtoolkit variance``: arguments, inputs, verdict, report and plot."""
