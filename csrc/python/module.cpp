// cnnkernels._C: what is not a tensor operation. The catalogue of compiled kernels, the plan for a problem with the reason for every
// candidate, build facts, and the emulator's switches. The operators work without this module: it alone depends on the Python
// version.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "conv2d/plan.h"
#include "emulator/runtime.h"
#include "pool2d/plan.h"

namespace py = pybind11;
using namespace cnn;

namespace {

// By torch's name or by the one in kernel names.
DType parse_dtype(const std::string& name) {
  if (name == "float64" || name == "f64") return DType::kFloat64;
  if (name == "float32" || name == "f32") return DType::kFloat32;
  if (name == "float16" || name == "f16") return DType::kFloat16;
  if (name == "bfloat16" || name == "bf16") return DType::kBFloat16;
  throw py::value_error("dtype must be float64, float32, float16 or bfloat16, not '" + name + "'");
}

template <class Enum>
Enum parse_name(const std::string& name, std::initializer_list<Enum> all, const char* what) {
  std::string names;
  for (Enum value : all) {
    if (name == name_of(value)) return value;
    names += std::string(names.empty() ? "" : ", ") + name_of(value);
  }
  throw py::value_error(std::string(what) + " must be one of " + names + ", not '" + name + "'");
}

template <class Kernel, class PassNames>
py::dict row(const Kernel& kernel, const char* op, const PassNames& passes) {
  py::dict d;
  d["name"] = kernel.name;
  d["op"] = op;
  d["passes"] = passes;
  d["family"] = kernel.family;
  d["threads"] = kernel.threads;
  d["shared_bytes"] = kernel.shared_bytes;
  d["index_bits"] = kernel.index_bits;
  return d;
}

// The kernel taken, why, and why not the others.
template <class Candidates, class Plan, class Problem>
py::dict explained(const Candidates& candidates, const Plan& plan, const Problem& problem) {
  py::list refused;
  py::dict d;
  d["kernel"] = plan.kernel->name;
  d["family"] = plan.kernel->family;
  d["grid"] = plan.configuration.blocks;  // of a batch
  d["batches"] = plan.batches;
  d["workspace_bytes"] = plan.workspace_bytes;
  d["modelled_us"] = microseconds_of(plan, problem);
  for (const auto& candidate : candidates) {
    if (candidate.taken) d["why"] = candidate.reason;
    else refused.append(py::make_tuple(candidate.kernel->name, candidate.reason));
  }
  d["refused"] = refused;
  return d;
}

// Dense strides in the layout that the tensors are assumed to have.
Strides dense_strides(int64_t channels, int64_t height, int64_t width, bool channels_last) {
  if (channels_last) return {channels * height * width, 1, width * channels, channels};
  return {channels * height * width, height * width, width, 1};
}

using Pair = std::pair<int64_t, int64_t>;
using SizeMap = std::map<std::string, int64_t>;

int64_t size_named(const SizeMap& sizes, const char* name) {
  const auto found = sizes.find(name);
  if (found == sizes.end()) throw py::value_error(std::string("sizes lacks '") + name + "'");
  return found->second;
}

py::object tile_of(const conv2d::Kernel& kernel) {
  if (kernel.bm == 0) return py::none();
  return py::make_tuple(kernel.bm, kernel.bn, kernel.bk);
}

py::dict plan_conv2d(const std::string& pass, const std::string& dtype, const SizeMap& sizes, Pair stride, Pair padding, Pair dilation,
                     int64_t groups, bool channels_last, const std::string& kernel, const std::string& padding_mode, bool allow_tf32,
                     int64_t block_shared) {
  using namespace conv2d;
  Problem p;
  p.pass = parse_name(pass, {Pass::kFprop, Pass::kDgrad, Pass::kWgrad, Pass::kBiasGrad, Pass::kActivationGrad}, "pass");
  p.dtype = parse_dtype(dtype);
  p.N = size_named(sizes, "N"), p.C = size_named(sizes, "C"), p.H = size_named(sizes, "H"), p.W = size_named(sizes, "W");
  p.K = size_named(sizes, "K"), p.R = size_named(sizes, "R"), p.S = size_named(sizes, "S");
  p.P = size_named(sizes, "P"), p.Q = size_named(sizes, "Q");
  p.stride_h = stride.first, p.stride_w = stride.second;
  p.pad_h = padding.first, p.pad_w = padding.second;
  p.dilation_h = dilation.first, p.dilation_w = dilation.second;
  p.groups = groups;
  p.padding_mode = parse_name(padding_mode, {PaddingMode::kZeros, PaddingMode::kReflect, PaddingMode::kReplicate, PaddingMode::kCircular},
                              "padding_mode");
  p.allow_tf32 = allow_tf32;
  p.block_shared = block_shared;
  p.x = dense_strides(p.C, p.H, p.W, channels_last);
  p.w = dense_strides(groups > 0 ? p.C / groups : p.C, p.R, p.S, channels_last);
  p.y = dense_strides(p.K, p.P, p.Q, channels_last);
  if (p.pass == Pass::kActivationGrad) p.w = p.y;
  const Plan chosen = plan(p, kernel);
  py::dict d = explained(explain(p, kernel), chosen, p);
  const Configuration& c = chosen.configuration;
  d["tile"] = c.tile[0] ? py::make_tuple(c.tile[0], c.tile[1], c.tile[2]) : tile_of(*chosen.kernel);
  d["threads"] = c.threads ? c.threads : chosen.kernel->threads;
  d["shared_bytes"] = c.shared_bytes ? c.shared_bytes : chosen.kernel->shared_bytes;
  d["slabs"] = chosen.configuration.slabs;
  d["stages"] = chosen.kernel->stages;
  return d;
}

py::dict plan_pool2d(const std::string& op, const std::string& dtype, const SizeMap& sizes, Pair stride, Pair padding, Pair dilation,
                     bool channels_last, const std::string& kernel, const std::string& indices, int64_t block_shared) {
  using namespace pool2d;
  Problem p;
  p.op = parse_name(op,
                    {Op::kMax, Op::kMaxBackward, Op::kMaxGather, Op::kAvg, Op::kAvgBackward, Op::kAdaptiveMax, Op::kAdaptiveMaxBackward,
                     Op::kAdaptiveAvg, Op::kAdaptiveAvgBackward},
                    "op");
  p.dtype = parse_dtype(dtype);
  p.N = size_named(sizes, "N"), p.C = size_named(sizes, "C"), p.H = size_named(sizes, "H"), p.W = size_named(sizes, "W");
  p.R = size_named(sizes, "R"), p.S = size_named(sizes, "S"), p.P = size_named(sizes, "P"), p.Q = size_named(sizes, "Q");
  p.stride_h = stride.first, p.stride_w = stride.second;
  p.pad_h = padding.first, p.pad_w = padding.second;
  p.dilation_h = dilation.first, p.dilation_w = dilation.second;
  p.block_shared = block_shared;
  p.x = dense_strides(p.C, p.H, p.W, channels_last);
  p.y = p.index = dense_strides(p.C, p.P, p.Q, channels_last);
  if (p.op == Op::kMax || p.op == Op::kMaxBackward || p.op == Op::kMaxGather)
    p.index_form = parse_name(indices, {IndexForm::kNone, IndexForm::kWindow, IndexForm::kFlat}, "indices");
  if (p.op == Op::kAdaptiveMax || p.op == Op::kAdaptiveMaxBackward) p.index_form = IndexForm::kFlat;
  const Plan chosen = plan(p, kernel);
  const Configuration& c = chosen.configuration;
  py::dict d = explained(explain(p, kernel), chosen, p);
  d["tile"] = py::make_tuple(c.tile_planes, c.tile_rows, c.tile_columns);
  d["threads"] = c.threads;
  d["shared_bytes"] = c.shared_bytes;
  d["slabs"] = c.parts;
  return d;
}

py::list catalogue() {
  py::list all;
  for (const conv2d::Kernel& kernel : conv2d::catalogue()) {
    py::list passes;
    for (conv2d::Pass pass : kernel.passes) passes.append(conv2d::name_of(pass));
    py::dict d = row(kernel, "conv2d", passes);
    d["dtype"] = conv2d::arithmetic_of(kernel);
    d["tile"] = tile_of(kernel);
    all.append(d);
  }
  for (const pool2d::Kernel& kernel : pool2d::catalogue()) {
    py::dict d = row(kernel, "pool2d", py::make_tuple(pool2d::name_of(kernel.op)));
    d["dtype"] = short_name(kernel.dtype);
    d["tile"] = py::none();  // of the problem's making
    all.append(d);
  }
  return all;
}

py::dict build_info() {
  py::dict d;
  d["compiler"] = CNN_COMPILER;
  d["flags"] = CNN_FLAGS;
  d["torch_target_version"] = CNN_TORCH_TARGET_VERSION;
  d["checked_flags"] = CNN_CHECKED_FLAGS;
  d["cuda_compiler"] = CNN_CUDA_COMPILER;
  d["cuda_archs"] = CNN_CUDA_ARCHS;
  return d;
}

emulator::Schedule parse_schedule(const std::string& name) {
  if (name == "forward") return emulator::Schedule::kForward;
  if (name == "reverse") return emulator::Schedule::kReverse;
  if (name == "random") return emulator::Schedule::kRandom;
  throw py::value_error("schedule must be forward, reverse or random, not '" + name + "'");
}

emulator::Comparison parse_comparison(const std::string& name) {
  if (name == "none") return emulator::Comparison::kNone;
  if (name == "record") return emulator::Comparison::kRecord;
  if (name == "compare") return emulator::Comparison::kCompare;
  throw py::value_error("comparison must be none, record or compare, not '" + name + "'");
}

py::list coordinates(uint3 at) {
  py::list list;
  for (unsigned value : {at.x, at.y, at.z}) list.append(value);
  return list;
}
uint3 coordinates_of(dim3 extent) { return {extent.x, extent.y, extent.z}; }

py::dict place_in_source(const std::string& file, int line, const std::string& function) {
  py::dict d;
  d["file"] = file;
  d["line"] = line;
  d["function"] = function;
  return d;
}

py::list emulator_findings() {
  py::list all;
  for (const emulator::Report& report : emulator::take_reports()) {
    const emulator::Finding& finding = report.finding;
    py::dict d = place_in_source(report.file, report.line, report.function);
    d["callers"] = report.callers;
    d["kind"] = finding.kind;
    d["kernel"] = report.kernel;
    d["text"] = report.text;
    d["place"] = finding.place;
    d["access"] = finding.party.access;
    d["block"] = coordinates(finding.party.block);
    d["thread"] = coordinates(finding.party.thread);
    d["count"] = finding.count;
    d["other"] = py::none();
    if (finding.has_other) {
      py::dict other = place_in_source(report.other_file, report.other_line, report.other_function);
      other["callers"] = report.other_callers;
      other["access"] = finding.other.access;
      other["block"] = coordinates(finding.other.block);
      other["thread"] = coordinates(finding.other.thread);
      d["other"] = other;
    }
    all.append(d);
  }
  return all;
}

py::dict place_in_source(const emulator::Source& source) {
  py::dict d = place_in_source(source.file, source.line, source.function);
  d["module"] = source.module;
  d["offset"] = source.offset;
  return d;
}

py::dict buffer_counters(const emulator::BufferCounters& buffer) {
  py::dict d;
  d["name"] = buffer.name;
  d["use"] = buffer.use;
  d["bytes"] = buffer.bytes;
  d["read_bytes"] = buffer.read_bytes;
  d["written_bytes"] = buffer.written_bytes;
  d["block_read_bytes"] = buffer.block_read_bytes;
  d["block_written_bytes"] = buffer.block_written_bytes;
  d["read_sectors"] = buffer.read_sectors;
  d["written_sectors"] = buffer.written_sectors;
  d["block_read_sectors"] = buffer.block_read_sectors;
  d["block_written_sectors"] = buffer.block_written_sectors;
  return d;
}

void add_site_counters(py::dict& d, const emulator::SiteCounters& site) {
  constexpr const char* kAccesses[] = {"load", "store", "atomic", "async copy"};
  d["space"] = site.shared ? "shared" : "global";
  d["access"] = kAccesses[std::size_t(site.access)];
  d["buffer"] = site.buffer;
  d["width"] = site.width;
  d["instructions"] = site.instructions;
  d["lanes"] = site.lanes;
  d["bytes_asked"] = site.bytes_asked;
  d["bytes_used"] = site.bytes_used;
  d["sectors"] = site.sectors;
  d["least_sectors"] = site.least_sectors;
  d["lines"] = site.lines;
  d["wavefronts"] = site.wavefronts;
  d["least_wavefronts"] = site.least_wavefronts;
}

py::dict launch_counters(const emulator::LaunchCounters& launch) {
  py::dict d;
  d["kernel"] = launch.kernel;
  d["symbol"] = launch.symbol;
  d["grid"] = coordinates(coordinates_of(launch.grid));
  d["block"] = coordinates(coordinates_of(launch.block));
  d["blocks"] = launch.blocks;
  d["blocks_run"] = launch.blocks_run;
  d["static_shared_bytes"] = launch.static_shared_bytes;
  d["dynamic_shared_bytes"] = launch.dynamic_shared_bytes;
  d["block_barriers"] = launch.block_barriers;
  d["warp_barriers"] = launch.warp_barriers;
  d["shuffles"] = launch.shuffles;
  d["matrix_products"] = launch.matrix_products;
  d["matrix_multiply_adds"] = launch.matrix_multiply_adds;
  py::list buffers, sites, code;
  for (const emulator::BufferCounters& buffer : launch.buffers) buffers.append(buffer_counters(buffer));
  std::vector<const void*> addresses;
  for (const emulator::SiteCounters& site : launch.sites) addresses.push_back(site.site);
  for (const emulator::CodeCounters& block : launch.code) addresses.push_back(block.site);
  const std::vector<emulator::Source> sources = emulator::observer->sources(addresses);
  std::size_t next = 0;
  for (const emulator::SiteCounters& site : launch.sites) {
    py::dict row = place_in_source(sources[next++]);
    add_site_counters(row, site);
    sites.append(row);
  }
  for (const emulator::CodeCounters& block : launch.code) {
    py::dict row = place_in_source(sources[next++]);
    row["warps"] = block.warps;
    row["lanes"] = block.lanes;
    code.append(row);
  }
  d["buffers"] = buffers;
  d["sites"] = sites;
  d["code"] = code;
  return d;
}

py::list emulator_profile() {
  py::list all;
  if (!emulator::observer)
    throw std::runtime_error("only the checked emulator counts: set CNNKERNELS_EMULATOR=checked before importing cnnkernels");
  for (const emulator::LaunchCounters& launch : emulator::observer->take_counters()) all.append(launch_counters(launch));
  return all;
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "The catalogue, the plan, build facts and the emulator's switches.";
  m.def("catalogue", &catalogue, "Every compiled kernel, one dict each.");
  m.def("plan_conv2d", &plan_conv2d, py::arg("pass_"), py::arg("dtype"), py::arg("sizes"), py::arg("stride"), py::arg("padding"),
        py::arg("dilation"), py::arg("groups") = 1, py::arg("channels_last") = false, py::arg("kernel") = "",
        py::arg("padding_mode") = "zeros", py::arg("allow_tf32") = false, py::arg("block_shared") = kBlockShared,
        "The kernel for a convolution pass of dense tensors, its configuration, and why every other candidate was not taken. "
        "`block_shared`: bytes of shared memory that a block may have on the GPU.");
  m.def("plan_pool2d", &plan_pool2d, py::arg("op"), py::arg("dtype"), py::arg("sizes"), py::arg("stride"), py::arg("padding"),
        py::arg("dilation") = Pair{1, 1}, py::arg("channels_last") = false, py::arg("kernel") = "", py::arg("indices") = "window",
        py::arg("block_shared") = kBlockShared,
        "The same for a pooling of dense tensors. `indices` of the max ops: 'none', 'window' or 'flat'.");
  m.def("build_info", &build_info, "Compilers, flags and targets of this build.");
  m.def(
      "emulator_configure",
      [](int threads, const std::string& schedule, uint64_t seed, bool check, bool count, int sample, const std::string& comparison) {
        const emulator::Comparison mode = parse_comparison(comparison);
        emulator::configure({threads, parse_schedule(schedule), seed, check, count, sample, mode});
        if (emulator::observer && mode != emulator::Comparison::kNone)
          emulator::observer->begin_comparison(mode == emulator::Comparison::kRecord);
      },
      py::arg("threads") = 0, py::arg("schedule") = "forward", py::arg("seed") = 0, py::arg("check") = true, py::arg("count") = false,
      py::arg("sample") = 1, py::arg("comparison") = "none",
      "OS threads (0: as many as pay), the order of threads and blocks, and the seed of the random order. Of the checked emulator: whether "
      "to hold every access against the rules, whether to count, to run one block in `sample` only, and whether to \"record\" all stores "
      "of "
      "the launches that follow, or to \"compare\" them with those recorded.");
  m.def("emulator_is_checked", [] { return emulator::observer != nullptr; }, "Whether this process has the checked emulator.");
  m.def("emulator_findings", &emulator_findings, "What launches reported since the last call, one dict each. Clears.");
  m.def("emulator_profile", &emulator_profile, "The counters of the launches since the last call, one dict each. Clears.");
  m.def("emulator_config", [] {
    const emulator::Config config = emulator::config();
    py::dict d;
    d["threads"] = config.threads;
    d["schedule"] = config.schedule == emulator::Schedule::kForward   ? "forward"
                    : config.schedule == emulator::Schedule::kReverse ? "reverse"
                                                                      : "random";
    d["seed"] = config.seed;
    d["check"] = config.check;
    d["count"] = config.count;
    d["sample"] = config.sample;
    d["comparison"] = config.comparison == emulator::Comparison::kNone     ? "none"
                      : config.comparison == emulator::Comparison::kRecord ? "record"
                                                                           : "compare";
    return d;
  });
}
