"""tools/oracle without torch: the reader of Inductor's wrappers, the goldens' format, the goldens themselves."""
import json
import pathlib
import random
import sys
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tools" / "oracle"), str(ROOT / "python" / "dryfit" / "tracing")]

import cases  # noqa: E402
import draw  # noqa: E402
import pack  # noqa: E402
import wrapper  # noqa: E402

WRAPPER = '''
def call(args):
    primals_1, primals_2 = args
    args.clear()
    assert_size_stride(primals_1, (8, 4), (4, 1))
    with torch.cuda._DeviceGuard(0):
        torch.cuda.set_device(0)
        buf0 = empty_strided_cuda((8, 4), (4, 1), torch.bfloat16)
        # a comment
        stream0 = get_raw_stream(0)
        triton_poi_fused_add_0.run(primals_1, buf0, 32, stream=stream0)
        del primals_1
        buf1 = reinterpret_tensor(buf0, (4, 8), (1, 4), 0); del buf0  # reuse
        extern_kernels.mm(buf1, reinterpret_tensor(primals_2, (8, 8), (8, 1), 0), out=buf1)
        buf2 = torch.ops.some.op.default(buf1, 1.0)
        buf3 = buf2[1]
        del buf2
        buf4 = buf3; del buf3  # reuse
    return (reinterpret_tensor(buf4, (2, 2), (2, 1), 0), None, buf1, )
'''


class Wrapper(unittest.TestCase):
    def test_every_line_that_touches_memory(self):
        arguments, steps = wrapper.read(WRAPPER)
        self.assertEqual(arguments, ["primals_1", "primals_2"])
        self.assertEqual([s.kind for s in steps], ["alloc", "run", "free", "alias", "free", "run", "call", "item", "free", "alias", "free", "return"])
        self.assertEqual((steps[0].name, steps[0].dtype, steps[0].shape, steps[0].stride), ("buf0", "bfloat16", (8, 4), (4, 1)))
        self.assertEqual(steps[1].names, ["primals_1", "buf0"])
        self.assertEqual((steps[3].name, steps[3].source), ("buf1", "buf0"))
        self.assertEqual(steps[5].names, ["buf1", "primals_2"])
        self.assertEqual((steps[6].name, steps[6].source, steps[7].source, steps[7].index), ("buf2", "torch.ops.some.op.default", "buf2", 1))
        self.assertEqual(steps[-1].names, ["buf4", None, "buf1"])
        self.assertEqual(eval(steps[3].code, {"reinterpret_tensor": lambda *a: a}, {"buf0": "B"}), ("B", (4, 8), (1, 4), 0))
        self.assertEqual(eval(steps[6].code, {}, {"buf1": "B"}), (["B", 1.0], {}))

    def test_sizes_that_are_symbols(self):
        _, steps = wrapper.read("""
def call(args):
    arg0_1, arg1_1 = args
    args.clear()
    s77 = arg0_1
    buf0 = empty_strided_cuda((s77, 1 + (s77 // 2), 4), (4*max(1, s77), 4, 1), torch.float32)
    triton_poi_fused_0_xnumel = 8*s77
    triton_poi_fused_0.run(arg1_1, buf0, triton_poi_fused_0_xnumel, stream=stream0)
    buf1 = empty_strided_cpu((3, ), (1, ), torch.int64)
    return (buf0, s77, 2*s77, )
""")
        self.assertEqual([s.kind for s in steps], ["alias", "alloc", "number", "run", "alloc", "return"])
        self.assertEqual([wrapper.number(n, {"s77": 5}) for n in (*steps[1].shape, *steps[1].stride, steps[2].code, steps[5].names[2])], [5, 3, 4, 20, 4, 1, 40, 10])
        self.assertEqual([steps[1].device, steps[4].device], ["cuda", "cpu"])

    def test_sizes_that_are_asked_of_an_argument(self):
        _, steps = wrapper.read("""
def call(args):
    arg0_1, = args
    arg0_1_size = arg0_1.size()
    s41 = arg0_1_size[1]
    buf0 = empty_strided_cuda((s41, ), (1, ), torch.float32)
    triton_poi_fused_0.run(arg0_1.item(), buf0, s41, stream=stream0)
    return (buf0, )
""")
        self.assertEqual([s.kind for s in steps], ["size", "item", "alloc", "run", "return"])
        self.assertEqual((steps[0].source, steps[0].code, steps[1].source, steps[1].index), ("arg0_1", "size", "arg0_1_size", 1))

    def test_what_is_left_of_sums_in_both_orders(self):
        _, steps = wrapper.read("""
def call(args):
    arg0_1, = args
    args.clear()
    workspace_0 = empty_strided_cuda((1024, ), (1, ), torch.float32)
    triton_per_fused_0.run(arg0_1, workspace_0, 8, 64, stream=stream0)
    buf4 = workspace_0[0 * 8 * 64 : (0 + 1) * 8 * 64].view(8, 64).sum(dim=0).to(torch.bfloat16)
    buf5 = workspace_0[1 * 8 * 64 : (1 + 1) * 8 * 64].view(8, 64).sum(dim=0)
    return (buf4, buf5, )
""")
        self.assertEqual([s.kind for s in steps], ["alloc", "run", "alloc", "alloc", "free", "alloc", "return"])
        self.assertEqual([(s.name, s.dtype, s.shape) for s in steps[2:4]], [("buf4_sums", "float32", (64,)), ("buf4", "bfloat16", (64,))])
        self.assertEqual((steps[4].names, steps[5].name, steps[5].dtype), (["buf4_sums"], "buf5", "float32"))

    def test_what_it_does_not_know_it_refuses(self):
        for line in ("buf0 = [1, 2]", "for i in range(3): pass", "a, b = other", "return (buf0 + 1, )", "return (constant0, )", "buf0 = empty_strided_cuda((open('x'), ), (1, ), torch.int8)", "buf0 = empty_strided_xpu((1, ), (1, ), torch.int8)", "pass"):
            with self.assertRaises(wrapper.UnknownLine, msg=line):
                wrapper.read(f"def call(args):\n    {line}\n")


