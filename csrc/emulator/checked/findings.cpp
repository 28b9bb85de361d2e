// The Checker's findings: how they are worded, put together and looked up in the source. See checker.h.
#include <algorithm>
#include <cstring>
#include <map>
#include <set>

#include "emulator/checked/checker.h"
#include "emulator/checked/sources.h"
#include "emulator/worker.h"

namespace cnn::emulator {
namespace {

// Findings of a launch beyond this say nothing new.
constexpr std::size_t kMostFindings = 100;

}  // namespace

Party Checker::party(unsigned thread, const void* site, const char* access) const {
  return {block_, active_worker->thread_index(thread), site, access};
}

Party Checker::party_of(const Stamp& stamp, const char* access) const {
  return {blocks_[stamp.block - 1], active_worker->thread_index(stamp.thread), stamp.site, access};
}

Finding Checker::finding(unsigned thread, const char* kind, const Target& target, const char* access) const {
  Finding result;
  result.kind = kind;
  result.party = party(thread, target.site, access);
  if (target.region) result.place = target.region->place(target.address);
  return result;
}

void Checker::note(const Finding& finding) {
  for (Finding& known : findings_) {
    // The two sides of a race are one finding, whichever came first.
    const bool same = known.party.site == finding.party.site && known.other.site == finding.other.site;
    const bool mirrored = known.party.site == finding.other.site && known.other.site == finding.party.site;
    if (std::strcmp(known.kind, finding.kind) != 0 || !(same || mirrored)) continue;
    ++known.count;
    return;
  }
  if (findings_.size() < kMostFindings) findings_.push_back(finding);
}

// Leaves out what says nothing new: the same lines again by other instructions, and reads of what nobody has written yet in a
// race with the write that they should have waited for.
void Checker::tidy_findings() {
  const auto lines = [&](const Finding& finding) {
    std::string a = at(finding.party.site), b = finding.has_other ? at(finding.other.site) : std::string();
    return finding.kind + std::min(a, b) + " |" + std::max(a, b);
  };
  std::vector<Finding> kept;
  std::map<std::string, std::size_t> known;
  std::set<std::string> racing;
  for (const Finding& finding : findings_) {
    if (std::strcmp(finding.kind, "race") == 0) racing.insert({at(finding.party.site), at(finding.other.site)});
    const auto [place, is_new] = known.try_emplace(lines(finding), kept.size());
    if (is_new) kept.push_back(finding);
    else kept[place->second].count += finding.count;
  }
  std::erase_if(kept, [&](const Finding& finding) {
    return std::strcmp(finding.kind, "uninitialised read") == 0 && racing.count(at(finding.party.site));
  });
  findings_ = std::move(kept);
}

void Checker::stop(const Finding& finding) { active_worker->abandon(finding); }

void Checker::require_written(std::uint64_t handle, const std::string& kernel) {
  Region* region = memory_.declared(handle);
  if (!region || region->cells.empty() || region->bytes == 0 || !config().check || config().sample > 1) return;
  memory_.note_host_writes(poison());
  std::uint64_t missing = 0;
  const unsigned char* first = nullptr;
  const void* writer = nullptr;  // of an element beside the first that is missing
  for (std::size_t item = 0; item < region->bytes / region->item_bytes; ++item) {
    const unsigned char* address = region->base + item * region->item_bytes;
    if (!region->has_elements(address, region->item_bytes)) continue;
    bool written = true;
    for (std::size_t byte = 0; byte < region->item_bytes; ++byte) {
      const std::size_t offset = item * region->item_bytes + byte;
      written = written && (region->cells[offset / region->granule].written >> offset % region->granule & 1u);
    }
    if (!written && !first) first = address;
    missing += !written;
    if (written && (!first || !writer)) writer = region->cells[item * region->item_bytes / region->granule].writer.site;
  }
  if (!missing) return;
  Finding finding;
  finding.kind = "unwritten output";
  finding.place = region->place(first);
  finding.what = "leaves " + std::to_string(missing) + " elements of '" + region->name + "' unwritten, the first of them " + finding.place;
  if (writer) finding.what += "; others are written" + at(writer);
  finding.whole_launch = true;
  finding.party.site = writer;
  finding.party.access = "write";
  finding.count = missing;
  Launch launch;
  launch.kernel = last_kernel_.empty() ? kernel.c_str() : last_kernel_.c_str();
  launch.findings.push_back(finding);
  fail_launch(launch);
}

std::string Checker::at(const void* site) {
  const Source source = source_of_call(site);
  if (source.line == 0) return {};
  return " at " + source.file.substr(source.file.rfind('/') + 1) + ":" + std::to_string(source.line);
}

bool Checker::same_place(const void* site, const void* other) {
  const Source a = source_of_call(site), b = source_of_call(other);
  return a.file == b.file && a.line == b.line && a.callers == b.callers;
}

std::vector<Source> Checker::sources(const std::vector<const void*>& sites) { return sources_of_calls(sites); }

Report Checker::report(const Launch& launch, const Finding& finding) {
  Report report;
  report.finding = finding;
  report.kernel = launch.kernel;
  report.text = sentence(launch, finding);
  if (finding.party.site) {
    const Source source = source_of_call(finding.party.site);
    report.file = source.file, report.line = source.line, report.function = source.function, report.callers = source.callers;
    for (const std::string& caller : source.callers) report.text += (&caller == &source.callers[0] ? "; called at " : ", ") + caller;
  }
  if (finding.count > 1 && !finding.whole_launch) report.text += " (" + std::to_string(finding.count) + " times)";
  if (finding.has_other) {
    const Source source = source_of_call(finding.other.site);
    report.other_file = source.file, report.other_line = source.line, report.other_function = source.function;
    report.other_callers = source.callers;
  }
  return report;
}

}  // namespace cnn::emulator
