"""What PyYAML's safe_load says of YAML texts: tests/workload/yaml_answers.json, which yaml_test.cpp compares with ours. Needs PyYAML (6.0.3 wrote what is committed).
Numbers that JSON does not have are {"real": "inf"}; keys are words, and dates are left out, as both are said to differ (workload/probe_document.hpp)."""
import json
import math
import pathlib
import random

import yaml

HERE = pathlib.Path(__file__).resolve().parent
SCALARS = """ ~ null Null NULL nULL yes Yes YES yES no on Off OFF true True TRUE tRUE false y n Y N 0 -0 +0 00 07 08 010 0o10 0b101 0b2 0b_1 0b -0b11 0x1F 0xg 0x_f -0x10 +12 12_000 1__2 _1 1_ 9223372036854775807
9223372036854775808 -9223372036854775808 -9223372036854775809 123456789012345678901234567890 1:30 1:60 1:5:59 -1:30 01:30 1:30.5 1:30. 190:20:30.15 1. .5 -.5 +.5 1.5 -1.5 +1.5 1.5e3 1.5e+3 1.5e-3 1e-4 1e4 1e+4 1.0e-4
1.e+2 .5e+1 1_0.2_5 ._5 1.2.3 .inf -.inf +.Inf .INF .nan .NaN -.nan .NAN inf nan 1.0e+999 1.0e-999 bf16 bf16-true a:b a:1 x#y 0.0 1,000 --- 1e 1.5e+ 0x 0777777777777777777777777 0b1111111111111111111111111111111111111111111111111111111111111111111""".split()
TEXTS = [
    "a: 1\nb: [1, 2.0, x]\nc: {d: yes, e: null}\n", "- 1\n- - 2\n  - 3\n- {}\n- []\n", "a: 'yes'\nb: \"1\\n\\u00e9\"\nc: |\n  one\n  two\nd: >-\n  three\n  four\n", "# a comment\na: b # another\n",
    "base: &b\n  x: 1\n  y: 2\nmine:\n  <<: *b\n  y: 3\n  z: 4\n", "p: &p {x: 1, y: 2}\nq: &q {y: 5, w: 6}\nr: {<<: [*p, *q], z: 0}\n", "p: &p {x: 1}\nr:\n  x: 9\n  <<: *p\n", "p: &p {x: 1}\nq: &q {x: 2}\nr:\n  <<: *p\n  <<: *q\n",
    "a: &x [1, 2]\nb: *x\n", "a: &x 5\nb: *x\na2: &x 6\nc: *x\n", "a: !!str 5\nb: !!int '7'\nc: !!float 1e-4\nd: !!float 3\ne: !!bool 'ON'\nf: !!null x\ng: ! 5\nh: !!map {i: 1}\nj: !!seq [1]\n",
    "lr: 1e-5\nlr2: 1.0e-5\nlr3: 0.00001\n", "---\na: 1\n...\n", "%YAML 1.1\n---\na: 1\n", "'<<': 1\n", "a: \"<<\"\n", "a:\nb:\n", "a: [1, 2,]\n", "key with spaces: a b c\n", "a: !!python/name:os.system x\n", "a: !mine x\n", "a: =\n", "a: *nothing\n",
    "a: [1\n", "a: b: c\n", "a:\n\tb: 1\n", "a: 'x\n", "a: {b: 1\n", "a: 1\n--- \nb: 2\n", "<<: 5\n", "- a\nb: 1\n", "a: !!int x\n", "a: !!float x\n", "a: !!bool x\n", "? [a]\n: 1\n", "a: @x\n", "a: `x`\n", "a: %x\n", "a: \x01\n", "a: 1\n b: 2\n", "\ufeffa: 1\n",
    "a: [x, y: 1]\n", "a: -\n", "- -\n", "a: \"\\q\"\n", "plain\n", "12\n", "a: x\n  y\n  z\n", "a: 'it''s'\n", "a: !!binary aGk=\n", "a: !!set {b, c}\n", "{\"a\": 1, \"b\": [true, null, 1.5, \"x\"]}",
]


def plain(value):
    """The value as JSON can say it; an exception where that is not possible."""
    if isinstance(value, float) and not math.isfinite(value):
        return {"real": "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"}
    if isinstance(value, dict):
        if not all(isinstance(k, str) for k in value):
            raise TypeError("keys")
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [plain(v) for v in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(type(value).__name__)


def answer(text):
    try:
        return {"yaml": text, "answer": plain(yaml.safe_load(text))}
    except TypeError as e:
        return None if str(e) in ("keys", "date", "datetime", "bytes", "set") else {"yaml": text, "error": type(e).__name__}
    except (yaml.YAMLError, ValueError, KeyError) as e:
        return {"yaml": text, "error": type(e).__name__}


choose = random.Random(20261126)
made = {"".join(choose.choice("0123456789" + "._:+-eExXbBoO_0017" * 3) for _ in range(choose.randint(1, 7))) for _ in range(2500)}
texts = [f"a: {s}\n" for s in SCALARS + sorted(made) if not s.endswith(":") and ": " not in s] + TEXTS
answers = [a for a in map(answer, texts) if a is not None]
(HERE / "yaml_answers.json").write_text("[\n" + ",\n".join(json.dumps(a) for a in answers) + "\n]\n")
print(len(answers), "answers,", sum("error" in a for a in answers), "errors")
