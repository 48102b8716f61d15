"""Sizes: no function over 60 lines, no module over 500, anywhere in the code.

In:   Python files below the folders given (default: src, tests, bench, examples, scripts).
Out:  one line for each that is too long, and exit code 1; nothing and 0 when none is.
Why:  a loop that grew is where a kernel stops being readable. When a stage needs a comment as its title, it is a
      function. Counted as an editor shows them: decorators, docstring and blank lines included.
"""

import ast
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

__all__ = ["FUNCTION_LINES", "MODULE_LINES", "main", "too_long"]

FUNCTION_LINES = 60
MODULE_LINES = 500
ROOTS = ("src", "tests", "bench", "examples", "scripts")


def too_long(path: Path) -> Iterator[str]:
    """Report what in one file is too long, one finding a line: `file:line: what, how long, the limit`."""
    source = path.read_text(encoding="utf-8")
    lines = source.count("\n")
    if lines > MODULE_LINES:
        yield f"{path}:1: the module has {lines} lines, over {MODULE_LINES}; split it by noun"
    for node in ast.walk(ast.parse(source, str(path))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            length = (node.end_lineno or first) - first + 1
            if length > FUNCTION_LINES:
                yield f"{path}:{first}: `{node.name}` has {length} lines, over {FUNCTION_LINES}; name its stages"


def main(roots: Sequence[str]) -> int:
    """Check every Python file below `roots`; return the exit code."""
    files = sorted(path for root in roots for path in Path(root).rglob("*.py"))
    findings = [finding for path in files for finding in too_long(path)]
    for finding in findings:
        print(finding)
    return 1 if findings or not files else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or [root for root in ROOTS if Path(root).is_dir()]))
