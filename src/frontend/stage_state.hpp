#pragma once

#include <optional>
#include <string>

#include "dockerfile/scope.hpp"
#include "dockerfile/stages.hpp"
#include "frontend/image_model.hpp"
#include "llb/graph.hpp"

namespace gantry::frontend {

/// A stage while its instructions are converted: its tree and its image as they are after the last one.
struct StageState {
  llb::Output root;
  ImageModel image;
  std::optional<dockerfile::StageScope> scope;
  image::Platform platform;
  std::string base_config;   // of the image at its bottom; empty: it begins with nothing
  std::string display_name;  // in brackets before its steps; empty: there is one stage only
  int steps = 0;             // with a place of their own in progress
  int step = 0;
  bool cmd_set = false;  // in this stage: ENTRYPOINT then keeps it
  bool ignore_cache = false;
};

/// `[name 2/5] text`: the next step's name.
std::string next_step_name(StageState& stage, const std::string& text, const std::string& platform_prefix);

/// What progress shows of an instruction: variables that are set filled in, those in `masked` as ****, the keyword in
/// capitals.
std::string shown_instruction(const dockerfile::PlannedInstruction& planned, const dockerfile::Environment& environment,
                              char escape, const std::vector<std::string>& masked = {});

/// The steps that a stage's instructions will have, the image that it begins with not counted.
int count_steps(const dockerfile::PlannedStage& stage);

}  // namespace gantry::frontend
