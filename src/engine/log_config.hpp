#pragma once

#include <map>
#include <string>

#include "config/config.hpp"
#include "engine/container.hpp"
#include "logs/options.hpp"
#include "protocol/types.hpp"
#include "sys/paths.hpp"

/// A container's log driver: from what was asked for to what the shim is told.
namespace gantry::engine {

/// Fills in the daemon's defaults and checks the whole. Throws invalid_argument with Docker's texts.
void complete_log_config(model::LogConfig& log, const config::Config& daemon);

/// How the log's file rotates; for drivers that send the output away it is the copy that `docker logs` reads.
struct LogFileOptions {
  std::uint64_t max_size = 0;  // 0: no limit
  std::uint32_t max_file = 1;
  bool compress = false;
};
/// Throws invalid_argument.
LogFileOptions log_file_options(const std::string& driver, const logs::Options& options);

/// The file that `docker logs` reads; empty if there is none.
sys::Path log_file(const sys::Paths& paths, const Container& container);

/// Fills in what the shim must know of logging. Throws internal, as Docker's start does for a bad tag or expression.
void fill_log_config(protocol::ShimConfig& config, const sys::Paths& paths, const Container& container);

/// The labels and variables that the options ask for.
std::map<std::string, std::string> log_attributes(const Container& container, const logs::Options& options);
/// `tag` with the container's facts put in. Docker has Go's template language here; this knows fields ({{.Name}} …),
/// {{index .ContainerLabels "key"}}, and the functions lower, upper and truncate behind a "|". Throws invalid_argument.
std::string render_log_tag(const std::string& tag, const Container& container);

}  // namespace gantry::engine
