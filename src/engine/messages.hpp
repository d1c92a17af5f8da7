#pragma once

#include <string>
#include <string_view>

#include "base/error.hpp"
#include "protocol/types.hpp"

/// Every text about containers that clients match, in one place. The sources are engine-api.md §2.1 and §2.2.
namespace gantry::engine {

Error no_such_container(std::string_view reference);
Error name_in_use(std::string_view name, std::string_view holder_id);
Error invalid_container_name(std::string_view name);
Error container_not_running(std::string_view id);
Error container_already_paused(std::string_view id);
Error container_not_paused(std::string_view id);
Error container_is_restarting(std::string_view id);

Error no_such_exec(std::string_view id);
Error container_is_paused(std::string_view reference);  // for exec

/// How a failed start looks to a client: the code that the container gets, and the error to answer with.
struct StartFailure {
  int exit_code = 128;
  Error error;
};
/// `program` is what the container was told to run.
StartFailure render_start_failure(const protocol::RuntimeFailure& failure, std::string_view program);
/// The same for an exec.
StartFailure render_exec_failure(const protocol::RuntimeFailure& failure, std::string_view program);

}  // namespace gantry::engine
