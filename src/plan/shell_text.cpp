// See shell_text.hpp. Of the shell's grammar what decides which words a command has: quotes, expansions, separators, and which assignments surely happen.
#include "plan/shell_text.hpp"

#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <set>
#include <span>

#include "base/text.hpp"
#include "plan/launch.hpp"
#include "plan/launcher.hpp"

namespace dryfit {

namespace {

constexpr std::size_t kDeepest = 20;  // defaults within defaults, shells within shells
constexpr std::size_t kMostText = 1 << 20, kMostWords = 65536, kMostWritten = 16 << 20;

bool is_name(std::string_view s) {
  return !s.empty() && !is_digit(s[0]) && std::ranges::all_of(s, [](char c) { return is_digit(c) || c == '_' || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); });
}

class ShellReader {
 public:
  explicit ShellReader(std::size_t depth = 0) : depth_(depth) {}

  Result<void> read(std::string_view text) {
    if (text.size() > kMostText) return fail("bad_command", "the pasted text is larger than 1 MiB", "paste the command that trains", "pasted command");
    text_ = text;
    for (at_ = 0; at_ < text_.size();) {
      if (const auto ok = step(); !ok) return ok;
      if (too_large()) return fail("bad_command", "the pasted text grows too large when its variables are filled in", "paste the command that trains", "pasted command");
    }
    end_word();
    end_command();
    return {};
  }

  ShellCommand answer() {
    ShellCommand out;
    if (trainings_.empty()) {
      out.words = std::move(likely_.empty() ? first_ : likely_);
      if (commands_ > 1) out.notes.push_back("none of the " + std::to_string(commands_) + " commands of the pasted text starts a training");
      return out;
    }
    out.words = trainings_.front();
    for (const auto& [name, values] : open_) {
      const bool used = std::ranges::any_of(out.words, [&](const std::string& w) { return w.find("$" + name) != std::string::npos || w.find("${" + name) != std::string::npos; });
      if (used) out.notes.push_back("$" + name + " has several values here: " + values);
    }
    if (trainings_.size() > 1) out.notes.push_back("of " + std::to_string(trainings_.size()) + " trainings in the pasted text the first is taken");
    return out;
  }

 private:
  bool too_large() const { return written_ > kMostWritten || word_.size() > kMostText || words_.size() > kMostWords; }
  std::unexpected<Error> open_quote() const { return fail("bad_command", "the pasted command has an open quote", "close the quote", "pasted command"); }
  char next(std::size_t by = 1) const { return at_ + by < text_.size() ? text_[at_ + by] : '\0'; }

  // One character outside quotes, or all that begins with it.
  Result<void> step() {
    const char c = text_[at_];
    if (c == '\\') return escaped();
    if (c == '\'' || c == '"') return quoted(c);
    if (c == '$' || c == '`') return expansion(false);
    if (c == ' ' || c == '\t' || c == '\r') {
      end_word();
    } else if (c == '\n') {
      end_word();
      end_command();
      here_document();
    } else if (c == '#' && !open_word_) {
      while (at_ + 1 < text_.size() && text_[at_ + 1] != '\n') ++at_;
    } else if (c == '(' && word_.ends_with('=') && is_name(std::string_view(word_).substr(0, word_.size() - 1))) {
      return array();
    } else if (c == ';' || (c == '(' && !open_word_) || c == ')' || (c == '&' && !word_.ends_with('>') && next() != '>')) {
      end_word();
      end_command();
    } else if (c == '|') {
      end_word();
      if (next() == '|') ++at_, end_command();
      else words_.emplace_back("|");
    } else {
      word_ += c;
      open_word_ = true;
    }
    ++at_;
    return {};
  }

  Result<void> escaped() {
    const std::size_t skip = next() == '\r' && next(2) == '\n' ? 2 : 1;
    if (next(skip) == '\n') {
      at_ += skip + 1;
      return {};
    }
    if (at_ + 1 < text_.size()) word_ += text_[++at_];
    open_word_ = true;
    ++at_;
    return {};
  }

