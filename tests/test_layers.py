"""Imports point one way: a module may import only from groups above its own in this table."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import holdfast

ROOT = Path(holdfast.__file__).parent

# The story from the ground up. A shelf's folder stands twice: its protocol, then what is on it.
LAYERS = [
    ["__init__", "types", "errors", "statistics.inference", "progress", "text",
     "measuring.coherence", "stages.__init__", "report.__init__", "rows.__init__",
     "statistics.__init__", "rendering.__init__", "measuring.__init__", "processes.__init__",
     "job.__init__"],
    ["statistics.calibration", "statistics.seeds", "statistics.sequential", "extras", "files",
     "processes.launch", "registry", "rendering.prompting", "templates", "recipe",
     "processes.workers", "rendering.chat_template", "rows.preference", "rendering.transition",
     "rows.induction", "rows.mimicry", "rows.near", "rows.style"],
    ["rendering.serving_template"],
    ["rows", "rows.sources", "endpoint", "measuring.evaluation", "measuring.gate", "job.rundir",
     "rendering.render", "rendering.rendered", "lab", "rows.pools", "rows.triples"],
    ["attacks.__init__", "audits.__init__", "claims.__init__", "engines.__init__",
     "judges.__init__", "mitigations.__init__", "tasks.__init__"],
    ["rows.load", "models", "rows.mixing", "measuring.labelling", "measuring.preflight",
     "statistics.profile", "measuring.suites", "rendering.show", "reference",
     "measuring.searching", "rows.stress", "usage"],
    ["claims", "engines", "mitigations", "tasks"],
    ["attacks", "judges"],
    ["rows.held_out", "audits", "rendering.published", "measuring.ranking"],
    ["stages", "report"],
    ["stages.report", "measuring.rescoring", "measuring.asking", "stopping", "callback"],
    ["measuring.noise", "processes.ray_data"],
    ["job.setup", "api", "job.cost"],
    ["contract", "job.manifest", "job.material"],
    ["job.mixture"],
    ["exports"],
    ["job.elsewhere"],
    ["job.pipeline"],
    ["demo", "job.solo", "sweep"],
    ["reproduce"],
    ["commands.__init__"],
    ["commands"],
    ["cli"],
    ["__main__"],
]  # fmt: skip


def rank(module: str) -> int:
    """Index of a module's group; the longest entry that fits decides."""
    places = {name: i for i, group in enumerate(LAYERS) for name in group}
    if module in places:
        return places[module]
    parent = module.rpartition(".")[0]
    assert parent, f"{module} is in no layer: put it into LAYERS"
    return rank(parent)


def modules() -> dict[str, Path]:
    names = {}
    for path in ROOT.rglob("*.py"):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        names[name] = path
    return names


def importers() -> dict[str, Path]:
    """All modules but the public face, whose names are looked up on first use."""
    return {name: path for name, path in modules().items() if name != "__init__"}


def imported(path: Path, known: set[str]) -> set[str]:
    """Modules of the package that a file imports, at the top or inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("holdfast"):
            base = (node.module or "").removeprefix("holdfast").lstrip(".")
            for alias in node.names:
                full = f"{base}.{alias.name}".lstrip(".")
                found.add(full if full in known else base or "__init__")
        elif isinstance(node, ast.Import):
            found |= {
                a.name.removeprefix("holdfast").lstrip(".") or "__init__"
                for a in node.names
                if a.name.startswith("holdfast")
            }
    return {name if name in known else f"{name}.__init__" for name in found}


def test_every_arrow_points_down():
    known = modules()
    wrong = []
    for name, path in importers().items():
        for other in imported(path, set(known)):
            same_folder = name.partition(".")[0] == other.partition(".")[0] and "." in name
            if other != name and not same_folder and rank(other) >= rank(name):
                wrong.append(f"{name} imports {other}")
    assert wrong == []


def test_no_circles():
    known = modules()
    graph = {name: imported(path, set(known)) - {name} for name, path in importers().items()}
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " → ".join((*path[path.index(name) :], name))
        if name not in done:
            for other in graph.get(name, ()):
                visit(other, (*path, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def outer(tree: ast.Module) -> Iterator[ast.AST]:
    """Functions, classes and methods of public classes; nothing inside a function."""
    for node in tree.body:
        yield node
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from node.body


def test_every_public_function_is_documented():
    bare = []
    for name, path in modules().items():
        for node in outer(ast.parse(path.read_text(encoding="utf-8"))):
            kinds = (ast.FunctionDef, ast.ClassDef)
            public = isinstance(node, kinds) and not node.name.startswith("_")
            if public and not ast.get_docstring(node):
                bare.append(f"{name}.{node.name}")
    assert bare == []


def test_the_tree_is_described():
    """AGENTS.md has one line for every module or shelf."""
    text = (ROOT.parents[1] / "AGENTS.md").read_text(encoding="utf-8")
    missing = [
        name
        for name in modules()
        if name.count(".") == 0 and not name.startswith("__") and f"`{name}.py`" not in text
    ]
    folders = [p.name for p in ROOT.iterdir() if p.is_dir() and (p / "__init__.py").exists()]
    missing += [name for name in folders if f"`{name}/`" not in text]
    assert missing == []
