#!/usr/bin/env python3
"""Records every case of torchtitan_cases.py that is not there yet, then writes the goldens. `record.sh --torchtitan` sets up what it needs.

`record_torchtitan.py --raw DIR --golden DIR [--only TEXT]`: one process for all. A raw file per case lies in --raw, so an interrupted run goes on
where it stopped; delete a raw file to record it again.
"""
import record_transformers
import torchtitan_cases


def runner(case):
    import torchtitan_session
    return torchtitan_session.Run(case)


if __name__ == "__main__":
    record_transformers.main(__doc__, {"torchtitan.jsonl": list(torchtitan_cases.seen()), "torchtitan_unseen.jsonl": list(torchtitan_cases.unseen())}, runner)
