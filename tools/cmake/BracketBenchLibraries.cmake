# NVIDIA's libraries beside whose kernels bracket_bench measures ours (bench/libraries). Each is used where it is found;
# where it is not, its cases are left out, and configuring says so.
#
# bracket_bench_library(<name> <sources>... [TARGETS <targets>...]): of a library whose targets exist.
function(bracket_bench_library name)
  cmake_parse_arguments(PARSE_ARGV 1 library "" "" "TARGETS")
  foreach(target IN LISTS library_TARGETS)
    if(NOT TARGET ${target})
      message(STATUS "Benchmarks beside ${name}: left out, it was not found")
      return()
    endif()
  endforeach()
  if(library_UNPARSED_ARGUMENTS)
    target_sources(bracket_bench PRIVATE ${library_UNPARSED_ARGUMENTS})
  endif()
  target_link_libraries(bracket_bench PRIVATE ${library_TARGETS})
  string(TOUPPER ${name} upper)
  target_compile_definitions(bracket_bench PRIVATE BRACKET_WITH_${upper})
endfunction()

# Neither is among CUDAToolkit's targets.
find_path(BRACKET_CUDNN_INCLUDE cudnn.h HINTS ${CUDAToolkit_INCLUDE_DIRS})
find_library(BRACKET_CUDNN_LIBRARY cudnn HINTS ${CUDAToolkit_LIBRARY_DIR})
mark_as_advanced(BRACKET_CUDNN_INCLUDE BRACKET_CUDNN_LIBRARY)
if(BRACKET_CUDNN_INCLUDE AND BRACKET_CUDNN_LIBRARY AND NOT TARGET bracket_cudnn)
  add_library(bracket_cudnn INTERFACE)
  target_include_directories(bracket_cudnn SYSTEM INTERFACE ${BRACKET_CUDNN_INCLUDE})
  target_link_libraries(bracket_cudnn INTERFACE ${BRACKET_CUDNN_LIBRARY})
endif()
find_file(BRACKET_CUB_HEADER cub/device/device_transform.cuh PATHS ${CUDAToolkit_INCLUDE_DIRS} PATH_SUFFIXES cccl
  NO_DEFAULT_PATH)
mark_as_advanced(BRACKET_CUB_HEADER)
if(BRACKET_CUB_HEADER AND NOT TARGET bracket_cub)
  # Device code, with the flags of kernels; nvcc finds the headers by itself.
  add_library(bracket_cub OBJECT libraries/cub.cu)
  target_include_directories(bracket_cub PRIVATE ${PROJECT_SOURCE_DIR} ${PROJECT_SOURCE_DIR}/include)
  bracket_cuda_options(bracket_cub)
endif()

bracket_bench_library(cublas libraries/cublas.cpp TARGETS CUDA::cublas)
bracket_bench_library(cusolver libraries/cusolver.cpp TARGETS CUDA::cusolver)
bracket_bench_library(curand libraries/curand.cpp TARGETS CUDA::curand)
bracket_bench_library(cudnn libraries/cudnn.cpp libraries/cudnn_convolution.cpp TARGETS bracket_cudnn)
bracket_bench_library(cub TARGETS bracket_cub)
