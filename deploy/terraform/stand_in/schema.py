"""The schema of a Terraform provider, read from the code that CDK Terrain generates from that schema.

The package `cdktn-provider-aws` holds one JavaScript module for each resource and data source. Each module
states, for every attribute, whether it is computed, optional or required (a comment before its getter), which
Terraform type it has (the function `...ToHclTerraform` or the method `synthesizeHclAttributes`), and which
nested blocks it has (`new ...List` or `new ...OutputReference`). That is all that `terraform validate` asks
of a provider's schema.

    python schema.py cdktn_provider_aws-25.8.1-py3-none-any.whl aws.json.gz
"""

import gzip
import io
import json
import re
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from typing import Any, NamedTuple

FLAGS = re.compile(r"^    // (\w+) - computed: (true|false), optional: (true|false), required: (true|false)$")
FUNCTION = re.compile(r"^(?:export )?function (\w+)ToHclTerraform\(struct\) \{(.*?)^\}", re.M | re.S)
CLASS = re.compile(r"^class (\w+) extends cdktn\.(\w+) \{(.*?)^\}", re.M | re.S)
SYNTHESIS = re.compile(r"synthesizeHclAttributes\(\) \{(.*?)^    \}", re.M | re.S)
HCL = re.compile(
    r"^ +(\w+): \{\n +value: [^\n]*\n +isBlock: (true|false),\n"
    r" +type: \"(\w+)\",\n +storageClassType: \"(\w+)\"",
    re.M,
)
NESTED = re.compile(r"new (?:cdktn\.)?(\w+)\(this, \"\w+\"(?:, (true|false))?")
GETTER = re.compile(r"this\.get(\w+)Attribute\(")
ROOTS = {"TerraformResource": "resources", "TerraformDataSource": "data", "TerraformProvider": "provider"}

# `any` stands in recursive rules of the firewall only. Terraform refuses a dynamic type below a set: a string
# is near enough.
SIMPLE: dict[str, Any] = {"string": "string", "number": "number", "boolean": "bool", "any": "string"}
FREE: dict[str, Any] = {"min": 0, "max": 0}
OF_GETTER: dict[str, Any] = {
    "String": "string",
    "Number": "number",
    "Boolean": "bool",
    "Any": "dynamic",
    "List": ["list", "string"],
    "NumberList": ["list", "number"],
    "StringMap": ["map", "string"],
    "NumberMap": ["map", "number"],
    "BooleanMap": ["map", "bool"],
    "AnyMap": ["map", "dynamic"],
}
OF_MAP_CLASS: dict[str, Any] = {
    "StringMap": ["map", "string"],
    "NumberMap": ["map", "number"],
    "BooleanMap": ["map", "bool"],
    "AnyMap": ["map", "dynamic"],
    "StringListMap": ["map", ["list", "string"]],
}


class Hcl(NamedTuple):
    """How an attribute is written in Terraform's language."""

    is_block: bool
    kind: str  # simple, list, set, map or struct
    storage: str  # its class in the generated code, as `stringList` or `...Filter`


class Getter(NamedTuple):
    """An attribute as its getter describes it."""

    flags: dict[str, bool]
    nested: str | None  # the class of a nested object
    nested_is_set: bool
    simple: str | None  # the name of the getter of a plain value
    listed: bool


