"""Server-side apply: which manager owns which field, and what is a conflict between two.

As the API server does it for custom resources, in which a list is one field. Metadata other than labels and
annotations has no owner.
"""

import copy
from typing import Any

Path = tuple[str, ...]
Owners = dict[str, set[Path]]
"""Manager -> the fields that it owns."""


class Conflict(Exception):
    """Another manager has set a field to another value."""


def fields(content: Any) -> dict[Path, Any]:
    """The leaves of an object that can have an owner."""
    meta = content.get("metadata", {})
    own = {key: meta[key] for key in ("labels", "annotations") if key in meta}
    return _leaves({"metadata": own, "spec": content.get("spec", {})}, ())


def changed(owners: Owners, manager: str, before: Any, after: Any) -> None:
    """After a patch or an update: what it has changed belongs to its manager, and to no other one."""
    old, new = fields(before), fields(after)
    wrote = {path for path, value in new.items() if old.get(path) != value}
    gone = set(old) - set(new)
    for owned in owners.values():
        owned -= wrote | gone
    owners.setdefault(manager, set()).update(wrote)


def applied(owners: Owners, manager: str, found: Any, given: Any) -> Any:
    """`found` with the fields of `given`, and without those that this manager gave before and no other one
    owns. Raises Conflict."""
    wanted, there = fields(given), fields(found)
    for other, owned in owners.items():
        for path in sorted(owned & set(wanted)):
            if other != manager and there.get(path) != wanted[path]:
                raise Conflict(f'Apply failed with 1 conflict: conflict with "{other}": .{".".join(path)}')
    result = copy.deepcopy(found)
    for path, value in wanted.items():
        part = result
        for key in path[:-1]:
            part = part.setdefault(key, {})
        part[path[-1]] = copy.deepcopy(value)
    others = {path for other, owned in owners.items() if other != manager for path in owned}
    for path in owners.get(manager, set()) - set(wanted) - others:
        _remove(result, path)
    owners[manager] = set(wanted)
    return result


def _leaves(part: Any, path: Path) -> dict[Path, Any]:
    if isinstance(part, dict) and (part or not path):
        return {leaf: value for key in part for leaf, value in _leaves(part[key], (*path, key)).items()}
    return {path: part} if len(path) > 1 else {}


def _remove(content: Any, path: Path) -> None:
    for key in path[:-1]:
        content = content.get(key, {})
    content.pop(path[-1], None)
