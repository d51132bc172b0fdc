"""What an audit leaves in its folder: `audit.json`, the same as tidy rows, and as a page."""

import csv

from cliperase.audit.auditing import tidy
from cliperase.audit.page import write_page
from cliperase.files import whole_file, write_json


def write_report(folder, result):
    """Write the `result` of `auditing.result_of` into a folder, each file whole or not at all."""
    write_json(folder / "audit.json", result)
    with whole_file(folder / "rows.csv") as partial, partial.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("name", "value", "unit"), *tidy(result)])
    write_page(folder / "page.html", result)
