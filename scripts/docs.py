"""Make the documentation's site: the pages in the places that they have in the repository, so that links stay true.

Every link of the site must lead to a file of the site, and nothing may be loaded from elsewhere.
"""

from __future__ import annotations

import html.parser
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urldefrag

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("*.md", "NOTICE", "LICENSES/*", "comfyui/*.md", "docs/*.md", "docs/*.png")
LOADED = {"script": "src", "img": "src", "source": "src", "iframe": "src", "link": "href"}


class Links(html.parser.HTMLParser):
    """The targets of a page's links and of what it loads."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if tag == "a" and found.get("href"):
            self.links.append(str(found["href"]))
        if tag in LOADED and found.get(LOADED[tag]) and found.get("rel") != "canonical":
            self.loads.append(str(found[LOADED[tag]]))


def build(folder: Path) -> Path:
    """Stage the pages in ``folder`` and run the generator, strictly; returns the site."""
    shutil.rmtree(folder, ignore_errors=True)
    for pattern in PAGES:
        for path in ROOT.glob(pattern):
            staged = folder / "pages" / path.relative_to(ROOT)
            staged.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, staged)
    shutil.copyfile(ROOT / "docs" / "zensical.toml", folder / "zensical.toml")
    if subprocess.run(["zensical", "build", "--strict"], cwd=folder, check=False).returncode:
        sys.exit("the site was not made: see above")
    return folder / "site"


def faults(site: Path) -> list[str]:
    """What leads nowhere, and what is loaded from elsewhere."""
    found = []
    for page in sorted(site.rglob("*.html")):
        if page.name == "404.html":  # its links are absolute
            continue
        read = Links()
        read.feed(page.read_text(encoding="utf-8"))
        found += [f"{page.relative_to(site)} loads {one}" for one in read.loads if foreign(one)]
        for link in (*read.links, *read.loads):
            path = unquote(urldefrag(link).url)
            if path and not foreign(link) and not (page.parent / path).exists():
                found.append(f"{page.relative_to(site)}: {link} leads nowhere")
    return found


def foreign(link: str) -> bool:
    return link.startswith(("http:", "https:", "//", "mailto:", "data:"))


if __name__ == "__main__":
    site = build(Path(sys.argv[1]).resolve())
    if wrong := faults(site):
        sys.exit("\n".join(wrong))
    print(f"{site / 'index.html'}: {sum(1 for _ in site.rglob('*.html'))} pages")