  Result<void> quoted(char quote) {
    open_word_ = true;
    for (++at_; at_ < text_.size() && text_[at_] != quote;) {
      const char c = text_[at_];
      if (quote == '"' && c == '\\' && (next() == '"' || next() == '\\' || next() == '$' || next() == '`' || next() == '\n')) {
        if (next() != '\n') word_ += next();
        at_ += 2;
      } else if (quote == '"' && (c == '$' || c == '`')) {
        if (const auto ok = expansion(true); !ok) return ok;
        if (too_large()) return {};  // its caller stops
      } else {
        word_ += c;
        ++at_;
      }
    }
    if (at_ >= text_.size()) return open_quote();
    ++at_;
    return {};
  }

  // Where what begins here with a bracket ends: the place after the one that closes it.
  std::size_t closing(std::size_t from, char opening, char closing) const {
    std::size_t depth = 0;
    for (std::size_t i = from; i < text_.size(); ++i) {
      if (text_[i] == opening) ++depth;
      if (text_[i] == closing && --depth == 0) return i + 1;
    }
    return text_.size();
  }

  // $NAME, ${NAME}, ${NAME[@]}, ${NAME:-default}; anything else stays as it is written.
  Result<void> expansion(bool within_quotes) {
    const std::size_t start = at_;
    if (text_[at_] == '`') {
      const std::size_t end = text_.find('`', at_ + 1);
      at_ = end == std::string_view::npos ? text_.size() : end + 1;
    } else if (next() == '(') {
      at_ = closing(at_ + 1, '(', ')');
    } else if (next() == '{') {
      at_ = closing(at_ + 1, '{', '}');
      if (const auto ok = braced(text_.substr(start + 2, at_ - start - 3), within_quotes); !ok || *ok) return ok ? Result<void>() : Result<void>(std::unexpected(ok.error()));
    } else {
      std::size_t end = at_ + 1;
      while (end < text_.size() && is_name(text_.substr(at_ + 1, end - at_))) ++end;
      const std::string name(text_.substr(at_ + 1, end - at_ - 1));
      at_ = std::max(end, at_ + 1);
      if (const auto known = variables_.find(name); known != variables_.end()) {
        put(known->second, within_quotes);
        return {};
      }
    }
    word_ += text_.substr(start, at_ - start);
    open_word_ = true;
    return {};
  }

  // Whether the inside of ${...} was understood, and put.
  Result<bool> braced(std::string_view inside, bool within_quotes) {
    std::size_t end = 0;
    while (end < inside.size() && (is_name(inside.substr(0, end + 1)) || (end == 0 && is_digit(inside[0])))) ++end;
    const std::string name(inside.substr(0, end));
    std::string_view rest = inside.substr(end);
    const bool all = rest == "[@]" || rest == "[*]";
    const bool defaults = rest.starts_with(":-") || rest.starts_with("-") || rest.starts_with(":=") || rest.starts_with("=");
    if (name.empty() || !(rest.empty() || all || defaults)) return false;
    if (const auto known = variables_.find(name); known != variables_.end()) {
      put(known->second, within_quotes, all);
      return true;
    }
    if (!defaults || open_.contains(name) || depth_ >= kDeepest) return false;
    ShellReader inner(depth_ + 1);
    inner.variables_ = variables_;
    inner.text_ = rest.substr(rest[0] == ':' ? 2 : 1);
    for (inner.at_ = 0; inner.at_ < inner.text_.size();) {  // its blanks are part of it
      const char c = inner.text_[inner.at_];
      const bool special = c == '$' || c == '`' || c == '"' || c == '\'';
      if (special) {
        if (const auto ok = inner.step(); !ok) return std::unexpected(ok.error());
      } else {
        inner.word_ += c;
        ++inner.at_;
      }
    }
    put({inner.word_}, within_quotes);
    return true;
  }

