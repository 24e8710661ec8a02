# The installed package: find_package(bracket) gives bracket::core, and bracket::cuda where it was built with CUDA.
include(CMakePackageConfigHelpers)

set(package_folder ${CMAKE_INSTALL_LIBDIR}/cmake/bracket)
install(TARGETS bracket_core EXPORT bracket-targets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/bracket DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(FILES ${PROJECT_SOURCE_DIR}/LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})
# The mathematics that headers refer to.
install(FILES ${PROJECT_SOURCE_DIR}/kernels/README.md DESTINATION ${CMAKE_INSTALL_DOCDIR}/kernels)
if(TARGET bracket)
  install(TARGETS bracket RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()
install(EXPORT bracket-targets NAMESPACE bracket:: DESTINATION ${package_folder})
export(EXPORT bracket-targets NAMESPACE bracket:: FILE ${PROJECT_BINARY_DIR}/bracket-targets.cmake)

configure_package_config_file(${CMAKE_CURRENT_LIST_DIR}/bracket-config.cmake.in
  ${PROJECT_BINARY_DIR}/bracket-config.cmake INSTALL_DESTINATION ${package_folder})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/bracket-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/bracket-config.cmake ${PROJECT_BINARY_DIR}/bracket-config-version.cmake
  DESTINATION ${package_folder})
