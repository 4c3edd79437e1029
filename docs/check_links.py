"""Check that every link within the built site leads to a page, and to a place on it, that exists: `check_links.py docs/_build/html`."""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """What a page links to, and which of its places can be linked to."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.places = {"", "top"}
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id" and value:
                self.places.add(value)
            elif name in ("href", "src") and value:
                self.links.append(value)


def broken(site: Path) -> tuple[list[str], int]:
    """Get what is wrong, a line for each link, and how many links within the site were followed."""
    site = site.resolve()
    files = [file for file in sorted(site.rglob("*.html")) if "_static" not in file.parts]  # templates of the theme
    pages = {file: Page(file) for file in files}
    found, n_links = [], 0
    for file, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            n_links += 1
            goal = (file.parent / unquote(parts.path)).resolve() if parts.path else file
            if not goal.is_file():
                found.append(f"{file.relative_to(site)}: {link!r} leads to no file")
            elif goal in pages and unquote(parts.fragment) not in pages[goal].places:
                found.append(f"{file.relative_to(site)}: {link!r} leads to no place on its page")
    return found, n_links


if __name__ == "__main__":
    wrong, followed = broken(Path(sys.argv[1]))
    sys.stdout.write("".join(f"{line}\n" for line in wrong) + f"{followed} links followed, {len(wrong)} broken.\n")
    sys.exit(bool(wrong) or not followed)