  // Values into the word: unquoted, blanks part them; of an array "${NAME[@]}" each is a word.
  void put(const std::vector<std::string>& values, bool within_quotes, bool each = false) {
    for (const std::string& v : values) written_ += v.size() + 1;
    for (std::size_t i = 0; i < values.size(); ++i) {
      if (i > 0 && (each || !within_quotes)) end_word();
      const bool printed = values[i].find("$(") != std::string::npos || values[i].find('`') != std::string::npos;  // by a command: nobody knows what, and its own blanks part nothing
      if (within_quotes || printed) {
        word_ += values[i];
        open_word_ = true;
        if (within_quotes && !each) break;
        continue;
      }
      for (const char c : values[i]) {
        if (c == ' ' || c == '\t' || c == '\n') {
          end_word();
        } else {
          word_ += c;
          open_word_ = true;
        }
      }
    }
    if (values.empty() && each && word_.empty()) open_word_ = false;
  }

  // NAME=(...): its words are its values.
  Result<void> array() {
    const std::string name = word_.substr(0, word_.size() - 1);
    word_.clear();
    open_word_ = false;
    std::vector<std::string> outside = std::move(words_);
    words_.clear();
    for (++at_; at_ < text_.size() && (text_[at_] != ')' || open_word_);) {
      if (text_[at_] == ')') break;
      if (text_[at_] == '\n') end_word(), ++at_;
      else if (const auto ok = step(); !ok) return ok;
    }
    end_word();
    if (at_ < text_.size()) ++at_;
    assign(name, std::move(words_));
    words_ = std::move(outside);
    return {};
  }

  void here_document() {
    if (here_.empty()) return;
    while (at_ + 1 < text_.size()) {
      const std::size_t end = std::min(text_.find('\n', at_ + 1), text_.size());
      const bool last = trim(text_.substr(at_ + 1, end - at_ - 1)) == here_;
      at_ = end == text_.size() ? end - 1 : end;
      if (last || end == text_.size()) break;
    }
    here_.clear();
  }

  void end_word() {
    if (open_word_) words_.push_back(std::move(word_));
    word_.clear();
    open_word_ = false;
  }

  // Outside conditions and the loops that may never run.
  bool is_sure() const { return std::ranges::find(conditional_, true) == conditional_.end(); }

  void assign(const std::string& name, std::vector<std::string> values) {
    std::string told;
    for (const std::string& v : values) told += (told.empty() ? "" : " ") + v;
    const bool sure = is_sure();
    if (const auto known = open_.find(name); known != open_.end() && !sure) {
      known->second += ", " + told;
      return;
    }
    const auto known = variables_.find(name);
    if (!sure && known != variables_.end() && known->second != values) {  // one way or the other
      open_[name] = (known->second.empty() ? "" : known->second.front()) + ", " + told;
      variables_.erase(known);
      return;
    }
    open_.erase(name);
    variables_[name] = std::move(values);
  }

  // for NAME in VALUE...
  void loop(std::span<const std::string> words) {
    conditional_.push_back(false);
    if (words.size() < 4 || words[2] != "in" || !is_name(words[1])) return;
    const std::vector<std::string> values(words.begin() + 3, words.end());
    variables_.erase(words[1]);
    if (values.size() == 1) return assign(words[1], values);
    std::string& told = open_[words[1]];
    told.clear();
    for (const std::string& v : values) told += (told.empty() ? "" : " ") + v;
  }

