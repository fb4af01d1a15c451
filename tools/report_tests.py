"""Add up JUnit files into one closing line; with --strict, fail on a skip that is not allowed.

tests/allowed-skips.txt holds the allowed ones: `path::test name  # reason`, one a line.
"""

import argparse
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

ALLOWED = Path(__file__).resolve().parent.parent / "tests/allowed-skips.txt"


@dataclass(frozen=True, slots=True)
class Result:
    name: str
    outcome: str
    reason: str
    seconds: float


def main() -> int:
    parser = argparse.ArgumentParser(description="Sum up test results.")
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--strict", action="store_true")
    arguments = parser.parse_args()
    results = [result for file in arguments.files for result in _read(file)]
    allowed = _allowed(ALLOWED.read_text())
    skipped = [result for result in results if result.outcome == "skipped"]
    for result in skipped:
        mark = "allowed" if result.name in allowed else "not allowed"
        print(f"skipped ({mark}): {result.name}: {result.reason}")
    print(_closing_line(results))
    surprises = [result for result in skipped if result.name not in allowed]
    failed = any(result.outcome in ("failed", "error") for result in results)
    return int(failed or not results or (arguments.strict and bool(surprises)))


def _read(file: Path) -> list[Result]:
    return [_result(case) for case in ElementTree.parse(file).iter("testcase")]


def _result(case: ElementTree.Element) -> Result:
    name = f"{case.get('file')}::{case.get('name')}"
    seconds = float(case.get("time", "0"))
    for tag, outcome in (("failure", "failed"), ("error", "error"), ("skipped", "skipped")):
        found = case.find(tag)
        if found is not None:
            expected = found.get("type") == "pytest.xfail"
            said = found.get("message", "")
            return Result(name, "xfailed" if expected else outcome, said, seconds)
    return Result(name, "passed", "", seconds)


def _allowed(text: str) -> set[str]:
    lines = (line.split("  #")[0].strip() for line in text.splitlines())
    return {line for line in lines if line and not line.startswith("#")}


def _closing_line(results: list[Result]) -> str:
    counts = {
        outcome: sum(result.outcome == outcome for result in results)
        for outcome in ("failed", "passed", "skipped", "xfailed", "error")
    }
    told = ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count)
    seconds = sum(result.seconds for result in results)
    return f"===== {told or 'no tests ran'} in {seconds:.2f}s ====="


if __name__ == "__main__":
    sys.exit(main())
