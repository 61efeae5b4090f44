// See commands.hpp.
#include "cli/commands.hpp"

#include <algorithm>

namespace dryfit::cli {

namespace {

constexpr FlagSpec kOutput[] = {{"json", "", "the answer as JSON (docs/schema)"}, {"color", "WHEN", "auto, always, never"}, {"ascii", "", "no characters beyond ASCII"}, {"quiet", "", "-q: the answer alone"}, {"verbose", "", "-v: more of it"}, {"help", "", "-h: help of the command"}};
constexpr FlagSpec kModel[] = {{"depth", "N", "layers; everything else follows [20]"}, {"aspect-ratio", "N", "width per layer [64]"}, {"head-dim", "N", "[128]"},
                               {"window-pattern", "S|L..", "attention windows, tiled [SSSL]"}, {"vocab-size", "N", "of your tokenizer [32768]"}, {"nanochat", "VERSION", "epoch, commit or date [newest]"}};
constexpr FlagSpec kRun[] = {{"device-batch-size", "N", "sequences per GPU and micro-step; -1: search"}, {"total-batch-size", "TOKENS", "per optimizer step; -1: nanochat's rule"}, {"max-seq-len", "N", "[2048]"},
                             {"fp8", "", "fp8 matrix products"}, {"dtype", "T", "bf16, fp16, fp32"}, {"attention", "KIND", "fa3, sdpa, efficient, math"}, {"compile", "0|1", "torch.compile [1]"}, {"torch", "V", "torch version"}, {"core-metric-every", "N", "-1: no CORE evaluation [2000]"}, {"core-metric-max-per-task", "N", "[500]"},
                             {"num-iterations", "N", "how long to train"}, {"target-flops", "X", "the same"}, {"target-param-data-ratio", "X", "the same: tokens per parameter [12]"},
                             {"script", "NAME", "base_train, mid_train, chat_sft, chat_rl [base_train]; of a model: dpo, kto, reward, grpo"}, {"phases", "A,B", "count these phases only"}, {"eval-every", "N", "-1: no validation"}, {"sample-every", "N", "-1: no sampling"}, {"save-every", "N", "checkpoints"}, {"resume-from-step", "N", "[-1]"},
                             {"chatcore-every", "N", "chat_sft; -1: no ChatCORE"}, {"load-optimizer", "0|1", "chat_sft [1]"}, {"num-samples", "N", "chat_rl [16]"}, {"max-new-tokens", "N", "chat_rl [256]"}, {"examples-per-step", "N", "chat_rl [16]"}};
constexpr FlagSpec kMachine[] = {{"gpu", "NAME", "\"RTX 4090\", h100, ... [found here]"}, {"gpus", "N", "how many"}, {"memory", "SIZE", "per GPU: 24GiB"}, {"reserve", "SIZE", "leave this much free"}, {"alloc-conf", "S", "PYTORCH_ALLOC_CONF"}, {"ignore", "A,B", "flags of a pasted nanochat command that only your fork has; repeatable"}};
constexpr FlagSpec kPrices{"prices", "FILE", "your prices of a GPU-hour, as data/prices.csv"}, kEmit{"emit", "KIND", "a job to start it with: torchrun, slurm, kubernetes, trainjob, skypilot, ray"},
    kNodes{"nodes", "N", "machines that share --gpus, for --emit [8 GPUs each]"};
constexpr FlagSpec kPlan[] = {{"offers", "", "what to rent: priced GPUs by time and cost"}, kPrices, kEmit, kNodes};
constexpr FlagSpec kCapture{"capture", "FILE|-", "any script's allocations, as python -m dryfit.capture wrote them"};
constexpr FlagSpec kCheck[] = {kCapture, kPrices, kEmit, kNodes};
constexpr FlagSpec kExplain[] = {kCapture, kPrices, {"alternatives", "0|1", "what would change it [1]; 0: a quicker answer"}, {"timeline", "", "memory over the run, as a picture"}, {"svg", "FILE", "the same as an SVG chart; -: to standard output, alone"}};
constexpr FlagSpec kTransformers[] = {{"model", "NAME", "a Hugging Face model: dryfit list models"}, {"config", "FILE|-", "its config.json"}, {"optimizer", "NAME", "as --optim [adamw_torch_fused]"}, {"mixed", "bf16|fp16", "autocast"}, {"max-steps", "N", "how long it trains"}, {"recompute", "none|full", "gradient checkpointing [none]"},
                                      {"grad-accum-steps", "N", "[1]"}, {"max-tokens", "N", "how long, in tokens"}, {"lora-rank", "N", "adapters; 0: none"}, {"ema", "", "a moving average of the weights"}, {"load-in-4bit", "", "frozen weights in 4 bits"}, {"dora", "", "DoRA"}, {"liger", "0|1", "Liger-Kernel [0]"}, {"padded", "0|1", "rows of a batch are filled up to the longest [0]"}, {"no-cache", "", "model.config.use_cache = False"}, {"transformers", "V", "transformers version [5.17.0]"}, {"parallel", "KIND", "ddp, fsdp1, fsdp2, zero0 to zero3 [ddp]"}, {"offload", "", "states on the host, under zero1 to zero3 and FSDP"}, {"cold-caches", "0|1", "torch.compile knows no kernel yet [1]"}, {"torchrun", "0|1", "nanochat: started by it, though on one GPU [0]"}, {"framework", "NAME", "transformers or litgpt [transformers]"}};
constexpr FlagSpec kTable[] = {{"gpu", "A,B,..", "GPUs, by name"}, {"depths", "N,N,..", "[12,16,20,24]"}, {"gpus", "N", "how many of each [1]"}, {"csv", "", "as CSV"}, {"max-seq-len", "N", "[2048]"}, {"nanochat", "VERSION", "[newest]"}, {"fp8", "", "fp8 matrix products"}, {"window-pattern", "S|L..", "[SSSL]"}, {"vocab-size", "N", "[32768]"}, {"dtype", "T", "bf16, fp16, fp32"}, {"attention", "KIND", "as of check"}, {"compile", "0|1", "torch.compile of a model [0]"}, {"total-batch-size", "TOKENS", "per optimizer step"}};
constexpr FlagSpec kRule[] = {{"gpu-memory-gb", "X", "memory of the GPU in GB"}, {"depth", "N", "[24]"}, {"seq-len", "N", "[1024]"}};

constexpr FlagSpec kWatch[] = {{"pid", "N", "of the job [the newest training process on a GPU]"}, {"log", "FILE", "what the training prints: steps and phases"}, {"interval", "SECONDS", "[1]"}, {"once", "", "one screen, then exit"},
                               {"record", "FILE", "a new recording"}, {"replay", "FILE", "play a recording"}, {"prometheus", "FILE", "metrics for node_exporter's textfile collector"}};

constexpr FlagSpec kDoctor[] = {{"live", "", "the running job: some seconds of its GPUs"}, {"pid", "N", "of the job [the newest training process on a GPU]"}, {"log", "FILE", "what the training prints: steps, MFU, stalls"},
                                {"seconds", "S", "how long to read [5; of a recording its last 60]"}, {"replay", "FILE", "a recording of watch in place of this machine"}, {"svg", "FILE", "of a memory snapshot: its allocations over time; -: to standard output, alone"}};

constexpr FlagSpec kCalibrate[] = {{"show", "", "what is learned"}, {"reset", "", "put it aside and begin anew"}, {"gpu", "NAME", "where a log does not tell it"}, {"gpus", "N", "how many"}};

constexpr FlagSpec kWeb[] = {{"port", "N", "[8765]; 0: any that is free"}};

constexpr CommandSpec kCommands[] = {
    {"plan", "what should I run on this machine?", "  dryfit plan --gpu \"RTX 4090\"\n  dryfit plan --gpu h100 --gpus 16 --depth 26 --emit slurm > job.sbatch\n  dryfit plan --model llama-3.1-8b --max-tokens 1B --offers\n", {kModel, kRun, kTransformers, kMachine, kPlan}},
    {"check", "will exactly this run fit? exit 0: yes, 1: no", "  dryfit check --depth 26 --device-batch-size 32 --gpu h100 --gpus 8\n  dryfit check --gpu h100 -- torchrun --nproc_per_node=8 -m scripts.base_train --depth=26\n  dryfit check --model llama-3.2-1b --device-batch-size 4 --gpu 4090\n", {kModel, kRun, kTransformers, kMachine, kCheck}},
    {"explain", "where every GiB goes, and when", "  dryfit explain --depth 20 --device-batch-size 8 --gpu 4090\n  dryfit explain --depth 20 --gpu h100 --gpus 8 --timeline --svg memory.svg\n  dryfit explain --config config.json --mixed bf16 --recompute full --gpu h100\n", {kModel, kRun, kTransformers, kMachine, kExplain}},
    {"table", "GPU x depth, or method: the largest device batch that fits", "  dryfit table\n  dryfit table --gpu h100,b200 --depths 20,24,32 --gpus 8 --csv\n  dryfit table --model llama-3.1-8b --gpu 3090,4090,h100\n", {kTable, kTransformers, {}}},
    {"doctor", "it died, or the GPU idles: why, and what to change", "  dryfit doctor train.log -- THE COMMAND           a log, a traceback, one line; numbers where the command is given\n  dryfit doctor snapshot.pickle --svg memory.svg   a CUDA memory snapshot: who holds what, and when\n  dryfit doctor --live --log train.log             a job that runs here: does it use its GPUs?\n", {kDoctor, kModel, kRun, kTransformers, kMachine}},
    {"watch", "a running job beside its prediction, live", "  dryfit watch                          the newest training process on a GPU\n  dryfit watch --pid 41212 --log train.log\n  dryfit watch --json --interval 10 > watch.jsonl\n  dryfit watch --record run.jsonl       then: dryfit watch --replay run.jsonl\n", {kWatch, kModel, kRun}, true},
    {"calibrate", "learn this machine's constants from its own runs", "  dryfit calibrate train.log                 nanochat's own log: achieved speed, the printed peak\n  dryfit calibrate run.jsonl                 made by: dryfit watch --log train.log --record run.jsonl\n  dryfit calibrate snapshot.pickle --gpu h100   of a failed request: what lay outside PyTorch\n  dryfit calibrate --show\n", {kCalibrate, kModel, kRun}, true},
    {"rule-of-thumb", "the seed's calculator, and the engine beside it", "  dryfit rule-of-thumb --gpu-memory-gb 24 --depth 24\n  dryfit rule-of-thumb\n", {kRule, {}, {}}},
    {"list", "gpus | models | versions", "  dryfit list gpus\n  dryfit list models                    nanochat's depths, and Hugging Face models\n  dryfit list models llama              some of them; a whole name: one in detail\n  dryfit list models ./config.json      a file's: parameters, to the tensor; - reads standard input\n  dryfit list versions\n", {{}, {}, {}}},
    {"mcp", "the same answers for an agent, over standard input and output", "  dryfit mcp                            as the command of an MCP server in your agent's settings (docs/machines.md)\n", {}, true},
    {"web", "the same as a page, served on this computer alone", "  dryfit web\n  dryfit web --port 8080\n", {kWeb}, true},
    {"completions", "bash | zsh | fish | powershell", "  source <(dryfit completions bash)\n", {{}, {}, {}}},
    {"help", "help of a command", "  dryfit help check\n", {{}, {}, {}}},
    {"version", "the version", "  dryfit version\n", {{}, {}, {}}},
};

}  // namespace

std::span<const CommandSpec> commands() { return kCommands; }

const CommandSpec* find_command(std::string_view name) {
  const auto found = std::ranges::find(kCommands, name, &CommandSpec::name);
  return found == std::end(kCommands) ? nullptr : found;
}

std::vector<FlagSpec> flags_of(const CommandSpec& command) {
  std::vector<FlagSpec> all(std::begin(kOutput), std::end(kOutput));
  for (const auto& group : command.flags) all.insert(all.end(), group.begin(), group.end());
  return all;
}

}  // namespace dryfit::cli
