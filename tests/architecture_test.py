"""Knowledge runs one way through the rooms of src, core rooms stay pure, files stay readable."""
import pathlib
import re
import sys
import tempfile

LAYER = {"base": 0, "workload": 1, "machine": 1, "graph": 2, "passes": 3, "memory": 4, "speed": 4, "capture": 4, "plan": 5, "doctor": 5.5, "watch": 5.5, "report": 6, "cli": 7, "api": 8, "mcp": 9, "web": 9}
CORE = {"base", "workload", "machine", "graph", "passes", "memory", "speed", "capture", "plan", "doctor", "watch"}
IMPURE = re.compile(r"#include <(iostream|fstream|thread|filesystem)>|\bprintf\(|std::cout|std::cerr|\bgetenv\(|\bthrow\b|\btime\(|system_clock|rand\(")
MOST_LINES = 600


def faults(source):
    found = []
    for path in sorted(source.rglob("*.[ch]pp")):
        room = path.relative_to(source).parts[0]
        text = path.read_text()
        where = path.relative_to(source)
        if not text.startswith("//"):
            found.append(f"{where}: does not open by saying what it is")
        if len(text.splitlines()) > MOST_LINES:
            found.append(f"{where}: longer than {MOST_LINES} lines")
        if room == "main.cpp":
            continue
        for target in re.findall(r'#include "([a-z]+)/', text):
            if target not in LAYER:
                found.append(f"{where}: includes unknown room {target}")
            elif target != room and LAYER[target] >= LAYER[room]:
                found.append(f"{where}: {room} must not know {target}")
        if room in CORE and "probe_" not in path.name:
            for number, line in enumerate(text.splitlines(), 1):
                if IMPURE.search(line.split("//")[0]):
                    found.append(f"{where}:{number}: not pure: {line.strip()}")
    return found


def named_twice(source):
    """Types of one namespace defined in two files: the linker keeps one of their functions for both, and memory goes wrong without a word."""
    homes = {}
    for path in sorted(source.rglob("*.[ch]pp")):
        text = re.sub(r"^namespace \{.*?^\}  // namespace$", "", path.read_text(), flags=re.S | re.M)
        spaces = re.findall(r"^namespace (dryfit[\w:]*) \{", text, re.M)
        for name in re.findall(r"^(?:struct|class|enum class) (\w+)(?: final)?(?: : [^{;]*)? \{", text, re.M):
            homes.setdefault((spaces[0] if spaces else "", name), []).append(path.relative_to(source))
    return [f"{space}::{name} is defined in {' and '.join(map(str, paths))}" for (space, name), paths in sorted(homes.items()) if len(paths) > 1]


def unasserted(tests):
    """rc::check tells its result and fails nothing by itself."""
    return [f"{path.relative_to(tests)}: rc::check( without EXPECT_TRUE around it" for path in sorted(tests.rglob("*_test.cpp"))
            if re.search(r"(?<!EXPECT_TRUE\()(?<!ASSERT_TRUE\()\brc::check\(", path.read_text())]


def self_test():
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        (root / "base").mkdir()
        (root / "base" / "bad.cpp").write_text('#include "plan/plan.hpp"\n#include <iostream>\n' + "\n" * MOST_LINES)
        (root / "base" / "one.hpp").write_text("namespace dryfit {\nstruct Twice { int a; };\nnamespace {\nstruct Local {\n};\n}  // namespace\n}\n")
        (root / "base" / "two.hpp").write_text("namespace dryfit {\nclass Twice {\n};\nnamespace {\nstruct Local {\n};\n}  // namespace\n}\n")
        (root / "base" / "a_test.cpp").write_text("  rc::check([] {});\n")
        (root / "base" / "b_test.cpp").write_text("  EXPECT_TRUE(rc::check([] {}));\n")
        return len([f for f in faults(root) if "bad.cpp" in f]) == 4 and len(named_twice(root)) == 1 and len(unasserted(root)) == 1


tests = pathlib.Path(__file__).resolve().parent
source = tests.parent / "src"
found = faults(source) + named_twice(source) + unasserted(tests)
for line in found:
    print("FAILED", line)
if not self_test():
    print("FAILED: the checker does not see planted faults")
    sys.exit(1)
print(f"{len(found)} faults")
sys.exit(1 if found else 0)
