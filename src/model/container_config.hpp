#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <boost/describe/class.hpp>

#include "json/fields.hpp"

/// Docker's object model. Members carry the wire names of the Engine API (shared/api/engine-api-1.56.yaml), so that
/// one struct serves the request, the row and the answer.
namespace gantry::model {

using json::Omit;
using json::StringList;
using json::StringMap;
using json::StringSet;

/// Durations in nanoseconds; 0 means "inherit".
struct HealthConfig {
  Omit<std::vector<std::string>> Test;
  Omit<std::int64_t> Interval;
  Omit<std::int64_t> Timeout;
  Omit<std::int64_t> StartPeriod;
  Omit<std::int64_t> StartInterval;
  Omit<std::int64_t> Retries;
};
BOOST_DESCRIBE_STRUCT(HealthConfig, (), (Test, Interval, Timeout, StartPeriod, StartInterval, Retries))

/// What does not depend on the host.
struct ContainerConfig {
  std::string Hostname;
  std::string Domainname;
  std::string User;
  bool AttachStdin = false;
  bool AttachStdout = false;
  bool AttachStderr = false;
  Omit<StringSet> ExposedPorts;
  bool Tty = false;
  bool OpenStdin = false;
  bool StdinOnce = false;
  std::optional<std::vector<std::string>> Env;
  StringList Cmd;
  Omit<HealthConfig> Healthcheck;
  Omit<bool> ArgsEscaped;
  std::string Image;
  std::optional<StringSet> Volumes;
  std::string WorkingDir;
  StringList Entrypoint;
  Omit<bool> NetworkDisabled;
  Omit<std::string> MacAddress;
  std::optional<std::vector<std::string>> OnBuild;
  std::optional<StringMap> Labels;
  Omit<std::string> StopSignal;
  Omit<std::int64_t> StopTimeout;  // seconds
  Omit<std::vector<std::string>> Shell;
};
BOOST_DESCRIBE_STRUCT(ContainerConfig, (),
                      (Hostname, Domainname, User, AttachStdin, AttachStdout, AttachStderr, ExposedPorts, Tty,
                       OpenStdin, StdinOnce, Env, Cmd, Healthcheck, ArgsEscaped, Image, Volumes, WorkingDir, Entrypoint,
                       NetworkDisabled, MacAddress, OnBuild, Labels, StopSignal, StopTimeout, Shell))

}  // namespace gantry::model
