# Decides BRACKET_WITH_CUDA from BRACKET_CUDA and enables the language. Sets nothing else for a parent project.
set(BRACKET_WITH_CUDA OFF)
if(NOT BRACKET_CUDA STREQUAL "OFF")
  # `native` fails to configure without a GPU, so it is never the default; sm_80 and sm_90 code plus PTX for newer chips.
  if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES AND NOT DEFINED ENV{CUDAARCHS})
    set(CMAKE_CUDA_ARCHITECTURES 80-real 90-real 90-virtual)
  endif()
  include(CheckLanguage)
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    enable_language(CUDA)
    find_package(CUDAToolkit REQUIRED)
    set(BRACKET_WITH_CUDA ON)
  elseif(BRACKET_CUDA STREQUAL "ON")
    message(FATAL_ERROR "BRACKET_CUDA=ON but no CUDA compiler was found; put nvcc on PATH or set CUDACXX")
  endif()
endif()

# bracket_cuda_options(<target>): C++20 for device code (CMake 3.25 has no CUDA_STANDARD 20 for nvcc), line information,
# and the registers and spills of each kernel in a file beside its object, for tools/ptxas_table.py.
function(bracket_cuda_options target)
  set(cuda $<COMPILE_LANGUAGE:CUDA>)
  target_compile_options(${target} PRIVATE
    $<${cuda}:-std=c++20 -lineinfo --expt-relaxed-constexpr -Xptxas=-v -Xcompiler=-Wall,-Wextra>
    $<$<AND:${cuda},$<BOOL:${BRACKET_WERROR}>>:-Werror=all-warnings>)
  set_target_properties(${target} PROPERTIES CUDA_RUNTIME_LIBRARY Static CUDA_SEPARABLE_COMPILATION OFF
    RULE_LAUNCH_COMPILE "\"${PROJECT_SOURCE_DIR}/tools/cmake/ptxas_log.sh\" <OBJECT>")
endfunction()
