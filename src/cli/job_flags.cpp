// See job_flags.hpp.
#include "cli/job_flags.hpp"

#include "base/text.hpp"

namespace dryfit::cli {

Result<std::optional<JobFile>> job_asked_for(const Options& options, const Report* report, const std::optional<std::string>& pasted_conf) {
  const auto wanted = options.get("emit");
  if (!wanted) {
    if (options.has("nodes")) return fail("bad_value", "--nodes says on how many machines a job runs", "name its kind too: --emit slurm", "--nodes");
    return std::optional<JobFile>();
  }
  const auto kind = job_kind(*wanted);
  if (!kind) return std::unexpected(kind.error());
  std::optional<std::int64_t> nodes;
  if (const auto text = options.get("nodes")) {
    const auto n = parse_int(*text, "--nodes");
    if (!n) return std::unexpected(n.error());
    nodes = *n;
  }
  if (report == nullptr) return std::optional<JobFile>();
  auto job = write_job(*report, *kind, nodes, options.has("alloc-conf") ? options.get("alloc-conf") : pasted_conf);
  if (!job) return std::unexpected(job.error());
  return std::optional(std::move(*job));
}

void answer_with_job(const Options& options, const Env& env, const Style& style, const std::string& screen, const std::optional<JobFile>& job) {
  if (!options.has("emit")) return env.out(screen);
  if (!style.quiet) env.err(screen);
  env.out(job ? job->text : std::string());
}

}  // namespace dryfit::cli
