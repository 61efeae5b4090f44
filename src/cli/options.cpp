// Parsing by CLI11, told about the one command asked for; its errors become ours. See options.hpp.
#include "cli/options.hpp"

#include <CLI/CLI.hpp>
#include <algorithm>

#include "base/text.hpp"

namespace dryfit::cli {

namespace {

constexpr FlagSpec kOutput[] = {{"json", "", ""}, {"color", "WHEN", ""}, {"ascii", "", ""}, {"quiet", "", ""}, {"verbose", "", ""}, {"help", "", ""}};
constexpr FlagSpec kExplain[] = {{"timeline", "", ""}, {"svg", "FILE", ""}};

// Other spellings: underscores for dashes, and two names people know from elsewhere.
std::string normalized(std::string_view word) {
  if (!word.starts_with("--") || word.size() == 2) return std::string(word);
  const std::size_t eq = std::min(word.find('='), word.size());
  std::string name(word.substr(0, eq));
  std::replace(name.begin() + 2, name.end(), '_', '-');
  if (name == "--nproc-per-node") name = "--gpus";
  return name + std::string(word.substr(eq));
}

std::vector<FlagSpec> flags_of(const CommandSpec& command) {
  std::vector<FlagSpec> all(std::begin(kOutput), std::end(kOutput));
  for (const auto& group : command.flags) all.insert(all.end(), group.begin(), group.end());
  if (command.name == "explain") all.insert(all.end(), std::begin(kExplain), std::end(kExplain));
  if (command.name == "doctor") all.push_back(kExplain[1]);
  return all;
}

std::unexpected<Error> unknown_flag(std::string_view word, const std::vector<FlagSpec>& known, std::string_view command) {
  const std::string name(word.substr(0, std::min<std::size_t>(word.find('='), 60)));
  std::vector<std::string> dashed;
  for (const FlagSpec& f : known) dashed.push_back("--" + std::string(f.name));
  const std::vector<std::string_view> names(dashed.begin(), dashed.end());
  return fail("unknown_flag", "unknown flag " + name, did_you_mean(name, names, "see: dryfit help " + std::string(command)), name);
}

Result<Options> parse_command(const CommandSpec& command, std::vector<std::string> words, Options options) {
  const std::vector<FlagSpec> known = flags_of(command);
  CLI::App app;
  app.set_help_flag();
  app.allow_extras();
  std::map<std::string, std::vector<std::string>> values;
  std::map<std::string, bool> switches;
  const bool has_seq_len = std::ranges::find(known, "seq-len", &FlagSpec::name) != known.end();
  for (const FlagSpec& f : known) {
    std::string name(f.name), spelled = "--" + name;
    if (name == "quiet") spelled = "-q,--quiet";
    if (name == "verbose") spelled = "-v,--verbose";
    if (name == "help") spelled = "-h,--help";
    if (name == "max-seq-len" && !has_seq_len) spelled = "--max-seq-len,--seq-len";
    if (f.argument.empty()) app.add_flag(spelled, switches[name]);
    else app.add_option(spelled, values[name])->expected(1)->allow_extra_args(false)->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  }
  std::ranges::reverse(words);
  try {
    app.parse(words);
  } catch (const CLI::ParseError& e) {
    std::string what = e.what();
    const std::size_t at = what.find("--");
    const std::string flag = at == std::string::npos ? std::string() : what.substr(at, what.find_first_of(" :", at) - at);
    return fail("missing_value", flag.empty() ? what : flag + " has no value, or one it cannot take", "write " + (flag.empty() ? std::string("--flag VALUE") : flag + " VALUE"), flag);
  }
  for (const std::string& extra : app.remaining()) {
    if (extra.size() > 1 && extra[0] == '-') return unknown_flag(extra, known, command.name);
    options.positional.push_back(extra);
  }
  for (const auto& [name, on] : switches) {
    if (on) options.flags[name] = "";
  }
  for (const auto& [name, given] : values) {
    if (given.size() > 1) return fail("repeated_flag", "--" + name + " is given " + std::to_string(given.size()) + " times", "give it once", "--" + name);
    if (given.size() == 1) options.flags[name] = given[0];
  }
  options.help = options.has("help");
  return options;
}

}  // namespace

Result<Options> parse_options(std::span<const std::string_view> words) {
  Options options;
  std::vector<std::string> own;
  for (std::size_t i = 0; i < words.size(); ++i) {
    if (words[i] == "--") {
      options.has_pasted = true;
      options.pasted.assign(words.begin() + static_cast<std::ptrdiff_t>(i) + 1, words.end());
      break;
    }
    own.push_back(normalized(words[i]));
  }
  if (own.empty() || own[0] == "-h" || own[0] == "--help") {
    options.command = "help";
    return options;
  }
  options.command = own[0] == "--version" ? "version" : own[0];
  const CommandSpec* command = find_command(options.command);
  if (command == nullptr) {
    std::vector<std::string_view> names;
    for (const CommandSpec& c : commands()) names.push_back(c.name);
    return fail("unknown_command", "unknown command '" + options.command.substr(0, 60) + "'", did_you_mean(options.command, names, "see: dryfit help"), "command line");
  }
  own.erase(own.begin());
  // a value that begins with a dash, such as -1, belongs to the flag before it
  for (std::size_t i = 0; i + 1 < own.size(); ++i) {
    const bool negative = own[i + 1].size() > 1 && own[i + 1][0] == '-' && (std::isdigit(static_cast<unsigned char>(own[i + 1][1])) != 0 || own[i + 1][1] == '.');
    if (own[i].starts_with("--") && own[i].find('=') == std::string::npos && negative) {
      own[i] += "=" + own[i + 1];
      own.erase(own.begin() + static_cast<std::ptrdiff_t>(i) + 1);
    }
  }
  return parse_command(*command, std::move(own), std::move(options));
}

}  // namespace dryfit::cli
