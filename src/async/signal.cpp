#include "async/signal.hpp"

#include <list>

#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>

namespace asio = boost::asio;

namespace gantry::async {

struct Signal::Waiters {
  struct Waiter {
    explicit Waiter(const asio::any_io_executor& loop) : timer(loop) {}
    asio::steady_timer timer;
    bool notified = false;
  };
  std::list<Waiter*> waiting;
};

Signal::Signal() : waiters_(std::make_shared<Waiters>()) {}
Signal::~Signal() = default;
Signal::Signal(Signal&&) noexcept = default;
Signal& Signal::operator=(Signal&&) noexcept = default;

Task<void> Signal::wait() { (void)co_await wait_for(std::chrono::nanoseconds::max()); }

Task<bool> Signal::wait_for(std::chrono::nanoseconds limit) {
  auto waiters = waiters_;  // survives the Signal
  Waiters::Waiter self(co_await asio::this_coro::executor);
  if (limit == std::chrono::nanoseconds::max()) self.timer.expires_at(asio::steady_timer::time_point::max());
  else self.timer.expires_after(std::chrono::duration_cast<asio::steady_timer::duration>(limit));
  auto place = waiters->waiting.insert(waiters->waiting.end(), &self);
  struct Leave {
    std::list<Waiters::Waiter*>& list;
    std::list<Waiters::Waiter*>::iterator place;
    Waiters::Waiter& self;
    ~Leave() {
      if (!self.notified) list.erase(place);
    }
  } leave{waiters->waiting, place, self};
  boost::system::error_code ec;
  co_await self.timer.async_wait(asio::redirect_error(asio::use_awaitable, ec));
  if (ec && !self.notified) throw boost::system::system_error(ec);  // cancelled
  co_return self.notified;
}

void Signal::notify() {
  auto waiting = std::exchange(waiters_->waiting, {});
  for (Waiters::Waiter* waiter : waiting) {
    waiter->notified = true;
    waiter->timer.cancel();
  }
}

bool Signal::has_waiters() const noexcept { return !waiters_->waiting.empty(); }

Task<void> sleep_for(std::chrono::nanoseconds duration) {
  asio::steady_timer timer(co_await asio::this_coro::executor);
  timer.expires_after(std::chrono::duration_cast<asio::steady_timer::duration>(duration));
  co_await timer.async_wait(asio::use_awaitable);
}

}  // namespace gantry::async
