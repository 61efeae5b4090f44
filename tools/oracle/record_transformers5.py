#!/usr/bin/env python3
"""Records the cases with transformers 5. `record.sh --transformers5` sets up what it needs; see record_transformers.py."""
import transformers_cases as cases
from record_transformers import main, runner_of

if __name__ == "__main__":
    main(__doc__, {"transformers_5_padded.jsonl": list(cases.newest_padded()), "transformers_5_padded_unseen.jsonl": list(cases.newest_padded_unseen()),
                   "transformers_5_heads.jsonl": list(cases.newest_heads()), "transformers_5_heads_unseen.jsonl": list(cases.newest_heads_unseen()),
                   "transformers_5.jsonl": list(cases.newest()), "transformers_5_unseen.jsonl": list(cases.newest_unseen()), "transformers_5_dpo_unseen.jsonl": list(cases.newest_dpo_unseen()), "transformers_5_pairs_unseen.jsonl": list(cases.newest_pairs_unseen()),
                   "transformers_5_grpo.jsonl": list(cases.newest_grpo()), "transformers_5_grpo_unseen.jsonl": list(cases.newest_grpo_unseen()),
                   "transformers_5_evaluation.jsonl": list(cases.newest_evaluations()), "transformers_5_evaluation_unseen.jsonl": list(cases.newest_evaluations_unseen()),
                   "transformers_5_experts.jsonl": list(cases.newest_experts()), "transformers_5_experts_unseen.jsonl": list(cases.newest_experts_unseen()),
                   "transformers_5_experts_parallel.jsonl": list(cases.newest_experts_parallel()), "transformers_5_experts_parallel_unseen.jsonl": list(cases.newest_experts_parallel_unseen())}, runner_of)
