"""What is said of the package beside what it is: version, metadata, what is shipped, what runs before a commit."""

import importlib.metadata
import re
import tomllib
from pathlib import Path

import pytest

import reppo_fx as rx

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
HATCH = PYPROJECT["tool"]["hatch"]


def read(name):
    return (ROOT / name).read_text()


def test_the_version_is_in_one_place():
    assert "version" in PROJECT["dynamic"]
    assert "version" not in PROJECT
    source = HATCH["version"]["path"]
    (version,) = re.findall(r'^__version__ = "(.*)"$', read(source), re.MULTILINE)
    assert version == rx.__version__
    sources = [path.relative_to(ROOT) for path in (ROOT / "reppo_fx").rglob("*.py")]
    holders = [path for path in sources if f'"{version}"' in read(path)]
    assert holders == [Path(source)]
    assert version not in read("pyproject.toml")
    assert not re.search(r"^(version|date-released):", read("CITATION.cff"), re.MULTILINE)


def test_the_changelog_begins_with_this_version():
    assert re.search(r"^## (\S+)", read("CHANGELOG.md"), re.MULTILINE)[1] == rx.__version__


def test_the_metadata_is_complete():
    assert {"name", "description", "readme", "license", "authors"} <= set(PROJECT)
    assert {"keywords", "classifiers", "urls", "optional-dependencies", "scripts"} <= set(PROJECT)
    assert (ROOT / PROJECT["readme"]).is_file()
    assert all((ROOT / name).is_file() for name in PROJECT["license-files"])
    assert f"{PROJECT['license']} License" in read("LICENSE")
    assert all(url.startswith("https://") for url in PROJECT["urls"].values())
    assert len(PROJECT["classifiers"]) == len(set(PROJECT["classifiers"]))
    assert (ROOT / "reppo_fx" / "py.typed").is_file()  # what "Typing :: Typed" says
    assert "Typing :: Typed" in PROJECT["classifiers"]


def test_every_python_that_the_wheel_is_tried_on_is_named():
    versions = re.findall(r"Python :: (3\.\d+)", " ".join(PROJECT["classifiers"]))
    assert PROJECT["requires-python"] == f">={versions[0]}"
    script = read("benchmarks/environments/wheel.sh")
    tried = re.search(r'"\$\{@:-(.+?)\}" \$\(\[ \$# -gt 0 \] \|\| echo (.+?)\)', script)
    assert " ".join(tried.groups()).split() == versions


def test_the_command_is_the_module():
    module, function = PROJECT["scripts"]["reppo-fx"].split(":")
    assert module == "reppo_fx.__main__"
    assert function == "main"


def test_every_extra_that_a_sentence_names_is_there():
    extras = PROJECT["optional-dependencies"]
    texts = [*(ROOT / "reppo_fx").rglob("*.py"), ROOT / "README.md", ROOT / "pyproject.toml"]
    named = {
        extra
        for path in texts
        for names in re.findall(r"reppo_fx\[([\w, ]+)\]", path.read_text())
        for extra in names.replace(" ", "").split(",")
    }
    assert {"all", "cli", "playground"} <= named
    assert named <= set(extras)
    inside = re.search(r"\[(.*)\]", *extras["all"])[1].split(",")
    apart = {
        "gymnax",
        "maniskill",
        "meshes",
        "wandb",
    }  # with the reasons in pyproject.toml and README
    assert set(inside) == set(extras) - apart - {"all"}


def test_what_the_installed_package_says_of_itself():
    installed = importlib.metadata.metadata("reppo_fx")
    assert installed["License-Expression"] == PROJECT["license"]
    assert set(PROJECT["optional-dependencies"]) <= set(installed.get_all("Provides-Extra"))


def test_all_that_tests_read_is_shipped():
    included = {name.strip("/") for name in HATCH["build"]["targets"]["sdist"]["include"]}
    assert {name for name in included if not (ROOT / name).exists()} <= {"docs"}
    assert {"reppo_fx", "tests", "benchmarks", "notebooks", "LICENSE"} <= included
    read_here = re.findall(r'read\("([\w./-]+)"\)', Path(__file__).read_text())
    tops = {name.split("/")[0] for name in read_here} - {"pyproject.toml", ".gitignore"}
    assert tops <= included
    assert HATCH["build"]["targets"]["wheel"]["packages"] == ["reppo_fx"]


def test_what_is_built_is_ignored():
    assert "dist/" in read(".gitignore").splitlines()


def test_what_runs_before_a_commit_is_what_continuous_integration_runs():
    entries = re.findall(r"^ +entry: (.+)$", read(".pre-commit-config.yaml"), re.MULTILINE)
    own = re.findall(r"^(?:begin \w+ )?(uv run (?:ruff|mypy).*)$", read(".ci/run"), re.MULTILINE)
    assert entries == own


def test_the_workflow_runs_the_same_script_on_its_pythons():
    workflow = read(".github/workflows/ci.yml")
    assert "- run: .ci/run\n" in workflow
    for version in re.findall(r"--python (3\.\d+) pytest", read(".ci/run")):
        assert f"            {version}\n" in workflow


@pytest.mark.parametrize(
    "form",
    sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("[!c]*.yml")),
    ids=lambda path: path.stem,
)
def test_every_issue_form_asks_for_what_show_prints(form):
    assert "reppo-fx show RUN" in form.read_text()


def test_the_paper_is_cited():
    citation = read("CITATION.cff")
    assert PROJECT["urls"]["Paper"] in citation
    assert f"license: {PROJECT['license']}\n" in citation
    assert re.findall(r"family-names: (\w+)", citation) == [
        *("Voelcker", "Brunnbauer", "Hussing", "Nauman", "Abbeel"),
        *("Eaton", "Grosu", "Farahmand", "Gilitschenski"),
    ]
