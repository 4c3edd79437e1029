"""The check of the built documentation finds broken links."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CHECK = Path(__file__).parents[1] / "docs" / "check_links.py"


def test_links_that_lead_nowhere_are_found(tmp_path):
    for i, (link, trouble) in enumerate(
        [
            ("guide/b.html", None),
            ("guide/b.html#there%20it%20is", None),
            ("#here", None),
            ("https://elsewhere.org/c.html#nowhere", None),
            ("guide/c.html", "leads to no file"),
            ("guide/b.html#gone", "leads to no place on its page"),
            ("#gone", "leads to no place on its page"),
        ]
    ):
        site = tmp_path / str(i)
        (site / "guide").mkdir(parents=True)
        (site / "a.html").write_text(f'<p id="here"><a href="{link}">', encoding="utf-8")
        (site / "guide" / "b.html").write_text('<p id="there it is"><img src="../a.html">', encoding="utf-8")
        done = subprocess.run([sys.executable, CHECK, site], capture_output=True, text=True, check=False)
        assert done.stderr == ""
        assert (done.returncode != 0) == (trouble is not None), link
        assert trouble is None or f"a.html: {link!r} {trouble}" in done.stdout


def test_a_site_without_links_is_no_site(tmp_path):
    assert subprocess.run([sys.executable, CHECK, tmp_path], capture_output=True, check=False).returncode == 1
