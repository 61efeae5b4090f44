#!/usr/bin/env python3
"""As record_transformers.py, of LLaMA-Factory's trainers, with the TRL that it pins. `record.sh --llamafactory` sets up what it needs."""
import record_transformers
import transformers_cases as cases

if __name__ == "__main__":
    record_transformers.main(__doc__, {"transformers_factory.jsonl": list(cases.factory()), "transformers_factory_unseen.jsonl": list(cases.factory_unseen()), "transformers_factory_parallel.jsonl": [c for c in cases.pairs_parallel() if "factory" in c.pairs],
                                                   "transformers_factory_parallel_unseen.jsonl": [c for c in cases.pairs_parallel_unseen() if "factory" in c.pairs]}, record_transformers.runner_of)
