"""Prints tests/doctor/python_pickles.hpp: one small snapshot as Python itself pickles it, in every protocol, and objects that must be refused."""
import collections
import io
import pickle
import pickletools
import sys

frames = [{"name": "forward", "filename": "/home/u/model.py", "line": 54}, {"name": "<module>", "filename": "/home/u/train.py", "line": 9}]
deep = [{"name": f"f{i}", "filename": "/home/u/deep.py", "line": i} for i in range(2)]
SNAPSHOT = {
    "segments": [{"device": 0, "address": 2 << 40, "total_size": 20 << 20, "allocated_size": 5 << 20, "active_size": 5 << 20, "requested_size": 5 << 20, "stream": 0, "segment_type": "large", "segment_pool_id": (0, 0), "is_expandable": False, "frames": [],
                  "blocks": [{"address": 2 << 40, "size": 5 << 20, "requested_size": 5 << 20, "state": "active_allocated", "frames": frames}, {"address": (2 << 40) + (5 << 20), "size": 15 << 20, "requested_size": 0, "state": "inactive", "frames": []}]}],
    "device_traces": [[{"action": "segment_alloc", "addr": 2 << 40, "size": 20 << 20, "stream": 0, "time_us": 1700000000000000, "frames": frames}, {"action": "alloc", "addr": 2 << 40, "size": 5 << 20, "stream": 0, "time_us": 1700000000000001, "frames": frames, "user_metadata": "epoch 1"},
                       {"action": "alloc", "addr": (2 << 40) + (5 << 20), "size": 1 << 21, "stream": 0, "time_us": 1700000000000002, "frames": deep}, {"action": "free_requested", "addr": (2 << 40) + (5 << 20), "size": 1 << 21, "stream": 0, "time_us": 1700000000000003, "frames": deep},
                       {"action": "free_completed", "addr": (2 << 40) + (5 << 20), "size": 1 << 21, "stream": 0, "time_us": 1700000000000004, "frames": deep}], []],
    "allocator_settings": {"PYTORCH_CUDA_ALLOC_CONF": "", "max_split_size": -1, "garbage_collection_threshold": 0.0, "expandable_segments": False, "roundup_power2_divisions": {str(1 << i): 0 for i in range(16)}},
    "external_annotations": [],
    "kept": [None, True, 1 << 70, -(1 << 70), 1 << 63, -5, (), (1,), (1, 2, 3), "text" * 100, 3.5],
}


def as_array(name, data):
    body = "".join(f"\\x{b:02x}" for b in data)
    lines = [body[i:i + 160] for i in range(0, len(body), 160)]
    return f"constexpr std::string_view {name}(\n" + "\n".join(f'    "{line}"' for line in lines) + f",\n    {len(data)});\n"


class Evil:
    def __reduce__(self):
        import os
        return os.system, ("true",)


def main():
    print("// Made by make_pickles.py: one snapshot as Python itself pickles it, and objects that must be refused. Not to be edited.")
    print("#pragma once\n\n#include <string_view>\n\nnamespace dryfit::test {\n")
    for protocol in (0, 2, 3, 4, 5):
        print(as_array(f"kProtocol{protocol}", pickle.dumps(SNAPSHOT, protocol)))
    python = io.BytesIO()
    pickle._Pickler(python, 4).dump(SNAPSHOT)  # the pickler written in Python
    print(as_array("kPurePython", python.getvalue()))
    print(as_array("kOptimized", pickletools.optimize(pickle.dumps(SNAPSHOT, 4))))
    print(as_array("kEvil2", pickle.dumps({"segments": [Evil()]}, 2)))
    print(as_array("kEvil4", pickle.dumps({"segments": [Evil()]}, 4)))
    print(as_array("kOrderedDict", pickle.dumps(collections.OrderedDict(segments=[]), 4)))
    itself = {"segments": []}
    itself["segments"].append(itself["segments"])
    print(as_array("kCyclic", pickle.dumps(itself, 4)))
    print("}  // namespace dryfit::test")


if __name__ == "__main__":
    sys.exit(main())
