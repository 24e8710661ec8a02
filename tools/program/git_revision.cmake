# Writes OUTPUT, a header with the revision of SOURCE_DIR; touched only when the revision changed.
# Run at build time: cmake -DSOURCE_DIR=... -DOUTPUT=... -P git_revision.cmake
set(revision unknown)
find_program(GIT git)
if(GIT)
  execute_process(COMMAND ${GIT} -C ${SOURCE_DIR} describe --always --dirty --abbrev=12 --exclude=*
    OUTPUT_VARIABLE described RESULT_VARIABLE failed OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  if(NOT failed)
    set(revision ${described})
  endif()
endif()
file(CONFIGURE OUTPUT ${OUTPUT} CONTENT "#pragma once\n#define BRACKET_REVISION \"${revision}\"\n" @ONLY)
