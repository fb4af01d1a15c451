"""Write services/nocturne/core/schemas.py from proto/nocturne/ledger/v1/*.avsc.

The core may not read files, so the frozen schemas reach it as a Python module. `make proto` runs
this; `make check` fails when the module is not what this program would write.
"""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "proto" / "nocturne" / "ledger" / "v1"
TARGET = ROOT / "services" / "nocturne" / "core" / "schemas.py"


def render() -> str:
    """The module's text: one compact JSON string a schema, in the order of their names."""
    lines = [
        '"""The frozen Avro schemas, generated from proto/nocturne/ledger/v1 by `make proto`."""',
        "",
        "# ruff: noqa: E501",
        "SCHEMAS: dict[str, str] = {",
    ]
    for path in sorted(SOURCE.glob("*.avsc")):
        schema = json.loads(path.read_text(encoding="utf-8"))
        text = json.dumps(schema, separators=(",", ":"), ensure_ascii=True)
        lines.append(f"    {json.dumps(path.stem)}: {text!r},")
    lines.append("}")
    return "\n".join(lines) + "\n"


def main() -> int:
    """`--check` compares, anything else writes; 1 when the module is stale."""
    text = render()
    if "--check" in sys.argv[1:]:
        if TARGET.read_text(encoding="utf-8") == text:
            return 0
        print("services/nocturne/core/schemas.py is stale: run `make proto`", file=sys.stderr)
        return 1
    TARGET.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
