"""Put the published main table between its two marks in README.md."""

import re
from pathlib import Path

README, TABLE = Path("README.md"), Path("figures/main_results.md")
MARKS = re.compile(r"(<!-- main_results: .*? -->\n).*?(<!-- /main_results -->)", re.DOTALL)


def main():
    text, count = MARKS.subn(lambda m: f"{m[1]}\n{TABLE.read_text()}\n{m[2]}", README.read_text())
    if count != 1:
        raise SystemExit("README.md: the marks <!-- main_results: … --> and <!-- /main_results --> are missing")
    README.write_text(text)


if __name__ == "__main__":
    main()