class Module:
    """One generated module: a resource, a data source or the provider's own configuration."""

    def __init__(self, source: str) -> None:
        self.kind = ""  # stays empty for ephemeral resources, which are not read
        self.classes: dict[str, dict[str, Getter]] = {}
        self.hcl = {m[1][0].upper() + m[1][1:]: _hcl(m[2]) for m in FUNCTION.finditer(source)}
        for match in CLASS.finditer(source):
            name, base, body = match.groups()
            self.classes[name] = dict(_getters(body))
            if base in ROOTS:
                self.root, self.kind = name, ROOTS[base]
                self.type = _first(re.search(r'tfResourceType = "(\w+)"', body))
                self.hcl[name] = _hcl(_first(SYNTHESIS.search(body)))

    def block(self, name: str | None = None) -> dict[str, Any]:
        """The block of a class, with its nested blocks."""
        name = name or self.root
        getters = self.classes.get(name) or self.classes.get(f"{name}OutputReference", {})
        block: dict[str, Any] = {"attributes": {}, "block_types": {}}
        for key, getter in getters.items():
            hcl = self.hcl.get(name, {}).get(key)
            if hcl and hcl.is_block and getter.nested:
                block["block_types"][key] = self._nested(getter, getter.nested, hcl)
            elif hcl and hcl.is_block:
                block["block_types"][key] = {**FREE, "nesting": _nesting(hcl), "block": self._written(hcl)}
            else:
                flags = {flag: True for flag, on in getter.flags.items() if on}
                # cdktn does not say which attributes are write-only; in this provider their names do
                if key.endswith("_wo"):
                    flags["write_only"] = True
                block["attributes"][key] = {"type": self._type(getter, hcl), **flags}
        return block

    def _written(self, hcl: Hcl) -> dict[str, Any]:
        """A block of the provider's own configuration: only how it is written is known, so all in it is
        optional."""
        block: dict[str, Any] = {"attributes": {}, "block_types": {}}
        for key, inner in self.hcl.get(_element(hcl.storage), {}).items():
            if inner.is_block:
                block["block_types"][key] = {
                    **FREE,
                    "nesting": _nesting(inner),
                    "block": self._written(inner),
                }
            else:
                block["attributes"][key] = {"type": _of_hcl(inner), "optional": True}
        return block

    def _nested(self, getter: Getter, nested: str, hcl: Hcl) -> dict[str, Any]:
        nesting = _nesting(hcl)
        one = nested.endswith("OutputReference") and nesting != "single"
        least = 1 if getter.flags["required"] else 0
        return {"nesting": nesting, "min": least, "max": int(one), "block": self.block(_element(nested))}

    def _type(self, getter: Getter, hcl: Hcl | None) -> Any:
        """The type in Terraform's JSON notation, as `["list", "string"]`."""
        if hcl and re.sub(r"(List|Map)+$", "", hcl.storage) in SIMPLE:
            return _of_hcl(hcl)
        if getter.simple:
            plain = OF_GETTER.get(getter.simple, "dynamic")
            return ["set", plain[1]] if getter.listed and isinstance(plain, list) else plain
        if not getter.nested:
            return "dynamic"
        if getter.nested in OF_MAP_CLASS:
            return OF_MAP_CLASS[getter.nested]
        shape = self._object(_element(getter.nested))
        if getter.nested.endswith("OutputReference") and not (hcl and hcl.kind in ("list", "set")):
            return shape
        return ["set" if getter.nested_is_set or (hcl and hcl.kind == "set") else "list", shape]

    def _object(self, name: str) -> Any:
        getters = self.classes.get(f"{name}OutputReference", {})
        hcl = self.hcl.get(name, {})
        return ["object", {key: self._type(getter, hcl.get(key)) for key, getter in getters.items()}]


def _hcl(body: str) -> dict[str, Hcl]:
    return {key: Hcl(block == "true", kind, storage) for key, block, kind, storage in HCL.findall(body)}


def _nesting(hcl: Hcl) -> str:
    return "single" if hcl.kind == "struct" else hcl.kind


def _of_hcl(hcl: Hcl) -> Any:
    element = re.sub(r"(List|Map)+$", "", hcl.storage)
    inner = SIMPLE[element]
    if hcl.kind == "simple":
        return inner
    for _ in range(len(re.findall(r"List|Map", hcl.storage[len(element) :])) - 1):
        inner = ["list", inner]
    return [hcl.kind, inner]


def _getters(body: str) -> Iterator[tuple[str, Getter]]:
    lines = body.split("\n")
    for number, line in enumerate(lines):
        match = FLAGS.match(line)
        if not match:
            continue
        flags = {f: match[i] == "true" for i, f in enumerate(("computed", "optional", "required"), 2)}
        following = "\n".join(lines[number + 1 : number + 6])
        field = lines[number + 1].lstrip()
        nested = (
            NESTED.search(following.split("\n// ")[0]) if field.startswith("_") and "new " in field else None
        )
        getter = GETTER.search(following)
        yield (
            match[1],
            Getter(
                flags,
                nested[1] if nested else None,
                bool(nested and nested[2] == "true"),
                getter[1] if getter and not nested else None,
                "tolist" in following,
            ),
        )


def _element(name: str) -> str:
    return re.sub(r"(OutputReference|List|Map)$", "", name)


def _first(match: re.Match[str] | None) -> str:
    if match is None:
        raise ValueError("the generated code has another form than that of cdktn 0.22")
    return match[1]


def read(wheel: str) -> dict[str, Any]:
    """Provider, resources and data sources of a `cdktn-provider-...` wheel.

    Raises ValueError where a module does not have the expected form.
    """
    schema: dict[str, Any] = {"provider": None, "resources": {}, "data": {}}
    with zipfile.ZipFile(wheel) as package:
        inner = next(name for name in package.namelist() if name.endswith(".jsii.tgz"))
        code = io.BytesIO(package.read(inner))
    with tarfile.open(fileobj=code) as archive:
        for member in archive:
            file = (
                archive.extractfile(member)
                if re.match(r"package/lib/[^/]+/index\.js$", member.name)
                else None
            )
            source = file.read().decode() if file else ""
            if "tfResourceType" not in source:
                continue
            module = Module(source)
            if module.kind == "provider":
                schema["provider"] = module.block()
            elif module.kind:
                schema[module.kind][module.type] = module.block()
    if not schema["provider"] or not schema["resources"]:
        raise ValueError(f"{wheel} holds no provider and no resource")
    return schema


if __name__ == "__main__":
    with gzip.open(sys.argv[2], "wt", encoding="utf-8") as out:
        json.dump(read(sys.argv[1]), out, separators=(",", ":"))
