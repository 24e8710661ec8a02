// bracket classifier: the classifier behind the feature figures of `bracket eval`.
#include <memory>

#include "bracket/error.h"
#include "host/core/text.h"
#include "host/evaluate/images/image_classifier.h"
#include "host/files/in_quotes.h"
#include "tools/program/command_line.h"
#include "tools/program/data_options.h"
#include "tools/program/output.h"

namespace bracket {
namespace {

struct ClassifierOptions {
  std::string data = "mnist";
  std::string data_dir;
  std::string output;
  std::string device = "auto";
  int threads = 0;
  ClassifierTraining training;
};

int classifier(const ClassifierOptions& options) {
  static constexpr const char* kEndings[] = {".safetensors"};
  require_ending(options.output, kEndings);
  const std::filesystem::path folder = data_folder(options.data_dir);
  const Dataset train = Dataset::open(options.data, {.data_dir = folder, .split = Split::train});
  ContextOptions context_options;
  context_options.device = Device::parse(options.device);
  context_options.threads = options.threads;
  Context context(context_options);
  const ImageClassifier trained =
      ImageClassifier::train(context, train, options.training, [&](std::int64_t epoch, double loss) {
        announce("epoch " + std::to_string(epoch) + " of " + std::to_string(options.training.epochs) +
                 "   mean cross-entropy " + fixed_number(loss, 4) + " nats\n");
      });
  trained.save(options.output);
  print("wrote " + options.output + ": " + std::to_string(trained.classes()) + " classes\n");
  std::string accuracy = "no test images at hand, so its accuracy is unknown";
  try {
    const Dataset test = Dataset::open(options.data, {.data_dir = folder, .split = Split::test});
    if (!test.labels().empty())
      accuracy = "accuracy " + fixed_number(100 * trained.accuracy(test), 2) + " % on " + std::to_string(test.rows()) +
                 " test images of " + text_in_quotes(options.data);
  } catch (const DataError& error) {  // the classifier is made; a set may have no test images
    warn(error.what());
  }
  print(accuracy + "\n");
  return 0;
}

}  // namespace

void add_classifier(CLI::App& program, Action& action) {
  auto options = std::make_shared<ClassifierOptions>();
  CLI::App* command =
      program.add_subcommand("classifier", "Trains the classifier in whose features eval compares images");
  command->add_option("--data", options->data, "Labelled image set: a name, a file or a folder")
      ->check(not_empty())
      ->capture_default_str();
  add_data_dir(*command, options->data_dir);
  command->add_option("-o,--out", options->output, "A .safetensors file")->required();
  command->add_option("--epochs", options->training.epochs, "Passes over the training images")
      ->check(whole_number(1, 100000))
      ->capture_default_str();
  command->add_option("--batch-size", options->training.batch_size, "Images of one step, at most as many as there are")
      ->check(whole_number(1, std::uint64_t{1} << 20))
      ->capture_default_str();
  command->add_option("--seed", options->training.seed, "Seed of weights and batches")
      ->check(whole_number(0, kLargestSeed))
      ->capture_default_str();
  command->add_option("--device", options->device, "cpu, cuda, cuda:N or auto")
      ->check(not_empty())
      ->capture_default_str();
  command->add_option("--threads", options->threads, "CPU threads; 0: one per processor")
      ->check(whole_number(0, kMostThreads))
      ->capture_default_str();
  command->callback([options, &action] { action = [options] { return classifier(*options); }; });
}

}  // namespace bracket
