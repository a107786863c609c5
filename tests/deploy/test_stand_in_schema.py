"""The schema that is read from generated code has the attributes, types, flags and blocks of that code."""

import importlib.util
import io
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "deploy" / "terraform" / "stand_in" / "schema.py"
RESOURCE = """
function thingRuleToHclTerraform(struct) {
    const attrs = {
        days: {
            value: cdktn.numberToHclTerraform(struct.days),
            isBlock: false,
            type: "simple",
            storageClassType: "number",
        },
    };
}
exports.x = 1;
class ThingRuleOutputReference extends cdktn.ComplexObject {
    // days - computed: false, optional: false, required: true
    _days;
    get days() {
        return this.getNumberAttribute('days');
    }
}
class Thing extends cdktn.TerraformResource {
    static tfResourceType = "aws_thing";
    // name - computed: false, optional: false, required: true
    _name;
    get name() {
        return this.getStringAttribute('name');
    }
    // secret_wo - computed: false, optional: true, required: false
    _secretWo;
    get secretWo() {
        return this.getStringAttribute('secret_wo');
    }
    // arn - computed: true, optional: false, required: false
    get arn() {
        return this.getStringAttribute('arn');
    }
    // rule - computed: false, optional: true, required: false
    _rule = new ThingRuleOutputReference(this, "rule");
    get rule() {
        return this._rule;
    }
    synthesizeHclAttributes() {
        const attrs = {
            name: {
                value: cdktn.stringToHclTerraform(this._name),
                isBlock: false,
                type: "simple",
                storageClassType: "string",
            },
            zones: {
                value: cdktn.listMapperHcl(cdktn.stringToHclTerraform, false)(this._zones),
                isBlock: false,
                type: "set",
                storageClassType: "stringList",
            },
            rule: {
                value: thingRuleToHclTerraform(this._rule.internalValue),
                isBlock: true,
                type: "list",
                storageClassType: "ThingRuleList",
            },
        };
    }
    // zones - computed: true, optional: true, required: false
    _zones;
    get zones() {
        return cdktn.Fn.tolist(this.getListAttribute('zones'));
    }
}
"""
PROVIDER = """
class AwsProvider extends cdktn.TerraformProvider {
    static tfResourceType = "aws";
    // region - computed: false, optional: true, required: false
    _region;
    get region() {
        return this._region;
    }
    synthesizeHclAttributes() {
        const attrs = {
            region: {
                value: cdktn.stringToHclTerraform(this._region),
                isBlock: false,
                type: "simple",
                storageClassType: "string",
            },
        };
    }
}
"""


def read(tmp_path: Path, modules: dict[str, str]) -> dict[str, Any]:
    code = io.BytesIO()
    with tarfile.open(fileobj=code, mode="w:gz") as archive:
        for name, source in modules.items():
            member = tarfile.TarInfo(f"package/lib/{name}/index.js")
            member.size = len(source.encode())
            archive.addfile(member, io.BytesIO(source.encode()))
    wheel = tmp_path / "provider.whl"
    with zipfile.ZipFile(wheel, "w") as package:
        package.writestr("x/_jsii/provider@1.jsii.tgz", code.getvalue())
    spec = importlib.util.spec_from_file_location("stand_in_schema", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    schema: dict[str, Any] = module.read(str(wheel))
    return schema


def test_a_resource(tmp_path: Path) -> None:
    schema = read(tmp_path, {"thing": RESOURCE, "provider": PROVIDER})
    assert schema["provider"]["attributes"] == {"region": {"type": "string", "optional": True}}
    thing = schema["resources"]["aws_thing"]
    assert thing["attributes"] == {
        "name": {"type": "string", "required": True},
        "secret_wo": {"type": "string", "optional": True, "write_only": True},
        "arn": {"type": "string", "computed": True},
        "zones": {"type": ["set", "string"], "optional": True, "computed": True},
    }
    rule = {"attributes": {"days": {"type": "number", "required": True}}, "block_types": {}}
    assert thing["block_types"] == {"rule": {"nesting": "list", "min": 0, "max": 1, "block": rule}}


def test_a_package_without_a_provider_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no provider and no resource"):
        read(tmp_path, {"thing": RESOURCE})
