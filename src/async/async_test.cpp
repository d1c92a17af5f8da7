#include <chrono>
#include <future>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "async/lanes.hpp"
#include "async/mutex.hpp"
#include "async/operation.hpp"
#include "async/queue.hpp"
#include "async/shield.hpp"
#include "async/signal.hpp"
#include "async/task_group.hpp"
#include "async/timeout.hpp"
#include "base/error.hpp"

namespace asio = boost::asio;
using namespace std::chrono_literals;

namespace gantry::async {
namespace {

class Loop : public testing::Test {
 protected:
  /// Runs a coroutine to its end and passes on what it throws.
  void run(Task<void> task) {
    std::exception_ptr failure;
    asio::co_spawn(loop_, std::move(task), [&](std::exception_ptr error) { failure = error; });
    loop_.restart();
    loop_.run();
    if (failure) std::rethrow_exception(failure);
  }
  asio::io_context loop_{1};
};

struct Aggregate {
  std::string name;
  std::vector<std::string> words;
};

Task<std::size_t> take_aggregate(Aggregate a) {
  co_await asio::post(asio::use_awaitable);
  co_return a.name.size() + a.words.size();
}

Task<void> call_with_temporaries() {
  // What g++ 12 miscompiles: a braced aggregate temporary in the expression of a co_await.
  EXPECT_EQ(co_await take_aggregate({.name = std::string(64, 'x'), .words = {"a", "b"}}), 66u);
  EXPECT_EQ(co_await take_aggregate(Aggregate{std::string(40, 'y'), {}}), 40u);
}

TEST_F(Loop, TheCompilerPassesAggregateTemporariesToCoroutines) { run(call_with_temporaries()); }

Task<void> use_lane(Lane* lane) {
  const auto here = std::this_thread::get_id();
  const auto there = co_await lane->run([] { return std::this_thread::get_id(); });
  EXPECT_NE(here, there);
  EXPECT_EQ(here, std::this_thread::get_id());
  bool thrown = false;
  try {
    co_await lane->run([] { throw Error(Errc::conflict, "from the lane"); });
  } catch (const Error& e) {
    thrown = e.code() == Errc::conflict;
  }
  EXPECT_TRUE(thrown);
}

TEST_F(Loop, ALaneRunsWorkElsewhereAndBringsResultsAndErrorsBack) {
  Lane lane("test", 1);
  run(use_lane(&lane));
  EXPECT_EQ(lane.depth(), 0u);
}

Task<void> time_out(Lane* lane, std::shared_ptr<std::promise<void>> release) {
  bool timed_out = false;
  try {
    co_await lane->run_within(20ms, [wait = release->get_future().share()] { wait.wait(); });
  } catch (const Error& e) {
    timed_out = e.code() == Errc::timed_out;
  }
  EXPECT_TRUE(timed_out);
  release->set_value();
}

TEST_F(Loop, ALaneGivesUpOnWorkThatTakesTooLong) {
  Lane lane("test", 1);
  run(time_out(&lane, std::make_shared<std::promise<void>>()));
}

Task<void> hold(Mutex* mutex, int number, std::vector<int>* order) {
  auto guard = co_await mutex->lock("holder " + std::to_string(number));
  co_await asio::post(asio::use_awaitable);
  co_await asio::post(asio::use_awaitable);
  order->push_back(number);
}

TEST_F(Loop, AMutexIsGivenInTheOrderOfAsking) {
  Mutex mutex;
  std::vector<int> order;
  for (int i = 0; i < 5; ++i)
    asio::co_spawn(loop_, hold(&mutex, i, &order), [](std::exception_ptr error) { EXPECT_FALSE(error); });
  loop_.run();
  EXPECT_EQ(order, (std::vector<int>{0, 1, 2, 3, 4}));
  EXPECT_FALSE(mutex.is_locked());
}

Task<void> wait_for_held(Mutex* mutex) {
  auto guard = co_await mutex->lock("start");
  std::string text;
  try {
    auto second = co_await mutex->lock("stop", 10ms);
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Errc::unavailable);
    text = e.message();
  }
  EXPECT_NE(text.find("start is still running"), std::string::npos) << text;
}

TEST_F(Loop, AMutexThatIsHeldTooLongNamesItsHolder) {
  Mutex mutex;
  run(wait_for_held(&mutex));
  EXPECT_FALSE(mutex.is_locked());
}

TEST_F(Loop, AWaiterThatIsCancelledLeavesTheMutexToTheNext) {
  Mutex mutex;
  std::vector<int> order;
  asio::cancellation_signal cancel;
  asio::co_spawn(loop_, hold(&mutex, 1, &order), asio::detached);
  asio::co_spawn(loop_, hold(&mutex, 2, &order),
                 asio::bind_cancellation_slot(cancel.slot(), [](std::exception_ptr error) { EXPECT_TRUE(error); }));
  asio::co_spawn(loop_, hold(&mutex, 3, &order), asio::detached);
  asio::post(loop_, [&] { cancel.emit(asio::cancellation_type::terminal); });
  loop_.run();
  EXPECT_EQ(order, (std::vector<int>{1, 3}));
  EXPECT_FALSE(mutex.is_locked());
}

Task<void> note(std::vector<std::string>* done, std::string text) {
  co_await asio::post(asio::use_awaitable);
  done->push_back(text);
}

Task<void> fail_after_two_steps(OperationPtr op, std::vector<std::string>* done) {
  op->step("first");
  op->undo([done] { return note(done, "undo first"); });
  op->step("second");
  op->undo([done] { return note(done, "undo second"); });
  op->step("third");
  co_await asio::post(asio::use_awaitable);
  throw Error(Errc::internal, "broken");
}

Task<void> guarded(Operations* all, std::vector<std::string>* done) {
  auto op = all->begin("container.create", "web");
  co_await op->guard(fail_after_two_steps(op, done));
}

TEST_F(Loop, AnOperationThatFailsUndoesItsStepsBackwardsAndNamesTheLast) {
  Operations all;
  std::vector<std::string> done;
  try {
    run(guarded(&all, &done));
    FAIL();
  } catch (const Error& e) {
    EXPECT_STREQ(e.what(), "third: broken");
  }
  EXPECT_EQ(done, (std::vector<std::string>{"undo second", "undo first"}));
  EXPECT_TRUE(all.list().empty());
}

Task<void> wait_after_a_step(OperationPtr op, std::vector<std::string>* done, Signal* never) {
  op->undo([done] { return note(done, "undone"); });
  op->step("waiting");
  co_await never->wait();
}

Task<void> guarded_wait(Operations* all, std::vector<std::string>* done, Signal* never) {
  auto op = all->begin("container.create", "web");
  co_await op->guard(wait_after_a_step(op, done, never));
}

TEST_F(Loop, AClientThatHangsUpInTheMiddleLeavesNothingBehind) {
  Operations all;
  Signal never;
  std::vector<std::string> done;
  asio::cancellation_signal cancel;
  asio::co_spawn(loop_, guarded_wait(&all, &done, &never),
                 asio::bind_cancellation_slot(cancel.slot(), [](std::exception_ptr error) { EXPECT_TRUE(error); }));
  asio::post(loop_, [&] { cancel.emit(asio::cancellation_type::terminal); });
  loop_.run();
  EXPECT_EQ(done, (std::vector<std::string>{"undone"}));
}

Task<void> shielded_note(std::vector<std::string>* done, Signal* go) {
  co_await go->wait();
  done->push_back("ended");
}

Task<void> run_shielded(std::vector<std::string>* done, Signal* go) { co_await shielded(shielded_note(done, go)); }

Task<void> shield_and_wait_on(std::vector<std::string>* done, Signal* go, Signal* never) {
  co_await shielded(shielded_note(done, go));
  done->push_back("went on");
  co_await never->wait();
  done->push_back("never");
}

TEST_F(Loop, ACallerIsCancelledBehindItsShield) {
  Signal go, never;
  std::vector<std::string> done;
  asio::cancellation_signal cancel;
  bool cancelled = false;
  asio::co_spawn(
      loop_, shield_and_wait_on(&done, &go, &never),
      asio::bind_cancellation_slot(cancel.slot(), [&](std::exception_ptr error) { cancelled = error != nullptr; }));
  asio::post(loop_, [&] {
    asio::post(loop_, [&] { go.notify(); });
    asio::post(loop_, [&] {
      asio::post(loop_, [&] { asio::post(loop_, [&] { cancel.emit(asio::cancellation_type::terminal); }); });
    });
  });
  loop_.run();
  EXPECT_TRUE(cancelled);
  EXPECT_EQ(done, (std::vector<std::string>{"ended", "went on"}));
}

TEST_F(Loop, WhatIsShieldedEndsAlthoughItsCallerIsCancelled) {
  Signal go;
  std::vector<std::string> done;
  asio::cancellation_signal cancel;
  asio::co_spawn(loop_, run_shielded(&done, &go), asio::bind_cancellation_slot(cancel.slot(), asio::detached));
  asio::post(loop_, [&] {
    cancel.emit(asio::cancellation_type::terminal);
    asio::post(loop_, [&] { go.notify(); });
  });
  loop_.run();
  EXPECT_EQ(done, (std::vector<std::string>{"ended"}));
}

Task<void> use_queue(Queue<int>* queue) {
  EXPECT_TRUE(queue->push(1));
  EXPECT_TRUE(queue->push(2));
  EXPECT_FALSE(queue->push(3)) << "the queue is bounded";
  EXPECT_EQ(co_await queue->pop(), 1);
  queue->close();
  EXPECT_EQ(co_await queue->pop(), 2);
  EXPECT_EQ(co_await queue->pop(), std::nullopt);
}

TEST_F(Loop, AQueueIsBoundedAndEndsWhenClosed) {
  Queue<int> queue(2);
  run(use_queue(&queue));
}

Task<void> wait_forever(Signal* never) { co_await never->wait(); }

Task<void> cancel_group(asio::any_io_executor loop, Signal* never) {
  TaskGroup group(loop);
  group.spawn("waiter", wait_forever(never));
  co_await asio::post(asio::use_awaitable);
  EXPECT_EQ(group.size(), 1u);
  group.cancel();
  co_await group.join();
  EXPECT_EQ(group.size(), 0u);
}

TEST_F(Loop, ATaskGroupEndsItsCoroutinesWhenCancelled) {
  Signal never;
  run(cancel_group(loop_.get_executor(), &never));
}

Task<void> spawn_late(asio::any_io_executor loop, Signal* never) {
  TaskGroup group(loop);
  group.cancel();
  group.spawn("late waiter", wait_forever(never));
  co_await with_timeout(group.join(), 60s, "the group");
  EXPECT_EQ(group.size(), 0u);
}

TEST_F(Loop, ATaskGroupThatWasCancelledEndsWhatIsStartedInItAfterwards) {
  Signal never;
  run(spawn_late(loop_.get_executor(), &never));
}

Task<void> time_out_task(Signal* never) {
  bool timed_out = false;
  try {
    co_await with_timeout(wait_forever(never), 10ms, "shim");
  } catch (const Error& e) {
    timed_out = e.code() == Errc::timed_out;
  }
  EXPECT_TRUE(timed_out);
}

TEST_F(Loop, ATaskWithATimeoutIsCancelledAndNamed) {
  Signal never;
  run(time_out_task(&never));
}

Task<int> fail_soon() {
  co_await asio::post(asio::use_awaitable);
  throw Error(Errc::conflict, "its own error");
}

Task<int> answer_soon() {
  co_await asio::post(asio::use_awaitable);
  co_return 42;
}

Task<void> pass_through() {
  const auto begin = std::chrono::steady_clock::now();
  std::string text;
  try {
    co_await with_timeout(fail_soon(), 60s, "shim");
  } catch (const Error& e) {
    text = e.message();
  }
  EXPECT_EQ(text, "its own error");
  EXPECT_EQ(co_await with_timeout(answer_soon(), 60s, "shim"), 42);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 30s);
}

TEST_F(Loop, ATaskThatEndsInTimeGivesItsOwnResultOrError) { run(pass_through()); }

}  // namespace
}  // namespace gantry::async
