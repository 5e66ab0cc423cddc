"""What a notebook needs to show a table or figure and to keep it: three short calls."""

from __future__ import annotations

from pathlib import Path

from IPython.display import HTML, Image, Markdown, display
from matplotlib.figure import Figure

from visiontokens.provenance import atomic_write
from visiontokens.report.style import save_figure
from visiontokens.report.write import Table, markdown, write_table


class Desk:
    """Writes into `<out>/tables` and `<out>/figures` and shows what it wrote."""

    def __init__(self, out: str | Path) -> None:
        self.tables, self.figures = Path(out) / "tables", Path(out) / "figures"

    def table(self, name: str, table: Table) -> None:
        """Write a table as CSV, Markdown and LaTeX, and show it."""
        write_table(table, self.tables / name)
        display(Markdown(markdown(table)))

    def figure(self, name: str, figure: Figure, caption: str) -> None:
        """Write a figure as PNG and PDF with its caption beside them, and show it."""
        png, _ = save_figure(figure, self.figures / name)
        with atomic_write(self.figures / f"{name}.txt") as handle:
            handle.write(caption + "\n")
        display(Image(filename=str(png), width=round(100 * figure.get_figwidth())), HTML(f"<p><em>{caption}</em></p>"))