class Format(unittest.TestCase):
    def test_repeated_stretches_are_written_once(self):
        self.assertEqual(pack.fold([1, 2, 3, 2, 3, 2, 3, 4]), [1, [3, 2, 3], 4])
        self.assertEqual(pack.fold([5, 6, 7]), [5, 6, 7])

    def test_folding_loses_nothing(self):
        for seed in range(200):
            dice = random.Random(seed)
            layer = [dice.choice((1, 2, 3, -1, -2)) for _ in range(dice.randint(1, 12))]
            tokens = [dice.randint(1, 4) for _ in range(dice.randint(0, 6))] + layer * dice.randint(0, 6) + [dice.randint(-4, 4) for _ in range(dice.randint(0, 6))]
            self.assertEqual(pack.unfold(pack.fold(tokens)), tokens)


class Goldens(unittest.TestCase):
    def test_each_recording_adds_up(self):
        for file, listed in cases.files():
            found = [json.loads(line) for line in (ROOT / "tests" / "golden" / "oracle" / file).read_text().splitlines()]
            self.assertEqual([f["name"] for f in found], [c.name() for c in listed], f"{file}: run tools/oracle/record.sh")
            for one in found:
                self._adds_up(one)

    def _adds_up(self, one):
        live, alive = 0, [0] * len(one["tensors"])
        for segment in one["segments"]:
            tokens = pack.unfold(segment["events"])
            self.assertEqual(len(tokens), segment["count"], one["name"])
            curve = []
            for token in tokens:
                row = abs(token) - 1
                alive[row] += 1 if token > 0 else -1
                self.assertGreaterEqual(alive[row], 0, one["name"])
                live += (-(-one["tensors"][row][2] // 512) * 512) * (1 if token > 0 else -1)
                curve.append(live)
            if curve:
                self.assertEqual((max(curve), curve.index(max(curve)), live), (segment["peak"], segment["peak_event"], segment["end"]), f"{one['name']} {segment['name']}")

    def test_names_are_unique_and_sets_disjoint(self):
        names = [c.name() for c in cases.every()]
        self.assertEqual(len(names), len(set(names)))

    def test_a_seed_draws_the_same_runs_again(self):
        for shapes in draw.SHAPES:
            drawn = draw.draw(20261127, 30, shapes)
            self.assertEqual(drawn[:12], draw.draw(20261127, 12, shapes))
            self.assertEqual(len({c.name() for c in drawn}), 30)
            self.assertGreater(len({c.epoch for c in drawn}), 8)
        self.assertEqual(draw.draw(20261127, 1)[0].name(), "step-E1b-d4-B5-T1152-V65536-L-sdpa-W2")  # as docs/accuracy.md has them


if __name__ == "__main__":
    unittest.main()
