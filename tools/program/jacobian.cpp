// bracket jacobian: the estimators of a generator's Jacobian beside the exact values.
#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "bracket/error.h"
#include "host/evaluate/jacobian_comparison.h"
#include "host/files/atomic_file.h"
#include "host/files/posix_file.h"
#include "host/training/inference.h"
#include "tools/program/command_line.h"
#include "tools/program/model.h"
#include "tools/program/output.h"

namespace bracket {
namespace {

namespace fs = std::filesystem;

struct JacobianRequest {
  ModelOptions model;
  std::int64_t samples = 64;
  std::uint64_t seed = 0;
  bool json = false;
  std::string pictures;
};

JacobianComparison compare(Context& context, const Network& generator, const ParameterSet& parameters,
                           const JacobianRequest& request) {
  const std::vector<double> z =
      normal_values({request.seed, RandomStream::evaluation, 0}, request.samples * generator.input_size());
  return compare_jacobian_estimators(
      context,
      [&](Ops& ops, Arena& arena) -> std::unique_ptr<JacobianOperator> {
        const Tensor latent = arena.allocate(generator.dtype(), {request.samples, generator.input_size()});
        write_values(ops, latent, z);
        return std::make_unique<NetworkJacobian>(ops, arena, generator, parameters, latent);
      },
      generator.flops_per_row(), request.seed);
}

NetworkSpec specification(const std::string& path) {
  const std::vector<std::byte> bytes = read_file(path);
  try {
    return network_spec_from_json({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  } catch (const InvalidArgument& error) {
    throw InvalidArgument(path_in_quotes(path) + ": " + error.what());
  }
}

/// A network as it starts out, in double.
JacobianComparison compare_specified(const JacobianRequest& request) {
  const Network generator(specification(request.model.path), DType::f64);
  ContextOptions options;
  options.device = Device::parse(request.model.device);
  options.threads = request.model.threads;
  Context context(options);
  const Buffer values = context.pool().allocate(generator.value_elements() * dtype_bytes(DType::f64), "parameters");
  const Buffer buffers = context.pool().allocate(generator.buffer_elements() * dtype_bytes(DType::f64), "buffers");
  const ParameterSet parameters{Tensor(values.data(), DType::f64, {generator.value_elements()}),
                                Tensor(buffers.data(), DType::f64, {generator.buffer_elements()})};
  generator.initialize(context.ops(), parameters, request.seed, RandomStream::generator_init);
  try {
    return compare(context, generator, parameters, request);
  } catch (const Diverged& error) {  // there is no training to go back in
    throw InvalidArgument(path_in_quotes(request.model.path) + ": " + error.what() +
                          "; change the network or the --seed it starts from");
  }
}

JacobianComparison compare_requested(const JacobianRequest& request) {
  if (fs::path(request.model.path).extension() == ".json") return compare_specified(request);
  Model model = load_model(request.model, DataUse::none);
  return compare(*model.context, model.trainer->generator_network(),
                 model.trainer->generator_parameters(request.model.chosen_weights()), request);
}

int jacobian(const JacobianRequest& request) {
  const JacobianComparison comparison = compare_requested(request);
  if (!request.pictures.empty()) {
    const fs::path folder = request.pictures;
    create_folders(folder);
    write_file_atomically(folder / "log_volume.png", encode_png(accuracy_picture(comparison, kLogVolume)));
    write_file_atomically(folder / "smallest.png", encode_png(accuracy_picture(comparison, kSmallestVolume)));
    write_file_atomically(folder / "spectrum.png", encode_png(spectrum_picture(comparison)));
  }
  print(request.json ? to_json(comparison) + "\n" : summary(comparison));
  return 0;
}

}  // namespace

void add_jacobian(CLI::App& program, Action& action) {
  auto options = std::make_shared<JacobianRequest>();
  CLI::App* command = program.add_subcommand(
      "jacobian",
      "Log-volumes, singular values and traces of a generator's Jacobian: every estimator beside the exact");
  add_model_options(*command, options->model, DataUse::none);
  command->get_option("run")->description(
      "Run folder, checkpoint folder, or a network specification (.json), started from --seed");
  command->add_option("--samples", options->samples, "Latents")
      ->check(whole_number(1, std::uint64_t{1} << 20))
      ->capture_default_str();
  command->add_option("--seed", options->seed, "Seed of the latents and of all probes")
      ->check(whole_number(0, kLargestSeed))
      ->capture_default_str();
  command->add_flag("--json", options->json, "Print one JSON object");
  command->add_option("--pictures", options->pictures, "Folder for log_volume.png, smallest.png and spectrum.png")
      ->check(not_empty());
  command->callback([options, &action] { action = [options] { return jacobian(*options); }; });
}

}  // namespace bracket
