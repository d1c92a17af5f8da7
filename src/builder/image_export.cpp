#include "builder/image_export.hpp"

#include <algorithm>
#include <map>
#include <utility>

#include <boost/json/array.hpp>

#include "base/error.hpp"
#include "json/json.hpp"

namespace gantry::builder {
namespace {

std::vector<buildcache::SnapshotPtr> layers_of(const buildcache::SnapshotPtr& tree) {
  std::vector<buildcache::SnapshotPtr> out;
  for (auto one = tree; one != nullptr; one = one->parent()) out.push_back(one);
  std::reverse(out.begin(), out.end());
  return out;
}

bool is_empty_layer(const json::Value& entry) {
  const auto* flag = entry.is_object() ? entry.get_object().if_contains("empty_layer") : nullptr;
  return flag != nullptr && flag->is_bool() && flag->get_bool();
}

std::optional<Timestamp> created_of(const json::Value& entry) {
  const auto* text = entry.is_object() ? entry.get_object().if_contains("created") : nullptr;
  if (text == nullptr || !text->is_string()) return std::nullopt;
  const auto parsed = parse_rfc3339(std::string(text->get_string()));
  return parsed && *parsed != Timestamp{} ? parsed : std::nullopt;
}

/// As many entries with a layer as there are layers.
void match_layers(json::Array& history, const std::vector<LayerFacts>& layers, const std::string& comment) {
  std::size_t entries = 0;
  for (const auto& entry : history) entries += is_empty_layer(entry) ? 0 : 1;
  for (auto it = history.end(); entries > layers.size() && it != history.begin();) {
    --it;
    if (is_empty_layer(*it) || !it->is_object()) continue;
    it->get_object()["empty_layer"] = true;
    --entries;
  }
  for (; entries < layers.size(); ++entries) {
    json::Object entry;
    entry["created"] = render_rfc3339_nano(layers[entries].created);
    entry["created_by"] = layers[entries].description;
    entry["comment"] = comment;
    history.push_back(std::move(entry));
  }
}

/// Entries of this build carry no time yet. Those with a layer get its time; the others that of the layer before them,
/// those before the first new layer that of this one.
void fill_times(json::Array& history, const std::vector<LayerFacts>& layers, std::optional<Timestamp> epoch) {
  std::size_t layer = 0;
  std::optional<Timestamp> first_new;
  for (auto& entry : history) {
    if (!entry.is_object() || is_empty_layer(entry)) continue;
    const Timestamp made = epoch.value_or(layers[layer++].created);
    if (created_of(entry)) continue;
    entry.get_object()["created"] = render_rfc3339_nano(made);
    if (!first_new) first_new = made;
  }
  std::optional<Timestamp> last;
  bool reached_new = false;
  for (auto& entry : history) {
    if (!entry.is_object()) continue;
    if (const auto own = created_of(entry)) {
      last = own;
      reached_new = reached_new || own == first_new;
      continue;
    }
    const auto time = epoch ? epoch : !reached_new && first_new ? first_new : last;
    if (time) entry.get_object()["created"] = render_rfc3339_nano(*time);
  }
}

}  // namespace

std::vector<buildlink::ImageLayer> give_layers(buildcache::Cache& cache, buildlink::Engine& engine,
                                               const buildcache::SnapshotPtr& tree, std::stop_token stop) {
  std::vector<buildlink::ImageLayer> out;
  std::string parent;
  for (const auto& layer : layers_of(tree)) {
    if (layer->chain_id().empty()) {
      const auto move = cache.snapshots().begin_move(layer);
      // Another export may have been faster.
      if (layer->chain_id().empty()) {
        const auto given = engine.commit_layer(parent, layer->directory(), stop);
        cache.snapshots().became_layer(layer, given.chain_id, given.diff_id, given.directory, given.size);
      }
    }
    buildlink::ImageLayer one;
    one.chain_id = layer->chain_id();
    one.diff_id = layer->diff_id();
    one.directory = layer->directory();
    one.size = layer->size();
    one.created = layer->created();
    parent = one.chain_id;
    out.push_back(std::move(one));
  }
  return out;
}

std::string complete_config(const std::string& config, const std::vector<LayerFacts>& layers,
                            const std::string& comment, std::optional<Timestamp> epoch) {
  json::Value document = json::parse(config);
  if (!document.is_object()) throw Error(Errc::invalid_argument, "the image config is not a JSON object");
  json::Object& top = document.get_object();
  json::Array history;
  if (auto* given = top.if_contains("history"); given != nullptr && given->is_array()) history = given->get_array();
  match_layers(history, layers, comment);
  fill_times(history, layers, epoch);

  std::optional<Timestamp> created = epoch;
  for (const auto& entry : history)
    if (!epoch)
      if (const auto own = created_of(entry)) created = own;
  json::Array diff_ids;
  for (const auto& layer : layers) diff_ids.emplace_back(layer.diff_id);
  json::Object rootfs;
  rootfs["type"] = "layers";
  rootfs["diff_ids"] = std::move(diff_ids);

  std::map<std::string, json::Value> sorted;
  for (const auto& member : top) sorted.emplace(member.key(), member.value());
  sorted["rootfs"] = std::move(rootfs);
  if (!history.empty()) sorted["history"] = std::move(history);
  if (created) sorted["created"] = render_rfc3339_nano(*created);
  json::Object out;
  for (auto& [name, value] : sorted) out[name] = std::move(value);
  return json::render(out);
}

ExportedImage export_image(buildcache::Cache& cache, buildlink::Engine& engine, const ExportRequest& request,
                           solver::Progress& progress, std::stop_token stop) {
  std::vector<LayerFacts> facts;
  std::vector<std::string> chains;
  {
    const auto exporting = progress.status("exporting layers");
    const auto given = give_layers(cache, engine, request.tree, stop);
    const auto snapshots = layers_of(request.tree);
    for (std::size_t i = 0; i < given.size(); ++i) {
      facts.push_back({given[i].diff_id, given[i].created, snapshots[i]->description()});
      chains.push_back(given[i].chain_id);
    }
    exporting->complete();
  }
  ExportedImage out;
  out.config = complete_config(request.config, facts, request.comment, request.epoch);
  out.image = engine.create_image({out.config, std::move(chains), request.names}, stop);
  progress.status("writing image " + out.image.id)->complete();
  for (const auto& name : out.image.names) progress.status("naming to " + name)->complete();
  return out;
}

}  // namespace gantry::builder
