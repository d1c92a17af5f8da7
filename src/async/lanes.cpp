#include "async/lanes.hpp"

#include <atomic>

#include <fmt/format.h>
#include <pthread.h>
#include <boost/asio/associated_executor.hpp>
#include <boost/asio/async_result.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "base/error.hpp"

namespace asio = boost::asio;

namespace gantry::async {

struct Lane::State {
  State(std::string lane_name, unsigned threads) : name(std::move(lane_name)), pool(threads) {}
  std::string name;
  std::atomic<std::size_t> depth{0};
  asio::thread_pool pool;
};

namespace {

/// One call of a lane, seen from the loop: whoever comes first, the result or the deadline, resumes the caller.
template <class Handler>
struct Call {
  Call(Handler h, asio::any_io_executor loop) : handler(std::move(h)), deadline(std::move(loop)) {}
  void finish(std::exception_ptr error) {
    if (!handler) return;
    Handler resume = std::move(*handler);
    handler.reset();
    deadline.cancel();
    std::move(resume)(std::move(error));
  }
  std::optional<Handler> handler;
  asio::steady_timer deadline;
};

}  // namespace

Lane::Lane(std::string name, unsigned threads) : state_(std::make_unique<State>(std::move(name), threads)) {}

Lane::~Lane() { state_->pool.join(); }

std::size_t Lane::depth() const noexcept { return state_->depth; }

Task<void> Lane::run_job(std::function<void()> job, std::chrono::milliseconds limit) {
  asio::any_io_executor loop = co_await asio::this_coro::executor;
  State* state = state_.get();
  ++state->depth;
  auto initiate = [&](auto handler) {
    auto call = std::make_shared<Call<decltype(handler)>>(std::move(handler), loop);
    if (limit != std::chrono::milliseconds::max()) {
      call->deadline.expires_after(limit);
      call->deadline.async_wait([call, name = state->name, limit](boost::system::error_code ec) {
        if (ec) return;
        call->finish(std::make_exception_ptr(
            Error(Errc::timed_out, fmt::format("no answer within {} ms ({} lane)", limit.count(), name))));
      });
    }
    asio::post(state->pool, [call = std::move(call), loop, state, job = std::move(job)]() mutable {
      std::exception_ptr error;
      try {
        job();
      } catch (...) {
        error = std::current_exception();
      }
      job = nullptr;  // what the work owns dies on this thread, not on the loop
      --state->depth;
      // The caller and its error end on the loop, whichever thread is faster.
      asio::post(loop,
                 [call = std::move(call), error = std::move(error)]() mutable { call->finish(std::move(error)); });
    });
  };
  co_await asio::async_initiate<const asio::use_awaitable_t<>&, void(std::exception_ptr)>(initiate,
                                                                                          asio::use_awaitable);
}

}  // namespace gantry::async
