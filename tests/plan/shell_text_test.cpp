// Training commands out of shell scripts, as people paste them. That bash hands on the same words: made by hand from its manual, tried with bash 5.2.
#include "plan/shell_text.hpp"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include "plan/launch.hpp"
#include "plan/launcher.hpp"

namespace dryfit {
namespace {

std::string line(std::string_view text) {
  const auto command = training_command_in(text);
  return command ? shell_join(command->words) : "error: " + command.error().message;
}
std::string notes(std::string_view text) {
  const auto command = training_command_in(text);
  std::string out;
  for (const std::string& n : command->notes) out += n + "\n";
  return out;
}
constexpr const char* kTrain = "python -m scripts.base_train --depth=12";

TEST(ShellText, fillsInWhatTheTextSets) {
  for (const char* text : {"d=12\npython -m scripts.base_train --depth=$d", "D=12; python -m scripts.base_train --depth=\"${D}\"", "python -m scripts.base_train --depth=${DEPTH:-12}", "D=${1:-${DEPTH:-12}}\r\npython -m scripts.base_train \\\r\n  --depth=$D",
                           "A=(\n  --depth=12 # layers\n)\npython -m scripts.base_train \"${A[@]}\"", "F='-m scripts.base_train'; python $F --depth=12", "E=\npython -m scripts.base_train $E --depth=12", "for d in 12; do python -m scripts.base_train --depth=$d; done",
                           "if [ -z \"$X\" ]; then B=12; fi\npython -m scripts.base_train --depth=$B", "B=12; if true; then B=12; fi; python -m scripts.base_train --depth=$B", "cat <<EOF\npython -m scripts.base_train --depth=99\nEOF\npython -m scripts.base_train --depth=12"}) {
    EXPECT_EQ(line(text), kTrain) << text;
    EXPECT_EQ(notes(text), "") << text;
  }
}

TEST(ShellText, findsTheTrainingAmongOtherCommands) {
  for (const char* text : {"# train\ncd nanochat && source .venv/bin/activate && python -m scripts.base_train --depth=12", "python -m nanochat.dataset -n 8 &\npython -m scripts.tok_train\nwait\npython -m scripts.base_train --depth=12", "tmux new -d -s x 'python -m scripts.base_train --depth=12'",
                           "bash -lc \"python -m scripts.base_train --depth=12\"", "log() {\n  echo \"$(date) base_train $1\"\n}\npython -m scripts.base_train --depth=12", "python -m scripts.base_train --depth=12 || echo failed", "(python -m scripts.base_train --depth=12) &"}) {
    EXPECT_EQ(line(text), kTrain) << text;
  }
  EXPECT_EQ(notes(std::string(kTrain) + "\ntorchrun --nproc_per_node=8 -m scripts.chat_sft"), "of 2 trainings in the pasted text the first is taken\n");
  EXPECT_EQ(line("nohup python -m scripts.base_train --depth=12 > log 2>&1 &"), "nohup python -m scripts.base_train --depth=12 '>' log '2>&1'");
  EXPECT_EQ(line("python -m scripts.base_train --depth=12 2>&1 | tee log; echo"), std::string(kTrain) + " '2>&1' '|' tee log");
  EXPECT_EQ(line("ls -l"), "ls -l");
  EXPECT_EQ(notes("set -e\nmkdir x"), "none of the 2 commands of the pasted text starts a training\n");
  EXPECT_FALSE(parse_pasted_command(training_command_in("torchrun --nproc_per_node=$(nvidia-smi -L | wc -l) -m scripts.base_train")->words)->flags.gpus);
  EXPECT_EQ(line("# nothing"), "");
}

// What a program may train is taken where no command surely does; exports stand before it, and wrappers.
TEST(ShellText, takesWhatMayTrainWithWhatIsExported) {
  EXPECT_EQ(line("#!/bin/bash\n#SBATCH --nodes=2\nmodule load cuda; source x\nconda activate env\nMODEL=gpt2\nBS=4\nexport A=1 B='x y'\n\ntorchrun --nproc_per_node=8 \\\n  t.py --model_name_or_path $MODEL --per_device_train_batch_size \"${BS}\"  # train\necho done\n"),
            "A=1 'B=x y' torchrun --nproc_per_node=8 t.py --model_name_or_path gpt2 --per_device_train_batch_size 4");
  EXPECT_EQ(line("export D=12; python -m scripts.base_train --depth=$D"), "D=12 python -m scripts.base_train --depth=12");
  EXPECT_EQ(line("cd examples && python run_clm.py --bf16 && echo done"), "python run_clm.py --bf16");
  EXPECT_EQ(line("ARGS=(\n  --a 1   # one\n  --b \"two words\"\n)\nMORE=\"--c 3\"\ntorchrun t.py \"${ARGS[@]}\" $MORE \"$MORE\" ${UNSET:-5} $UNSET '$MORE'"), "torchrun t.py --a 1 --b 'two words' --c 3 '--c 3' 5 '$UNSET' '$MORE'");
  EXPECT_EQ(line("HOST=$(scontrol show hostnames $X | head -n 1)\nsrun torchrun --rdzv_endpoint $HOST:29500 t.py"), "srun torchrun --rdzv_endpoint '$(scontrol show hostnames $X | head -n 1):29500' t.py");
  EXPECT_EQ(line("python prepare.py\npip install x\naccelerate launch --num_processes $((N * 8)) t.py\ntorchrun other.py"), "accelerate launch --num_processes '$((N * 8))' t.py");
  EXPECT_EQ(line("if a; then export X=1; fi\npython t.py"), "python t.py");
  for (const char* text : {"$", "${", "$(", "`", "\\", "A=(", "A=(\n", ")", "python \"$", "python ${A[@]}", "A=()\npython ${A[@]} t.py"}) EXPECT_NO_FATAL_FAILURE((void)line(text)) << text;
}

// A variable of variables doubles with every line: what they are filled in with is bounded.
TEST(ShellText, expansionIsBounded) {
  std::string script = "A=xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\n";
  for (int i = 0; i < 64; ++i) script += "A=\"$A$A$A$A\"\n";
  EXPECT_TRUE(line(script + "python $A\n").starts_with("error: "));
  EXPECT_TRUE(line(std::string(2 << 20, 'x')).starts_with("error: "));
}

TEST(ShellText, wrappersBeforeALauncher) {
  struct Case { const char *text, *launcher, *script; std::optional<std::int64_t> gpus; };
  for (const Case& c : {Case{"srun --gres=gpu:8 -N 2 torchrun --nproc_per_node 8 t.py", "torchrun", "t.py", 8}, Case{"conda run -n trl python t.py", "python", "t.py", 1}, Case{"uv run --with trl python t.py", "python", "t.py", 1}, Case{"docker run --gpus all -it img python t.py", "python", "t.py", 1},
                        Case{"srun -n 16 python t.py", "python", "t.py", 16}, Case{"srun python t.py", "python", "t.py", std::nullopt}, Case{"mpirun -np 4 python t.py", "python", "t.py", 4}, Case{"srun --unbuffered python t.py", "python", "t.py", std::nullopt}, Case{"!python t.py", "python", "t.py", 1},
                        Case{"deepspeed --include localhost:1,2 t.py", "deepspeed", "t.py", 2}, Case{"deepspeed --include 'a:0,1@b:0' t.py", "deepspeed", "t.py", 3}, Case{"deepspeed --num_gpus 8 --num_nodes 2 t.py", "deepspeed", "t.py", 16}, Case{"deepspeed --include a t.py", "deepspeed", "t.py", std::nullopt}}) {
    const auto launch = parse_launch(*shell_split(c.text));
    ASSERT_TRUE(launch) << c.text << " " << launch.error().message;
    EXPECT_EQ(launch->launcher, c.launcher) << c.text;
    EXPECT_EQ(launch->script, c.script) << c.text;
    EXPECT_EQ(launch->gpus, c.gpus) << c.text;
  }
  EXPECT_FALSE(parse_launch(*shell_split("srun hostname")));
}

// What is not sure is not guessed.
TEST(ShellText, leavesWhatItCannotKnow) {
  EXPECT_EQ(line("for d in 12 20; do python -m scripts.base_train --depth=$d; done"), "python -m scripts.base_train '--depth=$d'");
  EXPECT_EQ(notes("for d in 12 20; do python -m scripts.base_train --depth=$d; done"), "$d has several values here: 12 20\n");
  EXPECT_EQ(line("if a; then B=8; else B=4; fi; python -m scripts.base_train --device-batch-size=$B"), "python -m scripts.base_train '--device-batch-size=$B'");
  EXPECT_EQ(line("B=8\ncase $x in a) B=4;; esac\npython -m scripts.base_train --device-batch-size=$B"), "python -m scripts.base_train '--device-batch-size=$B'");
  EXPECT_EQ(line("python -m scripts.base_train --depth=$(nproc) --run=`date` --save-every=$((2 * 3)) --eval-every=${#A} '--model-tag=$T'"), "python -m scripts.base_train '--depth=$(nproc)' '--run=`date`' '--save-every=$((2 * 3))' '--eval-every=${#A}' '--model-tag=$T'");
  EXPECT_EQ(line("A='open; ls"), "error: the pasted command has an open quote");
}

TEST(ShellText, aVariableThatNothingSetsMayBeGivenBeside) {
  const auto words = training_command_in("torchrun --nproc_per_node=$N -m scripts.base_train --depth=$d $MORE --run=$RUN")->words;
  EXPECT_EQ(parse_pasted_command(words).error().where, "--gpus");
  const std::vector<std::string> gpus{"gpus"}, some{"gpus", "depth"}, all{"gpus", "depth", "device-batch-size"};
  EXPECT_EQ(parse_pasted_command(words, PasteOptions{gpus, {}, false}).error().where, "--depth");
  EXPECT_EQ(parse_pasted_command(words, PasteOptions{some, {}, false}).error().code, "bad_command");
  const auto pasted = parse_pasted_command(words, PasteOptions{all, {}, false});
  ASSERT_TRUE(pasted);
  EXPECT_FALSE(pasted->flags.depth || pasted->flags.gpus);
  EXPECT_EQ(pasted->flags.passthrough, std::vector<std::string>{"--run=$RUN"});
}

// Words without anything that the shell reads come out as they went in.
RC_GTEST_PROP(ShellText, joinedWordsComeBack, ()) {
  const auto words = *rc::gen::container<std::vector<std::string>>(rc::gen::container<std::string>(rc::gen::inRange<char>(1, 127)));
  std::vector<std::string> command{"python", "-m", "scripts.base_train"};
  for (const std::string& w : words) command.push_back(w);
  const auto back = training_command_in(shell_join(command));
  RC_ASSERT(back.has_value());
  RC_ASSERT(back->words == command);
}

}  // namespace
}  // namespace dryfit
