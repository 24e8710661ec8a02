# Flags shared by every target of this project. A function, not a linked target, so that nothing leaks to consumers.

# bracket_cpu_arch_flags(<out>): the instruction set of the CPU kernels. Only kernels/cpu gets it (and the executor of the
# CUDA kernels in tests/): the rest starts on any processor and can say what it lacks.
function(bracket_cpu_arch_flags out)
  set(flags)
  if(BRACKET_CPU_ARCH STREQUAL "native")
    set(flags -march=native)
  elseif(BRACKET_CPU_ARCH STREQUAL "x86-64-v3")
    if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
      set(flags -march=x86-64-v3)
    endif()
  elseif(NOT BRACKET_CPU_ARCH STREQUAL "baseline")
    message(FATAL_ERROR "BRACKET_CPU_ARCH is '${BRACKET_CPU_ARCH}'; use x86-64-v3, native or baseline")
  endif()
  set(${out} ${flags} PARENT_SCOPE)
endfunction()

# bracket_target_options(<target>): warnings, exact arithmetic, sanitizers; all PRIVATE.
function(bracket_target_options target)
  set_target_properties(${target} PROPERTIES CXX_EXTENSIONS OFF POSITION_INDEPENDENT_CODE ON)
  target_compile_features(${target} PRIVATE cxx_std_20)
  set(cxx $<COMPILE_LANGUAGE:CXX>)
  target_compile_options(${target} PRIVATE
    $<${cxx}:-Wall -Wextra -Wpedantic -Wshadow -Wconversion>
    # GCC 12 sees overlapping copies in string concatenation that are not there (its bug 105651, mended in 13).
    $<$<AND:${cxx},$<CXX_COMPILER_ID:GNU>,$<VERSION_LESS:$<CXX_COMPILER_VERSION>,13>>:-Wno-restrict>
    $<$<AND:${cxx},$<BOOL:${BRACKET_WERROR}>>:-Werror>)
  # Exceptions and signed arithmetic stay exact; only errno, which nothing here reads, is given up.
  # OpenMP serves as vectorisation hints alone; its runtime is not used.
  target_compile_options(${target} PRIVATE $<${cxx}:-fno-math-errno -fno-trapping-math -ffp-contract=off -fopenmp-simd>)
  if(BRACKET_SANITIZE)
    # The two left out take a third of the time to compile; a wrong address itself is what address looks for.
    target_compile_options(${target} PRIVATE
      $<${cxx}:-fsanitize=${BRACKET_SANITIZE} -fno-sanitize=object-size,pointer-overflow -fno-sanitize-recover=all>
      $<${cxx}:-fno-omit-frame-pointer -g1>)
    target_link_options(${target} PRIVATE -fsanitize=${BRACKET_SANITIZE})
  endif()
endfunction()

# bracket_objects(<out> <target> <folder> <source>...): the sources of a target of that folder ("." for the top); where
# BRACKET_TEST_OBJECTS names a finished build, the objects that it made of them.
function(bracket_objects out target folder)
  set(sources ${ARGN})
  if(BRACKET_TEST_OBJECTS)
    list(TRANSFORM sources PREPEND ${BRACKET_TEST_OBJECTS}/${folder}/CMakeFiles/${target}.dir/)
    list(TRANSFORM sources APPEND ${CMAKE_CXX_OUTPUT_EXTENSION})
    set_source_files_properties(${sources} PROPERTIES EXTERNAL_OBJECT ON)
  endif()
  set(${out} ${sources} PARENT_SCOPE)
endfunction()
