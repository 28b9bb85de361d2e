// addr2line, asked once for many addresses and remembered. See sources.h.
#include "emulator/checked/sources.h"

#include <dlfcn.h>
#include <unistd.h>

#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <unordered_map>

namespace cnn::emulator {
namespace {

std::unordered_map<const void*, Source>& known_sources() {
  static auto* known = new std::unordered_map<const void*, Source>();
  return *known;
}

// Runs a command and hands over its output line by line.
void read_lines(const std::string& command, const std::function<void(const std::string&)>& take) {
  std::FILE* pipe = popen(command.c_str(), "r");
  if (!pipe) return;
  std::string line;
  for (int c; (c = std::fgetc(pipe)) != EOF;) {
    if (c == '\n') {
      take(line);
      line.clear();
    } else {
      line.push_back(char(c));
    }
  }
  pclose(pipe);
}

std::string quoted(const std::string& text) {
  std::string result = "'";
  for (char c : text) result += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return result + "'";
}

// One "function, file:line" pair of addr2line's.
struct Frame {
  std::string function, file;
  int line = 0;
};

Frame parse_frame(const std::string& function, const std::string& place) {
  Frame frame{function == "??" ? "" : function, place, 0};
  const std::size_t colon = place.rfind(':');
  if (colon != std::string::npos) {
    frame.line = std::atoi(place.c_str() + colon + 1);
    frame.file = place.substr(0, colon);
  }
  if (frame.file == "??") frame.file.clear();
  return frame;
}

// The emulator's and the wrapped instructions', which say nothing about the kernel.
bool is_wrapper(const Frame& frame) {
  for (const char* folder : {"/csrc/emulator/", "/csrc/common/"})
    if (frame.file.find(folder) != std::string::npos) return true;
  return frame.file.rfind("/usr/", 0) == 0;
}

// Fills file, line and function of all `sources`, which lie in one module.
void look_up(const std::string& module, const std::vector<Source*>& sources) {
  char path[] = "/tmp/cnnkernels-addresses-XXXXXX";
  const int file = mkstemp(path);
  if (file < 0) return;
  for (const Source* source : sources) dprintf(file, "0x%" PRIx64 "\n", source->offset - 1);  // inside the call
  close(file);
  struct Found {
    Frame frame;
    std::vector<std::string> callers;
  };
  std::map<std::uint64_t, Found> found;
  std::uint64_t address = 0;
  std::string function;
  bool settled = false;
  read_lines("addr2line -a -f -C -i -e " + quoted(module) + " @" + path + " 2>/dev/null", [&](const std::string& line) {
    if (line.rfind("0x", 0) == 0) {
      address = std::strtoull(line.c_str(), nullptr, 16);
      settled = false;
      function.clear();
    } else if (function.empty()) {
      function = line;
    } else {
      const Frame frame = parse_frame(function, line);
      function.clear();
      if (settled) {
        if (!is_wrapper(frame))
          found[address].callers.push_back(frame.file.substr(frame.file.rfind('/') + 1) + ":" + std::to_string(frame.line));
        return;
      }
      found[address] = {frame, {}};  // the outermost, should all be wrappers
      settled = !is_wrapper(frame);
    }
  });
  unlink(path);
  for (Source* source : sources) {
    const auto at = found.find(source->offset - 1);
    if (at == found.end()) continue;
    source->file = at->second.frame.file;
    source->line = at->second.frame.line;
    source->function = at->second.frame.function;
    source->callers = at->second.callers;
  }
}

}  // namespace

std::vector<Source> sources_of_calls(const std::vector<const void*>& return_addresses) {
  auto& known = known_sources();
  std::map<std::string, std::vector<Source*>> wanted;
  for (const void* address : return_addresses) {
    const auto [entry, is_new] = known.try_emplace(address);
    if (!is_new) continue;
    Dl_info info{};
    if (!address || !dladdr(address, &info) || !info.dli_fname) continue;
    entry->second.module = info.dli_fname;
    entry->second.offset = std::uint64_t(static_cast<const char*>(address) - static_cast<const char*>(info.dli_fbase));
    wanted[entry->second.module].push_back(&entry->second);
  }
  for (const auto& [module, sources] : wanted) look_up(module, sources);
  std::vector<Source> result;
  for (const void* address : return_addresses) result.push_back(known[address]);
  return result;
}

Source source_of_call(const void* return_address) { return sources_of_calls({return_address})[0]; }

Variable variable_at(const void* address) {
  static auto* modules = new std::unordered_map<std::string, std::map<std::uint64_t, Variable>>();
  Dl_info info{};
  if (!address || !dladdr(address, &info) || !info.dli_fname) return {};
  const auto* base = static_cast<const unsigned char*>(info.dli_fbase);
  const auto [table, is_new] = modules->try_emplace(info.dli_fname);
  if (is_new) {
    read_lines("nm -C -S " + quoted(info.dli_fname) + " 2>/dev/null", [&](const std::string& line) {
      char kind = 0;
      std::uint64_t value = 0, bytes = 0;
      int name = 0;
      if (std::sscanf(line.c_str(), "%" SCNx64 " %" SCNx64 " %c %n", &value, &bytes, &kind, &name) == 3 &&
          std::strchr("bBdDrRuVvgGsS", kind))
        table->second[value] = {line.substr(std::size_t(name)), base + value, std::size_t(bytes)};
    });
  }
  const auto after = table->second.upper_bound(std::uint64_t(static_cast<const unsigned char*>(address) - base));
  return after == table->second.begin() ? Variable() : std::prev(after)->second;
}

// A kernel's symbol is local to its library, which dladdr does not see: nm lists the local ones too.
std::string symbol_of(const void* address) {
  static auto* symbols = new std::unordered_map<std::string, std::unordered_map<std::uint64_t, std::string>>();
  Dl_info info{};
  if (!address || !dladdr(address, &info) || !info.dli_fname) return {};
  const auto [table, is_new] = symbols->try_emplace(info.dli_fname);
  if (is_new) {
    read_lines("nm " + quoted(info.dli_fname) + " 2>/dev/null", [&](const std::string& line) {
      char kind = 0;
      std::uint64_t value = 0;
      char name[4096];
      if (std::sscanf(line.c_str(), "%" SCNx64 " %c %4095s", &value, &kind, name) == 3 && std::strchr("tTwWiu", kind))
        table->second[value] = name;
    });
  }
  const auto offset = std::uint64_t(static_cast<const char*>(address) - static_cast<const char*>(info.dli_fbase));
  const auto found = table->second.find(offset);
  return found == table->second.end() ? std::string() : found->second;
}

}  // namespace cnn::emulator
