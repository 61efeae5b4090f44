// Completion scripts for four shells, generated from the command table.
#include <fmt/format.h>

#include "base/text.hpp"
#include "cli/cli.hpp"
#include "cli/commands.hpp"

namespace dryfit::cli {

namespace {

std::string names() {
  std::string out;
  for (const CommandSpec& c : commands()) out += (out.empty() ? "" : " ") + std::string(c.name);
  return out;
}

std::string dashed_flags(const CommandSpec& c) {
  std::string out;
  for (const FlagSpec& f : flags_of(c)) out += (out.empty() ? "--" : " --") + std::string(f.name);
  return out;
}

// Inside single quotes of fish.
std::string fish_quoted(std::string_view text) {
  std::string out;
  for (const char c : text) out += c == '\'' || c == '\\' ? std::string("\\") + c : std::string(1, c);
  return out;
}

}  // namespace

Result<std::string> completions(std::string_view shell) {
  std::string out;
  if (shell == "bash" || shell == "zsh") {
    if (shell == "zsh") out += "autoload -U +X bashcompinit && bashcompinit\n";
    out += "_dryfit() {\n  local current=\"${COMP_WORDS[COMP_CWORD]}\"\n  if [ \"$COMP_CWORD\" -eq 1 ]; then\n";
    out += fmt::format("    COMPREPLY=($(compgen -W \"{}\" -- \"$current\"))\n    return\n  fi\n  case \"${{COMP_WORDS[1]}}\" in\n", names());
    for (const CommandSpec& c : commands()) out += fmt::format("    {}) COMPREPLY=($(compgen -W \"{}\" -- \"$current\")) ;;\n", c.name, dashed_flags(c));
    return out + "  esac\n}\ncomplete -F _dryfit dryfit\n";
  }
  if (shell == "fish") {
    for (const CommandSpec& c : commands()) {
      out += fmt::format("complete -c dryfit -f -n __fish_use_subcommand -a {} -d '{}'\n", c.name, fish_quoted(c.summary));
      const std::string dashed = dashed_flags(c);
      for (std::string_view f : split(dashed, ' ')) out += fmt::format("complete -c dryfit -f -n '__fish_seen_subcommand_from {}' -l {}\n", c.name, f.substr(2));
    }
    return out;
  }
  if (shell == "powershell") {
    out = "Register-ArgumentCompleter -Native -CommandName dryfit -ScriptBlock {\n  param($word, $line, $position)\n  $flags = @{\n";
    for (const CommandSpec& c : commands()) out += fmt::format("    '{}' = '{}'\n", c.name, dashed_flags(c));
    out += fmt::format("  }}\n  $command = ($line.ToString() -split ' ')[1]\n  $words = if ($flags.ContainsKey($command)) {{ $flags[$command] }} else {{ '{}' }}\n", names());
    return out + "  $words -split ' ' | Where-Object { $_ -like \"$word*\" } | ForEach-Object { [System.Management.Automation.CompletionResult]::new($_) }\n}\n";
  }
  static constexpr std::string_view kShells[] = {"bash", "zsh", "fish", "powershell"};
  return fail("bad_value", "no completions for '" + std::string(shell.substr(0, 40)) + "'", did_you_mean(shell, kShells, "use bash, zsh, fish or powershell"), "completions");
}

}  // namespace dryfit::cli
