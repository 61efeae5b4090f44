#!/usr/bin/env python3
"""Records every case of torchtune_cases.py that is not there yet, then writes the goldens. `record.sh --torchtune` sets up what it needs.

`record_torchtune.py --raw DIR --golden DIR [--only TEXT]`: one process for all. A raw file per case lies in --raw, so an interrupted run goes on
where it stopped; delete a raw file to record it again.
"""
import record_transformers
import torchtune_cases


def runner(case):
    if case.gpus > 1:
        import torchtune_distributed
        return torchtune_distributed.Run(case)
    import torchtune_session
    return torchtune_session.Run(case)


if __name__ == "__main__":
    record_transformers.main(__doc__, {"torchtune.jsonl": list(torchtune_cases.seen()), "torchtune_unseen.jsonl": list(torchtune_cases.unseen())}, runner)