  void end_command() {
    std::vector<std::string> words = std::move(words_);
    words_.clear();
    for (std::size_t i = 0; i + 1 < words.size(); ++i) {
      if (words[i].starts_with("<<") && !words[i].starts_with("<<<")) here_ = words[i].size() > 2 ? words[i].substr(words[i][2] == '-' ? 3 : 2) : words[i + 1];
    }
    if (!words.empty() && words.back().starts_with("<<") && !words.back().starts_with("<<<") && words.back().size() > 2) here_ = words.back().substr(words.back()[2] == '-' ? 3 : 2);
    static constexpr std::array<std::string_view, 7> kOpening = {"do", "then", "else", "elif", "!", "{", "}"};
    while (!words.empty()) {
      const std::string& w = words.front();
      if (w == "for") return loop(words);
      if (w == "if" || w == "while" || w == "until" || w == "case") conditional_.push_back(true);
      else if (w == "fi" || w == "done" || w == "esac") conditional_.resize(conditional_.size() - (conditional_.empty() ? 0 : 1));
      else if (std::ranges::find(kOpening, w) == kOpening.end()) break;
      words.erase(words.begin());
    }
    if (!words.empty()) command(std::move(words));
  }

  void command(std::vector<std::string> words) {
    static constexpr std::array<std::string_view, 5> kDeclares = {"export", "declare", "readonly", "local", "typeset"};
    const bool declares = std::ranges::find(kDeclares, words.front()) != kDeclares.end();
    const auto name_of_word = [](const std::string& w) { return w.substr(0, std::min(w.find('='), w.size())); };
    const bool assigns = declares || std::ranges::all_of(words, [&](const std::string& w) { return w.find('=') != std::string::npos && is_name(name_of_word(w)); });
    if (assigns) {
      for (const std::string& w : words) {
        if (w.find('=') == std::string::npos || !is_name(name_of_word(w))) continue;
        assign(name_of_word(w), {w.substr(w.find('=') + 1)});
        if (words.front() == "export" && is_sure()) exported_.push_back(w);
      }
      return;
    }
    if (const auto inner = handed_on(words); inner && depth_ < kDeepest) {
      ShellReader reader(depth_ + 1);
      reader.variables_ = variables_;
      reader.exported_ = exported_;
      if (reader.read(*inner)) {
        trainings_.insert(trainings_.end(), reader.trainings_.begin(), reader.trainings_.end());
        if (!reader.trainings_.empty()) return;
      }
    }
    ++commands_;
    const bool trains = is_training_command(words);
    const int rank = starts_training(words);
    std::vector<std::string> whole = exported_;
    whole.insert(whole.end(), words.begin(), words.end());
    if (trains) trainings_.push_back(std::move(whole));
    else if (rank > rank_) likely_ = std::move(whole), rank_ = rank;
    else if (first_.empty()) first_ = std::move(words);
  }

  // bash -c "...", tmux new -d "...": a command line in one word.
  static std::optional<std::string> handed_on(std::span<const std::string> words) {
    for (std::size_t i = 0; i + 1 < words.size(); ++i) {
      const std::string program = program_of(words[i]);
      const bool shell = program == "bash" || program == "sh" || program == "zsh";
      if (shell && words[i + 1].starts_with("-") && words[i + 1].ends_with("c") && i + 2 < words.size()) return words[i + 2];
      if (program == "tmux") return words.back();
    }
    return std::nullopt;
  }

  std::size_t depth_;
  std::string_view text_;
  std::size_t at_ = 0;
  std::string word_, here_;
  bool open_word_ = false;
  int commands_ = 0;                                           // that are no assignments
  std::size_t written_ = 0;                                    // bytes that variables put in
  std::vector<std::string> words_, first_, likely_, exported_; // likely_: starts a program that may train (starts_training), exports before it
  int rank_ = 0;                                               // of likely_
  std::vector<std::vector<std::string>> trainings_;
  std::vector<bool> conditional_;                              // of each block that is open
  std::map<std::string, std::vector<std::string>> variables_;  // an array has several values
  std::map<std::string, std::string> open_;                    // of which the text has several values, as told
};

}  // namespace

Result<ShellCommand> training_command_in(std::string_view text) {
  ShellReader reader;
  if (const auto ok = reader.read(text); !ok) return std::unexpected(ok.error());
  return reader.answer();
}

}  // namespace dryfit
