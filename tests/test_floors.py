"""Imports run one way: a module imports from lower floors only, never sideways."""

import ast
from pathlib import Path

import vcr_zoo

PACKAGE = Path(vcr_zoo.__file__).parent
FLOORS = (
    ("geometry", "penalty", "remote", "results"),
    ("variants",),
    ("data", "placement", "zoo"),
    ("training", "features"),
    ("diagnostics",),
    ("transfer",),
    ("suite",),
    ("card",),
    ("bench", "study", "demo"),
    ("hub",),
    ("cli",),
)
FLOOR = {part: floor for floor, parts in enumerate(FLOORS) for part in parts}


def imported_parts(path: Path) -> set[str]:
    """First-level parts of our package that a file imports, wherever in the file."""
    inside = path.relative_to(PACKAGE.parent).with_suffix("").parts
    parts = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = list(inside[: -node.level]) if node.level else []
            base += node.module.split(".") if node.module else []
            names = [[*base, alias.name] for alias in node.names]
        parts |= {name[1] for name in names if name[0] == "vcr_zoo" and len(name) > 1}
    return parts & set(FLOOR)


def test_every_module_has_a_floor():
    """A newcomer must say where it stands before it can import anything."""
    parts = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in modules()}
    assert parts - {"__init__"} <= set(FLOOR)


def test_imports_go_down():
    """Data travels one way, so each part can be read without those above it."""
    wrong = [
        f"{path.relative_to(PACKAGE)} (floor {FLOOR[part]}) imports {other} (floor {FLOOR[other]})"
        for path in modules()
        if (part := path.relative_to(PACKAGE).parts[0].removesuffix(".py")) in FLOOR
        for other in imported_parts(path)
        if other != part and FLOOR[other] >= FLOOR[part]
    ]
    assert not wrong, "\n".join(wrong)


def test_only_training_uses_timm_task():
    """timm.task is usable but movable: one place to mend when it moves."""
    users = {
        path.relative_to(PACKAGE).parts[0] for path in modules() if "timm.task" in path.read_text()
    }
    assert users <= {"training"}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))
