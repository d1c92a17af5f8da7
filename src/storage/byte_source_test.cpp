#include "storage/byte_source.hpp"

#include <thread>

#include <gtest/gtest.h>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>

#include "base/error.hpp"
#include "storage/test_support.hpp"

namespace asio = boost::asio;

namespace gantry::storage {
namespace {

void run(Task<void> task) {
  asio::io_context loop(1);
  std::exception_ptr failure;
  asio::co_spawn(loop, std::move(task), [&](std::exception_ptr error) { failure = error; });
  loop.run();
  if (failure) std::rethrow_exception(failure);
}

std::string numbers(std::size_t count) {
  std::string text;
  for (std::size_t i = 0; i < count; ++i) text += std::to_string(i) + ",";
  return text;
}

TEST(ByteChannel, CarriesBytesFromThreadToThreadInOrder) {
  ByteChannel channel(1000);
  const std::string text = numbers(100'000);
  std::thread writer([&] {
    for (std::size_t at = 0; at < text.size(); at += 777)
      channel.write_blocking(std::string_view(text).substr(at, 777));
    channel.close();
  });
  EXPECT_EQ(read_everything(channel, text.size()), text);
  writer.join();
}

TEST(ByteChannel, AWriterThatFailsTellsTheReaderAfterTheRest) {
  ByteChannel channel;
  channel.write_blocking("rest");
  channel.fail(std::make_exception_ptr(Error(Errc::unavailable, "connection reset")));
  char buffer[16];
  EXPECT_EQ(channel.read(buffer, sizeof buffer), 4u);
  EXPECT_EQ(test::error_of([&] { channel.read(buffer, sizeof buffer); }), "connection reset");
}

TEST(ByteChannel, AReaderThatLeavesFreesAWriterThatWaits) {
  ByteChannel channel(4);
  channel.write_blocking("full");
  std::thread writer([&] { EXPECT_THROW(channel.write_blocking("more"), Error); });
  channel.abort();
  writer.join();
}

TEST(ByteChannel, RefusesWithoutBlockingAndSaysWhenThereIsRoom) {
  ByteChannel channel(4);
  int rooms = 0;
  channel.on_room([&] { ++rooms; });
  EXPECT_TRUE(channel.try_write("full"));
  EXPECT_FALSE(channel.try_write("more"));
  EXPECT_EQ(rooms, 0);
  char buffer[16];
  channel.read(buffer, sizeof buffer);
  EXPECT_EQ(rooms, 1);
  EXPECT_TRUE(channel.try_write("more"));
  channel.read(buffer, sizeof buffer);
  EXPECT_EQ(rooms, 1) << "nothing was refused this time";
}

Task<void> write_from_loop(ByteChannel* channel, std::string text) {
  for (std::size_t at = 0; at < text.size(); at += 500) {
    std::string piece = text.substr(at, 500);
    co_await channel->write(std::move(piece));
  }
  channel->close();
}

TEST(ByteChannel, TakesBytesFromTheLoopAtTheSpeedOfTheReader) {
  ByteChannel channel(1000);
  const std::string text = numbers(20'000);
  std::string got;
  std::thread reader([&] { got = read_everything(channel, text.size()); });
  run(write_from_loop(&channel, text));
  reader.join();
  EXPECT_EQ(got, text);
}

Task<void> read_on_loop(ByteChannel* channel, std::string* got) {
  for (;;) {
    const std::string piece = co_await channel->next();
    if (piece.empty()) co_return;
    *got += piece;
  }
}

TEST(ByteChannel, GivesBytesToTheLoop) {
  ByteChannel channel(1000);
  const std::string text = numbers(20'000);
  std::string got;
  std::thread writer([&] {
    for (std::size_t at = 0; at < text.size(); at += 333)
      channel.write_blocking(std::string_view(text).substr(at, 333));
    channel.close();
  });
  run(read_on_loop(&channel, &got));
  writer.join();
  EXPECT_EQ(got, text);
}

}  // namespace
}  // namespace gantry::storage
