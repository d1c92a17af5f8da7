#include "async/task_group.hpp"

#include <list>

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/system/system_error.hpp>

#include "async/signal.hpp"
#include "base/error.hpp"
#include "base/log.hpp"

namespace asio = boost::asio;

namespace gantry::async {

struct TaskGroup::State {
  explicit State(asio::any_io_executor executor) : loop(std::move(executor)) {}
  asio::any_io_executor loop;
  std::list<asio::cancellation_signal> running;
  Signal changed;
  bool cancelled = false;
};

namespace {

void report(const std::string& name, const std::exception_ptr& error, bool cancelled) {
  try {
    std::rethrow_exception(error);
  } catch (const Error& e) {
    if (!cancelled || e.code() != Errc::cancelled) log::error("{}: {}", name, e.log_detail());
  } catch (const boost::system::system_error& e) {
    if (e.code() != asio::error::operation_aborted) log::error("{}: {}", name, e.what());
  } catch (const std::exception& e) {
    log::error("{}: {}", name, e.what());
  }
}

}  // namespace

TaskGroup::TaskGroup(asio::any_io_executor loop) : state_(std::make_shared<State>(std::move(loop))) {}
TaskGroup::~TaskGroup() { cancel(); }

void TaskGroup::spawn(std::string name, Task<void> task) {
  auto state = state_;
  auto signal = state->running.emplace(state->running.end());
  auto done = [state, signal, name = std::move(name)](std::exception_ptr error) {
    if (error) report(name, error, state->cancelled);
    state->running.erase(signal);
    state->changed.notify();
  };
  asio::co_spawn(state->loop, std::move(task), asio::bind_cancellation_slot(signal->slot(), std::move(done)));
  // What is still being done, shielded, may start more: whoever joins the group must not wait for that for ever.
  if (state->cancelled) signal->emit(asio::cancellation_type::terminal);
}

void TaskGroup::cancel() {
  auto state = state_;
  state->cancelled = true;
  std::vector<std::list<asio::cancellation_signal>::iterator> all;
  for (auto it = state->running.begin(); it != state->running.end(); ++it) all.push_back(it);
  for (auto it : all) it->emit(asio::cancellation_type::terminal);
}

Task<void> TaskGroup::join() {
  auto state = state_;
  while (!state->running.empty()) co_await state->changed.wait();
}

std::size_t TaskGroup::size() const noexcept { return state_->running.size(); }

}  // namespace gantry::async
