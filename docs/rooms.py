"""The picture and the table of the rooms in docs/architecture.md, from imports and from each `__init__.py`.

python docs/rooms.py            # writes them anew
python docs/rooms.py --check    # ends with 1 where they are stale; part of `make lint`
"""

import ast
import sys
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path

import grimp

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- made by docs/rooms.py: begin -->\n", "<!-- made by docs/rooms.py: end -->"


def main() -> int:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    rooms = [room for layer in settings["contracts"][0]["layers"] for room in layer.split(" | ")]
    sys.path.insert(0, str(ROOT))
    imports = imports_of(rooms, grimp.build_graph(*rooms, cache_dir=None))
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    made = f"{before}{BEGIN}\n{picture(rooms, imports)}\n{table(rooms)}\n{END}{after}"
    if "--check" in sys.argv[1:]:
        if made != page:
            sys.stderr.write("docs/architecture.md is stale: run `python docs/rooms.py`\n")
        return int(made != page)
    PAGE.write_text(made, encoding="utf-8")
    return 0


def imports_of(rooms: Iterable[str], graph: grimp.ImportGraph) -> dict[str, set[str]]:
    """The rooms that each room imports."""
    found: dict[str, set[str]] = {room: set() for room in rooms}
    for module in graph.modules:
        for imported in graph.find_modules_directly_imported_by(module):
            found[module.split(".")[0]].add(imported.split(".")[0])
    return {room: imported - {room} for room, imported in found.items()}


def needed(imports: Mapping[str, set[str]]) -> list[tuple[str, str]]:
    """The arrows that no longer way replaces."""

    def reaches(room: str) -> set[str]:
        return imports[room].union(*(reaches(further) for further in imports[room]))

    return [
        (room, imported)
        for room in imports
        for imported in sorted(imports[room])
        if not any(imported in reaches(other) for other in imports[room] - {imported})
    ]


def picture(rooms: Iterable[str], imports: Mapping[str, set[str]]) -> str:
    lines = [f"    {room}[{room}/]" for room in rooms]
    lines += [f"    {room} --> {imported}" for room, imported in needed(imports)]
    return "\n".join(["```mermaid", "flowchart TD", *lines, "```", ""])


def table(rooms: Iterable[str]) -> str:
    lines = ["| room | what is in it | files |", "|---|---|---|"]
    for room in rooms:
        folders = [ROOT / room, *sorted(path.parent for path in (ROOT / room).glob("*/**/__init__.py"))]
        for folder in folders:
            name = folder.relative_to(ROOT).as_posix()
            files = len([file for file in folder.glob("*.py") if file.name != "__init__.py"])
            lines.append(f"| `{name}/` | {sentence(folder / '__init__.py')} | {files} |")
    return "\n".join(lines) + "\n"


def sentence(init: Path) -> str:
    """The first paragraph of a package's docstring, on one line. ValueError where there is none."""
    text = ast.get_docstring(ast.parse(init.read_text(encoding="utf-8")))
    if not text:
        raise ValueError(f"{init.relative_to(ROOT)}: says nothing of what is in the folder")
    return " ".join(text.split("\n\n")[0].split())


if __name__ == "__main__":
    sys.exit(main())
