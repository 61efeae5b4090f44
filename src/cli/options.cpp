// Words to flags and values by the command table. Written here because a library that throws cannot come along into WebAssembly or behind the
// C ABI, which run this same code (docs/dependencies.md). See options.hpp.
#include "cli/options.hpp"

#include <algorithm>

#include "base/text.hpp"
#include "plan/shell_text.hpp"

namespace dryfit::cli {

namespace {

// Other spellings: underscores for dashes, and two names people know from elsewhere.
std::string normalized(std::string_view word) {
  if (!word.starts_with("--") || word.size() == 2) return std::string(word);
  const std::size_t eq = std::min(word.find('='), word.size());
  std::string name(word.substr(0, eq));
  std::replace(name.begin() + 2, name.end(), '_', '-');
  if (name == "--nproc-per-node") name = "--gpus";
  return name + std::string(word.substr(eq));
}

std::unexpected<Error> unknown_flag(std::string_view word, const std::vector<FlagSpec>& known, std::string_view command) {
  const std::string name(word.substr(0, std::min<std::size_t>(word.find('='), 60)));
  std::vector<std::string> dashed;
  for (const FlagSpec& f : known) dashed.push_back("--" + std::string(f.name));
  const std::vector<std::string_view> names(dashed.begin(), dashed.end());
  return fail("unknown_flag", "unknown flag " + name, did_you_mean(name, names, "see: dryfit help " + std::string(command)), name);
}

// "-qv" to "--quiet", "--verbose"; anything else stays as it is.
std::vector<std::string> spelled_out(std::string_view word) {
  std::vector<std::string> out;
  if (word.size() < 2 || word[0] != '-' || word[1] == '-') return {std::string(word)};
  for (char c : word.substr(1)) {
    const char* name = c == 'q' ? "--quiet" : c == 'v' ? "--verbose" : c == 'h' ? "--help" : nullptr;
    if (name == nullptr) return {std::string(word)};
    out.emplace_back(name);
  }
  return out;
}

// A value may begin with a dash only where it is a number ("-1") or standard input ("-").
bool can_be_a_value(std::string_view word) {
  return word.size() < 2 || word[0] != '-' || std::isdigit(static_cast<unsigned char>(word[1])) != 0 || word[1] == '.';
}

Result<Options> parse_command(const CommandSpec& command, std::span<const std::string> given, Options options) {
  const std::vector<FlagSpec> known = flags_of(command);
  const auto find = [&](std::string_view name) { return std::ranges::find(known, name, &FlagSpec::name); };
  std::vector<std::string> words;
  for (const std::string& word : given) {
    for (std::string& part : spelled_out(word)) words.push_back(std::move(part));
  }
  for (std::size_t i = 0; i < words.size(); ++i) {
    const std::string_view word = words[i];
    if (word.size() < 2 || word[0] != '-') {
      options.positional.emplace_back(word);
      continue;
    }
    const std::size_t eq = std::min(word.find('='), word.size());
    std::string name = word.starts_with("--") ? std::string(word.substr(2, eq - 2)) : "";
    if (name == "seq-len" && find(name) == known.end()) name = "max-seq-len";
    const auto flag = find(name);
    if (flag == known.end()) return unknown_flag(word, known, command.name);
    const std::string dashed = "--" + name;
    if (flag->argument.empty()) {
      if (eq < word.size()) return fail("bad_value", dashed + " takes no value", "write " + dashed + " alone", dashed);
      options.flags[name] = "";
      continue;
    }
    const std::string before = name == "ignore" && options.has(name) ? options.flags[name] + "," : "";
    if (before.empty() && options.flags.contains(name)) return fail("repeated_flag", dashed + " is given more than once", "give it once", dashed);
    if (eq < word.size()) options.flags[name] = word.substr(eq + 1);
    else if (i + 1 < words.size() && can_be_a_value(words[i + 1])) options.flags[name] = words[++i];
    else return fail("missing_value", dashed + " has no value", "write " + dashed + " " + std::string(flag->argument), dashed);
    options.flags[name].insert(0, before);
  }
  options.help = options.has("help");
  return options;
}

}  // namespace

Result<std::optional<std::int64_t>> number_of(const Options& options, std::string_view flag) {
  const auto text = options.get(flag);
  if (!text) return std::optional<std::int64_t>();
  const auto n = parse_int(*text, "--" + std::string(flag));
  if (!n) return std::unexpected(n.error());
  return std::optional(*n);
}

Result<Options> parse_options(std::span<const std::string_view> words) {
  Options options;
  std::vector<std::string> own;
  for (std::size_t i = 0; i < words.size(); ++i) {
    if (words[i] == "--") {
      options.has_pasted = true;
      options.pasted.assign(words.begin() + static_cast<std::ptrdiff_t>(i) + 1, words.end());
      if (options.pasted.size() == 1) {
        auto command = training_command_in(options.pasted[0]);
        if (!command) return std::unexpected(command.error());
        options.pasted = std::move(command->words);
        options.pasted_notes = std::move(command->notes);
      }
      break;
    }
    own.push_back(normalized(words[i]));
  }
  if (own.empty() || own[0] == "-h" || own[0] == "--help") {
    options.command = "help";
    return options;
  }
  // "dryfit --json check ..." is "dryfit check --json ..."
  for (std::size_t leading = own.size(); leading > 1 && own[0].starts_with("-") && own[0] != "--version"; --leading) {
    const std::ptrdiff_t words = own[0] == "--color" ? 2 : 1;
    std::ranges::rotate(own, own.begin() + words);
  }
  options.command = own[0] == "--version" ? "version" : own[0];
  const CommandSpec* command = find_command(options.command);
  if (command == nullptr) {
    std::vector<std::string_view> names;
    for (const CommandSpec& c : commands()) names.push_back(c.name);
    return fail("unknown_command", "unknown command '" + options.command.substr(0, 60) + "'", did_you_mean(options.command, names, "see: dryfit help"), "command line");
  }
  return parse_command(*command, std::span(own).subspan(1), std::move(options));
}

}  // namespace dryfit::cli
