// Training steps in a graph of the caller's, on the executor.
#pragma once

#include <gtest/gtest.h>

#include "simt/cuda_runtime_shim.h"
#include "tests/trainer_fixture.h"

namespace bracket::test {

/// `steps_before` steps, then one captured by the caller and replayed three times, against as many launched one by one.
inline void expect_captured_steps(ContextOptions options, const TrainerConfig& config, const Dataset& data,
                                  std::int64_t steps_before) {
  cudaStream_t stream = nullptr;
  ASSERT_EQ(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
  {
    options.stream = stream;
    ContextOptions plain_options;
    plain_options.graphs = false;
    Context captured(options, simt::make_cuda_ops(0, stream, {}));
    Context plain(plain_options, simt::make_cuda_ops(0, nullptr, {}));
    Trainer a(captured, config, data), b(plain, config, data);
    a.run(steps_before);
    ASSERT_EQ(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), cudaSuccess);
    a.run(1);
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t executable = nullptr;
    ASSERT_EQ(cudaStreamEndCapture(stream, &graph), cudaSuccess);
    ASSERT_EQ(cudaGraphInstantiateWithFlags(&executable, graph, 0), cudaSuccess);
    for (int i = 0; i < 3; ++i) ASSERT_EQ(cudaGraphLaunch(executable, stream), cudaSuccess);
    b.run(steps_before + 3);
    const std::vector<double> points = random_matrix(5, data.cols(), 4, -1, 1).values;
    EXPECT_EQ(a.energies(points, 5), b.energies(points, 5));
    EXPECT_EQ(cudaGraphExecDestroy(executable), cudaSuccess);
    EXPECT_EQ(cudaGraphDestroy(graph), cudaSuccess);
  }
  EXPECT_EQ(cudaStreamDestroy(stream), cudaSuccess);
}

}  // namespace bracket::test
