"""Launch buttons: none without a repository; with one, each leads to the file of its chapter."""

import re
import subprocess
import sys
from pathlib import Path

import chapters
import pytest
import yaml
from conftest import ROOT

STEMS = chapters.chapters()[:2]  # they stand for all: a link is made from the name of its page


def build(out, url, stems):
    """Build some chapters as they are stored, with a repository of this address."""
    config = yaml.safe_load((ROOT / "_config.yml").read_text())
    config["execute"]["execute_notebooks"] = "off"
    config["repository"]["url"] = url
    toc = {"format": "jb-book", "root": "book/index"}
    toc["chapters"] = [{"file": f"notebooks/{stem}.ipynb"} for stem in stems]
    for name, content in (("_config.yml", config), ("_toc.yml", toc)):
        (out / name).write_text(yaml.safe_dump(content))
    command = [Path(sys.executable).with_name("jupyter-book"), "build", ROOT, "--path-output", out]
    command += ["--config", out / "_config.yml", "--toc", out / "_toc.yml"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    return {stem: (out / f"_build/html/notebooks/{stem}.html").read_text() for stem in stems}


def test_without_a_repository_there_are_no_buttons(tmp_path):
    (page,) = build(tmp_path, "", STEMS[:1]).values()
    assert "launch-buttons" not in page
    assert not re.search("mybinder|colab", page)


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    return build(tmp_path_factory.mktemp("launch"), "https://github.com/OWNER/NAME", STEMS)


@pytest.mark.parametrize("stem", STEMS)
def test_every_button_leads_to_the_notebook_of_its_chapter(pages, stem):
    branch = yaml.safe_load((ROOT / "_config.yml").read_text())["repository"]["branch"]
    file = f"notebooks/{stem}.ipynb"
    assert (ROOT / file).is_file()
    links = re.findall(r'href="(https://(?:mybinder|colab)[^"]+)"', pages[stem])
    assert links == [
        f"https://mybinder.org/v2/gh/OWNER/NAME/{branch}?urlpath=lab/tree/{file}",
        f"https://colab.research.google.com/github/OWNER/NAME/blob/{branch}/{file}",
    ]


def test_the_cell_for_colab_is_not_in_the_book(pages):
    assert not any("google.colab" in page for page in pages.values())
