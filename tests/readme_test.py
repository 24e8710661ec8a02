#!/usr/bin/env python3
"""README's C++ example is tests/consumer/main.cpp, and every file README and kernels/README.md name exists."""
import pathlib
import re
import sys

root = pathlib.Path(__file__).resolve().parent.parent
problems = []

readme = (root / "README.md").read_text()
examples = re.findall(r"```cpp\n(.*?)```", readme, re.S)
if examples != [(root / "tests/consumer/main.cpp").read_text()]:
    problems.append("README.md: the C++ example differs from tests/consumer/main.cpp")

for page in ("README.md", "kernels/README.md"):
    text = (root / page).read_text()
    named = re.findall(r"\]\(([^)#:]+)\)", text)
    named += re.findall(r"`((?:tools|tests|bench|host|kernels|include)/[A-Za-z0-9_./-]+)`", text)
    problems += [f"{page}: {name} does not exist" for name in named if not (root / name).exists()]

print("\n".join(problems) or "README: example and paths are right")
sys.exit(1 if problems else 0)
