// Work in ranges, shared among threads.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace spherequant {

// Calls work(i, thread) for i = 0..count-1, each once, on up to `threads` threads, this one among
// them. Which thread takes which i is open: results must not depend on it. What work throws first is
// thrown again here, when all threads have stopped.
template <class Work>
void for_each_task(std::size_t count, std::size_t threads, const Work& work) {
  threads = std::max<std::size_t>(1, std::min(threads, count));
  std::atomic<std::size_t> next{0};
  std::exception_ptr failure;
  std::once_flag failed;
  const auto run = [&](std::size_t thread) {
    try {
      for (std::size_t i = next++; i < count; i = next++) work(i, thread);
    } catch (...) {
      std::call_once(failed, [&] { failure = std::current_exception(); });
      next = count;
    }
  };
  std::vector<std::thread> others;
  others.reserve(threads);
  try {
    for (std::size_t t = 1; t < threads; ++t) others.emplace_back(run, t);
  } catch (const std::exception&) {
    // No more threads, or no memory for one: those that started, and this one, do all the work.
  }
  run(0);
  for (std::thread& other : others) other.join();
  if (failure) std::rethrow_exception(failure);
}

}  // namespace spherequant
