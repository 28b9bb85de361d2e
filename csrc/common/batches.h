// A kernel takes a batch in several launches where it cannot take it in one: an offset would not fit in 31 bits, or what it packs would be
// larger than its workspace may be. Images do not depend on each other; sums over them (a filter's gradient) go on from batch to batch.
//
// Found beside the operation's types: may_need_batches(problem), which is cheap, and batch_of(problem, images): the problem of so many of
// its images. Its kernels refuse a problem for its size only if they refuse all larger ones.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <type_traits>
#include <utility>

#include "common/block_shared.h"

namespace cnn {

// `images` in `count` batches: the first `larger` of them have one image more than the rest.
struct Batches {
  int64_t images, count;

  int64_t larger() const { return images % count; }
  int64_t most() const { return images / count + (larger() > 0); }
  int64_t size(int64_t batch) const { return images / count + (batch < larger()); }
  bool differ() const { return larger() > 0; }
};

// In how many batches a kernel runs a problem; or 0, and why not.
struct Verdict {
  std::string why_not;
  int64_t batches = 0;
};

// Doubled until the kernel takes them.
template <class Kernel, class Problem>
Verdict judge_size(const Kernel& kernel, const Problem& problem) {
  std::string why = kernel.why_not(kernel, problem);
  if (why.empty()) return {{}, 1};
  if (problem.N < 2 || !may_need_batches(problem) || !kernel.why_not(kernel, batch_of(problem, 1)).empty()) return {std::move(why), 0};
  const auto can = [&](int64_t images) { return kernel.why_not(kernel, batch_of(problem, images)).empty(); };
  int64_t count = 2;
  while (count < problem.N && !can(Batches{problem.N, count}.most())) count *= 2;
  return {{}, std::min(count, problem.N)};
}

template <class Kernel, class Problem>
Verdict judge(const Kernel& kernel, const Problem& problem) {
  const Verdict verdict = judge_size(kernel, problem);
  if (verdict.batches == 0 || problem.block_shared >= kBlockShared) return verdict;
  const auto bytes_of = [&](const Problem& part) { return int64_t(kernel.configure(kernel, part).shared_bytes); };
  int64_t bytes;
  if (verdict.batches == 1) {
    bytes = bytes_of(problem);
  } else {
    const Batches cut{problem.N, verdict.batches};
    bytes = bytes_of(batch_of(problem, cut.most()));
    if (cut.differ()) bytes = std::max(bytes, bytes_of(batch_of(problem, cut.most() - 1)));  // its tiles may be others
  }
  if (bytes == 0 || bytes + kStaticShared <= problem.block_shared) return verdict;
  return {"it takes " + std::to_string(bytes) + " bytes of dynamic shared memory, of which a block of this GPU has " +
              std::to_string(problem.block_shared - kStaticShared),
          0};
}

// In microseconds.
template <class Kernel, class Problem>
double cost_in(int64_t batches, const Kernel& kernel, const Problem& problem) {
  if (batches == 1) return kernel.cost(kernel, problem);
  const Batches cut{problem.N, batches};
  double cost = double(batches - cut.larger()) * kernel.cost(kernel, batch_of(problem, cut.images / batches));
  if (cut.differ()) cost += double(cut.larger()) * kernel.cost(kernel, batch_of(problem, cut.most()));
  return cost;
}

// Moves a pointer to void or const void, if it points to anything.
template <class Void>
void advance(Void*& pointer, int64_t bytes) {
  if (pointer) pointer = static_cast<std::conditional_t<std::is_const_v<Void>, const char, char>*>(pointer) + bytes;
}

}  // namespace cnn
